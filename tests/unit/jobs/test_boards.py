"""Rows of boards in CSV and SQLite files: found by MAC address, each serial number handed out once."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from espwire.errors import DataError, FileError, ToolError
from espwire.jobs import database
from espwire.jobs.boards import BoardSource, SqliteBoards, open_boards
from espwire.text import mac_digits

MAC, OTHER = "24:0a:c4:00:01:10", "24:0a:c4:00:01:11"
PROCESSES, DRAWS = 10, 8


def write_csv(folder: Path, text: str | bytes) -> BoardSource:
    path = folder / "boards.csv"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return BoardSource(str(path))


def write_table(
    folder: Path, *rows: tuple[str | None, ...], columns: str = "mac, serial"
) -> BoardSource:
    path = folder / "boards.db"
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE TABLE boards ({columns})")
        places = ", ".join("?" * len(columns.split(",")))
        connection.executemany(f"INSERT INTO boards VALUES ({places})", rows)
    connection.close()
    return BoardSource(str(path))


def read_table(source: BoardSource) -> list[tuple[str | None, ...]]:
    connection = sqlite3.connect(source.path)
    rows = connection.execute("SELECT * FROM boards ORDER BY rowid").fetchall()
    connection.close()
    return rows


def expect(code: str, message: str, source: BoardSource) -> ToolError:
    with pytest.raises(ToolError) as caught:
        open_boards(source)
    assert caught.value.code == code
    assert message in str(caught.value)
    return caught.value


@pytest.mark.parametrize("mac", [MAC, "240AC4000110", "24-0a-c4-00-01-10"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_csv_row_is_found_by_any_spelling_of_the_mac_address(
    tmp_path: Path, mac: str, delimiter: str
) -> None:
    rows = [("mac", "serial", "key"), ("240ac4000111", "A0", ""), (mac, " A1 ", "")]
    source = write_csv(tmp_path, "\ufeff" + "\r\n".join(map(delimiter.join, rows)) + "\r\n\r\n")
    boards = open_boards(source)
    assert boards.columns == ("mac", "serial", "key")
    assert boards.find(MAC) == {"mac": mac, "serial": "A1"}
    assert len(boards.list_assigned()) == 2


def test_the_columns_mac_and_serial_can_be_in_upper_case(tmp_path: Path) -> None:
    boards = open_boards(write_csv(tmp_path, f"MAC,Serial,Key\n{MAC},A1,k\n"))
    assert boards.columns == ("mac", "serial", "Key")
    assert boards.find(MAC) == {"mac": MAC, "serial": "A1", "Key": "k"}
    expect("boards-file", "several columns 'mac'", write_csv(tmp_path, "mac,MAC\n"))
    path = tmp_path / "boards.db"
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE boards (Serial, MAC)")
        connection.execute("INSERT INTO boards VALUES ('A1', NULL)")
    table = open_boards(BoardSource(str(path)))
    assert table.columns == ("serial", "mac")
    assert [table.find(MAC) for _ in range(2)] == [{"mac": MAC, "serial": "A1"}] * 2


def test_a_board_without_a_row_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"no row for the MAC address {MAC}") as caught:
        open_boards(write_csv(tmp_path, "mac,serial\n")).find(MAC)
    assert caught.value.code == "board-unknown"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column 'mac'"),
        ("serial,name\n", "no column 'mac'"),
        ("mac,mac\n", "several columns 'mac'"),
        (f"mac,serial\n{MAC}\n", "row 2 has 1 values, the header has 2"),
        (f"mac,serial\n{MAC},1,2\n", "row 2 has 3 values"),
        ("mac,serial\nfoo,1\n", "row 2 has the MAC address 'foo'"),
        ("mac,serial\n,1\n", "row 2 has the MAC address ''"),
        (f"mac,serial\n{MAC},1\n240AC4000110,2\n", "the same mac 240ac4000110 in rows 2, 3"),
        (f"mac,serial\n{MAC},1\n240AC4000111,1\n", "the same serial 1 in rows 2, 3"),
        (f'mac,serial\n{MAC},"1\n', "is not CSV in UTF-8"),
        (b"mac,serial\n\xff\xfe,1\n", "is not CSV in UTF-8"),
        (b"mac,serial\n\x00,1\n", "row 2"),
    ],
)
def test_a_damaged_csv_file_is_one_error(tmp_path: Path, text: str | bytes, message: str) -> None:
    expect("boards-file", message, write_csv(tmp_path, text))


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    expect("file-read", "boards.csv", BoardSource(str(tmp_path / "boards.csv")))
    expect("file-read", "boards.db", BoardSource(str(tmp_path / "boards.db")))
    assert list(tmp_path.iterdir()) == []


def test_a_free_row_is_assigned_once_and_a_retry_gets_the_same(tmp_path: Path) -> None:
    source = write_table(tmp_path, (None, "A1"), ("", "A2"), ("240AC40001FF", "A3"))
    boards = open_boards(source)
    assert boards.find(MAC, assign=False) == {"serial": "A1"}
    assert read_table(source)[0] == (None, "A1")
    assert boards.find(MAC) == {"mac": MAC, "serial": "A1"}
    assert boards.find(MAC) == {"mac": MAC, "serial": "A1"}
    assert boards.find("24:0a:c4:00:01:11")["serial"] == "A2"
    assert boards.find("24:0a:c4:00:01:ff")["serial"] == "A3"
    with pytest.raises(DataError) as caught:
        boards.find("24:0a:c4:00:01:12")
    assert caught.value.code == "no-free-row"
    assert read_table(source) == [
        (MAC, "A1"),
        ("24:0a:c4:00:01:11", "A2"),
        ("240AC40001FF", "A3"),
    ]


def test_numbers_of_a_table_are_text(tmp_path: Path) -> None:
    source = write_table(tmp_path, (MAC, 17, b"x", None), columns="mac, serial, key, note")
    assert open_boards(source).find(MAC) == {"mac": MAC, "serial": "17"}


@pytest.mark.parametrize(
    ("table", "rows", "columns", "message"),
    [
        ("other", [], "mac, serial", "has no table 'other'"),
        ("boards", [], "name, serial", "no column 'mac'"),
        ("boards", [(None, "A1"), (None, "A1")], "mac, serial", "the same serial A1"),
        ("boards", [(MAC, "A1"), ("240AC4000110", "A2")], "mac, serial", "the same mac"),
    ],
)
def test_an_unusable_table_is_one_error(tmp_path: Path, table, rows, columns, message) -> None:
    source = write_table(tmp_path, *rows, columns=columns)
    error = expect("boards-file", message, source._replace(table=table))
    if table == "other":
        assert error.hint.startswith("Tables: boards.")


def test_a_damaged_database_is_one_error(tmp_path: Path) -> None:
    source = write_table(tmp_path, *[(None, f"A{number:0500}") for number in range(200)])
    whole = Path(source.path).read_bytes()
    for damaged in (
        b"not a database" * 100,
        whole[:5000],
        whole[:4096] + bytes(4096) + whole[8192:],
    ):
        Path(source.path).write_bytes(damaged)
        expect("database-damaged", "boards.db", source)


def test_a_locked_database_is_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "LOCK_S", 0.05)
    source = write_table(tmp_path, (None, "A1"))
    other = sqlite3.connect(source.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    error = expect("database-locked", "is locked by another program", source)
    assert isinstance(error, FileError)
    other.execute("COMMIT")
    other.close()
    assert open_boards(source).find(MAC)["serial"] == "A1"


def test_a_python_without_sqlite_is_one_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_table(tmp_path, (None, "A1"))
    monkeypatch.setitem(sys.modules, "sqlite3", None)
    expect("no-sqlite", "this Python has no SQLite", source)


DRAW = """
import sys
from espwire.jobs.boards import BoardSource, open_boards
path, process, draws = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
boards = open_boards(BoardSource(path))
print("ready", flush=True)
sys.stdin.readline()
for number in range(draws):
    mac = f"24:0a:c4:00:{process:02x}:{number:02x}"
    print(mac, boards.find(mac)["serial"], boards.find(mac)["serial"], flush=True)
