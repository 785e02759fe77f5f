"""Our eFuse commands and espefuse's on the same virtual eFuses: summaries, dumps, tokens, and what burns leave."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from efuse_lines import ALLOW_ALL, LineGenerator, build_random_state, read_blocks
from many_efuses import run_many

from espwire.cli.main import main
from espwire.efuse.store import open_file
from espwire.efuse.tables import fuse_chip_ids

TABLES = [*((chip, 0) for chip in fuse_chip_ids()), ("esp32h2", 102), ("esp32p4", 300)]
CUSTOM_TABLE = """\
# name, block, first bit, bits, comment
MODULE_VERSION, EFUSE_BLK3, 56, 8, Module version
SETTING_1, EFUSE_BLK3, 67, 6, [SETTING_1_ALT] Setting 1
ID_NUM, EFUSE_BLK3, 140, 8, [MY_ID_NUM] comment
, EFUSE_BLK3, 132, 8, [MY_ID_NUM] comment
MY_DATA, EFUSE_BLK3, 190, 10, My data
MY_DATA.FIELD1, EFUSE_BLK3, 190, 7, My data, first field
WIDE, EFUSE_BLK3, 80, 40, bytes
BIT, EFUSE_BLK3, 79, 1,
"""


def run(*words: str) -> tuple[int, str]:
    """Our exit code and what is printed, in this process."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = main(["efuse", *ALLOW_ALL, *words])
    return code, out.getvalue() + errors.getvalue()


def find_json(text: str) -> dict[str, Any]:
    """The summary in what a program printed, without descriptions, which are in our own words."""
    summary: dict[str, Any] = json.loads(text[text.index("{") : text.rindex("}") + 1])
    for name, field in summary.items():
        del field["description"]
        if name == "SPI_BOOT_CRYPT_CNT" and field["raw_value"] in ("0x2", "0x4", "0x5", "0x6"):
            del field["value"]  # the peer has no labels for these
        if not field["readable"] and field["category"] == "calibration":
            field["value"] = "?"  # the peer calculates it from zeros
    return summary


def drop_revision(text: str) -> str:
    """Tokens without the chip's revision, and without the CRC, which depends on it."""
    return re.sub(r"EFSR:(\w+):\d{3}:(.*):.*", r"EFSR:\1:\2", text)


def find_lines(text: str, start: str) -> list[str]:
    return [line.rstrip() for line in text.splitlines() if start in line]


@pytest.mark.parametrize("count", [3, pytest.param(50, marks=pytest.mark.soak)])
@pytest.mark.parametrize(("chip", "revision"), TABLES)
def test_summary_dump_and_tokens_of_random_states_are_equal(
    esptool: str, tmp_path: Path, chip: str, revision: int, count: int
) -> None:
    tokens = [build_random_state(chip, seed, revision) for seed in range(count)]
    commands = ["dump", "dump", "--format", "token", "summary", "--format", "json"]
    lines = [["--token", token, *commands] for token in tokens]
    answers = run_many(esptool, chip, lines, tmp_path)
    for line, (end, printed) in zip(lines, answers, strict=True):
        theirs = printed
        code, ours = run(*line)
        assert (end, code) == ("", 0), (line, theirs, ours)
        assert find_json(ours) == find_json(theirs), line
        if chip == "esp32s2":  # the peer takes another bit for the revision
            ours, theirs = drop_revision(ours), drop_revision(theirs)
        for start in ("EFSR:", "dump:"):
            assert find_lines(ours, start) == find_lines(theirs, start) != [], line


@pytest.mark.parametrize("count", [20, pytest.param(500, marks=pytest.mark.soak)])
@pytest.mark.parametrize("chip", fuse_chip_ids())
def test_random_lines_burn_the_same_bits_and_refusals_coincide(
    esptool: str, tmp_path: Path, chip: str, count: int
) -> None:
    generator = LineGenerator(chip, tmp_path, seed=count)
    lines = [generator.build_line() for _ in range(count)]
    options = ["--chip", chip, "--virt", "--do-not-confirm", "--path-efuse-file"]
    answers = run_many(
        esptool, chip, [[*options, f"theirs{i}", *line] for i, line in enumerate(lines)], tmp_path
    )
    burned = 0
    for index, (line, (end, theirs)) in enumerate(zip(lines, answers, strict=True)):
        file = str(tmp_path / f"ours{index}")
        code, ours = run(*options, file, *line)
        assert bool(code) == bool(end), (line, end, theirs, ours)
        assert code in (0, 2, 5, 6), ours
        if not code:
            expected = open_file(str(tmp_path / f"theirs{index}"), chip)
            assert list(read_blocks(open_file(file, chip))) == list(read_blocks(expected)), line
            burned += 1
    assert burned >= count // 3


def write_keys(folder: Path) -> None:
    """PEM files of each scheme, and raw keys."""
    from espwire.secure.keys import SCHEMES, generate_key

    for name, scheme in SCHEMES.items():
        (folder / f"{name}.pem").write_bytes(generate_key(scheme).pem())
    (folder / "raw").write_bytes(bytes(range(1, 33)))


