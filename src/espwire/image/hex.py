"""Intel HEX text → pieces with addresses. Nothing is written here.

Record decoding is bincopy's; joining is ours, since bincopy inserts pieces one by one (hours for a hostile file).

Motorola S-record text → pieces with addresses, as hexfile.py gives them. Writes nothing.

Record decoding is bincopy's; the order of records, their counts and the joining are checked here.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from io import BytesIO

from espwire.errors import HexError

DATA, END, SEGMENT_BASE, START_SEGMENT, LINEAR_BASE, START_LINEAR = range(6)
LONGEST_RECORD = 1 + 2 * (1 + 2 + 1 + 255 + 1)
MAX_PIECES = 4096
MAX_RUNS = 0x10000  # in file order, before sorting
TOP = 1 << 32
SECTOR = 0x1000


@dataclass(frozen=True)
class HexPart:
    """Bytes, and the address that the file itself gives them; None for raw binary."""

    address: int | None
    data: bytes = field(repr=False)


def is_hex(data: bytes) -> bool:
    """Whether the file begins as Intel HEX does."""
    return data[:1] == b":"


def parse_hex(
    data: bytes, name: str = "the file", *, join_within: int = SECTOR, whole: bool = True
) -> tuple[HexPart, ...]:
    """Pieces of Intel HEX text, by address. Gaps inside one ``join_within``-byte unit are filled with 0xFF.

    A flash sector is erased whole, so two pieces in one sector are one write.

    :param whole: require an end record as the last; False: read up to the end record, if there is one
    :raises HexError: broken record, overlapping data, no end record, more than 4096 pieces
    """
    return join_records(_read_records(data, name, whole=whole), name, join_within=join_within)


def join_records(
    records: Iterable[tuple[int, bytes]], name: str, *, join_within: int = SECTOR
) -> tuple[HexPart, ...]:
    """Records (address, bytes) in file order → pieces by address, as ``parse_hex`` gives them.

    :raises HexError: overlapping data, more than 4096 pieces
    """
    joined: list[tuple[int, bytearray]] = []
    for address, piece in _find_runs(records, name):
        end = joined[-1][0] + len(joined[-1][1]) if joined else -1
        if joined and address < end:
            raise HexError(
                f"{name} has data for {address:#x} twice",
                hint="The file was merged wrongly.",
                code="hex-overlap",
            )
        if joined and (address == end or address // join_within == (end - 1) // join_within):
            joined[-1][1].extend(b"\xff" * (address - end) + piece)
        else:
            joined.append((address, piece))
    if len(joined) > MAX_PIECES:
        raise HexError(
            f"{name} has {len(joined)} separate pieces, more than {MAX_PIECES}",
            hint="It is no flash content.",
        )
    return tuple(HexPart(address, bytes(piece)) for address, piece in joined)


def _find_runs(records: Iterable[tuple[int, bytes]], name: str) -> list[tuple[int, bytearray]]:
    """Records that follow each other, joined; by address. Runs may still touch or overlap."""
    runs: list[tuple[int, bytearray]] = []
    for address, piece in records:
        if runs and runs[-1][0] + len(runs[-1][1]) == address:
            runs[-1][1].extend(piece)
        elif len(runs) < MAX_RUNS:
            runs.append((address, bytearray(piece)))
        else:
            raise HexError(
                f"{name} jumps about more than {MAX_RUNS} times", hint="It is no flash content."
            )
    runs.sort(key=lambda run: run[0])
    return runs


def _read_records(data: bytes, name: str, *, whole: bool) -> Iterator[tuple[int, bytes]]:
    """Address and bytes of every data record, in file order."""
    import bincopy

    base, ended = 0, False
    for number, raw in enumerate(BytesIO(data), 1):
        line = raw.strip()
        if not line:
            continue
        if ended and not whole:
            return
        if ended:
            raise _broken(name, number, "there is data after the end record")
        if len(line) > LONGEST_RECORD:
            raise _broken(name, number, "the line is longer than any record")
        try:
            kind, address, size, content = bincopy.unpack_ihex(line.decode("ascii"))
        except (bincopy.Error, ValueError) as error:  # ValueError: not hexadecimal, not ASCII
            raise _broken(name, number, find_reason(line, error, b":")) from None
        if kind == DATA:
            if base + address + size > TOP:
                raise _broken(name, number, "its data goes past the 32-bit address space")
            if size:
                yield base + address, bytes(content)
        elif kind in (SEGMENT_BASE, LINEAR_BASE) and size == 2:
            base = int.from_bytes(content, "big") << (4 if kind == SEGMENT_BASE else 16)
        elif kind == END and size == 0:
            ended = True
        elif not (kind in (START_SEGMENT, START_LINEAR) and size == 4):
            raise _broken(name, number, f"record type {kind} with {size} bytes does not exist")
    if not ended and whole:
        raise HexError(
            f"{name} ends without an end record",
            hint="The file was not copied or downloaded whole: get it again.",
            code="hex-truncated",
        )


def find_reason(line: bytes, error: Exception, begin: bytes) -> str:
    """What is wrong with a record, in our words and short: bincopy repeats the whole of it."""
    text = str(error)
    if not line.startswith(begin):
        return f"it does not begin with {begin.decode()!r}"
    for word, reason in (
        ("crc", "its checksum is wrong"),
        ("short", "it is too short"),
        ("size", "its length is wrong"),
        ("type", "there is no such type of record"),
    ):
        if word in text:
            return reason
    return "it is not hexadecimal"


def _broken(name: str, number: int, reason: str) -> HexError:
    return HexError(f"{name}, line {number}: {reason}", code="hex-record", line=number)


LONGEST_SRECORD = 2 + 2 * (1 + 255)
_S_HEADER, _S_DATA, _S_COUNT, _S_END = "0", "123", "56", "789"
_FIRST_SRECORD = rb"S[0-9][0-9A-Fa-f]{8,}[ \t]*\r?(\n|$)"
S_HINT = "Check that the file is whole S-record text."


def is_srecord(data: bytes) -> bool:
    """Whether the file is Motorola S-record text: its first line is such a record, whole or not."""
    return data[:1] == b"S" and re.match(_FIRST_SRECORD, data[: LONGEST_SRECORD + 4]) is not None


def parse_srecord(data: bytes, name: str = "the file") -> tuple[HexPart, ...]:
    """Pieces of S-record text, by address. Gaps inside one flash sector are filled with 0xFF.

    :raises HexError: broken record, wrong count, overlapping data, no end record, more than 4096 pieces
    """
    return join_records(_read_srecords(data, name), name)


def _read_srecords(data: bytes, name: str) -> Iterator[tuple[int, bytes]]:
    import bincopy

    ended, counted, seen = (
        False,
        False,
        0,
    )  # a right count ends a file as well as an end record: some tools write none
    for number, raw in enumerate(BytesIO(data), 1):
        line = raw.strip()
        if not line:
            continue
        if ended:
            raise _broken_srecord(name, number, "there is data after the end record")
        if len(line) > LONGEST_SRECORD:
            raise _broken_srecord(name, number, "the line is longer than any record")
        try:
            kind, address, size, content = bincopy.unpack_srec(line.decode("ascii"))
        except (bincopy.Error, ValueError, IndexError) as error:
            raise _broken_srecord(name, number, find_reason(line, error, b"S")) from None
        if kind in _S_DATA:
            seen += 1
            if address + size > TOP:
                raise _broken_srecord(name, number, "its data goes past the 32-bit address space")
            if size:
                yield address, bytes(content)
            counted = False
        elif kind in _S_COUNT:
            counted = True
            if address != seen:
                raise _broken_srecord(
                    name, number, f"it counts {address} data records, the file has {seen}"
                )
        ended = kind in _S_END
    if not (ended or counted):
        raise HexError(
            f"{name} ends without an end record (S7, S8, S9) or a count (S5, S6)",
            hint="The file was not copied or downloaded whole: get it again.",
            code="srecord-truncated",
        )


def _broken_srecord(name: str, number: int, reason: str) -> HexError:
    return HexError(f"{name}, line {number}: {reason}", hint=S_HINT, code="srecord", line=number)
