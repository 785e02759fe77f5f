"""Fields that are unset or invalid are shown as such, and are null for programs."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from espwire.chips.registry import load_chip
from espwire.cli.commands.chip import describe_security_info, security_data
from espwire.cli.main import main
from espwire.device.connect import connect
from espwire.device.identity import describe_mac, known_mac
from espwire.device.security import SecurityInfo
from espwire.image.codec import build, create_image
from espwire.image.header import (
    format_chip_id,
    format_revision,
    format_revisions,
    format_wp_pin,
)
from espwire.image.model import Segment


def make_app(tmp_path: Path, name: str = "app.bin", **header: int) -> str:
    """An application whose descriptor was never filled in, and a header with the given fields."""
    descriptor = (
        struct.pack("<II", 0xABCD5432, 0) + header.pop("fill", 0).to_bytes(1, "little") * 248
    )
    image = build(
        create_image((Segment(0x3C000020, descriptor),), 0x40380000, chip=load_chip("esp32c3"))
    )
    data = bytearray(image)
    for field, (at, form) in {
        "chip_id": (12, "<H"),
        "min": (15, "<H"),
        "max": (17, "<H"),
        "wp": (8, "<B"),
    }.items():
        if field in header:
            struct.pack_into(form, data, at, header[field])
    path = tmp_path / name
    path.write_bytes(data)
    return str(path)


def read_result(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    main(["--json", *words])
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    return next(line["data"] for line in lines if line["event"] == "Result")


@pytest.mark.parametrize("fill", [0, 0xFF])
def test_an_empty_descriptor_reads_not_set(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], fill: int
) -> None:
    path = make_app(tmp_path, fill=fill)
    main(["image-info", path])
    shown = capsys.readouterr().out
    for field in ("Project", "Version", "Built", "ESP-IDF", "ELF SHA-256"):
        assert f"{field + ':':<20} not set" in shown
    assert "655" not in shown
    assert "maximum not set" in shown
    told = read_result(capsys, "image-info", path)["items"][0]["image"]
    app = told["app_descriptor"]
    for field in (
        "project",
        "version",
        "date",
        "time",
        "idf_version",
        "elf_sha256",
        "max_efuse_block_revision",
    ):
        assert app[field] is None, field
    assert told["extended_header"]["max_revision"] is None


def test_headers_out_of_range_read_invalid(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = make_app(tmp_path, chip_id=2592, min=0xFFFE, max=20000, wp=0x77)
    main(["image-info", path])
    shown = capsys.readouterr().out
    assert "invalid (2592)" in shown
    assert "invalid (0xfffe) to invalid (0x4e20)" in shown
    assert "invalid (0x77)" in shown
    header = read_result(capsys, "image-info", path)["items"][0]["image"]["extended_header"]
    assert (header["chip_id"], header["min_revision"], header["max_revision"]) == (None, None, None)


def test_image_diff_names_them_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    old, new = make_app(tmp_path, max=399), make_app(tmp_path, "new.bin", chip_id=2592, fill=0xFF)
    assert main(["image-diff", old, new]) == 7
    shown = capsys.readouterr().out
    assert "chip revisions: v0.0 to v3.99 → v0.0 or later (maximum not set)" in shown
    assert "chip id: 5 (ESP32-C3) → invalid (2592)" in shown
    assert "655" not in shown


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "v0.0"),
        (103, "v1.3"),
        (9999, "v99.99"),
        (10000, "invalid (0x2710)"),
        (0xFFFF, "invalid (0xffff)"),
    ],
)
def test_a_revision_out_of_range_is_invalid(value: int, text: str) -> None:
    assert format_revision(value) == text


def test_each_field_has_its_own_unset_value() -> None:
    assert (
        format_revisions(3, 0xFFFF) == format_revisions(3, 0) == "v0.3 or later (maximum not set)"
    )
    assert format_revisions(0, 199) == "v0.0 to v1.99"
    assert (format_chip_id(5), format_chip_id(0xFFFF), format_chip_id(2592)) == (
        "5 (ESP32-C3)",
        "not set",
        "invalid (2592)",
    )
    assert (format_wp_pin(0xEE), format_wp_pin(7), format_wp_pin(0xFF)) == (
        "not used",
        "7",
        "invalid (0xff)",
    )
    assert (describe_mac("00:00:00:00:00:00"), known_mac("00:00:00:00:00:00")) == ("not set", None)
    assert (describe_mac("ff:ff:ff:ff:ff:ff"), known_mac("FF:FF:FF:FF:FF:FF")) == (
        "invalid (ff:ff:ff:ff:ff:ff)",
        None,
    )
    assert (
        describe_mac("60:55:f9:00:00:01") == known_mac("60:55:f9:00:00:01") == "60:55:f9:00:00:01"
    )


def test_a_chip_without_a_burned_mac_is_shown_without_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    port = ["--port", "virtual:esp32c3?profile=instant&mac=00:00:00:00:00:00", "--no-state"]
    assert main([*port, "read-mac"]) == 0
    assert capsys.readouterr().out.splitlines()[1:] == [
        "Found ESP32-C3 (QFN32), revision v1.1, MAC not set.",
        "MAC: not set",
        "The board was reset.",
    ]
    assert main([*port, "chip-info"]) == 0
    assert "not set" in capsys.readouterr().out
    assert read_result(capsys, *port, "chip-info")["mac"] is None


@pytest.mark.parametrize(
    ("chip_id", "eco", "shown"),
    [
        (2592, 0xFFFFFFFF, ("invalid (2592)", "not set")),
        (0xFFFFFFFF, 0x10000, ("not set", "invalid (0x10000)")),
    ],
)
def test_security_info_names_ids_that_are_none(
    chip_id: int, eco: int, shown: tuple[str, str]
) -> None:
    with connect("virtual:esp32c3?profile=instant", stub=False) as device:
        info = SecurityInfo(flags=0, flash_crypt_count=0, chip_id=chip_id, eco=eco)
        lines = describe_security_info(device, info).splitlines()
        assert tuple(line.split(":")[1].strip() for line in lines[-2:]) == shown
        told = security_data(device, info)
    assert (told["chip_id"], told["eco"]) == (None, None)
