"""What the bits of a field mean: labels, numbers, addresses, key purposes; and values given as text.

Labels are those of espefuse, because scripts compare them.
"""

from __future__ import annotations

import re

from espwire.efuse.model import Calculated, Field
from espwire.efuse.state import FuseState
from espwire.efuse.tables import AnyField, Layout

Meaning = bool | int | float | str
UNKNOWN_PURPOSE = "FORBIDDEN_STATE"
REVOCATIONS = tuple(f"SECURE_BOOT_KEY_REVOKE{slot}" for slot in range(3))


def describe(state: FuseState, field: AnyField) -> Meaning:
    """The value of a field as people read it; ``?`` stands for what software cannot read."""
    raw = state.raw(field)
    if field.kind == "bytes":
        return _describe_bytes(state, field)
    if isinstance(field, Field) and field.format == "key_purpose":
        return name_purpose(state.layout, purpose_number(state, field))
    label = _find_label(field, raw) if isinstance(field, Field) else None
    if label is not None:
        return label
    if field.kind == "flag":
        return bool(raw) if state.readable(field) else str(bool(raw))
    if not state.readable(field):
        return "?"
    return _calculate(state, field, raw)


def _find_label(field: Field, raw: int) -> str | None:
    """The label of a value; the chip counts the bits of a counter, wherever they are."""
    if field.format == "bit_count":
        raw = (1 << raw.bit_count()) - 1
    return field.values.get(raw)


def name_purpose(layout: Layout, number: int) -> str:
    """The name of a key purpose, from the number in a purpose field."""
    for purpose in layout.purposes():
        if purpose.value == number and purpose.block is None:
            return purpose.name
    return UNKNOWN_PURPOSE


def purpose_number(state: FuseState, field: Field) -> int:
    """The number in a purpose field, with the higher bits that another field holds."""
    high = state.value_of(field.high) if field.high else 0
    return state.raw(field) | high << field.bits


def revocation_name(purpose: str) -> str:
    """The eFuse that revokes the digest in a block with this purpose; empty: none."""
    slot = re.fullmatch(r"SECURE_BOOT_DIGEST(\d)", purpose)
    return "" if slot is None else f"SECURE_BOOT_KEY_REVOKE{slot[1]}"


def _calculate(state: FuseState, field: AnyField, raw: int) -> int | float:
    formats = state.data.formats
    sign, magnitude = raw >> field.bits - 1, raw & ((1 << field.bits - 1) - 1)
    if field.format == "adc_vref" and (vref := formats.adc_vref) is not None:
        return vref.base_mv + vref.step_mv * (-magnitude if sign else magnitude)
    if field.format == "adc_point" and (point := formats.adc_point) is not None:
        if point.twos_complement:
            signed = raw - (sign << field.bits)
            return point.offsets[field.name] + point.step * signed
        return raw
    if field.format == "temp_sensor" and (sensor := formats.temp_sensor) is not None:
        return (-magnitude if sign else magnitude) * sensor.step
    if field.format == "spi_pin" and (pin := formats.spi_pin) is not None:
        return raw + 2 if raw >= pin.add_2_from else raw
    return raw


def stored_bytes(state: FuseState, field: AnyField) -> bytes:
    """The bytes of a field, first one first."""
    return state.raw(field).to_bytes(state.bits(field) // 8, "little")


def _describe_bytes(state: FuseState, field: AnyField) -> str:
    data = stored_bytes(state, field)
    hidden = _hidden_bytes(state, field)
    cells = ["??" if gone else f"{byte:02x}" for byte, gone in zip(data, hidden, strict=True)]
    if field.format in ("mac", "eui64"):
        if isinstance(field, Field) and field.reverse:
            cells.reverse()
        return f"{':'.join(cells)} {_judge_mac(state, field)}"
    return " ".join(cells)


def _hidden_bytes(state: FuseState, field: AnyField) -> list[bool]:
    """For each byte of a field, whether software cannot read it."""
    size = state.bits(field) // 8
    if isinstance(field, Calculated) or state.readable(field):
        return [False] * size
    block = state.data.blocks[field.block]
    if set(field.rd_dis) - set(block.rd_dis) or not block.rd_dis:
        return [True] * size
    mask = state.hidden_mask(block) >> field.start
    return [bool(mask >> 8 * i & 0xFF) for i in range(size)]


def _judge_mac(state: FuseState, field: AnyField) -> str:
    """``(OK)``, or on chips that store a CRC-8, whether it is right."""
    crc_field, crc = state.layout.find(f"{field.name}_CRC"), state.chip.mac.crc8
    if crc_field is None or crc is None:
        return "(OK)"
    if not state.readable(field):
        return "(CRC ?x?? OK)"
    stored, expected = state.raw(crc_field), crc.compute(mac_bytes(state, field))
    if stored == expected:
        return f"(CRC {stored:#04x} OK)"
    return f"(CRC {stored:#04x} invalid - calculated {expected:#04x})"


def mac_bytes(state: FuseState, field: AnyField) -> bytes:
    """A MAC address in the order in which it is written."""
    data = stored_bytes(state, field)
    return data[::-1] if isinstance(field, Field) and field.reverse else data


def raw_text(state: FuseState, field: AnyField) -> str:
    """The bits as a hexadecimal number; of bytes, the first one first."""
    if field.kind == "bytes":
        return f"0x{stored_bytes(state, field).hex()}"
    return f"{state.raw(field):#0{2 + -(-field.bits // 4)}x}"


def bits_text(state: FuseState, field: AnyField) -> str:
    """The bits of a number: binary if they do not fill hexadecimal digits."""
    if field.bits % 4:
        return f"{state.raw(field):#0{2 + field.bits}b}"
    return raw_text(state, field)


def type_text(state: FuseState, field: AnyField) -> str:
    """The type as espefuse names it: ``bool``, ``uint:5``, ``bytes:32``."""
    if field.kind == "flag":
        return "bool"
    if field.kind == "bytes":
        return f"bytes:{state.bits(field) // 8}"
    return f"uint:{field.bits}"
