"""The same settings files, in the same places, given to esptool and to us: which one counts, and what it means.

What esptool reads is told by its own words ("Loaded custom configuration from …"), what a key means by the constants
it then has, and by how often it tries a port on which nobody answers.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "system"))
from rfc2217_server import serve

from espwire.cli.config import build_settings
from espwire.cli.config_files import read_files

if sys.platform == "win32":
    pytest.skip("the folders of POSIX", allow_module_level=True)

ALL_KEYS = """\
[esptool]
timeout = 4
chip_erase_timeout = 100
max_timeout = 300
sync_timeout = 0.25
md5_timeout_per_mb = 9
erase_region_timeout_per_mb = 31
erase_write_timeout_per_mb = 41
mem_end_rom_timeout = 0.3
serial_write_timeout = 11
connect_attempts = 8
write_block_attempts = 4
reset_delay = 0.06
open_port_attempts = 2
custom_reset_sequence = D0|R1|W0.1|D1|R0|W0.5|D0
custom_hard_reset_sequence = R1|W0.2|R0
"""
SOME_KEYS = "[esptool]\nTimeout = 5\nCHIP_ERASE_TIMEOUT: 90\n"
# names of esptool's constants, as it prints them → ours
CONSTANTS = {
    "DEFAULT_TIMEOUT": lambda s: s.timing.default,
    "CHIP_ERASE_TIMEOUT": lambda s: s.timing.chip_erase,
    "MAX_TIMEOUT": lambda s: s.timing.longest,
    "SYNC_TIMEOUT": lambda s: s.timing.sync,
    "MD5_TIMEOUT_PER_MB": lambda s: s.timing.md5_per_mb,
    "ERASE_REGION_TIMEOUT_PER_MB": lambda s: s.timing.erase_per_mb,
    "ERASE_WRITE_TIMEOUT_PER_MB": lambda s: s.timing.write_per_mb,
    "MEM_END_ROM_TIMEOUT": lambda s: s.timing.mem_end,
    "DEFAULT_SERIAL_WRITE_TIMEOUT": lambda s: s.timing.write,
    "DEFAULT_CONNECT_ATTEMPTS": lambda s: s.retry.connect_attempts,
    "DEFAULT_OPEN_PORT_ATTEMPTS": lambda s: s.retry.open_attempts,
    "WRITE_BLOCK_ATTEMPTS": lambda s: s.retry.block_attempts,
}
# where a file is put, and what it holds; {dir} is the folder of the test
GOOD, OTHER, RUBBISH = "[esptool]\ntimeout = 5\n", "[pytest]\nx = 1\n", "timeout = 5\n"
SITUATIONS = {
    "none": {},
    "here": {"cwd/esptool.cfg": GOOD},
    "three names": {"cwd/esptool.cfg": GOOD, "cwd/setup.cfg": GOOD, "cwd/tox.ini": GOOD},
    "two names": {"cwd/setup.cfg": GOOD, "cwd/tox.ini": GOOD},
    "no section in the first": {"cwd/esptool.cfg": OTHER, "cwd/tox.ini": GOOD},
    "section in capitals": {"cwd/esptool.cfg": "[ESPTOOL]\ntimeout = 5\n", "cwd/tox.ini": GOOD},
    "rubbish in the first": {"cwd/esptool.cfg": RUBBISH, "cwd/setup.cfg": GOOD},
    "twice in the first": {"cwd/esptool.cfg": GOOD + "timeout = 6\n", "home/esptool.cfg": GOOD},
    "key without a value": {"cwd/esptool.cfg": "[esptool]\ntimeout\n", "home/esptool.cfg": GOOD},
    "an empty section": {"cwd/esptool.cfg": "[esptool]\n", "cwd/setup.cfg": GOOD},
    "only unknown keys": {"cwd/esptool.cfg": "[esptool]\nbogus = 1\n", "cwd/setup.cfg": GOOD},
    "only defaults": {"cwd/esptool.cfg": "[DEFAULT]\ntimeout = 5\n[x]\n", "home/esptool.cfg": GOOD},
    "config folder and home": {"home/.config/esptool/esptool.cfg": GOOD, "home/esptool.cfg": GOOD},
    "setup.cfg of the config folder": {
        "home/.config/esptool/setup.cfg": GOOD,
        "home/esptool.cfg": GOOD,
    },
    "home": {"home/esptool.cfg": GOOD},
    "tox.ini of home": {"home/tox.ini": GOOD},
    "not XDG's folder": {"home/xdg/esptool/esptool.cfg": GOOD},
    "variable": {"my.cfg": GOOD, "cwd/esptool.cfg": GOOD, "$": "my.cfg"},
    "variable without section": {"my.cfg": OTHER, "cwd/esptool.cfg": GOOD, "$": "my.cfg"},
    "variable with rubbish": {"my.cfg": RUBBISH, "cwd/esptool.cfg": GOOD, "$": "my.cfg"},
    "variable of no file": {"cwd/esptool.cfg": GOOD, "$": "my.cfg"},
    "variable of a folder": {"my.cfg/x": "", "cwd/esptool.cfg": GOOD, "$": "my.cfg"},
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """Puts files into a folder with a home of its own; the environment for both programs."""
    home, cwd = tmp_path / "home", tmp_path / "cwd"
    for folder in (home, cwd):
        folder.mkdir()

    def put(files):
        environment = {
            name: value for name, value in os.environ.items() if name not in ("COLUMNS",)
        }
        environment |= {"HOME": str(home), "XDG_CONFIG_HOME": str(home / "xdg"), "COLUMNS": "400"}
        for name, text in files.items():
            if name == "$":
                environment["ESPTOOL_CFGFILE"] = str(tmp_path / text)
                continue
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        monkeypatch.chdir(cwd)
        monkeypatch.setenv("HOME", str(home))
        return environment

    return put


def run(esptool, environment, *arguments):
    done = subprocess.run(
        [esptool, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env=environment,
    )
    return done, " ".join((done.stdout + done.stderr).split())


@pytest.mark.parametrize("files", SITUATIONS.values(), ids=SITUATIONS)
def test_the_same_file_counts(files, esptool, place):
    environment = place(files)
    done, said = run(esptool, environment, "version")
    assert done.returncode == 0, said
    theirs = re.search(r"Loaded custom configuration from (\S+)", said)
    ours = read_files(environment)
    assert [os.path.realpath(path) for path in ours.files] == (
        [os.path.realpath(theirs[1])] if theirs else []
    )
    unknown = re.search(r"unknown config option", said)
    assert bool(unknown) == ("config-unknown-key" in {code for code, _ in ours.warnings})
    broken = re.search(r"Ignoring invalid config file", said)
    assert bool(broken) == ("config-ignored" in {code for code, _ in ours.warnings})


@pytest.mark.parametrize("text", ["", ALL_KEYS, SOME_KEYS, "[esptool]\nchip_erase_timeout = 100\n"])
def test_the_same_file_gives_the_same_values(text, esptool, place):
    environment = place({"cwd/esptool.cfg": text} if text else {})
    program = (
        "import json, esptool.loader as l\n"
        "print('@' + json.dumps({n: v for n, v in vars(l).items() if n.isupper() and isinstance(v, (int, float))}))"
    )
    python = Path(esptool).parent / "python"
    done = subprocess.run(
        [python, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    theirs = json.loads(done.stdout.split("@")[-1])
    ours = build_settings(read_files(environment).values)
    assert {name: theirs[name] for name in CONSTANTS} == {
        name: pick(ours) for name, pick in CONSTANTS.items()
    }


@pytest.mark.parametrize(
    "line", ["timeout = abc", "connect_attempts = 2.5", "timeout = 4 ; comment"]
)
def test_what_esptool_stumbles_over_is_an_error_here(line, esptool, place):
    environment = place({"cwd/esptool.cfg": f"[esptool]\n{line}\n"})
    assert run(esptool, environment, "version")[0].returncode != 0
    ours = subprocess.run(
        [sys.executable, "-m", "espwire", "-p", "virtual:esp32", "read-mac"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=environment,
    )
    assert ours.returncode == 2
    assert re.search(r"esptool\.cfg, line 2: \w+ must be .*\[config-value\]", ours.stderr)


def attempts_on(name, command, environment):
    """How many rounds of SYNC arrive at a terminal on which nobody answers, told by the pauses between them."""
    master, slave = os.openpty()
    import select
    import time
    import tty

    tty.setraw(slave)
    process = subprocess.Popen(
        [*command, "-p", os.ttyname(slave)]
        if name == "-p"
        else [*command[:1], "-p", os.ttyname(slave), *command[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=environment,
    )
    syncs, limit = 0, time.monotonic() + 60
    while process.poll() is None and time.monotonic() < limit:
        if select.select([master], [], [], 0.05)[0]:
            syncs += os.read(master, 65536).count(b"\x07\x07\x12\x20")
    process.communicate(timeout=10)
    os.close(master)
    os.close(slave)
    return syncs


@pytest.mark.parametrize(
    ("files", "variables", "options", "rounds"),
    [
        ({"cwd/esptool.cfg": "[esptool]\nconnect_attempts = 2\n"}, {}, [], 2),
        (
            {"cwd/esptool.cfg": "[esptool]\nconnect_attempts = 2\n"},
            {"ESPTOOL_CONNECT_ATTEMPTS": "1"},
            [],
            1,
        ),
        ({}, {"ESPTOOL_CONNECT_ATTEMPTS": "3"}, ["--connect-attempts", "1"], 1),
    ],
)
def test_attempts_have_the_same_effect(files, variables, options, rounds, esptool, place):
    environment = place(files) | variables
    common = ["--before", "no-reset", *options, "read-mac"]
    theirs = attempts_on("", [esptool, *common], environment)
    program = "import sys\nfrom espwire.cli.main import main\nsys.exit(main(['--no-state', *sys.argv[1:]]))"
    ours = attempts_on("-p", [sys.executable, "-c", program, *common], environment)
    assert ours == 5 * rounds
    assert theirs in (5 * rounds, 5 * rounds + 1)


@pytest.mark.parametrize(
    ("key", "sequence", "states"),
    [
        ("custom_reset_sequence", "D0|R1|W0.1|D1|R0|W0.3|D0", "01 11 10 00"),
        ("custom_reset_sequence", "R0|D1|W0.1|R1|W0.1|R0|W0.3|D0", "10 11 10 00"),
        ("custom_hard_reset_sequence", "D0|R1|W0.1|R0|W0.1|D1|W0.1|D0", "01 00 10 00"),
    ],
)
def test_custom_sequences_move_the_same_lines(key, sequence, states, esptool, place):
    environment = place({"cwd/esptool.cfg": f"[esptool]\n{key} = {sequence}\n"})
    program = "import sys\nfrom espwire.cli.main import main\nsys.exit(main(['--no-state', *sys.argv[1:]]))"
    for command in ([esptool, "--no-stub"], [sys.executable, "-c", program]):
        with serve("virtual:esp32?boot=app&circuit=direct") as (url, port):
            done = subprocess.run(
                [*command, "-p", url, "--connect-attempts", "2", "read-mac"],
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
                env=environment,
            )
            assert done.returncode == 0, done.stdout + done.stderr
            # esptool writes DTR again after each RTS, for some Windows drivers: only changes are compared
            seen = [f"{dtr:d}{rts:d}" for dtr, rts in port.changes]
            found = " ".join(
                one for one, before in zip(seen, ["", *seen], strict=False) if one != before
            )
            assert states in found, (command, found)
