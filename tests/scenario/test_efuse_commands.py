"""`espwire efuse` and `espefuse.py` as complete command lines on virtual eFuses."""

from __future__ import annotations

import base64
import io
import json
import os
import random
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from espwire.cli.main import main
from espwire.efuse.store import open_file

FILE = "board.fuses"
KEY = random.Random(1).randbytes(32)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder with a key file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key").write_bytes(KEY)
    return tmp_path


def run(*words: str, chip: str = "esp32c3", confirm: bool = False) -> int:
    sure = [] if confirm else ["--do-not-confirm"]
    return main(["efuse", "-c", chip, "--path-efuse-file", FILE, *sure, *words])


def burned(chip: str = "esp32c3") -> list[int]:
    return open_file(FILE, chip).burned


def spellings(key: bytes) -> Iterator[str]:
    """How key bytes could appear in text: whole, reversed, by words, hex, decimal, base64; parts of 6 bytes."""
    for data in (key, key[::-1]):
        for start in range(0, len(key) - 5, 4):
            part = data[start : start + 6]
            yield part.hex()
            yield part.hex(" ")
            yield ", ".join(map(str, part))
        for start in range(0, len(key), 4):
            word = data[start : start + 4]
            yield word.hex()
            yield word[::-1].hex()
            yield str(int.from_bytes(word, "little"))
        yield base64.b64encode(data).decode()[:20]
        yield base64.urlsafe_b64encode(data).decode()[:20]
        yield str(int.from_bytes(data, "little"))


@pytest.mark.parametrize("more", [[], ["--json"], ["--verbose"], ["--trace"], ["--debug"]])
def test_key_bytes_appear_in_no_output_and_no_plan(
    folder: Path, capsys: pytest.CaptureFixture[str], more: list[str]
) -> None:
    line = ["burn-key", "BLOCK_KEY0", "key", "XTS_AES_128_KEY", *more]
    assert run(*line, "--plan", "plan.json") == 0
    assert run(*line, "summary") == 0
    (folder / "key2").write_bytes(KEY[::-1])
    assert run("burn-key", "BLOCK_KEY0", "key2", "HMAC_UP", *more) != 0
    assert run("burn-block-data", "BLOCK_KEY1", "key", *more, "--plan", "plan2.json") == 0
    shown = capsys.readouterr()
    text = shown.out + shown.err + (folder / "plan.json").read_text("utf-8")
    text = (text + (folder / "plan2.json").read_text("utf-8")).lower()
    assert [each for each in spellings(KEY) if each.lower() in text] == []


def test_show_sensitive_info_prints_the_key_as_it_is_stored(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = ["burn-key", "BLOCK_KEY0", "key", "XTS_AES_128_KEY", "--show-sensitive-info"]
    assert run(*line) == 0
    text = capsys.readouterr().out
    assert KEY[::-1].hex(" ") in text
    assert any(each in text for each in spellings(KEY))  # the search above finds what is there


def test_a_refused_burn_exits_with_8_and_burns_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], folder: Path
) -> None:
    for answer in ("NO\n", "burn\n", ""):
        (folder / "answer").write_text(answer)
        with (folder / "answer").open() as stream:
            monkeypatch.setattr(sys, "stdin", stream)
            assert run("burn-efuse", "DIS_ICACHE", "1", confirm=True) == 8
    assert "[efuse-not-confirmed]" in capsys.readouterr().err
    assert burned() == [0] * 11
    (folder / "answer").write_text("BURN\n")
    with (folder / "answer").open() as stream:
        monkeypatch.setattr(sys, "stdin", stream)
        assert run("burn-efuse", "DIS_ICACHE", "1", confirm=True) == 0
    assert burned()[0] == 1 << 40


def test_reading_commands_run_before_and_after_a_burn(capsys: pytest.CaptureFixture[str]) -> None:
    value = ["summary", "--format", "value_only", "WDT_DELAY_SEL"]
    assert run("burn-efuse", "WDT_DELAY_SEL", "1", *value) == 0
    lines = capsys.readouterr().out.splitlines()
    assert (lines[0], lines[-1]) == ("40000", "80000")


