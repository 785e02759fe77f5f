"""Each example command of README.md and the guide is run on a virtual chip; the output shown there is current."""

from __future__ import annotations

import re
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from docs_examples import ROOT, SHELL, BadPage, Block, Runner, find_blocks, parse_only

sys.path.append(str(ROOT / "tools"))
import terminal_picture
import transcripts

PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs/guide").glob("*.md")),
]
LEAST_RUN = (
    28  # commands that must be run in all, so that the search for them cannot quietly find none
)


def blocks_of(page: Path) -> list[Block]:
    return find_blocks(page.read_text("utf-8"), page.relative_to(ROOT).as_posix())


RUNNABLE = [block for page in PAGES for block in blocks_of(page) if block.reason is None]


@pytest.fixture
def runner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runner:
    monkeypatch.chdir(tmp_path)
    return Runner(tmp_path, monkeypatch.setenv, parse_only)


@pytest.mark.parametrize("block", RUNNABLE, ids=lambda block: block.place)
def test_the_example_runs(block: Block, runner: Runner, capsys: pytest.CaptureFixture[str]) -> None:
    runner.run(block)
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize("path", transcripts.PAGES, ids=lambda path: path.name)
def test_the_shown_output_is_what_the_commands_print(path: Path) -> None:
    """`make docs` writes it. Without libdeflate, sizes and times of compressed data differ."""
    fresh, shown = transcripts.render_page(path), path.read_text("utf-8")
    if find_spec("deflate") is None:
        fresh, shown = (re.sub(r"[0-9,.]+", "#", text) for text in (fresh, shown))
    assert fresh == shown, f"{path.name} is stale: run `make docs`"


def test_the_picture_shows_what_the_commands_print() -> None:
    """`make docs` writes it. Without libdeflate, sizes and times of compressed data differ."""
    fresh = terminal_picture.read_text(terminal_picture.record())
    shown = terminal_picture.read_text(terminal_picture.PICTURE.read_text("utf-8"))
    if find_spec("deflate") is None:
        fresh, shown = (re.sub(r"[0-9,.╸╺━]+", "#", text) for text in (fresh, shown))
    assert fresh == shown, "docs/terminal.svg is stale: run `make docs`"
    assert "Writing sensor-2.1.bin" in shown.replace("&#160;", " ")


def test_only_the_output_of_commands_that_end_is_replaced() -> None:
    lines = [
        "$ espwire a \\",
        "  b",
        "old",
        "$ espwire monitor",
        "kept",
        "",
        "kept too",
        "$ espwire c",
    ]
    printed = [["new"], None, []]
    assert transcripts.weave(lines, printed) == [*lines[:2], "new", *lines[3:]]
    progress = [f"Writing a: {n} % of 9 bytes" for n in (10, 50, 100)]
    assert transcripts.shorten(["x", *progress, "y"]) == ["x", progress[0], "…", progress[2], "y"]


def test_enough_examples_are_run() -> None:
    print()
    for block in (block for page in PAGES for block in blocks_of(page) if block.reason):
        print(f"{block.place} is not run: {block.reason}")
    assert sum(len(list(block.commands())) for block in RUNNABLE) >= LEAST_RUN


def page(*lines: str, tag: str = "sh", above: str = "") -> list[Block]:
    return find_blocks(
        "\n".join(["# A page", "", *([above] if above else []), f"```{tag}", *lines, "```"]),
        "sample.md",
    )


def test_a_good_sample_runs_on_one_flash_with_its_port_mapped(runner: Runner) -> None:
    (block,) = page(
        "espwire -p /dev/ttyUSB0 write-flash 0x10000 app.bin   # a comment",
        "ESPTOOL_BAUD=230400 esptool.py --port=COM3 verify_flash \\",
        "  0x10000 app.bin",
        "espwire -p rfc2217://host:4000 monitor --reset",
    )
    runner.run(block)
    assert runner.ran == 3
    assert (runner.folder / "the.flash").exists()


@pytest.mark.parametrize(
    "lines, above",
    [
        (["espwire -p /dev/ttyUSB0 write-flsh 0x0 app.bin"], ""),
        (["espwire -p /dev/ttyUSB0 write-flash 0x0 app.bin --no-such-option"], ""),
        (["espwire -p /dev/ttyUSB0 monitor --no-such-option"], ""),
        (
            ["espwire -p /dev/ttyUSB0 verify-flash 0x10000 app.bin"],
            "",
        ),  # nothing was written before
        (["espwire -p /dev/ttyUSB0 chip-info"], "<!-- exit: 4 -->"),
        (["espwire -c esp32 -p /dev/ttyUSB0 chip-info"], ""),
        (["pip install espwire"], ""),
        (["espwire chips | less"], ""),
    ],
)
def test_a_wrong_sample_fails(lines: list[str], above: str, runner: Runner) -> None:
    (block,) = page(*lines, above=above)
    with pytest.raises(BadPage, match=r"sample\.md:"):
        runner.run(block)


def test_only_commands_of_a_console_block_are_run(runner: Runner) -> None:
    (block,) = page(
        "$ espwire version", "espwire 9.9 as it would print", "$ espwire chips", tag="console"
    )
    runner.run(block)
    assert runner.ran == 2


@pytest.mark.parametrize(
    "text",
    [
        "    espwire chip-info\n",
        "    $ esptool.py chip_id\n",
        "```\nespwire chip-info\n```\n",
        "<!-- not run: because -->\nText.\n",
        "<!-- not run: -->\n```sh\nespwire chips\n```\n",
        "<!-- virtual: esp32 -->\n```python\nimport espwire\n```\n",
    ],
)
def test_no_command_can_hide_in_a_page(text: str) -> None:
    with pytest.raises(BadPage):
        find_blocks(text, "sample.md")


def test_a_block_that_is_not_run_has_a_reason() -> None:
    (block,) = page("pip install espwire", above="<!-- not run: installs -->")
    assert block.reason == "installs"
    assert SHELL == ("sh", "console")
