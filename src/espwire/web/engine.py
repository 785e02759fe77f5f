"""Runs command lines inside the web page. `web/worker.mjs` calls this module in Pyodide, in a Web Worker.

The page gets the events of ``--json`` and nothing else, so it has no logic of its own. Python runs in the worker's only
thread. It waits for promises with ``run_sync``, and while it waits the worker receives messages: that is how a job is
cancelled and how the console gets what is typed.
"""

from __future__ import annotations

import json
import os
import shutil
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from espwire.cli.context import Context
from espwire.cli.main import main
from espwire.cli.output import Output
from espwire.cli.program import Program
from espwire.errors import DataError, ToolError, UsageError
from espwire.text import shorten
from espwire.transport.webserial import BrowserCancel, find_browser
from espwire.web.archive import BadArchive, read_archive

if TYPE_CHECKING:
    from typing import TextIO

    from espwire.transport.webserial import Browser


class PageOutput(Output):
    """Passes lines to the page."""

    def __init__(self, browser: Browser) -> None:
        super().__init__()
        self._browser = browser

    def write(self, stream: TextIO | None, text: str) -> None:
        for line in text.splitlines():
            self._browser.emit(line)


def open_context(browser: Browser) -> Context:
    """A context whose output and cancellation are the page's."""
    context = Context(
        Program()._replace(many_boards=False),
        output=PageOutput(browser),
        options={"json": True},
        cancel=BrowserCancel(browser),
    )
    context.use_files = False
    return context


def run(arguments: list[str]) -> int:
    """Run one command line of espwire; the exit code. Its events are JSON lines for the page."""
    browser = find_browser()
    return main(list(arguments), open_context(browser))


def watch(port: str, baud: int, reset: bool, chip: str) -> int:
    """Show the chip's output in the page until the job is cancelled; the exit code."""
    from espwire.cli.failures import report_failure
    from espwire.errors import Cancelled

    context = open_context(find_browser())
    context.options["port"] = port
    try:
        watch_port(context, find_browser(), port, baud=baud, reset=reset, chip=chip)
    except Cancelled:
        pass
    except ToolError as error:
        return report_failure(context, error)
    return 0


def watch_port(
    context: Context, browser: Browser, port: str, *, baud: int, reset: bool, chip: str
) -> None:
    """As ``watch``.

    :raises Cancelled: the user stopped it
    :raises TransportError: the port cannot be opened
    """
    from espwire.chips.registry import load_chip
    from espwire.monitor.console import FILE, Console
    from espwire.monitor.loop import Monitor, MonitorOptions
    from espwire.transport.ports import NamedPort, Port
    from espwire.transport.url import find_scheme, in_real_time
    from espwire.transport.webserial_port import WebSerialPort

    virtual = find_scheme(port) == "virtual"
    source: Port = NamedPort(in_real_time(port)) if virtual else WebSerialPort(port)
    console = Console(PageScreen(browser), passes=FILE, chip=load_chip(chip) if chip else None)
    Monitor(
        source,
        console,
        keyboard=PageKeyboard(browser),
        options=MonitorOptions(baud=baud, reset=reset, shows_keys=False),
        cancel=context.cancel,
        pause=context.cancel.sleep,
    ).run()


class PageScreen:
    """Sends the chip's text and the monitor's notes to the page."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser

    def show(self, text: str) -> None:
        """Text of the chip; control characters are escaped already."""
        self._send("Output", text)

    def pass_on(self, data: bytes) -> None:
        """Bytes of the chip, if the console is raw."""
        self._send("Output", data.decode("utf-8", "replace"))

    def note(self, text: str, *, mid_line: bool, urgent: bool) -> None:
        """A line of the monitor."""
        self._send("ConsoleNote", text)

    def _send(self, event: str, text: str) -> None:
        self._browser.emit(json.dumps({"event": event, "text": text}))


class PageKeyboard:
    """What was typed in the page."""

    def __init__(self, browser: Browser) -> None:
        self._browser = browser

    def read(self) -> bytes | None:
        """The bytes typed since the last call."""
        return self._browser.typed().encode()


def store(folder: str, name: str, data: bytes, unpack: bool = True) -> str:
    """Write a file below ``folder``; the path. A zip archive is unpacked there if ``unpack``.

    :raises ToolError: the name or the archive cannot be used
    """
    path = _join(folder, name)
    if unpack and name.lower().endswith(".zip"):
        return _unpack(path, data, name)
    _write(path, data, name)
    return str(path)


def clear(folder: str) -> None:
    """Remove what ``store`` wrote."""
    shutil.rmtree(folder, ignore_errors=True)


def try_store(folder: str, name: str, data: bytes, unpack: bool) -> str:
    """As ``store``; an error becomes an event for the page, and the result is empty."""
    from espwire.cli.failures import report_failure

    try:
        return store(folder, name, data, unpack)
    except ToolError as error:
        report_failure(open_context(find_browser()), error)
        return ""


def _join(folder: str, name: str) -> Path:
    """The path of ``name`` inside ``folder``.

    :raises UsageError: code ``file-name``
    """
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", os.curdir)]
    if not parts or os.pardir in parts or any("\0" in part for part in parts):
        raise _bad_name(name)
    return Path(folder, *parts)


def _write(path: Path, data: bytes, name: str) -> None:
    """
    :raises UsageError: code ``file-name``: the name is too long, or that of a folder
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except (OSError, UnicodeError):
        raise _bad_name(name) from None


def _bad_name(name: str) -> UsageError:
    return UsageError(
        f"{shorten(name)!r} cannot be used as a file name",
        hint="Rename the file, then drop it again.",
        code="file-name",
    )


def _unpack(path: Path, data: bytes, name: str) -> str:
    """Unpack an archive into a folder of its name; the folder, or the only folder in it."""
    target = path.with_suffix("")
    try:
        content = read_archive(BytesIO(data))
    except BadArchive as error:
        raise DataError(
            f"{name} cannot be unpacked: {error}",
            hint="Unpack it on your computer, then drop the folder.",
            code="archive",
        ) from None
    for inside, part in content.items():
        _write(_join(str(target), inside), part, inside)
    found = sorted(target.iterdir()) if target.is_dir() else []
    return str(found[0] if len(found) == 1 and found[0].is_dir() else target)
