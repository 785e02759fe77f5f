"""``@file`` arguments: what stands in for them, and that bad files end in one clear error."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espwire.cli.argfile import MAX_BYTES, MAX_DEPTH, MAX_WORDS, expand
from espwire.errors import FileError, ToolError, UsageError


def test_words_without_at_stay(tmp_path: Path) -> None:
    assert expand(["write-flash", "0x0", "a@b.bin", ""]) == ["write-flash", "0x0", "a@b.bin", ""]


def test_a_file_is_split_as_a_shell_would(tmp_path: Path) -> None:
    file = tmp_path / "flash args"
    file.write_text("--flash-mode dio\n0x0 'my app.bin' \n\n0x8000 \"parts.bin\"\n")
    assert expand(["write-flash", f"@{file}", "-v"]) == [
        "write-flash",
        "--flash-mode",
        "dio",
        "0x0",
        "my app.bin",
        "0x8000",
        "parts.bin",
        "-v",
    ]


def test_files_may_name_files(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.write_text("0x0 app.bin")
    (tmp_path / "outer").write_text(f"-v '@{inner.as_posix()}' -q")
    assert expand([f"@{tmp_path / 'outer'}"]) == ["-v", "0x0", "app.bin", "-q"]


def test_an_empty_file_is_no_word_and_a_byte_order_mark_is_none(tmp_path: Path) -> None:
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "bom").write_bytes(b"\xef\xbb\xbfchips")
    assert expand([f"@{tmp_path / 'empty'}", f"@{tmp_path / 'bom'}"]) == ["chips"]


def test_a_file_that_names_itself_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "self"
    file.write_text(f"'@{file.as_posix()}'")
    with pytest.raises(UsageError, match=f"more than {MAX_DEPTH} deep"):
        expand([f"@{file}"])


def test_files_that_double_themselves_are_stopped(tmp_path: Path) -> None:
    file = tmp_path / "many"
    file.write_text("x " * 300)
    middle = tmp_path / "middle"
    middle.write_text(f"'@{file.as_posix()}' " * 300)
    with pytest.raises(UsageError, match=f"more than {MAX_WORDS}"):
        expand([f"@{middle}"])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"'open", "unclosed quote"),
        (b"\xff\xfe\x00", "decode"),
        (b"a\0b", "zero byte"),
        (b"x" * (MAX_BYTES + 1), "1 MiB"),
    ],
)
def test_a_file_that_is_no_text_is_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "bad").write_bytes(content)
    with pytest.raises(UsageError, match=said):
        expand([f"@{tmp_path / 'bad'}"])


@pytest.mark.parametrize("name", ["missing", "", "with\0zero", "x" * 5000])
def test_a_file_that_cannot_be_read_is_an_error_with_a_hint(tmp_path: Path, name: str) -> None:
    with pytest.raises((FileError, UsageError)) as caught:
        expand([f"@{name and tmp_path / name}"])
    assert caught.value.hint


def test_a_directory_is_no_argument_file(tmp_path: Path) -> None:
    with pytest.raises(FileError):
        expand([f"@{tmp_path}"])


@given(st.lists(st.text(max_size=40), max_size=8), st.binary(max_size=300))
@settings(max_examples=1_000)
def test_whatever_stands_there_ends_in_words_or_a_tool_error(
    words: list[str], content: bytes
) -> None:
    expand_and_check(words, content)


@pytest.mark.soak
@given(st.lists(st.text(max_size=40), max_size=8), st.binary(max_size=3000))
@settings(max_examples=20_000)
def test_whatever_stands_in_many_files_ends_in_words_or_a_tool_error(
    words: list[str], content: bytes
) -> None:
    expand_and_check(words, content)


def expand_and_check(words: list[str], content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "args")
        file.write_bytes(content)
        with contextlib.suppress(ToolError):
            assert all(isinstance(word, str) for word in expand([*words, f"@{file}"]))
