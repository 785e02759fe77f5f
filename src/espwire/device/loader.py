"""Asks the loader, gets an answer: one class for every chip. Knows nothing of files, plans or people.

What comes in is sorted here: the answer to the request in hand, late answers of others, and text. A loader works
through its requests in turn and a link keeps bytes in order, so an answer to a SYNC proves that nothing older
is still on its way; that is how the stream is made sure again after a reply went missing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

from espwire.device.overheard import Overheard, find_text
from espwire.device.retry import Attempts
from espwire.errors import CommandFailed, NoReply, Unsupported
from espwire.protocol import slip
from espwire.protocol.commands import (
    Command,
    ReadReg,
    RegWrite,
    Reply,
    Sync,
    WriteReg,
    parse_command,
    parse_reply,
    parse_request,
)
from espwire.protocol.dialect import Dialect
from espwire.protocol.opcodes import Op
from espwire.protocol.replies import NOT_ACCEPTED, status_meaning
from espwire.protocol.stub import STUB_COMMANDS, name_op, refuses, seal, unseal
from espwire.settings import Settings
from espwire.transport.base import Transport

MAGIC_ADDRESS = 0x40001000  # tells some chips; mask ROM or nothing on the others
BITS_PER_BYTE = 10  # on the wire: start, eight, stop
QUIET = (
    0.05  # seconds of silence after which nothing more is under way, a bridge's latency included
)
SYNC_ANSWERS = 8
PAUSE_BETWEEN_SYNCS = 0.05
SENT_KEPT = 16  # packets that such a refusal may be about

PACKETS_KEPT = 200


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


class Loader:
    """One conversation with one loader.

    :param secure: Secure Download Mode: only the dialect's ``secure_ops`` are sent

    ``baud`` is the wire's rate, for time-outs only. ``trips`` counts requests sent. ``grouped`` tells whether this
    loader has been seen to carry out several groups of one WRITE_REG (None: not tried yet). ``packets`` holds the
    last 200 packets, requests and replies; ``on_packet`` is called with each and must not use the loader. ``ahead``: frames that go out with the next request, and whose answers
    nobody looks at: they are strangers then.
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
        self.trips = self.lost = 0  # round trips, and those of them that were not answered
        self.grouped: bool | None = None
        self.packets: deque[Packet] = deque(maxlen=PACKETS_KEPT)
        self.on_packet: OnPacket | None = None
        self._decoder = slip.Decoder()
        self._frames: list[bytes] = []
        self._overheard = Overheard()
        self.sync_bytes = 0  # in the body of a ROM's last answer to SYNC
        self.resync: Callable[[], None] | None = (
            None  # how to be sure of the next answer, where SYNC is not the way
        )
        self._dirty, self._last_op = False, 0
        self.ahead = b""
        self._sent: deque[bytes] = deque(maxlen=SENT_KEPT)

    @property
    def text(self) -> str:
        """What came and was no answer: boot messages, panics, noise. At most 64 KiB, printable characters only."""
        return self._overheard.show(self._unfinished_text())

    @property
    def heard(self) -> tuple[bytes, ...]:
        """Every byte that came while no loader answered yet, one item per ``forget_input`` and one for since then."""
        return tuple(bytes(part) for part in self._overheard.parts)

    def supports(self, op: IntEnum) -> bool:
        """Whether ``op`` may be sent now."""
        return op in (self.dialect.secure_ops if self.secure else self.dialect.ops)

    def require(self, op: IntEnum) -> None:
        """Raise what ``call`` would raise for a command that may not be sent now, before anything else is done.

        :raises Unsupported: code ``secure-download-mode`` where only that mode forbids it
        """
        if not self.supports(op):
            raise self._unsupported(op)

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
        :raises DeviceError: code ``chip-reset``: the chip started anew
        """
        reply = self.request(command, timeout, repeatable=repeatable)
        return self.check_status(reply, result)

    def request(
        self, command: Command, timeout: float | None = None, *, repeatable: bool = False
    ) -> Reply:
        """Send ``command`` and return its reply unjudged, status and all.

        :raises Unsupported, NoReply, DeviceError: as ``call``
        """
        if not self.supports(command.op):
            raise self._unsupported(command.op)
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
        """Carry out ``writes`` in order, in one request. See spi.write_group for loaders that take only one group."""
        self.call(WriteReg(writes))

    def sync(self, attempts: int | None = None, *, timeout: float | None = None) -> int:
        """Wake the loader up; the value field of its answer: 0 for the vendor's stub, else a ROM.

        A lone END goes first: a loader in the middle of a cut frame comes back only so (field notes).
        Boot text is normal here and only collected.

        :raises NoReply: no answer to any of ``attempts``
        """
        self._overheard.watching = False
        attempts = attempts or self.settings.retry.syncs_per_attempt
        seconds = self.settings.timing.sync if timeout is None else timeout
        for attempt in range(attempts):
            if attempt:
                self.transport.sleep(PAUSE_BETWEEN_SYNCS)
            value = self._sync_once(seconds)
            if value == 0:
                value = self._sync_value_of_all()
            if value is not None:
                self._dirty, self._overheard.watching = False, True
                return value
        raise NoReply(f"no answer to {attempts} SYNC requests")

    def exchange(self, op: IntEnum, packet: bytes, timeout: float | None = None) -> Reply:
        """Send one packet and return the reply with its opcode, unjudged. The hot path under ``call``.

        If our stub reports that it arrived damaged, it is sent again: the stub has not carried it out.
        """
        if not self.dialect.sealed:
            return self._exchange(op, packet, timeout)
        packet = seal(packet)
        self._sent.append(packet)
        for attempt in range(self.settings.retry.damaged_attempts):
            reply = self._exchange(op, packet, timeout)
            self._dirty = attempt > 0 or refuses(
                reply, packet
            )  # perhaps noise was refused, and two answers come
            if not refuses(reply, packet):
                break
        return reply

    def _exchange(self, op: IntEnum, packet: bytes, timeout: float | None) -> Reply:
        self.begin_pipeline()
        transport, timing = self.transport, self.settings.timing
        frame, self.ahead = self.ahead + slip.encode(packet), b""
        self._dirty = True  # until the answer is here, whatever ends this call
        self.trips += 1
        now = transport.now()
        self._log(packet)
        transport.write(frame, now + timing.write)
        seconds = timing.default if timeout is None else timeout
        deadline = transport.now() + seconds + len(frame) * BITS_PER_BYTE / self.baud
        reply = self._reply_to(op, deadline)
        if reply is None:
            self.lost += 1
            raise NoReply(
                f"no answer to {op.name} within {seconds:g} s", command=op.name, seconds=seconds
            )
        self._log(reply)
        self._dirty = False
        return reply

    def _log(self, content: bytes | Reply) -> None:
        packet = Packet(self.transport.now(), content)
        self.packets.append(packet)
        if self.on_packet is not None:
            self.on_packet(packet)

    def begin_pipeline(self) -> None:
        """Make sure that the next answer is the next request's. Before ``send``; ``exchange`` does so itself."""
        if self._dirty:
            self._resync()
        self._forget_the_past()

    def send(self, *packets: bytes, ends: int = 0) -> None:
        """Send packets and wait for nothing; ``receive`` brings what comes of them, and ``end_pipeline`` ends that.

        What our stub refuses as damaged, ``receive`` brings as a refusal of what is asked for.

        :param ends: lone ENDs before the packets, to cut off whatever frame the chip is in
        """
        now = self.transport.now()
        if self.dialect.sealed:
            packets = tuple(map(seal, packets))
            self._sent.extend(packets)
        for packet in packets:
            self._log(packet)
        self._dirty = True
        self.trips += 1
        frames, self.ahead = self.ahead + slip.END * ends + b"".join(map(slip.encode, packets)), b""
        self.transport.write(frames, now + self.settings.timing.write)

    def receive(self, op: IntEnum | None, timeout: float) -> Reply | None:
        """The next reply with ``op``, or None when ``timeout`` is up; 0: if it is here already."""
        reply = self._find_reply(op, self._waiting())
        if reply is None and timeout > 0:
            reply = self._reply_to(op, self.transport.now() + timeout)
        elif reply is None and (data := self.transport.read(0.0)):
            reply = self._find_reply(op, self._decoder.feed(data))
        if reply is not None:
            self._log(reply)
        return reply

    def receive_frame(self, timeout: float) -> bytes | None:
        """The next frame's content, whatever it is, or None when ``timeout`` is up: not all that comes are replies."""
        deadline = self.transport.now() + timeout
        while not self._frames:
            left = deadline - self.transport.now()
            data = self.transport.read(left) if left > 0 else b""
            if not data:
                return None
            self._frames = self._decoder.feed(data)
            self._overheard.watch(self._unfinished_text())
        return self._frames.pop(0)

    def end_pipeline(self) -> None:
        """All that was asked for by ``send`` has come: the next answer is the next request's."""
        self._dirty = False

    def check_status(self, reply: Reply, result: int) -> Reply:
        """The reply with its status cut off.

        The status byte alone decides; the byte after it is stale on success. A body shorter than result and
        status begins with the status.

        :raises CommandFailed: the status says so, or a success lacks its result
        """
        body = reply.body
        whole = len(body) >= result + 2
        status = body[result : result + 2] if whole else body[:2]
        if whole and not status[0]:
            return reply if len(body) == result else Reply(reply.op, reply.value, body[:result])
        name = name_op(reply.op)
        if len(status) < 2 or not status[0]:
            raise CommandFailed(
                f"{name}: the answer is too short ({len(body)} bytes)", command=name, status=0
            )
        code = int.from_bytes(status, "big")
        if status[1] == NOT_ACCEPTED:
            self._dirty = (
                True  # perhaps noise was refused, and the answer to the request is still to come
            )
        raise CommandFailed(
            f"{name} failed: {status_meaning(status)} ({code:#06x})", command=name, status=code
        )

    def _unsupported(self, op: IntEnum) -> Unsupported:
        if self.secure and op in self.dialect.ops:
            return Unsupported(
                f"in Secure Download Mode the chip does not take {op.name}",
                hint="This mode was burned into the chip; only writing without reading back is left.",
                code="secure-download-mode",
                command=op.name,
            )
        hint = (
            "A stub may: not every chip has one, and --no-stub bars it."
            if self.dialect.name == "ROM"
            else None
        )
        return Unsupported(
            f"this chip's {self.dialect.name} loader has no {op.name}", hint=hint, command=op.name
        )

    def _reply_to(self, op: int | None, deadline: float) -> Reply | None:
        """The reply to ``op``, or None when time is up. Strangers are dropped, text is kept."""
        transport = self.transport
        while (left := deadline - transport.now()) > 0:
            data = transport.read(left)
            if not data:
                return None
            self._overheard.hear(data)
            reply = self._find_reply(op, self._decoder.feed(data))
            if reply is not None:
                return reply
            self._overheard.watch(self._unfinished_text())
        return None

    def _find_reply(self, op: int | None, frames: list[bytes]) -> Reply | None:
        """The first reply to ``op`` (None: to anything) among ``frames``; those behind it wait."""
        for index, frame in enumerate(frames):
            reply = parse_reply(frame)
            if reply is None:
                self._overheard.keep(frame)
                continue
            if self.dialect.sealed:
                opened = unseal(reply)
                if opened is None:
                    continue  # it came damaged: as if it had not come
                known = op is None or not any(refuses(opened, packet) for packet in self._sent)
                reply = (
                    opened if known else Reply(op or 0, opened.value, opened.body)
                )  # of a request that came damaged
            if op is None or reply.op == op:
                self._frames = frames[index + 1 :]
                self._last_op = reply.op
                return reply
            if reply.op == self._last_op and self._is_refusal(reply):
                return self._refused(op, reply, frames[index + 1 :])
        return None

    def _waiting(self) -> list[bytes]:
        """The frames that came with an earlier one; they are the caller's now."""
        frames, self._frames = self._frames, []
        return frames

    def _is_refusal(self, reply: Reply) -> bool:
        """Of this request, or a late one of the request before: either way the work did not go as it should."""
        body = reply.body
        return body[:2] == bytes((1, NOT_ACCEPTED)) or (
            len(body) == self.dialect.status_bytes and body[0] == 1
        )

    def _refused(self, op: int, reply: Reply, behind: list[bytes]) -> Reply:
        """A request that the ROM does not know: it repeats its last answer, opcode and all, with 01 05 as status.

        After a SYNC that comes eight times; let the rest pass, or the next refusal cannot be told from it.
        """
        self._dirty = False
        left = (
            SYNC_ANSWERS if reply.op == Op.SYNC else SYNC_ANSWERS + 1
        )  # of the others nobody has counted
        deadline = self.transport.now() + 1.0  # a chip may go on talking
        while self.transport.now() < deadline:
            self._forget(behind)
            again = [
                other for frame in behind if (other := parse_reply(frame)) and other.op == reply.op
            ]
            left -= sum(map(self._is_refusal, again))
            if left <= 1 or not (data := self.transport.read(QUIET)):
                break
            behind = self._decoder.feed(data)
        return Reply(op, reply.value, reply.body)

    def listen(self, timeout: float = 0.0) -> bytes:
        """What comes within ``timeout`` seconds, if anything does; text is kept, answers are not."""
        if data := self.transport.read(timeout):
            self._overheard.hear(data)
            self._forget(self._decoder.feed(data))
        return data

    def forget_input(self) -> None:
        """Drop all input and text: a reset follows, and only what the chip says then matters. ``heard`` keeps it."""
        self._overheard.start_part(self.transport.read(0.0))
        self.transport.discard_input()
        self._decoder, self._frames, self.ahead = slip.Decoder(), [], b""
        self._dirty = False

    def _sync_once(self, seconds: float) -> int | None:
        self._forget_the_past()
        self.trips += 1
        began, packet = self.transport.now(), Sync().packet()
        if self.dialect.sealed:
            packet = seal(packet)
        self._log(packet)
        # the lone END ends a frame that was cut off
        self.transport.write(slip.END + slip.encode(packet), began + self.settings.timing.write)
        deadline = self.transport.now() + seconds
        self._last_op = Op.SYNC
        while True:
            reply = self._reply_to(Op.SYNC, deadline)
            if reply is None or (reply.body and not reply.body[0]):
                break
        if reply is not None:
            self._log(reply)
            self.sync_bytes = len(reply.body) if reply.value else 0
        return None if reply is None else reply.value

    def _sync_value_of_all(self) -> int:
        """The first value of the other seven answers that is not 0: only a stub answers 0 in all eight."""
        deadline = self.transport.now() + self.settings.timing.sync
        for _ in range(SYNC_ANSWERS - 1):
            frames, self._frames = self._frames, []
            reply = self._find_reply(Op.SYNC, frames) or self._reply_to(Op.SYNC, deadline)
            if reply is None:
                break
            if reply.value:
                return reply.value
        return 0

    def _resync(self) -> None:
        """Make sure that the next answer is the next request's: the last one's may still come."""
        if self.resync is not None:
            self.resync()
            return
        watching = self._overheard.watching
        self.drain_input()
        self._overheard.watch(self._unfinished_text())
        try:
            attempts = self.settings.retry.resync_attempts
            self.sync(attempts, timeout=self.settings.timing.default)
        finally:
            self._overheard.watching = watching
        self._overheard.watch(self._unfinished_text())

    def drain_input(self, quiet: float = QUIET, longest: float = 1.0) -> None:
        """Read until nothing has come for ``quiet`` seconds, at most ``longest``; text is kept, answers are not."""
        deadline = self.transport.now() + longest
        self._forget(self._frames)
        self._frames = []
        while (left := deadline - self.transport.now()) > 0 and (
            data := self.transport.read(min(quiet, left))
        ):
            self._forget(self._decoder.feed(data))

    def _forget_the_past(self) -> None:
        """Drop what came before the request that is to be sent now: it cannot be the answer."""
        if self._frames:
            self._forget(self._frames)
            self._frames = []
        if self.listen():
            self._overheard.watch(self._unfinished_text())

    def _forget(self, frames: list[bytes]) -> None:
        for frame in frames:
            if parse_reply(frame) is None:
                self._overheard.keep(frame)

    def _unfinished_text(self) -> bytes:
        return find_text(self._decoder.tail)
