"""``elf2image``: an ELF file → the image files that the ROM boots."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from espwire.cli.number_types import Number
from espwire.cli.options import header_options
from espwire.cli.session import Session
from espwire.text import escape

if TYPE_CHECKING:
    from espwire.image.elf2image import ImageFiles

PAGES = ("256KB", "128KB", "64KB", "32KB", "16KB", "8KB")


def _parse_size(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> int | None:
    if value is None:
        return None
    from espwire.errors import UsageError
    from espwire.sizes import parse_flash_size, parse_number

    size = parse_flash_size(value) if value[-1:] in "bB" else parse_number(value, "size")
    if not 0 < size <= 0x8000000:
        raise UsageError(
            f"nothing can be padded to a multiple of {value}", hint="Give 4KB, 1MB, … up to 128MB."
        )
    return size


@click.command(
    "elf2image",
    help="Convert an ELF file to a bootable image. Without --chip, the program's machine and addresses tell"
    " the chip. -fs is 1MB, -fm qio, -ff that of code 0 if not given.",
)
@click.argument("file", metavar="ELF")
@header_options
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Name of the image; for an ESP8266 and version 1 its beginning.",
)
@click.option(
    "-e",
    "--version",
    "version",
    type=click.Choice(["1", "2", "3"]),
    help="ESP8266: the image's format; 1.",
)
@click.option("-r", "--min-rev", type=Number(0, 255), default=0, hidden=True)
@click.option(
    "--min-rev-full",
    type=Number(0, 65535),
    default=0,
    metavar="N",
    help="Least chip revision, 100 * major + minor.",
)
@click.option(
    "--max-rev-full",
    type=Number(0, 65535),
    default=65535,
    metavar="N",
    help="Highest chip revision.",
)
@click.option(
    "--secure-pad", is_flag=True, help="Pad for a signature of secure boot version 1 (ESP32)."
)
@click.option("--secure-pad-v2", is_flag=True, help="Pad for a signature of secure boot version 2.")
@click.option(
    "--elf-sha256-offset",
    type=Number(0, 0xFFFFFFFF),
    metavar="OFFSET",
    help="Where in the image to put the SHA-256 of the ELF.",
)
@click.option("--dont-append-digest", is_flag=True, help="No SHA-256 behind the image.")
@click.option("--use-segments", is_flag=True, help="Take the ELF's segments, not its sections.")
@click.option(
    "--flash-mmu-page-size",
    type=click.Choice(PAGES),
    help="Another page size than the program was linked for.",
)
@click.option(
    "--pad-to-size",
    metavar="SIZE",
    callback=_parse_size,
    help="Fill with 0xFF to a multiple of SIZE.",
)
@click.option(
    "--ram-only-header", is_flag=True, help="RAM first, and let the header tell of nothing else."
)
@click.option(
    "-sc",
    "--spi-connection",
    hidden=True,
    expose_value=False,
    help="Of old versions; without effect.",
)
@click.pass_obj
def command(session: Session, /, file: str, output: str | None, **words: Any) -> None:
    """Convert; each doubt is a warning, the files are the result."""
    from espwire.cli.parts import header_settings
    from espwire.image.elf2image import ElfOptions, elf2image
    from espwire.sizes import parse_flash_size

    page = words["flash_mmu_page_size"]
    options = ElfOptions(
        version=int(words["version"] or 1),  # type: ignore[arg-type]  # click let nothing else through
        settings=header_settings(words["flash_mode"], words["flash_freq"], words["flash_size"]),
        min_revision_legacy=words["min_rev"],
        min_revision=words["min_rev_full"],
        max_revision=words["max_rev_full"],
        secure_pad=2 if words["secure_pad_v2"] else 1 if words["secure_pad"] else 0,
        digest_offset=words["elf_sha256_offset"],
        append_digest=not words["dont_append_digest"],
        use_segments=words["use_segments"],
        mmu_page_size=None if page is None else parse_flash_size(page),
        pad_to_size=words["pad_to_size"],
        ram_only_header=words["ram_only_header"],
    )
    report(session, "elf2image", elf2image(file, chip=session.chip, options=options, output=output))


def report(session: Session, name: str, made: ImageFiles) -> None:
    """Tell what was written."""
    from espwire.chips.registry import load_chip
    from espwire.events import Warned

    for doubt in made.doubts:
        session.report(Warned(code="elf-doubt", text=doubt))
    lines = []
    for file in made.files:
        where = f", for flash at {file.address:#x}" if file.fixed else ""
        lines.append(
            f"{escape(file.name)}: {len(file.data):,} bytes for the {load_chip(made.chip).name}{where}."
        )
    files = [
        {
            "file": file.name,
            "address": file.address if file.fixed else None,
            "size": len(file.data),
        }
        for file in made.files
    ]
    session.result(name, "\n".join(lines), {"chip": made.chip, "entry": made.entry, "files": files})
