"""``ADDRESS FILE …`` on the command line: parsing it, looking up partition names, reading the files.

All of it that can be checked without the chip is checked before a port is opened: a command that fails because of a
file must fail before it resets a board, and not after minutes of work.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from espwire.blob import Blob, choose_for_chip
from espwire.chips.registry import load_chip
from espwire.cli.argument_mistakes import (
    explain_address,
    explain_file,
    explain_last,
    is_number,
    is_partition_name,
)
from espwire.errors import FileError, ImageError, TableError, UsageError
from espwire.files import INPUT_LIMIT, check_total_size, open_output, read_file
from espwire.image.header import HeaderSettings, parse_size_name
from espwire.sizes import format_size, parse_flash_address, parse_number

if TYPE_CHECKING:
    from espwire.chips.model import Chip
    from espwire.cli.context import Context
    from espwire.device.device import Device
    from espwire.flash.host_key import HostKey
    from espwire.image.partition_csv import TableOffsets
    from espwire.image.partition_table import Partition, PartitionTable
    from espwire.image.read_any import FormatChoice

STDIN = "-"


class Input(NamedTuple):
    """A file and where it goes. ``partition``: the one whose name was given in place of an address."""

    place: int | str
    path: str
    partition: Partition | None = None


class Region(NamedTuple):
    """``ADDRESS SIZE`` or ``NAME [SIZE]``. Size None: the whole partition, or up to the end of the flash."""

    place: int | str
    size: int | None


class TableSource(NamedTuple):
    """Where partition names are looked up: in the file of ``--partitions``, else in the device's table."""

    file: str | None
    offset: int

    @property
    def files(self) -> list[str]:
        """The file, if there is one."""
        return [] if self.file is None else [self.file]


def parse_place(
    word: str, words: Sequence[str] = (), *, strict: bool, names: bool = True
) -> int | str:
    """A flash address, or a partition's name.

    :param words: the whole argument list, for the error
    :param strict: refuse decimal numbers that are probably meant to be hexadecimal
    :raises UsageError: it is neither
    """
    if names and is_partition_name(word):
        return word
    try:
        return parse_flash_address(word, strict=strict)
    except UsageError as error:
        raise explain_address(word, words) or error from None


def parse_inputs(words: Sequence[str], *, strict: bool, names: bool = True) -> list[Input]:
    """Parse ``ADDRESS FILE``, ``NAME FILE`` and ``NAME=FILE``, mixed.

    :param names: accept partition names
    :raises UsageError: an argument is missing or not an address
    """
    inputs: list[Input] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        place, equals, file = word.partition("=")
        if names and equals and place and file:
            inputs.append(Input(parse_place(place, words, strict=strict), file))
            continue
        if not rest:
            raise explain_last(word, words)
        file = rest.pop(0)
        if file != STDIN and (mistake := explain_file(word, file, words)) is not None:
            raise mistake
        inputs.append(Input(parse_place(word, words, strict=strict, names=names), file))
    return inputs


def parse_region(words: Sequence[str], *, files: int, strict: bool) -> tuple[Region, list[str]]:
    """Parse a region, and the ``files`` arguments after it.

    :raises UsageError: an argument is missing, superfluous, or not a number
    """
    form = f"Write ADDRESS SIZE{' FILE' * files} or NAME [SIZE]{' FILE' * files}."
    count = len(words) - files
    place = parse_place(words[0], strict=strict)
    if count == 1 and isinstance(place, str):
        return Region(place, None), list(words[1:])
    if count > 2:
        more = " ".join(words[2 + files :])
        raise UsageError(
            f"too many arguments: {more}", hint=f"{form} A path with a space needs quotes."
        )
    if count < 1:
        missing = "SIZE and FILE are missing" if isinstance(place, int) else "FILE is missing"
        raise UsageError(missing, hint=form)
    if count == 1:
        is_size = files and (words[1].upper() == "ALL" or is_number(words[1]))
        raise UsageError(f"{'FILE' if is_size else 'SIZE'} is missing", hint=form)
    size = None if words[1].upper() == "ALL" else parse_number(words[1], "size")
    return Region(place, size), list(words[2:])


