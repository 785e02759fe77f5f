"""Input of any size and kind: one clear error, in time and memory that are bounded. Work is counted, not timed."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espwire.cli import argfile, config_files
from espwire.cli.config_files import read_files
from espwire.cli.main import main
from espwire.errors import ToolError, UsageError
from espwire.text import split_words
from espwire.transport.tcp import find_host_error, parse_socket_url

MANY = 15_000


def read_toml(folder: Path, text: str, name: str = "x.toml") -> config_files.Loaded:
    path = folder / name
    path.write_text(text)
    return read_files({}, str(path))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.toml", "[connect]\n" + "".join(f"key{number} = 1\n" for number in range(MANY))),
        ("x.toml", "".join(f"[t{number}]\n" for number in range(MANY))),
        ("x.cfg", "[esptool]\n" + "".join(f"key{number} = 1\n" for number in range(MANY))),
    ],
)
def test_thousands_of_unknown_keys_are_counted_in_one_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, text: str
) -> None:
    passes: list[int] = []
    whole = config_files.Lines.__init__

    def count(self: config_files.Lines, text: str) -> None:
        passes.append(len(text))
        whole(self, text)

    monkeypatch.setattr(config_files.Lines, "__init__", count)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(config_files, "find_own_file", lambda: None)
    loaded = read_toml(tmp_path, text, name)
    assert len(passes) == 1
    assert [code for code, _ in loaded.warnings] == ["config-unknown-key"] * 11
    assert f"{MANY - 10:,} more unknown keys or tables" in loaded.warnings[-1][1]
    assert (
        "line 2: key0" in loaded.warnings[0][1] or "line 1: unknown table" in loaded.warnings[0][1]
    )


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[connect]\nport = " + "[" * 900, "nested too deeply"),
        ("x = [\n" + "[\n" * 20_000, "nested too deeply"),
        ("x = " + "{a=" * 300, "not valid TOML"),
        ("[connect]\n" + "a." * 50_000 + "b = 1\n", "line 2: longer than 1,000 characters"),
        ("[connect]\nbaud = " + "9" * 10_000, "line 2: longer than 1,000 characters"),
        ("[connect]\nbaud = " + "9" * 900, "a number of"),
        ("[connect]\nbaud = 0x" + "f" * 900, "a number of 3,600 bits"),
        ("[timing]\nsync = 0x" + "f" * 900, "a number of 3,600 bits"),
        ("[connect]\nport = {a = 1}", "port must be a string; got a table"),
        ("[connect]\nport." + "a." * 400 + "b = 1", "port must be a string; got a table"),
        ("[connect]\nport = [1]", "port must be a string; got an array"),
        ("[flash]\nmode = '" + "x" * 900 + "'", "(900 characters)"),
        ("[connect]\nattempts = '\x1b[31m'", "not valid TOML"),
    ],
)
def test_odd_toml_ends_in_one_short_error(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(UsageError) as caught:
        read_toml(tmp_path, text)
    assert told in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_a_vendor_file_with_a_long_line_is_refused_by_its_line(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="line 2: longer than 1,000 characters"):
        read_toml(tmp_path, "[esptool]\na" + " " * 200_000 + "b\n", "x.cfg")


class TestSplitting:
    @given(st.text(st.sampled_from(" \t\n\r'\"\\abé\u00a0\u2028#$"), max_size=30))
    def test_the_words_are_those_of_shlex(self, text: str) -> None:
        try:
            expected = shlex.split(text)
        except ValueError:
            with pytest.raises(ValueError):
                split_words(text)
        else:
            assert split_words(text) == expected

    @pytest.mark.parametrize(
        "text", ["x" * 90_000, '"' + "a b\\" * 30_000, "'" * 99_999, "\\a" * 50_000, "'a'" * 30_000]
    )
    def test_a_long_word_is_matched_piece_by_piece_and_never_again(self, text: str) -> None:
        """Each match ends where the next begins: the pieces add up to the text, whatever its form."""
        from espwire.text import _PIECE

        at, pattern = 0, re.compile(_PIECE, re.DOTALL)
        while at < len(text) and (match := pattern.match(text, at)) is not None:
            assert match.end() > at
            at = match.end()
        assert at == len(text) or text[0] == '"' or text[0] == "'"

    @pytest.mark.parametrize(
        "content", ["x" * 1_000_000, "'" + "a b" * 300_000 + "'", "a\\ " * 300_000]
    )
    def test_an_argument_file_of_one_long_word_is_refused(
        self, tmp_path: Path, content: str
    ) -> None:
        path = tmp_path / "words"
        path.write_text(content)
        with pytest.raises(UsageError, match=r"contains an argument of|cannot be split"):
            argfile.expand([f"@{path}"])


@pytest.mark.parametrize(
    ("host", "reason"),
    [
        ("a..b", "one of its labels is empty"),
        (".a", "one of its labels is empty"),
        ("..", "one of its labels is empty"),
        ("a" * 64 + ".de", "64 characters, more than 63"),
        ("a." * 200 + "b", "401 characters, more than 253"),
        ("x" * 100_000, "100,000 characters"),
        ("ü" * 60, "not allowed in host names"),
        ("a b", "space"),
        ("a\0b", "control character"),
        ("xn--\u20ac", "not allowed in host names"),
    ],
)
def test_an_invalid_host_name_is_rejected_with_the_reason(host: str, reason: str) -> None:
    assert reason in (find_host_error(host) or "")
    for scheme in ("socket", "rfc2217", "espwire"):
        with pytest.raises(UsageError) as caught:
            parse_socket_url(f"{scheme}://{host}:1", scheme)
        assert len(str(caught.value)) < 300
        assert str(caught.value).isprintable()


def test_valid_host_names_pass() -> None:
    for host in (
        "a",
        "localhost",
        "a.b.",
        "127.0.0.1",
        "::1",
        "fe80::1%eth0",
        "grüße.example",
        "a" * 63 + ".de",
        "a_b",
    ):
        assert find_host_error(host) is None, host
    assert parse_socket_url("socket://[::1]:5") == ("::1", 5)


NINES = "9" * 10_000


@pytest.mark.parametrize(
    "words",
    [
        ["-p", "virtual:esp32", "erase-region", NINES, "0x1000"],
        ["-p", "virtual:esp32", "erase-region", "0", "0x" + "f" * 10_000],
        ["-p", "virtual:esp32", "-b", NINES, "read-mac"],
        ["-p", "virtual:esp32", "-b", "0x" + "f" * 10_000, "read-mac"],
        ["-p", "virtual:esp32", "--connect-attempts", NINES, "read-mac"],
        ["-p", "virtual:esp32", "flash-id", "-sc", f"{NINES},1,2,3,4"],
        ["-p", f"socket://x:{NINES}", "read-mac"],
        ["-p", f"virtual:esp32?pins={NINES}:1", "read-mac"],
        ["-p", f"virtual:esp32?fault=flip@{NINES}", "read-mac"],
        ["-p", f"virtual:esp32?seed={NINES}", "read-mac"],
        ["-p", f"virtual:esp32?size={NINES}MB", "read-mac"],
        ["-p", f"virtual:esp32?revision={NINES}", "read-mac"],
        ["-p", f"virtual:esp32?latency={NINES}", "read-mac"],
        ["--port-filter", f"vid={NINES}", "ports"],
        ["elf2image", "--min-rev-full", "0x" + "f" * 10_000, "x.elf"],
        ["image", "map", "x", "-fs", f"{NINES}MB"],
        ["partitions", "show", "x", "--partition-table-offset", NINES],
        ["x" * 100_000],
        ["chips", "--" + "x" * 100_000],
    ],
)
def test_numbers_and_words_of_any_length_end_in_one_short_error(words: list[str], capsys) -> None:
    assert main(words) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["error", "hint"]
    assert all(len(line) < 2200 for line in lines)


@pytest.mark.parametrize(
    "words",
    [
        ["image-info", "a\0b"],
        ["write-flash", "0", "a\0b"],
        ["merge-bin", "--chip", "esp32", "-o", "a\0b", "0", __file__],
        ["flash", "a\0b"],
        ["--config", "a\0b", "-p", "virtual:esp32", "read-mac"],
        ["partitions", "build", "a\0b", "-o", "c\0d"],
        ["split-image", "a\0b", "-o", "c\0"],
        ["-p", "/dev/a\0b", "read-mac"],
        ["-p", "socket://a\0b:1", "read-mac"],
        ["-p", "rfc2217://a\0b:1", "read-mac"],
        ["-p", "espwire://a\0b:1", "read-mac"],
        ["serve-port", "/dev/a\0b", "--listen", "127.0.0.1:0"],
        ["serve-port", "virtual:esp32", "--listen", "a\0b"],
        ["-p", "virtual:esp32?flash=a\0b", "read-mac"],
        ["-p", "virtual:esp32?flash=a%00b", "read-mac"],
        ["@a\0b"],
        ["-p", "virtual:esp32", "read-flash", "0", "16", "a\0b"],
        ["-p", "virtual:esp32", "--stub", "a\0b", "flash-id"],
        ["image-diff", "a\0b", "c\0d"],
        ["elf2image", "a\0b"],
        ["load-ram", "a\0b"],
    ],
)
def test_a_zero_byte_in_a_name_ends_in_one_error(words: list[str], capsys) -> None:
    assert main(words) in (2, 3, 6)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["error", "hint"]
    assert "\0" not in "".join(lines)


def test_the_library_raises_its_own_errors_for_such_hosts() -> None:
    from espwire.device.connect import connect

    for port in ("socket://a..b:1", "rfc2217://" + "a" * 64 + ":1", "socket://a\0b:1"):
        with pytest.raises(ToolError), connect(port, stub=False):
            pass
