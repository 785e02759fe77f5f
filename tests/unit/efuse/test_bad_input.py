"""Damaged tokens, files, tables and plans: one error each, never another exception."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from espwire.efuse.custom_table import parse_custom_table
from espwire.efuse.plan_file import read_plan, require_known_state
from espwire.efuse.store import VirtualStore, build_image, parse_image
from espwire.efuse.tables import load_fuses
from espwire.efuse.token import Token, build_token, parse_token
from espwire.errors import ToolError

DATA = load_fuses("esp32c3")
BLOCKS = tuple(random.Random(2).getrandbits(block.bits) for block in DATA.blocks)
TOKEN = build_token(Token("EFSR", "esp32c3", 4, BLOCKS), [4 * b.words for b in DATA.blocks])
TABLE = (
    "A, EFUSE_BLK3, 0, 8, [ONE] text\n, EFUSE_BLK3, 16, MAX_BLK_LEN,\nB.C, EFUSE_BLK_KEY0, 1, 5,\n"
)
PLAN = {
    "format": "espwire-efuse-plan",
    "version": 1,
    "chip": "esp32c3",
    "revision": 0,
    "commands": [["burn-bit", "BLOCK3", "1"]],
    "states": [["a"]] * 11,
}


def damage(data: bytes, dice: random.Random) -> bytes:
    """One to three changes: a byte replaced, removed, doubled, or the rest cut off."""
    changed = bytearray(data)
    for _ in range(dice.randrange(1, 4)):
        at = dice.randrange(len(changed) or 1)
        part = {
            0: bytes([dice.randrange(256)]),
            1: b"",
            2: bytes(changed[at : at + 1]) * 2,
            3: dice.choice((b":", b",", b"-1", b"99999999999999999999", b"\n", b"[", b"\0")),
        }[dice.randrange(4)]
        changed[at : at + 1] = part
        if dice.random() < 0.1:
            del changed[at:]
    return bytes(changed)


@pytest.mark.parametrize("seed", range(5))
def test_damaged_tokens_are_errors(seed: int) -> None:
    dice, refused = random.Random(seed), 0
    for _ in range(100):
        text = damage(TOKEN.encode(), dice).decode("latin-1")
        try:
            assert parse_token(text) == parse_token(TOKEN)
        except ToolError as error:
            refused += bool(error.hint)
    assert refused > 80


@pytest.mark.parametrize("seed", range(5))
def test_damaged_tables_are_errors_or_tables(seed: int) -> None:
    dice, refused = random.Random(seed), 0
    for _ in range(100):
        text = damage(TABLE.encode(), dice).decode("latin-1")
        try:
            for field in parse_custom_table(text, DATA, "table.csv"):
                assert 0 < field.start + field.bits <= DATA.blocks[field.block].bits
        except ToolError as error:
            refused += "table.csv" in str(error)
    assert refused > 10


@pytest.mark.parametrize("seed", range(5))
def test_damaged_files_are_errors_or_other_bits(seed: int) -> None:
    dice, refused = random.Random(seed), 0
    image = build_image(DATA, BLOCKS)
    assert parse_image(DATA, image, "file") == list(BLOCKS)
    for _ in range(100):
        try:
            parse_image(DATA, damage(image, dice), "file")
        except ToolError as error:
            refused += "ESP32-C3" in str(error)
    assert refused > 30


@pytest.mark.parametrize("seed", range(5))
def test_damaged_plans_are_errors_or_do_not_fit(tmp_path: Path, seed: int) -> None:
    dice, path = random.Random(seed), tmp_path / "plan.json"
    state = VirtualStore("esp32c3").read()
    text = json.dumps(PLAN).encode()
    for _ in range(100):
        path.write_bytes(damage(text, dice))
        with pytest.raises(ToolError) as caught:
            require_known_state(read_plan(str(path)), state)
        assert caught.value.hint
