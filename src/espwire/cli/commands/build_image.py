"""``elf2image`` and ``make-image``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from espwire.chips.registry import load_chip
from espwire.cli.inputs import header_settings
from espwire.cli.number_types import Number
from espwire.cli.options import header_options
from espwire.errors import UsageError
from espwire.image import elf2image as library
from espwire.image.elf2image import ElfOptions, ImageFiles
from espwire.sizes import parse_flash_size, parse_number
from espwire.text import escape

if TYPE_CHECKING:
    from espwire.cli.context import Context

PAGES = ("256KB", "128KB", "64KB", "32KB", "16KB", "8KB")
MAX_PADDING = 0x8000000


def _parse_padding(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> int | None:
    if value is None:
        return None
    size = parse_flash_size(value) if value[-1:] in "bB" else parse_number(value, "size")
    if not 0 < size <= MAX_PADDING:
        raise UsageError(
            f"cannot pad to a multiple of {value}", hint="Give 4KB, 1MB, … up to 128MB."
        )
    return size


@click.command()
@click.argument("file", metavar="ELF")
@header_options
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    help="Name of the image. For ESP8266 version 1: the start of the names of its two files.",
)
@click.option(
    "-e",
    "--version",
    "version",
    type=click.Choice(["1", "2", "3"]),
    help="ESP8266: version of the image format. Default: 1.",
)
@click.option("-r", "--min-rev", type=Number(0, 255), default=0, hidden=True)
@click.option(
    "--min-rev-full",
    type=Number(0, 65535),
    default=0,
    metavar="N",
    help="Minimum chip revision: 100 * major + minor.",
)
@click.option(
    "--max-rev-full",
    type=Number(0, 65535),
    default=65535,
    metavar="N",
    help="Maximum chip revision.",
)
@click.option(
    "--secure-pad", is_flag=True, help="Pad for a Secure Boot version 1 signature (ESP32)."
)
@click.option("--secure-pad-v2", is_flag=True, help="Pad for a Secure Boot version 2 signature.")
@click.option(
    "--elf-sha256-offset",
    type=Number(0, 0xFFFFFFFF),
    metavar="OFFSET",
    help="Write the ELF's SHA-256 at this offset of the image.",
)
@click.option("--dont-append-digest", is_flag=True, help="Do not append a SHA-256 digest.")
@click.option(
    "--use-segments", is_flag=True, help="Use the ELF's segments instead of its sections."
)
@click.option(
    "--flash-mmu-page-size",
    type=click.Choice(PAGES),
    help="MMU page size. Default: as linked.",
)
@click.option(
    "--pad-to-size",
    metavar="SIZE",
    callback=_parse_padding,
    help="Pad with 0xFF to a multiple of SIZE.",
)
@click.option(
    "--ram-only-header",
    is_flag=True,
    help="Put RAM segments first and list only them in the header.",
)
@click.option(
    "-sc", "--spi-connection", hidden=True, expose_value=False
)  # esptool 2 to 4: no effect
@click.pass_obj
def elf2image(context: Context, /, file: str, output: str | None, **choices: Any) -> None:
    """Without --chip, the chip is detected from the ELF file. Defaults: -fs 1MB, -fm qio, and the frequency that the
    chip encodes as 0."""
    page = choices["flash_mmu_page_size"]
    options = ElfOptions(
        version=int(choices["version"] or 1),  # type: ignore[arg-type]  # click checked it
        settings=header_settings(*(choices[f"flash_{name}"] for name in ("mode", "freq", "size"))),
        min_revision_legacy=choices["min_rev"],
        min_revision=choices["min_rev_full"],
        max_revision=choices["max_rev_full"],
        secure_pad=2 if choices["secure_pad_v2"] else 1 if choices["secure_pad"] else 0,
        digest_offset=choices["elf_sha256_offset"],
        append_digest=not choices["dont_append_digest"],
        use_segments=choices["use_segments"],
        mmu_page_size=None if page is None else parse_flash_size(page),
        pad_to_size=choices["pad_to_size"],
        ram_only_header=choices["ram_only_header"],
    )
    files = library.elf2image(
        file, chip=context.options.get("chip"), options=options, output=output
    )
    _report_files(context, "elf2image", files)


@click.command()
@click.argument("output", metavar="OUTPUT")
@click.option("-f", "--segfile", multiple=True, metavar="FILE", help="File with a segment's bytes.")
@click.option("-a", "--segaddr", multiple=True, metavar="ADDRESS", help="Address of that segment.")
@click.option("-e", "--entrypoint", default="0", metavar="ADDRESS", help="Entry point. Default: 0.")
@header_options
@click.pass_obj
def make_image(
    context: Context,
    output: str,
    segfile: tuple[str, ...],
    segaddr: tuple[str, ...],
    entrypoint: str,
    flash_mode: str,
    flash_freq: str,
    flash_size: str,
) -> None:
    """Give -f FILE -a ADDRESS for each segment. Without --chip, the image is for an ESP8266, and OUTPUT is the start
    of the file names: app.bin becomes app.bin0x00000.bin."""
    if len(segfile) != len(segaddr) or not segfile:
        counts = f"{len(segfile)} files but {len(segaddr)} addresses"
        raise UsageError(
            counts if segfile or segaddr else "no segment given",
            hint="Give -f FILE -a ADDRESS for each segment.",
        )
    segments = [
        (parse_number(address, "address"), file)
        for address, file in zip(segaddr, segfile, strict=True)
    ]
    files = library.make_image(
        segments,
        output,
        chip=context.options.get("chip") or "esp8266",
        entry=parse_number(entrypoint, "entry address"),
        settings=header_settings(flash_mode, flash_freq, flash_size),
    )
    _report_files(context, "make-image", files)


def _report_files(context: Context, command: str, result: ImageFiles) -> None:
    for doubt in result.doubts:
        context.warn("elf-doubt", doubt)
    name = load_chip(result.chip).name
    lines, files = [], []
    for file in result.files:
        address = file.address if file.fixed else None
        where = "" if address is None else f", for flash address {address:#x}"
        lines.append(f"{escape(file.name)}: {len(file.data):,} bytes for the {name}{where}.")
        files.append({"file": file.name, "address": address, "size": len(file.data)})
    data = {"chip": result.chip, "entry": result.entry, "files": files}
    context.result(command, "\n".join(lines), data)
