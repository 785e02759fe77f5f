"""Builds the web page, build/web: the files of web/, Pyodide from npm, and espwire with its packages from PyPI.

Everything is pinned: npm packages by web/package-lock.json, PyPI packages by the hashes in web/requirements.txt. The
page loads nothing from elsewhere. ``make web`` also writes the archive that `espwire web FILE.zip` serves.
"""

from __future__ import annotations

import io
import json
import lzma
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

from error_links import LINKS
from packing import EPOCH_S, build_package, install, list_files, pack_zip

from espwire._version import __version__

ROOT = Path(__file__).resolve().parents[1]
SOURCE, BUILT = ROOT / "web", ROOT / "build/web"
NPM, STAGE = ROOT / "build/web-npm", ROOT / "build/web-python"
ARCHIVE = ROOT / f"build/espwire-web-{__version__}.zip"
PYODIDE = ("pyodide.mjs", "pyodide.asm.mjs", "pyodide.asm.wasm", "python_stdlib.zip")
PAGE = (".html", ".css", ".mjs", ".svg")
COMPILE = """
import {{ loadPyodide }} from "{npm}/node_modules/pyodide/pyodide.mjs";
const python = await loadPyodide();
python.FS.mkdir("/stage");
python.FS.mount(python.FS.filesystems.NODEFS, {{ root: "{stage}" }}, "/stage");
python.runPython(`
import compileall, py_compile
assert compileall.compile_dir("/stage", quiet=1, legacy=True, stripdir="/stage",
    invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)
`);
"""


def install_pyodide() -> None:
    """Pyodide and the packages of the tests; npm compares their hashes with the lock file."""
    NPM.mkdir(parents=True, exist_ok=True)
    lock = NPM / "package-lock.json"
    wanted = (SOURCE / "package-lock.json").read_bytes()
    if (NPM / ".installed").exists() and lock.exists() and lock.read_bytes() == wanted:
        return
    if shutil.which("npm") is None:
        sys.exit("make web needs node and npm; on Debian: apt install npm")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(SOURCE / name, NPM / name)
    npm = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--silent"]
    subprocess.run(npm, cwd=NPM, check=True)
    (NPM / ".installed").touch()


def install_python() -> None:
    """The wheel of espwire and the packages that it needs in a browser."""
    shutil.rmtree(STAGE, ignore_errors=True)
    STAGE.mkdir(parents=True)
    wheels = ROOT / "build/web-wheel"
    shutil.rmtree(wheels, ignore_errors=True)
    build_package(ROOT, "wheel", wheels)
    (wheel,) = wheels.glob("espwire-*.whl")
    only = ["--no-deps", "--only-binary", ":all:"]
    install(STAGE, *only, "--require-hashes", "-r", SOURCE / "requirements.txt")
    install(STAGE, *only, wheel)


def compile_python() -> None:
    """Compile the modules with Pyodide's own Python, which saves the browser a second at every start."""
    script = NPM / "compile.mjs"
    script.write_text(COMPILE.format(npm=NPM.as_posix(), stage=STAGE.as_posix()), encoding="utf-8")
    subprocess.run(["node", script], cwd=NPM, check=True)


def drop_sources() -> None:
    """Keep what runs: compiled modules and data, without the packages' own tests."""
    for path in STAGE.rglob("*.py"):
        path.unlink()
    for pattern in ("*/tests.pyc", "*/testing.pyc", "*.dist-info/sboms/*"):
        for path in STAGE.glob(pattern):
            path.unlink()


def pack_python() -> None:
    """The Python packages, compressed as a whole by LZMA: two thirds of a zip archive."""
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name, data in list_files(STAGE):
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    (BUILT / "espwire.tar.xz").write_bytes(lzma.compress(content.getvalue(), preset=6))


def copy_page() -> None:
    """The page's own files, and a table of the guide's section for each error."""
    shutil.rmtree(BUILT, ignore_errors=True)
    (BUILT / "pyodide").mkdir(parents=True)
    for path in sorted(SOURCE.iterdir()):
        if path.suffix in PAGE:
            shutil.copy(path, BUILT / path.name)
    for name in PYODIDE:
        shutil.copy(NPM / "node_modules/pyodide" / name, BUILT / "pyodide" / name)
    shutil.copy(ROOT / "src/espwire/demo/esp32c3-hello.bin", BUILT / "esp32c3-hello.bin")
    shutil.copy(ROOT / "LICENSE", BUILT / "LICENSE")
    # no package of Pyodide's own is used
    lock = json.loads((NPM / "node_modules/pyodide/pyodide-lock.json").read_text("utf-8"))
    lock["packages"] = {}
    (BUILT / "pyodide/pyodide-lock.json").write_text(json.dumps(lock), encoding="utf-8")
    shutil.copytree(ROOT / "docs/guide", BUILT / "guide")
    (BUILT / "links.json").write_text(json.dumps(LINKS, sort_keys=True), encoding="utf-8")


def main() -> None:
    """Build the page and its archive; print their sizes."""
    os.environ.setdefault("SOURCE_DATE_EPOCH", EPOCH_S)
    install_pyodide()
    install_python()
    compile_python()
    drop_sources()
    copy_page()
    pack_python()
    ARCHIVE.write_bytes(pack_zip(BUILT))
    size = sum(path.stat().st_size for path in BUILT.rglob("*") if path.is_file())
    print(f"{size:,} bytes in {BUILT.relative_to(ROOT)}; {ARCHIVE.stat().st_size:,} in the archive")


if __name__ == "__main__":
    main()
