"""Nothing that a file, a file's name, a chip or a port says reaches a terminal as control characters."""

from __future__ import annotations

import os
import struct
from pathlib import Path

import pytest

from espwire.cli.main import main
from espwire.cli.output import Output
from espwire.image.partition_table import Partition, PartitionTable, build_table
from espwire.text import escape, escape_lines, shorten

CASES = Path(__file__).parents[1] / "data/cases"
ESCAPES = CASES / "escapes.bin"
NASTY = (
    "\x1b[31mEVIL\x1b]0;t\x07",
    "\u202egnp.exe",
    "\x9b31m",
    "a\x08b\x7f",
    "x\x85\u2028y",
    "\u2066a\u2069",
    "\x0e\r",
)


def read_shown(capfd: pytest.CaptureFixture[str]) -> str:
    """Standard output and error of a command; fails if a character could drive a terminal."""
    shown = "".join(capfd.readouterr())
    assert [sign for sign in shown if not sign.isprintable() and sign not in "\n"] == []
    return shown


@pytest.fixture
def nasty_dump(tmp_path: Path) -> Path:
    """A dump whose table, application descriptor and bootloader are hostile, in the parts that are text."""
    rows = [Partition("nvs", 1, 2, 0x9000, 0x6000), Partition("o", 1, 0, 0xF000, 0x2000)]
    rows += [
        Partition(
            name.encode()[:15].decode("utf-8", "ignore"),
            0,
            0x10 + number,
            0x20000 + number * 0x10000,
            0x10000,
        )
        for number, name in enumerate(NASTY)
    ]
    data = bytearray(ESCAPES.read_bytes().ljust(0x40000, b"\xff"))
    data[0x8000:0x8C00] = build_table(PartitionTable(tuple(rows)))
    segment = struct.pack(
        "<II8s32s32s16s16s32s32s",
        0xABCD5432,
        0,
        b"",
        *(t.encode()[:16] for t in NASTY[:5]),
        bytes(32),
    )
    from espwire.chips.registry import load_chip
    from espwire.image.codec import build, create_image
    from espwire.image.model import Segment

    app = build(
        create_image(
            (Segment(0x3C000020, segment.ljust(256, b"\0")),), 0x40380000, chip=load_chip("esp32c3")
        )
    )
    data[0x20000 : 0x20000 + len(app)] = app
    path = tmp_path / ("dump\x1b[2J" if os.name != "nt" else "dump")
    path.write_bytes(data)
    return path


@pytest.mark.parametrize(
    "words",
    [
        ("image-info",),
        ("image", "map"),
        ("partitions", "show"),
        ("partitions", "check"),
        ("ota", "status"),
    ],
)
def test_what_a_dump_holds_is_shown_escaped(
    nasty_dump: Path, capfd: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    main([*words, str(nasty_dump)])
    assert r"\x1b[31mEVIL" in read_shown(capfd)
    main([*words, str(ESCAPES)])
    read_shown(capfd)


def test_image_info_of_the_case_shows_no_escape_sequence(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["image-info", str(ESCAPES)]) == 0
    assert r"App for ESP32-C3 \x1b[31mEVIL\x1b]0;t\x07 at 0x10000" in read_shown(capfd)


def test_image_diff_shows_no_escape_sequence(
    nasty_dump: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    assert main(["image-diff", str(ESCAPES), str(nasty_dump)]) == 7
    assert r"\x1b[31mEVIL" in read_shown(capfd)


def test_a_map_in_colour_holds_colours_of_ours_only(nasty_dump: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("espwire.cli.commands.inspect.shows_colour", lambda: True)
    assert main(["image", "map", str(nasty_dump)]) == 0
    out = capsys.readouterr().out
    assert "\x1b[38;5;" in out
    import re

    assert escape_lines(re.sub(r"\x1b\[(38;5;\d+|0)m", "", out)) == re.sub(
        r"\x1b\[(38;5;\d+|0)m", "", out
    )


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such file names")
@pytest.mark.parametrize("nasty", NASTY)
def test_file_names_are_shown_escaped(tmp_path: Path, capfd, monkeypatch, nasty: str) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"{nasty}.bin"
    Path(name).write_bytes(b"\xe9" + bytes(64))
    Path("sound.bin").write_bytes(bytes(100))
    port = ["--port", "virtual:esp32c3?profile=instant"]
    for words in (
        ["image-info", name],
        ["image-diff", name, "sound.bin"],
        ["partitions", "show", name],
        ["split-image", name],
        [*port, "write-flash", "0x20000", name],
        [*port, "read-flash", "0", "16", name],
        [*port, "dump-mem", "0x40000000", "16", name],
        ["flash", name],
        ["merge-bin", "--chip", "esp32c3", "-o", name, "0", "sound.bin"],
        [f"@{name}"],
        [nasty],
        ["write-flash", nasty, "sound.bin"],
        ["--config", name, "chips"],
        ["--chip", nasty, "read-mac"],
        ["-p", f"virtual:{nasty}", "read-mac"],
        ["-p", f"socket://{nasty}:1", "read-mac"],
        ["-p", nasty, "read-mac"],
    ):
        main(words)
        assert read_shown(capfd), words


def test_the_output_is_the_boundary_whatever_the_caller_passes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    output = Output()
    for nasty in NASTY:
        output.line(nasty)
        output.error_line(f"error: {nasty}")
    shown = "".join(capsys.readouterr())
    assert all(sign.isprintable() or sign == "\n" for sign in shown)


def test_an_escape_tells_what_was_there() -> None:
    assert escape("a\x1b\x9b\u202e\U000e0001\udcce") == r"a\x1b\x9b\u202e\U000e0001\xce"
    assert escape("größe 文件 🙂") == "größe 文件 🙂"
    assert escape_lines("a\tb\n\x1bc") == "a\tb\n\\x1bc"
    assert shorten("9" * 10_000) == f"{'9' * 60}… (10,000 characters)"
