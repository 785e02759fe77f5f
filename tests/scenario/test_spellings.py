"""Every name of a command, an option and a value that five versions of esptool had, through our command line.

Parsing only: the command's work is replaced. All spellings of one value must arrive as the same thing.
"""

from __future__ import annotations

import contextlib
import io
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from espwire.cli.command_table import SECTIONS
from espwire.cli.context import Context
from espwire.cli.esptool.spellings import LONG_OPTIONS, MISSING
from espwire.cli.main import main
from espwire.image.header import parse_size

DATA = Path(__file__).resolve().parents[1] / "data"
TABLE: dict[str, dict[str, Any]] = tomllib.loads((DATA / "spellings.toml").read_text("utf-8"))
NOT_YET: dict[str, dict[str, str]] = tomllib.loads(
    (DATA / "spellings-not-yet.toml").read_text("utf-8")
)
HERE = {name for section in SECTIONS.values() for name in section}
# version → names (commands, options, values) that must at least have been parsed, and lines run to that end
LEAST = {
    "1.3": (79, 930),
    "2.8": (104, 1800),
    "3.3.3": (164, 2700),
    "4.12.0": (289, 4100),
    "5.6.0": (296, 2400),
}
MOST_NOT_YET = 7

WORDS = {
    **dict.fromkeys(("address", "addr"), "0x40000000"),
    **dict.fromkeys(("filename", "output", "input"), "some.bin"),
    "size": "0x100",
    "value": "0x1",
    "mask": "0xff",
    "bytes": "4",
}
# a value for each option that takes one and lists none
SAMPLES = {
    "--baud": "460800",
    "--port": "/dev/ttyUSB7",
    "--port-filter": "vid=0x303A",
    "--connect-attempts": "3",
    "--flash-size": "2MB",
    "--spi-connection": "6,17,8,11,16",
    "--diff-with": "old.bin",
    "--encrypt-files": "0x2000 secret.bin",
}
# what a command must be given besides its words
REQUIRED = {"merge-bin": "--output"}
# taken since esptool took it, and without effect there as here: no file holds which pins lead to the flash, or has two layouts
HIDDEN_OPTIONS = (
    "--min-rev",
)  # of esptool 4, which its help does not show: `--mi` meant neither this nor that
IDLE = {
    ("elf2image", "--spi-connection"),
    ("merge-bin", "--spi-connection"),
    ("image-info", "--version"),
    ("read-flash", "--flash-size"),
}


def hyphens(name: str) -> str:
    return name.replace("_", "-")


def forms(form: str) -> list[list[str]]:
    """Lines of words that fit a command's form: ``address value [mask]`` has two."""
    if re.search(r"addr_filename|<address>", form):
        return [["0x10000", "some.bin"], ["0x1000", "some.bin", "0x2000", "other.bin"]]
    must = [WORDS[word.lower()] for word in form.split() if not word.startswith("[")]
    may = [WORDS[word.strip("[]").lower()] for word in form.split() if word.startswith("[")]
    return [must, *([[*must, *may]] if may else [])]


