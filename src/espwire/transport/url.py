"""Opens the transport for a port name or URL."""

from __future__ import annotations

from espwire.errors import UsageError
from espwire.transport.base import CancelToken, Transport

KINDS = (
    "a device path (/dev/ttyUSB0, COM3), socket://host:port, rfc2217://host:port, espwire://host:port,"
    " labgrid://place or virtual:chip"
)


def open_transport(url: str, *, baud: int = 115200, cancel: CancelToken | None = None) -> Transport:
    """Open ``/dev/ttyUSB0``, ``COM3``, ``virtual:esp32c3``, or a URL with ``socket``, ``rfc2217`` or ``espwire``.

    :param baud: the initial baud rate, where the port has one
    :param cancel: ends waits from another thread
    :raises UsageError: code ``bad-port``: unknown kind of port
    :raises TransportError: the port cannot be opened
    """
    cancel = cancel or CancelToken()
    if not url.strip():
        raise UsageError("the port name is empty", hint=f"Use {KINDS}.", code="bad-port")
    if is_device_name(url):
        from espwire.transport.serial import SerialTransport

        return SerialTransport(url, baud=baud, cancel=cancel)
    match find_scheme(url):
        case "socket":
            from espwire.transport.tcp import open_tcp

            return open_tcp(url, cancel)
        case "virtual":
            from espwire.virtual.transport import open_virtual

            transport = open_virtual(url, cancel)
            transport.set_baud(baud)
            return transport
        case "webserial":
            from espwire.transport.webserial import open_webserial

            return open_webserial(url, baud, cancel)
        case "rfc2217":
            from espwire.transport.rfc2217 import open_rfc2217

            return open_rfc2217(url, baud, cancel)
        case "espwire":
            from espwire.transport.remote import open_remote

            return open_remote(url, baud, cancel)
        case "labgrid":
            return _open_place(url, baud, cancel)
    scheme = url.partition(":")[0]
    raise UsageError(f"unknown kind of port {scheme!r}", hint=f"Use {KINDS}.", code="bad-port")


def _open_place(url: str, baud: int, cancel: CancelToken) -> Transport:
    from espwire.transport.place import HeldPlace, PlaceTransport, open_patiently

    held = HeldPlace(url, cancel)
    try:
        inner = open_patiently(lambda: open_transport(held.url, baud=baud, cancel=cancel), cancel)
        return PlaceTransport(url, held, inner)
    except BaseException:
        held.release()
        raise


def in_real_time(url: str) -> str:
    """The URL of a virtual chip whose time follows the real clock, for a person who watches; other URLs as they are."""
    if find_scheme(url) != "virtual" or "pace=" in url:
        return url
    return url + ("&" if "?" in url else "?") + "pace=1"


def find_scheme(port: str) -> str:
    """What kind of port a name is of: the scheme of a URL, in lower case; empty: a serial port of this computer.

    >>> [find_scheme(port) for port in ("Virtual:esp32c3", "labgrid://bench-1", "COM3", "/dev/ttyUSB0")]
    ['virtual', 'labgrid', '', '']
    """
    return "" if is_device_name(port) else port.partition(":")[0].lower()


def is_device_name(url: str) -> bool:
    """Whether the name is a path or Windows name of a serial port, not a URL."""
    scheme, colon, rest = url.partition(":")
    return (
        not colon
        or len(scheme) == 1
        or not scheme.isalnum()
        or (scheme.upper().startswith("COM") and not rest)
    )
