"""What an interrupted write may have destroyed: one file per board, written before the first erase, removed at the end.

It names the sectors that are about to be erased. One whose erase was interrupted may read blank and lose its content
later, so it is erased again whatever it reads. For sectors that a file shares with other data, the journal has the whole
content that they are to have. After an interruption this is the only copy of the other data; it is restored if the
sector holds nothing else by then: some of that content and otherwise 0xFF.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espwire.errors import DataError, FileError
from espwire.files import make_private_folder, open_output, read_file
from espwire.flash.last_written import LastWritten
from espwire.flash.model import BLANK
from espwire.sizes import SECTOR, Ranges

VERSION = 1
LIMIT = 0x1000000  # bytes of a file


@dataclass(frozen=True)
class Shared:
    """A sector that a file shares with other data: ``content`` is all it is to hold, ``kept`` where the other data is."""

    address: int
    content: bytes
    kept: Ranges

    @property
    def keeps_data(self) -> bool:
        """Whether any of the other data is not blank."""
        return any(
            self.content[low - self.address : high - self.address].strip(BLANK)
            for low, high in self.kept
        )

    def may_hold(self, flash: bytes) -> bool:
        """Whether ``flash``, the content of the sector now, is an unfinished write of ``content``: no bit that is
        cleared in flash is set in it.

        >>> Shared(0, b"ab", ()).may_hold(b"a" + bytes([0xFF])), Shared(0, b"ab", ()).may_hold(b"xx")
        (True, False)
        """
        content = int.from_bytes(self.content, "big")
        return content & int.from_bytes(flash, "big") == content


@dataclass(frozen=True)
class Unfinished:
    """A write that did not end. ``under_way``: half-open flash ranges that it was going to erase."""

    under_way: Ranges = ()
    shared: tuple[Shared, ...] = ()


NOTHING = Unfinished()


class Journal:
    """The journal of one board, and next to it the record of what the last write left (``last_written``).

    :param path: its file; its folder is created
    :param board: what names the board, such as its MAC address
    """

    def __init__(self, path: Path, board: str) -> None:
        self.path, self.board = path, board
        self.last_written = LastWritten(path.parent.with_name("written") / path.name, board)

    def read(self) -> Unfinished:
        """The write that did not end; NOTHING if the last one did.

        :raises FileError: the file cannot be read
        :raises DataError: code ``journal-damaged``: it is damaged, or of another board
        """
        if not self.path.exists():
            return NOTHING
        try:
            return _parse(json.loads(read_file(self.path, limit=LIMIT)), self.board)
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise DataError(
                f"{self.path}, the journal of an interrupted write, cannot be used: {error or type(error).__name__}",
                hint="It may hold the only copy of data that shares a sector with a file. Rename it, then write everything again.",
                code="journal-damaged",
            ) from None

    def write(self, unfinished: Unfinished) -> None:
        """Store it on the disk, before the first erase.

        :raises FileError: it cannot be stored
        """
        try:
            make_private_folder(self.path.parent)
        except OSError as error:
            raise FileError(
                f"cannot create {error.filename or self.path.parent}: {error.strerror or error}",
                hint="The journal of the write is stored there; --no-state does without it.",
            ) from None
        with open_output(self.path, private=True) as file:
            file.write(json.dumps(_build(unfinished, self.board)).encode())

    def put_aside(self) -> Path:
        """Keep the file under another name, which is returned.

        :raises FileError: it cannot be renamed
        """
        aside = next(
            path
            for number in itertools.count(1)
            if not (path := self.path.with_suffix(f".{number}.json")).exists()
        )
        try:
            self.path.rename(aside)
        except OSError as error:
            raise FileError(f"cannot rename {self.path}: {error.strerror or error}") from None
        return aside

    def clear(self) -> None:
        """The write has ended.

        :raises FileError: the file cannot be removed
        """
        try:
            self.path.unlink(missing_ok=True)
        except OSError as error:
            raise FileError(f"cannot remove {self.path}: {error.strerror or error}") from None


def _build(unfinished: Unfinished, board: str) -> dict[str, Any]:
    body = {
        "v": VERSION,
        "board": board,
        "under_way": [list(span) for span in unfinished.under_way],
        "shared": [
            {
                "address": sector.address,
                "content": base64.b64encode(sector.content).decode(),
                "kept": [list(span) for span in sector.kept],
            }
            for sector in unfinished.shared
        ],
    }
    return body | {"sha256": _digest(body)}


def _parse(stored: object, board: str) -> Unfinished:
    if not isinstance(stored, dict):
        raise ValueError("it is not an object")
    body = {key: value for key, value in stored.items() if key != "sha256"}
    if stored["v"] != VERSION:
        raise ValueError("it has another version")
    if stored["sha256"] != _digest(body):
        raise ValueError("its SHA-256 is wrong")
    if stored["board"] != board:
        raise ValueError(f"it is of the board {stored['board']}")
    shared = tuple(
        Shared(
            int(item["address"]),
            base64.b64decode(item["content"], validate=True),
            _parse_ranges(item["kept"]),
        )
        for item in stored["shared"]
    )
    if any(len(sector.content) != SECTOR or sector.address % SECTOR for sector in shared):
        raise ValueError("a sector has the wrong size or address")
    return Unfinished(_parse_ranges(stored["under_way"]), shared)


def _parse_ranges(pairs: Iterable[Iterable[int]]) -> Ranges:
    return tuple((int(start), int(end)) for start, end in pairs)


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
