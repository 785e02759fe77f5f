"""Record a terminal session on a virtual chip as docs/terminal.svg, the picture in README.md.

    python tools/terminal_picture.py        write it

The commands in ``SESSION`` are really run, one after the other, on one virtual flash. The picture ends while the last
one writes, so that its progress bar is visible. The result is reproducible: the virtual chip runs in simulated time, and
the clock of the progress bar advances as the plan estimates.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import shlex
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import make_build_trees
import rich.console
import rich.progress
from rich.text import Text
from transcripts import clean_place

from espwire.chips.registry import load_chip
from espwire.cli.main import main as run_espwire
from espwire.events import Event, PlanReady, Progress, Reporter
from espwire.image.codec import build, create_image
from espwire.image.header import HeaderSettings
from espwire.image.model import Segment

PICTURE = Path(__file__).resolve().parent.parent / "docs/terminal.svg"
CHIP, COLUMNS, SHOWN_PROGRESS = "esp32c3", 106, 0.6
PREPARE = "flash build"
SESSION = (
    "export ESPWIRE_PORT='virtual:esp32c3?flash=board.flash'",
    "espwire image map",
    "espwire -b 921600 write-flash app1=sensor-2.1.bin",
)
FONT_FACES = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)  # a README cannot load fonts


class Snapshot(BaseException):
    """Ends a command at the moment that the picture shows."""


class Terminal(io.StringIO):
    """Standard output that pretends to be a terminal."""

    def isatty(self) -> bool:
        return True

    def lines(self) -> list[str]:
        """Completed lines; an updated line counts as its last version."""
        return [line.rpartition("\r")[2] for line in self.getvalue().split("\n")[:-1]]


def make_app(version: str, size: int) -> bytes:
    """An application image with a descriptor and about as compressible as real firmware."""
    draw = random.Random(version)
    descriptor = struct.pack(
        "<4I 32s 32s 16s 16s 32s 32s 80x",
        *(0xABCD5432, 0, 0, 0),
        *(text.encode() for text in (version, "sensor", "12:00:00", "Jan  1 2026", "v5.5")),
        draw.randbytes(32),
    )
    code = bytes(
        draw.choices(range(256), [1 + 6000 // (1 + n * n // 8) for n in range(256)], k=size)
    )
    segments = (Segment(0x3C000020, descriptor + code), Segment(0x40380000, draw.randbytes(64)))
    settings = HeaderSettings(mode="dio", size="4MB", frequency="80m")
    return build(create_image(segments, 0x40380000, chip=load_chip(CHIP), settings=settings))


def write_files() -> None:
    """A build folder with version 2.0, and the application of version 2.1."""
    tree = make_build_trees.make_idf(CHIP, "sensor", ota=True)
    tree["build/sensor.bin"] = make_app("2.0", 690_000)
    tree["sensor-2.1.bin"] = make_app("2.1", 742_000)
    for name, data in tree.items():
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(data)


@contextlib.contextmanager
def simulated_bar(console: rich.console.Console, terminal: Terminal) -> Iterator[None]:
    """Progress bars use the plan's estimate as clock, are not drawn live, and end the command at the moment to show."""
    estimate, now = 0.0, 0.0
    stamp, update = Reporter.__call__, rich.progress.Progress.update

    def stamp_and_advance(reporter: Reporter, event: Event) -> None:
        nonlocal estimate, now
        if isinstance(event, PlanReady):
            estimate = event.seconds
        elif isinstance(event, Progress):
            now = estimate * event.done / event.total
        stamp(reporter, event)

    def update_and_stop(bar: rich.progress.Progress, task: rich.progress.TaskID, **fields) -> None:
        update(bar, task, **fields)
        written = bar.tasks[0]
        if written.description.startswith("Writing") and written.percentage >= 100 * SHOWN_PROGRESS:
            print_lines(console, terminal)
            console.print(bar.get_renderable())
            raise Snapshot

    with contextlib.ExitStack() as stack:
        for target, name, value in (
            (rich.console, "monotonic", lambda: now),
            (Reporter, "__call__", stamp_and_advance),
            (rich.progress.Progress, "update", update_and_stop),
            (rich.progress.Progress, "start", lambda bar: None),
            (rich.progress.Progress, "stop", lambda bar: None),
        ):
            stack.enter_context(mock.patch.object(target, name, value))
        yield


def print_lines(console: rich.console.Console, terminal: Terminal) -> None:
    for line in terminal.lines():
        console.print(Text.from_ansi(line), soft_wrap=True)


def record() -> str:
    """Run the session and return it as SVG."""
    console = rich.console.Console(
        record=True,
        file=io.StringIO(),
        width=COLUMNS,
        force_terminal=True,
        color_system="truecolor",
        legacy_windows=False,
    )
    with clean_place():
        del os.environ["NO_COLOR"]
        os.environ |= {"COLUMNS": str(COLUMNS), "FORCE_COLOR": "1", "TERM": "xterm-256color"}
        write_files()
        for command in (SESSION[0], f"espwire {PREPARE}", *SESSION[1:]):
            run(command, console, shown=not command.endswith(PREPARE))
    return FONT_FACES.sub("", console.export_svg(title="espwire", unique_id="espwire"))


def run(command: str, console: rich.console.Console, *, shown: bool) -> None:
    program, *arguments = shlex.split(command)
    if shown:
        console.print(Text.assemble(("$ ", "bold green"), (command, "bold")))
    if program == "export":
        name, _, value = arguments[0].partition("=")
        os.environ[name] = value
        return
    terminal = Terminal() if shown else io.StringIO()
    with contextlib.redirect_stdout(terminal), contextlib.redirect_stderr(terminal):
        try:
            if not shown:
                code = run_espwire(arguments)
            else:
                with simulated_bar(console, terminal):
                    code = run_espwire(arguments)
                print_lines(console, terminal)
        except Snapshot:
            return
    assert code == 0, (command, terminal.getvalue())


def read_text(svg: str) -> str:
    """The text of a picture, for comparisons that do not depend on rich's version."""
    return "\n".join(re.findall(r"<text [^>]*>(.*?)</text>", svg))


def main() -> int:
    """Write the picture if it has changed."""
    svg = record()
    if not PICTURE.exists() or read_text(PICTURE.read_text("utf-8")) != read_text(svg):
        PICTURE.write_text(svg, "utf-8", newline="\n")
        print(f"wrote {PICTURE.name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
