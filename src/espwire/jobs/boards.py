"""The data of each board: a row of a CSV file or of a SQLite table, found by the MAC address.

Every column is a variable. A SQLite table can also have rows without a MAC address: a board that has no row gets the first
of them, in a transaction, so that each row (and its serial number) is handed out once, also to several stations. From then
on the row belongs to that MAC address: a retry gets the same one.
"""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, NamedTuple, Protocol

from espwire.errors import DataError
from espwire.files import read_file
from espwire.jobs.database import (
    SUFFIXES,
    check_intact,
    list_columns,
    open_database,
    quote_name,
    transaction,
)
from espwire.text import mac_digits, shorten

if TYPE_CHECKING:
    import sqlite3

MAC, SERIAL = "mac", "serial"  # columns with a meaning; values of both are unique
FILE_LIMIT = 16 << 20
MOST_ROWS = 8  # that an error lists


class BoardSource(NamedTuple):
    """``[boards]`` of a job file. ``table``: of a SQLite file."""

    path: str
    table: str = "boards"


class Boards(Protocol):
    """The rows of all boards."""

    columns: tuple[str, ...]

    def find(self, mac: str, *, assign: bool = True) -> dict[str, str]:
        """The row of a board, without empty values.

        :param assign: if it has none, give it a free row; False: only show that row
        :raises DataError: codes ``board-unknown``, ``no-free-row``
        """

    def list_assigned(self) -> list[dict[str, str]]:
        """All rows with a MAC address."""


def open_boards(source: BoardSource) -> Boards:
    """The rows in a file, once they are checked.

    :raises FileError, DataError: it cannot be used: codes ``boards-file``, ``database-locked``, ``database-damaged``
    """
    suffix = os.path.splitext(source.path)[1].lower()
    return SqliteBoards(source) if suffix in SUFFIXES else CsvBoards(source.path)


class CsvBoards:
    """Rows of a CSV file with a header. They are only read."""

    def __init__(self, path: str) -> None:
        """:raises FileError, DataError: it cannot be used"""
        name = os.path.basename(path)
        try:
            text = read_file(path, limit=FILE_LIMIT).decode("utf-8-sig")
            lines = io.StringIO(text, newline="")  # keeps line breaks inside of quotes
            delimiter = max(",;\t", key=lines.readline().count)
            lines.seek(0)
            rows = [row for row in csv.reader(lines, strict=True, delimiter=delimiter) if any(row)]
        except (UnicodeDecodeError, csv.Error) as error:
            raise _bad_file(f"{name} is not CSV in UTF-8: {error}") from None
        self.columns = tuple(_name_column(cell) for cell in rows[0]) if rows else ()
        _check_columns(self.columns, name)
        for number, row in enumerate(rows[1:], 2):
            if len(row) != len(self.columns):
                text = f"{name}: row {number} has {len(row)} values, the header has {len(self.columns)}"
                raise _bad_file(text)
        self._rows = [_drop_empty(zip(self.columns, row, strict=True)) for row in rows[1:]]
        _check_unique(self._rows, name, first=2)
        for number, values in enumerate(self._rows, 2):
            if not mac_digits(values.get(MAC, "")):
                text = f"{name}: row {number} has the MAC address {shorten(values.get(MAC, ''))!r}"
                raise _bad_file(text, "Write it as 24:0a:c4:00:01:10.")
        self._name = name

    def find(self, mac: str, *, assign: bool = True) -> dict[str, str]:
        """As ``Boards.find``."""
        for row in self._rows:
            if mac_digits(row[MAC]) == mac_digits(mac):
                return row
        raise DataError(
            f"{self._name} has no row for the MAC address {mac}",
            hint="Add a row for this board.",
            code="board-unknown",
        )

    def list_assigned(self) -> list[dict[str, str]]:
        """As ``Boards.list_assigned``."""
        return self._rows


