"""Command lines that nobody should write, and what must be true of each. Draws from a seed; runs in this process.

Commands and options are taken from the program's own tables, so that a new one is attacked from its first day. A line
names no file outside its folder but devices, missing folders and what cannot be written to.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import re
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import click
from hostile_words import CONTENTS, FILES, FITTING, JUNK, NUMBERS, PORTS, VARIABLES

from espwire.cli import app
from espwire.cli.options import global_options
from espwire.errors import UsageError
from espwire.sizes import parse_number

CODES = {0, 2, 3, 4, 5, 6, 7, 8}
FIRST = re.compile(r"error: .* \[[a-z0-9-]+\]")
STYLE = re.compile(r"\x1b\[[0-9;]*m")
LONGEST_LINE_S, LONGEST_MESSAGE = 20, 4500
LEFT_OUT = ("--help", "--watch")  # the latter waits for boards until Ctrl-C
FLASH = "chip.flash"
FLASH_SIZE = 0x40000
# `monitor` and `virtual serve` end when somebody stops them; `demo` is slow and takes nothing
ENDLESS = {"monitor", "demo"}


@dataclass(frozen=True)
class Line:
    """Words and variables of one run."""

    words: tuple[str, ...]
    environment: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        shown = " ".join(
            word if word.isascii() and word.isprintable() and word else ascii(word)[:80]
            for word in self.words
        )
        return shown + (f"   with {ascii(self.environment)[:200]}" if self.environment else "")


def list_commands() -> dict[tuple[str, ...], click.Command]:
    """Every command by its words, groups' commands too."""
    found: dict[tuple[str, ...], click.Command] = {}

    def walk(above: click.Group, names: tuple[str, ...]) -> None:
        context = click.Context(above)
        for name in above.list_commands(context):
            command = above.get_command(context, name)
            assert command is not None
            found[(*names, name)] = command
            if isinstance(command, click.Group):
                walk(command, (*names, name))

    walk(app.build(), ())
    return found


