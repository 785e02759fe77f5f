"""Runs espwire's commands inside a program: output goes to the logger, failures are raised."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from esptool.logger import log
from esptool.util import translate
from espwire.cli.output import Output
from espwire.events import Event, Note, Progress, Report, Warned
from espwire.text import escape_lines

if TYPE_CHECKING:
    from espwire.device.device import Device


class LogOutput(Output):
    """Standard output and error by way of the logger."""

    def line(self, text: str, *, styled: bool = False) -> None:
        """Print a line."""
        log.print(text if styled else escape_lines(text))

    def error_line(self, text: str, *, styled: bool = False) -> None:
        """Print a line of an error."""
        log.error(text if styled else escape_lines(text))


def report(event: Event) -> None:
    """Pass events of library calls to the logger."""
    from espwire.cli.esptool.output import ESPTOOL

    if isinstance(event, Progress):
        if event.total:
            log.progress_bar(
                event.done, event.total, prefix=ESPTOOL.count(event).partition("... (")[0]
            )
    elif isinstance(event, Warned):
        log.warning(escape_lines(event.text))
    elif isinstance(event, Note):
        log.note(escape_lines(event.text))
    elif text := ESPTOOL.describe(event, False):
        log.print(escape_lines(text))


def without_progress(event: Event) -> None:
    """As ``report``, without progress."""
    if not isinstance(event, Progress):
        report(event)


def reporting(no_progress: object) -> Report:
    """``report``, with or without progress."""
    return without_progress if no_progress else report


def perform(words: Sequence[str], device: Device | None = None, *, leave: bool = False) -> None:
    """Run a command line.

    :param device: a connected device; it stays connected, and its ``report`` is restored
    :param leave: also start a stub, change the baud rate and reset at the end, as the command line says
    :raises FatalError: the command failed
    :raises SystemExit: 2: the command line is invalid
    """
    import click

    from espwire.cli import app, main
    from espwire.cli.context import Context
    from espwire.cli.esptool.program import EXIT_USAGE, build_program
    from espwire.cli.failures import report_failure
    from espwire.errors import ToolError, UsageError

    context = Context(
        build_program("esptool"),
        output=LogOutput(),
        connected=device,
        leave_connected=leave,
    )
    reporting_before = device.report if device is not None else None
    try:
        code = main.perform(words, context)
    except UsageError as error:
        raise SystemExit(report_failure(context, error)) from error
    except ToolError as error:
        raise translate(error) from error
    except click.ClickException as error:
        usage = UsageError(app.describe_error(error), hint=app.find_hint(error))
        raise SystemExit(report_failure(context, usage)) from error
    finally:
        context.stop_drawing()
        if device is not None and reporting_before is not None:
            device.report = reporting_before
    if code or not words:
        raise SystemExit(code or EXIT_USAGE)