def read_table_file(
    context: Context,
    path: str,
    offset: int,
    *,
    format: FormatChoice = "auto",
    layout: TableOffsets | None = None,
) -> PartitionTable:
    """The partition table in a file: a binary table, a dump that has one at ``offset``, or CSV.

    :raises FileError: it cannot be read
    :raises TableError: it has no table, or an invalid one
    """
    from espwire.image.model import ROW_MAGIC
    from espwire.image.partition_csv import TableOffsets, decode_csv, parse_csv
    from espwire.image.partition_table import MD5_MAGIC, TABLE_SIZE, parse_table
    from espwire.image.read_any import read_any
    from espwire.image.split import flatten

    name = name_source(path)
    file = read_any(read_source(path), name, format)
    start, flat = flatten(file, load_chip_option(context))
    data = b"\xff" * start + flat
    if data[:2] in (ROW_MAGIC, MD5_MAGIC):
        return parse_table(data, name)
    if data[offset : offset + 2] in (ROW_MAGIC, MD5_MAGIC):
        return parse_table(data[offset : offset + TABLE_SIZE], f"{name} at {offset:#x}")
    text = decode_csv(data, name)
    if text is None:
        raise TableError(
            f"{name} is neither a partition table nor CSV, and has no table at {offset:#x}",
            hint="Give a CSV file, a binary table, or a dump with --partition-table-offset.",
            code="no-partition-table",
        )
    return parse_csv(text, layout or TableOffsets(offset), name)


def load_chip_option(context: Context) -> Chip | None:
    """The chip of ``--chip``, if it is given."""
    return None if context.chip is None else load_chip(context.chip)


def look_up(context: Context, inputs: Sequence[Input], table: PartitionTable) -> list[Input]:
    """Replace partition names by addresses.

    :raises TableError: code ``partition-unknown``
    """
    from espwire.flash.partitions import find_place

    def resolve(item: Input) -> Input:
        if isinstance(item.place, int):
            return item
        partition = find_place(table, item.place, report=context.report)
        return item._replace(place=partition.offset, partition=partition)

    return [resolve(item) for item in inputs]


def look_up_in_file(context: Context, inputs: Sequence[Input], source: TableSource) -> list[Input]:
    """Replace partition names by addresses if ``--partitions`` is given.

    :raises FileError, TableError: the table cannot be used, or does not have a name
    """

    if source.file is None or not has_names(inputs):
        check_total_size(item.path for item in inputs)
        return list(inputs)
    return look_up(context, inputs, read_table_file(context, source.file, source.offset))


def look_up_on_device(
    context: Context,
    inputs: Sequence[Input],
    source: TableSource,
    device: Device,
    *,
    key: HostKey | None = None,
) -> list[Input]:
    """Replace partition names by addresses, as the device's table has them.

    :param key: decrypts the table
    :raises Unsupported, TableError: the table cannot be read, or does not have a name
    """
    return look_up(context, inputs, _read_device_table(device, source, key))


def _read_device_table(device: Device, source: TableSource, key: HostKey | None) -> PartitionTable:
    if key is not None:
        from espwire.flash.host_key import read_encrypted_table

        return read_encrypted_table(device, key)
    from espwire.flash.read_table import read_partition_table

    return read_partition_table(device, source.offset)


def has_names(inputs: Sequence[Input]) -> bool:
    """Whether a partition name is left to look up."""
    return any(isinstance(item.place, str) for item in inputs)


def find_region(
    context: Context,
    region: Region,
    source: TableSource,
    device: Device,
    *,
    key: HostKey | None = None,
) -> tuple[int, int | None]:
    """Address and size of a region; size None is the rest of the flash.

    :param key: decrypts the device's table
    :raises Unsupported, TableError: the table cannot be read, does not have the name, or the partition is too small
    """
    from espwire.flash.partitions import check_fits
    from espwire.image.partition_table import find_partition

    place, size = region.place, region.size
    if isinstance(place, int):
        if size is None and (info := device.attach_flash()).size and not info.assumed:
            context.note(f"Detected flash size: {format_size(info.size)}")
        return place, size
    if source.file is not None:
        table = read_table_file(context, source.file, source.offset)
    else:
        table = _read_device_table(device, source, key)
    partition = find_partition(table, place)
    check_fits(partition, size or 0, "the region")
    return partition.offset, partition.size if size is None else size