def test_a_plan_is_burned_once_and_only_on_the_state_that_it_assumes(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    line = ["burn-key", "BLOCK_KEY0", "key", "HMAC_UP", "burn-efuse", "DIS_ICACHE", "1"]
    assert run(*line, "--plan", "plan.json") == 0
    assert burned() == [0] * 11
    content = json.loads((folder / "plan.json").read_text("utf-8"))
    assert (content["chip"], content["order"]) == ("esp32c3", [4, 0, 0])
    assert run("burn", "--plan", "plan.json") == 0
    after = burned()
    assert after[4].to_bytes(32, "little") == KEY
    assert run("burn", "--plan", "plan.json", *UNPROVEN) == 0
    assert "Nothing to burn" in capsys.readouterr().out
    assert burned() == after
    (folder / FILE).unlink()
    assert run("burn-bit", "BLOCK3", "1") == 0
    assert run("burn", "--plan", "plan.json") == 5
    assert "[efuse-changed]" in capsys.readouterr().err


def test_a_plan_is_refused_if_a_key_file_changed_or_for_another_chip(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("burn-key", "BLOCK_KEY0", "key", "HMAC_UP", "--plan", "plan.json") == 0
    (folder / "key").write_bytes(KEY[::-1])
    assert run("burn", "--plan", "plan.json") == 6
    assert "[efuse-plan]" in capsys.readouterr().err
    (folder / FILE).unlink()
    assert run("burn", "--plan", "plan.json", chip="esp32c6") == 5
    assert "the plan is for esp32c3, not esp32c6" in capsys.readouterr().err
    assert run("burn") == 2
    (folder / "plan.json").write_text("{}")
    assert run("burn", "--plan", "plan.json") == 6


def test_a_plan_cannot_switch_the_confirmation_off(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = ["burn-efuse", "DIS_ICACHE", "1", "--do-not-confirm", "--plan", "plan.json"]
    assert run(*line) == 0
    assert "--do-not-confirm" in (folder / "plan.json").read_text("utf-8")
    monkeypatch.setattr(sys, "stdin", None)
    assert run("burn", "--plan", "plan.json", confirm=True) == 8
    assert burned() == [0] * 11


def test_a_key_on_the_command_line_is_not_written_to_a_plan(folder: Path) -> None:
    assert run("burn-efuse", "BLOCK_KEY0", f"0x{KEY.hex()}", "--plan", "plan.json") == 5
    assert not (folder / "plan.json").exists()


def test_dumps_go_to_files(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("burn-block-data", "BLOCK_USR_DATA", "key") == 0
    assert run("dump", "--format", "joint", "--file-name", "all.bin") == 0
    assert run("dump", "--file_name", "one.bin") == 0
    assert (folder / "all.bin").read_bytes()[80:112] == KEY
    assert (folder / "one3.bin").read_bytes() == KEY
    assert run("dump", "--format", "token", "--file-name", "token") == 0
    assert (folder / "token").read_text().startswith("EFSR:esp32c3:000:")


def test_a_summary_goes_to_a_file_as_json(folder: Path) -> None:
    assert run("summary", "--format", "json", "--file", "s.json", "MAC") == 0
    assert json.loads((folder / "s.json").read_text("utf-8"))["MAC"]["bit_len"] == 48


@pytest.mark.parametrize(
    ("words", "code", "text"),
    [
        (["summary", "NO_SUCH"], 2, "has no eFuse 'NO_SUCH'"),
        (["summary", "--format", "value_only"], 2, "value_only shows one eFuse"),
        (["burn-efuse", "WDT_DELAY_SEL", "1", "DIS_ICACHE"], 2, "DIS_ICACHE has no value"),
        (["burn-key", "BLOCK_KEY0", "key"], 2, "not groups of BLOCK KEYFILE PURPOSE"),
        (["burn-key", "BLOCK_KEY0", "nothing", "USER"], 6, "nothing"),
        (["burn-custom-mac", "01:02:03:04:05:06"], 2, "multicast"),
        (["burn-custom-mac", "nonsense"], 2, "not a MAC address"),
        (["burn-block-data", "BLOCK3", "key", "block3", "key"], 2, "named twice"),
        (["no-such-command"], 2, "unknown command"),
    ],
)
def test_mistakes_are_one_error_and_burn_nothing(
    words: list[str], code: int, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*words) == code
    assert text in capsys.readouterr().err
    assert burned() == [0] * 11


def test_espefuse_accepts_its_spellings_and_prints_its_lines(
    capsys: pytest.CaptureFixture[str],
) -> None:
    program = pytest.importorskip("espwire_compat.espefuse").main
    line = ["--chip", "esp32c3", "--virt", "--path-efuse-file", FILE, "--do-not-confirm"]
    assert (
        program([*line, "burn_key", "BLOCK_KEY0", "key", "USER", "burn_efuse", "DIS_ICACHE"]) == 0
    )
    out = capsys.readouterr().out
    assert '\n=== Run "burn-key" command ===\n\n=== Run "burn-efuse" command ===\n' in f"\n{out}"
    assert "BURN BLOCK4  - OK (write block == read block)\n" in out
    assert out.endswith("Successful.\n")
    assert program([*line, "burn_key", "BLOCK_KEY0", "key", "HMAC_UP"]) == 2
    assert "A fatal error occurred: " in capsys.readouterr().err
    assert program([*line, "get_custom_mac"]) == 0
    assert "Custom MAC Address: 00:00:00:00:00:00 (OK)" in capsys.readouterr().out


EMPTY = ["--token", "--path-efuse-file", "--plan", "--extend-efuse-table", "--chip"]


@pytest.mark.parametrize("program", ["espwire", "espefuse"])
@pytest.mark.parametrize("option", EMPTY)
@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_value_is_a_mistake_and_burns_nothing(
    program: str, option: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    board = ["-p", f"virtual:esp32c3?profile=instant&efuse={FILE}"]
    burn = ["--do-not-confirm", option, value, "burn-efuse", "DIS_ICACHE", "1"]
    if program == "espwire":
        assert main([*board, "efuse", *burn]) == 2
    else:
        assert pytest.importorskip("espwire_compat.espefuse").main([*board, *burn]) == 2
    assert f"the value of {option} is empty" in capsys.readouterr().err
    assert not Path(FILE).exists()


@pytest.mark.parametrize("value", ["", " "])
def test_an_empty_port_or_place_is_a_mistake(
    value: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ESPWIRE_PORT", f"virtual:esp32c3?profile=instant&efuse={FILE}")
    burn = ["efuse", "--do-not-confirm", "burn-efuse", "DIS_ICACHE", "1"]
    for option in ("--port", "--place"):
        assert main([option, value, *burn]) == 2
        assert f"the value of {option} is empty" in capsys.readouterr().err
    assert not Path(FILE).exists()


UNPROVEN = ("--allow", "efuse-unproven")
RERUNS = [
    ("esp32c3", ["burn-key", "BLOCK_KEY0", "key", "XTS_AES_128_KEY"], "BLOCK_KEY0"),
    ("esp32", ["burn-key", "flash_encryption", "key"], "BLOCK1"),
    ("esp32s3", ["burn-key", "BLOCK_KEY1", "long", "XTS_AES_256_KEY"], "BLOCK_KEY1, BLOCK_KEY2"),
]


@pytest.mark.parametrize(("chip", "line", "blocks"), RERUNS)
def test_a_complete_burn_that_is_repeated_is_already_burned(
    chip: str, line: list[str], blocks: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "long").write_bytes(KEY + bytes(range(32)))
    assert run(*line, chip=chip) == 0
    before = burned(chip)
    assert run(*line, chip=chip) == 8  # it may be another key
    capsys.readouterr()
    assert run(*line, *UNPROVEN, chip=chip) == 0
    shown = capsys.readouterr()
    assert "Nothing to burn: it is already burned." in shown.out
    assert f"{blocks} cannot be read back, so this is not proven" in shown.err
    assert burned(chip) == before


@pytest.mark.parametrize(("chip", "line", "blocks"), RERUNS)
def test_a_burn_that_failed_among_its_locks_is_completed(
    chip: str, line: list[str], blocks: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "long").write_bytes(KEY + bytes(range(32)))
    assert run(*line, chip=chip) == 0
    complete = burned(chip)
    layout = open_file(FILE, chip).read().layout
    locks = sum(layout.field(name).mask for name in ("WR_DIS", "RD_DIS"))
    burned_locks = [1 << i for i in range(locks.bit_length()) if complete[0] & locks & 1 << i]
    assert len(burned_locks) >= 2
    for missing in burned_locks:
        store = open_file(FILE, chip)
        store.burned = [complete[0] & ~missing, *complete[1:]]
        store.save()
        assert run(*line, *UNPROVEN, chip=chip) == 0
        assert burned(chip) == complete
    assert "Traceback" not in capsys.readouterr().err


def test_a_hidden_block_is_not_taken_for_burned_if_more_than_locks_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = ["burn-key", "BLOCK_KEY0", "key", "XTS_AES_128_KEY"]
    assert run(*line) == 0
    before = burned()
    assert run(*line, "burn-efuse", "SPI_BOOT_CRYPT_CNT", "1") == 5
    assert "[efuse-unreadable]" in capsys.readouterr().err
    assert run("burn-block-data", "BLOCK_KEY0", "key") == 5  # does not hide the block itself
    assert run("burn-key", "BLOCK_KEY0", "key", "HMAC_UP") == 5  # another purpose
    assert burned() == before


def test_the_second_half_of_a_key_finds_its_block_again(folder: Path) -> None:
    (folder / "long").write_bytes(KEY + bytes(range(32)))
    line = ["burn-key", "BLOCK_KEY0", "long", "XTS_AES_256_KEY"]
    assert run(*line, chip="esp32s3") == 0
    complete = burned("esp32s3")
    assert complete[5] == int.from_bytes(bytes(range(32))[::-1], "little")
    for kept in (5, 4):  # the supply failed after the first block, or after both
        store = open_file(FILE, "esp32s3")
        store.burned = [value if i >= kept else 0 for i, value in enumerate(complete)]
        store.save()
        assert run(*line, chip="esp32s3") == 0
        assert burned("esp32s3") == complete


def test_a_complete_plan_names_what_cannot_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    line = ["burn-key", "BLOCK_KEY0", "key", "XTS_AES_128_KEY"]
    assert run(*line, "--plan", "plan.json") == 0
    assert run("burn", "--plan", "plan.json") == 0
    complete = burned()
    assert run("burn", "--plan", "plan.json") == 8
    assert run("burn", "--plan", "plan.json", *UNPROVEN) == 0
    assert "BLOCK_KEY0 cannot be read back" in capsys.readouterr().err
    assert burned() == complete


class Terminal(io.StringIO):
    """Standard output that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def test_on_a_terminal_the_summary_is_grouped_and_coloured(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("burn-key", "BLOCK_KEY0", "key", "XTS_AES_128_KEY") == 0
    capsys.readouterr()
    shown = {}
    for name, value in (("NO_COLOR", "1"), ("NO_COLOR", "")):
        screen = Terminal()
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv(name, value)
        monkeypatch.setattr(sys, "stdout", screen)
        assert run("summary") == 0
        shown[value] = screen.getvalue()
    plain, coloured = shown["1"], shown[""]
    assert "\x1b" not in plain
    titles = [line for line in plain.splitlines() if line[:1].isupper()]
    assert titles == [
        "Identity",
        "Secure boot",
        "Flash encryption",
        "Keys",
        "Download mode, USB and debugging",
        "Flash chip and its supply",
        "Locks",
        "Other",
    ]
    rows = {line.split()[0]: line.split() for line in plain.splitlines() if line.strip()}
    assert rows["BLOCK_KEY0"][1:3] == ["locked", "hidden"]
    assert rows["KEY_PURPOSE_0"][1:4] == ["set", "locked", "XTS_AES_128_KEY"]
    assert rows["WDT_DELAY_SEL"][1] == "40000"
    if os.name != "nt":
        lines = coloured.splitlines()
        assert any(line.startswith("\x1b[31m  BLOCK_KEY0 ") for line in lines)
        assert any(line.startswith("\x1b[1m\x1b[33m  KEY_PURPOSE_0 ") for line in lines)
        assert any(line.startswith("  WDT_DELAY_SEL ") for line in lines)


def test_in_a_pipe_the_summary_is_the_table_of_espefuse(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert run("summary") == 0
    out = capsys.readouterr().out
    assert out.startswith("EFUSE_NAME (Block) Description")
    assert "\x1b" not in out


@pytest.mark.parametrize(
    "words",
    [
        "--debug summary --form json --fi s.json",  # versions 3 and 4 accept unique prefixes
        "--do-not-conf burn_bit BLOCK3 3 --force-w",
        "burn_key BLOCK_KEY1 key USER --no-r --no-w --show-s --do-not-confirm",
        "--do-not-confirm --postpone burn_efuse DIS_ICACHE 1 --force",
        "burn_block_data --off 4 BLOCK_USR_DATA part --do-not-confirm",
        "burn_custom_mac AA:CD:EF:01:02:03 --do-not-confirm",
        "dump --file d.bin --form joint",
        "dump --file_name d.bin",
        "check_error --reco",
        "get_custom_mac",
        "adc_info",
    ],
)
def test_espefuse_accepts_the_spellings_of_versions_3_to_5(
    words: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = pytest.importorskip("espwire_compat.espefuse").main
    (folder / "part").write_bytes(b"abcd")
    assert program(["-c", "ESP32-C3", "--virt", "--path-efuse", FILE, *words.split()]) == 0
    assert capsys.readouterr().err == ""


def test_espefuse_reads_and_burns_over_a_port(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = pytest.importorskip("espwire_compat.espefuse").main
    line = ["-p", f"virtual:esp32c3?profile=instant&efuse={FILE}", "-b", "115200"]
    line += ["--before", "default_reset", "--do-not-confirm"]
    assert program([*line, "burn_key", "BLOCK_KEY0", "key", "XTS_AES_128_KEY"]) == 0
    shown = capsys.readouterr()
    assert "BURN BLOCK4  - OK (write block == read block)\n" in shown.out
    assert "not reset (--after no-reset)" in shown.out
    assert burned()[4] == int.from_bytes(KEY[::-1], "little")
    assert program([*line, "--chip", "esp32", "summary"]) == 2


@pytest.mark.parametrize(
    ("chip", "words"),
    [
        ("esp32", ["flash_encryption", "BLOCK3"]),
        ("esp32c3", ["BLOCK_KEY5", "XTS_AES_128_KEY", "SECURE_BOOT_DIGEST2"]),
        ("esp32p4", ["XTS_AES_256_KEY", "ECDSA_KEY_P384", "CUSTOM_31"]),
    ],
)
def test_the_help_of_burn_key_lists_blocks_and_purposes_of_the_chip(
    chip: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    for command in ("burn-key", "burn-key-digest"):
        assert main(["efuse", "--chip", chip, command, "--help"]) == 0
        text = capsys.readouterr().out.split()
        assert [word for word in words if word not in text] == []
    assert main(["efuse", "burn-key", "--help"]) == 0
    text = capsys.readouterr().out
    assert "Add --chip CHIP before the command for its blocks and purposes." in text
    assert "BLOCK_KEY5" not in text


def test_a_served_chip_has_the_efuses_of_a_file() -> None:
    from espwire.cli.commands.virtual import URL_KEYS

    assert "efuse" in URL_KEYS


def test_ctrl_c_at_the_question_says_that_nothing_was_burned(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Stopped(io.StringIO):
        def readline(self, size: int | None = -1, /) -> str:
            raise KeyboardInterrupt

    monkeypatch.setattr("sys.stdin", Stopped())
    assert run("burn-efuse", "WDT_DELAY_SEL", "1", confirm=True) == 130
    error = capsys.readouterr().err
    assert "stopped by Ctrl-C; nothing was burned [cancelled]" in error
    assert "the flash is incomplete" not in error
    assert not any(burned())


def test_hints_fit_what_was_asked(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("burn-efuse", "WDT_DELAY_SEL", "1", "WDT_DELAY_SEL", "2") != 0
    assert "cannot become 0x2: another request makes it 0x1" in capsys.readouterr().err
    assert run("burn-efuse", "WDT_DELAY_SEL", "1") == 0
    capsys.readouterr()
    assert run("burn-efuse", "WDT_DELAY_SEL", "2") != 0
    assert "cannot become 0x2: it is 0x1" in capsys.readouterr().err
    assert run("burn-key", "BLOCK_KEY1", "key", "SECURE_BOOT_DIGEST0") == 0
    capsys.readouterr()
    assert run("read-protect-efuse", "BLOCK_KEY1") != 0
    error = capsys.readouterr().err
    assert "hint: The chip has to read the digest: leave it readable." in error
    assert run("read-protect-efuse", "BLOCK_KEY2") != 0
    assert "hint: Burn a key with a secret purpose first." in capsys.readouterr().err


def test_an_edited_plan_is_one_of_the_reasons(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run("burn-efuse", "WDT_DELAY_SEL", "1", "--plan", "plan.json") == 0
    plan = folder / "plan.json"
    edited = json.loads(plan.read_text())
    edited["commands"] = [["burn-efuse", "WDT_DELAY_SEL", "2"]]
    plan.write_text(json.dumps(edited))
    capsys.readouterr()
    assert run("burn", "--plan", "plan.json") == 6
    assert "the plan was edited, or a key or data file has changed" in capsys.readouterr().err


def test_an_empty_efuse_file_is_an_error(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / FILE).touch()
    for words in (["summary"], ["burn-efuse", "WDT_DELAY_SEL", "1"]):
        assert run(*words) == 6
        assert "[efuse-file]" in capsys.readouterr().err
    assert main(["-p", f"virtual:esp32c3?profile=instant&efuse={FILE}", "chip-id"]) == 6
    assert (folder / FILE).read_bytes() == b""


def test_formats_of_the_summary_are_listed_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("summary", "--format", "jsom") == 2
    assert capsys.readouterr().err.count("value") == 2  # "Invalid value", and the format
    assert run("summary", "--format", "value-only", "WDT_DELAY_SEL") == 0
    assert capsys.readouterr().out.split()[-1] == "40000"  # of the slow clock
