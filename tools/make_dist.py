"""Builds what a release consists of into dist/: wheels and source archives of espwire and espwire-compat, espwire.pyz,
and the web page (where there is npm).

espwire.pyz is one file that any Python from 3.11 on runs, without pip: espwire with the packages that it needs, as far as
these are pure Python (`deflate` is not; zlib does its work). SHA256SUMS lists all files.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DIST, STAGE = ROOT / "dist", ROOT / "build/pyz"
EPOCH = (1980, 1, 1, 0, 0, 0)  # of all files in the archive, so that equal input gives equal bytes
SHEBANG = b"#!/usr/bin/env python3\n"
COMPILED = ("deflate",)  # optional, and not for every platform
NOT_NEEDED = ("bin", "__pycache__", "share", "RECORD", "INSTALLER", "REQUESTED", "direct_url.json")
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
            code = f"import hatchling.build as b; b.build_{kind}({str(DIST)!r})"
            subprocess.run(
                [sys.executable, "-c", code], cwd=folder, check=True, stdout=subprocess.DEVNULL
            )


def install_packages() -> None:
    """espwire and what it needs, in the folder of the archive.

    :raises SystemExit: a package is not pure Python
    """
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = [name for name in project["dependencies"] if not name.startswith(COMPILED)]
    (wheel,) = DIST.glob("espwire-*.whl")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input"]
    into = ["--no-compile", "--target", str(STAGE)]
    subprocess.run([*pip, "install", *into, *needed], check=True)
    subprocess.run([*pip, "install", *into, "--no-deps", str(wheel)], check=True)
    if compiled := [path.name for path in STAGE.rglob("*") if path.suffix in (".so", ".pyd")]:
        sys.exit(f"not pure Python: {', '.join(compiled)}")


def build_archive() -> Path:
    """The archive that Python runs."""
    (STAGE / "__main__.py").write_text(MAIN, encoding="utf-8")
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for path in sorted(STAGE.rglob("*")):
            inside = path.relative_to(STAGE)
            if path.is_file() and not set(inside.parts) & set(NOT_NEEDED):
                entry = zipfile.ZipInfo(inside.as_posix(), EPOCH)
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED)
    file = DIST / "espwire.pyz"
    file.write_bytes(SHEBANG + content.getvalue())
    file.chmod(0o755)
    return file


def add_web_page() -> None:
    """The archive that `espwire web` serves."""
    if shutil.which("npm") is None:
        print("there is no npm here: the web page is left out")
        return
    import make_web

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
    os.environ.setdefault("SOURCE_DATE_EPOCH", "315532800")
    build_packages()
    install_packages()
    build_archive()
    add_web_page()
    write_sums()
    for path in sorted(DIST.iterdir()):
        print(f"{path.stat().st_size:>10,}  {path.name}")


if __name__ == "__main__":
    main()
