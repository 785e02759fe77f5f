"""Matches replies to requests on a line that also carries boot text, noise and stale replies.

A ROM answers each request with one frame that repeats the opcode. Nothing else identifies a reply: there is no sequence
number, and a reply that arrives after its deadline looks exactly like the reply to the next request with that opcode.
What helps is order. A loader works through its requests one after the other, and a serial line never reorders bytes.
From this follow three rules:

* In step, nothing is under way. A request may be sent, and the next frame with its opcode is its reply. Whatever
  arrived earlier is discarded before the request is sent, because it cannot be the answer.
* After a lost reply, an interrupted stream or a refusal that may have been meant for noise, a reply of unknown age may
  still arrive. No request is allowed then, only a SYNC: it is answered after everything older, so its reply proves that
  the line is clean again. A SYNC has eight replies, and some of an earlier SYNC may come first: ``sync_replies_due``
  counts them. (Our own stub is sent an ABORT with a fresh token instead: see ``Loader.abort``.)
* A ROM refuses an unknown command by repeating its last reply, opcode included, with the status 01 05. After a SYNC,
  whose reply comes eight times, it repeats the refusal eight times, too. These copies must pass before the next request.

Boot text is expected until the first SYNC is answered. Later, it means that the chip has reset. Text has no framing: it
is whatever is between two ENDs and is not a reply, and also an unfinished run of bytes unless it looks like the head of
a reply, because flash contents may well contain the text of a boot banner.

The states and what each input does in them are in ``TRANSITIONS``. An input that is missing in a state must not occur
there; for a request this means that the line has to be brought in step first.

Sans-I/O: feed bytes in, take ``Reply``, ``Text``, ``Refusal`` or ``ChipReset`` out. There is no clock: the caller
reports with ``Input.LOST`` that it gave up waiting.
"""

from __future__ import annotations

import re
from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto

from espwire.protocol import slip
from espwire.protocol.commands import HEADER, REPLY, Reply, parse_reply
from espwire.protocol.dialect import Dialect
from espwire.protocol.opcodes import Op
from espwire.protocol.replies import NOT_ACCEPTED
from espwire.protocol.stub import refuses, unseal

TEXT_LIMIT = 0x10000
SYNC_REPLIES = 8
SENT_KEPT = 16  # packets that a stub's report of damage may refer to
# what ROMs print when they start or crash; nothing else in a download session looks like it
RESET_TEXT = re.compile(
    rb"rst:0x[0-9a-fA-F]|rst cause:\d|Guru Meditation|ESP-ROM:esp32|ets [A-Z][a-z]{2} [ \d]\d \d{4}"
)
_UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\x7e]")


class State(Enum):
    """What may be under way on the line."""

    LISTENING = auto()  # no loader has answered since the last reset: boot text is normal
    SEARCHING = auto()  # a SYNC, after LISTENING
    IN_STEP = auto()  # nothing, or frames that will be discarded
    AWAITING = auto()  # the reply to one request
    PIPELINE = auto()  # the replies to several requests, or a stream
    REFUSED = auto()  # copies of a refusal
    OUT_OF_STEP = auto()  # a reply of unknown age
    RESYNCING = auto()  # the same, and a SYNC


class Input(Enum):
    """What changes the state."""

    REQUEST = auto()  # one request is sent, and its reply awaited
    SEND = auto()  # requests are sent without waiting
    SYNC = auto()  # a SYNC is sent
    REPLY = auto()  # a reply with the awaited opcode arrived
    REFUSAL = auto()  # the ROM refused the request by repeating its last reply
    DONE = auto()  # the caller knows that nothing more is under way
    LOST = auto()  # the caller waited in vain
    DOUBT = auto()  # the caller found that the reply may belong to noise, not to the request


