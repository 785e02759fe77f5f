"""Places of a labgrid laboratory: the port ``labgrid://PLACE``.

labgrid's coordinator keeps a list of places, and exporters on other computers provide their serial ports. A place can be
used by one user at a time, who acquires and releases it. The coordinator does not notice the end of a client, so a
process of its own (place_keeper.py) holds the place and releases it when its standard input ends: also if this process
crashes or is killed. Only that process imports labgrid and gRPC.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from espwire.errors import PortBusy, ToolError, UsageError
from espwire.transport.base import CancelToken, Transport

DEFAULT_COORDINATOR = "127.0.0.1:20408"
START = (
    "import sys; sys.path[:] = sys.argv.pop(1).split('\\n');"
    " from espwire.transport.place_keeper import main; main()"
)
ANSWER_S = 90.0  # more than the keeper's own limits together
RELEASE_S = 30.0
POLL_S = 0.05
# who has acquired a place has its port alone, but the server may notice only after a moment that the last client is gone
OPEN_ATTEMPTS, OPEN_PAUSE_S = 30, 0.1
KEYS = ("coordinator", "resource", "acquired")


class PlaceError(ToolError):
    """A place cannot be acquired, or has no usable serial port."""

    code = "place"
    exit_code = 3
    hint = "Check the place with `labgrid-client show`."


@dataclass(frozen=True)
class PlaceName:
    """The parts of a URL. ``resource``: the serial port; empty: the only one. ``acquired``: the user may hold it already."""

    place: str
    coordinator: str
    resource: str = ""
    acquired: bool = False


def find_coordinator() -> str:
    """The address in LG_COORDINATOR, else labgrid's default."""
    return os.environ.get("LG_COORDINATOR", "").strip() or DEFAULT_COORDINATOR


def parse_place(url: str) -> PlaceName:
    """The parts of ``labgrid://PLACE?coordinator=HOST:PORT&resource=NAME&acquired=yes``.

    :raises UsageError: code ``bad-port``
    """
    form = "Write labgrid://PLACE, with ?coordinator=HOST:PORT, resource=NAME or acquired=yes."
    parts = urlsplit(url)
    values = dict(parse_qsl(parts.query, keep_blank_values=True))
    wrong = [key for key in values if key not in KEYS]
    if not parts.netloc or parts.path not in ("", "/") or wrong or parts.fragment:
        what = f"unknown option {wrong[0]!r}" if wrong else "not a place"
        raise UsageError(f"{url!r}: {what}", hint=form, code="bad-port")
    acquired = values.get("acquired", "no").lower()
    if acquired not in ("yes", "no"):
        raise UsageError(f"{url!r}: acquired is yes or no", hint=form, code="bad-port")
    return PlaceName(
        unquote(parts.netloc),
        values.get("coordinator") or find_coordinator(),
        values.get("resource", ""),
        acquired == "yes",
    )


def list_places(pattern: str) -> list[str]:
    """The URLs of the places whose names fit a shell pattern such as ``esp32c3-*``, in order.

    :raises PlaceError: codes ``no-place``, ``no-coordinator``, ``no-labgrid``
    """
    keeper = _Keeper({"coordinator": find_coordinator(), "pattern": pattern}, CancelToken())
    keeper.close()
    return [f"labgrid://{quote(name, safe='')}" for name in keeper.answer["places"]]


class HeldPlace:
    """An acquired place, until ``release``. ``url``: its serial port, for ``open_transport``.

    :raises UsageError: code ``bad-port``
    :raises PlaceError: it cannot be acquired
    """

    def __init__(self, url: str, cancel: CancelToken | None = None) -> None:
        name = parse_place(url)
        request = {
            "coordinator": name.coordinator,
            "place": name.place,
            "resource": name.resource,
            "acquired": name.acquired,
        }
        self._keeper = _Keeper(request, cancel or CancelToken())
        self.url: str = self._keeper.answer["url"]

    def release(self) -> None:
        """Release the place and wait until that is done; a second time does nothing."""
        self._keeper.close()


class _Keeper:
    """The process that holds a place. ``answer``: its first line."""

    def __init__(self, request: dict[str, Any], cancel: CancelToken) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", START, "\n".join(sys.path), json.dumps(request)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=sys.platform != "win32",
            creationflags=getattr(subprocess, "CREATE_NEW_PROCESS_GROUP", 0),
        )
        self._lines: SimpleQueue[bytes] = SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            self.answer = self._receive(cancel)
        except BaseException:
            self.close()
            raise

    def _read(self) -> None:
        assert self._process.stdout is not None
        self._lines.put(self._process.stdout.readline())

    def _receive(self, cancel: CancelToken) -> dict[str, Any]:
        deadline, line = time.monotonic() + ANSWER_S, b""
        while not line and time.monotonic() < deadline:
            cancel.check()
            with suppress(Empty):
                line = self._lines.get(timeout=POLL_S)
                break
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            raise PlaceError(
                "the process that talks to the labgrid coordinator ended or does not answer",
                hint="Check the installation with `labgrid-client places`.",
                code="place-keeper",
            ) from None
        if "code" in answer:
            raise PlaceError(answer["message"], hint=answer["hint"], code=answer["code"])
        return answer

    def close(self) -> None:
        """Have the process release the place and end; a second time does nothing."""
        process = self._process
        assert process.stdin is not None
        with suppress(OSError):
            process.stdin.close()
        with suppress(subprocess.TimeoutExpired):  # then it goes on trying without this process
            process.wait(RELEASE_S)
            assert process.stdout is not None
            self._reader.join()
            process.stdout.close()


def open_patiently(open_once: Callable[[], Transport], cancel: CancelToken) -> Transport:
    """Open a port; if it is still busy, try again for a few seconds.

    :raises PortBusy: it stays busy
    """
    for _ in range(OPEN_ATTEMPTS - 1):
        try:
            return open_once()
        except PortBusy:
            cancel.sleep(OPEN_PAUSE_S)
    return open_once()


class PlaceTransport:
    """The serial port of a place; closing it releases the place."""

    def __init__(self, url: str, held: HeldPlace, inner: Transport) -> None:
        self._held, self._inner = held, inner
        self.info = replace(inner.info, name=url)
        self.read, self.write, self.drain = inner.read, inner.write, inner.drain
        self.discard_input, self.set_baud = inner.discard_input, inner.set_baud
        self.set_lines, self.now, self.sleep = inner.set_lines, inner.now, inner.sleep

    def close(self) -> None:
        """Close the port and release the place; a second time does nothing."""
        try:
            self._inner.close()
        finally:
            self._held.release()
