"""A serial port on a network: a client of RFC 2217, with baud rate and modem lines.

pyserial's client is not used because its waits cannot be cancelled and its writes have no deadline. The server answers
each request. The client waits for the answer, so that the pauses of a reset sequence keep their length on the way; once
a server has not answered a request, the client no longer waits for answers of that kind.
"""

from __future__ import annotations

import dataclasses
from math import isnan, nan
from urllib.parse import parse_qsl, urlsplit

from espwire.errors import TransportError, TransportLost, UsageError
from espwire.transport import telnet
from espwire.transport.base import CancelToken, TransportInfo
from espwire.transport.handshake import parse_refusal
from espwire.transport.tcp import TcpTransport, connect_socket, parse_socket_url

GREETING_S = 3.0
ANSWER_S = 1.0
BAUD_S = 3.0
RATE_TOLERANCE = 0.03
MOST_UNREAD = 16 * 0x100000  # bytes while an answer is awaited: more than any serial port sends
EIGHT_BITS, NO_PARITY, ONE_STOP_BIT = 8, 1, 1
# of pyserial's URLs; the last two have no effect here
OPTIONS = ("ign_set_control", "timeout", "poll_modem", "logging")


def open_rfc2217(url: str, baud: int, cancel: CancelToken) -> Rfc2217Transport:
    """Connect to ``rfc2217://host:port``; ``?ign_set_control`` sets lines without waiting for answers.

    :raises UsageError: not of this form
    :raises PortNotFound: code ``cannot-connect``
    :raises TransportError: codes ``no-rfc2217`` (not an RFC 2217 server), ``baud-refused``
    """
    host, port = parse_socket_url(url, "rfc2217")
    options = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
    if unknown := options.keys() - set(OPTIONS):
        raise UsageError(
            f"unknown option {min(unknown)} in an rfc2217:// URL",
            hint=f"Known options: {', '.join(OPTIONS)}.",
            code="bad-port",
        )
    wait = _parse_seconds(options["timeout"]) if "timeout" in options else GREETING_S
    transport = Rfc2217Transport(TcpTransport(connect_socket(host, port, cancel), url, cancel))
    try:
        transport.greet(baud, wait=wait, wait_for_lines="ign_set_control" not in options)
    except BaseException:
        transport.close()
        raise
    return transport