"""


def test_ten_processes_that_draw_at_once_get_each_number_once(tmp_path: Path) -> None:
    serials = [f"A{number:03}" for number in range(PROCESSES * DRAWS)]
    source = write_table(tmp_path, *[(None, serial) for serial in serials])
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", DRAW, source.path, str(number), str(DRAWS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(PROCESSES)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    lines = [
        line.split() for process in processes for line in process.communicate()[0].splitlines()
    ]
    assert [process.returncode for process in processes] == [0] * PROCESSES
    assert sorted(first for _, first, _ in lines) == serials
    assert all(first == second for _, first, second in lines)
    assert sorted((mac, serial) for mac, serial, _ in lines) == sorted(read_table(source))


def test_a_second_station_waits_while_the_first_takes_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second one asks between the first one's look for a free row and its change of that row."""
    source = write_table(tmp_path, (None, "A1"), (None, "A2"))
    first, second = SqliteBoards(source), SqliteBoards(source)
    real, outcomes = SqliteBoards._read, []

    def read(boards: SqliteBoards, connection: Any, where: str, *values: Any) -> Any:
        rows = real(boards, connection, where, *values)
        if boards is first and connection.in_transaction and not outcomes:
            monkeypatch.setattr(database, "LOCK_S", 0.05)
            with pytest.raises(FileError) as caught:
                second.find(OTHER)
            outcomes.append(caught.value.code)
        return rows

    monkeypatch.setattr(SqliteBoards, "_read", read)
    assert first.find(MAC)["serial"] == "A1"
    assert outcomes == ["database-locked"]
    assert second.find(OTHER)["serial"] == "A2"


