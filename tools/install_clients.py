"""Environments for programs that import esptool, and one for the tests of installing: ``make clients``.

One environment per file in tests/peers/clients, made as a user would make it: install the client with the esptool that
it wants, uninstall esptool, install espwire and espwire-compat. ``base`` holds what esptool and espwire depend on, but
neither of the two; ``wheels`` holds their wheels and espwire-compat's. All of it is in one folder: .venv-clients.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CLIENTS = ROOT / "tests/peers/clients"
ESPTOOL = "esptool==5.6.0"
BUILD = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
PIP = ("-m", "pip", "--disable-pip-version-check", "--quiet", "--no-input")


def main(folder: Path) -> None:
    """Make every environment that is not there yet, and put this clone's wheels into each."""
    began = time.monotonic()
    wheels = build_wheels(folder / "wheels")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        base = pool.submit(install_base, folder, wheels)
        made = [
            pool.submit(install_client, folder, path, wheels)
            for path in sorted(CLIENTS.glob("*.txt"))
        ]
        lines = [one.result() for one in made]
        base.result()
    print(*lines, sep="\n")
    print(f"{len(lines)} clients in {time.monotonic() - began:.0f} s")


def build_wheels(place: Path) -> list[Path]:
    """This clone's wheels: espwire's and espwire-compat's."""
    place.mkdir(parents=True, exist_ok=True)
    for old in place.glob("espwire*.whl"):
        old.unlink()
    names = []
    for project in (ROOT, ROOT / "compat"):
        command = [sys.executable, "-c", BUILD, str(place)]
        done = subprocess.run(command, cwd=project, stdout=subprocess.PIPE, text=True, check=True)
        names.append(place / done.stdout.split()[-1])
    return names


def install_base(folder: Path, wheels: list[Path]) -> None:
    """Only what the two programs need, so that tests install the programs themselves without a network."""
    base, stamp = folder / "base", folder / f"base/.{ESPTOOL}"
    if not stamp.exists():
        python = make_environment(base)
        run(python, "install", ESPTOOL, *map(str, wheels))
        run(python, "uninstall", "--yes", "esptool", "espwire", "espwire-compat")
        run(python, "wheel", "--no-deps", "--wheel-dir", str(folder / "wheels"), ESPTOOL)
        stamp.touch()


def install_client(folder: Path, requirements: Path, wheels: list[Path]) -> str:
    """The client's environment; returns its pinned versions."""
    place = folder / requirements.stem
    stamp = place / "requirements.txt"
    text = requirements.read_text("utf-8")
    if not stamp.exists() or stamp.read_text("utf-8") != text:
        python = make_environment(place)
        run(python, "install", "--no-compile", "--no-deps", "-r", str(requirements))
        run(python, "uninstall", "--yes", "esptool")
        run(python, "install", "--no-compile", *map(str, wheels))
        stamp.write_text(text, "utf-8")
    else:
        run(
            find_python(place),
            "install",
            "--no-compile",
            "--no-deps",
            "--force-reinstall",
            *map(str, wheels),
        )
    pins = [line for line in text.splitlines() if "==" in line and not line.startswith("#")]
    return f"{requirements.stem}: {', '.join(pins[:4])}"


def make_environment(place: Path) -> Path:
    """An empty environment without pip; its Python."""
    subprocess.run(
        [sys.executable, "-m", "venv", "--clear", "--without-pip", str(place)], check=True
    )
    return find_python(place)


def find_python(place: Path) -> Path:
    """The Python of an environment."""
    return place / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def run(python: Path, *arguments: str) -> None:
    """Run this environment's pip on another one.

    :raises SystemExit: it failed
    """
    command = [sys.executable, *PIP, "--python", str(python), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(arguments)}: {done.stdout}{done.stderr}")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / ".venv-clients").resolve())