def read_blobs(
    context: Context,
    path: str,
    address: int = 0,
    *,
    format: FormatChoice = "auto",
    settings: HeaderSettings | None = None,
) -> tuple[Blob, ...]:
    """Read a file of any format; conversions are reported.

    :param address: where a file goes that contains no address
    :param settings: flash settings for the header of a converted ELF
    :raises FileError, DataError: it cannot be read or used
    """

    from espwire.image.read_any import check_not_empty, read_input

    name = name_source(path)
    chip = load_chip_option(context)
    format = peer_format(context, format)
    blobs = read_input(
        read_source(path), name, address, chip=chip, settings=settings, format=format
    )
    check_not_empty(blobs, name)
    for note in dict.fromkeys(blob.note for blob in blobs if blob.note):
        context.note(note)
    return blobs


def peer_format(context: Context, format: FormatChoice) -> FormatChoice:
    """``format`` for commands that esptool has as well: as ``esptool.py``, its rules apply."""
    return "esptool" if format == "auto" and not context.program.strict else format


def read_inputs(
    context: Context,
    inputs: Sequence[Input],
    *,
    format: FormatChoice = "auto",
    settings: HeaderSettings | None = None,
) -> list[Blob]:
    """Read the files; addresses in a file override the one on the command line.

    :raises FileError: a file cannot be read
    :raises DataError: a file is damaged, is an ELF that cannot be converted, or does not fit its partition
    """

    check_total_size(item.path for item in inputs)
    result: list[Blob] = []
    for item in inputs:
        blobs = read_blobs(context, item.path, int(item.place), format=format, settings=settings)
        if item.partition is not None:
            _check_partition(item.partition, blobs, name_source(item.path))
        if len(blobs) > 1:
            blobs = tuple(replace(blob, name=f"{blob.name} at {blob.address:#x}") for blob in blobs)
        result += blobs
    return result


def _check_partition(partition: Partition, blobs: Sequence[Blob], name: str) -> None:
    """:raises TableError: codes ``partition-too-small``, ``partition-outside``"""
    from espwire.flash.partitions import check_fits, check_inside

    for blob in blobs:
        if blob.fixed:
            check_inside(partition, [(blob.address, blob.end)], name)
        else:
            check_fits(partition, len(blob.data), name)


def choose_ram_program(blobs: Sequence[Blob], chip: str, path: str) -> bytes:
    """The image for the chip.

    :raises DataError: there is none, or more than one
    """
    blobs = choose_for_chip(blobs, chip)
    if len(blobs) != 1:
        raise ImageError(
            f"{name_source(path)} has data for {len(blobs)} addresses; a program for RAM is one image",
            hint="Write it to flash with write-flash.",
            code="image-not-for-ram",
        )
    return blobs[0].data


def header_settings(flash_mode: str, flash_freq: str, flash_size: str) -> HeaderSettings:
    """The values of ``-fm``, ``-ff`` and ``-fs``.

    :raises UsageError: the size is not valid
    """

    return HeaderSettings(mode=flash_mode, frequency=flash_freq, size=parse_size_name(flash_size))


def read_source(path: str) -> bytes:
    """A file's bytes; ``-`` is standard input.

    :raises FileError: it cannot be read, or is larger than 256 MiB
    :raises UsageError: standard input is not usable, or was read before
    """
    if path != STDIN:
        return read_file(path)
    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError(
            "'-' reads standard input, which is a terminal",
            hint="Pipe a file into it; for a file named '-', write ./-.",
        )
    try:
        data = sys.stdin.buffer.read(INPUT_LIMIT + 1)
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read standard input: {error}", code="file-read") from None
    if len(data) > INPUT_LIMIT:
        raise FileError("standard input has more than 256 MiB", code="file-too-large")
    if not data:
        raise UsageError(
            "standard input is empty", hint="Pipe a file into it, and use '-' only once."
        )
    return data


def name_source(path: str) -> str:
    """A file's name for messages."""
    return "standard input" if path == STDIN else os.path.basename(path)


def check_readable(paths: Iterable[str]) -> None:
    """Read each file once, except standard input and pipes, which can be read only once.

    :raises FileError: a file cannot be read
    """
    for path in paths:
        if path != STDIN and (
            os.path.isfile(path) or not os.path.exists(path) or os.path.isdir(path)
        ):
            read_file(path)


class _StopWriting(Exception):
    """Leaves ``open_output`` so that the file keeps its old contents."""


def check_writable(path: str) -> None:
    """Start to write ``path`` and undo it; existing contents stay. Devices and pipes are not touched.

    :raises FileError: it cannot be written
    """
    if os.path.exists(path) and not os.path.isfile(path) and not os.path.isdir(path):
        return
    with suppress(_StopWriting), open_output(path, durable=False):
        raise _StopWriting
