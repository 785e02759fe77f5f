"""The table of virtual chip options in docs/guide/virtual-chips.md, from ``virtual/config.py``. Run by generate.py."""

from __future__ import annotations

from pathlib import Path

PAGE = Path(__file__).resolve().parent.parent / "docs/guide/virtual-chips.md"
START = "| Key | Option of `serve` | Meaning |"


def render() -> str:
    """The page with a fresh table."""
    from espwire.virtual.config import OPTIONS

    rows = [START, "| --- | --- | --- |"]
    for key, option in OPTIONS.items():
        serve = f"`--{key}`" if option.in_serve else f"`--set {key}=…`"
        rows.append(f"| `{key}={option.example}` | {serve} | {option.help} |")
    rows.append("| `package=1`, … | `--set KEY=…` | any eFuse field of the chip, by its name |")
    before, _, rest = PAGE.read_text("utf-8").partition(START)
    after = rest[rest.index("\n\n") :]
    return before + "\n".join(rows) + after
