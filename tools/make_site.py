"""Builds the documentation site, build/site: the pages of the repository, and a reference of the public library.

The pages keep their places, so their links hold. A broken link, a link to a missing heading or a missing page of the
navigation is an error.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
SOURCE, SITE = ROOT / "build/site-source", ROOT / "build/site"
WEB = ROOT / "build/web"
TRIAL = """# Try it now

The page runs espwire in your browser. Choose **Use this chip**, then flash the example.
<a href="../web/index.html" target="_blank">Open it in a window of its own.</a>

<iframe src="../web/index.html" title="espwire in the browser" allow="serial" width="100%" height="900"></iframe>
"""
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "ARCHITECTURE.md", "compat/README.md")
LINK = re.compile(r"^\* \[([^]]+)\]\(([a-z0-9-]+\.md)\)", re.MULTILINE)
PUBLIC = re.compile(r"^from (espwire[\w.]*) import (\w+)", re.MULTILINE)


def copy_pages() -> None:
    """All pages, at the same places."""
    shutil.rmtree(SOURCE, ignore_errors=True)
    shutil.copytree(ROOT / "docs", SOURCE / "docs")
    for name in PAGES:
        (SOURCE / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, SOURCE / name)


def write_reference() -> list[dict[str, str]]:
    """One page per module with public names; returns the entries of the navigation."""
    stub = (ROOT / "src/espwire/__init__.pyi").read_text(encoding="utf-8")
    names: dict[str, list[str]] = {}
    for module, name in PUBLIC.findall(stub):
        if not name.startswith("_"):
            names.setdefault(module, []).append(name)
    folder = SOURCE / "library"
    folder.mkdir()
    entries = []
    for module, found in sorted(names.items()):
        text = f"# {module}\n\nAlso available as `espwire.NAME`.\n\n"
        text += "\n".join(f"::: {module}.{name}\n" for name in found)
        (folder / f"{module}.md").write_text(text, encoding="utf-8")
        entries.append({module.removeprefix("espwire."): f"library/{module}.md"})
    return entries


def read_guide() -> list[str | dict[str, str]]:
    """The guide's pages in the order of its contents."""
    text = (ROOT / "docs/guide/README.md").read_text(encoding="utf-8")
    pages = [{title: f"docs/guide/{page}"} for title, page in LINK.findall(text)]
    return ["docs/guide/README.md", *pages]


def write_configuration(reference: list[dict[str, str]], trial: list[dict[str, str]]) -> Path:
    """mkdocs.yml with the whole navigation."""
    config = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))
    config["nav"] = [
        {"Home": "README.md"},
        *trial,
        {"Guide": read_guide()},
        {
            "Reference": [
                {"Serial protocol": "docs/protocol.md"},
                {"Chips": "docs/chips.md"},
                {"Errors": "docs/errors.md"},
                {"Differences from esptool": "docs/differences.md"},
                {"The classic page": "docs/classic-page.md"},
            ]
        },
        {"Library": reference},
        {
            "Development": [
                {"Contributing": "CONTRIBUTING.md"},
                {"Architecture": "ARCHITECTURE.md"},
                {"Changes": "CHANGELOG.md"},
                {"espwire-compat": "compat/README.md"},
            ]
        },
    ]
    for name in ("docs_dir", "site_dir"):
        config[name] = str(ROOT / config[name])
    python = config["plugins"][1]["mkdocstrings"]["handlers"]["python"]
    python["paths"] = [str(ROOT / "src")]
    python["options"]["extensions"] = [str(ROOT / "tools/griffe_raises.py")]
    path = ROOT / "build/mkdocs.yml"
    path.write_text(yaml.safe_dump(config, sort_keys=False), encoding="utf-8")
    return path


def write_trial() -> list[dict[str, str]]:
    """The page "Try it now", which shows the web page; nothing if `make web` has not built that."""
    if not (WEB / "index.html").is_file():
        print("`make web` has not built the web page: the site is built without it")
        return []
    (SOURCE / "try.md").write_text(TRIAL, encoding="utf-8")
    return [{"Try it now": "try.md"}]


def main() -> int:
    """Build the site; the exit code is that of mkdocs."""
    copy_pages()
    trial = write_trial()
    config = write_configuration(write_reference(), trial)
    code = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-f", config], check=False
    ).returncode
    if trial and not code:
        shutil.copytree(WEB, SITE / "web", dirs_exist_ok=True)
        page = SITE / "web/index.html"
        guide = '<meta name="guide" content="../docs/guide/">\n<title>'
        page.write_text(page.read_text("utf-8").replace("<title>", guide), encoding="utf-8")
    return code


if __name__ == "__main__":
    sys.exit(main())
