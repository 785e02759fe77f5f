"""The entry point: runs a command line and turns every error into a message and an exit code."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Sequence

TYPE_CHECKING = False  # importing typing would double the time of `espwire --version`
if TYPE_CHECKING:
    from espwire.cli.context import Context

STDOUT_NAMES = ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1")
EXIT_PIPE, EXIT_INTERRUPTED, EXIT_NO_MEMORY = 1, 130, 1
# these end a run as Ctrl-C does, so that the port is closed and no unfinished file stays; exit code 128 + number
ENDING_SIGNALS = ("SIGTERM", "SIGHUP", "SIGQUIT", "SIGXCPU", "SIGBREAK")
NO_MEMORY = "out of memory"
GARBAGE_THRESHOLD = 20_000  # objects created since the last search; Python: 700
NO_MEMORY_HINT = "Close other programs, or raise this program's memory limit (ulimit -v)."


def run() -> None:
    """The ``espwire`` program: runs the command line of this process and exits."""
    start(_work)


def _work() -> int:
    if sys.argv[1:] in (["--version"], ["version"]):
        # without click, for speed; see tests/house/test_startup.py
        from espwire._version import __version__

        if print_at_once(f"espwire {__version__}"):
            return 0
    import os

    from espwire.cli import app

    if instruction := os.environ.get(app.COMPLETION_VARIABLE):
        return app.answer_shell(instruction)
    return main(sys.argv[1:])


def print_at_once(text: str) -> bool:
    """Print; False if that fails, which ``main`` then reports."""
    try:
        print(text, flush=True)
    except (OSError, ValueError):
        return False
    return True


def start(work: Callable[[], int], *, interrupted: int = EXIT_INTERRUPTED) -> None:
    """Run ``work`` as this process's program and exit with its code.

    :param interrupted: the exit code if Ctrl-C comes before ``main`` can handle it
    """
    # Ctrl-C outside the block below, for example while the interpreter ends, prints no traceback
    show, sys.unraisablehook = sys.excepthook, _deliver_again
    sys.excepthook = lambda kind, *more: None if kind is KeyboardInterrupt else show(kind, *more)
    # what imports create stays: to look for garbage less often saves 5 ms
    gc.set_threshold(GARBAGE_THRESHOLD)
    try:
        for stream in (sys.stdout, sys.stderr):
            if hasattr(stream, "reconfigure"):
                # a character that the console lacks must not end the work
                stream.reconfigure(errors="backslashreplace")
        _catch_signals()
        sys.exit(work())
    except KeyboardInterrupt:  # before main was ready, or while it reported another failure
        sys.exit(interrupted)
    except MemoryError:  # too little even for main's report
        print(f"error: {NO_MEMORY} [out-of-memory]\nhint: {NO_MEMORY_HINT}", file=sys.stderr)
        sys.exit(EXIT_NO_MEMORY)
    finally:
        if "espwire.cli.output" in sys.modules:
            from espwire.cli.output import discard_unwritten

            discard_unwritten()
        gc.freeze()  # or the interpreter would search all objects for garbage as it exits: 9 ms


def run_board() -> None:
    """The program of one board of several (boards/board.py): its arguments are the port and the command line."""

    def work() -> int:
        from espwire.cli.context import Context

        port, *line = sys.argv[1:]
        return main(line, Context(board=port))

    start(work)


def _catch_signals() -> None:
    import signal

    for name in ENDING_SIGNALS:
        number = getattr(signal, name, None)
        # nohup ignores SIGHUP
        if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _stop)


_raised: list[BaseException] = []  # by signal handlers


def _stop(number: int, frame: object) -> None:
    """Unwind: Ctrl-C by KeyboardInterrupt, the other signals by SystemExit."""
    _raised.append(KeyboardInterrupt() if number == 2 else SystemExit(128 + number))
    raise _raised[-1]


def _deliver_again(dropped: sys.UnraisableHookArgs) -> None:
    """Send a signal again if it arrived in a destructor or callback, where the interpreter drops exceptions."""
    import _thread
    import signal
    import time

    error = dropped.exc_value
    interrupt = isinstance(error, KeyboardInterrupt)
    code = 128 + signal.SIGINT if interrupt else getattr(error, "code", None)
    number = next((each for each in signal.Signals if code == 128 + each), None)
    if number is None:
        sys.__unraisablehook__(dropped)
        return

    def deliver(number: signal.Signals = number, thread: int = _thread.get_ident()) -> None:
        time.sleep(0.01)  # until the main thread has left the destructor
        if sys.platform != "win32":
            signal.pthread_kill(thread, number)  # this also ends a blocking system call
        else:
            _thread.interrupt_main(number)

    _thread.start_new_thread(deliver, ())


def perform(arguments: Sequence[str], context: Context) -> int:
    """Run one command line; the exit code if it succeeds. Raises every error as it is, including click's."""
    import click

    from espwire.cli import app, argfile, options

    context.scan(arguments)  # so that errors of a broken line are printed in the right form
    line = options.spread_filters(argfile.expand(arguments)) or ["--help"]
    context.scan(line)
    context.line = line
    context.output.diverted = any(argument.endswith(STDOUT_NAMES) for argument in line)
    root = app.build(context.program.name, context.program.group)
    try:
        with root.make_context(context.program.name, list(line), obj=context) as click_context:
            root.invoke(click_context)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    context.close()
    return 0


def _find_stop(error: Exception) -> BaseException | None:
    """The signal behind an error: the interpreter, or a failing clean-up, may have replaced its exception."""
    import click

    from espwire.errors import ToolError

    cause: BaseException | None = error
    seen: set[int] = set()  # an error may be its own cause
    while cause is not None and not isinstance(cause, KeyboardInterrupt | SystemExit):
        seen.add(id(cause))
        cause = cause.__cause__ or cause.__context__
        if id(cause) in seen:
            cause = None
    if cause is None and _raised and not isinstance(error, ToolError | click.ClickException):
        return _raised[-1]  # nothing raises this error on purpose
    return cause


def main(arguments: Sequence[str], context: Context | None = None) -> int:
    """Run one command line; the exit code. Prints, but never exits and never raises an ``Exception``.

    :param context: for another program than ``espwire``; see cli/esptool/program.py
    """
    from espwire.cli.context import Context

    context = context or Context()
    try:
        return perform(arguments, context)
    except Exception as error:
        stop = _find_stop(error)
        if stop is None:
            return _report(error, context)
        if isinstance(stop, SystemExit):
            raise stop from None
    except KeyboardInterrupt:
        pass
    finally:
        context.stop_drawing()  # restores the cursor
        context.release_place()
    from espwire.cli.failures import report_failure
    from espwire.errors import Cancelled

    return report_failure(context, Cancelled("stopped by Ctrl-C"))


def _report(error: Exception, context: Context) -> int:
    """Report an error; the exit code."""
    import click

    from espwire.cli import app
    from espwire.cli.failures import report_bug, report_failure
    from espwire.errors import Cancelled, ToolError, UsageError

    if isinstance(error, BrokenPipeError):  # the reader of the monitor's output is gone
        return EXIT_PIPE
    if isinstance(error, MemoryError):
        error.__traceback__ = None  # its frames hold the memory
        error = ToolError(NO_MEMORY, hint=NO_MEMORY_HINT, code="out-of-memory")
    elif isinstance(error, click.ClickException):
        error = UsageError(app.describe_error(error), hint=app.find_hint(error))
    elif isinstance(error, click.Abort):
        error = Cancelled("stopped by Ctrl-C")
    if isinstance(error, ToolError):
        return report_failure(context, error)
    return report_bug(context, error)
