"""From the spelling of a port to an open Link. The one place that knows which kinds of link there are."""

from __future__ import annotations

from espwire.errors import UsageError
from espwire.transport.base import CancelToken, Transport

KINDS = (
    "a device path (/dev/ttyUSB0, COM3), socket://host:port, rfc2217://host:port or virtual:chip"
)


def open_transport(url: str, *, baud: int = 115200, cancel: CancelToken | None = None) -> Transport:
    """The link for ``/dev/ttyUSB0``, ``COM3``, ``socket://host:port``, ``rfc2217://host:port`` or ``virtual:esp32c3``.

    :param baud: the first rate, where the port has one
    :param cancel: ends the link's waits from another thread
    :raises UsageError: no such kind of port
    :raises TransportError: it cannot be opened
    """
    cancel = cancel or CancelToken()
    if not url.strip():
        raise UsageError("the port's name is empty", hint=f"Name {KINDS}.", code="bad-port")
    scheme, colon, rest = url.partition(":")
    if (
        not colon
        or len(scheme) == 1
        or not scheme.isalnum()
        or (scheme.upper().startswith("COM") and not rest)
    ):
        return _open_serial(url, baud, cancel)
    match scheme.lower():
        case "socket":
            from espwire.transport.tcp import open_tcp

            return open_tcp(url, cancel)
        case "virtual":
            from espwire.virtual.transport import open_virtual

            transport = open_virtual(url, cancel)
            transport.set_baud(baud)
            return transport
        case "rfc2217":
            from espwire.transport.rfc2217 import open_rfc2217

            return open_rfc2217(url, baud, cancel)
    raise UsageError(f"there is no kind of port {scheme!r}", hint=f"Name {KINDS}.", code="bad-port")


def _open_serial(name: str, baud: int, cancel: CancelToken) -> Transport:
    from espwire.transport.serial import SerialTransport

    return SerialTransport(name, baud=baud, cancel=cancel)
