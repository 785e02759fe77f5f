"""Overrides the voltage of the flash's supply (VDD_SDIO, ESP32) until the next reset. Burns nothing."""

from __future__ import annotations

from typing import Literal

from espwire.chips.model import Chip
from espwire.device.loader import Loader
from espwire.errors import UsageError
from espwire.wire.commands import Op, RegWrite

Voltage = Literal["1.8V", "1.9V", "OFF"]
OFF, RAISED = "OFF", "1.9V"


def override_flash_voltage(loader: Loader, chip: Chip, voltage: str) -> None:
    """Have the internal regulator give ``voltage``, or nothing (``OFF``: the board feeds the flash).

    :raises UsageError: code ``flash-voltage``: this chip has no such override, or no such voltage
    :raises Unsupported: code ``secure-download-mode``, before anything is sent
    """
    loader.require(Op.WRITE_REG)
    address, value = build_voltage_word(chip, voltage)
    loader.write_regs(RegWrite(address, value))


def build_voltage_word(chip: Chip, voltage: str) -> tuple[int, int]:
    """Register and word that override the eFuses' choice. Source: ``chips/data`` [flash_voltage] override.

    :raises UsageError: code ``flash-voltage``
    """
    override = chip.flash_voltage.override if chip.flash_voltage is not None else None
    if override is None:
        raise UsageError(
            f"the {chip.name}'s flash voltage cannot be overridden: only the ESP32 has such a regulator",
            hint="Leave --override-vddsdio out.",
            code="flash-voltage",
        )
    if voltage not in override.choices:
        raise UsageError(
            f"the flash voltage cannot be {voltage}",
            hint=f"Choose one of {', '.join(override.choices)}.",
            code="flash-voltage",
        )
    word = 1 << override.force_bit | 1 << override.pull_down_bit
    if voltage != OFF:
        word |= 1 << override.power_bit
    if voltage == RAISED:
        for shift in (override.high_ref_shift, override.mid_ref_shift, override.low_ref_shift):
            word |= override.ref_mask << shift
    return override.address, word
