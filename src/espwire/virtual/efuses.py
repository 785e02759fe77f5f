"""Encodes an individual chip into the registers that a client reads: eFuses, magic value, UART divider, straps.

:func:`fuse_registers` is the reverse of the decoding that ``chips/data/*.toml`` describes: MAC address, revision, fields,
security, crystal. Bits that the data does not describe are 0, as on a blank part.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from espwire.chips.model import BitAt, BitField, BitPart, Chip
from espwire.errors import UsageError
from espwire.sizes import extract

_OUI_VALUE = re.compile(r"mac1\[23:16\] == ([0-9]+)")
_ESP32_APB_DATE = (
    0x16042000  # other bits of the register with the top revision bit; from the ESP32 traces
)
_SECURITY_INFO_SLOTS = 7
FLASH_TYPE = "flash_type"  # the field for the eFuse of octal flash: 0 quad, 1 octal
# of a chip with flash encryption for which no key was specified
DEFAULT_FLASH_KEY = bytes(range(32))
LONG_KEY = 64  # bytes of a flash key that occupies two key blocks


@dataclass(frozen=True, kw_only=True)
class ChipConfig:
    """An individual chip. ``revision`` is ``major * 100 + minor``; ``fields`` holds values by the chip's field names.

    ``extension``: the two middle bytes of the EUI-64, if the chip has one.
    ``key_purposes``: per key slot; () means what ``flash_encryption`` and ``secure_boot`` need.
    ``rom_crystal_mhz``: crystal that the ROM assumes, where it can be wrong (None: the real crystal).
    ``rom_clock_hz``: clock that the ESP32's ROM has measured (None: the real clock).
    ``flash_key``: the flash encryption key as in a key file, 16, 32 or 64 bytes; b"" means none, or with
    ``flash_encryption`` a default key.
    ``divider``: the UART's clock divider (None: by crystal and baud rate).
    ``security_flags``: flags of GET_SECURITY_INFO that other fields do not describe. ``crypt_count``: its counter of
    flash encryption (None: 1 with ``flash_encryption``, else 0).
    """

    mac: bytes
    revision: int = 0
    fields: Mapping[str, int] = field(default_factory=dict)
    crystal_mhz: int = 40
    secure_download: bool = False
    secure_boot: bool = False
    secure_boot_v1: bool = False
    flash_encryption: bool = False
    manual_encrypt_disabled: bool = False
    key_manager: bool = False
    flash_key: bytes = b""
    key_purposes: tuple[int, ...] = ()
    extension: bytes = b"\xff\xfe"
    rom_crystal_mhz: int | None = None
    rom_clock_hz: float | None = None
    divider: int | None = None
    security_flags: int = 0
    crypt_count: int | None = None

    @property
    def has_flash_key(self) -> bool:
        """Whether a flash encryption key is burned."""
        return self.flash_encryption or bool(self.flash_key)


def default_config(chip: Chip) -> ChipConfig:
    """A usual recent part without security features, MAC address 24:0A:C4:00:01:10 (Espressif's OUI, as in the traces)."""
    sample = chip.sample
    return ChipConfig(
        mac=bytes.fromhex("240ac4000110"),
        revision=sample.revision,
        fields=sample.fields,
        crystal_mhz=sample.crystal_mhz,
    )


def fuse_registers(chip: Chip, config: ChipConfig, *, baud: int | None = None) -> dict[int, int]:
    """Address → value, such that a client decodes exactly this config. ``baud``: current baud rate of the UART.

    :raises UsageError: the chip cannot hold a value, or does not have the feature
    """
    registers: dict[int, int] = {}
    _encode_identity(chip, registers)
    fields = dict(config.fields)
    octal = chip.flash.octal_flag
    if octal is not None:
        flag = BitPart(address=octal.address, shift=octal.bit, bits=1)
        encode_field((flag,), fields.pop(FLASH_TYPE, 0), registers)
    for name, value in fields.items():
        if name not in chip.fields or "revision" in name:
            settable = [key for key in chip.fields if "revision" not in key]
            known = ", ".join(settable + [FLASH_TYPE] * (octal is not None)) or "none"
            raise UsageError(
                f"{chip.name} has no settable field {name!r}", hint=f"Its fields: {known}."
            )
        _encode_named(chip, name, value, registers)
    for name, value in fields.items():  # some fields share bits
        if _decode(chip.fields[name], registers) != value:
            raise UsageError(
                f"{name} {value} of {chip.name} contradicts another field",
                hint="Remove one of them.",
            )
    _encode_revision(chip, config, registers)
    _encode_mac(chip, config, registers)
    _encode_security(chip, config, registers)
    _encode_clocks(chip, config, baud or chip.uart.rom_baud, registers)
    if (eco := chip.security.rom_eco) is not None:
        registers[eco.address] = eco.value
    if chip.strapping.address is not None:
        registers[chip.strapping.address] = build_strapping(chip, download=True)
    return registers


def encode_field(field: BitField, value: int, registers: dict[int, int]) -> None:
    """Store a value in a field, leaving all other bits.

    :raises UsageError: the value does not fit the field
    """
    room = 0
    for part in field:
        room |= ((1 << part.bits) - 1) << part.to
    if value < 0 or value & ~room:
        raise UsageError(
            f"{value} does not fit a field of {room.bit_length()} bits", hint=f"Use at most {room}."
        )
    for part in field:
        mask = (1 << part.bits) - 1
        word = registers.get(part.address, 0) & ~(mask << part.shift)
        registers[part.address] = word | (value >> part.to & mask) << part.shift


def build_strapping(chip: Chip, *, download: bool) -> int:
    """The strapping register's value, for download mode or for the application."""
    word = 0
    second = chip.strapping.second_level_for_download
    for name, bit in chip.strapping.bits.items():
        if name in ("boot", f"gpio{chip.strapping.boot_gpio}"):
            word |= (not download) << bit
        elif name == "second":
            word |= (second in ("", "high")) << bit
        elif (
            "flash_voltage" not in name
        ):  # pins that are high at rest; a low voltage strap is 3.3 V
            word |= 1 << bit
    return word


def find_divider(chip: Chip, crystal_mhz: int, baud: int) -> int:
    """The integer part of the UART's clock divider."""
    return (
        crystal_mhz * 1_000_000 * chip.crystal.clock_multiple // baud & chip.uart.clock_divider_mask
    )


def find_rom_clock(chip: Chip, config: ChipConfig) -> float | None:
    """The clock in Hz that a client computes from the ROM's calibration; None if there is none, or it is invalid.

    A client scales CHANGE_BAUDRATE's number by it, so the baud rate is ``number * nominal / this``.
    """
    fact = chip.crystal.rom_calibration
    ck8m = config.fields.get(fact.ck8m_from, 0) if fact is not None else 0
    return _calibration(chip, config) * 15625 * ck8m / 40 if ck8m else None


def effective_purposes(chip: Chip, config: ChipConfig) -> tuple[int, ...]:
    """The purpose of each key slot; those that the config does not specify are chosen to match its security features."""
    chosen = list(config.key_purposes)
    security = chip.security
    if not chosen and config.has_flash_key and security.flash_key_valid_if:
        long = len(config.flash_key) == LONG_KEY
        rules = [rule for rule in security.flash_key_valid_if if bool(rule.all_of) is long]
        if long and not rules:
            raise UsageError(
                f"{chip.name} does not support a flash key of {LONG_KEY} bytes",
                hint="Use a key of 32 bytes.",
            )
        rule = (rules or security.flash_key_valid_if)[0]
        chosen += rule.any_of[:1] or rule.all_of
    if not config.key_purposes and config.secure_boot:
        chosen += [
            value for value, name in security.key_purposes.items() if name == "SECURE_BOOT_DIGEST0"
        ]
    slots = len(security.key_purpose_slots)
    if len(chosen) > slots and config.key_purposes:
        raise UsageError(
            f"{chip.name} has {slots} key slots, not {len(chosen)}", hint="Use fewer key purposes."
        )
    return tuple((chosen + [0] * slots)[:slots])


def security_info(chip: Chip, config: ChipConfig) -> bytes:
    """Answer of GET_SECURITY_INFO: 20 bytes, 12 on the ESP32-S2, none on chips without the command.

    The last word is the version of the ROM: that of a known ROM, whatever the chip's revision.
    """
    if not chip.identity.security_info_bytes:
        return b""
    flags = config.security_flags | config.secure_boot | config.secure_download << 2
    count = config.flash_encryption if config.crypt_count is None else config.crypt_count
    spare = [chip.security.spare_purpose] * _SECURITY_INFO_SLOTS
    purposes = [*effective_purposes(chip, config), *spare][:_SECURITY_INFO_SLOTS]
    data = flags.to_bytes(4, "little")
    data += bytes((count, *purposes))
    chip_id, eco = chip.identity.image_chip_id or 0, chip.security.rom_eco
    data += chip_id.to_bytes(4, "little") + (eco.value if eco is not None else 0).to_bytes(
        4, "little"
    )
    return data[: chip.identity.security_info_bytes]


def _encode_identity(chip: Chip, registers: dict[int, int]) -> None:
    identity = chip.identity
    words = identity.magic_values or identity.legacy_magic_values[-1:]
    registers[identity.magic_address] = words[0] if words else 0
    if identity.alternate_detect is not None:
        registers[identity.alternate_detect.address] = identity.alternate_detect.value


def _encode_named(chip: Chip, name: str, value: int, registers: dict[int, int]) -> None:
    try:
        encode_field(chip.fields[name], value, registers)
    except UsageError as error:
        raise UsageError(
            f"{name} {value} does not fit the bits of {chip.name}", hint=error.hint
        ) from None


def _encode_revision(chip: Chip, config: ChipConfig, registers: dict[int, int]) -> None:
    rule, fields = chip.revision, chip.fields
    major, minor = divmod(config.revision, 100)
    if rule.constant is not None:
        if config.revision != rule.constant:
            raise UsageError(
                f"{chip.name} has no revision {config.revision}",
                hint=f"It is always {rule.constant}.",
            )
        return
    if rule.major_from_raw:
        raws = [raw for raw, value in rule.major_from_raw.items() if value == major]
        if not raws:
            known = ", ".join(str(value) for value in rule.major_from_raw.values())
            raise UsageError(f"{chip.name} has no major revision {major}", hint=f"Majors: {known}.")
        top = fields["major_revision_raw"][-1].address
        registers.setdefault(top, _ESP32_APB_DATE)
        _encode_named(chip, "major_revision_raw", raws[0], registers)
    else:
        _encode_named(chip, "major_revision", major, registers)
    _encode_named(chip, "minor_revision", minor, registers)
    if rule.treat_as_zero_when:
        _encode_early(chip, config, registers)


def _encode_early(chip: Chip, config: ChipConfig, registers: dict[int, int]) -> None:
    """Parts of revision 0 hold other data in the major field and are recognised by other fields, which must not
    match for any other revision."""
    signs = chip.revision.treat_as_zero_when
    if config.revision == 0 and all(name not in config.fields for name in signs):
        for name, value in signs.items():
            _encode_named(chip, name, value, registers)
        _encode_named(chip, "major_revision", 3, registers)
    elif config.revision and all(
        _decode(chip.fields[name], registers) == value for name, value in signs.items()
    ):
        raise UsageError(
            f"{chip.name} revision {config.revision} with these fields reads as revision 0",
            hint=f"Change one of {', '.join(name for name in signs if 'revision' not in name)}.",
        )


def _decode(bits: BitField, registers: Mapping[int, int]) -> int:
    return sum(
        extract(registers.get(part.address, 0), part.shift, part.bits) << part.to for part in bits
    )


def _encode_mac(chip: Chip, config: ChipConfig, registers: dict[int, int]) -> None:
    if len(config.mac) != 6:
        raise UsageError(
            f"a MAC address has 6 bytes, not {len(config.mac)}",
            hint="Write it as 24:0A:C4:00:01:10.",
        )
    mac = chip.mac
    if mac.words:
        _encode_mac_in_three(chip, config.mac, registers)
        return
    if mac.low_word is None or mac.high_word is None:
        return
    registers[mac.low_word] = registers.get(mac.low_word, 0) | int.from_bytes(config.mac[2:], "big")
    high = int.from_bytes(config.mac[:2], "big")
    if mac.crc8 is not None:
        high |= mac.crc8.compute(config.mac) << mac.crc8.shift
    if mac.extension:
        if len(config.extension) != 2:
            raise UsageError(
                f"a MAC extension has 2 bytes, not {len(config.extension)}",
                hint="The usual value is FF:FE.",
            )
        high |= int.from_bytes(config.extension, "big") << 16
    registers[mac.high_word] = registers.get(mac.high_word, 0) | high


def _encode_mac_in_three(chip: Chip, mac: bytes, registers: dict[int, int]) -> None:
    """ESP8266: the OUI is in a word of its own, or encoded as a number if that word is 0."""
    words = chip.mac.words
    registers[words["mac0"]] = registers.get(words["mac0"], 0) | mac[5] << 24
    registers[words["mac1"]] = registers.get(words["mac1"], 0) | mac[3] << 8 | mac[4]
    for rule in chip.mac.oui_rules:
        code = _OUI_VALUE.fullmatch(rule["when"])
        if (
            code
            and bytes.fromhex(rule["value"].replace(":", "")) == mac[:3]
            and not registers.get(words["mac3"])
        ):
            registers[words["mac1"]] |= int(code[1]) << 16
            registers[words["mac3"]] = 0
            return
    word = registers.get(words["mac3"], 0) | int.from_bytes(mac[:3], "big")
    if not word:
        raise UsageError(
            f"{chip.name} cannot hold a MAC address that starts with 00:00:00",
            hint="Use an Espressif OUI.",
        )
    registers[words["mac3"]] = word


def _set_bit(
    chip: Chip, config: ChipConfig, at: BitAt | None, what: str, registers: dict[int, int]
) -> None:
    if at is None or (at.min_revision is not None and config.revision < at.min_revision):
        since = (
            f"Use revision {at.min_revision} or later." if at is not None else "Remove this option."
        )
        raise UsageError(f"{chip.name} revision {config.revision} has no {what}", hint=since)
    registers[at.address] = registers.get(at.address, 0) | 1 << at.bit


def _encode_security(chip: Chip, config: ChipConfig, registers: dict[int, int]) -> None:
    security = chip.security
    if config.secure_boot:
        _set_bit(
            chip, config, security.secure_boot or security.secure_boot_v2, "secure boot", registers
        )
    if config.secure_boot_v1:
        _set_bit(chip, config, security.secure_boot_v1, "secure boot version 1", registers)
    if config.manual_encrypt_disabled:
        _set_bit(
            chip,
            config,
            security.manual_encrypt_disable,
            "eFuse that disables encrypted download",
            registers,
        )
    if config.secure_download:
        _set_bit(chip, config, security.secure_download, "Secure Download Mode", registers)
    if config.key_manager:
        manager = security.key_manager_flash_key
        if manager is None:
            raise UsageError(f"{chip.name} has no key manager", hint="Remove this option.")
        word = registers.get(manager.address, 0)
        registers[manager.address] = word | manager.test_mask << manager.shift
    if config.has_flash_key:
        _encode_flash_encryption(chip, registers, on=config.flash_encryption)
    purposes = effective_purposes(chip, config)
    for slot, purpose in zip(security.key_purpose_slots, purposes, strict=True):
        if not 0 <= purpose < 1 << slot.bits:
            raise UsageError(
                f"key purpose {purpose} does not fit {slot.bits} bits", hint="See `espwire chips`."
            )
        registers[slot.address] = registers.get(slot.address, 0) | purpose << slot.shift


def _encode_flash_encryption(chip: Chip, registers: dict[int, int], *, on: bool) -> None:
    """An odd count if it is ``on``; without key purposes, also a key block that cannot be read."""
    security = chip.security
    count = security.flash_encryption
    if on and count is None:
        raise UsageError(
            f"flash encryption of {chip.name} is not documented", hint="Remove this option."
        )
    if count is not None:
        registers[count.address] = registers.get(count.address, 0) | on << count.shift
    if security.key_readable is not None:
        address, mask = security.key_readable.read_disable_address, 1 << security.key_readable.bit
        registers[address] = registers.get(address, 0) | mask
    if security.key_valid is not None:
        address = security.key_valid.read_disable_address
        registers[address] = registers.get(address, 0) | security.key_valid.short_needs


def _calibration(chip: Chip, config: ChipConfig) -> int:
    """The ESP32 ROM's measurement: the clock is ``cal * 15625 * ck8m / 40`` Hz. A blank ck8m counts as 0x50."""
    fact = chip.crystal.rom_calibration
    ck8m = (config.fields.get(fact.ck8m_from, 0) if fact is not None else 0) or 0x50
    return round((config.rom_clock_hz or config.crystal_mhz * 1e6) * 40 / 15625 / ck8m)


def _encode_clocks(chip: Chip, config: ChipConfig, baud: int, registers: dict[int, int]) -> None:
    crystal = chip.crystal
    if crystal.mhz and config.crystal_mhz not in crystal.mhz:
        known = ", ".join(map(str, crystal.mhz))
        raise UsageError(
            f"{chip.name} does not support a crystal of {config.crystal_mhz} MHz",
            hint=f"It supports {known} MHz.",
        )
    divider = (
        find_divider(chip, config.crystal_mhz, baud) if config.divider is None else config.divider
    )
    registers[chip.uart.clock_divider_address] = divider
    if crystal.rom_calibration is not None:
        calibration = _calibration(chip, config) & crystal.rom_calibration.mask
        registers[crystal.rom_calibration.address] = calibration << crystal.rom_calibration.shift
    if crystal.rom_setting is not None:
        at = crystal.rom_setting
        mhz = config.rom_crystal_mhz or config.crystal_mhz
        registers[at.address] = registers.get(at.address, 0) | mhz << at.shift
