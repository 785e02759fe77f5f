"""The report of a job: what happened to which board, as JSON lines, CSV or a SQLite table, by the file's ending.

A run has a row before its first write, with the state ``started``, and ends as ``passed`` or ``failed``. SQLite replaces
the row of the run; the two kinds of text files get a second line with the same ``run``, so that nothing is ever rewritten.
Several programs can write to one file: a text file is locked for each line, which is on the disk before the job goes on.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from espwire.errors import DataError, FileError
from espwire.files import naming_errors, read_file, unfinished, wait_for_lock
from espwire.jobs.database import (
    LOCK_S,
    SUFFIXES,
    check_intact,
    list_columns,
    open_database,
    quote_name,
    transaction,
)
from espwire.streams import BINARY
from espwire.text import mac_digits

# columns of every report; the fields of the job follow
COLUMNS = (
    "run", "time", "state", "job", "job_sha256", "port", "chip", "mac", "flash_id", "flash_size",
    "seconds", "error", "message", "steps",
)  # fmt: skip
STARTED, PASSED, FAILED = "started", "passed", "failed"
TABLE = "runs"
FIRST_LINE_LIMIT = 16 << 20
RESERVE = 0x10000  # bytes that must be free: more than the rows of a run
JSON_LINES = (".jsonl", ".ndjson")

Row = Mapping[str, object]


class ReportTarget(NamedTuple):
    """``[report]`` of a job file. ``fields``: variables that become columns."""

    path: str
    fields: tuple[str, ...] = ()


class ReportFile(Protocol):
    """A report."""

    def check(self) -> None:
        """Check, without changing it, that rows can be added.

        :raises FileError, DataError: they cannot
        """

    def write(self, row: Row) -> None:
        """Add the row of a run, or its new state.

        :raises FileError: for example, the disk is full; nothing of the row is then in the file
        """

    def list_passed(self) -> set[str]:
        """MAC addresses, as 12 digits, of the boards that passed.

        :raises FileError, DataError: as ``check``
        """


def open_report(target: ReportTarget) -> ReportFile:
    """The report in a file, which does not have to exist."""
    suffix = os.path.splitext(target.path)[1].lower()
    columns = (*COLUMNS, *target.fields)
    if suffix in SUFFIXES:
        return SqliteReport(target.path, columns)
    return TextReport(target.path, columns, as_csv=suffix not in JSON_LINES)


class TextReport:
    """JSON lines or CSV."""

    def __init__(self, path: str, columns: Sequence[str], *, as_csv: bool) -> None:
        self._path, self._columns, self._as_csv = path, tuple(columns), as_csv

    def check(self) -> None:
        """As ``ReportFile.check``."""
        _check_room(self._path)
        if os.path.exists(self._path):
            with _open_locked(self._path) as descriptor:
                self._check_kind(_read_first_line(descriptor))

    def write(self, row: Row) -> None:
        """As ``ReportFile.write``."""
        with _open_locked(self._path) as descriptor, naming_errors("write", self._path):
            size = os.fstat(descriptor).st_size
            head = b"" if size or not self._as_csv else _build_csv(self._columns)
            if size:
                os.lseek(descriptor, max(0, size - RESERVE), os.SEEK_SET)
                head = _end_line(os.read(descriptor, RESERVE))
            line = json.dumps({name: row.get(name) for name in self._columns}).encode() + b"\n"
            if self._as_csv:
                line = _build_csv([_as_cell(row.get(name)) for name in self._columns])
            _append(descriptor, head + line, size)

    def list_passed(self) -> set[str]:
        """As ``ReportFile.list_passed``."""
        if not os.path.exists(self._path):
            return set()
        data = read_file(self._path)
        self._check_kind(data)
        lines = data.decode("utf-8", "replace").splitlines()
        parse = self._parse_cells if self._as_csv else _parse_line
        rows = filter(None, map(parse, lines))
        return {mac_digits(str(row["mac"])) for row in rows if row.get("state") == PASSED}

    def _parse_cells(self, line: str) -> dict[str, object]:
        """A line of CSV; no row has more than one line. Empty: it is damaged."""
        try:
            cells = next(csv.reader([line], strict=True), [])
        except csv.Error:
            return {}
        return (
            dict(zip(self._columns, cells, strict=True)) if len(cells) == len(self._columns) else {}
        )

    def _check_kind(self, start: bytes) -> None:
        line = start.split(b"\n")[0]
        fits = not line or (
            line + b"\n" == _build_csv(self._columns)
            if self._as_csv
            else bool(_parse_line(line.decode("utf-8", "replace")))
        )
        if not fits:
            raise _wrong_report(self._path, self._columns if self._as_csv else ())


def _read_first_line(descriptor: int) -> bytes:
    """The first line of a file, up to ``FIRST_LINE_LIMIT``."""
    start = b""
    while b"\n" not in start and len(start) < FIRST_LINE_LIMIT:
        piece = os.read(descriptor, RESERVE)
        if not piece:
            break
        start += piece
    return start


class SqliteReport:
    """A table ``runs`` of a SQLite file."""

    def __init__(self, path: str, columns: Sequence[str]) -> None:
        self._path, self._columns = path, tuple(columns)

    def check(self) -> None:
        """As ``ReportFile.check``."""
        _check_room(self._path)
        if os.path.exists(self._path):
            with open_database(self._path) as connection:
                check_intact(connection, self._path)
                columns = list_columns(connection, TABLE)
                if columns and set(columns) != set(self._columns):
                    raise _wrong_report(self._path, self._columns)
                with transaction(connection):
                    pass  # detects a lock or a missing permission

    def write(self, row: Row) -> None:
        """As ``ReportFile.write``."""
        names = ", ".join(map(quote_name, self._columns))
        kinds = [
            f"{quote_name(name)}{' PRIMARY KEY' if name == 'run' else ''}" for name in self._columns
        ]
        places = ", ".join("?" * len(self._columns))
        values = [_as_cell(row.get(name)) for name in self._columns]
        with open_database(self._path, create=True) as connection, transaction(connection):
            connection.execute(f"CREATE TABLE IF NOT EXISTS {TABLE} ({', '.join(kinds)})")
            connection.execute(
                f"INSERT OR REPLACE INTO {TABLE} ({names}) VALUES ({places})", values
            )

    def list_passed(self) -> set[str]:
        """As ``ReportFile.list_passed``."""
        if not os.path.exists(self._path):
            return set()
        with open_database(self._path) as connection:
            if not list_columns(connection, TABLE):
                return set()
            rows = connection.execute(f"SELECT mac FROM {TABLE} WHERE state = ?", (PASSED,))
            return {mac_digits(str(row[0])) for row in rows}


def _parse_line(line: str) -> dict[str, object]:
    """A JSON line of a report; empty: it is not one, such as a line that a power loss cut off."""
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) and "run" in row and "mac" in row else {}


def _as_cell(value: object) -> str | int | float | None:
    """A value for CSV and SQLite: lists as JSON; bytes of a file name that are not UTF-8 are escaped."""
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    return value if value is None or isinstance(value, int | float) else json.dumps(value)


def _end_line(tail: bytes) -> bytes:
    """What ends the last line, if power was lost while it was written: also its open quote, which would hide all rows
    after it."""
    last = tail.rpartition(b"\n")[2]
    return b"" if not last else b'"\n' if last.count(b'"') % 2 else b"\n"


def _build_csv(cells: Sequence[object]) -> bytes:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow([_defuse(cell) for cell in cells])
    return text.getvalue().encode()


def _defuse(cell: object) -> object:
    """Line breaks would make one row several lines."""
    return " ".join(cell.splitlines()) if isinstance(cell, str) else cell


def _wrong_report(path: str, columns: Sequence[str]) -> DataError:
    what = (
        f"a report with the columns {', '.join(columns)}" if columns else "a report of JSON lines"
    )
    return DataError(
        f"{path} exists, but is not {what}",
        hint="Use a new file for the report.",
        code="report-columns",
    )


def _check_room(path: str) -> None:
    """Check that the file can be written, or created, and that the disk has room.

    :raises FileError: code ``file-write``
    """
    with naming_errors("write", path):
        if os.path.exists(path) and not os.path.isfile(path):
            raise ValueError("it is not a regular file")
        if os.path.exists(path) and not os.access(path, os.W_OK):
            raise ValueError("it is write-protected")
        with unfinished(path) as place, open(place, "xb") as file:
            file.write(bytes(RESERVE))
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def _open_locked(path: str) -> Iterator[int]:
    """A descriptor of the file, which is created, with an exclusive lock.

    :raises FileError: code ``report-locked``, or it cannot be opened
    """
    with naming_errors("write", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | BINARY, 0o666)
    try:
        if not wait_for_lock(descriptor, LOCK_S):
            raise FileError(
                f"{path} is locked by another program for more than {LOCK_S:g} s",
                hint="Close the program that uses it, then repeat the command.",
                code="report-locked",
            )
        yield descriptor
    finally:
        os.close(descriptor)


def _append(descriptor: int, data: bytes, size: int) -> None:
    """Write all of ``data`` behind the ``size`` bytes of the file, or nothing.

    :raises OSError: for example, the disk is full
    """
    os.lseek(descriptor, size, os.SEEK_SET)
    try:
        written = 0
        while written < len(data):
            written += os.write(descriptor, data[written:])
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise
