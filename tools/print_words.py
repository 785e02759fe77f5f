"""Print every error, hint, warning, note and help screen into one file, to read them as a user would.

    python tools/print_words.py [--out build/words.md] [--tests tests/unit tests/scenario]

Runs the tests with this module as a pytest plugin, which records each error, warning and note with its values, by the
line of source that made it. Lines that no test reaches are printed as they are in the source.
"""

from __future__ import annotations

import argparse
import ast
import functools
import itertools
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src/espwire"
FOLDER = "ESPWIRE_PRINT_WORDS"  # environment: where the plugin writes
EXAMPLES = 2  # of each line of source
EVENTS = ("Note", "Warned")

Record = tuple[str, int, str, str, str]  # file, line, id, text, hint


def pytest_configure() -> None:
    """Record what the tests make espwire report; pytest calls this in each of its processes."""
    from espwire import errors, events

    records: dict[Record, None] = {}
    counts: dict[tuple[str, int], int] = defaultdict(int)

    def note(value: Any) -> None:
        frame = sys._getframe(2)
        while frame.f_code.co_filename == errors.__file__ and frame.f_back is not None:
            frame = frame.f_back
        path = Path(frame.f_code.co_filename)
        if SOURCE not in path.parents or counts[str(path), frame.f_lineno] >= EXAMPLES:
            return
        text = str(value) if isinstance(value, Exception) else value.text
        code, hint = getattr(value, "code", "note"), getattr(value, "hint", "")
        record = (str(path.relative_to(SOURCE)), frame.f_lineno, code, text, hint)
        if record not in records:
            records[record] = None
            counts[str(path), frame.f_lineno] += 1
            target = Path(os.environ[FOLDER], f"{os.getpid()}.jsonl")
            with target.open("a", encoding="utf-8", errors="backslashreplace") as file:
                file.write(json.dumps(record) + "\n")

    for cls in (errors.ToolError, *(getattr(events, name) for name in EVENTS)):
        cls.__init__ = _record_after(cls.__init__, note)


def _record_after(init: Callable[..., None], note: Callable[[Any], None]) -> Callable[..., None]:
    @functools.wraps(init)
    def wrapped(self: object, *args: Any, **keywords: Any) -> None:
        init(self, *args, **keywords)
        note(self)

    return wrapped


def run_tests(tests: list[str]) -> list[Record]:
    """What the tests made espwire report, in the order of the source."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {FOLDER: folder, "PYTHONPATH": str(ROOT / "tools")}
        command = [sys.executable, "-m", "pytest", "-p", "print_words", "-n", "2", "-q", *tests]
        subprocess.run(command, cwd=ROOT, env=environment, stdout=sys.stderr, check=False)
        lines = [line for path in Path(folder).iterdir() for line in path.open(encoding="utf-8")]
    records = sorted({tuple(json.loads(line)) for line in lines})
    groups = itertools.groupby(records, key=lambda record: record[:2])
    return [record for _, group in groups for record in itertools.islice(group, EXAMPLES)]


def find_calls() -> Iterator[tuple[str, ast.Call]]:
    """Every place in the source that makes an error, warning or note."""
    from espwire import errors

    names = {name for name, value in vars(errors).items() if isinstance(value, type)} | {*EVENTS}
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and (node.args or node.keywords):
                name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func
                name = name.id if isinstance(name, ast.Name) else name
                if name in names:
                    yield str(path.relative_to(SOURCE)), node


def find_help(*command: str) -> Iterator[str]:
    """The help screen of a command and of all commands below it."""
    shown = subprocess.run(
        [sys.executable, "-m", "espwire", *command, "--help"],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"COLUMNS": "100"},
    ).stdout
    usage = " ".join(["Usage: espwire", *command])
    if not shown.startswith(usage):
        return
    yield shown
    for name in re.findall(r"^  ([a-z][a-z0-9-]+)(?: {2,}\S.*)?$", shown, re.MULTILINE):
        yield from find_help(*command, name)


def render(records: list[Record]) -> Iterator[str]:
    """The page, in pieces."""
    yield "# Errors, warnings and notes, with values from tests\n"
    for file, line, code, text, hint in records:
        yield f"{file}:{line} [{code}]\n  {text}\n" + (f"  hint: {hint}\n" if hint else "")
    yield "# Errors, warnings and notes that no test shows, as in the source\n"
    seen = {(file, line) for file, line, *_ in records}
    for file, node in find_calls():
        if not any((file, n) in seen for n in range(node.lineno, (node.end_lineno or 0) + 1)):
            yield f"{file}:{node.lineno}\n  {ast.unparse(node)}\n"
    yield "# Help\n"
    yield from find_help()


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=ROOT / "build/words.md")
    parser.add_argument("--tests", nargs="*", default=["tests/unit", "tests/scenario"])
    args = parser.parse_args()
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text("\n".join(render(run_tests(args.tests))), "utf-8", "backslashreplace")
    print(f"wrote {args.out}")


if __name__ == "__main__":
    main()
