"""The public names and their signatures are those of the golden list; a change there is meant, or it is a mistake."""

from __future__ import annotations

import ast
import importlib.util
from pathlib import Path

import pytest

import espwire

ROOT = Path(__file__).resolve().parents[2]
HOW = "a public name changed; if you meant it: .venv/bin/python tools/public_api.py"


def test_the_public_interface_is_the_golden_one() -> None:
    spec = importlib.util.spec_from_file_location("public_api", ROOT / "tools/public_api.py")
    assert spec is not None
    assert spec.loader is not None
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    golden = (ROOT / "tests/golden/public_api.txt").read_text("utf-8")
    assert tool.render().splitlines() == golden.splitlines(), HOW


def test_every_public_name_loads_and_type_checkers_see_the_same_ones() -> None:
    tree = ast.parse(Path(espwire.__file__).read_text("utf-8"))
    told = {
        alias.name: node.module
        for branch in tree.body
        if isinstance(branch, ast.If)
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert told == espwire._HOME
    assert set(told) | {"__version__"} == set(espwire.__all__)
    assert all(getattr(espwire, name) is not None for name in espwire.__all__)
    assert set(espwire.__all__) <= set(dir(espwire))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        espwire.no_such_name  # type: ignore[attr-defined]  # noqa: B018


def test_every_deliberate_error_is_public() -> None:
    import espwire.errors as errors

    classes = {
        name
        for name, value in vars(errors).items()
        if isinstance(value, type) and value.__module__ == errors.__name__
    }
    assert classes <= set(espwire.__all__)
