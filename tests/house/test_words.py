"""Phrases that do not belong in plain technical English, in everything a person reads."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
# docs: pages by hand; program: help screens and docs/errors.md; source: docstrings and comments
CHECKED = ("docs", "program", "source")

INSTEAD_OF = {
    r"(?<!there )(is|are|was) no(?! longer)": "is not a, does not have",
    r"hangs? on": "depends on, is connected to",
    r"but for": "except for",
    r"anew": "again",
    r"mend(s|ed)?": "fix",
    r"shall": "must, will",
    r"of itself": "by itself, or leave it out",
    r"beside": "next to, besides",
    r"tells?|told|telling": "reports, prints, states",
    r"hears?|heard": "receives",
    r"said": "printed, stated",
    r"(?<!user )(?<!caller )(asks|knows|wants)": "requests, detects, requires (a program)",
    r"stands? (in(?! for)|at|behind|before|after|alone|beside|there)": "is in, comes after",
    r"go(es)? to": "is written to, is sent to",
    r"in 0\.0 s": "leave the time out",
    r"boot loaders?": "bootloader",
    r"time-outs?": "timeout",
}
ALLOWED = {
    "docs/classic-page.md": ("The page says",),
    "docs/evidence": ("",),  # reports of past runs
}
PATTERN = re.compile(rf"\b({'|'.join(INSTEAD_OF)})\b", re.IGNORECASE)


def read_docs() -> Iterator[tuple[str, str]]:
    """Pages by hand, without code and transcripts."""
    for path in [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").rglob("*.md"))]:
        name = path.relative_to(ROOT).as_posix()
        if name != "docs/errors.md":
            text = path.read_text("utf-8").split("<!-- map:")[0]  # the rest is docstrings
            text = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.M | re.S)
            yield name, text


def read_program() -> Iterator[tuple[str, str]]:
    """What the program prints: the texts of all errors, and the help of every command."""
    yield "docs/errors.md", (ROOT / "docs/errors.md").read_text("utf-8")
    yield "espwire --help-all", read_help("--help-all")
    yield from read_command_help()


def read_command_help(*command: str) -> Iterator[tuple[str, str]]:
    """The help of a command and of those that it lists."""
    text = read_help(*command, "--help")
    yield " ".join(["espwire", *command]), text
    if not command or "Commands:" in text:
        for name in re.findall(r"^  ([a-z][a-z0-9-]+)  +[A-Z]", text, re.MULTILINE):
            yield from read_command_help(*command, name)


def read_help(*arguments: str) -> str:
    from espwire.cli.main import main

    with contextlib.redirect_stdout(io.StringIO()) as out:
        assert main(list(arguments)) == 0, arguments
    return out.getvalue()


def read_source() -> Iterator[tuple[str, str]]:
    """Docstrings and comments."""
    for path in sorted((ROOT / "src/espwire").rglob("*.py")):
        text = path.read_text("utf-8")
        kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
        nodes = [node for node in ast.walk(ast.parse(text)) if isinstance(node, kinds)]
        words = [ast.get_docstring(node) or "" for node in nodes]
        tokens = tokenize.generate_tokens(io.StringIO(text).readline)
        words += [token.string for token in tokens if token.type == tokenize.COMMENT]
        yield path.relative_to(ROOT).as_posix(), "\n".join(words)


READERS = {"docs": read_docs, "program": read_program, "source": read_source}


def find_phrases(name: str, text: str) -> list[str]:
    """Lines with a phrase of ``INSTEAD_OF``, each with what to write instead."""
    allowed = [
        phrase for path, phrases in ALLOWED.items() if name.startswith(path) for phrase in phrases
    ]
    found = []
    for line in re.sub(r"`[^`\n]*`", "`…`", text).splitlines():  # without code
        for match in PATTERN.finditer(line):
            if not any(phrase in line for phrase in allowed):
                better = next(b for p, b in INSTEAD_OF.items() if re.fullmatch(p, match[0], re.I))
                found.append(f"{name}: «{match[0]}» (better: {better}) in: {line.strip()[:120]}")
    return found


@pytest.mark.parametrize("kind", CHECKED)
def test_plain_english(kind: str) -> None:
    found = [each for name, text in READERS[kind]() for each in find_phrases(name, text)]
    assert not found, "\n" + "\n".join(found)


def test_a_phrase_is_found() -> None:
    assert find_phrases("x.md", "The flash IS NO chip, or is no longer one.") != []
    assert find_phrases("x.md", "It no longer shallowly tellurizes.") == []
