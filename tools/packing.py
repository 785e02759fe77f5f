"""What the builds of the web page and of espwire.pyz share: pip, wheels, archives whose bytes depend on their files only."""

from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path

EPOCH = (1980, 1, 1, 0, 0, 0)  # the time of all files in an archive
EPOCH_S = "315532800"  # the same, for SOURCE_DATE_EPOCH
NOT_NEEDED = {
    "bin", "__pycache__", "share", "RECORD", "INSTALLER", "REQUESTED", "direct_url.json"
}  # fmt: skip


def build_package(folder: Path, kind: str, into: Path) -> None:
    """Build the ``wheel`` or ``sdist`` of the project in ``folder``."""
    code = f"import hatchling.build as b; b.build_{kind}({str(into)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=folder, check=True, stdout=subprocess.DEVNULL)


def install(folder: Path, *arguments: str | Path) -> None:
    """Install packages into a folder.

    :raises SystemExit: pip fails, or a package is not pure Python
    """
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input"]
    into = ["install", "--no-compile", "--target", folder]
    done = subprocess.run([*pip, *into, *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    if compiled := [path.name for path in folder.rglob("*") if path.suffix in (".so", ".pyd")]:
        sys.exit(f"not pure Python: {', '.join(compiled)}")


def list_files(folder: Path) -> list[tuple[str, bytes]]:
    """Names and contents of the files to pack, sorted."""
    found = []
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.is_file() and not NOT_NEEDED.intersection(inside.parts):
            found.append((inside.as_posix(), path.read_bytes()))
    return found


def pack_zip(folder: Path) -> bytes:
    """A zip archive of the files in a folder."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in list_files(folder):
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, data, zipfile.ZIP_DEFLATED)
    return content.getvalue()
