"""What the program remembers between runs: which reset worked at which adapter, which chip was where. A ``ConnectHistory``.

One small JSON file in the user's state folder. It may change the order of attempts, never their results: a broken,
foreign or missing file costs time and a warning.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espwire.errors import FileError
from espwire.events import Report, Warned

if TYPE_CHECKING:
    from espwire.transport.ports import PortIdentity

VERSION = 1
FILE = "state.json"
MOST_ENTRIES = 200  # per table; what was noted longest ago goes first
LONGEST = 200  # characters of a key or a value
LOCK_S, LOCK_STEP_S = 3.0, 0.01  # how long to wait for another run that writes
FILE_LIMIT = 0x40000  # bytes: both tables full are less


def find_state_file() -> Path:
    """Where the state is kept for this user."""
    from platformdirs import user_state_dir

    return Path(user_state_dir("espwire", appauthor=False), FILE)


class State:
    """The notebook. Reads its file when first asked; writes it whole when something new is noted.

    :param path: None: neither read nor write anything (``--no-state``)
    """

    def __init__(self, path: Path | None, report: Report) -> None:
        self._path, self._report = path, report
        self._tables: dict[str, dict[str, str]] | None = None
        self._frozen = False  # the file is of a later version, or cannot be written

    def best_sequence(self, key: str) -> str | None:
        """The reset sequence that worked last at this adapter."""
        return self._load()["sequences"].get(key)

    def find_device(self, mac: str) -> str | None:
        """The key of the adapter where the chip with this MAC was seen last."""
        return self._load()["devices"].get(plain_mac(mac))

    def note_sequence(self, key: str, name: str) -> None:
        """This sequence worked at this adapter."""
        self._note("sequences", key, name)

    def note_device(self, mac: str, key: str) -> None:
        """The chip with this MAC was seen at this adapter."""
        self._note("devices", plain_mac(mac), key)

    def _note(self, table: str, key: str, value: str) -> None:
        if self._path is None or not key or not value or max(len(key), len(value)) > LONGEST:
            return
        if self._load()[table].get(key) == value or self._frozen:
            return
        try:
            with _alone(self._path):
                self._tables = None  # another run may have written since: add to what is there now
                self._add(self._load()[table], key, value, self._path)
        except (FileError, OSError) as error:
            self._frozen = True
            self._warn("state-unwritable", f"what was learnt is not kept: {_first_line(error)}")

    def _add(self, entries: dict[str, str], key: str, value: str, path: Path) -> None:
        import json

        from espwire.files import write_file

        if self._frozen:
            return
        entries.pop(key, None)
        entries[key] = value
        while len(entries) > MOST_ENTRIES:
            del entries[next(iter(entries))]
        write_file(
            path,
            json.dumps({"v": VERSION, **self._load()}, indent=1).encode() + b"\n",
            private=True,
        )

    def _load(self) -> dict[str, dict[str, str]]:
        if self._tables is None:
            self._tables = {"sequences": {}, "devices": {}}
            if self._path is not None:
                self._read(self._path, self._tables)
        return self._tables

    def _read(self, path: Path, tables: dict[str, dict[str, str]]) -> None:
        import json

        from espwire.files import read_file

        if self._frozen or not path.exists():
            return
        if not path.is_file():  # a pipe would be waited for, a device written to
            self._frozen = True
            self._warn("state-unreadable", f"{path} is not a regular file: it stays as it is")
            return
        try:
            found = json.loads(read_file(path, limit=FILE_LIMIT))
        except (FileError, ValueError, RecursionError) as error:
            self._warn(
                "state-unreadable",
                f"{path} is not usable and counts as empty: {_first_line(error)}",
            )
            return
        version = found.get("v") if isinstance(found, Mapping) else None
        if version != VERSION:
            self._frozen = isinstance(version, int) and version > VERSION
            kept = "it stays as it is" if self._frozen else "it counts as empty"
            self._warn("state-unreadable", f"{path} is not a state file of this version: {kept}")
            return
        for name, entries in tables.items():
            entries.update(_usable(found.get(name)))

    def _warn(self, code: str, text: str) -> None:
        self._report(Warned(code=code, text=text))


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Exclude other runs while the state changes, by a lock on a separate file; the state file itself is replaced.

    :raises OSError: the lock file cannot be opened
    :raises FileError: somebody keeps the lock
    """
    from espwire.files import lock, make_private_folder
    from espwire.streams import BINARY, NO_BLOCKING

    make_private_folder(path.parent)
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | NO_BLOCKING | BINARY
    descriptor = os.open(path.with_suffix(".lock"), flags, 0o600)
    try:
        limit = time.monotonic() + LOCK_S
        while not lock(descriptor):
            if time.monotonic() >= limit:
                raise FileError(
                    f"another run has locked {path} for {LOCK_S:.0f} seconds", code="state-locked"
                )
            time.sleep(LOCK_STEP_S)
        yield
    finally:
        os.close(descriptor)


def find_remembered(
    state: State, mac: str, identities: tuple[PortIdentity, ...]
) -> PortIdentity | None:
    """The port where the chip with this MAC was seen, if something with that key is there now."""
    key = state.find_device(mac)
    return next((one for one in identities if key is not None and one.key == key), None)


def plain_mac(mac: str) -> str:
    """One spelling for all: lower case, with colons where they can be."""
    digits = mac.replace(":", "").replace("-", "").lower()
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))


def _usable(entries: Any) -> dict[str, str]:
    """What of a table can be used: short texts, the newest."""
    if not isinstance(entries, Mapping):
        return {}
    texts = [
        (key, value)
        for key, value in entries.items()
        if isinstance(value, str) and 0 < len(value) <= LONGEST and 0 < len(key) <= LONGEST
    ]
    return dict(texts[-MOST_ENTRIES:])


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())
