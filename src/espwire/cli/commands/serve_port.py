"""``serve-port``: serves serial ports to other computers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from espwire.errors import UsageError
from espwire.text import hide_token, shorten

if TYPE_CHECKING:
    from collections.abc import Callable

    from espwire.cli.context import Context
    from espwire.serve.server import PortSource
    from espwire.transport.base import Transport
    from espwire.transport.ports import SystemPort

DEFAULT_PORT = 2217
BACK_S = 0.1  # to see a device in two scans of the ports
EVERYWHERE = ("0.0.0.0", "::")


@click.command()
@click.argument("ports", metavar="PORT…", nargs=-1, required=True)
@click.option(
    "--listen",
    "endpoint",
    metavar="HOST[:PORT]",
    default=f"127.0.0.1:{DEFAULT_PORT}",
    help="Listen on this address; further ports get the next numbers. Default: 127.0.0.1:2217.",
)
@click.option(
    "--allow",
    "networks",
    metavar="NETWORK",
    multiple=True,
    help="Only accept clients from this network, such as 192.168.1.0/24. Repeatable.",
)
@click.option(
    "--token-file", metavar="FILE", help="Require the token in this file; clients use espwire://."
)
@click.option("--token-env", metavar="NAME", help="Require the token in this environment variable.")
@click.option(
    "--long-reset",
    is_flag=True,
    help="Hold reset and boot pin longer, for boards with a large capacitor.",
)
@click.pass_obj
def serve_port(
    context: Context,
    /,
    ports: tuple[str, ...],
    endpoint: str,
    networks: tuple[str, ...],
    token_file: str | None,
    token_env: str | None,
    long_reset: bool,
) -> None:
    """Runs until Ctrl-C. One client at a time uses a port; others get an error that names it.

    Other tools connect with rfc2217://HOST:PORT, espwire with espwire://HOST:PORT, which also carries the USB identity
    and a token. Nothing is encrypted: use a tunnel (ssh -L) on networks that you do not trust.
    """
    from espwire.serve.server import ServeOptions, parse_network, serve_ports
    from espwire.transport.listening import parse_endpoint
    from espwire.transport.remote import read_token
    from espwire.transport.tcp import find_host_error

    if token_file is not None and token_env is not None:
        raise UsageError(
            "--token-file and --token-env exclude each other", hint="Use only one of them."
        )
    if endpoint.isdecimal():
        raise UsageError(
            f"--listen {shorten(endpoint)}: the address is missing",
            hint=f"Write for example --listen 127.0.0.1:{shorten(endpoint)}.",
            code="bad-host",
        )
    host, first = parse_endpoint(endpoint, DEFAULT_PORT)
    if (reason := find_host_error(host)) is not None:
        raise UsageError(
            f"{shorten(host)!r} is not a host name: {reason}",
            hint="Write for example --listen 192.168.1.5:2217.",
            code="bad-host",
        )
    token = None
    if token_file is not None or token_env is not None:
        kind = "token-file" if token_file is not None else "token-env"
        token = read_token(kind, token_file or token_env or "")
    options = ServeOptions(
        host=host,
        first=first,
        networks=[parse_network(text) for text in networks],
        token=token,
        long_reset=long_reset,
        settings=context.settings(),
    )
    sources = [_find_source(context, name) for name in ports]
    _warn_of_access(context, host, limited=bool(networks), token=token is not None)

    def announce(name: str, address: str) -> None:
        scheme = "rfc2217" if token is None else "espwire"
        data = {"port": name, "url": f"{scheme}://{address}", "token": token is not None}
        context.result("serve-port", f"serving {name} on {scheme}://{address}", data)

    serve_ports(sources, options, announce=announce, note=context.note)


def _warn_of_access(context: Context, host: str, *, limited: bool, token: bool) -> None:
    if _is_loopback(host):
        return
    who = "the networks of --allow" if limited else "the network"
    open_to = "anyone on {} who knows the token" if token else "anyone on {}"
    where = "all addresses of this computer" if host in EVERYWHERE else host
    context.warn(
        "open-port",
        f"listening on {where}: {open_to.format(who)} can read, write and reset the board, "
        "and nothing is encrypted",
    )


def _is_loopback(host: str) -> bool:
    from ipaddress import ip_address

    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _find_source(context: Context, name: str) -> PortSource:
    from espwire.cli.ports import find_target
    from espwire.serve.server import PortSource
    from espwire.transport.ports import NamedPort
    from espwire.transport.url import find_scheme

    target = find_target(name, state=context.state)
    if isinstance(target, str) and find_scheme(target) == "virtual":
        return PortSource(name, _open_live(target))
    if isinstance(target, str):
        return PortSource(hide_token(name), lambda baud: NamedPort(target).open(baud=baud))
    return PortSource(target.identity.path, _SystemOpener(target).open)


class _SystemOpener:
    """Opens a port of the system, again and again, under whatever path the device has by then."""

    def __init__(self, port: SystemPort) -> None:
        self._port, self._opened = port, False

    def open(self, baud: int) -> Transport:
        """Open it.

        :raises TransportError: it is not there, or cannot be opened
        """
        if self._opened:
            self._port = self._port.wait_back(BACK_S)
        transport = self._port.open(baud=baud)
        self._opened = True
        return transport


def _open_live(url: str) -> Callable[[int], Transport]:
    def open_live(baud: int) -> Transport:
        from espwire.transport.base import CancelToken
        from espwire.virtual.live import LiveTransport

        transport = LiveTransport(url, CancelToken())
        transport.set_baud(baud)
        return transport

    return open_live
