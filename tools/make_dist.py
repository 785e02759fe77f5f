"""Builds what a release consists of into dist/: wheels and source archives of espwire and espwire-compat, espwire.pyz,
and the web page (where there is npm).

espwire.pyz is one file that any Python from 3.11 on runs, without pip: espwire with the packages that it needs, as far as
these are pure Python (`deflate` is not; zlib does its work). SHA256SUMS lists all files.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tomllib
from pathlib import Path

import make_web
from packing import EPOCH_S, build_package, install, pack_zip

ROOT = Path(__file__).resolve().parents[1]
DIST, STAGE = ROOT / "dist", ROOT / "build/pyz"
SHEBANG = b"#!/usr/bin/env python3\n"
COMPILED = ("deflate",)  # optional, and not for every platform
MAIN = '''"""Starts espwire from the archive."""

import sys

if sys.version_info < (3, 11):
    sys.exit("espwire needs Python 3.11 or later; this is " + sys.version.split()[0])
from espwire.cli.main import run

run()
'''


def build_packages() -> None:
    """Wheels and source archives."""
    for folder in (ROOT, ROOT / "compat"):
        for kind in ("wheel", "sdist"):
            build_package(folder, kind, DIST)


def install_packages() -> None:
    """espwire and what it needs, in the folder of the archive.

    :raises SystemExit: a package is not pure Python
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [name for name in project["dependencies"] if not name.startswith(COMPILED)]
    (wheel,) = DIST.glob("espwire-*.whl")
    install(STAGE, *needed)
    install(STAGE, "--no-deps", wheel)


def build_archive() -> None:
    """The archive that Python runs."""
    (STAGE / "__main__.py").write_text(MAIN, encoding="utf-8")
    file = DIST / "espwire.pyz"
    file.write_bytes(SHEBANG + pack_zip(STAGE))
    file.chmod(0o755)


def add_web_page() -> None:
    """The archive that `espwire web` serves."""
    if shutil.which("npm") is None:
        print("npm is missing: the web page is left out")
        return
    make_web.main()
    shutil.copy(make_web.ARCHIVE, DIST)


def write_sums() -> None:
    """SHA256SUMS, as `sha256sum --check` reads it."""
    lines = [
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}\n"
        for path in sorted(DIST.iterdir())
        if path.name != "SHA256SUMS"
    ]
    (DIST / "SHA256SUMS").write_text("".join(lines), encoding="utf-8")


def main() -> None:
    """Build everything, and print names and sizes."""
    for folder in (DIST, STAGE):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    os.environ.setdefault("SOURCE_DATE_EPOCH", EPOCH_S)
    build_packages()
    install_packages()
    build_archive()
    add_web_page()
    write_sums()
    for path in sorted(DIST.iterdir()):
        print(f"{path.stat().st_size:>10,}  {path.name}")


if __name__ == "__main__":
    main()
