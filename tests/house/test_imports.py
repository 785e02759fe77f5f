"""No import cycles in src/espwire: imports inside functions and under TYPE_CHECKING count."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
# Cycles that are being removed, by their modules. A new cycle fails the test, and so does an entry that has become unnecessary.
KNOWN_CYCLES: tuple[str, ...] = ()


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    spec = importlib.util.spec_from_file_location("figures", ROOT / "tools/figures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_module_imports_itself_through_others(figures: ModuleType) -> None:
    graph = figures.build_import_graph(ROOT / "src/espwire")
    cycles = [
        {name.removeprefix("espwire.") for name in cycle} for cycle in figures.find_cycles(graph)
    ]
    known_cycles = [set(names.split()) for names in KNOWN_CYCLES]
    new = [cycle for cycle in cycles if not any(cycle <= known for known in known_cycles)]
    assert not new, f"import cycles: {new}"
    removed = [known for known in known_cycles if not any(cycle <= known for cycle in cycles)]
    assert not removed, f"remove from KNOWN_CYCLES: {removed}"


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
