"""A serial port of ``espwire serve-port``, at ``espwire://host:port``: RFC 2217 with the additions of ``handshake``.

Unlike with other RFC 2217 servers, nothing waits for the network without need. The server handles everything in order, so
lines and purges are sent together with the data, what the device sent before a purge is dropped when the purge's answer
arrives, and a reset sequence is one message that the server plays with exact timing.
"""

from __future__ import annotations

import os
import secrets
from urllib.parse import parse_qsl, urlsplit

from espwire.errors import TransportError, UsageError
from espwire.files import read_file
from espwire.transport import telnet
from espwire.transport.base import CancelToken
from espwire.transport.handshake import (
    MOST_TOKEN,
    NONCE_BYTES,
    VERSION,
    build_proof,
    check_token,
    is_proof,
    parse_identity,
    parse_refusal,
)
from espwire.transport.rfc2217 import ANSWER_S, GREETING_S, Rfc2217Transport
from espwire.transport.tcp import TcpTransport, connect_socket, parse_socket_url

OPTIONS = ("token", "token-file", "token-env")
PLAY_S = 3.0  # for the answer, on top of the sequence's time


def open_remote(url: str, baud: int, cancel: CancelToken) -> RemoteTransport:
    """Connect to ``espwire://host:port``, with ``?token-file=FILE``, ``?token-env=NAME`` or ``?token=TOKEN``.

    :raises UsageError: not of this form; codes ``bad-port``, ``bad-token``
    :raises FileError: the token's file cannot be read
    :raises PortNotFound: code ``cannot-connect``
    :raises PortBusy, PortDenied, TransportError: the server refuses; codes ``no-espwire-server``, ``baud-refused``
    """
    host, port = parse_socket_url(url, "espwire")
    token = _find_token(url)
    name = f"espwire://{urlsplit(url).netloc.rpartition('@')[2]}"  # without the token
    transport = RemoteTransport(TcpTransport(connect_socket(host, port, cancel), name, cancel))
    try:
        transport.log_in(token)
        transport.set_baud(baud)
        transport.set_lines(dtr=False, rts=False)
        transport.discard_input()
    except BaseException:
        transport.close()
        raise
    return transport


class _RemoteDecoder(telnet.Decoder):
    """Drops what was received before the answer to a purge. ``purges``: how many answers are still to come."""

    def __init__(self) -> None:
        super().__init__()
        self.purges = 0

    def feed(self, data: bytes) -> bytes:
        """Return the data that no purge has discarded."""
        text = super().feed(data)
        return b"" if self.purges else text

    def _note_request(self, value: bytes) -> None:
        if value[:2] == bytes((telnet.COM_PORT, telnet.PURGE + telnet.ANSWER)) and self.purges:
            self.purges -= 1
            self._data.clear()
        else:
            super()._note_request(value)


class RemoteTransport(Rfc2217Transport):
    """A port of ``espwire serve-port``. Call ``log_in`` first."""

    def __init__(self, tcp: TcpTransport) -> None:
        self._purging = _RemoteDecoder()
        super().__init__(tcp, self._purging)
        self._wait_for_answer[telnet.SET_CONTROL] = False

    def log_in(self, token: bytes | None, wait: float = GREETING_S) -> None:
        """Prove the token if the server requires one, and receive the identity of the port.

        :raises TransportError: code ``no-espwire-server``; or the server refuses
        """
        began, nonce = self.now(), secrets.token_bytes(NONCE_BYTES)
        hello = telnet.build_request(telnet.HELLO, bytes((VERSION,)) + nonce)
        self._send(telnet.build_greeting() + hello, began + wait)
        answer = self._await_answer(telnet.HELLO, wait)
        round_trip = self.now() - began
        if answer is None or len(answer) != 2 + NONCE_BYTES:
            raise TransportError(
                f"{self.info.name} is not a server of `espwire serve-port`",
                hint="For other servers, use rfc2217:// or socket:// instead.",
                code="no-espwire-server",
            )
        if answer[1]:
            self._prove(token, answer[2:], nonce, wait)
        elif token is not None:  # it may be another server
            text = b"wrong-token\0the server requires no token, so it may not be the right server"
            raise parse_refusal(text, self.info.name)
        identity = self._await_answer(telnet.IDENTITY, wait)
        self.info = parse_identity(identity or b"", self.info.name, round_trip)

    def discard_input(self) -> None:
        """Discard received bytes, here, on the way and at the server, without waiting."""
        self._purging.purges += 1
        self._inbox.clear()
        message = telnet.build_request(telnet.PURGE, bytes((telnet.PURGE_RECEIVED,)))
        self._tcp.send(message, self.now() + ANSWER_S, cancellable=False)

    def play_sequence(self, text: str, seconds: float) -> None:
        """Have the server play a reset sequence; returns when it has ended.

        :raises TransportError: code ``sequence-refused``
        """
        answer = self._exchange(telnet.PLAY, [text.encode()], seconds + PLAY_S)
        if answer is None or answer:
            reason = "no answer" if answer is None else parse_refusal(answer, "sequence")
            raise TransportError(
                f"{self.info.name} did not play the reset sequence: {reason}",
                hint="Use the same version of espwire on both computers.",
                code="sequence-refused",
            )

    def _prove(self, token: bytes | None, server: bytes, client: bytes, wait: float) -> None:
        if token is None:
            raise parse_refusal(b"token-needed\0the server requires a token", self.info.name)
        proof = build_proof(token, "client", server, client)
        self._send(telnet.build_request(telnet.PROVE, proof), self.now() + wait)
        answer = self._await_answer(telnet.PROVE, wait)
        if not is_proof(answer or b"", build_proof(token, "server", server, client)):
            text = b"wrong-token\0the server does not know the token"
            raise parse_refusal(text, self.info.name)

    def _await_answer(self, option: int, seconds: float) -> bytes | None:
        """The first answer of this kind, also if it is here already."""
        deadline = self.now() + seconds
        while True:
            for at, (kind, value) in enumerate(self._decoder.answers):
                if kind == option:
                    del self._decoder.answers[at]
                    return value
            left = deadline - self.now()
            if left <= 0:
                return None
            self._pump(left)


def _find_token(url: str) -> bytes | None:
    pairs = parse_qsl(urlsplit(url).query, keep_blank_values=True)
    if unknown := [key for key, _ in pairs if key not in OPTIONS]:
        raise UsageError(
            f"unknown option {unknown[0]} in an espwire:// URL",
            hint=f"Known options: {', '.join(OPTIONS)}.",
            code="bad-port",
        )
    if len(pairs) > 1:
        raise UsageError(
            "several tokens in an espwire:// URL",
            hint=f"Use one of {', '.join(OPTIONS)}.",
            code="bad-port",
        )
    return read_token(*pairs[0]) if pairs else None


def read_token(kind: str, value: str) -> bytes:
    """A token given as ``token`` (itself), ``token-file`` (its file) or ``token-env`` (an environment variable).

    :raises UsageError: code ``bad-token``
    :raises FileError: the file cannot be read
    """
    if kind == "token":
        return check_token(value, "the URL")
    if kind == "token-file":
        content = read_file(value, limit=MOST_TOKEN + 2)
        return check_token(content.decode("utf-8", "replace"), value)
    if value not in os.environ:
        raise UsageError(
            f"the environment variable {value} is not set",
            hint="Set it to the token of the server.",
            code="bad-token",
        )
    return check_token(os.environ[value], f"the environment variable {value}")
