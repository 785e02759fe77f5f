"""``merge-bin`` and ``split-image``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from espwire.blob import Blob, choose_for_chip, require_one_chip
from espwire.cli.inputs import (
    STDIN,
    Input,
    header_settings,
    load_chip_option,
    name_source,
    read_blobs,
    read_source,
)
from espwire.cli.number_types import FlashAddress, Number
from espwire.cli.options import (
    addressed_inputs_argument,
    allow_option,
    chip_option,
    force_option,
    header_options,
    input_format_option,
    only_input_format_option,
)
from espwire.errors import UsageError
from espwire.files import check_total_size, keep_inputs, write_file, write_folder
from espwire.image.header import parse_size
from espwire.image.merge import Merged, MergeOptions, find_merge_chip, merge_blobs
from espwire.text import escape

if TYPE_CHECKING:
    from espwire.chips.model import Chip
    from espwire.cli.context import Context
    from espwire.image.read_any import FormatChoice

FORMATS = ("raw", "uf2", "hex")
ARGUMENTS = "flash_args"  # file that split-image writes for write-flash
# first bytes of images, and of files with blank bytes before one
IMAGE_STARTS = (b"\xe9", b"\xea", b"\xff")


@click.command()
@chip_option
@addressed_inputs_argument
@click.option("-o", "--output", metavar="FILE", required=True, help="Output file.")
@only_input_format_option
@click.option(
    "-f",
    "--format",
    "kind",
    type=click.Choice(FORMATS),
    default="raw",
    help="Output format: raw (default), uf2 or hex.",
)
@click.option(
    "-t",
    "--target-offset",
    type=FlashAddress(0),
    default=0,
    metavar="N",
    help="Flash address that a raw file will be written to. Default: 0.",
)
@click.option("--pad-to-size", metavar="SIZE", help="Pad a raw file with 0xFF to this flash size.")
@click.option(
    "--chunk-size",
    type=Number(),
    metavar="N",
    help="Bytes of data in each UF2 block: a multiple of 4.",
)
@click.option("--md5-disable", is_flag=True, help="Write UF2 blocks without MD5 checksums.")
@click.option("-sc", "--spi-connection", hidden=True, expose_value=False)  # esptool 3, 4: no effect
@header_options
@force_option
@allow_option
@click.pass_obj
def merge_bin(
    context: Context,
    /,
    addressed_inputs: list[Input],
    output: str,
    input_format: FormatChoice,
    flash_mode: str,
    flash_freq: str,
    flash_size: str,
    **choices: Any,
) -> None:

    paths = [item.path for item in addressed_inputs]
    keep_inputs(output, [path for path in paths if path != STDIN])
    check_total_size(paths)
    settings = header_settings(flash_mode, flash_freq, flash_size)
    pad_to_size = choices["pad_to_size"]
    options = MergeOptions(
        format=choices["kind"],
        target_offset=choices["target_offset"],
        pad_to_size=None if pad_to_size is None else parse_size(pad_to_size),
        chunk_size=choices["chunk_size"],
        md5=not choices["md5_disable"],
        settings=settings,
    )
    blobs: Sequence[Blob] = [
        blob
        for item in addressed_inputs
        for blob in read_blobs(
            context, item.path, int(item.place), format=input_format, settings=settings
        )
    ]
    chip = _find_chip(context, blobs)
    blobs = choose_for_chip(blobs, chip.id)
    merged = merge_blobs(blobs, chip, options)
    _check(context, blobs, chip, force=choices["force"], allow=choices["allow"])
    for text in merged.warnings:
        context.warn("header-kept", text)
    write_file(output, merged.data)
    end = max(blob.end for blob in merged.blobs)
    if merged.format == "raw" and options.pad_to_size is not None and end > options.pad_to_size:
        text = (
            f"the data ends at {end:#x}, after {pad_to_size}: the file is larger than --pad-to-size"
        )
        context.warn("merge-past-pad", text)
    _report_merged(context, output, merged, chip)


def _find_chip(context: Context, blobs: Sequence[Blob]) -> Chip:
    """The chip of ``--chip``, or the one that the files are for.

    :raises DataError, UsageError: the files are for no certain chip, or for several
    """

    if (chip := load_chip_option(context)) is not None:
        return chip
    certain = [blob for blob in blobs if not blob.one_of]
    if len(certain) < len(blobs):
        try:
            return find_merge_chip(certain)
        except UsageError:
            require_one_chip(blobs)
    return find_merge_chip(blobs)


def _check(
    context: Context,
    blobs: Sequence[Blob],
    chip: Chip,
    *,
    force: bool,
    allow: frozenset[str],
) -> None:
    """Check that images are where the chip finds them.

    :raises SafetyStop: a check fails and is not overridden
    """
    boot = chip.flash.bootloader_offset
    images = [
        blob for blob in blobs if blob.data[:1] in IMAGE_STARTS or blob.address <= boot < blob.end
    ]
    if not images:
        return  # the checks load much of the library
    from espwire.flash.boot_content import find_boot_content_problems, find_misplaced
    from espwire.flash.findings import Policy, stop_if_fatal

    misplaced = [finding for blob in images for finding in find_misplaced(blob, chip)]
    stop_if_fatal(misplaced, Policy(force=force, consents=allow))
    for finding in misplaced or [
        finding for blob in images for finding in find_boot_content_problems(blob, chip)
    ]:
        context.warn(finding.code, finding.text)


def _report_merged(context: Context, output: str, merged: Merged, chip: Chip) -> None:
    count = len(merged.blobs)
    size = f"{len(merged.data):,} bytes from {count} part{'s' if count > 1 else ''}"
    target = f", to be written to {merged.target_offset:#x}" if merged.format == "raw" else ""
    data = {
        "output": output,
        "format": merged.format,
        "bytes": len(merged.data),
        "chip": chip.id,
        "target_offset": merged.target_offset,
        "parts": [
            {"address": blob.address, "bytes": len(blob.data), "name": blob.name}
            for blob in merged.blobs
        ],
    }
    context.result("merge-bin", f"{escape(output)}: {size} for {chip.name}{target}.", data)


@click.command()
@chip_option
@click.argument("file", metavar="FILE")
@click.option(
    "-o",
    "--output",
    metavar="FOLDER",
    required=True,
    help="Output folder; must be new or empty.",
)
@click.option(
    "-t",
    "--target-offset",
    type=FlashAddress(0),
    metavar="N",
    help="Flash address where a raw file starts.",
)
@input_format_option
@click.pass_obj
def split_image(
    context: Context,
    file: str,
    output: str,
    target_offset: int | None,
    input_format: FormatChoice,
) -> None:
    """FILE may be raw binary, Intel HEX, S-record or UF2. The folder also gets a file flash_args, with which
    `write-flash @flash_args` writes all parts."""
    from espwire.image.split import split_image

    blobs = split_image(
        read_source(file),
        name_source(file),
        load_chip_option(context),
        target_offset=target_offset,
        format=input_format,
    )
    files = {blob.name: blob.data for blob in blobs}
    files[ARGUMENTS] = "".join(f"{blob.address:#x} {blob.name}\n" for blob in blobs).encode()
    write_folder(output, files)
    lines = [f"{blob.address:#010x}  {len(blob.data):>10,} bytes  {blob.name}" for blob in blobs]
    lines.append(
        f"Written to {escape(output)}. To flash them: `espwire write-flash @{ARGUMENTS}` in that folder."
    )
    data = [
        {"address": blob.address, "bytes": len(blob.data), "file": blob.name, "kind": blob.kind}
        for blob in blobs
    ]
    context.result("split-image", "\n".join(lines), {"folder": output, "parts": data})
