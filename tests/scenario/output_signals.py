"""Runs command lines in processes that get a signal at a given moment. No tests here.

A program of its own, so that the many processes are forked from one that has loaded everything and has no threads.
Reads one JSON object per line: ``words``, ``signal`` (0: none), ``delay`` in seconds, ``breaks`` (see ``BREAKS``);
answers with one: ``status`` as ``waitstatus_to_exitcode`` has it, ``seconds``, ``said``.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sys
import tempfile
import time
from typing import Any, NoReturn

LIMIT_S = 20.0


def write_in_place() -> None:
    """What the tests must notice: the output is written under its final name, slowly, and is never removed."""
    import espwire.files as files
    import espwire.virtual.flash_file as flash_file

    def in_place(target: object) -> contextlib.nullcontext[str]:
        return contextlib.nullcontext(os.fspath(target))  # type: ignore[arg-type]

    create = files._create

    def create_slowly(place: str, *, private: bool) -> object:
        file = create(place, private=private)
        time.sleep(0.2)
        return file

    files.unfinished = flash_file.unfinished = in_place  # type: ignore[assignment]
    files._create = create_slowly  # type: ignore[assignment]


def lose_signals() -> None:
    """What the tests must notice: the process ends at once, without unwinding."""
    import espwire.cli.main as main
    import espwire.files as files

    finish = files._finish

    def finish_slowly(*arguments: Any, **keywords: Any) -> None:
        time.sleep(0.2)
        finish(*arguments, **keywords)

    main._catch_signals = lambda: None
    files._finish = finish_slowly


BREAKS = {"": lambda: None, "write-in-place": write_in_place, "lose-signals": lose_signals}


def run_child(words: list[str], breaks: str, output: int) -> NoReturn:
    os.dup2(output, 1)
    os.dup2(output, 2)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    from espwire.cli.main import main, start

    BREAKS[breaks]()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    start(lambda: main(words))
    raise AssertionError("start() exits")


def run(order: dict[str, Any]) -> dict[str, Any]:
    """Fork, wait, send the signal, collect."""
    with tempfile.TemporaryFile() as output:
        began = time.monotonic()
        child = os.fork()
        if not child:
            run_child(order["words"], order["breaks"], output.fileno())
        time.sleep(order["delay"])
        # nobody has waited for it yet, so the number is still that of this child
        if order["signal"]:
            os.kill(child, order["signal"])
        while not (ended := os.waitpid(child, os.WNOHANG))[0]:
            if time.monotonic() - began > LIMIT_S:
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                return {"status": None, "seconds": LIMIT_S, "said": "it did not end"}
            time.sleep(0.001)
        seconds = time.monotonic() - began
        output.seek(0)
        said = output.read().decode("utf-8", "replace")
    return {"status": os.waitstatus_to_exitcode(ended[1]), "seconds": seconds, "said": said}


def serve() -> None:
    for line in sys.stdin:
        print(json.dumps(run(json.loads(line))), flush=True)


if __name__ == "__main__":
    from espwire.cli import app, context  # noqa: F401  loaded once, for all children

    signal.signal(signal.SIGINT, signal.SIG_DFL)  # a child that has not begun ends silently
    serve()
