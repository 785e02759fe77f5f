"""Run the commands of the `console` blocks in README.md and the guide on virtual chips, and insert their output.

`make docs` runs it; tests/scenario/test_docs_examples.py compares the pages with fresh output. Blocks marked `not run`,
and the output of commands that do not end by themselves (monitor, virtual serve), are not changed.
"""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests/scenario"))

from docs_examples import ENDLESS, PORT, Block, Runner, find_blocks, parse_only  # noqa: E402

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs/guide").glob("*.md"))]
PROGRESS = re.compile(r": \d+ % of .*")
TRACE = re.compile(r"\S*espwire-trace-\S*\.txt")
SHOWN_TRACE = "~/.local/state/espwire/espwire-trace-20260101-120000-1.txt"
USUAL_PORT = "/dev/ttyUSB0"  # shown where a command leaves the port to espwire


class Recorder(Runner):
    """Runs commands and records the output of each, including standard error."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, os.environ.__setitem__, parse_only)
        self.printed: list[list[str] | None] = []  # None: the command does not end

    def _command(self, command: list[str], port: str, shown: str, block: Block) -> int:
        stream = io.StringIO()
        with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
            code = super()._command(command, port, shown, block)
        named = next((word for word in command if PORT.fullmatch(word)), USUAL_PORT)
        endless = any(all(word in command for word in name) for name in ENDLESS)
        text = TRACE.sub(SHOWN_TRACE, stream.getvalue().replace(port, named))
        self.printed.append(
            None if endless else shorten([line.rstrip() for line in text.splitlines()])
        )
        return code


def shorten(lines: list[str]) -> list[str]:
    """Replace three or more progress lines of one task by the first and the last."""
    shown: list[str] = []
    tasks = [
        PROGRESS.sub("", line) if PROGRESS.search(line) else str(at)
        for at, line in enumerate(lines)
    ]
    for _, run in itertools.groupby(zip(tasks, lines, strict=True), key=lambda pair: pair[0]):
        group = [line for _, line in run]
        shown += group if len(group) < 3 else [group[0], "…", group[-1]]
    return shown


@contextlib.contextmanager
def clean_place() -> Iterator[Path]:
    """Change into an empty folder, with an environment without the user's settings."""
    before, environment = Path.cwd(), dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="espwire-docs-") as folder:
        for name in [
            name for name in os.environ if name.startswith(("ESPWIRE_", "ESPTOOL_", "FORCE_COLOR"))
        ]:
            del os.environ[name]
        os.environ |= {
            "HOME": folder,
            "XDG_STATE_HOME": f"{folder}/state",
            "XDG_CONFIG_HOME": folder,
            "NO_COLOR": "1",
        }
        os.environ["COLUMNS"] = "100"
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)
            os.environ.clear()
            os.environ.update(environment)


def render_page(path: Path) -> str:
    """Return the page with the current output of its commands.

    :raises BadPage: a command does not run, or its exit code differs from the expected one
    """
    text = path.read_text("utf-8")
    lines = text.splitlines()
    for block in reversed(find_blocks(text, path.relative_to(ROOT).as_posix())):
        if not block.console or block.reason is not None:
            continue
        with clean_place() as folder:
            recorder = Recorder(folder)
            recorder.run(block)
        end = block.line + len(block.text.splitlines())
        indent = lines[block.line - 1][
            : len(lines[block.line - 1]) - len(lines[block.line - 1].lstrip())
        ]
        body = weave(block.text.splitlines(), recorder.printed)
        lines[block.line : end] = [f"{indent}{line}".rstrip() for line in body]
    return "\n".join(lines) + "\n"


def weave(lines: list[str], printed: list[list[str] | None]) -> list[str]:
    """Combine the commands of a block with their new output; keep the old output of endless commands."""
    woven: list[str] = []
    outputs, keep, at = iter(printed), False, 0
    while at < len(lines):
        line = lines[at]
        at += 1
        if not line.startswith("$ "):
            woven += [line] if keep else []
            continue
        woven.append(line)
        while woven[-1].endswith("\\"):
            woven.append(lines[at])
            at += 1
        new = next(outputs)
        keep = new is None
        woven += new or []
    return woven


def main() -> int:
    """Write all pages that have changed."""
    for path in PAGES:
        text = render_page(path)
        if text != path.read_text("utf-8"):
            path.write_text(text, "utf-8", newline="\n")
            print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
