"""Derives revision, product name, features and MAC from registers, by rules in the chip's data.

The rules are in ``[fields]``, ``[revision]``, ``[naming]`` and ``[mac]`` of the chip's file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from espwire.chips.model import BitField, Chip, Mac, NamePart
from espwire.sizes import Revision

ReadWord = Callable[[int], int]
_BITS = re.compile(r"(\w+)\[(\d+):(\d+)\]")
_CONDITION = re.compile(r"(\w+)(?:\[(\d+):(\d+)\])? (==|!=) (\d+)")
_RADIO_NAMES = {
    "4": "Wi-Fi 4",
    "6": "Wi-Fi 6",
    "6-dual-band": "Wi-Fi 6 (dual-band)",
    "6e-tri-band-2x2": "Wi-Fi 6E (tri-band, 2x2)",
    "classic+le": "Bluetooth Classic and LE",
    "5-le": "Bluetooth 5 LE",
    "5.4-le+classic": "Bluetooth 5.4 Classic and LE",
}
_CORES = {1: "Single core", 2: "Dual core"}


class Registers:
    """Words that do not change while connected, above all eFuses; each is read at most once."""

    def __init__(self, read: ReadWord) -> None:
        self._read = read
        self._words: dict[int, int] = {}

    def keep(self, words: Mapping[int, int]) -> None:
        """Take over words that were read elsewhere."""
        self._words.update(words)

    def word(self, address: int) -> int:
        """The word at ``address``."""
        if address not in self._words:
            self._words[address] = self._read(address)
        return self._words[address]

    def known(self) -> Mapping[int, int]:
        """The words read so far."""
        return dict(self._words)

    def field(self, field: BitField) -> int:
        """A bit field, joined from its parts."""
        return sum((self.word(p.address) >> p.shift & ((1 << p.bits) - 1)) << p.to for p in field)


class Identity:
    """Properties of a chip; each reads only the registers that it needs."""

    def __init__(self, chip: Chip, registers: Registers) -> None:
        self.chip, self.registers = chip, registers

    def value(self, name: str) -> int:
        """The value of a field; the major revision may be derived from another field.

        :raises KeyError: the chip has no such field
        """
        if name == "major_revision" and "major_revision_raw" in self.chip.fields:
            raw = self.registers.field(self.chip.fields["major_revision_raw"])
            return self.chip.revision.major_from_raw.get(raw, self.chip.revision.major_otherwise)
        return self.registers.field(self.chip.fields[name])

    def revision(self) -> Revision:
        """The chip revision from the eFuses."""
        rule = self.chip.revision
        if rule.constant is not None:
            return Revision(rule.constant)
        zero_when = rule.treat_as_zero_when
        if zero_when and all(self.value(name) == value for name, value in zero_when.items()):
            return Revision(0)
        return Revision(self.value("major_revision") * 100 + self.value("minor_revision"))

    def description(self) -> str:
        """The product name, as printed on the package, as far as eFuses identify it."""
        naming = self.chip.naming
        if naming.method == "compose":
            return self._composed_name()
        for rule in naming.rules:
            if all(self._matches(name, wanted) for name, wanted in rule.when.items()):
                return rule.name
        return naming.unknown

    def features(self) -> tuple[str, ...]:
        """Radios, cores, clock, embedded flash and PSRAM, as text."""
        return tuple(
            feature
            for part in (
                self._radio(),
                self._processor(),
                self._embedded("flash"),
                self._embedded("psram"),
            )
            for feature in (*part,)
            if feature
        ) + tuple(self._calibration())

    def mac(self) -> bytes:
        """The factory MAC, 6 bytes."""
        rule = self.chip.mac
        if rule.words:
            return self._mac_by_rules(rule)
        low, high = self._mac_words()
        return (high & 0xFFFF).to_bytes(2, "big") + low.to_bytes(4, "big")

    def eui64(self) -> bytes | None:
        """The EUI-64, 8 bytes: the MAC with an extension in the middle. None: the chip does not have one."""
        if not self.chip.mac.eui64:
            return None
        mac, (_, high) = self.mac(), self._mac_words()
        return mac[:3] + (high >> 16).to_bytes(2, "big") + mac[3:]

    def legacy_chip_id(self) -> int | None:
        """The 32-bit chip id of the ESP8266 (``chip_id`` of ``[mac]``). None on other chips."""
        rule = self.chip.mac
        if not rule.chip_id:
            return None
        mac0, mac1 = (self.registers.word(rule.words[name]) for name in ("mac0", "mac1"))
        return mac0 >> 24 | (mac1 & 0xFFFFFF) << 8

    def _mac_words(self) -> tuple[int, int]:
        rule = self.chip.mac
        return self.registers.word(rule.low_word or 0), self.registers.word(rule.high_word or 0)

    def _mac_by_rules(self, rule: Mac) -> bytes:
        words = {name: self.registers.word(address) for name, address in rule.words.items()}

        def bits(text: str) -> bytes:
            return bytes(words[name] >> int(low) & 0xFF for name, _, low in _BITS.findall(text))

        for oui in rule.oui_rules:
            if _holds(oui["when"], words):
                head = (
                    bits(oui["bytes"])
                    if "bytes" in oui
                    else bytes.fromhex(oui["value"].replace(":", ""))
                )
                return head + bits(rule.tail)
        return bytes(3) + bits(rule.tail)  # unknown OUI

    def _matches(self, name: str, wanted: int | tuple[int, ...]) -> bool:
        value = self.value(name)
        return value == wanted if isinstance(wanted, int) else value in wanted

    def _composed_name(self) -> str:
        naming = self.chip.naming
        has_flash = "flash_capacity" in self.chip.fields and self.value("flash_capacity") != 0
        name = "".join(
            self._name_part(part) for part in naming.parts if has_flash or not part.only_if_flash
        )
        suffix = naming.suffix
        if (
            suffix
            and (has_flash or not suffix.only_if_flash)
            and self.revision() >= suffix.min_revision
        ):
            name += suffix.text
        return (
            f"Unknown {name}" if naming.unknown_marker and naming.unknown_marker in name else name
        )

    def _name_part(self, part: NamePart) -> str:
        if not part.field:
            return part.text
        override = part.override
        if override and all(self.value(name) == value for name, value in override.when.items()):
            return override.text
        return part.map.get(self.value(part.field), part.otherwise)

    def _radio(self) -> list[str]:
        radio = self.chip.radio
        bluetooth = radio.bluetooth
        if bluetooth and "bluetooth_absent" in self.chip.fields and self.value("bluetooth_absent"):
            bluetooth = ""
        return [
            _RADIO_NAMES.get(radio.wifi, radio.wifi and f"Wi-Fi {radio.wifi}"),
            _RADIO_NAMES.get(bluetooth, bluetooth and f"Bluetooth {bluetooth}"),
            "IEEE 802.15.4" if radio.ieee802154 else "",
        ]

    def _processor(self) -> list[str]:
        chip, cores, mhz = self.chip, self.chip.cpu.cores, self.chip.cpu.max_mhz
        if "cpu_single_core" in chip.fields and self.value("cpu_single_core"):
            cores = 1
        rates = chip.field_values.get("cpu_mhz_if_rated")
        if rates and self.value("cpu_rated"):
            mhz = rates["low"] if self.value("cpu_rated_low") else rates["high"]
        low_power = "low-power core" if chip.cpu.low_power_core else ""
        return [_CORES.get(cores, f"{cores} cores"), f"{mhz} MHz", low_power]

    def _embedded(self, what: str) -> list[str]:
        """Embedded flash or PSRAM: by a capacity field, or by a list of packages."""
        fields, values = self.chip.fields, self.chip.field_values
        if packages := values.get(f"embedded_{what}_packages"):
            return [f"embedded {what}"] if self.value("package") in packages else []
        sizes: Mapping[str, int] = values.get(f"{what}_capacity_mb", {})
        code = self.value(f"{what}_capacity") if f"{what}_capacity" in fields else 0
        if not code:
            return []
        size = sizes.get(str(code))
        text = (
            f"embedded {what} {size} MB"
            if size
            else f"embedded {what} of unknown size (code {code})"
        )
        vendors: Mapping[str, str] = values.get(f"{what}_vendor", {})
        if f"{what}_vendor" in fields and (
            vendor := vendors.get(str(self.value(f"{what}_vendor")))
        ):
            text += f" ({vendor})"
        return [text]

    def _calibration(self) -> list[str]:
        found = []
        if "adc_vref" in self.chip.fields and self.value("adc_vref"):
            found.append("ADC reference calibrated")
        schemes: Mapping[str, str] = self.chip.field_values.get("coding_scheme", {})
        if "coding_scheme" in self.chip.fields:
            scheme = schemes.get(str(self.value("coding_scheme")), "unknown")
            found.append(f"eFuse coding {scheme.replace('_', ' ')}")
        return found


def format_mac(mac: bytes) -> str:
    """Pairs of hexadecimal digits with colons.

    >>> format_mac(bytes([1, 0xAB]))
    '01:ab'
    """
    return mac.hex(":")


def known_mac(mac: str) -> str | None:
    """The MAC; None: it was not burned (all zeros) or is invalid (all ones)."""
    return None if not mac or set(mac) <= set("0:") or set(mac.lower()) <= set("f:") else mac


def describe_mac(mac: str) -> str:
    """The MAC as text; says so if it is not set or invalid."""
    return known_mac(mac) or ("not set" if set(mac) <= set("0:") else f"invalid ({mac})")


def estimate_crystal(chip: Chip, baud: int, divider: int) -> int:
    """The crystal in MHz: fixed, or from the UART's divider at a known rate, rounded to an existing crystal."""
    crystal = chip.crystal
    if crystal.method == "fixed":
        return crystal.mhz[0]
    estimate = measured_mhz(chip, baud, divider)
    return next(mhz for above, mhz in crystal.thresholds.items() if estimate > above or not above)


def measured_mhz(chip: Chip, baud: int, divider: int) -> float:
    """The crystal that the divider implies, unrounded; not near any real one if the rate is not ``baud``."""
    return baud * (divider & chip.uart.clock_divider_mask) / 1e6 / chip.crystal.clock_multiple


def _holds(condition: str, words: Mapping[str, int]) -> bool:
    match = _CONDITION.fullmatch(condition)
    if match is None:
        return False
    name, high, low, operator, number = match.groups()
    value = words[name]
    if high is not None:
        value = value >> int(low) & ((1 << (int(high) - int(low) + 1)) - 1)
    return (value == int(number)) is (operator == "==")
