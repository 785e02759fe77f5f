"""The public names load, type checkers see the same ones, and their signatures match the golden list."""

from __future__ import annotations

import ast
from pathlib import Path

import public_api
import pytest

import espwire

ROOT = Path(__file__).resolve().parents[2]
MOST_NAMES = 60
HOW = "a public name changed; if that is intended: .venv/bin/python tools/public_api.py"


def test_the_public_interface_matches_the_golden_list() -> None:
    golden = (ROOT / "tests/golden/public_api.txt").read_text("utf-8")
    assert public_api.render().splitlines() == golden.splitlines(), HOW


def test_the_loader_reads_the_names_that_type_checkers_see() -> None:
    tree = ast.parse(Path(espwire.__file__).with_suffix(".pyi").read_text("utf-8"))
    imports = [node for node in tree.body if isinstance(node, ast.ImportFrom)]
    aliases = {alias.name: node.module for node in imports for alias in node.names}
    assert all(alias.name == alias.asname for node in imports for alias in node.names)
    assert aliases == espwire._read_names()
    assert espwire.__all__ == sorted(aliases)
    assert len(espwire.__all__) <= MOST_NAMES


def test_every_public_name_loads() -> None:
    names: dict[str, object] = {}
    exec("from espwire import *", names)
    assert set(espwire.__all__) <= set(names)
    assert set(espwire.__all__) <= set(dir(espwire))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no_such_name"):
        espwire.no_such_name  # noqa: B018


def test_every_error_and_event_is_public() -> None:
    from espwire import errors, events

    public = {name for names in public_api.find_public_names().values() for name in names}
    for module, base in ((errors, errors.ToolError), (events, events.Event)):
        classes = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, base)]
        assert {cls.__name__ for cls in classes} - {"Error"} <= public