class Rfc2217Transport:
    """A serial port of an RFC 2217 server. Call ``greet`` first."""

    def __init__(self, tcp: TcpTransport, decoder: telnet.Decoder | None = None) -> None:
        self._tcp = tcp
        self._decoder = decoder or telnet.Decoder()
        self._inbox = bytearray()
        # request → whether to wait for its answer
        self._wait_for_answer = {telnet.SET_CONTROL: True, telnet.PURGE: True}
        self.info = TransportInfo(name=tcp.info.name, kind="uart", remote=True)

    def greet(self, baud: int, *, wait: float = GREETING_S, wait_for_lines: bool = True) -> None:
        """Agree on RFC 2217, then on 8N1 without flow control, and release both lines.

        :param wait: seconds to wait for the server's greeting
        :param wait_for_lines: wait for the answer whenever lines are set
        :raises TransportError: codes ``no-rfc2217``, ``baud-refused``
        """
        began = self.now()
        deadline = began + wait
        self._send(telnet.build_greeting(), deadline)
        while self._decoder.accepted is None and self.now() < deadline:
            self._pump(deadline - self.now())
        if not self._decoder.accepted:
            raise TransportError(
                f"{self.info.name} is not an RFC 2217 server",
                hint="For a plain TCP socket, use socket:// instead.",
                code="no-rfc2217",
            )
        self.info = dataclasses.replace(self.info, round_trip=self.now() - began)
        self._wait_for_answer[telnet.SET_CONTROL] = wait_for_lines
        self._configure(baud)
        silent = [
            name
            for option, name in ((telnet.SET_CONTROL, "line changes"), (telnet.PURGE, "PURGE"))
            if not self._wait_for_answer[option]
        ]
        if wait_for_lines and silent:
            text = f"the server does not answer {' and '.join(silent)}; continuing without"
            self.info = dataclasses.replace(self.info, warning=text)

    def _configure(self, baud: int) -> None:
        for option, value in (
            (telnet.SET_DATA_SIZE, EIGHT_BITS),
            (telnet.SET_PARITY, NO_PARITY),
            (telnet.SET_STOP_SIZE, ONE_STOP_BIT),
            (telnet.SET_CONTROL, telnet.NO_FLOW_CONTROL),
        ):
            self._send(telnet.build_request(option, bytes((value,))), self.now() + ANSWER_S)
        self.set_baud(baud)
        self.set_lines(dtr=False, rts=False)
        self.discard_input()

    def fileno(self) -> int:
        """For a selector. Bytes may also have been received while a request was answered."""
        return self._tcp.fileno()

    def read(self, timeout: float) -> bytes:
        """Return received bytes; empty after ``timeout``."""
        deadline = self.now() + timeout
        while not self._inbox:
            left = deadline - self.now()
            self._pump(max(left, 0.0))
            if left <= 0:
                break
        data = bytes(self._inbox)
        self._inbox.clear()
        return data

    def write(self, data: bytes, deadline: float) -> None:
        """Send all of ``data``; wait while the server suspends the transfer."""
        while self._decoder.suspended:
            left = deadline - self.now()
            if left <= 0:
                raise TransportLost(f"{self.info.name} accepts no more data", code="write-timeout")
            self._pump(left)
        self._tcp.write(telnet.escape(data), deadline)

    def drain(self) -> None:
        """No effect: RFC 2217 does not report when the server has sent everything."""

    def discard_input(self) -> None:
        """Discard received bytes, here and at the server."""
        self._ask(telnet.PURGE, bytes((telnet.PURGE_RECEIVED,)))
        self._inbox.clear()

    def set_baud(self, baud: int) -> None:
        """Change the server's baud rate.

        :raises TransportError: code ``baud-refused``
        """
        answer = self._exchange(telnet.SET_BAUD, [baud.to_bytes(4, "big")], BAUD_S)
        actual = int.from_bytes((answer or b"")[:4], "big")
        if actual not in (0, baud) and abs(actual - baud) > baud * RATE_TOLERANCE:
            raise TransportError(
                f"{self.info.name} does not support {baud} baud; it stays at {actual}",
                hint="Choose a lower rate with --baud.",
                code="baud-refused",
            )

    def set_lines(self, *, dtr: bool | None = None, rts: bool | None = None) -> None:
        """Set modem lines, both in one message; the server sets one after the other."""
        values = []
        if dtr is not None:
            values.append(telnet.DTR_ON if dtr else telnet.DTR_OFF)
        if rts is not None:
            values.append(telnet.RTS_ON if rts else telnet.RTS_OFF)
        self._ask(telnet.SET_CONTROL, *(bytes((value,)) for value in values))

    def set_format(self, option: int, value: int) -> int:
        """Set data bits, parity or stop bits at the server; what it answers, or the value without an answer."""
        answer = self._exchange(option, [bytes((value,))], ANSWER_S)
        return answer[0] if answer else value

    def set_flow_control(self, value: int) -> int:
        """Set the flow control at the server; what it answers."""
        answer = self._exchange(telnet.SET_CONTROL, [bytes((value,))], ANSWER_S)
        return answer[0] if answer else telnet.NO_FLOW_CONTROL

    def set_break(self, *, on: bool) -> bool:
        """Begin or end a break at the server; whether it sends one."""
        value = telnet.BREAK_ON if on else telnet.BREAK_OFF
        answer = self._exchange(telnet.SET_CONTROL, [bytes((value,))], ANSWER_S)
        return answer is not None and answer[:1] == bytes((telnet.BREAK_ON,))

    def read_modem_state(self) -> int | None:
        """The signals that the server has reported last."""
        return self._decoder.modem_state

    def now(self) -> float:
        """The monotonic clock."""
        return self._tcp.now()

    def sleep(self, seconds: float) -> None:
        """Let real time pass."""
        self._tcp.sleep(seconds)

    def close(self) -> None:
        """Close the connection; closing it again has no effect."""
        self._tcp.close()

    def _ask(self, option: int, *values: bytes) -> None:
        """Send requests of one kind; wait for all answers, unless the server did not answer before."""
        if not self._wait_for_answer[option] or self._tcp.cancelled:
            message = b"".join(telnet.build_request(option, value) for value in values)
            # even a cancelled reset releases the lines
            self._tcp.send(message, self.now() + ANSWER_S, cancellable=False)
        elif values and self._exchange(option, list(values), ANSWER_S) is None:
            self._wait_for_answer[option] = False

    def _exchange(self, option: int, values: list[bytes], seconds: float) -> bytes | None:
        """Send requests and return the answer to the last; None: it did not arrive in time."""
        self._decoder.answers.clear()
        deadline = self.now() + seconds
        self._send(b"".join(telnet.build_request(option, value) for value in values), deadline)
        while True:
            answers = [value for kind, value in self._decoder.answers if kind == option]
            if len(answers) >= len(values):
                return answers[-1]
            left = deadline - self.now()
            if left <= 0:
                return None
            self._pump(left)

    def _send(self, message: bytes, deadline: float) -> None:
        self._tcp.write(message, deadline)

    def _pump(self, timeout: float) -> None:
        """Decode received bytes, and answer the server's negotiation."""
        self._inbox += self._decoder.feed(self._tcp.read(timeout))
        if self._decoder.refusal is not None:
            raise parse_refusal(self._decoder.refusal, self.info.name)
        if len(self._inbox) > MOST_UNREAD:
            raise TransportLost(
                f"{self.info.name} sends more data than a serial port, and does not answer",
                hint="Check host and port: this is not a server of a serial port.",
                code="bad-server",
            )
        if self._decoder.replies:
            replies = bytes(self._decoder.replies)
            self._decoder.replies.clear()
            self._send(replies, self.now() + ANSWER_S)


def _parse_seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = nan
    if isnan(seconds):
        raise UsageError(
            f"timeout={text} is not a number of seconds",
            hint="Write for example timeout=3.",
            code="bad-port",
        )
    return min(max(seconds, 0.1), 60.0)
