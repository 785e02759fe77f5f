"""Sends requests to a loader on the chip and returns its replies: blocking I/O, timeouts and attempts.

``protocol.reply_matcher`` decides which reply belongs to which request.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import IntEnum
from itertools import count
from typing import Literal, NamedTuple, Protocol

from espwire.errors import CommandFailed, DeviceError, NoReply, ToolError, Unsupported
from espwire.protocol import slip
from espwire.protocol.commands import (
    Command,
    ReadReg,
    RegWrite,
    Reply,
    Sync,
    WriteReg,
    parse_command,
    parse_request,
)
from espwire.protocol.dialect import Dialect
from espwire.protocol.opcodes import Op
from espwire.protocol.replies import NOT_ACCEPTED, status_meaning
from espwire.protocol.reply_matcher import (
    SYNC_REPLIES,
    ChipReset,
    Input,
    Refusal,
    ReplyMatcher,
    State,
)
from espwire.protocol.stub import STUB_COMMANDS, Abort, StubOp, name_op, refuses, seal
from espwire.settings import Settings
from espwire.transport.base import Transport

MAGIC_ADDRESS = 0x40001000  # identifies some chips; mask ROM or nothing on the others
BITS_PER_BYTE = 10  # on the line: start, eight, stop
SENT_AHEAD = 0x8000  # bytes that may still be on their way: a window of our stub
QUIET = (
    0.05  # seconds of silence after which nothing more is under way, a bridge's latency included
)
PAUSE_BETWEEN_SYNCS = 0.05  # after the time limit; a reply over a slow link may arrive in it
PACKETS_KEPT = 200
HEADER_BYTES = 8  # of a request
_TOKENS = count(0x5A0001)  # of ABORT


class Packet(NamedTuple):
    """One request (its bytes before SLIP) or one reply. ``time``: seconds on the transport's clock."""

    time: float
    content: bytes | Reply

    def __repr__(self) -> str:
        if isinstance(self.content, bytes):
            return f"<Packet {self.time:.4f} s, request, {len(self.content)} bytes>"
        return f"<Packet {self.time:.4f} s, reply {self.content.op:#04x}, {len(self.content.body)} bytes>"

    @property
    def command(self) -> Command | None:
        """The decoded request; None for a reply and for an unknown opcode."""
        request = parse_request(self.content) if isinstance(self.content, bytes) else None
        if request is None:
            return None
        ours = STUB_COMMANDS.get(request.op)
        return parse_command(request) if ours is None else ours.parse(request.body)


OnPacket = Callable[[Packet], None]
Direction = Literal["write", "read"]  # of a transfer to or from flash


class Tuner(Protocol):
    """Chooses the baud rate and the window of transfers; see ``line_tuner.py``."""

    stable_baud: int | None  # at which the last transfer was completed

    def tune(self, direction: Direction, size: int) -> None:
        """Look for the best rate for ``size`` bytes on the line."""

    def note(self, direction: Direction, size: int) -> None:
        """``size`` bytes were transferred completely."""

    def has_small_window(self, direction: Direction) -> bool:
        """Whether few bytes may be on their way at once."""

    def is_bad(self, direction: Direction, losses: int, lost_share: float) -> bool:
        """Whether a transfer that lost this share of its time should continue in another way."""

    def leave(self, direction: Direction, lost_share: float) -> bool:
        """Use another rate, or a small window. False: none is better."""


class Attempts:
    """Counts the failed attempts of one operation.

    The pattern is ``while True: try: return operation() except NoReply as error: attempts.failed(error)``.

    :param limit: attempts at one place without progress; 0: without limit
    :param total: attempts at all places together; 0: without limit
    """

    def __init__(self, limit: int, total: int = 0) -> None:
        self.limit, self.total = limit, total
        self._failures: Counter[int] = Counter()

    def failed(self, error: ToolError, place: int = 0) -> None:
        """Count a failure; raise ``error`` if that was the last attempt.

        :param place: how far the operation came, for operations that continue where they failed
        """
        self._failures[place] += 1
        if self._failures[place] == self.limit or self._failures.total() == self.total:
            raise error