def test_a_mac_address_has_12_or_16_digits() -> None:
    assert mac_digits(" 24-0A-C4-00-01-10 ") == "240ac4000110"
    assert mac_digits("60:55:f9:ff:fe:00:01:10") == "6055f9fffe000110"
    assert [mac_digits(text) for text in ("", "24:0a", "24:0a:c4:00:01:1g")] == [""] * 3


def test_a_csv_value_keeps_its_line_breaks_and_separators_of_lines(tmp_path: Path) -> None:
    key = "-----BEGIN-----\nAB\r\nCD\n-----END-----"
    source = write_csv(tmp_path, f'mac,key,note\n{MAC},"{key}",a\u2028b\x0cc\n')
    assert open_boards(source).find(MAC) == {"mac": MAC, "key": key, "note": "a\u2028b\x0cc"}


def test_generated_columns_are_variables_and_a_column_that_is_added_meanwhile_is_too(
    tmp_path: Path,
) -> None:
    columns = "mac TEXT, serial TEXT, name TEXT GENERATED ALWAYS AS ('dev-' || serial)"
    path = tmp_path / "boards.db"
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE TABLE boards ({columns})")
        connection.execute("INSERT INTO boards VALUES (NULL, 'A1')")
    boards = SqliteBoards(BoardSource(str(path)))
    assert boards.columns == ("mac", "serial", "name")
    with sqlite3.connect(path) as connection:
        connection.execute("ALTER TABLE boards ADD COLUMN more DEFAULT 'x'")
    connection.close()
    expected = {"mac": MAC, "serial": "A1", "name": "dev-A1", "more": "x"}
    assert boards.find(MAC) == expected
    assert boards.find(MAC) == expected


def test_a_row_that_does_not_keep_the_mac_address_is_not_used(tmp_path: Path) -> None:
    source = write_table(tmp_path, (None, "A1"))
    with sqlite3.connect(source.path) as connection:
        change = "UPDATE boards SET mac = NULL WHERE serial = 'A1'"
        connection.execute(f"CREATE TRIGGER t AFTER UPDATE ON boards BEGIN {change}; END")
    connection.close()
    with pytest.raises(DataError, match="does not keep the MAC address"):
        SqliteBoards(source).find(MAC)
    assert read_table(source) == [(None, "A1")]


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no named pipes in folders")
def test_a_database_that_is_a_pipe_is_an_error_at_once(tmp_path: Path) -> None:
    path = tmp_path / "boards.db"
    os.mkfifo(path)
    with pytest.raises(FileError, match="not a regular file"):
        open_boards(BoardSource(str(path)))
