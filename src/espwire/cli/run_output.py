"""The output of a run: its events, warnings and results, and questions to the user."""

from __future__ import annotations

import sys
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from espwire._version import __version__
from espwire.cli.output import Output, is_terminal
from espwire.cli.program import Program
from espwire.cli.run_settings import RunSettings
from espwire.text import hide_token

if TYPE_CHECKING:
    from espwire.cli.render import Renderer
    from espwire.events import Report
    from espwire.progress import Continued


class RunOutput(RunSettings):
    """Reports what happens in a run, as its settings demand.

    :param options: as for ``RunSettings``
    """

    def __init__(
        self,
        program: Program | None = None,
        output: Output | None = None,
        options: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(options)
        self.program, self.output = program or Program(), output or Output()
        self.progress = True
        self.ending = ""  # a sentence on how the board was left, until it is printed
        self.stable_baud: int | None = None  # of the last transfer
        self._renderer: Renderer | None = None
        self._continued: Continued | None = None

    def get(self, name: str) -> Any:
        """As ``find``; reports problems of the settings files when first called.

        :raises UsageError: a file or a variable has an invalid value
        """
        value = self.find(name)
        loaded, self._loaded = self._loaded, None
        if loaded is not None:
            for path in loaded.files if self.verbose else ():
                self.note(f"read settings from {path}")
            for code, text in loaded.warnings:
                self.warn(code, text)
        return value

    @property
    def chip(self) -> str | None:
        """Id of the expected chip."""
        chip: str | None = self.get("chip")
        return chip

    @cached_property
    def report(self) -> Report:
        """Receives events and has them drawn."""
        from espwire.cli.render import open_renderer
        from espwire.events import Reporter, Thinned
        from espwire.progress import Continued

        self._renderer = open_renderer(
            self.output,
            as_json=self.json,
            quiet=self.quiet,
            verbose=self.verbose,
            progress=self.progress,
            wording=self.program.wording,
        )
        port = self.options.get("port")
        if port is None and "values" in vars(self) and "port" in self.values:
            port = self.values["port"].value
        self._continued = Continued(self._renderer)
        stamped = Reporter(sink=self._continued, device=hide_token(port or ""))
        return Thinned(stamped, progress=self.progress) if self.json else stamped

    def note(self, text: str) -> None:
        """Report a note."""
        from espwire.events import Note

        self.report(Note(text=text))

    def warn(self, code: str, text: str) -> None:
        """Report a warning."""
        from espwire.events import Warned

        self.report(Warned(code=code, text=text))

    def result(self, command: str, text: str, data: dict[str, Any]) -> None:
        """Report the result of a command: text for people, data for programs."""
        from espwire.events import Result

        self.report(Result(command=command, text=text, data=data))

    def finish(self, command: str, text: str, data: dict[str, Any]) -> None:
        """Report the result of a command together with how the board was left."""
        ending, self.ending = self.ending, ""
        rate = f"Stable at {self.stable_baud} baud." if self.stable_baud is not None else ""
        data = data | {"baud": self.stable_baud} if self.stable_baud is not None else data
        self.result(command, " ".join(filter(None, (text, rate, ending))), data)

    def ask(self, question: str) -> bool:
        """Whether the user answers yes to a question, which is put only on a terminal."""
        if self.json or self.quiet or not (is_terminal(sys.stdin) and is_terminal(sys.stdout)):
            return False
        self.stop_drawing()
        self.output.write(sys.stdout, f"{question} [y/N] ")
        with suppress(OSError, ValueError):
            return sys.stdin.readline().strip().lower() in ("y", "yes")
        return False

    def report_version(self) -> None:
        """Report the version, as the program's name demands."""
        self.result("version", self.program.version_text, {"version": __version__})

    def close(self) -> None:
        """Print how the board was left, if that is not printed yet, and end the drawing.

        :raises FileError: standard output is incomplete
        """
        ending, self.ending = self.ending, ""
        if ending and not self.json:
            self.note(ending)
        self.stop_drawing()
        self.output.finish()

    def stop_drawing(self) -> None:
        """Remove the progress bar, if there is one."""
        if self._renderer is not None:
            self._renderer.close()

    def restart_progress(self) -> None:
        """What follows is done again after an interruption; its progress continues."""
        if self._continued is not None:
            self._continued.restart()
