"""Partition names in place of addresses on the command line: words → addresses, by a file's table or the device's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import click

from espwire.errors import UsageError

if TYPE_CHECKING:
    from espwire.blob import Blob
    from espwire.cli.session import Session
    from espwire.device.device import Device
    from espwire.image.partition_table import Partition, PartitionTable

F = TypeVar("F", bound=Callable[..., Any])


class Placed(int):
    """An address that a partition's name stood for."""

    partition: Partition
    session: Session

    @classmethod
    def at(cls, partition: Partition, session: Session) -> Placed:
        """The partition's address."""
        made = cls(partition.offset)
        made.partition, made.session = partition, session
        return made

    def check(self, blobs: Sequence[Blob], what: str) -> None:
        """Raise where a file does not fit into the partition.

        :raises TableError: ``partition-too-small``, ``partition-outside``
        """
        from espwire.flash.partitions import check_fits, check_inside

        for blob in blobs:
            if blob.fixed:
                check_inside(self.partition, [(blob.address, blob.end)], what)
            else:
                check_fits(self.partition, len(blob.data), what)


def place_options(command: F) -> F:
    """``--partitions`` and ``--partition-table-offset``, kept in the session."""
    command = table_offset_option(command)
    return click.option(
        "--partitions",
        metavar="FILE",
        expose_value=False,
        callback=_keep,
        help="Look up partition names in this table (CSV or binary), not in the device's.",
    )(command)


def named_pairs_argument(command: F) -> F:
    """``ADDRESS FILE`` or ``NAME=FILE`` any number of times, as ``pairs``."""
    return click.argument(
        "pairs",
        nargs=-1,
        required=True,
        metavar="ADDRESS FILE…",
        callback=lambda context, _, words: parse_pairs(words, strict=context.obj.program.strict),
    )(command)


def table_offset_option(command: F) -> F:
    """``--partition-table-offset`` alone."""
    return click.option(
        "--partition-table-offset",
        metavar="ADDRESS",
        expose_value=False,
        callback=_keep_offset,
        help="Where the device's partition table is; 0x8000 if not given.",
    )(command)


def flash_limit_option(command: F) -> F:
    """``--flash-size`` as what a table must fit into: ``flash_size``, bytes or None."""
    return click.option(
        "-fs",
        "--flash-size",
        metavar="SIZE",
        callback=_parse_limit,
        help="The size of the flash: 4MB, …",
    )(command)


