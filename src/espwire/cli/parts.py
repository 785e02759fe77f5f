"""Files named on the command line → parts for the flash. Reads files; plans and writes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from espwire.blob import Blob
    from espwire.cli.session import Session
    from espwire.image.header import HeaderSettings

STDIN = "-"


def read_pairs(
    pairs: Iterable[tuple[int, str]],
    session: Session | None = None,
    *,
    settings: HeaderSettings | None = None,
) -> list[Blob]:
    """The parts of ``(address, file)`` pairs; addresses that a file itself gives win over the typed one.

    :param session: whose ``--chip`` an ELF is converted for, and who is told of the conversion
    :param settings: flash settings for the header of a converted ELF
    :raises FileError: a file cannot be read
    :raises DataError: a file is damaged, or an ELF that cannot be converted
    """
    from espwire.cli.places import Placed
    from espwire.files import check_total_size

    pairs = list(pairs)
    check_total_size(path for _, path in pairs)
    result: list[Blob] = []
    for address, path in pairs:
        blobs = read_blobs(path, session, address=address, settings=settings)
        if isinstance(address, Placed):
            address.check(blobs, name_source(path))
        if len(blobs) > 1:
            blobs = tuple(replace(blob, name=f"{blob.name} at {blob.address:#x}") for blob in blobs)
        result += blobs
    return result


def read_blobs(
    path: str,
    session: Session | None = None,
    *,
    address: int = 0,
    settings: HeaderSettings | None = None,
) -> tuple[Blob, ...]:
    """One file, recognised and taken apart; what was done to it is told.

    :raises FileError, DataError: it cannot be read or used
    """
    from espwire.chips.registry import load_chip
    from espwire.image.read_any import read_input

    if session is not None:
        session.configure()  # the chip may stand in a file or in the environment
    chip = None if session is None or session.chip is None else load_chip(session.chip)
    kind = "auto" if session is None else session.peer_format
    blobs = read_input(
        read_source(path),
        name_source(path),
        int(address),
        chip=chip,
        settings=settings,
        format=kind,
    )
    require_data(blobs, name_source(path))
    if session is not None:
        from espwire.events import Note

        for note in dict.fromkeys(blob.note for blob in blobs if blob.note):
            session.report(Note(text=note))
    return blobs


def require_data(blobs: Sequence[Blob], name: str) -> None:
    """Refuse a file that has an address for each piece, and no piece: nobody means to write nothing.

    :raises DataError: code ``image-empty``
    """
    from espwire.errors import DataError

    if not blobs:
        raise DataError(
            f"{name} holds no data: it has not one byte with an address",
            hint="Check that the build ended well.",
            code="image-empty",
        )


def choose_program(blobs: Sequence[Blob], chip: str, path: str) -> bytes:
    """The one blob for the chip.

    :raises DataError: there is none, or more than one
    """
    from espwire.blob import choose_for_chip
    from espwire.errors import ImageError

    blobs = choose_for_chip(blobs, chip)
    if len(blobs) != 1:
        raise ImageError(
            f"{name_source(path)} holds {len(blobs)} pieces for different addresses; a program for RAM is one image",
            hint="Programs for RAM are linked for RAM only; write this one into flash with write-flash.",
            code="image-not-for-ram",
        )
    return blobs[0].data


def read_source(path: str) -> bytes:
    """A file's bytes; ``-`` is standard input.

    :raises FileError: it cannot be read, or is larger than 256 MiB
    :raises UsageError: there is no standard input, or it was read before
    """
    from espwire.errors import FileError, UsageError
    from espwire.files import INPUT_LIMIT, read_file

    if path != STDIN:
        return read_file(path)
    import sys

    if sys.stdin is None or sys.stdin.isatty():
        raise UsageError(
            "'-' is standard input, which is the keyboard", hint="Write ./- for a file called '-'."
        )
    try:
        data = sys.stdin.buffer.read(INPUT_LIMIT + 1)
    except (OSError, ValueError) as error:
        raise FileError(f"cannot read standard input: {error}", code="file-read") from None
    if len(data) > INPUT_LIMIT:
        raise FileError("standard input gives more than 256 MiB", code="file-too-large")
    if not data:
        raise UsageError(
            "standard input is empty", hint="Pipe a file into it; '-' can stand once only."
        )
    return data


def name_source(path: str) -> str:
    """What to call a file in messages."""
    return "standard input" if path == STDIN else os.path.basename(path)


def header_settings(flash_mode: str, flash_freq: str, flash_size: str) -> HeaderSettings:
    """The three options as one value.

    :raises UsageError: the size is spelled in no known way
    """
    from espwire.image.header import HeaderSettings, parse_size_name

    return HeaderSettings(mode=flash_mode, frequency=flash_freq, size=parse_size_name(flash_size))
