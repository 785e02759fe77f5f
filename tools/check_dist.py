"""Each file of a release flashes a virtual chip in an empty environment; the wheel's environment stays below its size."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from installed_size import main as check_size
from make_dist import DIST, ROOT

CLEAN = ROOT / "build/clean"


def make_environment(name: str, *, pip: bool) -> Path:
    """A new environment; returns its Python."""
    folder = CLEAN / name
    more = [] if pip else ["--without-pip"]
    subprocess.run([sys.executable, "-m", "venv", *more, str(folder)], check=True)
    return folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def flash(*command: str | Path) -> None:
    """The demonstration writes firmware to a virtual chip and compares the flash."""
    done = subprocess.run([*command, "demo"], check=True, capture_output=True, text=True)
    if "The flash contains exactly the bytes" not in done.stdout:
        sys.exit(f"{command}: {done.stdout}{done.stderr}")


def check_sums() -> None:
    """Every file has the SHA-256 that is listed."""
    for line in (DIST / "SHA256SUMS").read_text(encoding="utf-8").splitlines():
        digest, name = line.split()
        if hashlib.sha256((DIST / name).read_bytes()).hexdigest() != digest:
            sys.exit(f"{name} has another SHA-256 than SHA256SUMS lists")


def main() -> None:
    """Check all files of dist/."""
    shutil.rmtree(CLEAN, ignore_errors=True)
    check_sums()
    for pattern in ("espwire-*.whl", "espwire-*.tar.gz"):
        (package,) = DIST.glob(pattern)
        python = make_environment(package.name, pip=True)
        pip = ["-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input", "install"]
        subprocess.run([python, *pip, "--no-compile", package], check=True)
        # before it runs, which stores compiled modules
        if package.suffix == ".whl" and (failed := check_size(str(CLEAN / package.name))):
            sys.exit(failed)
        flash(python, "-m", "espwire")
        print(f"{package.name} flashes a virtual chip")
    python = make_environment("pyz", pip=False)
    flash(python, "-I", DIST / "espwire.pyz")
    print("espwire.pyz flashes a virtual chip")


if __name__ == "__main__":
    main()
