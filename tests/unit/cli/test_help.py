"""Help, examples, missing arguments and unknown commands: each leads to the right command line."""

from __future__ import annotations

import shlex
from unittest.mock import patch

import click
import pytest

from espwire.cli.app import LazyGroup, build
from espwire.cli.command_table import SECTIONS
from espwire.cli.context import Context
from espwire.cli.efuse_session import Session
from espwire.cli.help import EXAMPLES
from espwire.cli.main import main
from espwire.cli.suggestions import COMMANDS, GROUP_COMMANDS

NAMES = [name for section in SECTIONS.values() for name in section]


def find_paths() -> list[str]:
    """Every command, subcommands included, as typed."""
    root, paths = build(), []
    with click.Context(root, obj=Context()) as context:
        for name in NAMES:
            command = root.get_command(context, name)
            paths.append(name)
            if isinstance(command, LazyGroup):
                paths += [f"{name} {below}" for below in command.entries]
    return paths


def does_parse(line: str) -> bool:
    """Whether a command line parses; nothing is run."""
    with (
        patch.object(click.Command, "invoke", lambda command, context: None),
        patch.object(Session, "run", lambda session, commands, steps: None),  # of eFuse commands
    ):
        return main(shlex.split(line)) == 0


def answer(line: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[str, str]:
    assert main(line) == 2
    error, hint = capsys.readouterr().err.splitlines()
    return error.removeprefix("error: "), hint.removeprefix("hint: ")


@pytest.mark.parametrize("group", ["partitions", "ota", "image", "secure", "virtual", "efuse"])
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_group_without_a_command_shows_its_help(
    group: str, more: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*more, group]) == 0
    shown = capsys.readouterr()
    assert main([group, "--help"]) == 0
    assert shown.out == capsys.readouterr().out
    assert shown.out.startswith(f"Usage: espwire {group} ")
    assert "Examples:" in shown.out
    assert shown.err == ""


def test_options_without_a_command_name_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(["-p", "COM3"], capsys) == (
        "no command given [usage]",
        "Run `espwire --help` to list the commands.",
    )


def test_an_option_without_its_value_leads_to_the_help_of_its_command(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for words, command in (
        (["flash", "--erase"], "espwire flash"),
        (["write-flash", "0", "a.bin", "--diff-with"], "espwire write-flash"),
        (["flash", "--port"], "espwire flash"),
        (["--port"], "espwire"),
    ):
        text, hint = answer(words, capsys)
        assert text == f"Option '{words[-1]}' requires an argument [usage]"
        assert hint == f"See `{command} --help`."


def test_every_command_has_examples_and_each_parses(capsys: pytest.CaptureFixture[str]) -> None:
    assert EXAMPLES.keys() == set(find_paths())
    for path, lines in EXAMPLES.items():
        assert main([*path.split(), "--help"]) == 0
        text = capsys.readouterr().out
        for line in lines:
            assert f"  espwire {line}\n" in text
            assert does_parse(line), (line, capsys.readouterr().err)
            capsys.readouterr()
            assert line == "--version" or path in line


@pytest.mark.parametrize(
    ("line", "missing"),
    [
        ("dump-mem", "missing arguments ADDRESS and SIZE and FILE"),
        ("dump-mem 0x0", "missing arguments SIZE and FILE"),
        ("write-mem 0x0", "missing argument VALUE"),
        ("image-diff", "missing arguments OLD and NEW"),
        ("image-diff a.bin", "missing argument NEW"),
        ("completion", "missing argument SHELL"),
        ("virtual serve", "missing argument CHIP"),
        ("ota switch", "missing argument SLOT"),
        ("erase-region", "missing argument ADDRESS SIZE"),
    ],
)
def test_missing_arguments_are_named_with_an_example(
    line: str, missing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    error, hint = answer(line.split(), capsys)
    assert error == f"{missing} [usage]"
    command = line.split(" 0x0", maxsplit=1)[0].removesuffix(" a.bin")
    assert hint.startswith(f"For example: `espwire {EXAMPLES[command][0]}`.")


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("upload", "flash PATH"),
        ("UPLOAD", "flash PATH"),
        ("burn", "flash PATH"),
        ("write", "write-flash ADDRESS FILE"),
        ("read", "read-flash 0 ALL FILE"),
        ("dump", "read-flash 0 ALL FILE"),
        ("save", "read-flash 0 ALL FILE"),
        ("verify", "verify-flash ADDRESS FILE"),
        ("erase", "erase-flash"),
        ("info", "chip-info"),
        ("id", "chip-info"),
        ("sign_data", "secure sign-data -v 2 -k KEY FILE"),
        ("mac", "read-mac"),
        ("list", "ports"),
        ("serial", "monitor"),
        ("term", "monitor"),
        ("help", "--help"),
        ("rfc2217", "serve-port PORT"),
        ("bridge", "serve-port PORT"),
        ("gen_esp32part.py", "partitions show"),
    ],
)
def test_a_synonym_leads_to_the_command(
    name: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answer([name], capsys) == (f"unknown command {name!r} [usage]", f"Use `espwire {line}`.")


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        (["partitions", "list"], "Use `espwire partitions show`."),
        (["ota", "set", "ota_1"], "Use `espwire ota switch SLOT`."),
        (["image", "info", "a.bin"], "Use `espwire image-info FILE`."),
        (["virtual", "run"], "Use `espwire virtual serve CHIP`."),
        (["virtual", "sevre"], "Did you mean `espwire virtual serve`?"),
        (["wriet-flash"], "Did you mean `espwire write-flash`?"),
        (["uplaod"], "Did you mean `espwire flash PATH`?"),
        (["merge_b"], "Did you mean `espwire merge-bin`?"),
        (["app.bin"], "To write it, use `espwire flash app.bin`."),
        (
            ["0x10000", "app.bin"],
            "To write a file to an address, use `espwire write-flash 0x10000 FILE`.",
        ),
        (["/dev/ttyUSB0", "chip-info"], "To select a port, use `-p /dev/ttyUSB0`."),
        (["qzx"], "Run `espwire --help` to list the commands."),
        (["{x}.bin"], "To write it, use `espwire flash '{x}.bin'`."),
    ],
)
def test_an_unknown_word_is_answered_with_the_likely_command(
    line: list[str], hint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert answer(line, capsys)[1] == hint


def test_every_synonym_leads_to_a_command_and_hides_none() -> None:
    paths = {*find_paths(), "--help"}
    for names in (COMMANDS, *GROUP_COMMANDS.values()):
        for name, line in names.items():
            assert any(line == path or line.startswith(f"{path} ") for path in paths), (name, line)
    assert not COMMANDS.keys() & set(NAMES)
    for group, names in GROUP_COMMANDS.items():
        assert not {f"{group} {name}" for name in names} & paths


def test_the_version_as_json_is_an_event(capsys: pytest.CaptureFixture[str]) -> None:
    import json

    assert (
        main(["--version", "--json"])
        == main(["--json", "--version"])
        == main(["version", "--json"])
        == 0
    )
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[0] == events[1] == events[2]
    assert events[0]["event"] == "Result"
    assert events[0]["data"]["version"]
