"""No import cycles in src/espwire: imports inside functions and under TYPE_CHECKING count."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("figures", ROOT / "tools/figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_module_imports_itself_through_others(figures: ModuleType) -> None:
    assert figures.find_cycles(figures.build_import_graph(ROOT / "src/espwire")) == []


def test_imports_in_functions_and_for_type_checkers_count(
    figures: ModuleType, tmp_path: Path
) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("def f():\n    from package import b\n")
    (package / "b.py").write_text("if TYPE_CHECKING:\n    from package.a import f\n")
    graph = figures.build_import_graph(package)
    assert figures.find_cycles(graph) == [["package.a", "package.b"]]
