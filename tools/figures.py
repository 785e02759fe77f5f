"""Print the size and structure of espwire: statements and lines per package, import cycles, public names.

    python tools/figures.py [--root src/espwire] [--json]

* Statements are nodes of ``ast.stmt`` in the package, docstrings not counted.
* Lines are split into code, docstring, comment; blank lines are not counted.
* Import cycles are found in the graph of all imports: inside functions and under ``TYPE_CHECKING`` too.
* Chip names: string constants equal to the name of a chip in a condition (``if``, ``while``, ``match``, comparisons),
  or as a key of a dictionary literal.
* Loader questions: calls of ``supports`` and ``require``, and comparisons of ``capabilities`` with ``None``,
  outside ``device/backends``.
"""

from __future__ import annotations

import argparse
import ast
import io
import json
import tokenize
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent / "src" / "espwire"


def find_modules(root: Path) -> dict[str, Path]:
    """Dotted names of all modules under ``root``, with their files."""
    modules = {}
    for path in sorted(root.rglob("*.py")):
        parts = (root.name, *path.relative_to(root).with_suffix("").parts)
        modules[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return modules


def find_docstrings(tree: ast.AST) -> list[ast.Expr]:
    """The docstring statements of a module, its classes and its functions."""
    docstrings = []
    for node in ast.walk(tree):
        if (
            isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef))
            and node.body
        ):
            first = node.body[0]
            value = first.value if isinstance(first, ast.Expr) else None
            if isinstance(value, ast.Constant) and isinstance(value.value, str):
                docstrings.append(first)
    return docstrings


def count_lines(source: str, tree: ast.AST) -> dict[str, int]:
    """Numbers of statements and of lines of code, docstring and comment."""
    docstrings = find_docstrings(tree)
    doc_lines = {
        n for doc in docstrings for n in range(doc.lineno, (doc.end_lineno or doc.lineno) + 1)
    }
    comment_lines, code_lines = set(), set()
    skip = {
        tokenize.NEWLINE,
        tokenize.NL,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENCODING,
        tokenize.ENDMARKER,
    }
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            comment_lines.add(token.start[0])
        elif token.type not in skip:
            code_lines.update(range(token.start[0], token.end[0] + 1))
    statements = sum(isinstance(node, ast.stmt) for node in ast.walk(tree)) - len(docstrings)
    code = code_lines - doc_lines
    return {
        "statements": statements,
        "code": len(code),
        "docstring": len(doc_lines),
        "comment": len(comment_lines - code - doc_lines),
        "files": 1,
    }


def find_imports(name: str, path: Path, tree: ast.AST, modules: dict[str, Path]) -> Iterator[str]:
    """The modules of the package that a module imports, anywhere in it."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                start = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*start, *([base] if base else [])])
            for alias in node.names:
                full = f"{base}.{alias.name}"
                if full in modules:
                    yield full
                elif base in modules:
                    yield base


def find_cycles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Sets of nodes that can reach each other (Tarjan's strongly connected components with more than one node)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    cycles: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph.get(node, ())):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            component = []
            while not component or component[-1] != node:
                component.append(stack.pop())
            if len(component) > 1 or node in graph.get(node, ()):
                cycles.append(sorted(component))

    for node in sorted(graph):
        if node not in index:
            visit(node)
    return cycles


def build_import_graph(root: Path) -> dict[str, set[str]]:
    """Which module imports which, below ``root``. A package's own ``__init__`` counts only if it is named."""
    modules = find_modules(root)
    return {
        name: set(find_imports(name, path, ast.parse(path.read_text("utf-8")), modules)) - {name}
        for name, path in modules.items()
    }


def find_chip_names(tree: ast.AST, chips: set[str]) -> Iterator[int]:
    """Lines where a chip's name is compared with, matched, or is a key of a dictionary literal."""

    def names(node: ast.AST | None) -> Iterator[int]:
        for part in ast.walk(node) if node is not None else ():
            if (
                isinstance(part, ast.Constant)
                and isinstance(part.value, str)
                and part.value.lower() in chips
            ):
                yield part.lineno

    for node in ast.walk(tree):
        if isinstance(node, (ast.Compare, ast.MatchValue)):
            yield from names(node)
        elif isinstance(node, ast.Dict):
            for key in node.keys:
                yield from names(key)


def find_loader_questions(tree: ast.AST) -> Iterator[int]:
    """Lines that check the kind of loader."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, (ast.Attribute, ast.Name)):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else node.func.id
            if name in ("supports", "require"):
                yield node.lineno
        elif isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            none = any(isinstance(side, ast.Constant) and side.value is None for side in sides)
            if none and any(
                isinstance(side, ast.Attribute) and side.attr == "capabilities" for side in sides
            ):
                yield node.lineno


def count_public_names(root: Path) -> int:
    """The names imported by ``__init__.pyi``; without that file, the elements of ``__all__``."""
    stub = root / "__init__.pyi"
    tree = ast.parse((stub if stub.exists() else root / "__init__.py").read_text("utf-8"))
    if stub.exists():
        return sum(len(node.names) for node in tree.body if isinstance(node, ast.ImportFrom))
    return sum(
        len(node.value.elts)
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.List)
    )


def measure(root: Path) -> dict[str, object]:
    """All figures for the package at ``root``."""
    modules = find_modules(root)
    chips = {path.stem.lower() for path in (root / "chips" / "data").glob("esp*.toml")}
    packages: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    chip_names, questions = [], []
    for path in modules.values():
        source = path.read_text("utf-8")
        tree = ast.parse(source)
        relative = path.relative_to(root)
        package = relative.parts[0] if len(relative.parts) > 1 else "(top level)"
        for key, value in count_lines(source, tree).items():
            packages[package][key] += value
            packages["total"][key] += value
        chip_names += [f"{relative}:{line}" for line in find_chip_names(tree, chips)]
        if relative.parts[:2] != ("device", "backends"):
            questions += [f"{relative}:{line}" for line in find_loader_questions(tree)]
    return {
        "packages": {name: dict(counts) for name, counts in packages.items()},
        "cycles": find_cycles(build_import_graph(root)),
        "chip_names": sorted(set(chip_names)),
        "loader_questions": questions,
        "public_names": count_public_names(root),
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--root", type=Path, default=ROOT)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    figures = measure(args.root)
    if args.json:
        print(json.dumps(figures, indent=1))
        return
    columns = ("files", "statements", "code", "docstring", "comment")
    print(f"{'package':<14}" + "".join(f"{column:>12}" for column in columns))
    packages = figures["packages"]
    for name in sorted(packages, key=lambda name: (name == "total", name)):
        print(
            f"{name:<14}" + "".join(f"{packages[name].get(column, 0):>12,}" for column in columns)
        )
    for title, key in (
        ("import cycles", "cycles"),
        ("chip names in conditions or dictionaries", "chip_names"),
        ("loader questions outside device/backends", "loader_questions"),
    ):
        items = figures[key]
        print(f"\n{title}: {len(items)}")
        for item in items:
            print("  " + (" <-> ".join(item) if isinstance(item, list) else item))
    print(f"\npublic names: {figures['public_names']}")


if __name__ == "__main__":
    main()
