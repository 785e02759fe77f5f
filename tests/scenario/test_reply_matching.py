"""No reply is ever matched to the wrong request, whatever the line does to the frames between host and ROM.

A state machine reads words of a virtual ROM's memory, one by one and in pipelines, over a line that loses, duplicates,
delays and damages frames, adds noise in both directions and prints boot text. Each word has its own value, so a
wrong match shows as a wrong value. The damage leaves opcode and value alone: a ROM's reply has no checksum, and
``double_read`` exists for that (``test_one_flipped_bit.py``).
"""

from __future__ import annotations

import random
from collections import deque

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test

from espwire import connect
from espwire.device.double_read import ask_together
from espwire.device.loader import Loader
from espwire.errors import DeviceError, NoReply
from espwire.protocol import slip
from espwire.protocol.commands import ReadReg, RegWrite
from espwire.protocol.reply_matcher import Input, ReplyMatcher, State
from espwire.settings import Settings, Timing
from espwire.transport.url import open_transport

RAM, WORDS = 0x3FC90000, 16  # data memory of the ESP32-C3
TIMING = Timing(default=0.2)
BANNER = b"ESP-ROM:esp32c3-api1-20210207\r\n"
LOG = b"I (31) boot: nothing of interest\r\n"
NOISE = bytes.fromhex("c000ff0400000000000000c0c055c0")
LATE_S = {"late": 0.19, "too late": 0.3, "much too late": 0.5}  # of this frame and those behind it
FAULTS = ["", "lose", "duplicate", "damage", *LATE_S]
LIMITS = settings(max_examples=120, stateful_step_count=20, deadline=None, derandomize=True)


def value_at(index: int) -> int:
    return 0x51000000 + 0x1010 * index


class Line:
    """Spoils what passes, as ``faults`` lists it: one entry per frame from the chip."""

    def __init__(self, transport) -> None:
        self.faults: deque[str] = deque()
        self._delay = 0.0
        self._transport, self._random = transport, random.Random(5)
        self._decoder, self._due = slip.Decoder(), deque()
        self._read, self._write = transport.read, transport.write
        transport.read, transport.write = self.read, self.write

    def write(self, data: bytes, deadline: float) -> None:
        self._write(data, deadline)

    def send_noise(self) -> None:
        self._write(NOISE, self._transport.now() + 1)

    def print_text(self, text: bytes) -> None:
        self._push(text + slip.END)

    def read(self, timeout: float) -> bytes:
        end = self._transport.now() + timeout
        while True:
            now, arrived = self._transport.now(), b""
            while self._due and self._due[0][0] <= now:
                arrived += self._due.popleft()[1]
            if arrived:
                return arrived
            until = min(end, self._due[0][0]) if self._due else end
            data = self._read(max(until - now, 0.0))
            for frame in self._decoder.feed(data):
                self._push(self._spoil(frame))
            if not data and until == end:
                return b""

    def _push(self, data: bytes) -> None:
        """Bytes stay in order, also when some are late."""
        due, self._delay = self._transport.now() + self._delay, 0.0
        if self._due:
            due = max(due, self._due[-1][0])
        if data:
            self._due.append((due, data))

    def _spoil(self, frame: bytes) -> bytes:
        fault = self.faults.popleft() if self.faults else ""
        if not self._due:  # one delay at a time: the loader takes a short silence for the end of what was under way
            self._delay = LATE_S.get(fault, 0.0)
        if fault == "lose":
            return b""
        if fault == "damage":
            at, bit = self._random.choice((0, 2, 3)), 1 << self._random.randrange(8)
            frame = frame[:at] + bytes([frame[at] ^ bit]) + frame[at + 1 :]
        return slip.encode(frame) * (2 if fault == "duplicate" else 1)


class Conversation(RuleBasedStateMachine):
    @initialize()
    def open(self) -> None:
        transport = open_transport("virtual:esp32c3?size=1MB&profile=instant")
        self.device = connect(transport, stub=False, settings=Settings(timing=TIMING))
        self.loader = self.device.loader
        writes = [RegWrite(RAM + 4 * index, value_at(index)) for index in range(WORDS)]
        self.loader.write_regs(*writes)
        self.line = Line(transport)
        self.banner = False

    def teardown(self) -> None:
        if hasattr(self, "device"):
            self.device.close()

    def read_words(self, indices: list[int]) -> None:
        """The invariant: every value that is returned is the one of the word that was requested."""
        commands = [ReadReg(RAM + 4 * index) for index in indices]
        try:
            if len(commands) == 1:
                replies = [self.loader.call(commands[0])]
            else:
                replies = ask_together(self.loader, commands)
        except NoReply:
            return
        except DeviceError as error:
            if error.code == "chip-reset" and not self.banner:
                raise
            return  # refused noise, or a banner
        assert [reply.value for reply in replies] == [value_at(index) for index in indices]

    @rule(index=st.integers(0, WORDS - 1))
    def read_one(self, index: int) -> None:
        self.read_words([index])

    @rule(indices=st.lists(st.integers(0, WORDS - 1), min_size=2, max_size=8))
    def read_several(self, indices: list[int]) -> None:
        # nothing tells a duplicate from the next reply of a pipeline: there are no sequence numbers
        self.line.faults = deque(fault for fault in self.line.faults if fault != "duplicate")
        self.read_words(indices)

    @rule(faults=st.lists(st.sampled_from(FAULTS), min_size=1, max_size=4))
    def spoil_the_next_replies(self, faults: list[str]) -> None:
        self.line.faults.extend(faults)

    @rule()
    def make_noise(self) -> None:
        self.line.send_noise()

    @rule(reset=st.booleans())
    def print_boot_text(self, reset: bool) -> None:
        self.line.print_text(BANNER if reset else LOG)
        self.banner = self.banner or reset

    @rule()
    def sync(self) -> None:
        try:
            self.loader.sync()
        except NoReply:
            return


def test_no_reply_is_matched_to_the_wrong_request() -> None:
    run_state_machine_as_test(Conversation, settings=LIMITS)


def test_without_resynchronisation_the_machine_finds_a_wrong_match(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def begin_pipeline(self: Loader) -> None:
        self._matcher.state = State.IN_STEP
        self.listen()

    monkeypatch.setattr(Loader, "begin_pipeline", begin_pipeline)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(Conversation, settings=LIMITS)


def test_a_request_is_refused_while_the_line_is_out_of_step() -> None:
    matcher = ReplyMatcher()
    matcher.advance(Input.REQUEST)
    matcher.advance(Input.LOST)
    assert matcher.needs_sync
    with pytest.raises(AssertionError, match="REQUEST is not possible in state OUT_OF_STEP"):
        matcher.advance(Input.REQUEST)
    for cause in (Input.SYNC, Input.REPLY, Input.DONE, Input.REQUEST):
        matcher.advance(cause)
    assert matcher.state is State.AWAITING
