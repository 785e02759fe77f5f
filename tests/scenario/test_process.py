"""The program as a process: readers that leave, signals, and consoles that lack signs."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import espwire
from espwire.cli.main import main

DEMO = Path(espwire.__file__).parent / "demo/esp32c3-hello.bin"
PROGRAM = [sys.executable, "-m", "espwire"]


def test_a_reader_who_leaves_does_not_stop_the_writing(tmp_path: Path) -> None:
    flash = tmp_path / "flash.bin"
    line = [
        *PROGRAM,
        "-p",
        f"virtual:esp32c3?flash={flash.as_posix()}",
        "write-flash",
        "0",
        str(DEMO),
    ]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        errors = process.stderr.read()
    assert process.returncode == 0, errors
    assert errors == b""
    with flash.open("rb") as file:
        assert file.read(DEMO.stat().st_size) == DEMO.read_bytes()


def test_a_console_without_the_sign_still_gets_the_text() -> None:
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"}
    done = subprocess.run([*PROGRAM, "é"], capture_output=True, env=environment, check=False)
    assert done.returncode == 2
    assert b"\\xe9" in done.stderr
    assert b"Traceback" not in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGTERM to catch")
@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGQUIT", "SIGXCPU"])
def test_an_ending_signal_unwinds_and_leaves_no_half_file(tmp_path: Path, name: str) -> None:
    number = getattr(signal, name)
    out = tmp_path / "out.bin"
    # paced, through the ROM: 1 MB would take minutes, so it is certainly still at work when the signal comes
    port = ["-p", "virtual:esp32c3?pace=1", "--no-stub"]
    line = [*PROGRAM, "--json", *port, "read-flash", "0", "1M", str(out)]
    with subprocess.Popen(
        line,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # nohup has SIGHUP ignored, which a child inherits
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),  # noqa: PLW1509
    ) as process:
        assert process.stdout is not None
        for event in process.stdout:
            if '"Progress"' in event:
                break
        process.send_signal(number)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 128 + number, errors
    assert "Traceback" not in errors
    # what was read is kept under another name, for the same command to continue
    assert {path.name for path in tmp_path.iterdir()} <= {"out.bin.partial"}


@pytest.mark.skipif(
    sys.platform == "win32", reason="Windows sends Ctrl-C to a whole console, the test included"
)
def test_sigint_is_exit_130_with_one_clear_line(tmp_path: Path) -> None:
    line = [
        *PROGRAM,
        "-v",
        "-p",
        "virtual:esp32c3?pace=1",
        "--no-stub",
        "read-flash",
        "0",
        "1M",
        str(tmp_path / "out.bin"),
    ]
    with subprocess.Popen(
        line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for text in process.stdout:
            if "Found" in text:
                break
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=30)
    assert process.returncode == 130, errors
    assert errors.startswith("error: stopped by Ctrl-C [cancelled]\nhint: ")
    assert list(tmp_path.iterdir()) == []


def run_python(program: str, *arguments: str, **keywords: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        **keywords,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGHUP")
def test_a_signal_that_nohup_has_ignored_stays_ignored() -> None:
    program = (
        "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); from espwire.cli import main;"
        "main._catch_signals(); print(signal.getsignal(signal.SIGHUP) is signal.SIG_IGN)"
    )
    assert run_python(program).stdout == "True\n"


DROPPED = """
import os, signal, sys, time
from espwire.cli.main import start
class Thing:
    def __del__(self):
        os.kill(os.getpid(), int(sys.argv[1]))
        for _ in range(1000):
            pass
def work():
    thing = Thing()
    del thing
    time.sleep(20)
    return 0
