"""Writes tests/data/spellings.toml: what five versions of esptool call their commands, options and values.

Run by hand, on POSIX, with one program per version; each is only asked for its ``-h``. Names are kept, no help text::

    .venv/bin/python tools/harvest_spellings.py PEERS/*/bin/esptool.py …
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "tests" / "data" / "spellings.toml"
HEAD = """\
# Command, option and value names of esptool, one set per version. Written by tools/harvest_spellings.py; do not edit.
# takes: how many words the option wants (flags: none); values: all there are; form: the words besides options.
"""
WIDE = {"COLUMNS": "2000", "TERM": "dumb", "NO_COLOR": "1"}
SECTION = re.compile(r"^[a-z ]+:$")
ARGPARSE_OPTION = re.compile(r"^  (-\S.*?)(?:\s\s+.*)?$")
BOXED = re.compile(
    r"""^│\ (?:\*\ \ |\ \ \ )?  # required ones have a star
    (?P<long>--[\w-]+) (?P<short>\s+-\w+)?
    (?:\s+(?P<meta>[\[<]\S.*?|[A-Z][A-Z0-9-]+(?:\ RANGE\ \[\S+\])?))?
    (?P<help>\s\s+\S.*?)\s*│$""",
    re.VERBOSE,
)


@dataclass
class Option:
    """One option: its short name, how many words it takes, and which."""

    long: str
    short: str = ""
    takes: str = ""
    values: Sequence[str] = ()


def ask(program: str, *words: str) -> str:
    """What ``-h`` says, without colours."""
    done = subprocess.run(
        [program, *words, "-h"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, **WIDE},
    )
    return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout)


def parse_values(text: str, separator: str) -> Sequence[str]:
    """The values between brackets; an ellipsis means a range of numbers, not a list."""
    listed = text.strip("[]{}").split(separator)
    return () if len(listed) == 1 or "..." in text else [value.strip() for value in listed]


def parse_argparse(text: str) -> Iterator[Option]:
    """The options of versions 1 to 4."""
    section = ""
    for line in text.splitlines():
        if SECTION.match(line):
            section = line
        found = ARGPARSE_OPTION.match(line)
        if (
            section not in ("options:", "optional arguments:")
            or not found
            or found[1].startswith("-h, ")
        ):
            continue
        option = Option("")
        for spelled in re.split(r", (?=-)", found[1]):
            name, _, meta = spelled.partition(" ")
            if name.startswith("--"):
                option.long = name
            else:
                option.short = name
            option.takes = "" if not meta else "many" if "..." in meta and "[" in meta else "one"
            if meta.startswith("[") and option.takes == "one":
                option.takes = "optional"
            option.values = parse_values(meta, ",") if "{" in meta else ()
        yield option


def parse_boxes(text: str) -> Iterator[Option]:
    """The options of version 5, whose values may go on in the next line."""
    option: Option | None = None
    meta, start, end = "", 0, 0
    for line in [*text.splitlines(), "╰"]:
        found = BOXED.match(line)
        if option is not None and (found or not line.startswith("│  ")):
            option.takes = ("many" if meta.startswith("[<") else "one") if meta else ""
            option.values = parse_values(meta, "|") if meta.startswith("[") else ()
            yield option
            option = None
        if found and found["long"] != "--help":
            option = Option(found["long"], (found["short"] or "").strip())
            start, meta = found.start("meta"), found["meta"] or ""
            end = found.end("help") - len(found["help"].lstrip())
        elif option is not None and meta:
            meta += line[start:end].strip()


def commands_of(text: str, *, boxed: bool) -> list[str]:
    """The commands that the program's own help lists."""
    if not boxed:
        listed = re.search(r"\{(load_ram[^}]*)\}", text)
        assert listed
        return listed[1].split(",")
    below = text[text.index(" commands ") :]
    return re.findall(r"^│ ([a-z][\w-]*) ", below, re.MULTILINE)


def form_of(text: str, *, boxed: bool) -> str:
    """The words that a command takes besides its options, as its usage line tells them."""
    if boxed:
        usage = re.search(r"Usage:\s+\S+\s+\S+\s+\[OPTIONS\](.*?)\n\s*\n", text, re.DOTALL)
        assert usage
        return " ".join(usage[1].split())
    usage = re.search(r"^usage: \S+ \S+ (.*)$", text, re.MULTILINE)
    assert usage
    words = usage[1]
    while cut := re.match(r"--output OUTPUT |\[-[^\[\]]*(?:\[[^\[\]]*\][^\[\]]*)*\]\s*", words):
        words = words[cut.end() :]
    return words


def write_options(options: Sequence[Option]) -> list[str]:
    """The lines of one table."""
    lines = []
    for option in sorted(options, key=lambda one: one.long):
        assert option.long.startswith("--"), option
        facts = [
            f'{key} = "{getattr(option, key)}"'
            for key in ("short", "takes")
            if getattr(option, key)
        ]
        if option.values:
            facts.append("values = [" + ", ".join(f'"{value}"' for value in option.values) + "]")
        lines.append(
            f'"{option.long}" = {{ {", ".join(facts)} }}' if facts else f'"{option.long}" = {{}}'
        )
    return lines


def harvest(program: str) -> list[str]:
    """The tables of one version."""
    text = ask(program)
    named = re.search(r"\bv(\d+\.\d+(\.\d+)?) - ", text)
    assert named, f"{program} does not tell its version"
    version = named[1]
    boxed = int(version.split(".")[0]) >= 5
    parse = parse_boxes if boxed else parse_argparse
    lines = ["", f'["{version}".globals]', *write_options(list(parse(text)))]
    for command in sorted(commands_of(text, boxed=boxed)):
        own = ask(program, command)
        assert "…" not in own, f"{version} {command}: a name was cut"
        lines += ["", f'["{version}".commands.{command}]', f'form = "{form_of(own, boxed=boxed)}"']
        if options := write_options(list(parse(own))):
            lines += [f'["{version}".commands.{command}.options]', *options]
    return lines


def main(programs: Sequence[str]) -> None:
    """Ask all, write the file."""
    FILE.write_text(
        HEAD + "\n".join(line for program in programs for line in harvest(program)) + "\n", "utf-8"
    )
    print(f"{FILE.relative_to(ROOT)}: {FILE.stat().st_size:,} bytes of {len(programs)} versions")


if __name__ == "__main__":
    main(sys.argv[1:])
