"""Targets for plans and safety checks, without a device: a chip with its ROM loader."""

from __future__ import annotations

from typing import Any

from espwire.chips.registry import load_chip
from espwire.device.backends.rom import find_block_limits
from espwire.device.loader import Loader
from espwire.flash.model import FlashTarget


def rom_target(chip_id: str, *, secure: bool = False, **fields: Any) -> FlashTarget:
    chip = load_chip(chip_id)
    limits = find_block_limits(Loader(None, chip.rom, secure=secure))  # type: ignore[arg-type]
    return FlashTarget(chip=chip, limits=limits, secure_download=secure, **fields)
