"""Every line that ``--json`` prints, of every command and of its failures, against docs/events.schema.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest

import espwire
from espwire.cli.command_table import SECTIONS
from espwire.cli.main import main

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = json.loads((ROOT / "docs/events.schema.json").read_text("utf-8"))
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
ELF = ROOT / "tests/data/programs/esp32c3-hello.elf"
TABLE = ROOT / "tests/data/partitions/two-slots.bin"
DEMO = Path(espwire.__file__).parent / "demo/esp32c3-hello.bin"
NAMES = [name for section in SECTIONS.values() for name in section]
# what each command is given, and the exit codes it may end with. A command that is not listed is run without words,
# and must succeed: one that cannot needs a line here.
WORDS: dict[str, tuple[list[str], set[int]]] = {
    "efuse": (["efuse", "--virt", "dump"], {0}),
    "write-flash": (["write-flash", "0", "{demo}"], {0}),
    "flash": (["flash", "{demo}", "--app-address", "0"], {0}),
    "verify-flash": (["verify-flash", "0", "{demo}"], {7}),
    "read-flash": (["read-flash", "0", "0x100", "{folder}/out.bin"], {0}),
    "backup": (["backup", "{folder}/out.zip"], {0}),
    "restore": (["restore", "{demo}"], {6}),
    "job": (["job", "{demo}"], {6}),
    "erase-region": (["erase-region", "0", "0x1000"], {0}),
    "read-mem": (["read-mem", "0x40001000"], {0}),
    "write-mem": (["write-mem", "0x3fc80000", "1"], {0}),
    "dump-mem": (["dump-mem", "0x3fc80000", "64", "{folder}/out.bin"], {0}),
    "read-flash-sfdp": (["read-flash-sfdp", "0", "4"], {0}),
    "write-flash-status": (["write-flash-status", "0"], {0}),
    "serve-port": (["serve-port"], {2}),  # without a port: it would run until Ctrl-C
    "monitor": (["monitor"], {2}),  # it has no JSON, and says so in JSON
    "decode": (["decode", "{table}"], {2}),  # as the monitor
    "virtual": (["virtual", "serve", "esp32c3"], {0}),
    "web": (["web", "missing.zip"], {6}),
    "completion": (["completion", "bash"], {0}),
    "load-ram": (["load-ram", "{demo}"], {0}),
    "demo": (["demo", "--no-pace"], {0}),
    "partitions": (["partitions", "show", "{table}"], {0}),
    "ota": (["ota", "status", "--partitions", "{table}"], {0}),
    "image": (["image", "map", "--svg", "{folder}/map.svg"], {0}),
    "secure": (["secure", "signature-info", "{demo}"], {6}),
    "image-info": (["image-info", "{demo}"], {0}),
    "merge-bin": (["merge-bin", "-o", "{folder}/out.bin", "0", "{demo}"], {0}),
    "split-image": (
        ["split-image", "{demo}", "-o", "{folder}/out"],
        {6},
    ),  # it is one image, not a merged file
    "image-diff": (["image-diff", "{demo}", "{demo}"], {0}),
    "elf2image": (["elf2image", "{elf}", "-o", "{folder}/out.bin"], {0}),
    "make-image": (["make-image", "-f", "{demo}", "-a", "0x40100000", "{folder}/out"], {0}),
}
FAILURES = [
    (["write-flash", "0", "missing.bin"], 6),
    (["no-such-command"], 2),
    (["read-mac", "--no-such-option"], 2),
    (["--chip", "esp32", "read-mac"], 4),
    (["--chip", "nonsense", "read-mac"], 2),
    (["--port", "virtual:esp32c3?circuit=none&boot=app", "--connect-attempts", "1", "read-mac"], 4),
    (["--port", "virtual:esp8266", "--no-stub", "read-flash", "0", "16", "out.bin"], 5),
    (["--port", "/no/such/port", "read-mac"], 3),
    (["--config", "/no/such/file", "read-mac"], 2),
]

Run = Callable[..., tuple[int, list[dict[str, Any]]]]


@pytest.fixture
def run(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command line with ``--json`` on a virtual chip, and checks each of its lines."""
    monkeypatch.setattr(
        "espwire.virtual.server.serve", lambda *_, announce, **__: announce("listening on nothing")
    )
    monkeypatch.chdir(tmp_path)
    port = f"virtual:esp32c3?flash={(tmp_path / 'flash').as_posix()}&size=4MB"

    def call(*words: str) -> tuple[int, list[dict[str, Any]]]:
        filled = [word.format(demo=DEMO, folder=tmp_path, elf=ELF, table=TABLE) for word in words]
        code = main(["--json", *([] if "--port" in words else ["--port", port]), *filled])
        out = capsys.readouterr().out
        lines = [json.loads(line) for line in out.splitlines()]
        assert lines, words
        for number, line in enumerate(lines, 1):
            check(line)
            assert line["seq"] == number
        return code, lines

    return call


def check(line: dict[str, Any]) -> None:
    """The schema lets later versions add; today's program prints nothing that the schema does not name."""
    VALIDATOR.validate(line)
    assert set(line) == set(SCHEMA["$defs"][line["event"]]["properties"])


@pytest.mark.parametrize("name", NAMES)
def test_every_line_of_every_command_is_as_the_schema_says(run: Run, name: str) -> None:
    words, codes = WORDS.get(name, ([name], {0}))
    code, lines = run(*words)
    assert code in codes, lines[-1]
    assert lines[-1]["event"] in (("Result", "Resetting", "Note") if code == 0 else ("Error",)), (
        lines[-1]
    )


@pytest.mark.parametrize(
    ("words", "code"),
    FAILURES,
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_a_failure_is_the_last_line_and_numbered_like_the_others(
    run: Run, words: list[str], code: int
) -> None:
    got, lines = run(*words)
    assert got == code, lines
    assert [line["event"] for line in lines].count("Error") == 1
    assert (lines[-1]["event"], lines[-1]["exit_code"]) == ("Error", code)
    named = words[words.index("--port") + 1] if "--port" in words else ""
    assert lines[-1]["device"].startswith(named)


def test_a_bug_is_an_error_line_too(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("espwire.cli.commands.about.draw_ports", lambda *_, **__: 1 / 0)
    code, lines = run("ports")
    assert (code, lines[-1]["code"]) == (70, "bug")
