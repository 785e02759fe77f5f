"""Render the map in ARCHITECTURE.md: every module of espwire with the first sentence of its docstring."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "ARCHITECTURE.md"
SOURCE = ROOT / "src/espwire"
FIRST = ("", "cli", "flash", "device", "protocol", "transport", "chips", "image")  # as data flows
BEGIN, END = "<!-- map: written by `make generate` -->", "<!-- end of the map -->"


def render_architecture() -> str:
    """The page with a current map between its marks."""
    before, rest = PAGE.read_text("utf-8").split(BEGIN)
    after = rest.split(END)[1]
    return f"{before}{BEGIN}\n{render_map()}{END}{after}"


def render_map() -> str:
    folders: dict[str, list[Path]] = {}
    for path in sorted(SOURCE.rglob("*.py")):
        folders.setdefault(path.parent.relative_to(SOURCE).as_posix().strip("."), []).append(path)
    lines = []
    for folder in sorted(folders, key=rank):
        paths = folders[folder]
        about = next((read_summary(path) for path in paths if path.name == "__init__.py"), "")
        title = f"`{folder}/`" if folder else "`espwire/`"
        lines += ["", f"**{title}**{f' {about}' if about else ''}", ""]
        lines += [
            f"* `{path.name}`: {read_summary(path)}" for path in paths if path.name != "__init__.py"
        ]
    return "\n".join([*lines, "", ""])


def rank(folder: str) -> tuple[int, str]:
    """Packages in the order of ``FIRST``, subpackages after their package."""
    package = folder.split("/", maxsplit=1)[0]
    return (FIRST.index(package) if package in FIRST else len(FIRST), folder)


def read_summary(path: Path) -> str:
    """The first sentence of a module's docstring, with single backquotes."""
    text = ast.get_docstring(ast.parse(path.read_text("utf-8"))) or ""
    first = " ".join(text.split("\n\n")[0].split()).replace("``", "`")
    return re.split(r"(?<=[.?]) (?=[A-Z`])", first)[0].replace("|", "\\|").rstrip(":")
