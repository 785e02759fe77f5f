"""`espwire monitor` in a real terminal: tmux types and looks, a pseudo-terminal is the board."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(
    shutil.which("tmux") is None, reason="there is no tmux on this machine"
)

PATIENCE = 15.0
BOOT = b"ets Jul 29 2019 12:21:46\r\n\r\nrst:0x1 (POWERON_RESET),boot:0x3 (DOWNLOAD_BOOT(UART0/UART1/SDIO_REI_REO_V2))\r\n"
QUIT, MENU, INTERRUPT = "C-]", "C-t", "C-c"


def wait_for(what: str, seen: object) -> None:
    """Until ``seen()`` is true; its last value is told if it never is."""
    end = time.monotonic() + PATIENCE
    while not (found := seen()):  # type: ignore[operator]
        assert time.monotonic() < end, f"no {what}: {found!r}"
        time.sleep(0.02)


class Board:
    """A board at a path that stays the same: ``plug`` makes a new pseudo-terminal there, ``unplug`` hangs it up."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.heard = bytearray()
        self._ends: tuple[int, ...] = ()
        self._listener = threading.Thread()
        self.plug()

    def plug(self) -> None:
        import pty
        import tty

        master, slave = pty.openpty()
        tty.setraw(slave)
        new = self.path.with_suffix(".new")
        new.symlink_to(os.ttyname(slave))
        os.replace(new, self.path)
        self._ends = (master, slave)
        self._listener = threading.Thread(target=self._listen, args=(master,))
        self._listener.start()

    def unplug(self) -> None:
        ends, self._ends = self._ends, ()
        if ends:
            self._listener.join()  # a thread that still waits at the old end would keep it open
        self.path.unlink(missing_ok=True)
        for end in ends:
            os.close(end)

    def say(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._ends[0], data) :]

    def hears(self, data: bytes) -> None:
        wait_for(f"{data!r} at the board", lambda: data in self.heard)

    def _listen(self, master: int) -> None:
        import select

        with contextlib.suppress(OSError, ValueError):
            while self._ends:
                if select.select([master], [], [], 0.05)[0]:
                    self.heard += os.read(master, 4096)


class Terminal:
    """A shell in tmux, on a server of our own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        # a short path: the name of a socket may have some hundred characters only
        self._sockets = tempfile.mkdtemp(prefix="esp-tmux-")
        self._base = ["tmux", "-S", f"{self._sockets}/s", "-f", "/dev/null"]
        self.tmux("new-session", "-d", "-x", "120", "-y", "40", "env", "PS1=$ ", "ENV=", "sh")

    def tmux(self, *words: str) -> str:
        environment = {name: value for name, value in os.environ.items() if name != "TMUX"}
        done = subprocess.run(
            [*self._base, *words], capture_output=True, text=True, env=environment, check=True
        )
        return done.stdout

    def press(self, *keys: str) -> None:
        self.tmux("send-keys", *keys)

    def type(self, text: str) -> None:
        self.tmux("send-keys", "-l", text)

    def screen(self) -> str:
        return self.tmux("capture-pane", "-p", "-J", "-S", "-")

    def shows(self, text: str, times: int = 1) -> None:
        try:
            wait_for(repr(text), lambda: self.screen().count(text) >= times)
        except AssertionError:
            raise AssertionError(f"no {text!r} on the screen:\n{self.screen()}") from None

    def start(self, *words: str, command: str = "monitor") -> None:
        """The monitor, between two looks at the terminal's settings; its exit code is shown at the end."""
        line = shlex.join([sys.executable, "-m", "espwire", command, *words])
        script = self.folder / "run.sh"
        script.write_text(
            f"cd {shlex.quote(str(self.folder))}\nstty -a > before\n"
            f"sh -c 'echo $$ > pid; exec {line}'\ncode=$?\nstty -a > after\necho \"ended with $code.\"\n"
        )
        self.type(f". {shlex.quote(str(script))}")
        self.press("Enter")

    def ended(self, code: int) -> None:
        self.shows(f"ended with {code}.")
        assert (self.folder / "after").read_text() == (self.folder / "before").read_text()
        assert "Traceback" not in self.screen()

    def close(self) -> None:
        self.tmux("kill-server")
        shutil.rmtree(self._sockets, ignore_errors=True)


