"""Write tests/golden/public_api.txt: the signatures of all public names.

Public are the names in ``espwire.__all__`` and those in the table of modules in docs/guide/library.md.
Run it after an intended change of the interface.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import re
import sys
from importlib import import_module
from pathlib import Path
from typing import ForwardRef

import espwire
from espwire.record import Record

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests/golden/public_api.txt"
GUIDE = ROOT / "docs/guide/library.md"
ROW = re.compile(r"^\| `(espwire\.[\w.]+)` \| (.*) \|$", re.MULTILINE)


def find_public_names() -> dict[str, list[str]]:
    """Module → its public names."""
    modules = {"espwire": sorted(espwire.__all__)}
    for module, names in ROW.findall(GUIDE.read_text("utf-8")):
        modules[module] = sorted(re.findall(r"`(\w+)`", names))
    return modules


def render() -> str:
    """One line per name, class members indented below their class."""
    lines: list[str] = []
    for module, names in find_public_names().items():
        lines += ["", f"# {module}"]
        for name in names:
            lines += _describe(name, getattr(import_module(module), name))
    return "\n".join(lines[1:]) + "\n"


def _describe(name: str, value: object) -> list[str]:
    if inspect.isclass(value):
        return [f"class {name}{_bases(value)}", *sorted(_members(value))]
    if inspect.isroutine(value) or hasattr(value, "__wrapped__"):
        return [f"def {name}{_signature(value)}"]
    return [f"{name}: str" if name == "__version__" else f"{name} = {value}"]


def _bases(cls: type) -> str:
    bases = [base.__name__ for base in cls.__bases__ if base is not object]
    return f"({', '.join(bases)})" if bases else ""


def _annotation(kind: object) -> str:
    """The type of a field; in modules without postponed evaluation, it is not a string."""
    if isinstance(kind, ForwardRef):  # of a named tuple
        kind = kind.__forward_arg__
    text = kind if isinstance(kind, str) else inspect.formatannotation(kind)
    return re.sub(r"\b(?:[a-z_]+\.)+(?=[A-Z])", "", text)


def _members(cls: type) -> list[str]:
    lines = []
    if dataclasses.is_dataclass(cls):
        lines += [f"    {f.name}: {_annotation(f.type)}" for f in dataclasses.fields(cls)]
    else:
        bases = reversed(cls.__mro__) if issubclass(cls, Record) else [cls]
        lines += [
            f"    {name}: {_annotation(kind)}"
            for base in bases
            for name, kind in vars(base).get("__annotations__", {}).items()
            if _public(name)
        ]
        if "__init__" in vars(cls) and not getattr(cls, "_is_protocol", False):
            lines.append(f"    def __init__{_signature(cls.__init__)}")
    for name, value in vars(cls).items():
        if not _public(name):
            continue
        if isinstance(value, property):
            lines.append(f"    @property {name}{_signature(value.fget)}")
        elif isinstance(value, functools.cached_property):
            lines.append(f"    @property {name}{_signature(value.func)}")
        elif isinstance(value, classmethod | staticmethod):
            lines.append(f"    @{type(value).__name__} {name}{_signature(value.__func__)}")
        elif inspect.isfunction(value):
            lines.append(f"    def {name}{_signature(value)}")
    return lines


def _public(name: str) -> bool:
    return not name.startswith("_") or name in ("__enter__", "__exit__", "__call__")


def _signature(function: object) -> str:
    """As written; default values that print an address or differ between Pythons are left out."""
    text = str(inspect.signature(function))  # type: ignore[arg-type]
    text = re.sub(
        r"(: |-> )'([^']*)'", r"\1\2", text
    )  # annotations are strings, and printed as such
    return re.sub(r"=? ?<[^>]*>", "= …", text)


if __name__ == "__main__":
    text = render()
    if "--check" in sys.argv:
        sys.exit(0 if GOLDEN.exists() and GOLDEN.read_text("utf-8") == text else f"stale: {GOLDEN}")
    GOLDEN.parent.mkdir(parents=True, exist_ok=True)
    GOLDEN.write_text(text, "utf-8", newline="\n")
    print(f"wrote {GOLDEN}")
