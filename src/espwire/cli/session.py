"""What one run of the program knows: global options, where output goes, the device. Every command is handed it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from espwire.cli.output import Output
from espwire.errors import ConnectError, ToolError, UsageError

if TYPE_CHECKING:
    from espwire.cli.render import Renderer
    from espwire.device.device import Device
    from espwire.events import Report
    from espwire.settings import Settings

DEFAULT_BAUD = 115200
BOOT_TEXT_LINES = 12
EXIT_BUG = 70


@dataclass
class Session:
    """Global options under the names of cli/options.py, filled while the command line is parsed."""

    chip: str | None = None
    port: str | None = None
    baud: int = DEFAULT_BAUD
    before: str = "default-reset"
    after: str = "hard-reset"
    no_stub: bool = False
    connect_attempts: int | None = None
    trace: bool = False
    verbose: bool = False
    quiet: bool = False
    json: bool = False
    progress: bool = True
    output: Output = field(default_factory=Output)
    _renderer: Renderer | None = None
    _report: Report | None = None

    def guess(self, words: Sequence[str]) -> None:
        """How to answer a command line that is too broken to be parsed."""
        self.json = self.json or "--json" in words
        self.trace = self.trace or not {"-t", "--trace"}.isdisjoint(words)

    @property
    def report(self) -> Report:
        """Takes events, stamps them and has them drawn."""
        from espwire.cli.render import Thinned, open_renderer
        from espwire.events import Reporter

        if self._report is None:
            self._renderer = open_renderer(
                self.output, as_json=self.json, quiet=self.quiet, verbose=self.verbose, progress=self.progress
            )
            stamped = Reporter(sink=self._renderer, device=self.port or "")
            self._report = Thinned(stamped, progress=self.progress) if self.json else stamped
        return self._report

    def result(self, command: str, text: str, data: dict[str, Any]) -> None:
        """Report what a command found out."""
        from espwire.events import Result

        self.report(Result(command=command, text=text, data=data))

    def settings(self) -> Settings:
        """The library's settings as the options want them."""
        from espwire.settings import Settings

        if self.connect_attempts is None:
            return Settings()
        return Settings(connect_attempts=self.connect_attempts if self.connect_attempts > 0 else sys.maxsize)

    @contextmanager
    def device(self) -> Iterator[Device]:
        """The connected chip; at the end it is reset as ``--after`` says, and the port closed in any case.

        :raises UsageError: no port is named
        :raises ToolError: it cannot be reached
        """
        from espwire.device.connect import connect

        if self.port is None:
            raise UsageError("no port is named", hint=_port_hint(), code="no-port")
        with connect(
            self.port,
            chip=self.chip,
            baud=self.baud,
            before=self.before,  # type: ignore[arg-type]  # one of BEFORE: click has checked
            settings=self.settings(),
            report=self.report,
            trace=self._tracer(),
        ) as device:
            yield device
            device.leave(self.after)  # type: ignore[arg-type]

    def _tracer(self) -> Callable[..., None] | None:
        if not self.trace:
            return None
        from espwire.cli.trace import Tracer

        return Tracer(self.output)

    def close(self) -> None:
        """The work is done: end the drawing.

        :raises FileError: standard output took not all of it
        """
        self.stop_drawing()
        self.output.finish()

    def stop_drawing(self) -> None:
        """Take a bar away, if there is one."""
        if self._renderer is not None:
            self._renderer.close()

    def mute(self) -> None:
        """Nobody reads any more."""
        self.output.mute()

    def fail(self, error: ToolError) -> int:
        """Tell a deliberate failure: what, what to try, its id. The exit code to end with."""
        self.stop_drawing()
        if self.json:
            from espwire.cli.render import dump

            self.output.line(dump(error_event(error)))
            return error.exit_code
        if isinstance(error, ConnectError) and error.boot_text.strip():
            self.output.error_line("the chip said:")
            for line in error.boot_text.strip().splitlines()[-BOOT_TEXT_LINES:]:
                self.output.error_line(f"  | {_printable(line)}")
        self.output.error_line(f"error: {_printable(str(error))} [{error.code}]")
        self.output.error_line(f"hint: {_printable(error.hint)}")
        return error.exit_code

    def fail_with_bug(self, error: Exception) -> int:
        """Tell a failure that nobody thought of."""
        if self.trace:
            import traceback

            for line in "".join(traceback.format_exception(error)).splitlines():
                self.output.error_line(line)
        text = " ".join(str(error).split())
        self.fail(Bug(f"{type(error).__name__}: {text}; this is a bug in espwire"))
        return EXIT_BUG


class Bug(ToolError):
    """An exception that no part of the program meant to raise."""

    code = "bug"
    exit_code = EXIT_BUG
    hint = "Run again with --trace, and report what it prints."


def error_event(error: ToolError) -> dict[str, Any]:
    """The JSON form of an error."""
    from espwire.events import SCHEMA_VERSION

    return {
        "v": SCHEMA_VERSION,
        "event": "Error",
        "code": error.code,
        "message": str(error),
        "hint": error.hint,
        "exit_code": error.exit_code,
        "details": error.details,
    }


def _printable(text: str) -> str:
    """No control characters: what a chip, a file name or an argument holds must not drive the terminal."""
    return "".join(sign if sign.isprintable() else " " if sign.isspace() else "�" for sign in text)


def _port_hint() -> str:
    from serial.tools import list_ports

    found = [f"{port.device} ({port.description})" for port in list_ports.comports()]
    ports = f"Ports here: {', '.join(sorted(found))}." if found else "There is no serial port here."
    return f"Name it with --port. {ports} Without a board, try --port virtual:esp32c3."
