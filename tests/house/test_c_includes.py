"""The C sources of the stub have no include cycles."""

from __future__ import annotations

import re
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

STUB = Path(__file__).resolve().parents[2] / "stub"
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.MULTILINE)


def read_includes(folder: Path) -> dict[str, set[str]]:
    """File name → names of the files that it includes; the folders of the stub have no equal names."""
    sources = [path for path in folder.rglob("*") if path.suffix in (".c", ".h", ".S")]
    return {path.name: set(INCLUDE.findall(path.read_text("utf-8"))) for path in sources}


def test_the_includes_have_no_cycles():
    includes = read_includes(STUB)
    assert includes["hw.h"] == {"stub.h"}
    TopologicalSorter(includes).prepare()


def test_a_cycle_is_found(tmp_path):
    (tmp_path / "a.h").write_text('#include "b.h"\n')
    (tmp_path / "b.h").write_text('# include "a.h"\n')
    with pytest.raises(CycleError):
        TopologicalSorter(read_includes(tmp_path)).prepare()
