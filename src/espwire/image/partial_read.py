"""The blocks of flash that an unfinished read or backup has: one file, ``FILE.partial``, to which blocks are appended.

The first line marks the file, the second one names the board. Each record has the address, the sizes and the SHA-256 of
a compressed block. An interrupted write can only leave an incomplete record at the end, which is cut off when the file is
opened again. A block in it is a candidate: the chip's MD5 must show that the flash still holds it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import stat
import struct
import zlib
from types import TracebackType
from typing import NamedTuple, Self

from espwire.errors import DataError, FileError
from espwire.files import lock, naming_errors
from espwire.image.backup_file import PARTIAL_MAGIC, Board
from espwire.sizes import BLOCK
from espwire.streams import BINARY, NO_BLOCKING

RECORD = struct.Struct(
    "<4sIII32s"
)  # magic, address, size, packed size, SHA-256 of the packed block
RECORD_MAGIC = b"PART"
HEADER_LIMIT = 0x1000  # bytes of the second line


class _Place(NamedTuple):
    """Where a packed block is in the file, and its size without compression."""

    offset: int
    packed: int
    size: int
    sha256: bytes


class PartialRead:
    """What an unfinished read or backup has, as a context manager that closes the file and leaves it on disk.

    :param path: the file; it is created if it does not exist
    :param board: the board that is read
    :raises FileError: it cannot be opened; code ``file-locked``: another process writes it
    :raises DataError: code ``partial-of-other-board``: it belongs to another board, or to something else
    """

    def __init__(self, path: str, board: Board) -> None:
        self.path = path
        flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | NO_BLOCKING | BINARY
        with naming_errors("write", path):
            descriptor = os.open(path, flags, 0o666)
        self._file = os.fdopen(descriptor, "r+b", buffering=0)
        try:
            self._open(board)
        except BaseException:
            self._file.close()
            raise

    def _open(self, board: Board) -> None:
        if not stat.S_ISREG(os.fstat(self._file.fileno()).st_mode):
            raise FileError(
                f"cannot write {self.path!r}: it is not a regular file",
                hint="Choose another file.",
                code="file-write",
            )
        if not lock(self._file.fileno()):
            raise FileError(
                f"{self.path} is in use by another espwire",
                hint="Wait until it is done, or write to another file.",
                code="file-locked",
            )
        header = PARTIAL_MAGIC + json.dumps(board._asdict()).encode() + b"\n"
        with naming_errors("read", self.path):
            found = self._file.read(len(PARTIAL_MAGIC) + HEADER_LIMIT)
        if header.startswith(found):  # new, or not even the header was completed
            self._end = 0
            self._append(header)
            with naming_errors("write", self.path):
                os.fsync(self._file.fileno())
        elif not found.startswith(header):
            raise self._build_foreign(found, board)
        self._end = len(header)
        self._places = self._read_places()

    def _build_foreign(self, found: bytes, board: Board) -> DataError:
        what = "is not the partial file of a read or backup"
        if found.startswith(PARTIAL_MAGIC):
            what = f"belongs to another board or flash chip than this one ({board.mac})"
        return DataError(
            f"{self.path} {what}",
            hint="Remove it, or give another file name.",
            code="partial-of-other-board",
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a second time does nothing."""
        self._file.close()

    def remove(self) -> None:
        """The output is complete.

        :raises FileError: the file cannot be removed
        """
        self.close()
        with naming_errors("remove", self.path):
            os.unlink(self.path)

    @property
    def addresses(self) -> frozenset[int]:
        """Of the blocks that it has."""
        return frozenset(self._places)

    def read(self, address: int) -> bytes | None:
        """The block; None: the file does not have it, or what is on disk is damaged.

        :raises FileError: the file cannot be read
        """
        place = self._places.get(address)
        if place is None:
            return None
        with naming_errors("read", self.path):
            self._file.seek(place.offset)
            packed = self._file.read(place.packed)
        if hashlib.sha256(packed).digest() != place.sha256:
            return None
        unpacker = zlib.decompressobj()
        try:
            data = unpacker.decompress(packed, place.size + 1)
        except zlib.error:
            return None
        return data if len(data) == place.size else None

    def append(self, address: int, data: bytes) -> None:
        """Add a block, or replace one.

        :raises FileError: it cannot be written, such as on a full disk; all earlier blocks remain
        """
        packed = zlib.compress(data)
        digest = hashlib.sha256(packed).digest()
        place = _Place(self._end + RECORD.size, len(packed), len(data), digest)
        self._append(
            RECORD.pack(RECORD_MAGIC, address, len(data), len(packed), place.sha256) + packed
        )
        self._places[address] = place

    def _append(self, data: bytes) -> None:
        try:
            with naming_errors("write", self.path):
                self._file.seek(self._end)
                rest = memoryview(data)
                while rest:
                    rest = rest[self._file.write(rest) :]
        except FileError:
            with contextlib.suppress(OSError):
                self._file.truncate(self._end)
            raise
        self._end += len(data)

    def _read_places(self) -> dict[int, _Place]:
        """The complete records; what follows them is cut off."""
        places: dict[int, _Place] = {}
        with naming_errors("read", self.path):
            while True:
                self._file.seek(self._end)
                head = self._file.read(RECORD.size)
                if len(head) < RECORD.size:
                    break
                magic, address, size, packed, digest = RECORD.unpack(head)
                if magic != RECORD_MAGIC or not 0 < size <= BLOCK or packed > 2 * BLOCK:
                    break
                if hashlib.sha256(self._file.read(packed)).digest() != digest:
                    break
                places[address] = _Place(self._end + RECORD.size, packed, size, digest)
                self._end += RECORD.size + packed
            self._file.truncate(self._end)
        return places