def parse(line: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[int, Any, str]:
    """Exit code, what arrived at the command, and what was printed."""
    arrived: list[Any] = []

    def note(command: click.Command, context: click.Context) -> None:
        if not isinstance(command, click.Group):
            state = {
                name: value
                for name, value in vars(context.obj).items()
                if name[0] != "_" and name not in ("output", "line", "cancel")
            }
            arrived.append((command.name, context.params, state))

    monkeypatch.setattr(click.Command, "invoke", note)
    monkeypatch.setattr(Context, "values", {})
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main(line)
    assert "Traceback" not in err.getvalue()
    return code, arrived[0] if arrived else None, out.getvalue() + err.getvalue()


def abbreviations(name: str, others: list[str], *, argparse: bool) -> Iterator[str]:
    """Each beginning that argparse took for ``name``."""
    for end in range(3, len(name)) if argparse else ():
        if sum(other.startswith(name[:end]) for other in [*others, "--help"]) == 1:
            yield name[:end]


def spellings(name: str, facts: dict[str, Any], value: str) -> Iterator[list[str]]:
    """One option with one value, as one may write it; the first is the plain one."""
    short = facts.get("short", "")
    if not facts.get("takes"):
        yield from (
            [name],
            *([[short]] if short else []),
            [hyphens(name)],
            [name.replace("-", "_").replace("__", "--", 1)],
        )
        return
    words = value.split()
    yield [name, *words]
    yield [hyphens(name), *words]
    if len(words) == 1:
        yield [f"{name}={value}"]
    if hyphens(value) != value:
        yield [name, hyphens(value)]
    if name == "--chip":
        yield from (
            [name, value.upper()],
            [name, value.title()],
            [name, value.replace("esp32", "ESP32-").rstrip("-")],
        )
    if short:
        yield [short, *words]
        if len(words) == 1:
            yield [short + value]


class Count:
    """Names parsed and not yet, and lines run."""

    def __init__(self) -> None:
        self.parsed: set[tuple[str, ...]] = set()
        self.not_yet: set[tuple[str, ...]] = set()
        self.lines = 0


class Run:
    """All names of one version."""

    def __init__(self, version: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.table, self.monkeypatch = TABLE[version], monkeypatch
        self.argparse = int(version[0]) < 5
        self.count = Count()
        self.arrived: set[str] = set()

    def check(self, key: tuple[str, ...], lines: list[list[str]]) -> Any:
        """What arrives of ``lines``, the same of all; or ``key`` is among those that are not there yet."""
        reason = self.reason(key)
        if reason:
            self.count.not_yet.add(key)
            for line in lines:
                code, _, said = parse(line, self.monkeypatch)
                if code != 2:
                    self.arrived.add(reason)
                else:
                    assert "error: " in said
            return None
        self.count.parsed.add(key)
        first = None
        for line in lines:
            code, arrived, said = parse(line, self.monkeypatch)
            self.count.lines += 1
            assert (code, said) == (0, ""), f"{line}: {said}"
            assert arrived is not None, line
            first = first or arrived
            assert arrived == first, line
            size = arrived[1].get("flash_size")
            assert size in (None, "keep", "detect") or isinstance(size, int) or parse_size(size) > 0
        return first

    def reason(self, key: tuple[str, ...]) -> str:
        """The entry of the list of what is not there yet that ``key`` falls under, or nothing."""
        command, *more = key
        for group, name in (
            ("commands", command),
            ("options", " ".join((command, *more[:1])).strip()),
            ("values", " ".join(key).strip()),
        ):
            if name in NOT_YET[group]:
                return f"{group}: {name}"
        return ""

    def everything(self) -> None:
        for name, facts in self.table["globals"].items():
            self.option(
                "",
                ["read_mac" if self.argparse else "read-mac"],
                name,
                facts,
                self.table["globals"],
            )
        for command, facts in self.table["commands"].items():
            more = [REQUIRED[hyphens(command)], "some.out"] if hyphens(command) in REQUIRED else []
            for words in forms(facts["form"]):
                self.check(
                    (hyphens(command),),
                    [[command, *words, *more], [hyphens(command), *words, *more]],
                )
            options = facts.get("options", {})
            for name, option in options.items():
                self.option(command, forms(facts["form"])[0], name, option, options)

    def option(
        self,
        command: str,
        words: list[str],
        name: str,
        facts: dict[str, Any],
        options: dict[str, Any],
    ) -> None:
        head = [command] if command else []
        takes = facts.get("takes")
        if facts.get("values") == [
            "r",
            "a",
            "w",
        ]:  # esptool 3 wrote the list of formats as "raw", and its help shows letters
            facts = facts | {"values": ["raw"]}
        values = facts.get("values", [SAMPLES.get(hyphens(name), "7")] if takes else [""])
        required = REQUIRED.get(hyphens(command))
        head += [required, "some.out"] if required and hyphens(name) != required else []
        without = parse([*head, *words], self.monkeypatch)[1]
        seen: list[Any] = []
        for number, value in enumerate(values):
            key = (
                hyphens(command),
                hyphens(name),
                *([hyphens(value)] if facts.get("values") else []),
            )
            written = list(spellings(name, facts, value))
            if number == 0:
                for short in abbreviations(
                    name, [*options, *HIDDEN_OPTIONS], argparse=self.argparse
                ):
                    written.append([short, *value.split()])
                    if takes == "one":
                        written.append([f"{short}={value}"])
            lines = [[*head, *option, *words] for option in written if takes != "many"]
            if command:
                lines += [[*head, *words, *option] for option in written]
            arrived = self.check(key, lines)
            if arrived is not None:
                idle = key[:2] in IDLE or values == ["raw"]
                assert idle or arrived not in seen, f"{lines[0]} means the same as another value"
                assert idle or arrived != without or len(values) > 1, f"{lines[0]} has no effect"
                seen.append(arrived)


@pytest.mark.parametrize("version", TABLE)
def test_every_name_of_a_version_parses(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run(version, monkeypatch)
    run.everything()
    assert not run.arrived, "these parse now: take them out of tests/data/spellings-not-yet.toml"
    count = run.count
    print(
        f"{version}: {len(count.parsed)} names parsed in {count.lines} lines, {len(count.not_yet)} not yet"
    )
    names, lines = LEAST[version]
    assert len(count.parsed) >= names
    assert count.lines >= lines


def test_the_list_of_what_is_not_there_yet_only_shrinks() -> None:
    assert sum(map(len, NOT_YET.values())) <= MOST_NOT_YET
    assert all(reason for group in NOT_YET.values() for reason in group.values())
    assert not HERE & NOT_YET["commands"].keys()
    keys = set()
    for table in TABLE.values():
        commands = {"": {"options": table["globals"]}, **table["commands"]}
        for command, facts in commands.items():
            keys.add(("commands", hyphens(command)))
            for name, option in facts.get("options", {}).items():
                keys.add(("options", f"{hyphens(command)} {hyphens(name)}".strip()))
                for value in option.get("values", ()):
                    keys.add(
                        ("values", f"{hyphens(command)} {hyphens(name)} {hyphens(value)}".strip())
                    )
    stale = {(group, name) for group in NOT_YET for name in NOT_YET[group]} - keys
    assert not stale


def test_the_product_knows_the_long_options_of_the_versions_that_took_abbreviations() -> None:
    found: dict[str, list[set[str]]] = {}
    for version, table in TABLE.items():
        generation = int(version[0])
        if generation > 4:
            continue
        for command, facts in {"": {"options": table["globals"]}, **table["commands"]}.items():
            names = {hyphens(name).removeprefix("--") for name in facts.get("options", {})}
            seen = found.setdefault(hyphens(command), [set(), set(), set(), set()])
            seen[generation - 1] |= names.difference(*seen)
    known = {
        command: [set(names.split()) for names in generations] + [set()] * (4 - len(generations))
        for command, generations in LONG_OPTIONS.items()
    }
    assert known == {command: seen for command, seen in found.items() if any(seen)}


def test_what_comes_later_says_so() -> None:
    for name in MISSING.keys() - HERE:
        for spelt in (name, name.replace("-", "_")):
            out = io.StringIO()
            with contextlib.redirect_stderr(out):
                assert main([spelt, "some.bin", "-o", "other.bin"]) == 2
            assert out.getvalue().splitlines()[0].endswith("[not-yet]")
