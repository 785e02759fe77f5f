"""Every link between the pages has a target, and the errors' links into the guide are those of existing errors."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

import error_links
import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PAGES = [*sorted(ROOT.glob("*.md")), *sorted(DOCS.rglob("*.md"))]
LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)", re.MULTILINE)  # pictures, too
LEAST_LINKS = 25  # of errors into the guide


def plain(text: str) -> str:
    """A page without its code."""
    text = re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"``.*?``|`[^`\n]*`", "", text)


@cache
def anchors(path: Path) -> frozenset[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^ *```.*?^ *```$", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    heads = re.findall(r"^#+ +(.*?) *$", text, re.MULTILINE)
    return frozenset(re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads)


def find_dead_links(text: str, page: Path) -> list[str]:
    """The links in a page without a target; links to the web are not checked."""
    dead = []
    for transport in LINK.findall(re.sub(r"\]\s*\n\s*\(", "](", plain(text))):
        target, _, anchor = transport.partition("#")
        if re.match(r"[a-z]+:", target):
            continue
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and anchor not in anchors(path)):
            dead.append(transport)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_every_link_has_a_target(page: Path) -> None:
    assert find_dead_links(page.read_text("utf-8"), page) == []


def test_a_dead_link_is_found() -> None:
    page = DOCS / "guide/wiring.md"
    text = "[a](no-such.md) [b](wiring.md#no-such-heading) [c](wiring.md#by-hand) [d](https://example.com) `[e](x)`"
    assert find_dead_links(text, page) == ["no-such.md", "wiring.md#no-such-heading"]


def test_links_into_the_guide_belong_to_existing_errors() -> None:
    links: dict[str, str] = error_links.LINKS
    errors = (DOCS / "errors.md").read_text("utf-8")
    assert len(links) >= LEAST_LINKS
    for code, target in links.items():
        rows = [row for row in errors.splitlines() if f"| `{code}` |" in row]
        assert rows, f"tools/error_links.py names {code}, which is not an error id"
        assert all(f"(guide/{target})" in row for row in rows), code
        path, _, anchor = target.partition("#")
        assert (DOCS / "guide" / path).exists(), target
        assert not anchor or anchor in anchors(DOCS / "guide" / path), target


def test_every_page_of_the_guide_is_in_its_index() -> None:
    index = (DOCS / "guide/README.md").read_text("utf-8")
    missing = [page.name for page in (DOCS / "guide").glob("*.md") if f"]({page.name}" not in index]
    assert missing == ["README.md"]


@pytest.mark.parametrize(
    "page", [ROOT / "ARCHITECTURE.md", ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name
)
def test_modules_named_in_a_page_exist(page: Path) -> None:
    text = page.read_text("utf-8").split("<!-- map:")[0]  # the map is generated
    names = set(re.findall(r"`([\w./-]+\.py)`", text))
    names.discard("utils.py")
    roots = (ROOT / "src/espwire", ROOT / "src/espwire/device/backends", ROOT)
    assert sorted(name for name in names if not any((root / name).exists() for root in roots)) == []
    assert len(names) >= 5


def test_every_module_is_on_the_map() -> None:
    text = (ROOT / "ARCHITECTURE.md").read_text("utf-8").split("<!-- map:")[1]
    source = ROOT / "src/espwire"
    modules = [path for path in source.rglob("*.py") if path.name != "__init__.py"]
    assert text.count("\n* `") == len(modules), "run `make generate`"
    assert [path.name for path in modules if f"* `{path.name}`: " not in text] == []


def test_the_protocol_page_lists_every_command_and_every_code() -> None:
    from espwire.protocol.commands import COMMANDS
    from espwire.protocol.replies import ROM_MEANINGS, STUB_MEANINGS

    page = (DOCS / "protocol.md").read_text("utf-8")
    assert [op.name for op in COMMANDS if f"| 0x{op:02X} | `{op.name}` |" not in page] == []
    assert [
        code for code, text in ROM_MEANINGS.items() if f"| 0x{code:02X} | {text} |" not in page
    ] == []
    assert [
        code for code, text in STUB_MEANINGS.items() if f"| 0x{code:04X} | {text} |" not in page
    ] == []
