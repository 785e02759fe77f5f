"""``virtual serve``: a virtual chip behind a TCP port or a pty, until it is stopped."""

from __future__ import annotations

from urllib.parse import quote

import click

from espwire.cli.session import Session

# option of the command → key of the virtual: URL; the parser of the URL knows what values mean
URL_KEYS = (
    "flash",
    "size",
    "mac",
    "revision",
    "fault",
    "profile",
    "seed",
    "vendor",
    "kind",
    "boot",
    "latency",
)


@click.command(
    "serve",
    help="Serve a virtual chip over TCP or a pty, until Ctrl-C. Any flashing tool may talk to it.",
)
@click.argument("chip", metavar="CHIP")
@click.option(
    "--tcp", metavar="HOST:PORT", help="Listen here; port 0 takes a free one. Default: 127.0.0.1:0."
)
@click.option(
    "--rfc2217", is_flag=True, help="Speak RFC 2217 on the TCP port: with baud rate, DTR and RTS."
)
@click.option("--pty", is_flag=True, help="Make a pseudo-terminal instead (not on Windows).")
@click.option("--flash", metavar="FILE", help="Keep the flash's contents in this file.")
@click.option("--size", metavar="SIZE", help="Flash size, such as 4MB (the default).")
@click.option("--vendor", metavar="NAME", help="Who made the flash: winbond, xmc, …")
@click.option("--mac", metavar="MAC", help="The chip's MAC address.")
@click.option("--revision", metavar="N.N", help="The chip's revision.")
@click.option(
    "--profile", metavar="NAME", help="Speed of the flash: typ (the default), fast, slow, instant."
)
@click.option("--latency", metavar="SECONDS", help="Latency of the bridge, each way.")
@click.option(
    "--kind", metavar="KIND", help="Which port of the chip: uart (the default), usb-jtag, usb-otg."
)
@click.option("--boot", metavar="MODE", help="Start in download (the default) or app.")
@click.option("--fault", metavar="SPEC", help="Things that go wrong, such as flip:1e-5.")
@click.option("--seed", metavar="N", help="For everything that is left to chance.")
@click.option("--pace", is_flag=True, help="Take as long as a real chip would.")
@click.option(
    "--set",
    "more",
    metavar="KEY=VALUE",
    multiple=True,
    help="Any other key of a virtual: URL: package=1 …",
)
@click.pass_obj
def command(
    session: Session,
    /,
    chip: str,
    tcp: str | None,
    rfc2217: bool,
    pty: bool,
    pace: bool,
    more: tuple[str, ...],
    **keys: str | None,
) -> None:
    """Build the chip from the options and serve it."""
    from espwire.errors import UsageError
    from espwire.events import Note
    from espwire.virtual.config import parse_options
    from espwire.virtual.server import serve

    if pty and (tcp is not None or rfc2217):
        other = "--rfc2217" if rfc2217 else "--tcp"
        raise UsageError(f"{other} and --pty exclude each other", hint="Give one of them.")
    pairs = [f"{key}={_quote(value)}" for key in URL_KEYS if (value := keys[key]) is not None]
    for item in more:
        key, equals, value = item.partition("=")
        if not (key and equals):
            raise UsageError(
                f"--set {item!r} is not KEY=VALUE", hint="Write --set package=1, for example."
            )
        pairs.append(f"{_quote(key)}={_quote(value)}")
    if pace:
        pairs.append("pace=1")
    options = parse_options(f"virtual:{chip}{'&' if '?' in chip else '?'}{'&'.join(pairs)}")

    def announce(line: str) -> None:
        if session.json:
            session.result("virtual serve", line, {"port": line.removeprefix("listening on ")})
        else:
            session.output.line(line)

    def note(text: str) -> None:
        session.report(Note(text=text))

    address = None if pty else parse_endpoint(tcp or "127.0.0.1:0")
    serve(options, tcp=address, rfc2217=rfc2217, announce=announce, note=note)


def _quote(text: str) -> str:
    """Also what is no text at all: the parser of the URL then refuses it."""
    return quote(text, safe="", errors="replace")


def parse_endpoint(text: str) -> tuple[str, int]:
    """``HOST:PORT``, ``[IPV6]:PORT`` or ``:PORT``.

    :raises UsageError: no such form
    """
    from espwire.errors import UsageError
    from espwire.sizes import parse_number

    host, colon, port = text.rpartition(":")
    if not colon:
        raise UsageError(
            f"{text!r} is not HOST:PORT", hint="Write 127.0.0.1:4000, or port 0 for a free one."
        )
    return host.strip("[]") or "127.0.0.1", parse_number(port, "port", limit=0xFFFF)
