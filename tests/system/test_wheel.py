"""The wheels build, and what a user gets of them is small. `.ci/run` also installs one into a clean environment."""

from __future__ import annotations

import importlib.metadata
import subprocess
import sys
import zipfile
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
MOST_BYTES = 15_000_000


def build(folder: Path, where: Path) -> Path:
    """A wheel of the project in ``folder``, without network: the build backend stands in this environment."""
    program = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", program, str(where)],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return where / done.stdout.split()[-1]


def needed(name: str, seen: set[str]) -> set[str]:
    """The distributions that installing ``name`` brings, itself included."""
    if name in seen:
        return seen
    seen.add(name)
    for text in importlib.metadata.requires(name) or []:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            needed(canonicalize_name(requirement.name), seen)
    return seen


def installed_bytes(name: str) -> int:
    """What a distribution takes on the disk, without compiled caches."""
    files = importlib.metadata.files(name) or []
    paths = [Path(str(file.locate())) for file in files if "__pycache__" not in file.parts]
    return sum(path.stat().st_size for path in paths if path.is_file())


def entry_points(wheel: Path) -> dict[str, str]:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("/entry_points.txt"))
        lines = archive.read(name).decode("utf-8").splitlines()
    return dict(line.split(" = ", 1) for line in lines if " = " in line)


def test_the_wheel_builds_and_core_with_dependencies_is_small(tmp_path: Path) -> None:
    wheel = build(ROOT, tmp_path)
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        ours = sum(entry.file_size for entry in archive.infolist())
    assert "espwire/py.typed" in names
    assert any(name.startswith("espwire/chips/data/") for name in names)
    assert all(name.startswith(("espwire/", "espwire-")) for name in names)
    assert set(entry_points(wheel)) == {"espwire"}
    others = {name: installed_bytes(name) for name in needed("espwire", set()) - {"espwire"}}
    assert others["click"] > 100_000
    total = ours + sum(others.values())
    print(
        f"wheel {wheel.stat().st_size:,} bytes; installed: espwire {ours:,} + dependencies {sum(others.values()):,}"
    )
    print(
        ", ".join(
            f"{name} {size:,}" for name, size in sorted(others.items(), key=lambda item: -item[1])
        )
    )
    assert total <= MOST_BYTES


def test_the_wheel_of_espwire_compat_has_esptools_programs_and_nothing_that_esptool_installs(
    tmp_path: Path,
) -> None:
    wheel = build(ROOT / "compat", tmp_path)
    programs = {"esptool", "espefuse", "espsecure", "esp_rfc2217_server"}
    assert set(entry_points(wheel)) == programs
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        scripts = [entry for entry in archive.infolist() if ".data/scripts/" in entry.filename]
    assert {Path(entry.filename).name for entry in scripts} == {
        f"{program}.py" for program in programs
    }
    assert all(entry.external_attr >> 16 & 0o111 for entry in scripts)  # else nobody can start them
    module = "espwire_compat/modules/esptool"
    assert {
        f"{module}/__init__.py",
        f"{module}/cmds.py",
        f"{module}/py.typed",
        "espwire-compat.pth",
    } <= names
    assert not any(name.startswith(("espwire/", "esptool/")) for name in names)


def test_the_files_of_programs_are_alike() -> None:
    texts = {path.read_bytes() for path in (ROOT / "compat/scripts").iterdir()}
    assert len(texts) == 1
