"""Old spellings become today's, and a line that is right as it is stays so."""

from __future__ import annotations

import contextlib
import io
from itertools import pairwise
from typing import Any

import click
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from espwire.cli import app, number_types
from espwire.cli.context import Context
from espwire.cli.esptool.spellings import LONG_OPTIONS, expand_long, respell
from espwire.cli.main import main
from espwire.errors import UsageError


def find(name: str) -> click.Command:
    root = app.build()
    with click.Context(root, obj=Context()) as context:
        found = root.get_command(context, name)
    assert found is not None
    return found


def write(*words: str) -> list[str]:
    return respell(find("write-flash"), words, name="write-flash", stop=False)


@pytest.mark.parametrize(
    "words, spelt",
    [
        (["-fmdio", "-fs4MB", "-ff40m"], ["-fm", "dio", "-fs", "4MB", "-ff", "40m"]),
        (["--flash_s", "4m"], ["--flash-size", "4m"]),
        (["--flash_mod=dio"], ["--flash-mode=dio"]),
        (["--no", "-b=9600"], ["--no-progress", "--baud", "9600"]),
        (["-b9600", "-zb", "9600", "-zp"], ["-b9600", "-zb", "9600", "-zp"]),
        (["-fm", "--flash_s", "--flash_s", "4m"], ["-fm", "--flash_s", "--flash-size", "4m"]),
        (["0", "a", "--", "--flash_s", "-fmdio"], ["0", "a", "--", "--flash_s", "-fmdio"]),
        (["-fm"], ["-fm"]),
        (["--flash", "--fl=x", "--", "-"], ["--flash", "--fl=x", "--", "-"]),
        (["-", "--any", "--bau", "9600"], ["-", "--any", "--bau", "9600"]),
        (["--he"], ["--help"]),
        (["-z", "-b", "1", "-b1"], ["--compress", "--baud", "1", "-b1"]),
        (["-z", "-b"], ["--compress", "-b"]),
    ],
)
def test_options_of_a_command(words: list[str], spelt: list[str]) -> None:
    assert write(*words) == spelt


@pytest.mark.parametrize(
    "words, spelt",
    [
        (
            ["--po", "COM3", "--ba=9600", "x", "--po"],
            ["--port", "COM3", "--baud=9600", "x", "--po"],
        ),
        (["-p", "--po", "--po", "--ba", "x"], ["--port", "--po", "--port", "--ba", "x"]),
        (["-tb", "9600", "-p=COM3", "x", "-p=y"], ["-tb", "9600", "--port", "COM3", "x", "-p=y"]),
        (["--connect_att", "-1", "x"], ["--connect-attempts", "-1", "x"]),
    ],
)
def test_options_before_the_command(words: list[str], spelt: list[str]) -> None:
    assert respell(app.build(), words, name="", stop=True) == spelt


@pytest.mark.parametrize(
    "words, spelt",
    [
        (["--diff", "no", "0", "a"], ["0", "a"]),
        (["-d", "yes", "0", "a"], ["--diff", "0", "a"]),
        (["-dno", "0", "a"], ["0", "a"]),
        (["--di=yes", "0", "a"], ["--diff", "0", "a"]),
        (["0", "a", "--diff", "no"], ["0", "a"]),
        (["0", "--diff", "no"], ["0", "--diff", "no"]),
        (["-d", "0", "a"], ["--diff", "0", "a"]),
        (["--diff=maybe"], ["--diff=maybe"]),
    ],
)
def test_verify_flash_takes_yes_and_no_where_no_file_can_stand(
    words: list[str], spelt: list[str]
) -> None:
    assert respell(find("verify-flash"), words, name="verify-flash", stop=False) == spelt


def test_an_option_that_was_renamed_goes_by_its_new_name() -> None:
    command = click.Command("w", params=[click.Option(["--ignore-flash-enc-efuse"], is_flag=True)])
    for old in (
        "--ignore-flash-encryption-efuse-setting",
        "--ignore_flash_encryption_efuse_setting",
        "--ig",
    ):
        assert respell(command, [old], name="write-flash", stop=False) == [
            "--ignore-flash-enc-efuse"
        ]