class Loader:
    """One conversation with a ROM bootloader or a stub.

    ``dialect`` may be replaced when another loader runs. ``secure``: Secure Download Mode, in which only the dialect's
    ``secure_ops`` are sent. ``baud`` is used for timeouts only. ``trips`` counts requests, ``lost`` those without a
    reply. ``packets`` holds the last 200 packets; ``on_packet`` is called with each and must not use the loader.
    ``sync_reply_bytes``: size of the body of a ROM's last reply to SYNC, 0 for a stub. ``tuner``: None: the rate stays.
    """

    def __init__(
        self,
        transport: Transport,
        dialect: Dialect,
        settings: Settings | None = None,
        *,
        secure: bool = False,
    ) -> None:
        self.transport, self.dialect, self.secure = transport, dialect, secure
        self.settings = settings or Settings()
        self.baud = 115200
        self.trips = self.lost = self.sync_reply_bytes = 0
        self.packets: deque[Packet] = deque(maxlen=PACKETS_KEPT)
        self.on_packet: OnPacket | None = None
        self.tuner: Tuner | None = None
        self._matcher = ReplyMatcher()
        self._deferred = b""
        self._hides = False

    @property
    def round_trip(self) -> float:
        """Seconds that the network adds to each reply."""
        return self.transport.info.round_trip

    @property
    def text(self) -> str:
        """What came and was not a reply: boot messages, panics, noise. At most 64 KiB, printable characters only."""
        return self._matcher.text

    @property
    def captures(self) -> tuple[bytes, ...]:
        """The raw bytes received before the first reply to SYNC, one item per ``forget_input`` and one since then."""
        return tuple(bytes(capture) for capture in self._matcher.captures)

    @property
    def line_hint(self) -> str:
        """The hint for errors of a line that loses data."""
        first = "Lower --baud, and check" if self.transport.info.can_change_baud else "Check"
        return f"{first} cable and supply."

    def supports(self, op: IntEnum) -> bool:
        """Whether ``op`` may be sent now."""
        return op in (self.dialect.secure_ops if self.secure else self.dialect.ops)

    def require(self, op: IntEnum) -> None:
        """Check that ``op`` may be sent now.

        :raises Unsupported: code ``secure-download-mode`` where only that mode forbids it
        """
        if not self.supports(op):
            raise _unsupported(op, self.dialect, secure=self.secure)

    def call(
        self,
        command: Command,
        *,
        timeout: float | None = None,
        result: int = 0,
        repeatable: bool = False,
    ) -> Reply:
        """Send ``command`` and return its reply, whose body then holds ``result`` bytes.

        :param timeout: seconds on the transport's clock, ``settings.timing.default`` if None
        :param repeatable: send again if no reply comes, because the chip may carry this command out twice
        :raises Unsupported: before anything is sent; code ``secure-download-mode`` where only that mode forbids it
        :raises NoReply: nothing came in time
        :raises CommandFailed: the loader refused
        :raises DeviceError: code ``chip-reset``: the chip has reset
        """
        reply = self.request(command, timeout, repeatable=repeatable)
        return self.check_status(reply, result)

    def request(
        self, command: Command, timeout: float | None = None, *, repeatable: bool = False
    ) -> Reply:
        """Send ``command`` and return its reply without checking the status.

        :raises Unsupported, NoReply, DeviceError: as ``call``
        """
        self.require(command.op)
        attempts = Attempts(self.settings.retry.request_attempts if repeatable else 1)
        while True:
            try:
                return self.exchange(command.op, command.packet(), timeout)
            except NoReply as error:
                attempts.failed(error)

    def read_reg(self, address: int) -> int:
        """The word at ``address``."""
        return self.call(ReadReg(address), repeatable=True).value

    def write_regs(self, *writes: RegWrite) -> None:
        """Carry out ``writes`` in order, in one request. See ``spi.write_group`` for loaders that take only one group."""
        self.call(WriteReg(writes))

    def exchange(self, op: IntEnum, packet: bytes, timeout: float | None = None) -> Reply:
        """Send one packet and return the reply with its opcode, status unchecked.

        Our stub does not carry out a request that arrives damaged, and reports it: it is then sent again.
        """
        if not self.dialect.sealed:
            return self._exchange(op, packet, timeout)
        packet = seal(packet)
        for attempt in range(self.settings.retry.damaged_attempts):
            reply = self._exchange(op, packet, timeout)
            refused = refuses(reply, packet)
            if attempt or refused:
                self._matcher.advance(Input.DOUBT)  # if noise was refused, two replies come
            if not refused:
                break
        return reply

    def sync(self, attempts: int | None = None, *, timeout: float | None = None) -> int:
        """Find a loader. Returns the value field of its reply: 0 for the vendor's stub and ours, else a ROM.

        A lone END is sent first, because a loader that was left in the middle of a frame needs one (field notes).

        :raises NoReply: no reply to any of ``attempts``
        """
        attempts = attempts or self.settings.retry.syncs_per_attempt
        seconds = self.settings.timing.sync + PAUSE_BETWEEN_SYNCS if timeout is None else timeout
        packet = self._seal(Sync().packet())
        for left in reversed(range(attempts)):
            self._matcher.advance(Input.SYNC, packet)
            self.listen()
            self.trips += 1
            self._log(packet)
            now = self.transport.now()
            self.transport.write(slip.END + slip.encode(packet), now + self.settings.timing.write)
            pause = (PAUSE_BETWEEN_SYNCS if left else 0.0) + self.round_trip
            value = self._receive_sync_value(self.transport.now() + seconds + pause)
            if value is not None:
                self._matcher.advance(Input.DONE)
                return value
        self._matcher.advance(Input.LOST)
        raise NoReply(f"no answer to {attempts} SYNC requests")

    def abort(self) -> None:
        """End whatever our stub does, so that the next reply belongs to the next request.

        :raises NoReply: the stub does not answer any more
        """
        self.drain_input(longest=0.2)
        for attempt in range(self.settings.retry.abort_attempts):
            if self.try_abort(self.settings.timing.default * (1 + attempt) / 2):
                return
        raise NoReply(
            "the stub does not answer any more",
            hint=f"Reset the board. If it happens again: {self.line_hint}",
        )

    def try_abort(self, seconds: float) -> bool:
        """As ``abort``, once; whether our stub answers within ``seconds``."""
        token = next(_TOKENS)
        self.send(Abort(token).packet(), ends=2)
        deadline = self.transport.now() + seconds + self.round_trip
        while (left := deadline - self.transport.now()) > 0:
            reply = self.receive(StubOp.ABORT, left)
            if reply is not None and reply.body == b"\0\0" and reply.value == token:
                self.end_pipeline()
                return True
            if reply is not None and reply.body != b"\0\0":
                break  # the request arrived damaged
        return False

    def begin_pipeline(self) -> None:
        """Make sure that the next reply belongs to the next request. Before ``send``; ``exchange`` does it itself."""
        if self._matcher.needs_sync:
            if self.dialect.capabilities is not None:
                self.abort()
            else:
                self.drain_input()
                timing, retry = self.settings.timing, self.settings.retry
                self.sync(retry.resync_attempts, timeout=timing.default)
        self.listen()

    def send(self, *packets: bytes, ends: int = 0) -> None:
        """Send packets without waiting. ``receive`` returns their replies; ``end_pipeline`` ends that.

        :param ends: lone ENDs before the packets, which end whatever frame the chip is in
        """
        packets = tuple(map(self._seal, packets))
        self._matcher.advance(Input.SEND, *packets)
        for packet in packets:
            self._log(packet)
        self.trips += 1
        frames = self._take_deferred() + slip.END * ends + b"".join(map(slip.encode, packets))
        on_the_line = (SENT_AHEAD + len(frames)) * BITS_PER_BYTE / self.baud
        self.transport.write(
            frames, self.transport.now() + self.settings.timing.write + on_the_line
        )

    def send_later(self, packet: bytes) -> None:
        """Send ``packet`` together with the next request; its reply is ignored."""
        self._deferred = slip.encode(self._seal(packet))

    def receive(self, op: IntEnum, timeout: float) -> Reply | None:
        """The next reply with ``op``, or None when ``timeout`` is up; 0: if it is here already."""
        return self._await_reply(op, self.transport.now() + timeout)

    def receive_frame(self, timeout: float) -> bytes | None:
        """The content of the next frame, which need not be a reply, or None when ``timeout`` is up."""
        deadline = self.transport.now() + timeout
        while (frame := self._matcher.next_frame()) is None:
            left = deadline - self.transport.now()
            data = self.transport.read(left) if left > 0 else b""
            if not data:
                return None
            self._matcher.feed(data)
        return frame

    def end_pipeline(self) -> None:
        """All replies to what was sent have been received."""
        self._matcher.advance(Input.DONE)

    def check_status(self, reply: Reply, result: int) -> Reply:
        """The reply without its status.

        The status byte alone decides; the byte after it is stale on success. A body shorter than result and
        status begins with the status.

        :raises CommandFailed: the status is a failure, or the result is missing
        """
        body = reply.body
        whole = len(body) >= result + 2
        status = body[result : result + 2] if whole else body[:2]
        if whole and not status[0]:
            return reply if len(body) == result else Reply(reply.op, reply.value, body[:result])
        name = name_op(reply.op)
        if len(status) < 2 or not status[0]:
            raise CommandFailed(
                f"{name}: the reply is too short ({len(body)} bytes)", command=name, status=0
            )
        code = int.from_bytes(status, "big")
        if status[1] == NOT_ACCEPTED:
            # perhaps noise was refused, and the reply to the request is still to come
            self._matcher.advance(Input.DOUBT)
        raise CommandFailed(
            f"{name} failed: {status_meaning(status)} ({code:#06x})", command=name, status=code
        )

    def listen(self, timeout: float = 0.0) -> bytes:
        """What arrives within ``timeout`` seconds. Replies are dropped, text is kept."""
        if data := self.transport.read(timeout):
            self._matcher.feed(data)
        self._discard()
        return data

    def drain_input(self, quiet: float = QUIET, longest: float = 1.0) -> None:
        """Read until nothing has come for ``quiet`` seconds, at most ``longest``. Replies are dropped, text is kept."""
        quiet, longest = quiet + self.round_trip, longest + self.round_trip
        deadline = self.transport.now() + longest
        self._discard()
        while (left := deadline - self.transport.now()) > 0 and self.listen(min(quiet, left)):
            pass

    def forget_input(self) -> None:
        """Drop all input and text because the chip is about to be reset; ``captures`` keeps it."""
        self._matcher.restart(self.transport.read(0.0))
        self.transport.discard_input()
        self._deferred = b""

    def _seal(self, packet: bytes) -> bytes:
        return seal(packet) if self.dialect.sealed else packet

    def _exchange(self, op: IntEnum, packet: bytes, timeout: float | None) -> Reply:
        self.begin_pipeline()
        self._matcher.advance(Input.REQUEST, packet)
        self.trips += 1
        self._log(packet)
        frames = self._take_deferred() + slip.encode(packet)
        self.transport.write(frames, self.transport.now() + self.settings.timing.write)
        seconds = self.settings.timing.default if timeout is None else timeout
        on_the_way = len(frames) * BITS_PER_BYTE / self.baud + self.round_trip
        reply = self._await_reply(op, self.transport.now() + seconds + on_the_way)
        if reply is None:
            self._matcher.advance(Input.LOST)
            self.lost += 1
            raise NoReply(
                f"no answer to {op.name} within {seconds:g} s", command=op.name, seconds=seconds
            )
        return reply

    def _take_deferred(self) -> bytes:
        """The frames to send with the next request."""
        frames, self._deferred = self._deferred, b""
        return frames

    def _await_reply(self, op: IntEnum, deadline: float) -> Reply | None:
        """The reply, or None when time is up; reads at least once."""
        transport, matcher = self.transport, self._matcher
        waited = False
        while True:
            event = matcher.next_event(op, self.dialect)
            if event is None:
                left = deadline - transport.now()
                if (left <= 0 and waited) or not (data := transport.read(max(left, 0.0))):
                    return None
                matcher.feed(data)
                waited = True
            elif isinstance(event, Reply):
                self._log(event)
                return event
            elif isinstance(event, Refusal):
                self._drain_refusals()
                reply = Reply(op, event.value, event.body)
                self._log(reply)
                return reply
            elif isinstance(event, ChipReset):
                raise self._build_reset_error()

    def _receive_sync_value(self, deadline: float) -> int | None:
        """The value in a reply to SYNC. It is 0 only if it is so in all eight replies: then a stub answers."""
        matcher = self._matcher
        reply = self._await_reply(Op.SYNC, deadline)
        if reply is None:
            return None
        while matcher.state is State.RESYNCING and matcher.sync_replies_due >= SYNC_REPLIES:
            if self._await_reply(Op.SYNC, self.transport.now() + QUIET + self.round_trip) is None:
                break  # replies to an earlier SYNC were lost
        deadline = self.transport.now() + self.settings.timing.sync + self.round_trip
        for _ in range(SYNC_REPLIES - 1):
            if reply is None or reply.value:
                break
            reply = self._await_reply(Op.SYNC, deadline)
        from_rom = reply is not None and reply.value != 0
        self.sync_reply_bytes = len(reply.body) if reply is not None and from_rom else 0
        return reply.value if reply is not None else 0

    def _drain_refusals(self) -> None:
        """Let the copies of a refusal pass, so that none of them is taken for the next one."""
        deadline = self.transport.now() + 1.0  # a chip may go on talking
        self._discard()
        while self._matcher.state is State.REFUSED and self.transport.now() < deadline:
            if not self.listen(QUIET + self.round_trip):
                break
        if self._matcher.state is State.REFUSED:
            self._matcher.advance(Input.DONE)

    def _discard(self) -> None:
        if self._matcher.discard(self.dialect) is not None:
            raise self._build_reset_error()

    def _build_reset_error(self) -> DeviceError:
        return DeviceError(
            "the chip reset unexpectedly during the operation",
            hint="Check the power supply and the reset wiring, then run the command again.",
            code="chip-reset",
            text=self.text[-1024:],
        )

    @contextmanager
    def confidential(self) -> Iterator[None]:
        """Keep the content of packets out of ``packets`` and ``on_packet``: zeros take its place."""
        before, self._hides = self._hides, True
        try:
            yield
        finally:
            self._hides = before

    def _log(self, content: bytes | Reply) -> None:
        if self._hides and isinstance(content, Reply):
            content = Reply(content.op, 0, bytes(len(content.body)))
        elif self._hides and isinstance(content, bytes):
            content = content[:HEADER_BYTES] + bytes(len(content) - HEADER_BYTES)
        packet = Packet(self.transport.now(), content)
        self.packets.append(packet)
        if self.on_packet is not None:
            self.on_packet(packet)


