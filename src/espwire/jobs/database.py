"""SQLite files of jobs: opening them, transactions, and errors that name the file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote

from espwire.errors import DataError, FileError
from espwire.files import naming_errors
from espwire.text import shorten

if TYPE_CHECKING:
    import sqlite3  # some Python installations lack it

SUFFIXES = (".db", ".sqlite", ".sqlite3")
HIDDEN = 1  # a column of a virtual table that SELECT * leaves out
LOCK_S = 10.0  # wait for another station's transaction


@contextmanager
def naming_database_errors(path: str) -> Iterator[None]:
    """Turn errors of SQLite into ``FileError`` and ``DataError``."""
    try:
        import sqlite3
    except ImportError as error:
        raise FileError(
            f"cannot use the database {path}: this Python has no SQLite ({error})",
            hint="Install a Python with the module sqlite3, or use CSV and JSON lines.",
            code="no-sqlite",
        ) from None
    try:
        yield
    except UnicodeDecodeError as error:  # in the text of an error about a damaged schema
        raise _build_damaged(path, error) from None
    except sqlite3.Error as error:
        number = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if number in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise FileError(
                f"{path} is locked by another program for more than {LOCK_S:g} s",
                hint="Close the program that writes to it, then repeat the command.",
                code="database-locked",
            ) from None
        if number in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise _build_damaged(path, error) from None
        full = number == sqlite3.SQLITE_FULL
        raise FileError(
            f"cannot use the database {path}: {error}",
            hint="Free disk space, or use another disk." if full else None,
            code="database",
        ) from None


@contextmanager
def open_database(path: str, *, create: bool = False) -> Iterator[sqlite3.Connection]:
    """A connection without implicit transactions.

    :param create: create the file if there is none
    :raises FileError: it does not exist, or is locked (code ``database-locked``)
    :raises DataError: code ``database-damaged``
    """
    if not create:
        with naming_errors("read", path):
            if stat.S_ISFIFO(os.stat(path).st_mode):  # opening it would wait for a writer
                raise ValueError("it is not a regular file")
            with open(path, "rb"):
                pass
    mode = "rwc" if create else "rw"
    url = f"file:{quote(os.path.abspath(path))}?mode={mode}"
    with naming_database_errors(path):
        import sqlite3

        connection = sqlite3.connect(url, uri=True, timeout=LOCK_S, isolation_level=None)
        try:
            yield connection
        finally:
            connection.close()


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """Exclude other writers; nothing is changed if the block raises."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    except BaseException:
        if connection.in_transaction:  # SQLite ends it itself when the disk is full
            connection.execute("ROLLBACK")
        raise
    connection.execute("COMMIT")


def list_columns(connection: sqlite3.Connection, table: str) -> tuple[str, ...]:
    """The columns of a table, with generated ones; none if it does not exist."""
    rows = connection.execute(f"PRAGMA table_xinfo({quote_name(table)})")
    return tuple(row[1] for row in rows if row[6] != HIDDEN)


def quote_name(name: str) -> str:
    """A table or column name in SQL."""
    return '"' + name.replace('"', '""') + '"'


def check_intact(connection: sqlite3.Connection, path: str) -> None:
    """:raises DataError: code ``database-damaged``"""
    ((state,), *_) = connection.execute("PRAGMA quick_check(1)").fetchall()
    if state != "ok":
        raise _build_damaged(path, state)


def _build_damaged(path: str, reason: object) -> DataError:
    return DataError(
        f"{path} is not an intact SQLite database: {shorten(str(reason))}",
        hint="Use a copy of it that is intact.",
        code="database-damaged",
    )
