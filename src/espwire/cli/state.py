"""The cache of known adapters and boards: reset sequences, places of chips, and baud rates.

It is a small JSON file in the user's state folder. It changes the order of attempts, never their results: a damaged or
missing file costs time and a warning.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espwire.errors import FileError
from espwire.files import make_private_folder, read_file, wait_for_lock, write_file
from espwire.streams import BINARY, NO_BLOCKING

if TYPE_CHECKING:
    from espwire.events import Report
    from espwire.transport.ports import PortIdentity

VERSION = 1
FILE = "state.json"
MAX_ENTRIES = 200  # per table; the oldest are dropped
MAX_LENGTH = 200  # of a key or a value
LOCK_S = 3.0  # wait for another run that is writing
FILE_LIMIT = 0x60000  # bytes; three full tables are smaller


def find_state_file() -> Path:
    """Path of the user's state file."""
    from platformdirs import user_state_dir

    return Path(user_state_dir("espwire", appauthor=False), FILE)


class State:
    """Reads its file when first used; writes it when something new is learned.

    :param path: None: do not read or write a file (``--no-state``)
    """

    def __init__(self, path: Path | None, report: Report) -> None:
        self._path, self._report = path, report
        self._tables: dict[str, dict[str, str]] | None = None
        self._frozen = False  # the file has a later version, or cannot be written

    def best_sequence(self, key: str) -> str | None:
        """The reset sequence that last worked at this adapter."""
        return self._load()["sequences"].get(key)

    def find_device(self, mac: str) -> str | None:
        """The key of the adapter where the chip with this MAC address was last seen."""
        return self._load()["devices"].get(plain_mac(mac))

    def is_known_adapter(self, key: str) -> bool:
        """Whether a chip was reached at this adapter before."""
        tables = self._load()
        return key in tables["sequences"] or key in tables["devices"].values()

    def note_sequence(self, key: str, name: str) -> None:
        """Remember that this sequence worked at this adapter."""
        self._note("sequences", key, name)

    def note_device(self, mac: str, key: str) -> None:
        """Remember that the chip with this MAC address is at this adapter."""
        self._note("devices", plain_mac(mac), key)

    def find_rate(self, key: str) -> int | None:
        """The baud rate that was stable last for this adapter, chip and direction."""
        text = self._load()["rates"].get(key, "")
        return int(text) if text.isascii() and text.isdecimal() else None

    def note_rate(self, key: str, rate: int) -> None:
        """Remember that this baud rate was stable."""
        self._note("rates", key, str(rate))

    def _note(self, table: str, key: str, value: str) -> None:
        if self._path is None or not key or not value or max(len(key), len(value)) > MAX_LENGTH:
            return
        if self._load()[table].get(key) == value or self._frozen:
            return
        try:
            with _locked(self._path):
                self._tables = None  # another run may have written: read the file again
                self._add(self._load()[table], key, value, self._path)
        except (FileError, OSError) as error:
            self._frozen = True
            self._warn(
                "state-unwritable", f"the state file cannot be written: {_first_line(error)}"
            )

    def _add(self, entries: dict[str, str], key: str, value: str, path: Path) -> None:
        if self._frozen:
            return
        entries.pop(key, None)
        entries[key] = value
        while len(entries) > MAX_ENTRIES:
            del entries[next(iter(entries))]
        write_file(
            path,
            json.dumps({"v": VERSION, **self._load()}, indent=1).encode() + b"\n",
            private=True,
        )

    def _load(self) -> dict[str, dict[str, str]]:
        if self._tables is None:
            self._tables = {"sequences": {}, "devices": {}, "rates": {}}
            if self._path is not None:
                self._read(self._path, self._tables)
        return self._tables

    def _read(self, path: Path, tables: dict[str, dict[str, str]]) -> None:
        if self._frozen or not path.exists():
            return
        if not path.is_file():  # reading a pipe would block; a device would be written
            self._frozen = True
            self._warn("state-unreadable", f"{path} is not a regular file and is not used")
            return
        try:
            stored = json.loads(read_file(path, limit=FILE_LIMIT))
        except (FileError, ValueError, RecursionError) as error:
            self._warn(
                "state-unreadable",
                f"{path} is ignored: {_first_line(error)}",
            )
            return
        version = stored.get("v") if isinstance(stored, Mapping) else None
        if version != VERSION:
            self._frozen = isinstance(version, int) and version > VERSION
            self._warn("state-unreadable", f"{path} is ignored: it has another version")
            return
        for name, entries in tables.items():
            entries.update(_usable(stored.get(name)))

    def _warn(self, code: str, text: str) -> None:
        from espwire.events import Warned

        self._report(Warned(code=code, text=text))


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Exclude other runs with a lock on a separate file, as the state file itself is replaced.

    :raises OSError: the lock file cannot be opened
    :raises FileError: another run keeps the lock
    """

    make_private_folder(path.parent)
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | NO_BLOCKING | BINARY
    descriptor = os.open(path.with_suffix(".lock"), flags, 0o600)
    try:
        if not wait_for_lock(descriptor, LOCK_S):
            raise FileError(
                f"{path} is locked by another run ({LOCK_S:.0f} seconds)", code="state-locked"
            )
        yield
    finally:
        os.close(descriptor)


def find_remembered(
    state: State, mac: str, identities: tuple[PortIdentity, ...]
) -> PortIdentity | None:
    """The port where the chip with this MAC address was last seen, if it exists."""
    key = state.find_device(mac)
    return next((port for port in identities if key is not None and port.key == key), None)


def plain_mac(mac: str) -> str:
    """A MAC address in lower case with colons, as the file has it."""
    digits = mac.replace(":", "").replace("-", "").lower()
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))


def _usable(entries: Any) -> dict[str, str]:
    """The usable entries of a table: short strings, the newest."""
    if not isinstance(entries, Mapping):
        return {}
    texts = [
        (key, value)
        for key, value in entries.items()
        if isinstance(value, str) and 0 < len(value) <= MAX_LENGTH and 0 < len(key) <= MAX_LENGTH
    ]
    return dict(texts[-MAX_ENTRIES:])


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())
