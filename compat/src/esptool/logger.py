"""Where everything is printed: replace it by ``log.set_logger()``, as esptool documents. One for the whole process."""

from __future__ import annotations

import contextlib
import sys
from abc import ABC, abstractmethod
from typing import Any, NoReturn

from espwire.cli.output import STREAM_ERRORS


class TemplateLogger(ABC):
    """What a logger must have."""

    @abstractmethod
    def print(self, *args: Any, **kwargs: Any) -> None:
        """A plain line."""

    @abstractmethod
    def note(self, message: str) -> None:
        """Worth knowing."""

    @abstractmethod
    def warning(self, message: str) -> None:
        """Something is off."""

    @abstractmethod
    def error(self, message: str) -> None:
        """It failed."""

    @abstractmethod
    def stage(self, finish: bool = False) -> None:
        """A stage begins or ends."""

    @abstractmethod
    def progress_bar(
        self,
        cur_iter: int,
        total_iters: int,
        prefix: str = "",
        suffix: str = "",
        bar_length: int = 30,
    ) -> None:
        """``cur_iter`` of ``total_iters`` is done."""

    @abstractmethod
    def set_verbosity(self, verbosity: str) -> None:
        """``auto``, ``verbose``, ``silent`` …"""


class EsptoolLogger(TemplateLogger):
    """Prints lines; hands over to another logger once one is set."""

    def __init__(self) -> None:
        self._other: TemplateLogger | None = None
        self._silent = False

    def set_logger(self, new_logger: TemplateLogger) -> None:
        """From now on everything goes to ``new_logger``."""
        self._other = None if new_logger is self else new_logger

    def print(self, *args: Any, **kwargs: Any) -> None:
        """A line to standard output."""
        if self._other is not None:
            self._other.print(*args, **kwargs)
        elif not self._silent:
            self._print(*args, **kwargs)

    def note(self, *args: Any) -> None:
        """A line to standard output."""
        if self._other is not None:
            self._other.note(_join(args))
        else:
            self.print(_join(args))

    def warning(self, *args: Any, suggestion: str | None = None) -> None:
        """A line to standard error.

        :param suggestion: what to try, on a line of its own
        """
        if self._other is not None:
            self._other.warning(_join(args, suggestion))
        else:
            self._print(f"warning: {_join(args, suggestion)}", file=sys.stderr)

    def error(self, *args: Any, suggestion: str | None = None) -> None:
        """A line to standard error.

        :param suggestion: what to try, on a line of its own
        """
        if self._other is not None:
            self._other.error(_join(args, suggestion))
        else:
            self._print(_join(args, suggestion), file=sys.stderr)

    warn, err = warning, error

    def hint(self, *args: Any) -> None:
        """What to try: a line as ``note`` prints it."""
        self.note(*args)

    def debug(self, *args: Any) -> None:
        """Nothing: there is no such level here."""

    def die(self, *args: Any, exit_code: int = 1, suggestion: str | None = None) -> NoReturn:
        """Print an error and end the program.

        :raises SystemExit: with ``exit_code``
        """
        self.error(*args, suggestion=suggestion)
        raise SystemExit(exit_code)

    def stage(self, finish: bool = False) -> None:
        """Nothing is folded here."""
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
        """A line with the percentage."""
        if self._other is not None:
            self._other.progress_bar(cur_iter, total_iters, prefix, suffix, bar_length)
        else:
            self.print(f"{prefix}... ({cur_iter * 100 // max(total_iters, 1)} %){suffix}")

    def _print(self, *args: Any, **kwargs: Any) -> None:
        """Print; a stream that fails does not stop the work."""
        kwargs["flush"] = False  # the host program's stream may have nothing but ``write``
        with contextlib.suppress(*STREAM_ERRORS):
            print(*args, **kwargs)

    def set_verbosity(self, verbosity: str) -> None:
        """``silent`` keeps warnings and errors only."""
        if self._other is not None:
            self._other.set_verbosity(verbosity)
        self._silent = verbosity == "silent"


def _join(words: tuple[Any, ...], suggestion: str | None = None) -> str:
    text = " ".join(map(str, words))
    return f"{text}\n{suggestion}" if suggestion else text


log = EsptoolLogger()
