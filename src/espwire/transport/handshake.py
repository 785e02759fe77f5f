"""What ``espwire://`` adds to RFC 2217: a proof of a shared token, the identity of the port, reset sequences as a whole.

The additions are COM-PORT requests of their own (``telnet.HELLO`` and the following), which other programs ignore, so one
server serves both kinds of clients.

=========== ==================================== =====================================================================
request     from the client                      answer of the server
=========== ==================================== =====================================================================
HELLO       version, nonce of 16 bytes           version, 1 if it requires a token, nonce of 16 bytes
PROVE       proof of the client                  proof of the server
PLAY        a reset sequence as text             empty, once it is played; else why it was not
REFUSE                                           (unasked) code, a zero byte, message; then it closes the connection
IDENTITY                                         (unasked) the port as JSON; from then on the port is the client's
=========== ==================================== =====================================================================

**The proof** is HMAC-SHA256 with the token as key, over a label, the side's name, the server's nonce and the client's. The
token itself is never sent, a recorded proof is useless for another connection, and neither side can return the proof of the
other. It authenticates the beginning of the connection. What follows is neither encrypted nor signed: docs/guide/remote-ports.md
shows ``ssh -L`` for that.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from typing import Literal

from espwire.errors import PortBusy, PortDenied, PortNotFound, TransportError, UsageError
from espwire.text import shorten
from espwire.transport.base import TransportInfo, TransportKind

VERSION = 1
NONCE_BYTES, PROOF_BYTES = 16, 32
LEAST_TOKEN = 16  # characters: shorter ones can be found by trying, from one recorded proof
MOST_TOKEN = 4096
MOST_TEXT = 500  # characters of a message
KINDS: dict[str, TransportKind] = {
    "uart": "uart",
    "usb-jtag": "usb-jtag",
    "usb-otg": "usb-otg",
    "tcp": "tcp",
    "virtual": "uart",
}


def build_proof(
    token: bytes, side: Literal["client", "server"], server_nonce: bytes, client_nonce: bytes
) -> bytes:
    """The proof that ``side`` has the token."""
    message = b"espwire port 1 " + side.encode() + b"\0" + server_nonce + client_nonce
    return hmac.new(token, message, hashlib.sha256).digest()


def is_proof(proof: bytes, expected: bytes) -> bool:
    """Whether a proof is right; takes equally long for every wrong one."""
    return hmac.compare_digest(proof, expected)


def check_token(text: str, source: str) -> bytes:
    """A token as bytes; spaces and line ends around it do not count.

    :param source: where it is from, for the message
    :raises UsageError: code ``bad-token``: it is too short or too long
    """
    token = text.strip()
    if not LEAST_TOKEN <= len(token) <= MOST_TOKEN:
        raise UsageError(
            f"the token in {source} has {len(token)} characters, "
            f"not {LEAST_TOKEN} to {MOST_TOKEN:,}",
            hint="Create one with: openssl rand -hex 16",
            code="bad-token",
        )
    return token.encode()


def build_refusal(code: str, text: str) -> bytes:
    """The value of REFUSE."""
    return code.encode() + b"\0" + text[:MOST_TEXT].encode("utf-8", "replace")


def parse_refusal(value: bytes, name: str) -> TransportError:
    """The error that a server's refusal stands for. Its text is not trusted.

    :param name: the port as the user named it
    """
    code, _, text = value.decode("utf-8", "replace").partition("\0")
    message = f"{name}: {shorten(text.strip(), MOST_TEXT) or 'the server refuses the connection'}"
    match code:
        case "port-busy":
            return PortBusy(message, hint="Wait until the other client has finished, or close it.")
        case "port-not-found":
            return PortNotFound(
                message, hint="Plug the board in again at the computer that serves it."
            )
        case "token-needed":
            return PortDenied(
                message,
                hint="Use espwire://HOST:PORT?token-file=FILE with the server's token.",
                code="token-needed",
            )
        case "wrong-token":
            return PortDenied(
                message,
                hint="Start the server with --token-file, and use the same token here.",
                code="wrong-token",
            )
        case "address-not-allowed":
            return PortDenied(
                message,
                hint="Start the server with --allow and the network of this computer.",
                code="address-not-allowed",
            )
        case "bad-request":
            return TransportError(
                message,
                hint="Use the same version of espwire on both computers.",
                code="bad-request",
            )
    return TransportError(message, code="server-refused", hint="Look at the server's log.")


def build_identity(info: TransportInfo) -> bytes:
    """The value of IDENTITY."""
    return json.dumps(
        {
            "kind": info.kind,
            "vid": info.vid,
            "pid": info.pid,
            "serial": info.serial[:MOST_TEXT],
            "name": info.name[:MOST_TEXT],
            "can_reset": info.can_reset,
            "can_change_baud": info.can_change_baud,
        }
    ).encode()


def parse_identity(value: bytes, name: str, round_trip: float) -> TransportInfo:
    """The identity of a served port.

    :param name: the port as the user named it
    :param round_trip: seconds
    :raises TransportError: code ``bad-server``: it is not one
    """
    try:
        data = json.loads(value)
        ids = [data[key] for key in ("vid", "pid")]
        if not all(number is None or type(number) is int for number in ids):
            raise TypeError("an id is not a number")
        return TransportInfo(
            name=name,
            kind=KINDS[data["kind"]],
            vid=ids[0],
            pid=ids[1],
            serial=shorten(str(data["serial"])),
            can_reset=bool(data["can_reset"]),
            can_change_baud=bool(data["can_change_baud"]),
            remote=True,
            round_trip=round_trip,
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise TransportError(
            f"{name} sent an invalid identity of its port: {shorten(str(error))}",
            hint="Use the same version of espwire on both computers.",
            code="bad-server",
        ) from None
