"""Turns the burning commands into changes of a planner: fields by name, bits, data, locks, flash voltage, MAC address.

Keys are in ``keys.py``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from espwire.efuse.danger import list_secret_blocks
from espwire.efuse.model import Calculated, Field
from espwire.efuse.planner import Planner, build_refusal
from espwire.errors import UsageError
from espwire.sizes import parse_number

_MAC = re.compile(r"[0-9A-Fa-f]{2}(:[0-9A-Fa-f]{2}){5}")
MAC_BYTES = 6
MULTICAST = 1  # bit of the first byte of a MAC address
MEASURED = ("adc_vref", "adc_point", "temp_sensor")
Pair = tuple[str, str | None]


def request_fields(planner: Planner, pairs: Sequence[Pair], *, force: bool = False) -> None:
    """``burn-efuse``: names and values; None stands for the next value of a flag or counter.

    :raises UsageError: a name or value is invalid
    :raises DeviceError: a value cannot be burned
    """
    for name, text in pairs:
        field = planner.layout.field(name)
        if field.format in MEASURED or not planner.before.exists(field):
            raise build_refusal(
                f"{field.name} cannot be burned: the factory measures and burns it",
                "Leave it as it is.",
                "efuse-factory",
            )
        if field.format == "mac":
            _request_mac_field(planner, field, text)
            continue
        if field.format == "key_block" or field.block in list_secret_blocks(planner.before.data):
            planner.secret.add(field.block)
            planner.typed_key = field.name
        if field.kind == "bytes":
            value = parse_bytes(planner, field, text)
            block = planner.before.data.blocks[field.block]
            planner.set_data(block, value << field.start, field.mask, force=force)
        else:
            value = parse_value(planner, field, text)
            if field.high:
                high, value = value >> field.bits, value & ((1 << field.bits) - 1)
                planner.set_field(planner.layout.field(field.high), high, force=force)
            planner.set_field(field, value, force=force)


def parse_value(planner: Planner, field: Field, text: str | None) -> int:
    """The number that a value of a flag or number stands for.

    :raises UsageError: it is not one
    """
    old = planner.raw(field)
    if text is None:
        if field.kind == "flag":
            return 1
        if field.format == "bit_count":
            planner.next_value = field.name
            return _next_count(field, old)
        raise UsageError(f"{field.name} needs a value", hint=f"Write {field.name} VALUE.")
    if field.format == "key_purpose" and not text[:1].isdecimal():
        purpose = planner.layout.purpose(text)
        if purpose.value < 0:
            raise UsageError(
                f"{purpose.name} stands for two purposes and cannot be burned into one field",
                hint=f"Use {' and '.join(purpose.splits_into)}.",
            )
        value = purpose.value
    else:
        value = parse_number(text, f"value of {field.name}", limit=(1 << 64) - 1)
    if not value:
        raise UsageError(
            f"{field.name} cannot become 0: bits only go from 0 to 1",
            hint="Use the value that the field should have.",
        )
    if field.format == "spi_pin":
        return _parse_pin(planner, field, value)
    return value


def _next_count(field: Field, old: int) -> int:
    value = old << 1 | 1
    if value >> field.bits:
        raise build_refusal(
            f"{field.name} is used up: all its {field.bits} bits are set",
            "It can never be changed again.",
            "efuse-spent",
        )
    return value


def _parse_pin(planner: Planner, field: Field, value: int) -> int:
    pin = planner.before.data.formats.spi_pin
    assert pin is not None
    if value in pin.forbidden or value > pin.max:
        raise UsageError(
            f"GPIO{value} cannot be used for {field.name}",
            hint=f"Use GPIO1 to GPIO{pin.max}, except {' and '.join(map(str, pin.forbidden))}.",
        )
    return value - 2 if value >= pin.add_2_from else value


def parse_bytes(planner: Planner, field: Field, text: str | None) -> int:
    """The bits for a field of bytes: a hexadecimal number with all its digits.

    :raises UsageError: it has another length
    """
    digits = (text or "").lower().removeprefix("0x")
    size = planner.before.bits(field)
    if not (text or "").lower().startswith("0x") or re.fullmatch("[0-9a-f]+", digits) is None:
        raise UsageError(
            f"{field.name} needs a hexadecimal value", hint=f"Write 0x and {size // 4} digits."
        )
    if len(digits) * 4 != size:
        raise UsageError(
            f"{field.name} has {size} bits, but the value has {len(digits) * 4}",
            hint=f"Write 0x and {size // 4} digits.",
        )
    return int(digits, 16)


def parse_mac(text: str) -> bytes:
    """A MAC address as ``AA:BB:CC:DD:EE:FF``.

    :raises UsageError: it is not a unicast address
    """
    if _MAC.fullmatch(text) is None:
        raise UsageError(f"{text!r} is not a MAC address", hint="Write it as AA:CD:EF:01:02:03.")
    mac = bytes.fromhex(text.replace(":", ""))
    if mac[0] & MULTICAST:
        raise UsageError(
            f"{text} is a multicast address", hint="The first byte must be an even number."
        )
    return mac


def _request_mac_field(planner: Planner, field: Field, text: str | None) -> None:
    if field.name != "CUSTOM_MAC":
        raise build_refusal(
            f"{field.name} cannot be burned: the factory burns it",
            "Use CUSTOM_MAC.",
            "efuse-factory",
        )
    request_custom_mac(planner, parse_mac(text or ""))


def request_custom_mac(planner: Planner, mac: bytes, *, force: bool = False) -> None:
    """``burn-custom-mac``: the address, and on chips that have them its CRC, version, and a flag that it exists.

    :raises DeviceError: it cannot be burned
    """
    field = planner.layout.field("CUSTOM_MAC")
    planner.set_field(field, int.from_bytes(mac, "little"), force=force)
    crc = planner.before.chip.mac.crc8
    others = {} if crc is None else {"CUSTOM_MAC_CRC": crc.compute(mac)}
    others |= {"MAC_VERSION": 1, "CUSTOM_MAC_USED": 1}
    for name, value in others.items():
        found = planner.layout.find(name)
        if isinstance(found, Field):
            planner.set_field(found, value, force=force)


def request_bits(
    planner: Planner, block_name: str, numbers: Sequence[int], *, force: bool = False
) -> None:
    """``burn-bit``: single bits of a block.

    :raises UsageError: unknown block or bit
    :raises DeviceError: the bits cannot be burned
    """
    block = planner.layout.block(block_name)
    size = planner.before.size(block)
    bits = 0
    for number in numbers:
        if not 0 <= number < size:
            raise UsageError(
                f"{block.name} has no bit {number}", hint=f"Its bits are 0 to {size - 1}."
            )
        bits |= 1 << number
    if block.id in list_secret_blocks(planner.before.data):
        planner.secret.add(block.id)
        planner.typed_key = block.name
    planner.set_data(block, bits, bits, force=force)


def request_data(
    planner: Planner, block_name: str, data: bytes, *, offset: int = 0, force: bool = False
) -> None:
    """``burn-block-data``: bytes of a file, from a byte of the block on.

    :raises UsageError: unknown block, or the data does not fit
    :raises DeviceError: the data cannot be burned
    """
    block = planner.layout.block(block_name)
    size = planner.before.size(block) // 8
    if not data or offset + len(data) > size or (not offset and len(data) != size):
        raise UsageError(
            f"{len(data)} bytes from byte {offset} on do not fill {block.name}, which has {size}",
            hint=f"Use a file of {size} bytes, or --offset for a part.",
        )
    planner.secret.add(block.id)
    mask = ((1 << 8 * len(data)) - 1) << 8 * offset
    value = int.from_bytes(data, "little") << 8 * offset
    planner.set_data(block, value, mask, force=force)


def request_write_locks(planner: Planner, names: Sequence[str]) -> None:
    """``write-protect-efuse``: lock fields, and all that share their locks.

    :raises UsageError: unknown name
    :raises DeviceError: there is no lock, or it cannot be set
    """
    for name in names:
        field = planner.layout.find(name)
        if isinstance(field, Calculated) or field is None:
            field = planner.layout.field(name)
        planner.lock_write(field.wr_dis, field.name)


def request_read_locks(planner: Planner, names: Sequence[str]) -> None:
    """``read-protect-efuse``: hide fields, and all that share their locks.

    :raises UsageError: unknown name
    :raises DeviceError: there is no lock, it cannot be set, or the chip needs to read the block
    """
    from espwire.efuse.keys import require_hideable

    for name in names:
        field = planner.layout.field(name)
        require_hideable(planner, field)
        planner.lock_read(field.rd_dis, field.name)


def request_flash_voltage(planner: Planner, voltage: str) -> None:
    """``set-flash-voltage``: 1.8V, 3.3V or OFF, whatever the strapping pin says.

    :raises DeviceError: the chip has no such eFuses, or they hold another voltage
    """
    names = planner.before.data.flash_voltage
    if names is None:
        raise build_refusal(
            f"{planner.before.data.name} has no eFuses for the flash voltage",
            "Select it by the strapping pins or the board.",
            "efuse-no-voltage",
        )
    on, high = voltage != "OFF", voltage == "3.3V"
    for name, value in ((names.force, True), (names.power, on), (names.high, high)):
        field = planner.layout.field(name)
        if value:
            planner.set_field(field, 1)
        elif planner.raw(field):
            raise build_refusal(
                f"the flash voltage cannot become {voltage}: {field.name} is burned",
                "The other voltage can no longer be selected.",
                "efuse-clear-bits",
            )
