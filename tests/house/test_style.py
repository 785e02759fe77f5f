"""The rules of the house that a program can check: sizes, docstrings, one place that catches everything."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import espwire

ROOT = Path(espwire.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
LONGEST_FUNCTION = 75  # lines: one screen


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def walk(path: Path) -> Iterator[ast.AST]:
    yield from ast.walk(ast.parse(path.read_text("utf-8")))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_function_fits_on_one_screen(path: Path) -> None:
    for node in walk(path):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or 0) - node.lineno + 1
            assert lines <= LONGEST_FUNCTION, f"{node.name} has {lines} lines"


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_module_says_in_its_first_line_what_it_is(path: Path) -> None:
    text = path.read_text("utf-8")
    if not text.strip():
        return  # an empty __init__.py
    said = ast.get_docstring(ast.parse(text))
    assert said
    assert said.splitlines()[0].strip().endswith((".", ":", "?"))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_public_things_have_docstrings(path: Path) -> None:
    for node in ast.iter_child_nodes(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            if "click.command()" in map(ast.unparse, node.decorator_list):
                continue  # its help is in the table of commands
            assert ast.get_docstring(node), f"{name_of(path)}: {node.name}"


def test_one_place_catches_everything() -> None:
    broad = []
    for path in FILES:
        for node in walk(path):
            if isinstance(node, ast.ExceptHandler):
                caught = "" if node.type is None else ast.unparse(node.type)
                passes_on = isinstance(node.body[-1], ast.Raise) and node.body[-1].exc is None
                if caught in ("", "Exception", "BaseException") and not passes_on:
                    broad.append((name_of(path), caught))
    assert broad == [("cli/main.py", "Exception")]


def test_names_tell_the_cost() -> None:
    for path in FILES:
        assert path.stem not in ("utils", "util", "helpers", "common", "misc"), name_of(path)
        for node in walk(path):
            if isinstance(node, ast.FunctionDef):
                named_by_a_library = node.name in ("get_command", "do_GET", "do_HEAD")
                assert not node.name.startswith(("get_", "do_")) or named_by_a_library, node.name


def test_deliberate_errors_are_of_our_tree() -> None:
    """``raise X(...)`` names a ToolError, one of the few that Python's protocols ask for, or a caller's plain mistake."""
    import espwire.errors as errors

    ours = {name for name, value in vars(errors).items() if isinstance(value, type)}
    # ValueError: a programmer's mistake, never a user's; on the command line it ends as "this is a bug", exit 70
    protocol = {
        "AttributeError",
        "NotImplementedError",
        "AssertionError",
        "IsADirectoryError",
        "ValueError",
        "TypeError",  # for missing and unknown arguments, as of any call
    }
    protocol.add(
        "CpuFault"
    )  # what a program does in the virtual chip; the chip crashes of it, no user sees it
    for path in FILES:
        local = {node.name for node in walk(path) if isinstance(node, ast.ClassDef)}
        for node in walk(path):
            if (
                isinstance(node, ast.Raise)
                and isinstance(node.exc, ast.Call)
                and isinstance(node.exc.func, ast.Name)
            ):
                name = node.exc.func.id
                known = name in ours | protocol | local or name.lstrip("_")[0].islower()
                assert known, f"{name_of(path)}:{node.lineno} raises {name}"
