"""No import cycles in src/espwire: imports inside functions and under TYPE_CHECKING count."""

from __future__ import annotations

from pathlib import Path

import figures

ROOT = Path(__file__).resolve().parents[2]


def test_no_module_imports_itself_through_others() -> None:
    assert figures.find_cycles(figures.build_import_graph(ROOT / "src/espwire")) == []


def test_imports_in_functions_and_for_type_checkers_count(tmp_path: Path) -> None:
    package = tmp_path / "package"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "a.py").write_text("def f():\n    from package import b\n")
    (package / "b.py").write_text("if TYPE_CHECKING:\n    from package.a import f\n")
    graph = figures.build_import_graph(package)
    assert figures.find_cycles(graph) == [["package.a", "package.b"]]


# package → packages that must not import it: everything below it in ARCHITECTURE.md's rule 2
ABOVE = {
    "cli": {
        "chips",
        "device",
        "flash",
        "image",
        "jobs",
        "monitor",
        "protocol",
        "secure",
        "transport",
        "virtual",
    },
    "jobs": {
        "chips",
        "device",
        "flash",
        "image",
        "monitor",
        "protocol",
        "secure",
        "transport",
        "virtual",
    },
    "serve": {"chips", "device", "flash", "image", "protocol", "secure", "transport", "virtual"},
    "efuse": {"chips", "device", "image", "protocol", "secure", "transport"},
    "flash": {"chips", "device", "image", "monitor", "protocol", "secure", "transport", "virtual"},
    "monitor": {"chips", "device", "flash", "image", "protocol", "secure", "transport", "virtual"},
    "device": {"chips", "image", "protocol", "secure", "transport"},
    "secure": {"chips", "device", "image", "protocol", "transport"},
    "image": {"chips", "device", "protocol", "transport"},
    "transport": {"chips", "image", "protocol", "secure"},
}


def test_packages_import_only_downwards() -> None:
    graph = figures.build_import_graph(ROOT / "src/espwire")
    wrong = [
        f"{module} imports {other}"
        for module, others in graph.items()
        for other in others
        if module.count(".") > 1
        and other.count(".") > 0
        and module.split(".")[1] in ABOVE.get(other.split(".")[1], ())
    ]
    assert wrong == []


def test_chips_and_loaders_are_not_asked_who_they_are() -> None:
    found = figures.measure(ROOT / "src/espwire")
    assert found["chip_names"] == []
    assert len(found["loader_questions"]) <= 5
