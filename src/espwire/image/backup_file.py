"""Backups of a whole flash: a zip file with one file per partition and ``manifest.json``.

The parts cover the flash without gaps: each partition, what precedes the partition table, the table, and the space
between partitions. The file of a part leaves out the blank sectors at its end; a blank part has no file. The manifest
names the board, and has the SHA-256 of each file and the MD5 of each of its sectors, as the chip computes it.

A backup is untrusted input. Nothing is extracted to disk, names must be those that espwire would choose, and nothing is
unpacked beyond the size that the manifest states, which no flash chip may exceed.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from itertools import pairwise
from os import PathLike, fspath
from typing import IO, NamedTuple, NoReturn, cast

from espwire._version import __version__
from espwire.chips.index import NAMES
from espwire.errors import DataError, TableError
from espwire.files import INPUT_LIMIT, OutputFile, read_file
from espwire.image.partition_table import (
    TABLE_OFFSET,
    TABLE_SIZE,
    Partition,
    PartitionTable,
    parse_table,
)
from espwire.sizes import SECTOR, align_up
from espwire.text import escape

FORMAT, VERSION = "espwire-backup", 1
MANIFEST = "manifest.json"
LARGEST_FLASH = INPUT_LIMIT // 2
MANIFEST_LIMIT = 0x1000000  # bytes; the digests of a 128 MB flash take 2 MiB
DIRECTORY_LIMIT = 0x10000  # bytes of the zip file's directory; a backup has some 100 bytes per part
BLANK = b"\xff"
RF_CALIBRATION = "rf-calibration"  # the kind of a part
BOUND_TO_MAC = frozenset({RF_CALIBRATION, "data/nvs", "data/phy"})

_END, _END_MAGIC = struct.Struct("<4s4H2IH"), b"PK\x05\x06"
_ZIP64_LOCATOR, _ZIP64_MAGIC = 20, b"PK\x06\x07"


class Board(NamedTuple):
    """The board of a backup. ``flash_id``: the JEDEC id as hexadecimal digits, maker first; ``flash_size`` in bytes.

    ``encrypted``: flash encryption is on, so the content is ciphertext that only this chip can use.
    """

    chip: str
    mac: str
    flash_id: str
    flash_size: int
    encrypted: bool


class Part(NamedTuple):
    """A range of flash. ``stored``: bytes in its file, which is without the blank sectors at the end; 0: no file.

    ``kind``: type and subtype of the partition (``data/nvs``), ``bootloader``, ``partition-table``, ``gap``,
    ``flash``, or ``rf-calibration``. ``sectors``: the MD5 of each stored sector.
    """

    name: str
    kind: str
    address: int
    size: int
    stored: int = 0
    sha256: str = ""
    sectors: tuple[str, ...] = ()

    @property
    def end(self) -> int:
        """One past the last address."""
        return self.address + self.size

    @property
    def file(self) -> str:
        """Its name in the zip file."""
        return f"{self.address:#08x}-{re.sub(r'[^A-Za-z0-9_-]', '_', self.name)}.bin"


@dataclass(frozen=True)
class Backup:
    """A backup that was read and checked. ``flash``: the content of the whole flash."""

    board: Board
    parts: tuple[Part, ...]
    flash: bytes = field(repr=False)

    def read(self, part: Part) -> bytes:
        """The content of a part."""
        return self.flash[part.address : part.end]


def find_table(flash: bytes) -> PartitionTable | None:
    """The partition table of a flash at its usual place; None: there is none, or it is encrypted."""
    try:
        table = parse_table(flash[TABLE_OFFSET : TABLE_OFFSET + TABLE_SIZE])
    except TableError:
        return None
    return table if table.partitions else None


def plan_parts(flash: bytes, *, calibration_size: int = 0) -> tuple[Part, ...]:
    """The parts of a flash. Partitions that overlap another one or do not begin at a sector belong to a gap.

    :param calibration_size: bytes at the end of a flash without partition table that hold RF calibration
    """
    table, size = find_table(flash), len(flash)
    if table is None:
        whole = Part("flash", "flash", 0, size - calibration_size)
        last = Part(RF_CALIBRATION, RF_CALIBRATION, whole.size, calibration_size)
        return tuple(part for part in (whole, last) if part.size)
    known = [
        Part("bootloader", "bootloader", 0, TABLE_OFFSET),
        Part("partition-table", "partition-table", TABLE_OFFSET, TABLE_SIZE),
    ]
    for row in sorted(table.partitions, key=lambda row: row.offset):
        fits = known[-1].end <= row.offset and row.end <= size and row.size
        if fits and row.offset % SECTOR == row.size % SECTOR == 0:
            name = row.label or f"partition at {row.offset:#x}"
            known.append(Part(name, f"{row.type_name}/{row.subtype_name}", row.offset, row.size))
    known.append(Part("", "", size, 0))
    parts = []
    for part, following in pairwise(known):
        parts.append(part)
        if part.end < following.address:
            parts.append(Part("gap", "gap", part.end, following.address - part.end))
    return tuple(parts)


def write_backup(file: OutputFile, board: Board, flash: bytes, parts: tuple[Part, ...]) -> Backup:
    """Write the zip file of ``flash``.

    :raises FileError: it cannot be written
    """
    filled = tuple(_fill_in(part, flash) for part in parts)
    backup = Backup(board, filled, flash)
    with zipfile.ZipFile(cast("IO[bytes]", file), "w") as archive:
        _add(archive, MANIFEST, json.dumps(build_manifest(backup), indent=1).encode())
        for part in filled:
            if part.stored:
                _add(archive, part.file, flash[part.address : part.address + part.stored])
    return backup


def _fill_in(part: Part, flash: bytes) -> Part:
    """With the digests of what is stored."""
    data = flash[part.address : part.end]
    stored = align_up(len(data.rstrip(BLANK)), SECTOR)
    if not stored:
        return part
    data = data[:stored]
    digest = hashlib.sha256(data).hexdigest()
    return part._replace(stored=stored, sha256=digest, sectors=_digest_sectors(data))


def _digest_sectors(data: bytes) -> tuple[str, ...]:
    return tuple(
        hashlib.md5(data[at : at + SECTOR], usedforsecurity=False).hexdigest()
        for at in range(0, len(data), SECTOR)
    )


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name)
    info.compress_type, info.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
    archive.writestr(info, data)


def build_manifest(backup: Backup) -> dict[str, object]:
    """The manifest as JSON types."""
    table = find_table(backup.flash)
    return {
        "format": FORMAT,
        "version": VERSION,
        "complete": True,
        "espwire": __version__,
        **backup.board._asdict(),
        "flash_sha256": hashlib.sha256(backup.flash).hexdigest(),
        "partitions": [_describe_row(row) for row in table.partitions] if table else None,
        "parts": [describe_part(part) | _list_digests(part) for part in backup.parts],
    }


def _describe_row(row: Partition) -> dict[str, object]:
    return {
        "name": row.label,
        "type": row.type_name,
        "subtype": row.subtype_name,
        "offset": row.offset,
        "size": row.size,
        "flags": list(row.flag_names),
    }


def describe_part(part: Part) -> dict[str, object]:
    """A part as JSON types, without its digests."""
    return {
        "name": part.name,
        "kind": part.kind,
        "address": part.address,
        "size": part.size,
        "stored": part.stored,
        "file": part.file if part.stored else None,
    }


def _list_digests(part: Part) -> dict[str, object]:
    return {"sha256": part.sha256, "sector_md5": list(part.sectors)} if part.stored else {}


def read_backup(path: str | PathLike[str]) -> Backup:
    """Read a backup and check all of it.

    :raises FileError: the file cannot be read
    :raises DataError: codes ``backup-damaged``, ``backup-partial``, ``backup-version``
    """
    return parse_backup(read_file(path), fspath(path))


def parse_backup(data: bytes, name: str = "the backup") -> Backup:
    """The content of a backup, checked.

    :raises DataError: as ``read_backup``
    """
    if data.startswith(PARTIAL_MAGIC):
        raise _build_partial(name)
    _check_directory(data, name)
    try:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            return _read_archive(archive, name)
    except (
        *(zipfile.BadZipFile, zlib.error, EOFError, struct.error, NotImplementedError),
        *(ValueError, RuntimeError, OverflowError, OSError),
    ) as error:
        _fail(name, str(error) or type(error).__name__)


PARTIAL_MAGIC = b"espwire partial read\n"  # the first line of a file of partial_read.py


def _build_partial(name: str) -> DataError:
    return DataError(
        f"{name} is a partial backup, or a partial read",
        hint="Complete it first: repeat the same command with the same board and file.",
        code="backup-partial",
    )


def _fail(name: str, why: str) -> NoReturn:
    raise DataError(
        f"{name} is not a usable backup: {escape(why)}",
        hint="Use another copy. Nothing was changed.",
        code="backup-damaged",
    )


def _check_directory(data: bytes, name: str) -> None:
    """Refuse a zip file whose directory is missing or so large that reading it takes long."""
    at = data.rfind(_END_MAGIC, 0, max(len(data) - _END.size, 0) + len(_END_MAGIC))
    if at < 0:
        _fail(name, "it is not a zip file, or its end is missing")
    size = _END.unpack_from(data, at)[5]
    locator = data[max(at - _ZIP64_LOCATOR, 0) : at]
    if size > DIRECTORY_LIMIT or locator.startswith(_ZIP64_MAGIC):
        _fail(name, "the directory of the zip file is too large")


def _read_archive(archive: zipfile.ZipFile, name: str) -> Backup:
    entries = {entry.filename: entry for entry in archive.infolist()}
    if len(entries) < len(archive.infolist()):
        _fail(name, "it contains two files of the same name")
    if MANIFEST not in entries:
        _fail(name, f"it has no {MANIFEST}")
    manifest = json.loads(_unpack(archive, entries[MANIFEST], MANIFEST_LIMIT, name))
    board, parts = parse_manifest(manifest, name)
    wanted = {MANIFEST} | {part.file for part in parts if part.stored}
    if entries.keys() != wanted:
        other = min(entries.keys() ^ wanted)
        verb = "contains" if other in entries else "does not contain"
        _fail(name, f"it {verb} {other!r}, unlike its manifest")
    flash = bytearray(BLANK * board.flash_size)
    for part in parts:
        if part.stored:
            data = _unpack(archive, entries[part.file], part.stored, name)
            _check_digests(part, data, name)
            flash[part.address : part.address + part.stored] = data
    if hashlib.sha256(flash).hexdigest() != manifest.get("flash_sha256"):
        _fail(name, "the SHA-256 of the whole flash is wrong")
    return Backup(board, parts, bytes(flash))


def _unpack(archive: zipfile.ZipFile, entry: zipfile.ZipInfo, limit: int, name: str) -> bytes:
    if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        _fail(name, f"{entry.filename} is encrypted, or compressed by another method than deflate")
    with archive.open(entry) as file:
        data = file.read(limit + 1)
    if len(data) > limit or entry.file_size > limit:
        _fail(name, f"{entry.filename} is larger than it may be")
    return data


def _check_digests(part: Part, data: bytes, name: str) -> None:
    found = _digest_sectors(data)
    if len(data) != part.stored:
        _fail(name, f"{part.file} has {len(data):,} bytes instead of {part.stored:,}")
    wrong = [
        number
        for number, pair in enumerate(zip(found, part.sectors, strict=True))
        if pair[0] != pair[1]
    ]
    if wrong:
        _fail(name, f"the MD5 of the sector at {part.address + wrong[0] * SECTOR:#x} is wrong")
    if hashlib.sha256(data).hexdigest() != part.sha256:
        _fail(name, f"the SHA-256 of {part.file} is wrong")


def parse_manifest(manifest: object, name: str) -> tuple[Board, tuple[Part, ...]]:
    """Board and parts of a manifest.

    :raises DataError: codes ``backup-damaged``, ``backup-partial``, ``backup-version``
    """
    if not isinstance(manifest, dict) or manifest.get("format") != FORMAT:
        _fail(name, f"its {MANIFEST} is not the manifest of a backup")
    if manifest.get("version") != VERSION:
        raise DataError(
            f"{name} has version {escape(repr(manifest.get('version')))[:40]} of the format; this espwire reads version {VERSION}",
            hint="Use the version of espwire that made the backup, or a newer one.",
            code="backup-version",
        )
    if manifest.get("complete") is not True:
        raise _build_partial(name)
    entry = _Entry(manifest, name)
    size = entry.number("flash_size", LARGEST_FLASH)
    encrypted = manifest.get("encrypted")
    if not size or size % SECTOR or not isinstance(encrypted, bool):
        _fail(name, "its manifest has a wrong flash_size or encrypted")
    chip = entry.text("chip", "|".join(NAMES))
    mac = entry.text("mac", "[0-9a-f]{2}(:[0-9a-f]{2}){5}")
    board = Board(chip, mac, entry.text("flash_id", "[0-9a-f]{6}"), size, encrypted)
    listed = manifest.get("parts")
    if not isinstance(listed, list) or len(listed) > size // SECTOR:
        _fail(name, "its manifest has no list of parts")
    parts = tuple(_parse_part(item, name) for item in listed)
    edges = [0, *(part.end for part in parts)]
    if [part.address for part in parts] != edges[:-1] or edges[-1] != size:
        _fail(name, "its parts do not cover the flash exactly")
    return board, parts


def _parse_part(item: object, name: str) -> Part:
    if not isinstance(item, dict):
        _fail(name, "a part of its manifest is not an object")
    entry = _Entry(item, name)
    address, size = entry.number("address", LARGEST_FLASH), entry.number("size", LARGEST_FLASH)
    stored = entry.number("stored", size)
    if not size or size % SECTOR or stored % SECTOR:
        _fail(name, "the size of a part is not a multiple of 4 KiB")
    part = Part(entry.text("name", ".{1,200}"), entry.text("kind", ".{1,40}"), address, size)
    if not stored:
        return part
    sectors = item.get("sector_md5")
    if not isinstance(sectors, list) or len(sectors) != stored // SECTOR:
        _fail(name, f"{part.file} has the wrong number of sector_md5")
    if item.get("file") != part.file:
        _fail(name, f"the file of the part at {address:#x} must be named {part.file}")
    digests = tuple(str(digest) for digest in sectors)
    return part._replace(
        stored=stored, sha256=entry.text("sha256", "[0-9a-f]{64}"), sectors=digests
    )


class _Entry(NamedTuple):
    """An object of the manifest."""

    values: Mapping[str, object]
    name: str

    def number(self, key: str, limit: int) -> int:
        value = self.values.get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limit:
            _fail(self.name, f"{key} in its manifest is not a number up to {limit:#x}")
        return value

    def text(self, key: str, pattern: str) -> str:
        value = self.values.get(key)
        if not isinstance(value, str) or not re.fullmatch(pattern, value):
            _fail(self.name, f"{key} in its manifest is missing or invalid")
        return value