class Drawer:
    """Draws hostile lines; the same seed gives the same lines."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.rubbish = 0.0  # how likely each word of this line is to be nonsense
        self.commands = list_commands()
        self.names = sorted(self.commands)
        self.globals = [
            p
            for p in global_options()
            if isinstance(p, click.Option) and p.opts[-1] not in LEFT_OUT
        ]

    def draw(self) -> Line:
        """The next line: sometimes rubbish throughout, more often right but for a word or two."""
        rng = self.rng
        self.rubbish = rng.choice([0.02, 0.08, 0.08, 0.2, 0.6])
        name = rng.choice(self.names)
        head = ["-p", self.port()] if rng.random() < 0.8 else []
        for _ in range(rng.choice([0, 0, 0, 0, 1, 2])):
            head += self.option(rng.choice(self.globals))
        shown = list(name)
        if rng.random() < self.rubbish / 4:
            shown[-1] = self.spoil(shown[-1])
        command = self.commands[name]
        options = [
            p for p in command.params if isinstance(p, click.Option) and p.opts[-1] not in LEFT_OUT
        ]
        own = [option for option in options if option.expose_value or rng.random() < 0.1] or options
        tail = [word for p in options if p.required for word in self.option(p)]
        for _ in range(rng.choice([0, 0, 1, 1, 2, 4])):
            tail += self.option(rng.choice(own)) if own else []
        arguments = [
            word
            for p in command.params
            if isinstance(p, click.Argument)
            for word in self.argument(p)
        ]
        words = tail + arguments if rng.random() < 0.7 else arguments + tail
        for _ in range(rng.choice([0, 0, 0, 1, 3]) if rng.random() < self.rubbish * 2 else 0):
            words.insert(rng.randrange(len(words) + 1), self.junk())
        if rng.random() < 0.01:
            words *= 40
        environment = {}
        if rng.random() < 0.12:
            environment = {
                rng.choice(VARIABLES): clean(self.junk()) for _ in range(rng.choice([1, 1, 2]))
            }
        return tame(Line((*head, *shown, *words), environment), name)

    def argument(self, argument: click.Argument) -> list[str]:
        """Words for one argument: what it is called tells what may stand there."""
        rng, told = self.rng, f"{argument.name} {argument.metavar or ''}".lower()
        if rng.random() < self.rubbish / 3:
            return []
        if "address file" in told:
            count = rng.choice([1, 1, 2, 3])
            pairs = [[self.number(), self.file()] for _ in range(count)]
            return [
                word
                for pair in pairs
                for word in (pair if rng.random() < 0.9 else ["=".join(pair)])
            ]
        if any(word in told for word in ("address", "size", "value", "mask", "bytes", "offset")):
            return [self.number()]
        if "chip" in told:
            return [
                self.junk()
                if rng.random() < self.rubbish
                else rng.choice(["esp32c3", "esp8266", "ESP32-S3"])
            ]
        return [self.file() for _ in range(1 if argument.nargs >= 0 else rng.choice([1, 2, 3]))]

    def number(self) -> str:
        if self.rng.random() < self.rubbish:
            return self.junk()
        return self.rng.choice(
            [
                "0",
                "0",
                "0x1000",
                "0x2000",
                "0x8000",
                "0x10000",
                "4096",
                "4k",
                "0x3fc90000",
                "16",
                "ALL",
            ]
        )

    def file(self) -> str:
        if self.rng.random() < self.rubbish:
            return self.junk()
        return self.rng.choice(
            [*FILES[:17], "boot.bin", "boot.bin", "app.bin", "table.bin", "out.bin"]
        )

    def port(self) -> str:
        if self.rng.random() > self.rubbish:
            return f"virtual:esp32c3?size=256KB&flash={FLASH}"
        return self.rng.choice(PORTS)

    def option(self, option: click.Option) -> list[str]:
        rng = self.rng
        spelt = rng.choice([*option.opts, *option.secondary_opts])
        if rng.random() < self.rubbish / 4:
            spelt = self.spoil(spelt)
        if option.is_flag and rng.random() > self.rubbish / 4:
            return [spelt]
        if rng.random() < self.rubbish / 4:
            return [spelt]  # its value is missing
        value = self.junk()
        if rng.random() > self.rubbish:
            value = self.fitting(option)
        return (
            [f"{spelt}={value}"]
            if rng.random() < 0.2
            else [spelt + value]
            if rng.random() < 0.05
            else [spelt, value]
        )

    def fitting(self, option: click.Option) -> str:
        """A value that the option may well take."""
        rng, told = self.rng, option.opts[-1]
        if isinstance(option.type, click.Choice):
            return str(rng.choice(list(option.type.choices)))
        for part, values in FITTING.items():
            if part in told:
                return rng.choice(values)
        return rng.choice(["0", "1", "4", "0x1000", "4MB", "boot.bin", "out.bin", "esp32c3"])

    def junk(self) -> str:
        kind = self.rng.random()
        if kind < 0.4:
            return self.rng.choice(NUMBERS)
        if kind < 0.75:
            return self.rng.choice(FILES)
        if kind < 0.9:
            return self.rng.choice(JUNK)
        if kind < 0.95:
            return self.rng.choice(PORTS)
        signs = [
            chr(self.rng.choice([self.rng.randrange(1, 128), self.rng.randrange(0x11000)]))
            for _ in range(6)
        ]
        return "".join(signs).replace("/", "").replace("~", "")

    def spoil(self, word: str) -> str:
        at = self.rng.randrange(len(word))
        return self.rng.choice(
            [
                word[:at] + word[at + 1 :],
                word[:at] + "x" + word[at:],
                word.upper(),
                word[:at],
                word + "\0",
            ]
        )


def clean(value: str) -> str:
    """What an operating system lets a variable hold."""
    return (
        value.replace("\0", "")
        .encode(
            "utf-8",
            "surrogateescape",
        )
        .decode("utf-8", "surrogateescape")
        if _fits(value)
        else "x"
    )


def _fits(value: str) -> bool:
    try:
        value.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def tame(line: Line, name: tuple[str, ...]) -> Line:
    """The line without what would only take long: reading gigabytes, waiting for a chip that never answers."""
    words = list(line.words)
    environment = {
        key: value
        for key, value in line.environment.items()
        if "ATTEMPTS" not in key or not _is_int(value)
    }
    slow = name[-1] in ENDLESS or (
        name[-1] in ("dump-mem", "read-flash") and any(map(_is_long, words))
    )
    if slow or any(re.match("-+con", word, re.IGNORECASE) for word in words):
        words = [re.sub("virtual:", "virtual:nope", word, flags=re.IGNORECASE) for word in words]
        words = ["-p", "virtual:nope", *words, *(["x"] if name[-1] == "demo" else [])]
        environment = {key: value for key, value in environment.items() if "PORT" not in key}
    return Line(tuple(words), environment)


def _is_int(text: str) -> bool:
    with contextlib.suppress(ValueError):
        int(text)
        return True
    return False


def _is_long(word: str) -> bool:
    with contextlib.suppress(UsageError, ValueError):
        return parse_number(word) > 0x2000
    return False


class Stream(io.TextIOWrapper):
    """Like the program's standard output: text over bytes, and what cannot be said is escaped."""

    def __init__(self) -> None:
        super().__init__(
            io.BytesIO(), "utf-8", errors="backslashreplace", newline="\n", write_through=True
        )

    def getvalue(self) -> str:
        """All that was written."""
        held = self.buffer
        assert isinstance(held, io.BytesIO)
        return held.getvalue().decode("utf-8", "replace")


class TookTooLong(Exception):
    """A line ran on and on."""


@dataclass
class Tally:
    """What became of all lines."""

    codes: Counter[int] = field(default_factory=Counter)
    ids: Counter[str] = field(default_factory=Counter)
    failures: list[tuple[Line, str]] = field(default_factory=list)


