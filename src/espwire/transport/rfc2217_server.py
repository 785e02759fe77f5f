"""The server's side of RFC 2217, without I/O: what a client sends becomes data and calls of a ``ServedPort``.

``virtual serve --rfc2217`` and ``serve-port`` share it; they differ in the port behind it.
"""

from __future__ import annotations

from espwire.transport import telnet

MAX_BAUD = 12_000_000
Event = bytes | tuple[int, bytes]  # data, or a request and its value


class ServedPort:
    """A port that clients control. This one has no abilities except those that a subclass adds.

    A missing ability is an answer and never a failure: the session reports the value that the port really uses.
    """

    baud = 115200
    dtr = rts = False  # as the client requested last

    def set_baud(self, baud: int) -> None:
        """Change ``baud``, if the port supports the new rate."""

    def request_lines(self, *, dtr: bool | None = None, rts: bool | None = None) -> None:
        """Set modem lines; called for every request, also if nothing changes."""

    def discard_input(self) -> None:
        """Discard what the device has sent."""

    def discard_output(self) -> None:
        """Discard what the client has sent and the port has not."""

    def set_format(self, option: int, value: int) -> int:
        """Set data bits, parity or stop bits (an option of RFC 2217), or 0 to read them. Returns what is in use."""
        return 8 if option == telnet.SET_DATA_SIZE else 1

    def set_flow_control(self, value: int) -> int:
        """Set the flow control of what the port sends, 1 to 3, or 0 to read it. Returns what is in use."""
        return telnet.NO_FLOW_CONTROL

    def set_break(self, on: bool | None) -> bool:
        """Send a break from now on, or end it; None changes nothing. Returns whether one is being sent."""
        return False

    def describe(self) -> str:
        """The server's signature, on request."""
        return "espwire"


class Rfc2217Session:
    """One client's conversation. ``out`` collects what the server sends; the owner empties it.

    ``accepted``: the client has offered RFC 2217. ``paused``: it has asked the server to send no data.
    """

    def __init__(self, port: ServedPort) -> None:
        self.port = port
        self.out = bytearray()
        self.paused = False
        self.modem_mask = 0xFF
        self._decoder = telnet.ServerDecoder()

    @property
    def accepted(self) -> bool:
        """Whether the client has offered RFC 2217."""
        return bool(self._decoder.accepted)

    @property
    def oversized(self) -> bool:
        """Whether the client has sent a request that is longer than any valid one."""
        return self._decoder.oversized

    def take(self, data: bytes) -> list[Event]:
        """Decode received bytes; pass the requests to ``carry_out`` in order. Negotiation is answered here."""
        events = self._decoder.take(data)
        self.out += self._decoder.replies
        self._decoder.replies.clear()
        return events

    def deliver(self, data: bytes) -> None:
        """Send data from the device."""
        self.out += telnet.escape(data)

    def notify(self, option: int, value: bytes) -> None:
        """Send an answer, or a notification."""
        self.out += telnet.build_answer(option, value)

    def notify_modem_state(self, state: int) -> None:
        """Report the signals, unless the client has masked them."""
        if shown := state & self.modem_mask:
            self.notify(telnet.NOTIFY_MODEM_STATE, bytes((shown,)))

    def carry_out(self, option: int, value: bytes) -> None:
        """Carry out one request and answer it."""
        answer: bytes | None
        first = value[0] if value else 0
        match option:
            case telnet.SET_BAUD:
                baud = int.from_bytes(value, "big")
                if 0 < baud <= MAX_BAUD:
                    self.port.set_baud(baud)
                answer = self.port.baud.to_bytes(4, "big")
            case telnet.SET_DATA_SIZE | telnet.SET_PARITY | telnet.SET_STOP_SIZE:
                answer = bytes((self.port.set_format(option, first),))
            case telnet.SET_CONTROL:
                answer = bytes((self._control(first),)) if value else None
            case telnet.PURGE:
                if first & telnet.PURGE_RECEIVED:
                    self.port.discard_input()
                if first & telnet.PURGE_SENT:
                    self.port.discard_output()
                answer = value[:1]
            case telnet.SIGNATURE:
                answer = None if value else self.port.describe().encode("ascii", "replace")
            case telnet.SUSPEND_SERVER | telnet.RESUME_SERVER:
                self.paused = option == telnet.SUSPEND_SERVER
                answer = None
            case telnet.SET_MODEM_STATE_MASK:
                self.modem_mask = first
                answer = value[:1]
            case telnet.SET_LINE_STATE_MASK:
                answer = b"\0"  # framing errors and the like are not known
            case _:
                answer = None  # unknown, or of another side
        if answer is not None:
            self.notify(option, answer)

    def _control(self, value: int) -> int:
        """The answer to SET_CONTROL: the value itself, or the state in use."""
        port = self.port
        match value:
            case telnet.DTR_ON | telnet.DTR_OFF:
                port.request_lines(dtr=value == telnet.DTR_ON)
            case telnet.RTS_ON | telnet.RTS_OFF:
                port.request_lines(rts=value == telnet.RTS_ON)
            case telnet.DTR_STATE:
                return telnet.DTR_ON if port.dtr else telnet.DTR_OFF
            case telnet.RTS_STATE:
                return telnet.RTS_ON if port.rts else telnet.RTS_OFF
            case telnet.BREAK_STATE | telnet.BREAK_ON | telnet.BREAK_OFF:
                on = None if value == telnet.BREAK_STATE else value == telnet.BREAK_ON
                return telnet.BREAK_ON if port.set_break(on) else telnet.BREAK_OFF
            case _ if value <= telnet.HARDWARE:
                return port.set_flow_control(value)
            case _ if telnet.INBOUND_STATE <= value <= telnet.INBOUND_LAST:
                return telnet.INBOUND_NONE
        return value