start(work)
"""


@pytest.mark.skipif(
    sys.platform == "win32", reason="Windows sends Ctrl-C to a whole console, the test included"
)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_a_destructor_which_drops_exceptions_ends_the_run_all_the_same(
    number: int, code: int
) -> None:
    began = time.monotonic()
    done = run_python(DROPPED, str(int(number)))
    assert (done.returncode, done.stderr) == (code, "")
    assert time.monotonic() - began < 15


@pytest.mark.parametrize(
    ("stop", "expected"),
    [(KeyboardInterrupt(), 130), (SystemExit(143), SystemExit), (ValueError("x"), 70)],
)
def test_a_signal_behind_another_error_counts(
    stop: BaseException,
    expected: Any,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*arguments: object) -> int:
        try:
            raise stop
        except BaseException as error:
            raise RuntimeError("as the interpreter makes of it") from error

    monkeypatch.setattr("espwire.cli.main.perform", fail)
    if isinstance(expected, int):
        assert main(["version"]) == expected
    else:
        with pytest.raises(expected) as caught:
            main(["version"])
        assert caught.value.code == 143
    capsys.readouterr()


IMPORTING = """
import os, signal, sys
left = int(sys.argv[1])
def audit(event, arguments):
    global left
    if event == "import":
        left -= 1
        if not left:
            signal.raise_signal(signal.SIGINT)
from espwire.cli.main import run
sys.addaudithook(audit)
sys.argv = ["espwire", "-p", "virtual:esp32c3?size=1MB", "flash-id"]
run()
"""


@pytest.mark.skipif(
    sys.platform == "win32", reason="Windows sends Ctrl-C to a whole console, the test included"
)
@pytest.mark.parametrize("number", [1, 2, 5, 20, 60, 120])
def test_ctrl_c_while_modules_are_imported_prints_no_traceback(number: int) -> None:
    done = run_python(IMPORTING, str(number))
    assert done.returncode == 130, done.stderr
    assert "Traceback" not in done.stderr
    assert "ignored" not in done.stderr


SHORT_OF_MEMORY = """
import resource, sys
from espwire.cli.main import main, start
import espwire.cli.commands.inspect
from espwire import files, streams
resource.setrlimit(resource.RLIMIT_AS, (150 << 20, resource.RLIM_INFINITY))
start(lambda: main(sys.argv[1:]))
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="other systems do not limit memory so"
)
def test_a_lack_of_memory_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "big.bin").touch()
    os.truncate(tmp_path / "big.bin", 250 << 20)
    done = run_python(SHORT_OF_MEMORY, "image-info", str(tmp_path / "big.bin"))
    assert done.stderr.startswith("error: out of memory [out-of-memory]\nhint: ")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 2


def test_even_a_report_that_needs_too_much_memory_is_one_clear_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    program = "from espwire.cli.main import start\ndef work():\n    raise MemoryError\nstart(work, interrupted=2)"
    done = run_python(program)
    assert done.stderr.startswith("error: out of memory [out-of-memory]\nhint: ")
    assert done.returncode == 1


def run_in_shell(words: str, folder: Path) -> bytes:
    line = f"{sys.executable} -m espwire -p 'virtual:esp32c3?size=1MB' {words}"
    done = subprocess.run(
        line, shell=True, check=True, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    return done.stdout


@pytest.mark.skipif(not os.path.exists("/dev/stdout"), reason="no name for standard output here")
def test_data_on_standard_output_are_alone_there_and_appended(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"kept")
    run_in_shell("read-flash 0 16 /dev/stdout >> out", tmp_path)
    assert (tmp_path / "out").read_bytes() == b"kept" + b"\xff" * 16
    assert run_in_shell("read-flash 0 16 /dev/stdout | cat", tmp_path) == b"\xff" * 16


@pytest.mark.skipif(not os.path.exists("/dev/fd"), reason="no names for open files here")
def test_an_input_whose_descriptor_begins_with_1_is_not_standard_output(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"content")
    line = f"{sys.executable} -m espwire image-diff /dev/fd/12 a 12<a"
    done = subprocess.run(
        ["bash", "-c", line], check=True, cwd=tmp_path, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("Both files contain the same 7 bytes.\n", "")
