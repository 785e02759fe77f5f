"""Encoder and decoders for RFC 2217: Telnet with the COM-PORT option. Sans-I/O, for client and server."""

from __future__ import annotations

IAC, DONT, DO, WONT, WILL, SB, SE = 255, 254, 253, 252, 251, 250, 240
BINARY, SUPPRESS_GO_AHEAD, COM_PORT = 0, 3, 44
SUPPORTED = (BINARY, SUPPRESS_GO_AHEAD, COM_PORT)  # options, in both directions
SIGNATURE = 0
SET_BAUD, SET_DATA_SIZE, SET_PARITY, SET_STOP_SIZE, SET_CONTROL, PURGE = 1, 2, 3, 4, 5, 12
ANSWER = 100  # the server answers request n with n + 100
NOTIFY_MODEM_STATE, SET_LINE_STATE_MASK, SET_MODEM_STATE_MASK = 7, 10, 11
SUSPEND_SERVER, RESUME_SERVER = 8, 9  # from the client: stop sending, continue
SUSPEND, RESUME = 8 + ANSWER, 9 + ANSWER  # from the server: stop sending, continue
FLOW_STATE, NO_FLOW_CONTROL, XON_XOFF, HARDWARE = 0, 1, 2, 3
BREAK_STATE, BREAK_ON, BREAK_OFF = 4, 5, 6
DTR_STATE, DTR_ON, DTR_OFF, RTS_STATE, RTS_ON, RTS_OFF = 7, 8, 9, 10, 11, 12
INBOUND_STATE, INBOUND_NONE, INBOUND_LAST = 13, 14, 19  # flow control of the other direction
PURGE_RECEIVED, PURGE_SENT = 1, 2
# modem state: the signals; the same shifted by four is "has changed"
CTS, DSR, RI, DCD = 0x10, 0x20, 0x40, 0x80
SIGNALS = CTS | DSR | RI | DCD
LONGEST_REQUEST = 1024  # longer ones are skipped
MOST_ANSWERS = 1024  # kept until they are used
# requests of espwire:// (transport/handshake.py); other servers and clients ignore them
HELLO, PROVE, PLAY, REFUSE, IDENTITY = 90, 91, 92, 93, 94


def escape(data: bytes) -> bytes:
    """Double each byte 255, as Telnet requires."""
    return data.replace(b"\xff", b"\xff\xff")


def build_request(option: int, value: bytes) -> bytes:
    """A COM-PORT request."""
    return bytes((IAC, SB, COM_PORT, option)) + escape(value) + bytes((IAC, SE))


def build_greeting() -> bytes:
    """A client's first message: request 8-bit data in both directions and offer COM-PORT."""
    both = [(verb, option) for option in (BINARY, SUPPRESS_GO_AHEAD) for verb in (WILL, DO)]
    return b"".join(bytes((IAC, verb, option)) for verb, option in [*both, (WILL, COM_PORT)])


def build_answer(option: int, value: bytes) -> bytes:
    """A server's answer to a COM-PORT request, or a notification."""
    return build_request(option + ANSWER, value)


class Decoder:
    """Separates data from Telnet commands, in chunks of any size.

    ``oversized``: a request was longer than any valid one. ``answers`` collects COM-PORT answers as (option, value); the caller sends ``replies``; ``accepted`` is whether the
    other side supports RFC 2217, None until it has answered; ``suspended`` is whether it has requested a pause;
    ``modem_state``: the signals that a server has reported; ``refusal``: the value of REFUSE.
    """

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes]] = []
        self.replies = bytearray()
        self.accepted: bool | None = None
        self.suspended = self.oversized = False
        self.modem_state: int | None = None
        self.refusal: bytes | None = None
        self._rest = b""
        self._data = bytearray()
        self._sent = {(WILL, option) for option in SUPPORTED} | {
            (DO, BINARY),
            (DO, SUPPRESS_GO_AHEAD),
        }

    def feed(self, data: bytes) -> bytes:
        """Return the data in the received bytes."""
        out = self._data = bytearray()
        text, at = self._rest + data, 0
        self._rest = b""
        while (mark := text.find(IAC, at)) >= 0:
            out += text[at:mark]
            end = self._take_command(text, mark)
            if not end:
                self._rest = text[mark:]
                return bytes(out)
            at = end
        out += text[at:]
        return bytes(out)

    def _take_command(self, text: bytes, mark: int) -> int:
        """The end of the command at ``mark``; 0 if it is incomplete."""
        command = text[mark + 1] if mark + 1 < len(text) else None
        if command is None:
            return 0
        if command == IAC:
            self._data.append(IAC)
        elif command in (DO, DONT, WILL, WONT):
            if mark + 2 >= len(text):
                return 0
            self._negotiate(command, text[mark + 2])
            return mark + 3
        elif command == SB:
            return self._take_request(text, mark + 2)
        return mark + 2

    def _take_request(self, text: bytes, begin: int) -> int:
        value, at = bytearray(), begin
        while (mark := text.find(IAC, at)) >= 0 and mark + 1 < len(text):
            value += text[at:mark]
            at = mark + 2
            if text[mark + 1] != IAC:  # SE; nothing else is valid here
                if len(value) <= LONGEST_REQUEST:
                    self._note_request(bytes(value))
                else:
                    self.oversized = True
                return at
            value.append(IAC)
        if len(text) - begin <= LONGEST_REQUEST:
            return 0
        self.oversized = True
        return len(text)

    def _note_request(self, value: bytes) -> None:
        if len(value) < 2 or value[0] != COM_PORT:
            return
        if value[1] in (SUSPEND, RESUME):
            self.suspended = value[1] == SUSPEND
        elif value[1] == REFUSE + ANSWER:
            self.refusal = value[2:]
        elif value[1] == NOTIFY_MODEM_STATE + ANSWER:
            self.modem_state = value[2] & SIGNALS if len(value) > 2 else None
        elif value[1] > ANSWER:
            self.answers.append((value[1] - ANSWER, value[2:]))
            del self.answers[:-MOST_ANSWERS]

    def _negotiate(self, command: int, option: int) -> None:
        if option == COM_PORT and command in (DO, DONT):
            self.accepted = command == DO
        if command in (DONT, WONT):
            return  # a refusal needs no reply
        yes = option in SUPPORTED
        answer = (WILL if yes else WONT) if command == DO else (DO if yes else DONT)
        # never repeat an answer: both sides would answer each other without end
        if (answer, option) not in self._sent:
            self._sent.add((answer, option))
            self.replies += bytes((IAC, answer, option))


class ServerDecoder(Decoder):
    """The same for a server: data and COM-PORT requests, in the order received."""

    def __init__(self) -> None:
        super().__init__()
        self._sent.clear()
        self._events: list[bytes | tuple[int, bytes]] = []

    def take(self, data: bytes) -> list[bytes | tuple[int, bytes]]:
        """Return data as bytes and requests as (option, value)."""
        rest = self.feed(data)
        events, self._events = self._events, []
        return [*events, rest] if rest else events

    def _note_request(self, value: bytes) -> None:
        if len(value) < 2 or value[0] != COM_PORT or value[1] >= ANSWER:
            return
        if self._data:
            self._events.append(bytes(self._data))
            self._data.clear()
        self._events.append((value[1], value[2:]))

    def _negotiate(self, command: int, option: int) -> None:
        if option == COM_PORT and command == WILL:
            self.accepted = True
        super()._negotiate(command, option)
