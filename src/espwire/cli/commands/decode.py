"""``decode``: explains the crashes in a saved log, and resolves its addresses."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import click

from espwire.cli.options import elf_option
from espwire.cli.output import is_terminal
from espwire.errors import FileError, UsageError
from espwire.files import keep_inputs, naming_errors, open_output

if TYPE_CHECKING:
    from espwire.cli.context import Context

CHUNK = 0x10000
# first bytes of files that are not logs
OTHER_KINDS = (
    (b"\x7fELF", "an ELF file", "Pass the log first: espwire decode LOG --elf FILE."),
    (b"\x1f\x8b", "compressed", "Unpack it: zcat LOG.gz | espwire decode - --elf FILE."),
    (b"\xff\xfe", "UTF-16 text", "Convert it to UTF-8: iconv -f utf-16 -t utf-8 LOG."),
)


@click.command()
@click.argument("log", metavar="LOG")
@elf_option
@click.option(
    "-o", "--output", metavar="FILE", help="Write to this file instead of standard output."
)
@click.pass_obj
def decode(context: Context, /, log: str, elf: tuple[str, ...], output: str | None) -> None:
    """LOG is the output of a chip, saved in any way, or - for standard input. It is printed unchanged, with added
    lines that begin with ---: what a crash means, and function, file and line of each address."""
    from espwire.cli.monitor_session import NO_SYMBOLS, open_symbols
    from espwire.monitor.log_decoder import LogDecoder

    if context.json:
        raise UsageError("decode has no JSON output", hint="Leave out --json.")
    symbols, found = open_symbols(context, elf, ".")
    if output is not None:
        keep_inputs(
            output, [log] if symbols is None else [log, *(file.path for file in symbols.files)]
        )
    if found:
        context.output.error_line(found)
    decoder = LogDecoder(symbols, no_symbols=NO_SYMBOLS)
    with _open_log(log) as read, _open_sink(output) as write:
        data = read(CHUNK)
        _check_kind(data, log)
        while data:
            write(decoder.feed(data))
            data = read(CHUNK)
        write(decoder.finish())
    if symbols is not None:
        symbols.save()
        for file in symbols.files:
            if file.damage:
                context.warn(
                    "elf-debug", f"{file.name}: some debug information was not used: {file.damage}"
                )
        if decoder.only_unresolved:
            names = ", ".join(file.name for file in symbols.files)
            context.warn(
                "elf-other",
                f"none of the addresses in this log is in the code of {names}: is it the application's ELF file?",
            )
    if not decoder.added:
        context.output.error_line("nothing to decode was found")


def _check_kind(data: bytes, name: str) -> None:
    """
    :raises UsageError: code ``not-a-log``
    """
    for start, kind, hint in OTHER_KINDS:
        if data.startswith(start):
            raise UsageError(f"{name} is {kind}, not a log", hint=hint, code="not-a-log")


@contextmanager
def _open_log(name: str) -> Iterator[Callable[[int], bytes]]:
    """
    :raises FileError: it cannot be read
    """
    with ExitStack() as stack:
        with naming_errors("read", name):
            file = None if name == "-" else stack.enter_context(open(name, "rb"))
        if file is None and sys.stdin is None:
            raise FileError(
                "cannot read '-': standard input is closed", hint="Name a file.", code="file-read"
            )
        descriptor = sys.stdin.fileno() if file is None else file.fileno()

        def read(size: int) -> bytes:
            with naming_errors("read", name):
                return os.read(descriptor, size)

        yield read


@contextmanager
def _open_sink(name: str | None) -> Iterator[Callable[[bytes], Any]]:
    """Where the text goes. On a terminal, control characters are shown as escapes.

    :raises FileError: it cannot be written
    """
    from espwire.cli.monitor_session import StandardScreen
    from espwire.monitor.text import Tokenizer

    if name is not None:
        with open_output(name, durable=False) as file:
            yield file.write
        return
    screen = StandardScreen(quiet=False)
    if not is_terminal(sys.stdout):
        yield screen.pass_on
        return
    tokenizer = Tokenizer()
    yield lambda data: screen.show("".join(token.text for token in tokenizer.feed(data)))
    screen.show("".join(token.text for token in tokenizer.finish()))
