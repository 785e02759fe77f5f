"""`decode` on files, standard input and broken files; its output and exit codes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from espwire.cli.main import main

CRASH = Path(__file__).parents[1] / "data/crash"
LOG, ELF = str(CRASH / "esp32c3.log"), str(CRASH / "esp32c3.elf")


def test_a_log_is_printed_with_added_lines(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    assert main(["--no-state", "decode", LOG, "--elf", ELF]) == 0
    out = capfdbinary.readouterr().out
    lines = out.splitlines(keepends=True)
    assert (
        b"".join(line for line in lines if not line.startswith(b"--- ")) == Path(LOG).read_bytes()
    )
    assert b"--- 0x420000b0: app_main at /firmware/crash.c:23\n" in lines


def test_the_elf_file_of_the_project_is_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    build = tmp_path / "build"
    build.mkdir()
    (tmp_path / "CMakeLists.txt").write_text("")
    (build / "flasher_args.json").write_text("{}")
    (build / "app.elf").write_bytes(Path(ELF).read_bytes())
    monkeypatch.chdir(tmp_path)
    assert main(["--no-state", "decode", LOG]) == 0
    said = capfd.readouterr()
    assert "addresses are resolved by " in said.err
    assert "app_main at /firmware/crash.c:23" in said.out


def test_an_output_file_is_written(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out.txt"
    assert main(["--no-state", "decode", LOG, "--elf", ELF, "-o", str(out)]) == 0
    assert b"--- backtrace:\n" in out.read_bytes()
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["/no/such/file"], "file-read"),
        ([LOG, "--elf", "/no/such/file"], "file-read"),
        ([LOG, "--elf", LOG], "elf-magic"),
        ([str(CRASH)], "file-read"),
        ([LOG, "-o", str(CRASH)], "file-write"),
    ],
)
def test_what_cannot_be_read_is_an_error(
    words: list[str], code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--no-state", "decode", *words]) == 6
    assert f"[{code}]" in capsys.readouterr().err


def test_a_reader_that_leaves_is_not_an_error_of_the_log() -> None:
    program = [sys.executable, "-m", "espwire", "--no-state", "decode", "-"]
    with subprocess.Popen(
        program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, errors = process.communicate(b"Brownout detector was triggered\n" * 9)
    assert b"cannot read" not in errors
    assert b"Traceback" not in errors


@pytest.mark.parametrize("name", ["boot.log", "app.elf"])
def test_an_output_that_is_an_input_is_refused(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log, elf = tmp_path / "boot.log", tmp_path / "app.elf"
    log.write_bytes(Path(LOG).read_bytes())
    elf.write_bytes(Path(ELF).read_bytes())
    words = ["--no-state", "decode", str(log), "--elf", str(elf), "-o", str(tmp_path / name)]
    assert main(words) == 2
    assert "[output-is-input]" in capsys.readouterr().err
    assert log.read_bytes() == Path(LOG).read_bytes()
    assert elf.read_bytes() == Path(ELF).read_bytes()


@pytest.mark.parametrize(
    ("start", "kind"),
    [(b"\x7fELF", "an ELF file"), (b"\x1f\x8b\x08", "compressed"), (b"\xff\xfeB\0", "UTF-16 text")],
)
def test_a_file_that_is_not_a_log_is_named(
    start: bytes, kind: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "file"
    file.write_bytes(start)
    assert main(["--no-state", "decode", str(file)]) == 2
    assert f"{file} is {kind}, not a log [not-a-log]" in capsys.readouterr().err


def test_missing_and_wrong_elf_files_are_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["--no-state", "decode", LOG]) == 0
    added = [line for line in capfd.readouterr().out.splitlines() if line.startswith("--- ")]
    assert (
        added[1]
        == "--- addresses are not resolved: name the ELF file of the application with --elf"
    )
    assert main(["--no-state", "decode", LOG, "--elf", str(CRASH / "esp32.elf")]) == 0
    assert "esp32.elf: is it the application's ELF file? [elf-other]" in capfd.readouterr().err
    Path("packed.elf").write_bytes(b"\x1f\x8b")
    assert main(["--no-state", "decode", LOG, "--elf", "packed.elf"]) == 6
    assert "error: packed.elf: not an ELF file" in capfd.readouterr().err


def test_a_closed_standard_input_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    assert main(["--no-state", "decode", "-"]) == 6
    assert "standard input is closed [file-read]" in capsys.readouterr().err