REVISION_3 = "EFSR:esp32:301::::::poGikg"
P4_REVISION_3 = "EFSR:esp32p4:301:::::::::::::O1qKmg"
OPEN = "--no-read-protect"
# chip, token of the state before, command
KEY_LINES = [
    ("esp32h2", "", f"burn-key BLOCK_KEY0 ecdsa256.pem ECDSA_KEY {OPEN}"),
    ("esp32h2", "", f"burn-key BLOCK_KEY0 ecdsa192.pem ECDSA_KEY {OPEN}"),
    ("esp32h2", "", f"burn-key BLOCK_KEY0 rsa3072.pem ECDSA_KEY {OPEN}"),
    ("esp32h2", "", f"burn-key BLOCK_KEY0 raw ECDSA_KEY {OPEN}"),
    ("esp32c5", "", f"burn-key BLOCK_KEY0 ecdsa192.pem ECDSA_KEY_P192 {OPEN}"),
    ("esp32c5", "", f"burn-key BLOCK_KEY1 ecdsa384.pem ECDSA_KEY_P384 {OPEN}"),
    ("esp32c5", "", f"burn-key BLOCK_KEY0 raw ECDSA_KEY_P384_L {OPEN}"),
    ("esp32p4", P4_REVISION_3, f"burn-key BLOCK_KEY3 ecdsa384.pem ECDSA_KEY_P384 {OPEN}"),
    ("esp32p4", P4_REVISION_3, f"burn-key BLOCK_KEY0 raw CUSTOM_20 {OPEN}"),
    ("esp32c3", "", "burn-key-digest BLOCK_KEY0 rsa3072.pem SECURE_BOOT_DIGEST0"),
    ("esp32c3", "", "burn-key-digest BLOCK_KEY0 rsa3072.pem XTS_AES_128_KEY"),
    ("esp32h2", "", "burn-key-digest BLOCK_KEY0 ecdsa256.pem SECURE_BOOT_DIGEST1"),
    ("esp32c2", "", "burn-key-digest ecdsa256.pem"),
    ("esp32", "", "burn-key-digest rsa3072.pem"),
    ("esp32", REVISION_3, "burn-key-digest rsa3072.pem"),
    ("esp32c6", "", "burn-key-digest BLOCK_KEY0 rsa3072.pem CUSTOM_DIGEST_3"),
]


def test_keys_in_pem_files_become_the_same_bits(
    esptool: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_keys(tmp_path)
    lines = []
    for index, (chip, token, line) in enumerate(KEY_LINES):
        start = ["--token", token] if token else ["--virt"]
        lines.append(
            [
                *("--chip", chip, *start, "--do-not-confirm"),
                *("--path-efuse-file", f"theirs{index}", *line.split()),
            ]
        )
    answers = run_many(esptool, "esp32c5", lines, tmp_path)
    for index, (line, (end, theirs)) in enumerate(zip(lines, answers, strict=True)):
        code, ours = run(*(word.replace("theirs", "ours") for word in line))
        assert bool(code) == bool(end), (line, theirs, ours)
        if not code:
            chip = KEY_LINES[index][0]
            stores = [open_file(f"{whose}{index}", chip) for whose in ("ours", "theirs")]
            assert list(read_blocks(stores[0])) == list(read_blocks(stores[1])), line


def test_custom_tables_are_read_alike(esptool: str, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text(CUSTOM_TABLE, "utf-8")
    shared = ["--chip", "esp32c3", "--virt", "--do-not-confirm", "--extend-efuse-table", str(table)]
    burn = ["burn-efuse", "MY_DATA", "0x155", "ID_NUM_0", "3", "MY_ID_NUM_1", "5", "BIT", "1"]
    summary = ["summary", "--format", "json"]
    lines = [[*shared, *summary], [*shared, "--path-efuse-file", "theirs", *burn]]
    answers = run_many(esptool, "esp32c3", lines, tmp_path)
    assert [end for end, _ in answers] == ["", ""]
    assert find_json(run(*shared, *summary)[1]) == find_json(answers[0][1])
    assert run(*shared, "--path-efuse-file", str(tmp_path / "ours"), *burn)[0] == 0
    stores = [open_file(str(tmp_path / whose), "esp32c3") for whose in ("ours", "theirs")]
    assert stores[0].burned == stores[1].burned != [0] * 11


def test_the_token_of_a_burn_is_equal(esptool: str, tmp_path: Path) -> None:
    key = tmp_path / "key"
    key.write_bytes(bytes(range(1, 33)))
    line = ["--chip", "esp32c6", "--virt", "--do-not-confirm", "burn-key", "BLOCK_KEY2", str(key)]
    line += ["HMAC_UP", "--show-token"]
    ((end, theirs),) = run_many(esptool, "esp32c6", [line], tmp_path)
    code, ours = run(*line)
    assert (end, code) == ("", 0)
    assert find_lines(ours, "EFSW:") == find_lines(theirs, "EFSW:")
    assert base64.urlsafe_b64encode(bytes(range(1, 33))).decode().rstrip("=") in ours
