"""Intel HEX and Motorola S-record text: parse into blobs, build Intel HEX.

bincopy decodes single records. Order and number of records are checked here, and records are joined here: bincopy
inserts them one by one, which takes hours for a hostile file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from io import BytesIO

from espwire.blob import Blob
from espwire.errors import DataError, HexError
from espwire.sizes import SECTOR

DATA, END, SEGMENT_BASE, START_SEGMENT, LINEAR_BASE, START_LINEAR = range(6)
LONGEST_RECORD = 1 + 2 * (1 + 2 + 1 + 255 + 1)
LONGEST_SRECORD = 2 + 2 * (1 + 255)
BYTES_PER_RECORD = 16  # in the files that are built
MAX_BLOBS = 4096
MAX_RUNS = 0x10000  # in file order, before sorting
TOP = 1 << 32
_S_DATA, _S_COUNT, _S_END = "123", "56", "789"
_FIRST_SRECORD = rb"S[0-9][0-9A-Fa-f]{8,}[ \t]*\r?(\n|$)"
_INCOMPLETE = "The file was not copied or downloaded completely: get it again."


def is_hex(data: bytes) -> bool:
    """Whether the file begins like Intel HEX."""
    return data[:1] == b":"


def is_srecord(data: bytes) -> bool:
    """Whether the first line of the file is an S-record."""
    return data[:1] == b"S" and re.match(_FIRST_SRECORD, data[: LONGEST_SRECORD + 4]) is not None


def parse_hex(
    data: bytes, name: str = "the file", *, join_within: int = SECTOR, whole: bool = True
) -> tuple[Blob, ...]:
    """The blobs in Intel HEX text, by address. Gaps inside one ``join_within``-byte unit are filled with 0xFF.

    A flash sector is erased as a whole, so two ranges in one sector must be one write.

    :param whole: require an end record at the end; False: read up to the end record, if there is one
    :raises HexError: broken record, overlapping data, no end record, more than 4096 separate ranges
    """
    return join_records(_read_records(data, name, whole=whole), name, join_within=join_within)


def parse_srecord(data: bytes, name: str = "the file") -> tuple[Blob, ...]:
    """The blobs in S-record text, by address. Gaps inside one flash sector are filled with 0xFF.

    :raises HexError: broken record, wrong count, overlapping data, no end record, more than 4096 separate ranges
    """
    return join_records(_read_srecords(data, name), name)


def join_records(
    records: Iterable[tuple[int, bytes]],
    name: str,
    *,
    join_within: int = SECTOR,
    error: type[DataError] = HexError,
    codes: tuple[str, str] = ("hex-overlap", "hex"),
) -> tuple[Blob, ...]:
    """Records (address, bytes) in file order → blobs by address; see ``parse_hex``.

    :param codes: error codes of the two errors below
    :raises DataError: of class ``error``: overlapping data, more than 4096 separate ranges
    """
    runs: list[tuple[int, bytearray]] = []
    for address, data in records:
        if runs and runs[-1][0] + len(runs[-1][1]) == address:
            runs[-1][1].extend(data)
        elif data:
            runs.append((address, bytearray(data)))
        if len(runs) > MAX_RUNS:
            break
    joined: list[tuple[int, bytearray]] = []
    for address, run in sorted(runs, key=lambda run: run[0]):
        end = joined[-1][0] + len(joined[-1][1]) if joined else -1
        if joined and address < end:
            raise error(
                f"{name} has data for {address:#x} twice",
                hint="The file was merged incorrectly: build it again.",
                code=codes[0],
            )
        if joined and (address == end or address // join_within == (end - 1) // join_within):
            joined[-1][1].extend(b"\xff" * (address - end) + run)
        else:
            joined.append((address, run))
    if len(runs) > MAX_RUNS or len(joined) > MAX_BLOBS:
        raise error(
            f"{name} has more than {MAX_BLOBS:,} separate address ranges",
            hint="Check that it is the right file: flash content has only a few.",
            code=codes[1],
        )
    return tuple(Blob(address, bytes(run), name, fixed=True) for address, run in joined)


def _read_lines(data: bytes) -> Iterator[tuple[int, bytes]]:
    for number, raw in enumerate(BytesIO(data), 1):
        if line := raw.strip():
            yield number, line


def _read_records(data: bytes, name: str, *, whole: bool) -> Iterator[tuple[int, bytes]]:
    """Address and bytes of every data record of Intel HEX, in file order."""
    import bincopy

    base, ended = 0, False
    lines = _read_lines(data)
    for number, line in lines:
        if len(line) > LONGEST_RECORD:
            raise _broken(name, number, "the line is longer than any record")
        try:
            kind, address, size, content = bincopy.unpack_ihex(line.decode("ascii"))
        except (bincopy.Error, ValueError) as error:  # ValueError: not hexadecimal, not ASCII
            raise _broken(name, number, _find_reason(line, error, b":")) from None
        if kind == DATA:
            if base + address + size > TOP:
                raise _broken(name, number, "its data exceeds the 32-bit address space")
            yield base + address, bytes(content)
        elif kind in (SEGMENT_BASE, LINEAR_BASE) and size == 2:
            base = int.from_bytes(content, "big") << (4 if kind == SEGMENT_BASE else 16)
        elif kind == END and size == 0:
            ended = True
            break
        elif not (kind in (START_SEGMENT, START_LINEAR) and size == 4):
            raise _broken(name, number, f"record type {kind} with {size} bytes does not exist")
    if not ended and whole:
        raise HexError(f"{name} has no end record", hint=_INCOMPLETE, code="hex-truncated")
    if whole and (extra := next(lines, None)) is not None:
        raise _broken(name, extra[0], "there is data after the end record")


def _read_srecords(data: bytes, name: str) -> Iterator[tuple[int, bytes]]:
    """Address and bytes of every data record of S-record text, in file order.

    A correct count ends a file as well as an end record does: some tools write no end record.
    """
    import bincopy

    ended, counted, count = False, False, 0
    lines = _read_lines(data)
    for number, line in lines:
        if len(line) > LONGEST_SRECORD:
            raise _broken(name, number, "the line is longer than any record", "srecord")
        try:
            kind, address, size, content = bincopy.unpack_srec(line.decode("ascii"))
        except (bincopy.Error, ValueError, IndexError) as error:
            raise _broken(name, number, _find_reason(line, error, b"S"), "srecord") from None
        if kind in _S_DATA:
            count += 1
            if address + size > TOP:
                raise _broken(name, number, "its data exceeds the 32-bit address space", "srecord")
            yield address, bytes(content)
            counted = False
        elif kind in _S_COUNT:
            counted = True
            if address != count:
                text = f"it counts {address} data records, but the file has {count}"
                raise _broken(name, number, text, "srecord")
        elif kind in _S_END:
            ended = True
            break
    if (extra := next(lines, None)) is not None:
        raise _broken(name, extra[0], "there is data after the end record", "srecord")
    if not (ended or counted):
        raise HexError(
            f"{name} has neither an end record (S7, S8, S9) nor a count (S5, S6) at its end",
            hint=_INCOMPLETE,
            code="srecord-truncated",
        )


def _find_reason(line: bytes, error: Exception, start: bytes) -> str:
    """What is wrong with a record, shorter than bincopy, which repeats the whole record."""
    text = str(error)
    if not line.startswith(start):
        return f"it does not begin with {start.decode()!r}"
    for word, reason in (
        ("crc", "its checksum is wrong"),
        ("short", "it is too short"),
        ("size", "its length is wrong"),
        ("type", "its record type does not exist"),
    ):
        if word in text:
            return reason
    return "it is not hexadecimal"


def _broken(name: str, number: int, reason: str, code: str = "hex-record") -> HexError:
    hint = "Check that the file is complete S-record text." if code == "srecord" else None
    return HexError(f"{name}, line {number}: {reason}", hint=hint, code=code, line=number)


def build_hex(blobs: Iterable[Blob]) -> bytes:
    """Intel HEX of ``blobs``, which must be in order. Base records are written only above 64 KiB."""
    blobs = tuple(blob for blob in blobs if blob.data)
    lines: list[bytes] = []
    base = 0 if max((blob.end for blob in blobs), default=0) <= 0x10000 else None  # no base yet
    for address, data in _cut_records(blobs):
        if base != address >> 16:
            base = address >> 16
            lines.append(_build_record(0, LINEAR_BASE, base.to_bytes(2, "big")))
        lines.append(_build_record(address & 0xFFFF, DATA, data))
    lines.append(_build_record(0, END, b""))
    return b"".join(lines)


def _cut_records(blobs: Iterable[Blob]) -> Iterator[tuple[int, bytes]]:
    """At most 16 bytes each, none across a 64 KiB boundary; blobs that touch share a record."""
    joined: list[tuple[int, bytearray]] = []
    for blob in blobs:
        if joined and blob.address == joined[-1][0] + len(joined[-1][1]):
            joined[-1][1].extend(blob.data)
        else:
            joined.append((blob.address, bytearray(blob.data)))
    for start, data in joined:
        at = 0
        while at < len(data):
            size = min(BYTES_PER_RECORD, 0x10000 - (start + at & 0xFFFF))
            yield start + at, bytes(data[at : at + size])
            at += size


def _build_record(address: int, kind: int, data: bytes) -> bytes:
    body = bytes((len(data), address >> 8, address & 0xFF, kind)) + data
    return b":%b%02X\n" % (body.hex().upper().encode(), -sum(body) & 0xFF)
