"""Values that the eFuse controller needs in its timing registers before a burn."""

from __future__ import annotations

from collections.abc import Mapping

from espwire.efuse.model import FuseData
from espwire.errors import Unsupported


def find_timing(data: FuseData, mhz: int) -> dict[int, tuple[int, int]]:
    """Timing registers by address: the bits to set, and their mask. Empty if those after a reset are right.

    :param mhz: frequency of the crystal, which is also that of the bus in download mode
    :raises Unsupported: code ``efuse-crystal``: the chip cannot burn with this crystal
    """
    timing = data.timing
    values: Mapping[str, int] = {}
    if timing.mode in ("by_crystal", "by_apb"):
        known = {row["mhz"]: row for row in timing.settings}
        allowed = tuple(known)
        values = known.get(mhz, {})
    else:
        allowed = timing.allowed_mhz
        numbers = {
            "step_count": timing.step_count,
            "clock_divider": timing.clock_divider,
            "power_on": timing.power_on,
            "power_off": timing.power_off,
            "program_inactive": timing.program_inactive.get(mhz),
        }
        values = {name: number for name, number in numbers.items() if number is not None}
    if allowed and mhz not in allowed:
        raise Unsupported(
            f"{data.name} cannot burn eFuses with a crystal of {mhz} MHz",
            hint=f"It can with {' or '.join(map(str, allowed))} MHz.",
            code="efuse-crystal",
        )
    registers: dict[int, tuple[int, int]] = {}
    for name, place in data.controller.bit_fields.items():
        if timing.mode == "default" or name not in values or name in timing.skip:
            continue
        address = data.controller.registers[place.register]
        bits, mask = registers.get(address, (0, 0))
        registers[address] = (
            bits | values[name] << place.shift,
            mask | ((1 << place.bits) - 1) << place.shift,
        )
    return registers
