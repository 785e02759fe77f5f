"""Debug certificates of the ESP32-S31: every field, and what is refused."""

from __future__ import annotations

import hashlib
import json
import zlib

import pytest

from espwire.errors import DataError, KeyFileError, ToolError
from espwire.secure.debug_certificate import (
    ChipInfo,
    build_certificate,
    build_chip_info,
    digest_key,
    parse_chip_info,
    parse_features,
)
from espwire.secure.keys import P256, SCHEMES, generate_key
from espwire.secure.verify import is_valid

MAC, NONCE = bytes.fromhex("001122334455"), bytes(range(32))


def test_each_field_of_a_certificate():
    key = generate_key(P256)
    chip = build_chip_info(MAC, 3, NONCE)
    inner = hashlib.sha256(bytes.fromhex("554433221100")).digest()
    assert chip.digest == hashlib.sha256(inner + NONCE + b"\x30").digest()
    made = build_certificate(key, chip, ("enable_jtag", "enable_force_spi_boot"))
    assert len(made) == 468
    assert made[:12].hex() == "43414d5201000001b4010000"
    assert made[12:16] == zlib.crc32(made[20:436], 0xFFFFFFFF).to_bytes(4, "little")
    assert made[20:276] == bytes([0, 0, 0, 5]).ljust(256, b"\0")
    assert made[276:340] == key.public.raw()
    assert is_valid(key.public, hashlib.sha256(made[20:276] + chip.digest).digest(), made[340:404])
    assert made[404:436] == hashlib.sha256(made[20:404]).digest()
    assert made[436:] == NONCE
    assert digest_key(key.public) == hashlib.sha256(key.public.raw()).digest()[::-1]
    assert build_chip_info(MAC, 0).nonce != build_chip_info(MAC, 0).nonce


def test_only_p_256_keys_and_right_sizes():
    chip = ChipInfo(bytes(32), NONCE)
    for name in ("ecdsa192", "ecdsa384"):
        key = generate_key(SCHEMES[name])
        for work in (
            lambda k=key: build_certificate(k, chip, ()),
            lambda k=key: digest_key(k.public),
        ):
            with pytest.raises(KeyFileError) as caught:
                work()
            assert caught.value.code == "key-scheme"
    for counter in (2, 4, 5, 6, 8, 256, -1):
        with pytest.raises(ToolError) as refused:
            build_chip_info(MAC, counter)
        assert refused.value.code == "session-counter"
    with pytest.raises(ToolError) as refused:
        build_chip_info(MAC[:5], 0)
    assert refused.value.code == "mac"
    for size in (0, 63, 65):
        with pytest.raises(DataError) as wrong:
            parse_chip_info(bytes(size), "info.bin")
        assert wrong.value.code == "chip-info"
    assert parse_chip_info(bytes(32) + NONCE, "info.bin") == chip


def settings(**values):
    entries = [{"key": key, "value": value} for key, value in values.items()]
    return {"version": 1, "groups": [{"group": "config_flags", "entries": entries}]}


def test_features_in_a_json_file():
    text = json.dumps(settings(enable_jtag=True, enable_force_spi_boot=False))
    assert parse_features(text, "usc.json") == {"enable_jtag"}
    assert parse_features('{"version": 1}', "usc.json") == frozenset()
    for wrong in (
        "{",
        "[]",
        "null",
        "{}",
        '{"version": 2}',
        '{"version": 1, "groups": 5}',
        '{"version": 1, "groups": [{}]}',
        '{"version": 1, "groups": [{"group": "config_flags"}]}',
        "[" * 100_000,
        json.dumps(settings(enable_jtag="yes")),
        json.dumps(settings(enable_all=True)),
    ):
        with pytest.raises(DataError) as caught:
            parse_features(wrong, "usc.json")
        assert caught.value.code == "debug-settings"