TRANSITIONS: dict[State, dict[Input, State]] = {
    State.LISTENING: {
        Input.SYNC: State.SEARCHING,
        Input.REQUEST: State.AWAITING,  # without a SYNC, if the user wants it so
        Input.SEND: State.PIPELINE,
    },
    State.SEARCHING: {
        Input.SYNC: State.SEARCHING,
        Input.REPLY: State.SEARCHING,  # the caller may want to see all eight
        Input.DONE: State.IN_STEP,
        Input.LOST: State.LISTENING,
    },
    State.IN_STEP: {
        Input.SYNC: State.RESYNCING,
        Input.REQUEST: State.AWAITING,
        Input.SEND: State.PIPELINE,
        Input.REPLY: State.IN_STEP,  # frames that a stub sends on its own
        Input.REFUSAL: State.OUT_OF_STEP,
        Input.DONE: State.IN_STEP,
        Input.DOUBT: State.OUT_OF_STEP,
    },
    State.AWAITING: {
        Input.SYNC: State.RESYNCING,
        Input.SEND: State.PIPELINE,
        Input.REPLY: State.IN_STEP,
        Input.REFUSAL: State.REFUSED,
        Input.LOST: State.OUT_OF_STEP,
    },
    State.PIPELINE: {
        Input.SYNC: State.RESYNCING,
        Input.SEND: State.PIPELINE,
        Input.REPLY: State.PIPELINE,
        Input.REFUSAL: State.OUT_OF_STEP,
        Input.DONE: State.IN_STEP,
        Input.DOUBT: State.PIPELINE,
    },
    State.REFUSED: {
        Input.SYNC: State.RESYNCING,
        Input.SEND: State.PIPELINE,
        Input.DONE: State.IN_STEP,
    },
    State.OUT_OF_STEP: {
        Input.SYNC: State.RESYNCING,
        Input.SEND: State.PIPELINE,  # an ABORT
        Input.DONE: State.IN_STEP,
        Input.DOUBT: State.OUT_OF_STEP,
    },
    State.RESYNCING: {
        Input.SYNC: State.RESYNCING,
        Input.SEND: State.PIPELINE,
        Input.REPLY: State.RESYNCING,
        Input.DONE: State.IN_STEP,
        Input.LOST: State.OUT_OF_STEP,
    },
}
BEFORE_FIRST_REPLY = frozenset({State.LISTENING, State.SEARCHING})
WAITING_FOR_SYNC = frozenset({State.SEARCHING, State.RESYNCING})
BOOT_TEXT_EXPECTED = BEFORE_FIRST_REPLY | WAITING_FOR_SYNC


@dataclass(frozen=True)
class Text:
    """Bytes between two ENDs that are not a reply: boot messages, logs, noise."""

    data: bytes


@dataclass(frozen=True)
class Refusal:
    """The ROM does not know the awaited command. ``value`` and ``body`` as in its frame."""

    value: int
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class ChipReset:
    """Text that a chip prints only when it starts or crashes."""


Event = Reply | Text | Refusal | ChipReset