@pytest.fixture
def board(tmp_path: Path) -> Iterator[Board]:
    board = Board(tmp_path / "board")
    yield board
    board.unplug()


@pytest.fixture
def terminal(tmp_path: Path) -> Iterator[Terminal]:
    terminal = Terminal(tmp_path)
    yield terminal
    terminal.close()


def test_keys_unplug_replug_and_a_clean_end(
    board: Board, terminal: Terminal, tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"
    terminal.start("-p", str(board.path), "-b", "74880", "--log", str(log))
    terminal.shows("at 74880 baud; Ctrl-] quits")
    assert bytes(board.heard) == b""
    board.say(BOOT + b"\x1b[0;32mI (31) boot: hello\x1b[0m\x07\x1b[2J\r\n>>> ")
    terminal.shows("--- boot:0x3 means download mode: GPIO0 was low at reset (power-on)")
    terminal.shows("I (31) boot: hello\\x07\\x1b[2J")
    terminal.type("print(1)")
    terminal.press("Enter")
    board.hears(b"print(1)\r")
    terminal.press(MENU, MENU, MENU, INTERRUPT, "C-z", "Up")
    board.hears(b"\x14\x03\x1a\x1b[A")
    terminal.press(MENU, "C-h")
    terminal.shows("Ctrl-T Ctrl-P  reset into the loader")
    terminal.press(MENU, "C-r")
    terminal.shows("press its reset button")  # a pseudo-terminal has no lines
    board.say(b"last words")
    terminal.shows("last words")

    board.unplug()
    terminal.shows("waiting for it to come back")
    board.plug()
    terminal.shows("is back")
    board.say(b"first words\r\n")
    terminal.shows("first words")
    terminal.type("again")
    board.hears(b"again")
    terminal.press(QUIT)
    terminal.ended(0)
    assert terminal.screen().count("waiting for it to come back") == 1
    lines = log.read_text().splitlines()
    assert lines[3:6] == ["I (31) boot: hello\\x07\\x1b[2J", ">>> last words", lines[5]]
    assert lines[5].startswith("--- ")
    assert lines[5].endswith("waiting for it to come back")
    assert lines[6:] == [f"--- {board.path} is back", "first words"]


def test_the_log_has_every_line_whole_over_three_unplugs(
    board: Board, terminal: Terminal, tmp_path: Path
) -> None:
    log = tmp_path / "log.txt"
    terminal.start("-p", str(board.path), "--log", str(log))
    terminal.shows("at 115200 baud")
    for time_ in range(3):
        board.say(
            b"".join(b"round %d line %04d %s\r\n" % (time_, n, b"x" * 40) for n in range(1000))
        )
        board.say(b"round %d ends here" % time_)
        terminal.shows(f"round {time_} ends here")
        board.unplug()
        terminal.shows("waiting for it to come back", time_ + 1)
        board.plug()
        terminal.shows("is back", time_ + 1)
    terminal.press(QUIT)
    terminal.ended(0)
    said = [line for line in log.read_text().splitlines() if not line.startswith("---")]
    wanted = []
    for time_ in range(3):
        wanted += [f"round {time_} line {n:04d} {'x' * 40}" for n in range(1000)] + [
            f"round {time_} ends here"
        ]
    assert said == wanted


@pytest.mark.parametrize(("number", "code"), [(None, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("away", [False, True])
def test_ctrl_c_and_sigterm_restore_the_terminal(
    board: Board, terminal: Terminal, tmp_path: Path, away: bool, number: int | None, code: int
) -> None:
    terminal.start("-p", str(board.path), "--timestamps")
    terminal.shows("at 115200 baud")
    board.say(b"\x1b[31mhalf a line in red")
    terminal.shows("half a line")
    if away:
        board.unplug()
        terminal.shows("waiting for it to come back")
    if number is None:
        terminal.press(INTERRUPT)
    else:
        os.kill(int((tmp_path / "pid").read_text()), number)
    terminal.ended(code)


def test_a_log_is_not_overwritten(board: Board, terminal: Terminal, tmp_path: Path) -> None:
    (tmp_path / "log.txt").write_text("precious\n")
    terminal.start("-p", str(board.path), "--log", "log.txt")
    terminal.shows("[file-exists]")
    terminal.ended(6)
    assert (tmp_path / "log.txt").read_text() == "precious\n"


def test_pause_filter_and_gdb(board: Board, terminal: Terminal, tmp_path: Path) -> None:
    gdb = tmp_path / "gdb"
    gdb.write_text('#!/bin/sh\necho "gdb runs: $*"\nread line && echo "typed $line"\n')
    gdb.chmod(0o755)
    elf = Path(__file__).parents[1] / "data/crash/esp32c3.elf"
    terminal.start("-p", str(board.path), "--elf", str(elf), "--gdb", str(gdb), "--timestamps")
    terminal.shows("Ctrl-] quits")
    board.say(b"abort() was called at PC 0x4200008a on core 0\r\n")
    terminal.shows("--- 0x4200008a: collect at /firmware/crash.c:18")
    terminal.press(MENU, "C-y")
    terminal.shows("output paused; Ctrl-T Ctrl-Y resumes it")
    board.say(b"I (1) unseen: text\r\n")
    time.sleep(0.3)
    terminal.press(MENU, "C-y")
    terminal.shows("output resumed; ")
    terminal.press(MENU, "C-v", MENU, "C-v")
    terminal.shows("log lines: *:W")
    board.say(b"I (2) hidden: text\r\nW (3) shown: text\r\n")
    terminal.shows("W (3) shown: text")
    terminal.press(MENU, "C-f")
    terminal.shows("no build here")
    board.say(b"$T0b#e6\r\n")
    terminal.shows("Ctrl-T Ctrl-G starts GDB")
    terminal.press(MENU, "C-g")
    terminal.shows(f"target remote {board.path}")
    terminal.type("quit")  # the terminal is an ordinary one while GDB runs
    terminal.press("Enter")
    terminal.shows("typed quit")
    terminal.shows("GDB has ended")
    board.say(b"after GDB\r\n")
    terminal.shows("after GDB")
    terminal.press(QUIT)
    terminal.ended(0)
    assert "unseen" not in terminal.screen()
    assert "hidden" not in terminal.screen()


def test_a_build_is_flashed_again_from_the_monitor_and_no_output_is_missed(
    terminal: Terminal, tmp_path: Path
) -> None:
    project = Path(__file__).parents[1] / "data/builds/esp-idf"
    log = tmp_path / "serve.txt"
    with log.open("w") as file:
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "espwire",
                "virtual",
                "serve",
                "esp32c3",
                "--rfc2217",
                "--profile",
                "instant",
            ],
            stdout=file,
            stderr=subprocess.STDOUT,
        )
    try:
        wait_for("address", lambda: "rfc2217://" in log.read_text())
        url = next(word for word in log.read_text().split() if word.startswith("rfc2217://"))
        terminal.start("-p", url, "--monitor", str(project), command="flash")
        terminal.shows("ESP-ROM:esp32c3")
        terminal.press(MENU, "C-f")
        terminal.shows("ESP-ROM:esp32c3", 2)
        terminal.press(QUIT)
        terminal.ended(0)
    finally:
        server.terminate()
        server.wait()
    lines = [line for line in terminal.screen().splitlines() if not line.startswith("---")]
    ends = [n for n, line in enumerate(lines) if line.startswith("Done: ")]
    assert len(ends) == 2
    assert all(lines[n + 1].startswith("ESP-ROM:") for n in ends)
