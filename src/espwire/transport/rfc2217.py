"""A serial port behind a network: the client of RFC 2217, with rate and modem lines.

Our own, not pyserial's, whose waits cannot be cancelled and whose writes have no deadline. Each request is answered by
the server, and we wait for the answer, so that the pauses of a reset sequence are not lost on the way; a server that
does not answer is asked without waiting from then on.
"""

from __future__ import annotations

from math import isnan, nan
from urllib.parse import parse_qsl, urlsplit

from espwire.errors import TransportError, TransportLost, UsageError
from espwire.transport import telnet
from espwire.transport.base import CancelToken, TransportInfo
from espwire.transport.tcp import TcpTransport, connect_socket, parse_socket_url

GREETING_S = 3.0
ANSWER_S = 1.0
BAUD_S = 3.0
EIGHT_BITS, NO_PARITY, ONE_STOP_BIT = 8, 1, 1
OPTIONS = (
    "ign_set_control",
    "timeout",
    "poll_modem",
    "logging",
)  # of pyserial's URLs; the last two change nothing here


def open_rfc2217(url: str, baud: int, cancel: CancelToken) -> Rfc2217Transport:
    """Connect to ``rfc2217://host:port``, with ``?ign_set_control`` to set lines without waiting for answers.

    :raises UsageError: not of that form
    :raises PortNotFound: nobody listens there
    :raises TransportError: codes ``no-rfc2217``: the server does not do RFC 2217; ``baud-refused``
    """
    host, port = parse_socket_url(url, "rfc2217")
    options = dict(parse_qsl(urlsplit(url).query, keep_blank_values=True))
    if unknown := options.keys() - set(OPTIONS):
        raise UsageError(
            f"rfc2217:// has no option {min(unknown)}",
            hint=f"Known: {', '.join(OPTIONS)}.",
            code="bad-port",
        )
    wait = _parse_seconds(options["timeout"]) if "timeout" in options else GREETING_S
    transport = Rfc2217Transport(TcpTransport(connect_socket(host, port, cancel), url, cancel))
    try:
        transport.greet(baud, wait=wait, patient="ign_set_control" not in options)
    except BaseException:
        transport.close()
        raise
    return transport


class Rfc2217Transport:
    """A Link to a port that a server holds. ``greet`` must come first."""

    def __init__(self, tcp: TcpTransport) -> None:
        self._tcp = tcp
        self._decoder = telnet.Decoder()
        self._inbox = bytearray()
        self._patient = {
            telnet.SET_CONTROL: True,
            telnet.PURGE: True,
        }  # whether to wait for such answers
        self.info = TransportInfo(name=tcp.info.name, kind="uart", remote=True)

    def greet(self, baud: int, *, wait: float = GREETING_S, patient: bool = True) -> None:
        """Agree on RFC 2217, then 8N1, no flow control, both lines released.

        :param patient: wait for the answer whenever lines are set
        :raises TransportError: codes ``no-rfc2217``, ``baud-refused``
        """
        deadline = self.now() + wait
        self._send(telnet.build_greeting(), deadline)
        while self._decoder.accepted is None and self.now() < deadline:
            self._pump(deadline - self.now())
        if not self._decoder.accepted:
            raise TransportError(
                f"{self.info.name} is no RFC 2217 server",
                hint="For a plain socket, write socket:// instead.",
                code="no-rfc2217",
            )
        self._patient[telnet.SET_CONTROL] = patient
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

    def read(self, timeout: float) -> bytes:
        """What has come; empty when time is up."""
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
        """Hand over all of ``data``; waits while the server asks for a break."""
        while self._decoder.suspended:
            left = deadline - self.now()
            if left <= 0:
                raise TransportLost(f"{self.info.name} takes no more bytes", code="write-timeout")
            self._pump(left)
        self._tcp.write(telnet.escape(data), deadline)

    def drain(self) -> None:
        """Nothing to wait for: RFC 2217 does not tell when the server has sent it all."""

    def discard_input(self) -> None:
        """Forget what has come, here and at the server."""
        self._ask(telnet.PURGE, bytes((telnet.PURGE_RECEIVED,)))
        self._inbox.clear()

    def set_baud(self, baud: int) -> None:
        """Change the server's rate.

        :raises TransportError: code ``baud-refused``
        """
        answer = self._exchange(telnet.SET_BAUD, [baud.to_bytes(4, "big")], BAUD_S)
        said = int.from_bytes(answer, "big") if answer is not None else 0
        if said not in (0, baud) and abs(said - baud) > baud * 0.03:
            raise TransportError(
                f"{self.info.name} cannot do {baud} baud; it stays at {said}",
                hint="Choose a lower --baud.",
                code="baud-refused",
            )

    def set_lines(self, *, dtr: bool | None = None, rts: bool | None = None) -> None:
        """Set modem lines; both in one message, which the server carries out one after the other."""
        wanted = []
        if dtr is not None:
            wanted.append(telnet.DTR_ON if dtr else telnet.DTR_OFF)
        if rts is not None:
            wanted.append(telnet.RTS_ON if rts else telnet.RTS_OFF)
        self._ask(telnet.SET_CONTROL, *(bytes((one,)) for one in wanted))

    def now(self) -> float:
        """The monotonic clock."""
        return self._tcp.now()

    def sleep(self, seconds: float) -> None:
        """Let real time pass."""
        self._tcp.sleep(seconds)

    def close(self) -> None:
        """Close; a second time does nothing."""
        self._tcp.close()

    def _ask(self, option: int, *values: bytes) -> None:
        """Send requests of one kind; wait for all answers unless this server gave none before."""
        if not self._patient[option] or self._tcp.cancelled:
            message = b"".join(telnet.build_request(option, value) for value in values)
            # a cancelled reset must still release the lines
            self._tcp.send(message, self.now() + ANSWER_S, cancellable=False)
        elif values and self._exchange(option, list(values), ANSWER_S) is None:
            self._patient[option] = False

    def _exchange(self, option: int, values: list[bytes], seconds: float) -> bytes | None:
        """Send requests, and return the answer to the last one; None: it did not come in time."""
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
        """Take in what comes, and reply to what asks for a reply."""
        self._inbox += self._decoder.feed(self._tcp.read(timeout))
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
            f"timeout={text} is not a number of seconds", hint="Write timeout=3.", code="bad-port"
        )
    return min(max(seconds, 0.1), 60.0)
