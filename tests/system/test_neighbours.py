"""espwire, espwire-compat and esptool 5.6.0 in real environments, in either order: who owns which program and module.

``make clients`` brings the wheels and what they depend on; ``ESPWIRE_CLIENTS`` names its folder.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import espwire

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
WINDOWS = os.name == "nt"
NAMES = ("esptool", "espefuse", "espsecure", "esp_rfc2217_server")
PROGRAMS = (*NAMES, *(f"{name}.py" for name in NAMES))
OURS, THEIRS = f"espwire {espwire.__version__}", "esptool v5.6.0"
PROBE = """
import esptool, esptool.cmds, sys
from esptool.targets import CHIP_LIST
assert sys.modules["esptool"] is esptool and hasattr(esptool, "__path__")
esptool.main(["version"])
"""


class Environment:
    """A virtual environment of its own, whose packages depend on those in ``base``."""

    def __init__(self, place: Path, clients: Path) -> None:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(place)], check=True)
        self.bin = place / ("Scripts" if WINDOWS else "bin")
        self.python = self.bin / ("python.exe" if WINDOWS else "python")
        self.site = next(place.rglob("site-packages"))
        (self.site / "zz-dependencies.pth").write_text(
            f"{next((clients / 'base').rglob('site-packages'))}\n", "utf-8"
        )
        self.wheels = clients / "wheels"

    def pip(self, *words: str) -> str:
        """Run pip on this environment, without a network; what it said."""
        command = [
            sys.executable,
            "-m",
            "pip",
            "--disable-pip-version-check",
            "--python",
            str(self.python),
            *words,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def install(self, *names: str) -> None:
        """Install these distributions from their wheels, at once."""
        wheels = [str(next(self.wheels.glob(f"{name.replace('-', '_')}-*.whl"))) for name in names]
        self.pip("install", "--no-index", "--no-deps", "--no-compile", "--force-reinstall", *wheels)

    def uninstall(self, name: str) -> None:
        self.pip("uninstall", "--yes", name)

    def run(self, program: str, *words: str) -> subprocess.CompletedProcess[str]:
        """Start a program of the environment as a shell does, by its file in ``bin``."""
        path = self.bin / program
        command = (
            [str(path)] if not WINDOWS or path.suffix != ".py" else [str(self.python), str(path)]
        )
        return subprocess.run(
            [*command, *words],
            cwd=self.bin.parent,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def version(self, program: str) -> str:
        """The first line that the program prints for ``version``."""
        done = self.run(program, "version")
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[0]

    def probe(self) -> str:
        """The first line of ``esptool.main(["version"])`` in another program of the same folder."""
        (self.bin / "probe.py").write_text(f"#!{self.python}\n{PROBE}", "utf-8")
        (self.bin / "probe.py").chmod(0o755)
        done = self.run("probe.py")
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()[0]

    def has(self, program: str) -> bool:
        return any((self.bin / f"{program}{suffix}").exists() for suffix in ("", ".exe"))


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    path = os.environ.get("ESPWIRE_CLIENTS")
    if not path:
        if os.environ.get("ESPWIRE_REQUIRE_PEERS"):
            pytest.fail(
                "ESPWIRE_REQUIRE_PEERS is set, but ESPWIRE_CLIENTS does not name the folder of `make clients`"
            )
        pytest.skip(
            "needs packages from PyPI that `make clients` installs: set ESPWIRE_CLIENTS to its folder"
        )
    return Environment(tmp_path / "env", Path(path).resolve())


@pytest.mark.parametrize(
    "order", [("esptool", "espwire"), ("espwire", "esptool")], ids="-then-".join
)
def test_espwire_and_esptool_share_an_environment_and_either_can_go(
    order: tuple[str, str], environment: Environment
) -> None:
    for name in order:
        environment.install(name)
    assert environment.version("esptool").startswith(THEIRS)
    assert environment.probe().startswith(THEIRS)
    assert environment.version("espwire") == OURS
    environment.uninstall(order[0])
    if order[0] == "espwire":
        assert all(environment.has(program) for program in PROGRAMS)
        assert environment.version("esptool.py").startswith(THEIRS)
        assert environment.probe().startswith(THEIRS)
    else:
        assert not any(environment.has(program) for program in PROGRAMS)
        assert environment.version("espwire") == OURS


def test_espwire_compat_takes_the_place_of_esptool_and_leaves_it(environment: Environment) -> None:
    environment.install("esptool", "espwire")
    environment.uninstall("esptool")
    environment.install("espwire-compat")
    for program in PROGRAMS:
        done = environment.run(program, "version")
        assert done.returncode == 0, done.stderr
        assert done.stdout.startswith(OURS), program
        assert done.stderr == "", program
    assert environment.probe().startswith(OURS)
    module = environment.run(environment.python.name, "-m", "esptool", "version")
    assert module.stdout.startswith(OURS), module.stderr
    if not WINDOWS:
        transport = environment.bin.parent / "esptool.py"  # as pipx puts programs on the path
        transport.symlink_to(environment.bin / "esptool.py")
        done = subprocess.run(
            [transport, "version"], capture_output=True, text=True, check=True, timeout=60
        )
        assert (done.stdout.startswith(OURS), done.stderr) == (True, "")

    environment.uninstall("espwire-compat")
    assert not any(environment.has(program) for program in PROGRAMS)
    assert environment.run(environment.python.name, "-c", "import esptool").returncode == 1
    assert environment.version("espwire") == OURS
    environment.install("esptool")
    assert environment.version("esptool").startswith(THEIRS)
    assert environment.probe().startswith(THEIRS)


def test_esptool_over_espwire_compat_is_whole_and_its_module_stays_when_espwire_compat_goes(
    environment: Environment,
) -> None:
    environment.install("espwire", "espwire-compat")
    environment.install("esptool")
    assert environment.version("esptool").startswith(THEIRS)
    assert environment.version("esptool.py").startswith(THEIRS)
    assert environment.probe().startswith(THEIRS)
    environment.uninstall("espwire-compat")
    assert environment.probe().startswith(THEIRS)
    environment.install("esptool")  # the programs had the same names, and pip removed them
    assert environment.version("esptool").startswith(THEIRS)


def test_espwire_compat_over_esptool_says_whose_module_it_is(environment: Environment) -> None:
    environment.install("espwire", "esptool")
    environment.install("espwire-compat")
    done = environment.run("esptool", "version")
    assert done.stdout.startswith(OURS)
    assert "[two-esptools]" in done.stderr
    assert environment.probe().startswith(THEIRS)
    environment.uninstall("esptool")
    assert environment.probe().startswith(OURS)
    environment.install("espwire-compat")
    done = environment.run("esptool.py", "version")
    assert done.stdout.startswith(OURS)
    assert done.stderr == ""


def test_a_program_does_not_take_the_place_of_a_module_that_is_not_installed(
    environment: Environment,
) -> None:
    environment.install("espwire", "espwire-compat")
    probe = environment.bin / "probe.py"
    probe.write_text(
        "for name in ('espefuse', 'espsecure', 'esp_rfc2217_server'):\n"
        "    try:\n        __import__(name)\n    except ModuleNotFoundError as error:\n        print(error.name)\n",
        "utf-8",
    )
    done = environment.run(environment.python.name, str(probe))
    assert done.stdout.split() == ["espefuse", "espsecure", "esp_rfc2217_server"], done.stderr


def test_a_program_does_not_take_a_modules_place_in_another_environment(tmp_path: Path) -> None:
    """As ~/.local/bin is shared by pipx and programs of the system's Python, which do not have espwire-compat."""
    for name in PROGRAMS[len(NAMES) :]:
        (tmp_path / name).write_bytes((ROOT / "compat/scripts" / name).read_bytes())
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib/esptool.py").write_text("where = 'lib'\n", "utf-8")
    probe = tmp_path / "probe.py"
    probe.write_text(
        "import sys\nsys.path.append(sys.argv[1])\nimport esptool\nprint(esptool.where)\n"
        "try:\n    import espefuse\nexcept ModuleNotFoundError as error:\n    print(error.name)\n",
        "utf-8",
    )
    command = [sys.executable, "-S", str(probe), str(tmp_path / "lib")]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.stdout.split() == ["lib", "espefuse"], done.stderr


def test_an_editable_install_has_the_same_programs_and_module() -> None:
    """The environment that runs the tests is one: ``make venv`` installs both distributions so."""
    folder = Path(sys.executable).parent
    if not (folder / "esptool.py").exists():
        pytest.skip("espwire-compat is not installed in this environment: run `make venv`")
    code = f"import sys; sys.path.insert(0, {str(folder)!r}){PROBE}"
    for command in (
        [sys.executable, "-c", code],
        [sys.executable, str(folder / "esptool.py"), "version"],
        [sys.executable, "-m", "esptool", "version"],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.stdout.startswith(OURS), done.stderr
        assert done.stderr == ""