class SqliteBoards:
    """Rows of a table of a SQLite file; the file is open only for a moment at a time."""

    def __init__(self, source: BoardSource) -> None:
        """:raises FileError, DataError: it cannot be used, or not be written"""
        self._path, self._table = source.path, quote_name(source.table)
        self._name = os.path.basename(source.path)
        with open_database(self._path) as connection:
            check_intact(connection, self._name)
            self.columns = tuple(map(_name_column, list_columns(connection, source.table)))
            if not self.columns:
                tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
                names = ", ".join(shorten(row[0]) for row in tables) or "none"
                hint = f"Tables: {names}. Set table in [boards]."
                raise _bad_file(f"{self._name} has no table {source.table!r}", hint)
            _check_columns(self.columns, self._name)
            with transaction(connection):  # detects a lock or a missing permission
                rows = self._read(connection, "")
        _check_unique(rows, self._name)

    def find(self, mac: str, *, assign: bool = True) -> dict[str, str]:
        """As ``Boards.find``."""
        same = f"WHERE lower(replace(replace(trim({MAC}), ':', ''), '-', '')) = ?"
        with open_database(self._path) as connection, ExitStack() as stack:
            for exclusive in (False, True):  # most boards of a retry need no lock
                if exclusive:
                    stack.enter_context(transaction(connection))
                if rows := self._read(connection, same, mac_digits(mac)):
                    return rows[0]
            free = f"WHERE {MAC} IS NULL OR trim({MAC}) = '' ORDER BY rowid LIMIT 1"
            found = connection.execute(f"SELECT rowid FROM {self._table} {free}").fetchall()
            if not found:
                raise DataError(
                    f"{self._name} has no row for the MAC address {mac}, and no free row",
                    hint="Add rows with new serial numbers and without a MAC address.",
                    code="no-free-row",
                )
            if assign:
                change = f"UPDATE {self._table} SET {MAC} = ? WHERE rowid = ?"
                connection.execute(change, (mac, found[0][0]))
            (row,) = self._read(connection, "WHERE rowid = ?", found[0][0])
            if assign and mac_digits(row.get(MAC, "")) != mac_digits(mac):
                text = f"{self._name} does not keep the MAC address that a row gets"
                raise _bad_file(text, "Remove the trigger that changes it.")
            return row

    def list_assigned(self) -> list[dict[str, str]]:
        """As ``Boards.list_assigned``."""
        with open_database(self._path) as connection:
            return [row for row in self._read(connection, "ORDER BY rowid") if MAC in row]

    def _read(
        self, connection: sqlite3.Connection, where: str, *values: str | int
    ) -> list[dict[str, str]]:
        rows = connection.execute(f"SELECT * FROM {self._table} {where}", values)
        names = [
            _name_column(each[0]) for each in rows.description
        ]  # another program may have added one
        return [_drop_empty(zip(names, map(_as_text, row), strict=True)) for row in rows]


def _name_column(text: str) -> str:
    """The variable of a column: its name; ``MAC`` and ``Serial`` mean the same as in lower case."""
    name = text.strip()
    return name.lower() if name.lower() in (MAC, SERIAL) else name


def _as_text(value: str | int | float | bytes | None) -> str:
    """A value of a column as text; a BLOB counts as no value."""
    return "" if value is None or isinstance(value, bytes) else str(value)


def _drop_empty(cells: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {name: value.strip() for name, value in cells if value.strip()}


def _check_columns(columns: tuple[str, ...], name: str) -> None:
    if MAC not in columns:
        text = f"{name} has no column {MAC!r}: boards are found by their MAC address"
        raise _bad_file(text, f"Its columns are: {shorten(', '.join(columns)) or 'none'}.")
    twice = [column for column, count in Counter(columns).items() if count > 1]
    if twice:
        raise _bad_file(f"{name} has several columns {twice[0]!r}")


def _check_unique(rows: Iterable[Mapping[str, str]], name: str, *, first: int = 1) -> None:
    """Refuse two boards with the same MAC address or serial number.

    :param first: the number of the first row
    :raises DataError: code ``boards-file``
    """
    rows = list(rows)
    for column, plain in ((MAC, mac_digits), (SERIAL, str)):
        places: dict[str, list[int]] = {}
        for number, row in enumerate(rows, first):
            if value := plain(row.get(column, "")):
                places.setdefault(value, []).append(number)
        for value, numbers in places.items():
            if len(numbers) > 1:
                shown = ", ".join(map(str, numbers[:MOST_ROWS])) + ", …" * (
                    len(numbers) > MOST_ROWS
                )
                raise _bad_file(f"{name} has the same {column} {shorten(value)} in rows {shown}")


def _bad_file(text: str, hint: str = "Correct the file.") -> DataError:
    return DataError(text, hint=hint, code="boards-file")
