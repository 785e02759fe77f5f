"""``demo``: real firmware goes to a virtual chip at a real chip's pace; then all is looked at. Needs no board."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

import click

from espwire.cli.session import Session

if TYPE_CHECKING:
    from espwire.image.model import Image

CHIP, FIRMWARE = "esp32c3", "esp32c3-hello.bin"
HEAD, ROW = 64, 16


@click.command("demo", help="Write firmware to a virtual chip and show the result. Needs no board.")
@click.option("--no-pace", is_flag=True, help="Do not take as long as a real chip would.")
@click.pass_obj
def command(session: Session, no_pace: bool) -> None:
    """Write, verify, read back, show."""
    from importlib.resources import as_file, files

    from espwire.events import Note

    with tempfile.TemporaryDirectory(prefix="espwire-demo-") as folder:
        flash_file = Path(folder, "flash.bin")
        session.reads_settings = False  # a demo is the same for everybody
        session.port = f"virtual:{CHIP}?flash={quote(flash_file.as_posix(), safe='/:')}&size=4MB&pace={0 if no_pace else 1}"
        haste = "takes no time" if no_pace else "takes as long as a real one"
        session.report(
            Note(text=f"No board is needed: this chip is made of software, and {haste}.")
        )
        with as_file(files("espwire.demo").joinpath(FIRMWARE)) as firmware:
            _show(session, firmware, flash_file)


def _show(session: Session, firmware: Path, flash_file: Path) -> None:
    from espwire.chips.registry import load_chip
    from espwire.cli.commands.chip_info import describe_device, device_data
    from espwire.cli.parts import read_pairs
    from espwire.errors import VerifyError
    from espwire.flash.write import write_flash
    from espwire.image.codec import parse

    chip = load_chip(CHIP)
    parts = read_pairs([(chip.flash.bootloader_offset, str(firmware))])
    size = len(parts[0].data)
    with session.device() as device:
        write_flash(device, parts, report=session.report)
        head = b"".join(device.read_flash(chip.flash.bootloader_offset, HEAD))
        session.result(
            "chip-info", "\nThe chip:\n" + _indent(describe_device(device)), device_data(device)
        )
    with flash_file.open("rb") as file:
        held = file.read(size)
        used = size + sum(1 for byte in file.read() if byte != 0xFF)
    if held != parts[0].data:
        raise VerifyError(
            f"the virtual chip's flash file does not hold {firmware.name}",
            hint="This is a bug: report it.",
        )
    image = parse(held, chip)
    lines = [
        f"\nThe first {HEAD} bytes of its flash, read back over the wire:",
        _indent(hex_dump(head)),
        "\nThe image in its flash:",
        _indent(describe_image(image)),
        f"\nFlash and {firmware.name} are equal, byte for byte; "
        f"{used:,} of {flash_file.stat().st_size:,} bytes of flash are written.",
        "Next: espwire -p virtual:esp32c3 chip-info, espwire virtual serve esp32c3, espwire --help.",
    ]
    data = {"equal": True, "size": size, "head": head.hex(), "segments": len(image.segments)}
    session.result("demo", "\n".join(lines), data)


def hex_dump(data: bytes) -> str:
    """Lines of 16 bytes with their offset and what of them is printable."""
    lines = []
    for at in range(0, len(data), ROW):
        row = data[at : at + ROW]
        text = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
        lines.append(f"{at:08x}  {row.hex(' '):<{3 * ROW}} {text}")
    return "\n".join(lines)


def describe_image(image: Image) -> str:
    """Segments, entry and checks of an image, for people."""
    rows = [f"entry {image.entry:#010x}, {len(image.segments)} segments"]
    for number, segment in enumerate(image.segments):
        rows.append(f"segment {number}: {len(segment.data):6,} bytes for {segment.address:#010x}")
    checks = [f"checksum {'right' if image.checksum_valid else 'WRONG'}"]
    if image.digest_valid is not None:
        checks.append(f"SHA-256 {'right' if image.digest_valid else 'WRONG'}")
    return "\n".join([*rows, ", ".join(checks)])


def _indent(text: str) -> str:
    return "\n".join(f"  {line}" for line in text.splitlines())
