"""What the monitor needs of the computer: terminal, ELF files and their cache, GDB, flashing again, files for core dumps."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import IO, TYPE_CHECKING, Any

from espwire.cli.output import GONE, Output, is_terminal, lost_output
from espwire.errors import DataError, FileError, UsageError
from espwire.files import write_file
from espwire.symbols.cache import SymbolCache
from espwire.symbols.symbol_set import SymbolSet
from espwire.text import escape
from espwire.transport.url import find_scheme

if TYPE_CHECKING:
    from espwire.cli.context import Context
    from espwire.monitor.core_dump import CoreDump

DIM, PLAIN = "\x1b[2m", "\x1b[0m"
GDBS = ("xtensa-esp-elf-gdb", "xtensa-esp32-elf-gdb", "riscv32-esp-elf-gdb", "gdb-multiarch", "gdb")
NO_SYMBOLS = "addresses are not resolved: name the ELF file of the application with --elf"
RUN = "import sys; sys.path[:] = sys.argv.pop(1).split(chr(10)); from espwire.cli.main import run; run()"


def open_symbols(
    context: Context, paths: Sequence[str], project: str = ""
) -> tuple[SymbolSet | None, str]:
    """The ELF files that were named, or else the newest of the build in ``project`` with a text for the user; None: none.

    :raises FileError: a named file cannot be read
    :raises ElfError: a named file is not an ELF file for a chip
    """
    from espwire.cli.state import find_state_file

    folder = None if context.options.get("no_state") else find_state_file().with_name("symbols")
    cache = SymbolCache(folder)
    if paths:
        return SymbolSet(paths, cache), ""
    if not project:
        return None, ""
    from espwire.image.build_dir import find_elf_files

    try:
        found = find_elf_files(project)
        symbols = SymbolSet(found[:1], cache)
    except DataError:  # not a project, or a file that is being written
        return None, ""
    if not found:
        return None, ""
    more = f", the newest of {len(found)}" if len(found) > 1 else ""
    return symbols, f"addresses are resolved by {found[0]}{more}"


def save_dump(dump: CoreDump) -> str:
    """Write a core dump into the current folder, under a new name; return a text for the user."""
    if not dump.data:
        return f"the core dump is empty: {dump.problem}"
    name = f"coredump-{datetime.now():%Y%m%d-%H%M%S}.bin"
    try:
        if os.path.lexists(name):
            name = f"coredump-{datetime.now():%Y%m%d-%H%M%S-%f}.bin"
        write_file(name, dump.data)
    except (FileError, UsageError) as error:
        return f"the core dump is not saved: {error}"
    state = f"incomplete: {dump.problem}" if dump.problem else "complete"
    return (
        f"core dump saved as {name}, {len(dump.data):,} bytes, {state}; "
        f"`esp-coredump info_corefile -t raw -c {name} ELF` explains it"
    )


def find_gdb_target(port: str) -> str | None:
    """The name under which GDB opens a port; None: it cannot."""
    if port.startswith("socket://"):
        return port.removeprefix("socket://").partition("?")[0]
    return None if find_scheme(port) else port


def run_gdb(program: str | None, port: str, baud: int, symbols: SymbolSet | None) -> str:
    """Run GDB on a port that nothing else uses, until it ends; return a text if that was not possible."""
    target = find_gdb_target(port)
    gdb = program or next((name for name in GDBS if shutil.which(name)), None)
    if gdb is None or target is None:
        return f"none of {', '.join(GDBS)} was found: name one with --gdb"
    files = [] if symbols is None or not symbols.files else [symbols.files[0].path]
    line = [gdb, "-q", "-ex", f"set serial baud {baud}", "-ex", f"target remote {target}", *files]
    try:
        with _ignoring_interrupts():
            subprocess.run(line, check=False)
    except OSError as error:
        return f"{gdb} cannot be started: {error.strerror or error}"
    return ""


def flash_again(line: Sequence[str]) -> int:
    """Run another command line of this program; return its exit code."""
    path = "\n".join(sys.path)
    with _ignoring_interrupts():
        return subprocess.run([sys.executable, "-c", RUN, path, *line], check=False).returncode


@contextmanager
def _ignoring_interrupts() -> Iterator[None]:
    """Ctrl-C is for the program that runs."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class StandardScreen:
    """Prints the chip's output to standard output, and messages of the monitor to standard error.

    A closed pipe ends the monitor without an error; a full disk is an error.
    """

    def __init__(self, *, quiet: bool) -> None:
        self._quiet = quiet
        self._messages = Output()
        self.is_terminal = is_terminal(sys.stdout)
        self._dims = is_terminal(sys.stderr) and not os.environ.get("NO_COLOR")

    def show(self, text: str) -> None:
        """Print the chip's text."""
        self._print(sys.stdout, text)

    def pass_on(self, data: bytes) -> None:
        """Print the chip's bytes unchanged."""
        self._print(getattr(sys.stdout, "buffer", None), data)

    def note(self, text: str, *, mid_line: bool, urgent: bool) -> None:
        """Print a message of the monitor, dim, on a line of its own."""
        if self._quiet and not urgent:
            return
        if mid_line and self.is_terminal:
            self.show("\n")
        for line in text.splitlines():
            shown = escape(line)
            self._messages.error_line(
                f"{DIM}--- {shown}{PLAIN}" if self._dims else f"--- {shown}", styled=True
            )

    def _print(self, stream: IO[Any] | None, text: str | bytes) -> None:
        """:raises BrokenPipeError: the reader is gone
        :raises FileError: standard output cannot be written
        """
        if stream is None:
            return
        try:
            stream.write(text)
            stream.flush()
        except OSError as error:
            if error.errno in GONE:
                raise BrokenPipeError from error
            raise lost_output(error) from error
