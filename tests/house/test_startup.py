"""The start-up budget: help and version load no library that only work needs, and `import espwire` loads almost nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"serial", "rich", "elftools", "cryptography", "bincopy", "deflate", "platformdirs"}
PROGRAM = """
import json, sys
sys.argv = ["espwire", *sys.argv[1:]]
from espwire.cli.main import run
try:
    run()
except SystemExit as end:
    assert not end.code, end.code
print("\\n" + json.dumps(sorted(sys.modules)))
"""


def find_loaded(code: str, *arguments: str) -> set[str]:
    """Names of the modules that a Python program has loaded at its end."""
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "arguments",
    [["--version"], ["version"], ["--help"], ["write-flash", "--help"], ["ports", "--help"]],
)
def test_help_and_version_load_no_heavy_library(arguments: list[str]) -> None:
    assert not find_loaded(PROGRAM, *arguments) & HEAVY


def test_import_espwire_loads_none_of_its_packages() -> None:
    modules = find_loaded("import json, sys, espwire; print(json.dumps(sorted(sys.modules)))")
    assert {name for name in modules if name.startswith("espwire.")} <= {"espwire._version"}