def _unsupported(op: IntEnum, dialect: Dialect, *, secure: bool) -> Unsupported:
    if secure and op in dialect.ops:
        return Unsupported(
            f"the chip does not accept {op.name} in Secure Download Mode",
            hint="Use write-flash only: the mode is permanent, and flash cannot be read or verified.",
            code="secure-download-mode",
            command=op.name,
        )
    hint = "Omit --no-stub, or use a chip that has a stub flasher."
    return Unsupported(
        f"this chip's {dialect.name} loader does not support {op.name}",
        hint=hint if dialect.name == "ROM" else None,
        command=op.name,
    )


class LossLimit:
    """Ends a long read over a line that loses too many replies.

    A ROM answers one request of 4 or 64 bytes at a time, and each lost reply costs a whole timeout. Retrying repairs a
    good line; on a bad one the waiting would grow with the size of the read. So the number of lost replies is limited
    for the whole read: ``lost_replies`` at first, then a share of the requests. Counts from its creation; each read has
    one, which also covers its repetitions.
    """

    def __init__(self, loader: Loader) -> None:
        self._loader, self._lost, self._trips = loader, loader.lost, loader.trips

    def check(self) -> None:
        """Stop if too many replies were lost.

        :raises NoReply: code ``line-too-bad``
        """
        policy = self._loader.settings.retry
        lost, trips = self._loader.lost - self._lost, self._loader.trips - self._trips
        if lost > policy.lost_replies + trips // policy.requests_per_lost_reply:
            raise NoReply(
                f"the connection is too unreliable: {lost:,} of {trips:,} requests were not answered",
                hint=self._loader.line_hint,
                code="line-too-bad",
                lost=lost,
                requests=trips,
            )
