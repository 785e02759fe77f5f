"""Runs one line through esptool and through us, each on a virtual chip of its own, and tells how the ends differ."""

from __future__ import annotations

import contextlib
import io
import os
import queue
import re
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

from line_generator import SIZES, Line

from espwire.cli.main import main
from espwire.transport.base import CancelToken
from espwire.virtual.config import parse_options
from espwire.virtual.server import serve

CONNECTION = ["--before", "no-reset", "--after", "no-reset"]
OUTPUTS = ("out.bin",)
ERROR = re.compile(r"^error: (.*) \[([a-z0-9-]+)\]$", re.MULTILINE)
# what a command finds out, where both programs say it in numbers: name → pattern
FACTS = {
    "mac": re.compile(r"^(?:BASE )?MAC:\s+([0-9a-f:]{17,23})\s*$", re.MULTILINE | re.IGNORECASE),
    "word": re.compile(r"^0x[0-9a-f]{8} = (0x[0-9a-f]{8})", re.MULTILINE),
    "maker": re.compile(r"^Manufacturer:\s+([0-9a-f]{2})\b", re.MULTILINE),
    "device": re.compile(r"^Device:\s+([0-9a-f]{4})\b", re.MULTILINE),
    "status": re.compile(r"^(?:Flash memory status|Status):\s+0x0*([0-9a-f]+)", re.MULTILINE),
    "sfdp": re.compile(
        r"^(?:Flash memory )?SFDP[^:]*:\s+((?:(?:0x)?[0-9a-f]{2}\s?)+)$", re.MULTILINE
    ),
}


@dataclass(frozen=True)
class End:
    """How a line ended. ``code`` is ours only: the id of the error."""

    accepted: bool
    flash: bytes = field(repr=False)
    files: dict[str, bytes] = field(repr=False)
    facts: dict[str, str]
    text: str = field(repr=False)
    code: str = ""


@contextlib.contextmanager
def served(line: Line, flash: Path) -> Iterator[str]:
    """The line's virtual chip behind a TCP port, its flash in a file; the port's URL."""
    lines: queue.Queue[str] = queue.Queue()
    token = CancelToken()
    url = f"virtual:{line.chip}?profile=instant&size={line.size}&flash={flash.as_posix()}&{line.options}"
    options = parse_options(url.rstrip("&"))

    def work() -> None:
        try:
            serve(options, tcp=("127.0.0.1", 0), announce=lines.put, stop=token)
        finally:
            lines.put("")

    thread = threading.Thread(target=work)
    thread.start()
    try:
        announced = lines.get(timeout=30)
        assert announced, "the virtual chip could not be served"
        yield announced.removeprefix("listening on ")
    finally:
        token.cancel()
        thread.join(30)


def prepare(line: Line, folder: Path, files: Path) -> Path:
    """A folder with the files, and the flash before."""
    folder.mkdir()
    for path in files.iterdir():
        (folder / path.name).symlink_to(path)
    if line.argfile:
        (folder / "lines.txt").write_text(line.argfile, "utf-8")
    flash = bytearray(b"\xff" * SIZES[line.size])
    for address, name in line.preset:
        data = (files / name).read_bytes()
        flash[address : address + len(data)] = data
    path = folder.parent / f"{folder.name}.flash"
    path.write_bytes(flash)
    return path


def words_of(line: Line, port: str, words: tuple[str, ...]) -> list[str]:
    """The whole command line."""
    chip = ["--chip", line.chip] if line.named else []
    return ["--port", port, *chip, *([] if line.stub else ["--no-stub"]), *CONNECTION, *words]


def finish(
    line: Line, folder: Path, flash: Path, done: list[tuple[int, str]], code: str = ""
) -> End:
    """What is left when the line has run."""
    text = "".join(said for _, said in done)
    facts = {name: _fact(pattern, text) for name, pattern in FACTS.items() if pattern.search(text)}
    if line.words[:1] != ("flash-id",):  # esptool tells it by the way
        facts = {name: fact for name, fact in facts.items() if name not in ("maker", "device")}
    outputs = {name: (folder / name).read_bytes() for name in OUTPUTS if (folder / name).exists()}
    accepted = all(status == 0 for status, _ in done)
    return End(accepted, flash.read_bytes(), outputs, facts if accepted else {}, text, code)


def _fact(pattern: re.Pattern[str], text: str) -> str:
    return " ".join(pattern.findall(text)[-1].lower().replace("0x", "").split())


def run_theirs(esptool: str, line: Line, place: Path, files: Path) -> End:
    """The line through esptool."""
    folder = place / "theirs"
    flash = prepare(line, folder, files)
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith("ESPTOOL_")
    }
    done = []
    with served(line, flash) as port:
        for words in filter(None, (line.words or ("",), line.then)):
            command = [esptool, *words_of(line, port, tuple(filter(None, words)))]
            ran = subprocess.run(
                command,
                capture_output=True,
                text=True,
                timeout=120,
                check=False,
                cwd=folder,
                env=environment | {"COLUMNS": "400"} | dict(line.environment),
            )
            done.append((ran.returncode, ran.stdout + ran.stderr))
    return finish(line, folder, flash, done)


def run_ours(line: Line, place: Path, files: Path, run: Callable[[list[str]], int] = main) -> End:
    """The line through us, in this process."""
    folder = place / "ours"
    flash = prepare(line, folder, files)
    done, before = [], Path.cwd()
    with served(line, flash) as port:
        os.chdir(folder)
        try:
            for words in filter(None, (line.words or ("",), line.then)):
                out = io.StringIO()
                with (
                    patch.dict(os.environ, line.environment),
                    contextlib.redirect_stdout(out),
                    contextlib.redirect_stderr(out),
                ):
                    status = run(words_of(line, port, tuple(filter(None, words))))
                done.append((status, out.getvalue()))
        finally:
            os.chdir(before)
    codes = [found[2] for _, said in done for found in ERROR.finditer(said)]
    return finish(line, folder, flash, done, codes[-1] if codes else "")


def find_differences(theirs: End, ours: End) -> list[str]:
    """What is not the same: verdict, flash, files, facts."""
    found = []
    if theirs.accepted != ours.accepted:
        found.append(
            f"esptool {'accepts' if theirs.accepted else 'refuses'}, we do not agree [{ours.code}]"
        )
    if theirs.flash != ours.flash:
        at = next(
            i for i, (a, b) in enumerate(zip(theirs.flash, ours.flash, strict=True)) if a != b
        )
        found.append(f"flash differs from {at:#x}")
    if ours.accepted and theirs.accepted:
        if theirs.files != ours.files:
            found.append(f"files differ: {sorted(theirs.files)} {sorted(ours.files)}")
        for name in theirs.facts.keys() & ours.facts.keys():
            if theirs.facts[name] != ours.facts[name]:
                found.append(f"{name}: {theirs.facts[name]} is {ours.facts[name]} here")
    elif ours.files and not ours.accepted and not theirs.files:
        found.append("a refused line left a file")
    return found
