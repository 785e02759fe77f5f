"""Standard output in the hands of a host program: broken, missing or unusual streams never stop the work."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.scenario.test_compat import DEMO, esptool, path  # noqa: F401  the two are fixtures

import espwire
from espwire.cli.main import main
from espwire.cli.output import Output, is_terminal

PROGRAM = [sys.executable, "-m", "espwire"]
FULL = Path("/dev/full")
needs_full = pytest.mark.skipif(not FULL.exists(), reason="there is no /dev/full on this system")


class WriteAndFlush:
    """What graphical front ends put in the place of standard output."""

    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text

    def flush(self) -> None: ...


class WriteOnly:
    def __init__(self) -> None:
        self.text = ""

    def write(self, text: str) -> None:
        self.text += text


class Terminal(io.StringIO):
    """Claims to be a terminal and has no file descriptor."""

    def fileno(self) -> int:
        raise io.UnsupportedOperation("fileno")

    def isatty(self) -> bool:
        return True


class Raises:
    """A sink whose window is gone."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def write(self, text: str) -> int:
        raise self.error

    def flush(self) -> None:
        raise self.error

    def isatty(self) -> bool:
        raise self.error


def closed() -> io.StringIO:
    stream = io.StringIO()
    stream.close()
    return stream


STREAMS: dict[str, Callable[[], object]] = {
    "write-and-flush": WriteAndFlush,
    "write-only": WriteOnly,
    "none": lambda: None,
    "terminal-without-fileno": Terminal,
    "closed": closed,
    "ascii": lambda: io.TextIOWrapper(io.BytesIO(), "ascii"),
    "full-disk": lambda: Raises(OSError(28, "No space left on device")),
    "closed-pipe": lambda: Raises(BrokenPipeError(32, "Broken pipe")),
    "closed-value": lambda: Raises(ValueError("I/O operation on closed file")),
    "deleted-widget": lambda: Raises(RuntimeError("wrapped C/C++ object has been deleted")),
}


def write_line(flash: Path) -> list[str]:
    return ["-p", f"virtual:esp32c3?flash={flash.as_posix()}", "write-flash", "0x0", str(DEMO)]


def starts_with_demo(flash: Path) -> bool:
    with flash.open("rb") as file:
        return file.read(DEMO.stat().st_size) == DEMO.read_bytes()


@pytest.mark.parametrize("both", [False, True], ids=["stdout", "stdout-and-stderr"])
@pytest.mark.parametrize("name", STREAMS)
def test_a_host_program_writes_flash_whatever_its_streams_are(
    name: str,
    both: bool,
    esptool: object,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stream = STREAMS[name]()
    monkeypatch.setattr(sys, "stdout", stream)
    if both:
        monkeypatch.setattr(sys, "stderr", stream)
    assert esptool.main(write_line(tmp_path / "flash.bin")) is None  # type: ignore[attr-defined]
    if isinstance(stream, WriteAndFlush | WriteOnly):
        assert "Hash of data verified." in stream.text
    assert starts_with_demo(tmp_path / "flash.bin")


@pytest.mark.parametrize("name", STREAMS)
def test_the_command_line_itself_writes_flash_and_reports_only_a_full_disk(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdout", STREAMS[name]())
    code = main(write_line(tmp_path / "flash.bin"))
    assert starts_with_demo(tmp_path / "flash.bin")
    assert code == (6 if name == "full-disk" else 0)
    errors = capsys.readouterr().err
    assert ("cannot write to standard output: No space left on device [stdout]" in errors) == (
        name == "full-disk"
    )


def test_characters_that_the_encoding_lacks_are_escaped_not_lost() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "ascii")
    output = Output()
    output.write(stream, "café\n")
    output.write(stream, "next\n")
    assert raw.getvalue() == b"caf\\xe9\nnext\n"


def test_a_stream_of_unknown_kind_is_not_a_terminal() -> None:
    assert not any(
        is_terminal(make()) for name, make in STREAMS.items() if name != "terminal-without-fileno"
    )  # type: ignore[arg-type]
    assert is_terminal(Terminal())


@needs_full
@pytest.mark.parametrize(
    "line",
    ["--help", "-h", "--help-all", "--version", "version", "write-flash --help", "partitions --help", "partitions show -h",
     "chips", "completion bash"],
)  # fmt: skip
def test_a_full_disk_behind_standard_output_is_one_clear_error(line: str) -> None:
    with FULL.open("w") as full:
        done = subprocess.run(
            [*PROGRAM, *line.split()], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 6
    assert (
        done.stderr.splitlines()[0]
        == "error: cannot write to standard output: No space left on device [stdout]"
    )
    assert done.stderr.splitlines()[1].startswith("hint: ")
    assert len(done.stderr.splitlines()) == 2


@needs_full
def test_esptool_ends_with_its_own_exit_code_when_the_disk_is_full() -> None:
    start = "from espwire_compat.programs import esptool; esptool()"
    for line in ("--help", "--version", "version"):
        with FULL.open("w") as full:
            command = [sys.executable, "-c", start, line]
            done = subprocess.run(
                command, stdout=full, stderr=subprocess.PIPE, text=True, check=False
            )
        assert done.returncode == 2
        assert done.stderr.startswith("A fatal error occurred: cannot write to standard output")
        assert "Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="closes descriptors as a POSIX shell does")
@pytest.mark.parametrize("redirect", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_descriptors_do_not_stop_a_write(redirect: str, tmp_path: Path) -> None:
    words = " ".join(f"'{word}'" for word in [*PROGRAM, *write_line(tmp_path / "flash.bin")])
    assert (
        subprocess.run(
            ["sh", "-c", f"{words} {redirect}"], check=False, capture_output=True
        ).returncode
        == 0
    )
    assert starts_with_demo(tmp_path / "flash.bin")


@needs_full
def test_json_on_a_full_disk_still_flashes(tmp_path: Path) -> None:
    line = [*PROGRAM, "--json", *write_line(tmp_path / "flash.bin")]
    with FULL.open("w") as full:
        done = subprocess.run(line, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 6
    assert starts_with_demo(tmp_path / "flash.bin")
    assert "Traceback" not in done.stderr


def test_the_library_prints_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    with espwire.connect("virtual:esp32c3", report=lambda event: None, stub=False) as device:
        assert device.mac == "24:0a:c4:00:01:10"
    assert json.dumps(device.mac)
