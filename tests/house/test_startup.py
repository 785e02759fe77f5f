"""The start-up budget: a command loads only what it uses, help and version less, and `import espwire` almost nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from espwire.chips.registry import load_chip
from espwire.image.codec import build, create_image
from espwire.image.model import Segment

HEAVY = {"serial", "rich", "elftools", "cryptography", "bincopy", "deflate", "platformdirs"}
PROGRAM = """
import sys
sys.argv = ["espwire", *sys.argv[1:]]
from espwire.cli.main import run
try:
    run()
except SystemExit as end:
    assert not end.code, end.code
loaded = sorted(sys.modules)
import json
print("\\n" + json.dumps(loaded))
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


def test_commands_for_files_load_only_what_they_use(tmp_path: Path) -> None:
    boot, out = tmp_path / "boot.bin", str(tmp_path / "out.bin")
    image = create_image([Segment(0x3FFF0040, bytes(64))], 0x3FFF0040, chip=load_chip("esp32"))
    boot.write_bytes(build(image))
    unused = HEAVY | {"pathlib", "json", "tomllib", "espwire.cli.state", "espwire.image.elf"}
    if sys.platform != "linux":
        unused -= {"platformdirs", "pathlib"}  # platformdirs finds the settings folder
    assert not find_loaded(PROGRAM, "image-info", str(boot)) & unused
    merge = ["--chip", "esp32", "merge-bin", "-o", out, "0x1000", str(boot)]
    unused |= {"hashlib", "espwire.image.scan", "espwire.flash.model"}
    assert not find_loaded(PROGRAM, *merge) & unused


def test_import_espwire_loads_none_of_its_packages() -> None:
    modules = find_loaded("import json, sys, espwire; print(json.dumps(sorted(sys.modules)))")
    assert {name for name in modules if name.startswith("espwire.")} <= {"espwire._version"}
