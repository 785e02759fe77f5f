"""What the last write left in one board's flash, as digests of sectors: one file per board.

It is a hint. The next write skips the sectors that it wrote before without asking the chip for each digest, checks a few
samples, and proves all of it by the MD5 of the whole range that ends every write. A missing or damaged file costs time.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterable, Mapping
from hashlib import md5
from pathlib import Path

from espwire.errors import FileError
from espwire.files import make_private_folder, read_file, write_file
from espwire.sizes import SECTOR

VERSION = 1
LIMIT = 0x200000  # bytes of a file
DIGEST_BYTES = 8  # of an MD5


class LastWritten:
    """The record of one board. Addresses are of sectors; a digest is the first 8 bytes of a sector's MD5.

    :param path: its file; its folder is created
    :param board: what names the board, such as its MAC address
    """

    def __init__(self, path: Path, board: str) -> None:
        self.path, self.board = path, board

    def read(self) -> dict[int, bytes]:
        """The digests by address; empty if there are none, or the file cannot be used."""
        try:
            stored = json.loads(read_file(self.path, limit=LIMIT))
            if stored["v"] != VERSION or stored["board"] != self.board:
                return {}
            return dict(_split(stored["runs"]))
        except (FileError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return {}

    def write(self, digests: Mapping[int, bytes]) -> None:
        """Store the digests. If that is not possible, none are stored."""
        runs: list[tuple[int, bytearray]] = []
        for address, digest in sorted(digests.items()):
            if not runs or runs[-1][0] + len(runs[-1][1]) // DIGEST_BYTES * SECTOR != address:
                runs.append((address, bytearray()))
            runs[-1][1].extend(digest)
        body = {
            "v": VERSION,
            "board": self.board,
            "runs": [[address, base64.b64encode(run).decode()] for address, run in runs],
        }
        with contextlib.suppress(FileError, OSError):
            make_private_folder(self.path.parent)
            write_file(self.path, json.dumps(body).encode(), private=True)

    def forget(self) -> None:
        """The flash is about to change."""
        with contextlib.suppress(OSError):
            self.path.unlink(missing_ok=True)


def digest_sectors(start: int, data: bytes) -> dict[int, bytes]:
    """Digests of the whole sectors of ``data``, which begins at the sector ``start``."""
    return {
        start + at: md5(data[at : at + SECTOR], usedforsecurity=False).digest()[:DIGEST_BYTES]
        for at in range(0, len(data) - SECTOR + 1, SECTOR)
    }


def _split(runs: Iterable[tuple[int, str]]) -> Iterable[tuple[int, bytes]]:
    for address, text in runs:
        digests = base64.b64decode(text, validate=True)
        if int(address) % SECTOR or len(digests) % DIGEST_BYTES:
            raise ValueError("a run is damaged")
        for at in range(0, len(digests), DIGEST_BYTES):
            yield (
                int(address) + at // DIGEST_BYTES * SECTOR,
                digests[at : at + DIGEST_BYTES],
            )