class ReplyMatcher:
    """Sorts what comes in.

    ``captures`` holds the raw bytes that came before the first reply, one item per ``restart`` and one for the time
    since. ``sync_replies_due``: replies to SYNC that may still come; from ``SYNC_REPLIES`` on, none of them can be a
    reply to the last SYNC.
    """

    def __init__(self) -> None:
        self.state = State.LISTENING
        self.captures = [bytearray()]
        self.sync_replies_due = 0
        self._text = bytearray()
        self._decoder = slip.Decoder()
        self._frames: deque[bytes] = deque()
        self._sent: deque[bytes] = deque(maxlen=SENT_KEPT)
        self._last_op = 0  # of the last reply, which the ROM repeats to refuse a command
        self._copies = 0  # of a refusal that are still to come

    @property
    def text(self) -> str:
        """Everything that was not a reply, since the last ``restart``: printable characters, at most 64 KiB."""
        whole = bytes(self._text) + self._unfinished_text()
        return _UNPRINTABLE.sub("", whole.decode("latin-1"))

    @property
    def needs_sync(self) -> bool:
        """Whether a request must not be sent now."""
        return Input.REQUEST not in TRANSITIONS[self.state]

    def advance(self, cause: Input, *packets: bytes) -> None:
        """Change the state as ``TRANSITIONS`` has it; ``packets`` are about to be sent.

        :raises AssertionError: the caller must not do this now, which is a bug
        """
        state = TRANSITIONS[self.state].get(cause)
        if state is None:
            raise AssertionError(f"{cause.name} is not possible in state {self.state.name}")
        self.state = state
        self._sent.extend(packets)
        if cause is Input.SYNC:
            self._last_op = Op.SYNC
            self.sync_replies_due += SYNC_REPLIES

    def restart(self, last: bytes) -> None:
        """Forget everything because the chip is about to be reset; ``last`` came before that."""
        self._capture(last)
        self.captures.append(bytearray())
        self._text.clear()
        self._decoder = slip.Decoder()
        self._frames.clear()
        self.sync_replies_due = 0
        self.state = State.LISTENING

    def feed(self, data: bytes) -> None:
        """Take in bytes as they were received."""
        if self.state in BEFORE_FIRST_REPLY:
            self._capture(data)
        self._frames.extend(self._decoder.feed(data))

    def next_event(self, op: int, dialect: Dialect) -> Event | None:
        """What the received bytes contain next; None: more are needed. ``op``: the awaited opcode."""
        while self._frames:
            frame = self._frames.popleft()
            reply = parse_reply(frame)
            event = self._keep_text(frame) if reply is None else self._match(reply, op, dialect)
            if event is not None:
                return event
        return self._find_reset(self._unfinished_text())

    def next_frame(self) -> bytes | None:
        """The next frame as it is; None: more bytes are needed. For protocols inside this protocol."""
        return self._frames.popleft() if self._frames else None

    def discard(self, dialect: Dialect) -> ChipReset | None:
        """Drop all frames: they cannot answer a request that has not been sent yet. Text is kept."""
        reset = None
        while self._frames:
            frame = self._frames.popleft()
            reply = parse_reply(frame)
            if reply is None:
                event = self._keep_text(frame)
                reset = reset or (event if isinstance(event, ChipReset) else None)
            elif self.state is State.REFUSED and self._repeats_last(reply, dialect):
                self._copies -= 1
                if not self._copies:
                    self.advance(Input.DONE)
            elif reply.op == Op.SYNC:
                self.sync_replies_due -= 1
        return reset or self._find_reset(self._unfinished_text())

    def _match(self, reply: Reply, op: int, dialect: Dialect) -> Reply | Refusal | None:
        if dialect.sealed:
            opened = unseal(reply)
            if opened is None:
                return None  # damaged: as good as lost
            reply = opened
            if any(refuses(reply, packet) for packet in self._sent):
                reply = Reply(op, reply.value, reply.body)  # a report of damage may have any opcode
        if reply.op == Op.SYNC:
            self.sync_replies_due -= 1
        if Input.REPLY not in TRANSITIONS[self.state]:
            return None  # stale
        if self.state in WAITING_FOR_SYNC and (not reply.body or reply.body[0]):
            return None  # noise that was refused
        if reply.op == op:
            self._last_op = reply.op
            if op != Op.SYNC:
                self.sync_replies_due = 0  # they came earlier, or were lost
            self.advance(Input.REPLY)
            return reply
        if self.state not in WAITING_FOR_SYNC and self._repeats_last(reply, dialect):
            self.advance(Input.REFUSAL)
            # one of SYNC's eight copies has just come; for other commands, all may still come
            self._copies = SYNC_REPLIES - 1 if reply.op == Op.SYNC else SYNC_REPLIES
            return Refusal(reply.value, reply.body)
        return None

    def _repeats_last(self, reply: Reply, dialect: Dialect) -> bool:
        """Whether this is a refusal of a command, under the opcode of the last reply."""
        body = reply.body
        failed = len(body) == dialect.status_bytes and body[0] == 1
        return reply.op == self._last_op and (failed or body[:2] == bytes((1, NOT_ACCEPTED)))

    def _keep_text(self, data: bytes) -> Text | ChipReset:
        self._text += data
        if len(self._text) > TEXT_LIMIT:
            del self._text[: len(self._text) - TEXT_LIMIT]
        return self._find_reset(data) or Text(data)

    def _find_reset(self, text: bytes) -> ChipReset | None:
        if self.state in BOOT_TEXT_EXPECTED or not RESET_TEXT.search(text):
            return None
        return ChipReset()

    def _capture(self, data: bytes) -> None:
        capture = self.captures[-1]
        capture += data[: TEXT_LIMIT - len(capture)]

    def _unfinished_text(self) -> bytes:
        """What came after the last END, unless it looks like the head of a reply."""
        tail = self._decoder.tail
        if not tail or tail[0] != REPLY:
            return tail
        if len(tail) < HEADER.size:
            return b""
        size: int = HEADER.unpack_from(tail)[2]
        longest = HEADER.size + 2 * size + 2  # escapes double a reply at most
        return b"" if len(tail) <= longest else tail
