"""What the program loads before it works: a white list, since each module costs every run its time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import sys
before = set(sys.modules)
sys.argv = ["espwire", *sys.argv[1:]]
from espwire.cli.main import run
try:
    run()
except SystemExit as end:
    assert not end.code, end.code
loaded = sorted(set(sys.modules) - before)
import json
print("\\n" + json.dumps(loaded))
"""
CORE = {
    "espwire",
    "espwire._version",
    "espwire.values",
    "espwire.cli",
    "espwire.cli.main",
}
HELP = CORE | {
    "espwire.errors",
    "espwire.chips",
    "espwire.chips.index",
    "espwire.cli.argfile",
    "espwire.cli.examples",
    "espwire.cli.group",
    "espwire.cli.help_screen",
    "espwire.cli.number_types",
    "espwire.cli.options",
    "espwire.cli.output",
    "espwire.cli.session",
    "espwire.escape",
    "espwire.split_words",
}
WRITE_FLASH_HELP = HELP | {
    "espwire.cli.commands",
    "espwire.cli.commands.write_flash",
    "espwire.cli.flash_options",
    "espwire.cli.places",
    "espwire.cli.write_options",
}


def loaded(*arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], capture_output=True, text=True, check=False, encoding="utf-8"
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


def ours(modules: set[str]) -> set[str]:
    return {name for name in modules if name.split(".")[0] == "espwire"}


def others(modules: set[str]) -> set[str]:
    """Top-level names from neither us nor the standard library."""
    return {name.split(".")[0] for name in modules} - set(sys.stdlib_module_names) - {"espwire"}


@pytest.mark.parametrize("arguments", [["--version"], ["version"]])
def test_the_version_needs_nothing_at_all(arguments: list[str]) -> None:
    modules = loaded(*arguments)
    assert ours(modules) <= CORE
    assert not others(modules)
    assert not {"typing", "re", "inspect", "dataclasses"} & modules


def test_help_loads_click_and_the_chips_names_and_nothing_else() -> None:
    modules = loaded("--help")
    assert ours(modules) <= HELP
    assert others(modules) == {"click"}
    assert not {"tomllib", "asyncio", "logging", "socket", "json", "importlib.resources"} & modules


def test_help_of_a_command_loads_that_command_only() -> None:
    modules = loaded("write-flash", "--help")
    assert ours(modules) <= WRITE_FLASH_HELP
    assert others(modules) == {"click"}


def test_help_of_ports_loads_no_port_library() -> None:
    modules = loaded("ports", "--help")
    assert ours(modules) <= HELP | {"espwire.cli.commands", "espwire.cli.commands.ports"}
    assert others(modules) == {"click"}


def test_a_raw_merge_loads_nothing_that_it_does_not_use(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"a")
    words = ("-c", "esp32", "merge-bin", "-o", str(tmp_path / "o"), "-fs", "4MB", "0x8000", str(tmp_path / "a.bin"))
    modules = loaded(*words)
    assert others(modules) == {"click"}
    unused = {"asyncio", "binascii", "difflib", "hashlib", "json", "pathlib", "socket", "tomllib", "zlib"}
    assert not unused & modules


def test_the_garbage_of_a_run_is_left_to_the_system() -> None:
    program = "import atexit, gc; atexit.register(lambda: print(gc.get_freeze_count() > 1000, *gc.get_threshold()))"
    for arguments in (["chips"], ["no-such-command"]):
        run = f"import sys; sys.argv[1:] = {arguments}; from espwire.cli.main import run; run()"
        done = subprocess.run([sys.executable, "-c", f"{program}\n{run}"], capture_output=True, text=True, check=False)
        frozen, first = done.stdout.splitlines()[-1].split()[:2]
        assert (frozen, int(first) >= 10_000) == ("True", True)


def test_import_espwire_loads_nothing() -> None:
    program = "import sys; before = set(sys.modules); import espwire; print(sorted(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['espwire', 'espwire._version']"


def test_what_writes_nothing_loads_no_packer() -> None:
    for words in (["version"], ["flash-id", "--help"], ["--port", "virtual:esp32c3?size=1MB", "flash-id"]):
        assert not {"deflate", "deflate._deflate"} & loaded(*words)