class Place:
    """A folder of files that must be untouched after each refused line."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder = folder
        boot = (data / "esp32c3/micropython-head.bin").read_bytes()
        self.contents = {
            **CONTENTS,
            "app.bin": bytes(range(256)) * 20,
            "boot.bin": boot[:0x6000],
            "torn.bin": boot[:9000],
            "table.bin": boot[0x8000:0x8C00],
            "unreadable.bin": b"secret",
            FLASH: (b"held before " * 400).ljust(FLASH_SIZE, b"\xff"),
        }
        for name, content in self.contents.items():
            (folder / name).write_bytes(content)
        (folder / "folder").mkdir()
        (folder / "unreadable.bin").chmod(0)
        self.before = self.look()

    def look(self) -> dict[str, tuple[int, int]]:
        """Names, sizes and times of all there is."""
        found = {}
        for above in (self.folder, self.folder / "folder"):
            with os.scandir(above) as entries:
                for entry in entries:
                    if entry.name != FLASH and entry.is_file(follow_symlinks=False):
                        told = entry.stat()
                        found[os.path.relpath(entry.path, self.folder)] = (
                            told.st_size,
                            told.st_mtime_ns,
                        )
                    elif entry.name != "folder":
                        found[os.path.relpath(entry.path, self.folder)] = (0, 0)
        return found

    def changes(self, *, flash: bool) -> list[str]:
        """The names of what changed."""
        now = self.look()
        changed = sorted(
            name
            for name in now.keys() | self.before.keys()
            if now.get(name) != self.before.get(name)
        )
        if flash and (self.folder / FLASH).read_bytes() != self.contents[FLASH]:
            changed.append(FLASH)
        return changed

    def restore(self, names: list[str]) -> None:
        """As it was."""
        for name in names:
            path = self.folder / name
            if name in self.contents:
                path.write_bytes(self.contents[name])
            elif path.is_dir():
                shutil.rmtree(path)
            else:
                os.unlink(path)
        self.before = self.look()


def run_lines(lines: Iterator[Line], place: Place, run: Callable[[list[str]], int]) -> Tally:
    """Run and judge them all."""
    tally, home = Tally(), Path.cwd()
    os.chdir(place.folder)
    try:
        for line in lines:
            out, err = Stream(), Stream()
            code, ended = _run_one(line, run, out, err)
            changed = place.changes(flash=any(FLASH in word for word in line.words))
            wrong = judge(code, out.getvalue(), err.getvalue(), [] if code == 0 else changed)
            if ended:
                wrong = ended
            if wrong:
                tally.failures.append((line, wrong))
            tally.codes[code] += 1
            tally.ids.update(
                re.findall(r"^error: .*\[([a-z0-9-]+)\]$", err.getvalue(), re.MULTILINE)[:1]
            )
            if changed:
                place.restore(changed)
    finally:
        os.chdir(home)
    return tally


def _run_one(
    line: Line, run: Callable[[list[str]], int], out: Stream, err: Stream
) -> tuple[int, str]:
    def late(*_: object) -> None:
        raise TookTooLong(f"more than {LONGEST_LINE_S} s")

    watched = hasattr(signal, "setitimer")
    before = signal.signal(signal.SIGALRM, late) if watched else None
    try:
        with (
            contextlib.redirect_stdout(out),
            contextlib.redirect_stderr(err),
            patch.dict(os.environ, line.environment),
            patch("sys.stdin", io.TextIOWrapper(io.BytesIO())),
        ):
            if watched:
                signal.setitimer(signal.ITIMER_REAL, LONGEST_LINE_S)
            return run(list(line.words)), ""
    except (Exception, SystemExit) as error:
        return -1, f"{type(error).__name__}: {error}"[:300]
    finally:
        if watched:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)


def judge(code: int, out: str, err: str, changed: list[str]) -> str:
    """What is wrong with an end, or nothing."""
    if code not in CODES:
        return f"exit code {code}: {err[-300:]}"
    if "Traceback" in out + err:
        return "a traceback"
    if changed:
        return f"refused with {code}, but changed {', '.join(changed)}"
    err = STYLE.sub("", err)  # FORCE_COLOR
    errors = [text for text in err.splitlines() if text.startswith("error: ")]
    events = [text for text in out.splitlines() if '"event":"Error"' in text.replace(" ", "")]
    if code == 0:
        return "success with an error" if errors or events else ""
    if events and not errors:
        return (
            ""
            if len(events) == 1 and json.loads(events[0])["hint"]
            else "not one error event with a hint"
        )
    hints = [text for text in err.splitlines() if text.startswith("hint: ")]
    if len(errors) != 1 or not FIRST.fullmatch(errors[0]):
        return f"not one error line: {errors or err[-300:]!r}"
    if len(hints) != 1 or len(hints[0]) < len("hint: ") + 8:
        return f"not one hint: {hints}"
    if not (errors[0] + hints[0]).isprintable():
        return "control characters"
    if len(errors[0]) + len(hints[0]) > LONGEST_MESSAGE:
        return f"a message of {len(errors[0])} characters, a hint of {len(hints[0])}"
    return ""
