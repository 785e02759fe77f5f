"""The bytes of RFC 2217: Telnet with the COM-PORT option. Pure: what to send, and what came. Opens nothing."""

from __future__ import annotations

IAC, DONT, DO, WONT, WILL, SB, SE = 255, 254, 253, 252, 251, 250, 240
BINARY, SUPPRESS_GO_AHEAD, COM_PORT = 0, 3, 44
OURS = (BINARY, SUPPRESS_GO_AHEAD, COM_PORT)  # what we do, and let the other side do
SET_BAUD, SET_DATA_SIZE, SET_PARITY, SET_STOP_SIZE, SET_CONTROL, PURGE = 1, 2, 3, 4, 5, 12
ANSWER = 100  # the server's answer to n is n + 100
NOTIFY_MODEM_STATE, SET_LINE_STATE_MASK, SET_MODEM_STATE_MASK = 7, 10, 11
SUSPEND, RESUME = 8 + ANSWER, 9 + ANSWER  # from the server: take a break, go on
NO_FLOW_CONTROL, DTR_ON, DTR_OFF, RTS_ON, RTS_OFF = 1, 8, 9, 11, 12
DTR_STATE, RTS_STATE = 7, 10  # requests for the state
PURGE_RECEIVED = 1
LONGEST_REQUEST = 1024  # of the other side; a longer one is not meant for us


def escape(data: bytes) -> bytes:
    """Data for the wire: 255 is doubled."""
    return data.replace(b"\xff", b"\xff\xff")


def build_request(option: int, value: bytes) -> bytes:
    """A COM-PORT request."""
    return bytes((IAC, SB, COM_PORT, option)) + escape(value) + bytes((IAC, SE))


def build_greeting() -> bytes:
    """What a client says first: bytes of eight bits both ways, and COM-PORT."""
    asked = (
        (WILL, BINARY),
        (DO, BINARY),
        (WILL, SUPPRESS_GO_AHEAD),
        (DO, SUPPRESS_GO_AHEAD),
        (WILL, COM_PORT),
    )
    return b"".join(bytes((IAC, *one)) for one in asked)


def build_answer(option: int, value: bytes) -> bytes:
    """A server's answer to a COM-PORT request, or a notification."""
    return build_request(option + ANSWER, value)


class Decoder:
    """Takes the other side's bytes apart, however they are cut.

    ``answers`` gathers COM-PORT answers as (option, value); ``replies`` is what must be sent back; ``accepted`` tells
    whether the other side does RFC 2217, None until it has said so.
    """

    def __init__(self) -> None:
        self.answers: list[tuple[int, bytes]] = []
        self.replies = bytearray()
        self.accepted: bool | None = None
        self.suspended = False
        self._rest = b""
        self._found = bytearray()
        self._said = {(WILL, option) for option in OURS} | {(DO, BINARY), (DO, SUPPRESS_GO_AHEAD)}

    def feed(self, data: bytes) -> bytes:
        """The data among the bytes."""
        found = self._found = bytearray()
        text, at = self._rest + data, 0
        self._rest = b""
        while (mark := text.find(IAC, at)) >= 0:
            found += text[at:mark]
            end = self._take_command(text, mark, found)
            if not end:
                self._rest = text[mark:]
                return bytes(found)
            at = end
        found += text[at:]
        return bytes(found)

    def _take_command(self, text: bytes, mark: int, found: bytearray) -> int:
        """Where the command at ``mark`` ends; 0 if it is not all here."""
        command = text[mark + 1] if mark + 1 < len(text) else None
        if command is None:
            return 0
        if command == IAC:
            found.append(IAC)
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
            if text[mark + 1] != IAC:  # SE; nothing else makes sense there
                self._note_request(bytes(value))
                return at
            value.append(IAC)
        return 0 if len(text) - begin <= LONGEST_REQUEST else len(text)

    def _note_request(self, value: bytes) -> None:
        if len(value) < 2 or value[0] != COM_PORT:
            return
        if value[1] in (SUSPEND, RESUME):
            self.suspended = value[1] == SUSPEND
        elif value[1] > ANSWER:
            self.answers.append((value[1] - ANSWER, value[2:]))

    def _negotiate(self, command: int, option: int) -> None:
        if option == COM_PORT and command in (DO, DONT):
            self.accepted = command == DO
        if command in (DONT, WONT):
            return  # what we offered is not wanted, or not offered: nothing to say
        wanted = option in OURS
        answer = (WILL if wanted else WONT) if command == DO else (DO if wanted else DONT)
        if (
            answer,
            option,
        ) not in self._said:  # what was said once is not said again, or both sides never stop
            self._said.add((answer, option))
            self.replies += bytes((IAC, answer, option))


class ServerDecoder(Decoder):
    """The same for the server's end: bytes and COM-PORT requests in the order in which they came."""

    def __init__(self) -> None:
        super().__init__()
        self._said.clear()
        self._events: list[bytes | tuple[int, bytes]] = []

    def take(self, data: bytes) -> list[bytes | tuple[int, bytes]]:
        """Data as bytes, requests as (option, value)."""
        rest = self.feed(data)
        events, self._events = self._events, []
        return [*events, rest] if rest else events

    def _note_request(self, value: bytes) -> None:
        if (
            len(value) < 2 or value[0] != COM_PORT or value[1] >= ANSWER
        ):  # a client sends no answers
            return
        if self._found:
            self._events.append(bytes(self._found))
            self._found.clear()
        self._events.append((value[1], value[2:]))

    def _negotiate(self, command: int, option: int) -> None:
        if option == COM_PORT and command == WILL:
            self.accepted = True
        super()._negotiate(command, option)
