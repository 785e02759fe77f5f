"""Signed images for `secure signature-info` and `verify-signature`: a file, or those in a device's flash."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from espwire.cli.host_key_options import key_options, read_host_key
from espwire.cli.inputs import TableSource, check_readable, parse_place, read_table_file
from espwire.cli.options import combine, table_options
from espwire.errors import UsageError

if TYPE_CHECKING:
    from espwire.cli.context import Context
    from espwire.flash.signed import StoredImage

source_options = combine(
    click.argument("file", metavar="[FILE]", required=False),
    click.option(
        "--at",
        "places",
        multiple=True,
        metavar="PLACE",
        help="In flash: `bootloader`, a partition's name or an address; repeatable. Default: the bootloader and all applications.",
    ),
    key_options,
    table_options,
)
IN_FLASH = ("places", "key", "crypt_config", "partitions")  # have no meaning for a file


def check_file_only(choices: Mapping[str, Any]) -> None:
    """:raises UsageError: options about a device's flash with a file"""
    if any(choices[name] for name in IN_FLASH):
        raise UsageError(
            "--at, --key, --flash-crypt-conf and --partitions are for images in flash, not for a file",
            hint="Leave out FILE to check the images in the device's flash.",
        )


def read_device_images(
    context: Context, choices: Mapping[str, Any], *, bootloader: bool = True
) -> list[StoredImage]:
    """The images in the connected device's flash that the options name.

    :param bootloader: whether it is among the images that are not named
    :raises UsageError: under a name of esptool's family, a file is required
    """
    from espwire.flash.signed import read_images

    if not context.program.strict:
        raise UsageError("missing argument FILE", hint="Name the signed file.")
    if choices["skip_padding"]:
        raise UsageError(
            "--skip-padding is for files: the chip boots no such image",
            hint="Leave out --skip-padding.",
        )
    names = [parse_place(word, strict=True) for word in choices["places"]]
    source = TableSource(choices["partitions"], choices["table_offset"])
    check_readable(source.files)
    key = read_host_key(context, choices, source)
    table = None
    if source.file is not None:
        table = read_table_file(context, source.file, source.offset)
    with context.device() as device:
        images = read_images(
            device,
            names,
            table=table,
            table_offset=source.offset,
            key=key,
            bootloader=bootloader,
            report=context.report,
        )
        return list(images)
