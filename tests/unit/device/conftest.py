"""A link that plays a script on a simulated clock, written against recorded bytes and not against our encoder."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

import pytest

from espwire.chips.registry import load_chip
from espwire.device.loader import Loader
from espwire.transport.base import TransportInfo


class ScriptedLink:
    """``answer(request bytes)`` gives what the chip says, as (delay, bytes) pairs; every request is kept."""

    def __init__(self, answer: Callable[[bytes], list[tuple[float, bytes]]]) -> None:
        self.info = TransportInfo(name="scripted", kind="uart")
        self.sent: list[bytes] = []
        self.lines: list[tuple[bool | None, bool | None]] = []
        self.bauds: list[int] = []
        self._answer = answer
        self._now = 0.0
        self._due: deque[tuple[float, bytes]] = deque()

    def say(self, data: bytes, after: float = 0.0) -> None:
        self._due.append((self._now + after, data))

    def read(self, timeout: float) -> bytes:
        end = self._now + timeout
        if not self._due or self._due[0][0] > end:
            self._now = end
            return b""
        at, data = self._due.popleft()
        self._now = max(self._now, at)
        return data

    def write(self, data: bytes, deadline: float) -> None:
        self.sent.append(data)
        for delay, answer in self._answer(data):
            self.say(answer, delay)

    def drain(self) -> None: ...

    def discard_input(self) -> None:
        self._due.clear()

    def set_baud(self, baud: int) -> None:
        self.bauds.append(baud)

    def set_lines(self, *, dtr: bool | None = None, rts: bool | None = None) -> None:
        self.lines.append((dtr, rts))

    def now(self) -> float:
        return self._now

    def sleep(self, seconds: float) -> None:
        self._now += seconds

    def close(self) -> None: ...


SYNC = bytes.fromhex(
    "c0c00008240000000000070712205555555555555555555555555555555555555555555555555555555555555555c0"
)
SYNC_ANSWERS = bytes.fromhex("c0010804000707122000000000c0") * 8


@pytest.fixture
def scripted():
    """``scripted({request hex: answer hex or list of (delay, hex)}, chip="esp32")`` gives loader and link.

    A list of answers is used up one by one; a request that is not in the script is not answered.
    """

    def make(script=None, *, chip="esp32", secure=False):
        table = {bytes.fromhex(k): v for k, v in (script or {}).items()}
        table.setdefault(SYNC, SYNC_ANSWERS.hex())

        def answer(request):
            reply = table.get(request, [])
            if isinstance(reply, list):
                reply = reply.pop(0) if reply else []
            if isinstance(reply, str):
                reply = [(0.0, reply)]
            return [(delay, bytes.fromhex(text)) for delay, text in reply]

        transport = ScriptedLink(answer)
        return Loader(transport, load_chip(chip).rom, secure=secure), transport

    return make


@pytest.fixture
def link_with():
    """``link_with(answer)``: a ScriptedLink for an answering function."""
    return ScriptedLink
