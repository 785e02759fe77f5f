"""Who may import whom, and which library where. The tables are those of ARCHITECTURE.md; change both or neither."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import espwire

ROOT = Path(espwire.__file__).parent
EVENTS, BITS, ERRORS, FILES, COMPRESS = "events", "bits", "errors", "files", "compress"
WIRE, CHIPS, IMAGE, VIRTUAL = "wire", "chips", "image", "virtual"
BASE = {"_version", "values", "escape", "split_words"}  # everyone may import these

# module or package (the longest name that fits counts) → what it may import, beside itself
MAY: dict[str, set[str]] = {
    "_version": set(),
    "values": set(),
    "escape": set(),
    "split_words": set(),
    ERRORS: set(),
    EVENTS: set(),
    BITS: {ERRORS},
    "settings": {ERRORS},
    "polling": set(),
    "file_lock": set(),
    "streams": {ERRORS, "polling"},
    FILES: {ERRORS, "file_lock", "streams"},
    COMPRESS: set(),
    WIRE: {ERRORS, BITS},
    CHIPS: {"wire.dialect", "wire.commands", BITS, ERRORS},
    "link": {ERRORS, "polling"},
    "link.url": {ERRORS, VIRTUAL},
    "link.ports": {ERRORS, "chips.usb", "chips.index"},
    "link.boards": {ERRORS, "chips.usb", "chips.index"},
    IMAGE: {CHIPS, FILES, ERRORS, BITS},
    "secure": {IMAGE, ERRORS, BITS},
    "device": {"link.base", COMPRESS, CHIPS, WIRE, ERRORS, EVENTS, "settings", BITS},
    "device.stub": {"link.base", CHIPS, FILES, WIRE, ERRORS, EVENTS, "settings", BITS},
    "device.connect": {"link.base", "link.url", "link.ports", CHIPS, WIRE, ERRORS, EVENTS, "settings", BITS},
    "flash": {"device", "link.base", IMAGE, COMPRESS, FILES, CHIPS, WIRE, ERRORS, EVENTS, "settings", BITS},
    VIRTUAL: {WIRE, CHIPS, ERRORS, BITS},
    "virtual.flash_file": {VIRTUAL, FILES, "file_lock", "streams", ERRORS, BITS},
    "virtual.options": {VIRTUAL, "secure.flash_encryption", WIRE, CHIPS, ERRORS, BITS},
    "virtual.bus": {VIRTUAL, "link.base", "link.ports", WIRE, CHIPS, ERRORS, BITS},
    "virtual.link": {VIRTUAL, "link.base", WIRE, CHIPS, ERRORS, BITS},
    "virtual.clients": {VIRTUAL, "link.telnet", ERRORS},
    "virtual.serve": {VIRTUAL, "link.base", WIRE, CHIPS, ERRORS, BITS},
    "virtual.twin": {VIRTUAL, "device.stub_image", WIRE, CHIPS, ERRORS, BITS},
    "virtual.first_stage": {VIRTUAL, "device.stub_image", WIRE, CHIPS, ERRORS, BITS},
    "monitor": {"device.lines", "link.base", "polling", "streams", CHIPS, WIRE, ERRORS, BITS},
    "monitor.ports": {"link.base", "link.url", ERRORS},
    "demo": set(),
    "cli": {"*"},
    "__main__": {"cli"},
    "__init__": {"*"},
}
# library → modules that may name it; all but click only inside a function, so that nobody pays for what is not used
LIBRARIES: dict[str, set[str]] = {
    "click": {"cli"},
    "rich": {"cli.render"},
    "serial": {"link.serial", "link.url", "link.ports"},
    "bincopy": {"image.hexfile", "image.srecord"},
    "elftools": {"image.elf"},
    "reedsolo": {"efuse"},
    "deflate": {"compress"},
    "cryptography": {"secure"},
    "platformdirs": {"cli"},
}
# parts of the standard library that exist on some systems only: these modules may name them, inside a function
ONE_SYSTEM = {"termios", "fcntl", "pty", "tty", "resource", "grp", "pwd", "msvcrt", "winreg", "_winapi"}


class Found(NamedTuple):
    module: str
    names: str
    line: int
    at_import: bool


def modules() -> dict[str, ast.Module]:
    found = {}
    for path in sorted(ROOT.rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found[name] = ast.parse(path.read_text("utf-8"))
    return found


MODULES = modules()


def imports(module: str) -> Iterator[Found]:
    """What a module names in import statements, but for typing's own."""
    yield from _imports(module, MODULES[module], at_import=True)


