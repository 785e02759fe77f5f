"""What can be known before the first byte is checked before the first byte."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from espwire.chips.registry import chip_ids, load_chip
from espwire.cli.main import main
from espwire.device.connect import connect
from espwire.errors import Unsupported, UsageError
from espwire.settings import Settings
from espwire.transport.url import open_transport

NO_WATCHDOG = [name for name in chip_ids() if not load_chip(name).reset.watchdog_reset]


@pytest.fixture
def opened(monkeypatch):
    """The URLs that were opened; each link keeps its flash."""
    links = []

    def watch(url, **more):
        links.append(open_transport(url, **more))
        return links[-1]

    monkeypatch.setattr("espwire.transport.url.open_transport", watch)
    return links


def run(*words: str | Path) -> int:
    return main(["--no-state", *map(str, words)])


@pytest.mark.parametrize("chip", NO_WATCHDOG)
def test_a_watchdog_reset_that_the_chip_does_not_have(chip, tmp_path, opened, capsys):
    (tmp_path / "app").write_bytes(b"data")
    url = f"virtual:{chip}?size=1MB&profile=instant"
    assert (
        run("-p", url, "--after", "watchdog-reset", "write-flash", "0x10000", tmp_path / "app") == 5
    )
    assert "[no-watchdog-reset]" in capsys.readouterr().err
    assert opened[0].chip.flash.contents == b"\xff" * 0x100000, "nothing was written"


@pytest.mark.parametrize("chip", [name for name in chip_ids() if name not in NO_WATCHDOG][:2])
def test_a_watchdog_reset_that_the_chip_has(chip, tmp_path):
    (tmp_path / "app").write_bytes(b"data")
    words = ("--after", "watchdog-reset", "write-flash", "0x10000", tmp_path / "app")
    assert run("-p", f"virtual:{chip}?profile=instant", *words) == 0
    assert run("-p", f"virtual:{chip}?profile=instant&secure-download=1", *words, "--force") == 5


STUBS = {
    "missing": None,
    "empty": b"",
    "not JSON": b"{",
    "another JSON": b"[1, 2]",
    "no text": json.dumps({"entry": 1, "text_start": 0}).encode(),
    "broken base64": json.dumps(
        {"entry": 1, "text": "§", "text_start": 0, "data": "", "data_start": 0}
    ).encode(),
}


@pytest.mark.parametrize("content", STUBS.values(), ids=STUBS.keys())
@pytest.mark.parametrize(
    "words", [("flash-id",), ("write-flash", "0x10000", "app"), ("erase-flash",), ("chip-info",)]
)
def test_a_stub_file_that_is_broken_or_missing(
    content, words, tmp_path, opened, capsys, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("app").write_bytes(b"data")
    if content is not None:
        Path("stub.json").write_bytes(content)
    assert run("-p", "virtual:esp32", "--stub", "stub.json", *words) == 6
    assert "stub.json" in capsys.readouterr().err
    assert opened == [], "the port was not opened"


OUTPUTS = [
    ("read-flash", "0x0", "0x1000"),
    ("dump-mem", "0x3ffb0000", "0x100"),
    ("partitions", "read"),
    ("image", "map", "--svg"),
]


@pytest.mark.parametrize("words", OUTPUTS, ids=lambda words: words[0])
@pytest.mark.parametrize("place", ["nowhere/out", "folder"])
def test_an_output_that_cannot_be_written(words, place, tmp_path, opened, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    assert run("-p", "virtual:esp32", *words, place) in (2, 6)
    assert place in capsys.readouterr().err
    assert opened == [], "the port was not opened"
    assert [str(path) for path in Path().rglob("*")] == ["folder"]


@pytest.mark.parametrize("words", OUTPUTS[:2], ids=lambda words: words[0])
def test_an_output_that_is_there_is_kept_until_the_new_one_is_whole(words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("out").write_bytes(b"old")
    assert (
        run("-p", "virtual:esp32?boot=app&circuit=none", "--connect-attempts", "1", *words, "out")
        != 0
    )
    assert Path("out").read_bytes() == b"old"
    assert [path.name for path in Path().iterdir()] == ["out"]


INPUTS = [
    ("write-flash", "0x10000", "missing"),
    ("write-flash", "nvs", "missing"),
    ("verify-flash", "0x10000", "missing"),
    ("verify-flash", "nvs", "missing"),
    ("write-flash", "0x10000", "there", "--diff-with", "missing"),
    ("write-flash", "0x10000", "there", "--encrypt-files", "0x20000", "missing"),
    ("load-ram", "missing"),
    ("flash", "missing"),
    ("read-flash", "nvs", "out", "--partitions", "missing"),
]


@pytest.mark.parametrize("words", INPUTS, ids=" ".join)
def test_an_input_that_cannot_be_read(words, tmp_path, opened, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("there").write_bytes(b"data")
    assert run("-p", "virtual:esp32", *words) in (2, 6)
    assert "missing" in capsys.readouterr().err
    assert opened == [], "the port was not opened"


def test_a_reset_sequence_that_makes_no_sense():
    transport = open_transport("virtual:esp32")
    with pytest.raises(UsageError) as caught:
        connect(transport, settings=Settings(custom_hard_reset_sequence="D0|Z"), stub=False)
    assert caught.value.code == "reset-sequence"
    assert transport.chip.boots == 0, "nothing was reset"


def test_a_missing_extra(monkeypatch):
    """Only a virtual chip needs it here: it encrypts with a key of its own."""
    for name in ("cryptography", "cryptography.hazmat.primitives.ciphers"):
        monkeypatch.setitem(sys.modules, name, None)
    open_transport("virtual:esp32c3")
    with pytest.raises(Unsupported) as caught:
        open_transport(f"virtual:esp32c3?flash-encryption=1&flash-key={bytes(range(32)).hex()}")
    assert caught.value.code == "needs-cryptography"
    assert "espwire[secure]" in caught.value.hint
