"""Traps that no other test covers: see docs/evidence/2026-11-30-flash-engine-traps.md."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from espwire.cli.context import Context
from espwire.device.connect import connect
from espwire.flash.erase import erase_flash
from espwire.flash.read import read_flash
from espwire.protocol.opcodes import WRITE_ENABLE
from espwire.virtual.transport import open_virtual

CHIP_ERASE = 0xC7


@pytest.mark.skipif(os.name == "nt", reason="symbolic links are for the privileged there")
def test_a_link_that_points_elsewhere_after_a_replug_is_opened_by_its_own_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link, other = tmp_path / "by-id", tmp_path / "ttyUSB7"
    other.touch()
    context = Context()
    monkeypatch.setattr(context.cancel, "sleep", lambda seconds: None)
    context.options["port"] = str(link)
    found = SimpleNamespace(identity=SimpleNamespace(path="/dev/ttyUSB9"))
    context._target = SimpleNamespace(wait_back=lambda seconds: found)  # type: ignore[assignment]
    link.symlink_to(other)
    context._find_again()
    assert context.options["port"] == str(link), "the name that the user gave comes first"
    link.unlink()
    context._find_again()
    assert context.options["port"] == "/dev/ttyUSB9", "then the search by identity"


@pytest.mark.parametrize("stub", [True, False])
def test_a_slow_flash_chip_may_erase_for_minutes(stub: bool) -> None:
    transport = open_virtual("virtual:esp32?size=4MB")
    flash = transport.chip.flash
    flash.timing = replace(flash.timing, erase_64k_s=2.0)  # the longest time in data sheets
    flash.contents[:] = bytes(4 << 20)
    with connect(transport, stub=stub) as device:
        device.attach_flash()
        began = transport.now()
        erase_flash(device)
        assert transport.now() - began > 120
    assert bytes(flash.contents) == b"\xff" * (4 << 20)


@pytest.mark.parametrize("stub", [True, False])
def test_a_flash_chip_that_is_still_erasing_is_not_misread(stub: bool) -> None:
    """The chip was reset while its flash was erasing, which goes on. The ROM loader's path ends that by a reset."""
    transport = open_virtual("virtual:esp32?size=1MB&profile=typ")
    flash, now = transport.chip.flash, transport.now()
    flash.contents[:] = bytes(1 << 20)
    flash.execute(now, WRITE_ENABLE)
    flash.execute(now, CHIP_ERASE)
    assert flash.busy_until > now + 1
    with connect(transport, stub=stub) as device:
        assert device.attach_flash().size == 1 << 20
        assert transport.now() >= flash.busy_until
        assert read_flash(device, 0x1000, 64) == bytes(flash.contents[0x1000:0x1040])
