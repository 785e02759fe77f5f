"""Keeps the indexes of ELF files between runs, so that the first address of the next run is resolved without a delay.

One JSON file per ELF file. It counts only for the same path, size and time of change; a file that is damaged or missing
costs time only.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from espwire.errors import FileError, SafetyStop
from espwire.files import make_private_folder, read_file, write_file
from espwire.symbols.symbol_file import Frame, Index, SymbolFile, find_stamp

VERSION = 1
MAX_FILES = 20  # the oldest are removed
MAX_FRAMES = 5000
LIMIT = 64 * 0x100000


class SymbolCache:
    """The folder with the indexes.

    :param folder: None: keep nothing
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def open(self, path: str) -> SymbolFile:
        """The ELF file, with its index if one is kept.

        :raises FileError: the file cannot be read
        :raises ElfError: it is not an ELF file for a chip
        """
        return SymbolFile(path, self._read(path, find_stamp(path)))

    def save(self, file: SymbolFile) -> None:
        """Keep the index, if it has something new. A failure to write it is not an error."""
        if self._folder is None or not file.changed:
            return
        index = file.index
        data = {
            "v": VERSION,
            "path": os.path.abspath(file.path),
            "stamp": file.stamp,
            "sha256": index.sha256,
            "code": index.code,
            "units": index.units,
            "frames": dict(list(index.frames.items())[-MAX_FRAMES:]),
        }
        with suppress(OSError, FileError, SafetyStop):
            make_private_folder(self._folder)
            write_file(self._file(file.path), json.dumps(data).encode(), private=True)
            kept = sorted(self._folder.glob("*.json"), key=lambda path: path.stat().st_mtime)
            for old in kept[:-MAX_FILES]:
                old.unlink()

    def _file(self, path: str) -> Path:
        assert self._folder is not None
        name = hashlib.sha256(os.path.abspath(path).encode("utf-8", "surrogateescape")).hexdigest()
        return self._folder / f"{name[:32]}.json"

    def _read(self, path: str, stamp: list[int]) -> Index | None:
        if self._folder is None:
            return None
        kept = self._file(path)
        try:
            if not kept.is_file():
                return None
            data = json.loads(read_file(kept, limit=LIMIT))
            if data["v"] != VERSION or data["path"] != os.path.abspath(path):
                return None
            return _parse(data) if data["stamp"] == stamp else None
        except (OSError, FileError, ArithmeticError, LookupError):
            return None
        except (ValueError, TypeError, RecursionError, AttributeError):
            return None


def _parse(data: dict[str, Any]) -> Index:
    """
    :raises ValueError, TypeError, KeyError: it is damaged
    """
    frames = {
        int(address): tuple(
            Frame(str(function), str(file), int(line), bool(inlined))
            for function, file, line, inlined in found
        )
        for address, found in data["frames"].items()
    }
    return Index(
        [(int(low), int(high)) for low, high in data["code"]],
        [(int(low), int(high), int(at)) for low, high, at in data["units"]],
        str(data["sha256"]),
        frames,
    )