def test_a_value_that_may_be_left_out_is_not_taken_for_the_command() -> None:
    params = [click.Option(["--vdd"], is_flag=False, flag_value="1.9V"), click.Option(["-fm"])]
    command = click.Command("w", params=params)
    assert respell(command, ["--vdd", "OFF", "x", "-fmdio"], name="", stop=True) == [
        "--vdd",
        "OFF",
        "x",
        "-fmdio",
    ]
    assert respell(command, ["--vdd", "-fmdio", "x"], name="", stop=True) == [
        "--vdd",
        "-fm",
        "dio",
        "x",
    ]


def test_an_option_of_many_words_is_repeated() -> None:
    params: list[click.Parameter] = [click.Option(["--encrypt-files"], nargs=2, multiple=True)]
    params += [click.Option(["-fm"]), click.Argument(["pairs"], nargs=-1)]
    command = click.Command("write-flash", params=params)
    line = ["0", "a", "--encrypt_f", "1", "b", "2", "c", "-fmdio", "3", "d"]
    spelt = [
        "0",
        "a",
        "--encrypt-files",
        "1",
        "b",
        "--encrypt-files",
        "2",
        "c",
        "-fm",
        "dio",
        "3",
        "d",
    ]
    assert respell(command, line, name="write-flash", stop=False) == spelt
    odd = ["--encrypt-files", "1", "b", "2"]
    assert respell(command, odd, name="write-flash", stop=False) == [
        *odd[:3],
        "--encrypt-files",
        "2",
    ]


def test_an_abbreviation_means_what_it_meant_when_it_was_the_only_one() -> None:
    assert expand_long("--c", LONG_OPTIONS[""]) == "--chip"  # version 2; from 3 on it was ambiguous
    assert expand_long("--co", LONG_OPTIONS[""]) == "--connect-attempts"
    assert expand_long("--e", LONG_OPTIONS["write-flash"]) is None


def test_a_rate_may_be_written_as_in_c() -> None:
    number = number_types.Number(1, 100_000_000)
    assert number.convert("0x1C200", None, None) == number.convert("115200", None, None) == 115200
    for wrong in ("0x", "0xZZ", "0x0", "115_200_000_000", "0115200"):
        with pytest.raises((click.BadParameter, UsageError)):
            number.convert(wrong, None, None)


WORDS = st.sampled_from(
    [
        *(
            "-fm",
            "-fs",
            "-ff",
            "-z",
            "-u",
            "-p",
            "-e",
            "-zu",
            "-zp",
            "-zb",
            "-b",
            "-c",
            "-t",
            "-tc",
            "-h",
            "--help",
        ),
        *(
            "--flash-mode",
            "--flash_size",
            "--no-progress",
            "--port",
            "--baud",
            "--chip",
            "--any-port",
            "--json",
        ),
        *(
            "--",
            "-",
            "0x0",
            "a.bin",
            "dio",
            "4MB",
            "40m",
            "9600",
            "-b9600",
            "-cesp32",
            "--port=x",
            "-fm=dio",
            "-fs=2MB",
        ),
        *(
            "--no",
            "-fmdio",
            "--flash",
            "--fl",
            "yes",
            "no",
            "--diff",
            "-d",
            "--force",
            "--before",
            "no_reset",
        ),
    ]
)


def parse(words: list[str]) -> tuple[int, Any]:
    arrived: list[Any] = []

    def note(command: click.Command, context: click.Context) -> None:
        if not isinstance(command, click.Group):
            state = {
                name: value
                for name, value in vars(context.obj).items()
                if name[0] != "_" and name not in ("output", "cancel")
            }
            arrived.append((context.params, state))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(click.Command, "invoke", note)
        patch.setattr(Context, "values", {})
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            return main(words), arrived


@given(
    st.lists(WORDS, max_size=4),
    st.sampled_from(["write-flash", "verify_flash"]),
    st.lists(WORDS, max_size=6),
)
@settings(max_examples=600)
def test_what_click_takes_by_itself_means_the_same(
    before: list[str], command: str, after: list[str]
) -> None:
    words = [*before, command, *after, "0x1000", "b.bin"]
    # versions 1 to 4 asked --diff for an answer: a partition of that name comes second
    assume(
        not any(
            word.startswith(("-d", "--d")) and then in ("yes", "no")
            for word, then in pairwise(words)
        )
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(app, "respell", lambda command, words, **keywords: words)
        code, plain = parse(words)
    if code == 0:
        assert parse(words) == (0, plain)