def _parse_limit(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> int | None:
    from espwire.sizes import parse_flash_size

    return None if value is None or value.lower() in ("keep", "detect") else parse_flash_size(value)


def _keep(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.obj.partitions = value


def _keep_offset(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        from espwire.cli.number_types import parse_address

        context.obj.partition_table_offset = parse_address(context, parameter, value)


def parse_place(word: str, words: Sequence[str] = (), *, strict: bool = True) -> int | str:
    """An address, or a partition's name as it is.

    :param words: all words of the list, for the error
    :param strict: refuse a decimal number that is a likely mistake for a hexadecimal one
    :raises UsageError: it is not an address
    """
    from espwire.cli.argument_mistakes import explain_place, is_partition_name
    from espwire.sizes import parse_flash_address

    if is_partition_name(word):
        return word
    try:
        return parse_flash_address(word, strict=strict)
    except UsageError as error:
        raise explain_place(word, words) or error from None


def parse_pairs(words: Sequence[str], *, strict: bool = True) -> list[tuple[int | str, str]]:
    """``ADDRESS FILE``, ``NAME FILE`` and ``NAME=FILE``, mixed.

    :raises UsageError: a word is missing, superfluous, or not an address
    """
    from espwire.cli.argument_mistakes import explain_file, explain_last

    pairs: list[tuple[int | str, str]] = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        place, equals, file = word.partition("=")
        if equals and place and file:
            pairs.append((parse_place(place, words, strict=strict), file))
            continue
        if not rest:
            raise explain_last(word, words)
        file = rest.pop(0)
        if (mistake := explain_file(word, file, words)) is not None:
            raise mistake
        pairs.append((parse_place(word, words, strict=strict), file))
    return pairs


def parse_region(
    words: Sequence[str], *, files: int, strict: bool = True
) -> tuple[int | str, int | None, list[str]]:
    """``ADDRESS SIZE`` or ``NAME [SIZE]``, and the ``files`` words behind it. Of a name, no size means all of it.

    :raises UsageError: a word is missing, superfluous, or not a number
    """
    from espwire.sizes import parse_number

    form = f"Write ADDRESS SIZE{' FILE' * files} or NAME [SIZE]{' FILE' * files}."
    count = len(words) - files
    place = parse_place(words[0], strict=strict)
    if count == 1 and isinstance(place, str):
        return place, None, list(words[1:])
    if count > 2:
        more = " ".join(words[2 + files :])
        raise UsageError(
            f"too many arguments: {more}", hint=f"{form} A path with a space needs quotes."
        )
    if count < 1:
        raise UsageError(
            "SIZE and FILE are missing" if isinstance(place, int) else "FILE is missing", hint=form
        )
    if count == 1:
        raise UsageError(
            f"{'FILE' if files and _is_size(words[1]) else 'SIZE'} is missing", hint=form
        )
    size = None if words[1].upper() == "ALL" else parse_number(words[1], "size")
    return place, size, list(words[2:])


def _is_size(word: str) -> bool:
    from espwire.sizes import parse_number

    try:
        parse_number(word)
    except UsageError:
        return word.upper() == "ALL"
    return True


def find_addresses(pairs: Sequence[tuple[int | str, str]]) -> list[tuple[int, str]] | None:
    """The pairs, if none has a name left; else None."""
    known = [(place, path) for place, path in pairs if isinstance(place, int)]
    return known if len(known) == len(pairs) else None


def place_by_file(
    pairs: Sequence[tuple[int | str, str]], session: Session
) -> list[tuple[int | str, str]]:
    """Addresses for names where ``--partitions`` tells them.

    :raises FileError, TableError: the table cannot be used, or a name is unknown; the files are larger than any flash
    """
    if find_addresses(pairs) is not None:
        return list(pairs)
    if session.partitions is not None:
        from espwire.cli.tables import read_table_file

        return [*place_by_table(pairs, read_table_file(session.partitions, session), session)]
    from espwire.files import check_total_size

    check_total_size(path for _, path in pairs)
    return list(pairs)


def place_by_device(
    pairs: Sequence[tuple[int | str, str]], device: Device, session: Session
) -> list[tuple[int, str]]:
    """Addresses for names, by the table in flash.

    :raises Unsupported, TableError: the table cannot be read, or a name is unknown
    """
    from espwire.flash.partitions import read_partition_table

    return place_by_table(
        pairs, read_partition_table(device, session.partition_table_offset), session
    )


def place_by_table(
    pairs: Sequence[tuple[int | str, str]], table: PartitionTable, session: Session
) -> list[tuple[int, str]]:
    """Addresses for names.

    :raises TableError: code ``partition-unknown``
    """
    from espwire.flash.partitions import find_place

    return [
        (
            place
            if isinstance(place, int)
            else Placed.at(find_place(table, place, report=session.report), session),
            path,
        )
        for place, path in pairs
    ]


def find_region(
    session: Session, device: Device, place: int | str, size: int | None
) -> tuple[int, int | None]:
    """Address and size of a region that a word names; a partition's size where none is given.

    Size None is the rest of the flash, whose detected size is then reported.

    :raises Unsupported, TableError: the table cannot be read; a name is unknown, or its partition smaller than ``size``
    """
    if isinstance(place, int):
        if size is None and (info := device.attach_flash()).size and not info.assumed:
            from espwire.events import Note
            from espwire.sizes import format_size

            session.report(Note(text=f"Detected flash size: {format_size(info.size)}"))
        return place, size
    from espwire.cli.tables import read_table_file
    from espwire.flash.partitions import check_fits, read_partition_table
    from espwire.image.partition_table import find_partition

    if session.partitions is not None:
        table = read_table_file(session.partitions, session)
    else:
        table = read_partition_table(device, session.partition_table_offset)
    found = find_partition(table, place)
    check_fits(found, size or 0, "the region")
    return found.offset, found.size if size is None else size
