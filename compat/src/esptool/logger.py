"""The process-wide logger, which prints everything. Replace it with ``log.set_logger()``, as esptool documents."""

from __future__ import annotations

import contextlib
import sys
from abc import ABC, abstractmethod
from typing import Any, NoReturn

from espwire.cli.output import STREAM_ERRORS


class TemplateLogger(ABC):
    """The interface of a logger."""

    @abstractmethod
    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print a line."""

    @abstractmethod
    def note(self, message: str) -> None:
        """Print a note."""

    @abstractmethod
    def warning(self, message: str) -> None:
        """Print a warning."""

    @abstractmethod
    def error(self, message: str) -> None:
        """Print an error."""

    @abstractmethod
    def stage(self, finish: bool = False) -> None:
        """Start or end a stage."""

    @abstractmethod
    def progress_bar(
        self,
        cur_iter: int,
        total_iters: int,
        prefix: str = "",
        suffix: str = "",
        bar_length: int = 30,
    ) -> None:
        """Show progress: ``cur_iter`` of ``total_iters``."""

    @abstractmethod
    def set_verbosity(self, verbosity: str) -> None:
        """``auto``, ``verbose``, ``silent`` …"""


class EsptoolLogger(TemplateLogger):
    """Prints lines, or passes them to another logger."""

    def __init__(self) -> None:
        self._other: TemplateLogger | None = None
        self._silent = False

    def set_logger(self, new_logger: TemplateLogger) -> None:
        """Pass everything to ``new_logger``."""
        self._other = None if new_logger is self else new_logger

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Print a line on standard output."""
        if self._other is not None:
            self._other.print(*args, **kwargs)
        elif not self._silent:
            self._print(*args, **kwargs)

    def note(self, *args: Any) -> None:
        """Print a line on standard output."""
        if self._other is not None:
            self._other.note(_join(args))
        else:
            self.print(_join(args))

    def warning(self, *args: Any, suggestion: str | None = None) -> None:
        """Print a line on standard error.

        :param suggestion: a hint, printed on a second line
        """
        if self._other is not None:
            self._other.warning(_join(args, suggestion))
        else:
            self._print(f"warning: {_join(args, suggestion)}", file=sys.stderr)

    def error(self, *args: Any, suggestion: str | None = None) -> None:
        """Print a line on standard error.

        :param suggestion: a hint, printed on a second line
        """
        if self._other is not None:
            self._other.error(_join(args, suggestion))
        else:
            self._print(_join(args, suggestion), file=sys.stderr)

    warn, err = warning, error

    def hint(self, *args: Any) -> None:
        """Print a hint, as ``note`` does."""
        self.note(*args)

    def debug(self, *args: Any) -> None:
        """No effect: debug messages do not exist here."""

    def die(self, *args: Any, exit_code: int = 1, suggestion: str | None = None) -> NoReturn:
        """Print an error and end the program.

        :raises SystemExit: with ``exit_code``
        """
        self.error(*args, suggestion=suggestion)
        raise SystemExit(exit_code)

    def stage(self, finish: bool = False) -> None:
        """No effect here: stages are not collapsed."""
        if self._other is not None:
            self._other.stage(finish)

    def progress_bar(
        self,
        cur_iter: int,
        total_iters: int,
        prefix: str = "",
        suffix: str = "",
        bar_length: int = 30,
    ) -> None:
        """Print a line with the percentage."""
        if self._other is not None:
            self._other.progress_bar(cur_iter, total_iters, prefix, suffix, bar_length)
        else:
            self.print(f"{prefix}... ({cur_iter * 100 // max(total_iters, 1)} %){suffix}")

    def _print(self, *args: Any, **kwargs: Any) -> None:
        """Print; a failing stream does not stop the operation."""
        kwargs["flush"] = False  # the stream may have no method but ``write``
        with contextlib.suppress(*STREAM_ERRORS):
            print(*args, **kwargs)

    def set_verbosity(self, verbosity: str) -> None:
        """``silent`` suppresses everything but warnings and errors."""
        if self._other is not None:
            self._other.set_verbosity(verbosity)
        self._silent = verbosity == "silent"


def _join(words: tuple[Any, ...], suggestion: str | None = None) -> str:
    text = " ".join(map(str, words))
    return f"{text}\n{suggestion}" if suggestion else text


log = EsptoolLogger()
