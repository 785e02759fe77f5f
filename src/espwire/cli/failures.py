"""Prints errors: the message, a hint, the error's id, and the last packets if the line or the chip failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from espwire.cli.output import printable
from espwire.errors import (
    ConnectError,
    DeviceError,
    ToolError,
    TransportError,
    Unsupported,
    VerifyError,
)
from espwire.events import Error

if TYPE_CHECKING:
    from espwire.cli.context import Context

BOOT_TEXT_LINES = 12
MAX_MESSAGE = 2000  # characters of an error or a hint
EXIT_BUG = 70


class Bug(ToolError):
    """An exception that the program did not raise on purpose."""

    code = "bug"
    exit_code = EXIT_BUG
    hint = "Run again with --trace and report the output."


ON_THE_LINE = (TransportError, ConnectError, DeviceError, VerifyError, Bug)


def report_failure(context: Context, error: ToolError) -> int:
    """Print an error; the exit code."""
    context.stop_drawing()
    trace_file = _keep_packets(context, error)
    exit_code = context.program.exit_code(error)
    if context.json:
        details = {"trace_file": trace_file} if trace_file else {}
        context.report(error_event(error, details).replace(exit_code=exit_code))
        return exit_code
    output = context.output
    if isinstance(error, ConnectError) and error.boot_text.strip():
        output.error_line("the chip printed:")
        for line in error.boot_text.strip().splitlines()[-BOOT_TEXT_LINES:]:
            output.error_line(f"  | {printable(line)}")
    word = context.program.error_word(error)
    output.error_line(f"{word}: {printable(str(error), MAX_MESSAGE)} [{error.code}]")
    output.error_line(f"hint: {printable(error.hint, MAX_MESSAGE)}")
    if trace_file:
        output.error_line(f"trace: {printable(trace_file)} contains the last packets")
    return exit_code


def report_bug(context: Context, error: Exception) -> int:
    """Report an unexpected exception as a bug; the exit code."""
    if context.options.get("trace"):
        import traceback

        for line in "".join(traceback.format_exception(error)).splitlines():
            context.output.error_line(line)
    text = " ".join(str(error).split())
    return report_failure(context, Bug(f"{type(error).__name__}: {text}; this is a bug in espwire"))


def error_event(error: ToolError, more: dict[str, Any]) -> Error:
    """The last event of a run that fails; ``more`` is added to its details."""
    return Error(
        code=error.code,
        message=str(error),
        hint=error.hint,
        exit_code=error.exit_code,
        details=error.details | more,
    )


def _keep_packets(context: Context, error: ToolError) -> str:
    """Write the last packets to a file; its name, or nothing."""
    packets, context.packets = context.packets, None
    about_packets = isinstance(error, ON_THE_LINE) and not isinstance(error, Unsupported)
    if not packets or context.options.get("no_state") or not about_packets:
        return ""
    from espwire.cli.state import find_state_file
    from espwire.cli.trace import write_failure

    path = write_failure(find_state_file().parent, packets, error)
    return "" if path is None else str(path)
