"""Shell completion: what the program answers when a shell's script asks, and what it loads to do so."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from espwire.chips.index import NAMES
from espwire.cli.app import COMPLETION_VARIABLE
from espwire.cli.command_table import SECTIONS
from espwire.cli.main import main
from espwire.cli.options import complete_port

PROGRAM = """
import json, sys
from espwire.cli.main import run
try:
    run()
except SystemExit as end:
    print(json.dumps([end.code, sorted(sys.modules)]))
"""


def ask(*words: str, shell: str = "bash") -> tuple[list[str], set[str]]:
    """What the program offers for the last of ``words``, and the modules it loaded."""
    line = {"COMP_WORDS": " ".join(("espwire", *words)), "COMP_CWORD": str(len(words))}
    if shell == "fish":
        line["COMP_CWORD"] = words[-1]
    environment = {**os.environ, **line, COMPLETION_VARIABLE: f"{shell}_complete"}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        env=environment,
        encoding="utf-8",
    )
    *offers, last = done.stdout.splitlines()
    assert not done.stderr
    code, modules = json.loads(last)
    assert code == 0 or not offers
    return [offer for offer in offers if offer], set(modules)


def ours(modules: set[str]) -> set[str]:
    return {name for name in modules if name.startswith("espwire.cli.commands.")}


def test_commands_are_offered_without_loading_one() -> None:
    offers, modules = ask("")
    assert offers == [f"plain,{name}" for section in SECTIONS.values() for name in section]
    assert not ours(modules)
    assert not {"serial", "rich", "espwire.device.connect", "platformdirs"} & modules
    assert "plain,write-flash" in ask("wri")[0]
    assert "plain,write-flash" in ask("write_f")[0]


def test_options_before_and_after_a_command_are_offered() -> None:
    assert ask("--ba")[0] == ["plain,--baud"]
    offers, modules = ask("write-flash", "--")
    assert {"plain,--baud", "plain,--port", "plain,--flash-mode", "plain,--dry-run"} <= set(offers)
    assert ours(modules) == {"espwire.cli.commands.flash"}


def test_chips_and_usual_rates_and_choices_are_offered_without_looking_for_ports() -> None:
    offers, modules = ask("--chip", "")
    assert offers == [f"plain,{name}" for name in ("auto", *NAMES)]
    assert "serial" not in modules
    assert ask("write-flash", "-b", "92")[0] == ["plain,921600"]
    assert ask("write-flash", "--flash-mode", "q")[0] == ["plain,qio", "plain,qout"]
    assert ask("completion", "z")[0] == ["plain,zsh"]
    assert ask("virtual", "")[0] == ["plain,serve"]


def test_ports_are_those_that_are_here(monkeypatch: pytest.MonkeyPatch) -> None:
    from espwire.transport.ports import PortIdentity

    there = (
        PortIdentity(path="/dev/ttyS0"),
        PortIdentity(path="/dev/ttyUSB0", vid=0x10C4, pid=0xEA60),
    )
    monkeypatch.setattr("espwire.transport.ports.list_system_ports", lambda: there)
    place = click.Context(click.Command("espwire")), click.Option(["--port"])
    assert [item.value for item in complete_port(*place, "")] == ["/dev/ttyUSB0", "/dev/ttyS0"]
    assert [item.value for item in complete_port(*place, "/dev/ttyS")] == ["/dev/ttyS0"]
    assert "serial" in ask("--port", "/dev/no-such-")[1]


def test_where_nothing_else_is_known_the_shell_completes_files() -> None:
    assert ask("write-flash", "0x0", "firm")[0] == ["file,firm"]


@pytest.mark.parametrize(
    "words", [("no-such-command", ""), ("--chip", "nonsense", "write-flash", "--no-such", "x")]
)
def test_a_broken_line_is_answered_with_nothing_or_files_and_no_noise(
    words: tuple[str, ...],
) -> None:
    offers, _ = ask(*words)
    assert offers in ([], ["file,x"], ["file,"])


def test_fish_and_zsh_are_told_what_a_command_does() -> None:
    about = SECTIONS["Information"]["read-mac"].help
    assert f"plain,read-mac\t{about}" in ask("read-m", shell="fish")[0]
    assert about in ask("read-mac", shell="zsh")[0]


@pytest.mark.parametrize("program", ["espwire", "esptool.py"])
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_script_names_the_program_and_the_variable(
    shell: str, program: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["completion", shell, "--program", program]) == 0
    script = capsys.readouterr().out
    assert f"{COMPLETION_VARIABLE}={shell}_complete" in script
    assert program in script
    assert main(["completion", "tcsh"]) == 2


@pytest.mark.skipif(shutil.which("bash") is None or sys.platform == "win32", reason="no bash here")
def test_bash_takes_the_script(tmp_path: Path) -> None:
    program = tmp_path / "espwire"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m espwire "$@"\n')
    program.chmod(0o755)
    line = (
        'eval "$(espwire completion bash)"; COMP_WORDS=(espwire read-m); COMP_CWORD=1; '
        'complete -p espwire; _espwire_completion espwire; echo "${COMPREPLY[@]}"'
    )
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", line],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": path},
    )
    assert "_espwire_completion espwire" in done.stdout, done.stderr
    offered = set(done.stdout.splitlines()[-1].split())
    assert "read-mac" in offered
    assert all(name.startswith("read-m") for name in offered)