def _imports(module: str, node: ast.AST, *, at_import: bool) -> Iterator[Found]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.If) and ast.unparse(child.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            continue
        if isinstance(child, ast.Import):
            for alias in child.names:
                yield Found(module, alias.name, child.lineno, at_import)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"{module}:{child.lineno}: write the whole name, not a relative import"
            base = child.module or ""
            for alias in child.names:
                full = f"{base}.{alias.name}".removeprefix("espwire.")
                yield Found(module, f"espwire.{full}" if full in MODULES else base, child.lineno, at_import)
        else:
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from _imports(module, child, at_import=at_import and not inside)


def within(name: str, prefix: str) -> bool:
    return name == prefix or name.startswith(prefix + ".")


def rule_for(module: str) -> tuple[str, set[str]]:
    fitting = [key for key in MAY if within(module, key)]
    assert fitting, f"{module} has no rule: add it to tests/house/test_layers.py and to ARCHITECTURE.md"
    key = max(fitting, key=len)
    return key, MAY[key]


@pytest.mark.parametrize("module", MODULES)
def test_a_module_imports_only_what_lies_below_it(module: str) -> None:
    key, allowed = rule_for(module)
    own = key.split(".")[0]
    for found in imports(module):
        if not within(found.names, "espwire"):
            continue
        target = found.names.removeprefix("espwire").lstrip(".") or "_version"
        if "*" in allowed or (within(target, own) and key == own):
            continue
        fits = any(within(target, name) for name in allowed | BASE) or target == module
        sibling = within(target, own)
        assert fits or sibling, (
            f"espwire.{module}:{found.line} imports {found.names}; {key} may import {sorted(allowed)}"
        )


def test_only_link_url_knows_the_virtual_chip() -> None:
    for module in MODULES:
        if module.split(".")[0] in ("cli", "virtual", "__init__"):
            continue
        for found in imports(module):
            if within(found.names, "espwire.virtual"):
                assert module == "link.url", f"{module}:{found.line}"


@pytest.mark.parametrize("module", MODULES)
def test_a_library_is_named_where_the_table_says_and_loaded_when_needed(module: str) -> None:
    import sys

    for found in imports(module):
        top = found.names.split(".")[0]
        if top in ("espwire", "__future__") or top in sys.stdlib_module_names:
            continue
        assert top in LIBRARIES, f"{module}:{found.line}: {top} is in no table; see ARCHITECTURE.md, Libraries"
        assert any(within(module, place) for place in LIBRARIES[top]), f"{module}:{found.line} names {top}"
        if top != "click":
            assert not found.at_import, f"{module}:{found.line}: import {top} inside the function that needs it"


@pytest.mark.parametrize("module", MODULES)
def test_what_one_system_lacks_is_not_imported_with_the_module(module: str) -> None:
    for found in imports(module):
        if found.names.split(".")[0] in ONE_SYSTEM:
            assert not found.at_import, f"{module}:{found.line}"


def test_only_the_command_line_prints_or_reads_the_environment() -> None:
    for module, tree in MODULES.items():
        if module.split(".")[0] == "cli" or module == "virtual.serve":
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("print", "input", "exit", "quit"), f"{module}:{node.lineno}"
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                said = f"{node.value.id}.{node.attr}"
                assert said not in ("os.environ", "os.getenv", "sys.exit", "sys.stdout"), f"{module}:{node.lineno}"


def test_no_behaviour_hangs_on_a_chip_s_name() -> None:
    for module, tree in MODULES.items():
        if module.split(".")[0] == "chips":
            continue
        for node in ast.walk(tree):
            if not isinstance(node, ast.Compare):
                continue
            sides = [node.left, *node.comparators]
            asks_name = any(isinstance(side, ast.Attribute) and side.attr in ("id", "name") for side in sides)
            assert not (asks_name and any(map(_names_a_chip, sides))), f"{module}:{node.lineno}"


def _names_a_chip(side: ast.expr) -> bool:
    constants = [node.value for node in ast.walk(side) if isinstance(node, ast.Constant)]
    return any(isinstance(value, str) and value.lower().startswith(("esp32", "esp82")) for value in constants)
