"""``virtual serve`` and ``demo``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import click

from espwire.chips.registry import load_chip
from espwire.cli.commands.chip import describe_device, device_data
from espwire.cli.inputs import Input, read_inputs
from espwire.errors import UsageError, VerifyError

if TYPE_CHECKING:
    from espwire.cli.context import Context
    from espwire.image.model import Image

# options of `virtual serve` that are keys of the virtual: URL as well; the URL's parser checks the values
URL_KEYS = (
    *("flash", "efuse", "size", "mac", "revision", "fault", "profile", "seed"),
    *("vendor", "kind", "boot", "latency", "rom"),
)
DEMO_CHIP, DEMO_FIRMWARE = "esp32c3", "esp32c3-hello.bin"
HEAD_SIZE, ROW_SIZE = 64, 16


@click.command()
@click.argument("chip", metavar="CHIP")
@click.option(
    "--tcp",
    metavar="HOST:PORT",
    help="Listen on this address; port 0 chooses a free port. Default: 127.0.0.1:0.",
)
@click.option(
    "--rfc2217", is_flag=True, help="Use RFC 2217 on the TCP port, for baud rate, DTR and RTS."
)
@click.option("--pty", is_flag=True, help="Create a pseudo-terminal instead (not on Windows).")
@click.option("--flash", metavar="FILE", help="Keep the contents of the flash in this file.")
@click.option("--efuse", metavar="FILE", help="Keep the eFuses in this file.")
@click.option("--rom", metavar="FILE", help="Run the chip's own ROM from this image.")
@click.option("--size", metavar="SIZE", help="Flash size. Default: 4MB.")
@click.option("--vendor", metavar="NAME", help="Manufacturer of the flash chip: winbond, xmc, …")
@click.option("--mac", metavar="MAC", help="MAC address of the chip.")
@click.option("--revision", metavar="N.N", help="Revision of the chip.")
@click.option(
    "--profile",
    metavar="NAME",
    help="Speed of the flash: typ, fast, slow or instant. Default: typ.",
)
@click.option("--latency", metavar="SECONDS", help="Latency of the USB bridge, in each direction.")
@click.option(
    "--kind", metavar="KIND", help="Port of the chip: uart, usb-jtag or usb-otg. Default: uart."
)
@click.option(
    "--boot", metavar="MODE", help="Boot mode at power-on: download or app. Default: download."
)
@click.option("--fault", metavar="SPEC", help="Faults to inject, such as flip:1e-5.")
@click.option("--seed", metavar="N", help="Seed of the random numbers.")
@click.option("--pace", is_flag=True, help="Run at the speed of a real chip.")
@click.option(
    "--set",
    "more",
    metavar="KEY=VALUE",
    multiple=True,
    help="Set any other key of a virtual: URL, such as package=1. Repeatable.",
)
@click.pass_obj
def serve(
    context: Context,
    /,
    chip: str,
    tcp: str | None,
    rfc2217: bool,
    pty: bool,
    pace: bool,
    more: tuple[str, ...],
    **keys: str | None,
) -> None:
    """Runs until Ctrl-C. Any flashing tool can connect to it."""
    from espwire.transport.listening import parse_endpoint
    from espwire.virtual.config import parse_options
    from espwire.virtual.server import serve

    if pty and (tcp is not None or rfc2217):
        other = "--rfc2217" if rfc2217 else "--tcp"
        raise UsageError(f"{other} and --pty exclude each other", hint="Use only one of them.")
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
        if context.json:
            context.result("virtual serve", line, {"port": line.removeprefix("listening on ")})
        else:
            context.output.line(line)

    address = None if pty else parse_endpoint(tcp or "127.0.0.1:0")
    serve(options, tcp=address, rfc2217=rfc2217, announce=announce, note=context.note)


def _quote(text: str) -> str:
    """Quote for a URL, also what is not valid text: the URL's parser then refuses it."""
    return quote(text, safe="", errors="replace")


@click.command()
@click.option(
    "--no-pace", is_flag=True, help="Run as fast as possible, not at the speed of a real chip."
)
@click.pass_obj
def demo(context: Context, no_pace: bool) -> None:
    from importlib.resources import as_file, files

    with tempfile.TemporaryDirectory(prefix="espwire-demo-") as folder:
        flash_file = Path(folder, "flash.bin")
        context.use_files = False  # the demo is the same for everybody
        path = quote(flash_file.as_posix(), safe="/:")
        pace = 0 if no_pace else 1
        context.options["port"] = f"virtual:{DEMO_CHIP}?flash={path}&size=4MB&pace={pace}"
        speed = "at full speed" if no_pace else "at the speed of a real chip"
        context.note(f"This demo needs no board: the chip is emulated, {speed}.")
        with as_file(files("espwire").joinpath("demo", DEMO_FIRMWARE)) as firmware:
            _flash_and_show(context, firmware, flash_file)


def _flash_and_show(context: Context, firmware: Path, flash_file: Path) -> None:
    from espwire.flash.write import write_flash
    from espwire.image.codec import parse

    chip = load_chip(DEMO_CHIP)
    offset = chip.flash.bootloader_offset
    blobs = read_inputs(context, [Input(offset, str(firmware))])
    size = len(blobs[0].data)
    with context.device() as device:
        write_flash(device, blobs, report=context.report)
        head = b"".join(device.read_flash(offset, HEAD_SIZE))
        text = "\nThe chip:\n" + _indent(describe_device(device))
        context.result("chip-info", text, device_data(device))
    with flash_file.open("rb") as file:
        stored = file.read(size)
        used = size + sum(1 for byte in file.read() if byte != 0xFF)
    if stored != blobs[0].data:
        raise VerifyError(
            f"the virtual chip's flash file differs from {firmware.name}",
            hint="This is a bug: report it.",
        )
    image = parse(stored, chip)
    lines = [
        f"\nThe first {HEAD_SIZE} bytes of its flash, read back:",
        _indent(hex_dump(head)),
        "\nThe image in its flash:",
        _indent(describe_image(image)),
        f"\nThe flash contains exactly the bytes of {firmware.name}: "
        f"{used:,} of {flash_file.stat().st_size:,} bytes are used.",
        "Next: espwire -p virtual:esp32c3 chip-info, espwire virtual serve esp32c3, espwire --help.",
    ]
    data = {"equal": True, "size": size, "head": head.hex(), "segments": len(image.segments)}
    context.result("demo", "\n".join(lines), data)


def hex_dump(data: bytes) -> str:
    """Lines of 16 bytes: offset, hexadecimal, printable characters."""
    lines = []
    for at in range(0, len(data), ROW_SIZE):
        row = data[at : at + ROW_SIZE]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        lines.append(f"{at:08x}  {row.hex(' '):<{3 * ROW_SIZE}} {text}")
    return "\n".join(lines)


def describe_image(image: Image) -> str:
    """Segments, entry point and checksums of an image."""
    rows = [f"entry {image.entry:#010x}, {len(image.segments)} segments"]
    for number, segment in enumerate(image.segments):
        rows.append(f"segment {number}: {len(segment.data):6,} bytes for {segment.address:#010x}")
    checks = [f"checksum {'valid' if image.checksum_valid else 'INVALID'}"]
    if image.digest_valid is not None:
        checks.append(f"SHA-256 {'valid' if image.digest_valid else 'INVALID'}")
    return "\n".join([*rows, ", ".join(checks)])


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
