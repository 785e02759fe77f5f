"""Motorola S-record text → pieces with addresses, as hexfile.py gives them. Writes nothing.

Record decoding is bincopy's; the order of records, their counts and the joining are checked here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from io import BytesIO

from espwire.errors import HexError
from espwire.image.hexfile import TOP, HexPart, find_reason, join_records

LONGEST_RECORD = 2 + 2 * (1 + 255)
HEADER, DATA, COUNT, END = "0", "123", "56", "789"
_FIRST_LINE = rb"S[0-9][0-9A-Fa-f]{8,}[ \t]*\r?(\n|$)"
HINT = "Check that the file is whole S-record text."


def is_srecord(data: bytes) -> bool:
    """Whether the file is Motorola S-record text: its first line is such a record, whole or not."""
    return data[:1] == b"S" and re.match(_FIRST_LINE, data[: LONGEST_RECORD + 4]) is not None


def parse_srecord(data: bytes, name: str = "the file") -> tuple[HexPart, ...]:
    """Pieces of S-record text, by address. Gaps inside one flash sector are filled with 0xFF.

    :raises HexError: broken record, wrong count, overlapping data, no end record, more than 4096 pieces
    """
    return join_records(_read_records(data, name), name)


def _read_records(data: bytes, name: str) -> Iterator[tuple[int, bytes]]:
    import bincopy

    ended, counted, seen = False, False, 0  # a right count ends a file as well as an end record: some tools write none
    for number, raw in enumerate(BytesIO(data), 1):
        line = raw.strip()
        if not line:
            continue
        if ended:
            raise _broken(name, number, "there is data after the end record")
        if len(line) > LONGEST_RECORD:
            raise _broken(name, number, "the line is longer than any record")
        try:
            kind, address, size, content = bincopy.unpack_srec(line.decode("ascii"))
        except (bincopy.Error, ValueError, IndexError) as error:
            raise _broken(name, number, find_reason(line, error, b"S")) from None
        if kind in DATA:
            seen += 1
            if address + size > TOP:
                raise _broken(name, number, "its data goes past the 32-bit address space")
            if size:
                yield address, bytes(content)
            counted = False
        elif kind in COUNT:
            counted = True
            if address != seen:
                raise _broken(name, number, f"it counts {address} data records, the file has {seen}")
        ended = kind in END
    if not (ended or counted):
        raise HexError(
            f"{name} ends without an end record (S7, S8, S9) or a count (S5, S6)",
            hint="The file was not copied or downloaded whole: get it again.",
            code="srecord-truncated",
        )


def _broken(name: str, number: int, reason: str) -> HexError:
    return HexError(f"{name}, line {number}: {reason}", hint=HINT, code="srecord", line=number)
