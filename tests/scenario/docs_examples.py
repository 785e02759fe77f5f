"""Extracts example commands from Markdown pages and runs them on virtual chips, in process.

CONTRIBUTING.md ("examples in the docs") explains how pages mark their blocks.
"""

from __future__ import annotations

import itertools
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from unittest.mock import patch

import click

from espwire.device import loader
from espwire.device.backends import stub

ROOT = Path(__file__).resolve().parents[2]
SHELL = ("sh", "console")
PROGRAMS = ("espwire", "esptool.py")
COMMENT = re.compile(r"<!--\s*(not run|exit|virtual|file):?\s*(.*?)\s*-->")
FENCE = re.compile(r"(?P<indent> *)```(?P<tag>[\w-]*)\s*$")
HIDDEN = re.compile(rf"(    |\t)(\$ )?({'|'.join(map(re.escape, PROGRAMS))}|esptool) ")
PORT = re.compile(r"/dev/(tty|cu)[\w.-]+|COM\d+|PORT|(socket|rfc2217|espwire)://\S+")
DEFAULT_CHIP = "esp32c3"
ENDLESS = (
    ("monitor",),
    ("virtual", "serve"),
    ("serve-port",),
)  # parsed only: they wait for keys and clients


class BadPage(Exception):
    """A page breaks the rules, or one of its commands fails."""


@dataclass
class Block:
    """One fenced block with the settings from the comments above it."""

    page: str
    line: int
    text: str
    console: bool
    reason: str | None = None  # why it is not run
    code: int = 0
    chip: str = DEFAULT_CHIP
    files: dict[str, str] = field(default_factory=dict)

    @property
    def place(self) -> str:
        return f"{self.page}:{self.line}"

    def commands(self) -> Iterator[list[str]]:
        """The arguments of each command."""
        lines = self.text.replace("\\\n", " ").splitlines()
        if self.console:  # the other lines are output
            lines = [line[2:] for line in lines if line.startswith("$ ")]
        for line in lines:
            arguments = shlex.split(line, comments=True)
            if arguments:
                yield arguments


def find_blocks(text: str, page: str) -> list[Block]:
    """The shell blocks of a page, in order.

    :raises BadPage: a command is outside of the blocks that are run, or a comment is not above a block
    """
    blocks: list[Block] = []
    lines = text.splitlines()
    marks: list[tuple[str, str]] = []
    at = 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if mark := COMMENT.fullmatch(line.strip()):
            marks.append((mark[1], mark[2]))
        elif fence := FENCE.fullmatch(line):
            start, indent = at, len(fence["indent"])
            while at < len(lines) and lines[at].strip() != "```":
                at += 1
            body = "\n".join(one[indent:] for one in lines[start:at]) + "\n"
            at += 1
            if fence["tag"] in SHELL:
                blocks.append(_block(Block(page, start, body, fence["tag"] == "console"), marks))
            elif marks or any(
                one.split()[:1] and one.split()[0] in PROGRAMS for one in body.splitlines()
            ):
                raise BadPage(f"{page}:{start}: commands must be in a block tagged sh or console")
            marks = []
        elif HIDDEN.match(line):
            raise BadPage(
                f"{page}:{at}: an indented command is not run: use a fenced block tagged sh or console"
            )
        elif marks and line.strip():
            raise BadPage(f"{page}:{at}: the comment above is not followed by a block")
    return blocks


def _block(block: Block, marks: list[tuple[str, str]]) -> Block:
    for name, value in marks:
        if name == "not run":
            block.reason = value
            if not value:
                raise BadPage(f"{block.place}: `not run` needs a reason")
        elif name == "exit":
            block.code = int(value)
        elif name == "virtual":
            block.chip = value
        else:
            file, _, source = value.partition("=")
            block.files[file] = source
    return block


