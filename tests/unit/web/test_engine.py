"""The engine outside of a browser: files that were dropped, cancelling, output as events."""

from __future__ import annotations

import io
import json
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

from espwire.errors import ToolError
from espwire.web import engine


class FakeBrowser:
    """The module of web/worker.mjs, without waiting."""

    def __init__(self, *, cancel_after: int = 1 << 30) -> None:
        self.lines: list[dict[str, Any]] = []
        self._looks, self._cancel_after = 0, cancel_after

    def emit(self, line: str) -> None:
        self.lines.append(json.loads(line))

    def cancelled(self) -> bool:
        self._looks += 1
        return self._looks > self._cancel_after

    def typed(self) -> str:
        return ""


@pytest.fixture
def browser(monkeypatch: pytest.MonkeyPatch) -> FakeBrowser:
    browser = FakeBrowser()
    monkeypatch.setitem(sys.modules, "espwire_browser", browser)
    monkeypatch.setattr("espwire.transport.webserial.can_wait", lambda: False)
    return browser


def pack(**files: bytes) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return content.getvalue()


def test_a_command_line_gives_the_events_of_json(browser: FakeBrowser) -> None:
    assert engine.run(["-p", "virtual:esp32c3", "read-mac"]) == 0
    assert browser.lines[-1]["event"] == "Result"
    assert browser.lines[-1]["data"]["mac"].count(":") == 5
    assert engine.run(["image-info", "missing.bin"]) == 6
    assert browser.lines[-1]["event"] == "Error"


def test_a_virtual_chip_is_cancelled(browser: FakeBrowser) -> None:
    browser._cancel_after = 3
    assert engine.run(["-p", "virtual:esp32c3", "erase-flash"]) == 130
    assert browser.lines[-1]["code"] == "cancelled"


def test_the_console_explains_the_boot(browser: FakeBrowser) -> None:
    browser._cancel_after = 40
    assert engine.watch("virtual:esp32c3?boot=app&pace=0", 115200, True, "esp32c3") == 0
    text = "".join(line["text"] for line in browser.lines if line["event"] == "Output")
    notes = [line["text"] for line in browser.lines if line["event"] == "ConsoleNote"]
    assert "ESP-ROM:esp32c3" in text
    assert any("start from flash" in note for note in notes)
    assert not any("Ctrl-]" in note for note in notes)


def test_a_dropped_file_keeps_its_folder(tmp_path: Path) -> None:
    path = engine.store(str(tmp_path), "build/app.bin", b"data")
    assert Path(path) == tmp_path / "build/app.bin"
    assert Path(path).read_bytes() == b"data"
    engine.clear(str(tmp_path))
    assert not tmp_path.exists()


@pytest.mark.parametrize(
    "name", ["../x", "a/../../x", "", "/", "a\\..\\..\\x", "x\0y", "x" * 300, "\ud800"]
)
def test_no_name_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ToolError, match="cannot be used as a file name"):
        engine.store(str(tmp_path / "files"), name, b"")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_an_archive_is_unpacked_to_its_only_folder(tmp_path: Path) -> None:
    path = engine.store(
        str(tmp_path), "b.zip", pack(**{"build/a.bin": b"1", "build/x/b.bin": b"2"})
    )
    assert Path(path) == tmp_path / "b/build"
    assert (tmp_path / "b/build/x/b.bin").read_bytes() == b"2"
    kept = engine.store(str(tmp_path), "backup.zip", pack(a=b"1"), False)
    assert zipfile.is_zipfile(kept)


@pytest.mark.parametrize("data", [b"", pack(), b"PK\x03\x04 broken", pack(**{"../out.bin": b"x"})])
def test_a_bad_archive_is_an_error(browser: FakeBrowser, tmp_path: Path, data: bytes) -> None:
    assert engine.try_store(str(tmp_path / "files"), "b.zip", data, True) == ""
    assert browser.lines[-1]["event"] == "Error"
    assert not (tmp_path / "out.bin").exists()


def test_an_archive_that_is_too_large_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("espwire.web.archive.MOST_UNPACKED", 10)
    with pytest.raises(ToolError, match="too large"):
        engine.store(str(tmp_path), "b.zip", pack(a=bytes(11)))