class Runner:
    """Runs blocks in an empty folder; the caller sets the current folder and the environment."""

    def __init__(
        self,
        folder: Path,
        set_variable: Callable[[str, str], None],
        parse_only: Callable[[list[str]], int],
    ) -> None:
        self.folder, self.set_variable, self.parse_only = folder, set_variable, parse_only
        self.ran = 0

    def run(self, block: Block) -> None:
        """Run every command of the block in order, on one flash.

        :raises BadPage: a command is not one of ours, or has another exit code
        """
        chip, _, more = block.chip.partition("?")
        port = f"virtual:{chip}?flash=the.flash&profile=instant{'&' + more if more else ''}"
        self.set_variable("ESPWIRE_PORT", port)
        commands = list(block.commands())
        self._prepare(block, commands)
        for arguments in commands:
            shown = shlex.join(arguments)
            while arguments and re.fullmatch(r"[A-Z_]+=.*", arguments[0]):
                self.set_variable(*arguments.pop(0).split("=", 1))
            if not arguments or arguments[0] == "export":
                for word in arguments[1:]:
                    self.set_variable(*word.split("=", 1))
                continue
            code = self._command(arguments, port, shown, block)
            expected = block.code if arguments is commands[-1] else 0
            if code != expected:
                raise BadPage(f"{block.place}: `{shown}` ends with {code}, not {expected}")

    def _command(self, command: list[str], port: str, shown: str, block: Block) -> int:
        program, *arguments = command
        if program not in PROGRAMS:
            raise BadPage(
                f"{block.place}: `{shown}` is not one of our programs: mark the block as not run"
            )
        if "|" in arguments:
            raise BadPage(f"{block.place}: `{shown}` has a pipe: mark the block as not run")
        if ">" in arguments:
            del arguments[arguments.index(">") :]
        arguments = [_with_port(word, port) for word in arguments]
        self.ran += 1
        plain = [word for word in arguments if not word.startswith("-") and word != port]
        if any(
            tuple(plain[at : at + len(name)]) == name
            for name in ENDLESS
            for at in range(len(plain))
        ):
            return self.parse_only(arguments)
        # in a process of its own, a command begins with these numbers; escapes of other ones change the printed times
        with (
            patch.object(loader, "_TOKENS", itertools.count(0x5A0001)),
            patch.object(stub, "_TOKENS", itertools.count(0x5A0001)),
        ):
            return find_main(program)(arguments)

    def _prepare(self, block: Block, commands: list[list[str]]) -> None:
        """Create the files that the commands name: those of the comments, and firmware for all others."""
        chip = block.chip.partition("?")[0]
        for name, source in block.files.items():
            (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (self.folder / name).write_bytes((ROOT / source).read_bytes())
        for word in (word for arguments in commands for word in arguments):
            name = word.partition("=")[2] or word
            path = self.folder / name
            if (
                Path(name).suffix in (".bin", ".hex")
                and "/" not in name
                and not path.exists()
                and ":" not in name
            ):
                path.write_bytes(_hex() if path.suffix == ".hex" else firmware(chip))


def _hex() -> bytes:
    return b":020000040001F9\n:0400100001020304E2\n:00000001FF\n"


def firmware(chip: str) -> bytes:
    """Real firmware for a chip."""
    real = {
        "esp8266": "tests/data/esp8266/boot_v1.7.bin",
        "esp32": "tests/data/esp32/esp32-bootloader.bin",
        "esp32c5": "tests/data/esp32c5/marauder_c5_bootloader.bin",
    }
    return (ROOT / real.get(chip, "src/espwire/demo/esp32c3-hello.bin")).read_bytes()


def _with_port(word: str, port: str) -> str:
    head, equals, value = word.partition("=")
    if equals and head in ("-p", "--port"):
        return f"{head}={_with_port(value, port)}"
    return port if PORT.fullmatch(word) else word


def find_main(program: str) -> Callable[[list[str]], int]:
    """The function behind a program's name."""
    from espwire.cli import main
    from espwire.cli.esptool import program as esptool

    return main.main if program == "espwire" else esptool.main


def parse_only(arguments: list[str]) -> int:
    """Parse a command line without running its command; return the exit code."""
    from espwire.cli.main import main

    real = click.Command.invoke
    click.Command.invoke = lambda command, context: None  # type: ignore[assignment, method-assign]
    try:
        return main(arguments)
    finally:
        click.Command.invoke = real  # type: ignore[method-assign]
