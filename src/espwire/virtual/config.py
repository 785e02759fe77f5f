"""What a virtual chip shall be, from a URL or from arguments: ``virtual:esp32c3?size=4MB&fault=flip:1e-4``. Builds it.

Keys: ``flash`` (a file that keeps the contents), ``size``, ``vendor``, ``sfdp`` (0: a part without), ``starts``
(``spi``, ``continuous`` or ``sleepy``), ``profile`` (typ, fast, slow, instant), ``mac``, ``revision`` (``3.1`` or 301),
``crystal``, ``rom-crystal``, ``secure-download``, ``secure-boot``, ``secure-boot-v1``, ``flash-encryption``,
``flash-key`` (as in a key file, in hex), ``manual-encrypt-disabled``, ``key-manager``, ``kind`` (uart, usb-jtag,
usb-otg), ``circuit`` (transistor, direct, usb-jtag, none), ``rc`` (seconds that EN takes to rise), ``pins`` (levels
that the board forces on strapping pins: ``15:1,2:0``), ``quirk`` (of the port's driver: open-asserts, one-by-one;
joined by commas), ``line-delay`` (seconds that a change of a line takes), ``boot`` (download, app), ``strap``, ``ail``
(what is physically wrong: ``ails.py``), ``app-baud`` (rate of the application's log), ``latency`` (seconds each way),
``pace``, ``fault``, ``seed``, ``stub`` (what runs programs in RAM: twin, engine, vendor, off: ``programs.py``); any
other key is a field of the chip's eFuses by its name, such as ``package=1``.
"""

from __future__ import annotations

import dataclasses
import os
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl

from espwire.chips.registry import load_chip
from espwire.errors import UsageError
from espwire.sizes import parse_flash_size, parse_number
from espwire.virtual.board import CIRCUITS, RC_DELAY_S
from espwire.virtual.chip import VirtualChip
from espwire.virtual.defects import AILS, DefectiveChip
from espwire.virtual.efuses import ChipConfig, default_config, fuse_registers
from espwire.virtual.faults import Faults, FaultSpec, parse_faults
from espwire.virtual.nor_flash import PROFILES, NorFlash, find_part
from espwire.virtual.programs.registry import StubMode

Kind = Literal["uart", "usb-jtag", "usb-otg"]
MIB = 0x100000
MAC_BYTES = (6, 8)
KEY_BYTES = (16, 32, 64)
FILE_KEYS = frozenset({"flash"})  # keys that name a file
USUAL_CRYPT_CONFIG = 0xF
BLANK_FLASH_KEY = bytes(32)
OWN_FLASH_KEY = bytes(range(32))  # of a chip with flash encryption whose key nobody has named


@dataclass(frozen=True, kw_only=True)
class VirtualOptions:
    """Everything that makes one virtual chip. Sizes in bytes, times in seconds; None: what is usual for the chip."""

    chip: str
    flash: Path | None = None
    size: int = 4 * MIB
    vendor: str = "winbond"
    sfdp: bool = True
    starts: Literal["spi", "continuous", "sleepy"] = "spi"
    profile: str = "typ"
    mac: bytes | None = None
    revision: int | None = None
    crystal: int | None = None
    rom_crystal: int | None = None
    secure_download: bool = False
    secure_boot: bool = False
    secure_boot_v1: bool = False
    flash_encryption: bool = False
    flash_key: bytes = b""
    manual_encrypt_disabled: bool = False
    key_manager: bool = False
    fields: Mapping[str, int] = field(default_factory=dict)
    kind: Kind = "uart"
    circuit: str | None = None
    rc: float = RC_DELAY_S
    pins: Mapping[int, bool] = field(default_factory=dict)
    quirk: frozenset[str] = frozenset()
    line_delay: float = 0.0
    boot: Literal["download", "app"] = "download"
    strap: int | None = None
    ails: frozenset[str] = frozenset()
    app_baud: int = 0
    latency: float = 0.001
    pace: bool = False
    faults: FaultSpec = field(default_factory=FaultSpec)
    seed: int = 0
    stub: StubMode = "twin"


def parse_options(url: str) -> VirtualOptions:
    """The options in a URL, with or without ``virtual:`` in front.

    :raises UsageError: no such chip, a value makes no sense
    """
    chip, pairs = _split(url.removeprefix("virtual:"))
    found: dict[str, object] = {"chip": load_chip(chip).id}
    fields: dict[str, int] = {}
    for key, name, text in pairs:
        parse = _PARSERS.get(name)
        if parse is not None:
            found[{"fault": "faults", "ail": "ails"}.get(name, name)] = parse(key, text)
        else:
            fields[name] = parse_number(text, f"virtual chip option {key}")
    return VirtualOptions(**found, fields=fields)  # type: ignore[arg-type]


def names_file(url: str) -> bool:
    """Whether a port is a virtual chip that creates or writes a file."""
    scheme, _, rest = url.strip().partition(":")
    return scheme.lower() == "virtual" and any(name in FILE_KEYS for _, name, _ in _split(rest)[1])


def _split(text: str) -> tuple[str, list[tuple[str, str, str]]]:
    """The chip, and each key as written, its name in ``VirtualOptions``, and its value."""
    chip, _, query = text.partition("?")
    pairs = parse_qsl(query.replace("+", "%2B"), keep_blank_values=True)
    return chip.strip("/"), [(key, key.replace("-", "_"), value) for key, value in pairs]


def build_config(options: VirtualOptions) -> ChipConfig:
    """The usual chip of its kind with what the options change.

    :raises UsageError: a value does not suit the chip
    """
    chip = load_chip(options.chip)
    config = default_config(chip)
    fields = dict(config.fields) | {
        name.replace("-", "_"): value for name, value in options.fields.items()
    }
    changes: dict[str, object] = {
        "fields": fields,
        "secure_download": options.secure_download,
        "secure_boot": options.secure_boot,
        "secure_boot_v1": options.secure_boot_v1,
        "flash_encryption": options.flash_encryption,
        "flash_key": options.flash_key,
        "manual_encrypt_disabled": options.manual_encrypt_disabled,
        "key_manager": options.key_manager,
        "rom_crystal_mhz": options.rom_crystal,
    }
    if options.mac is not None:
        mac = options.mac
        changes["mac"] = mac if len(mac) == 6 else mac[:3] + mac[5:]
        if len(mac) == 8:
            changes["extension"] = mac[3:5]
    if options.revision is not None:
        changes["revision"] = options.revision
    if options.crystal is not None:
        if options.crystal not in chip.crystal.mhz:
            known = ", ".join(map(str, chip.crystal.mhz))
            raise UsageError(
                f"{chip.name} takes no crystal of {options.crystal} MHz",
                hint=f"It takes {known} MHz.",
            )
        changes["crystal_mhz"] = options.crystal
    if options.secure_download and not chip.rom.secure_ops:
        raise UsageError(
            f"{chip.name} has no Secure Download Mode", hint="Leave secure-download out."
        )
    return dataclasses.replace(config, **changes)  # type: ignore[arg-type]


def build_flash(options: VirtualOptions) -> NorFlash:
    """The flash part, with its file if there is one.

    :raises UsageError: no such part
    :raises DataError: the file cannot be used
    """
    part = find_part(options.size, options.vendor)
    if not options.sfdp:
        part = dataclasses.replace(part, sfdp=b"")
    if options.starts == "sleepy":
        part = dataclasses.replace(part, sleepy=True)
    elif options.starts == "continuous":
        part = dataclasses.replace(part, starts_in="continuous")
    return NorFlash(part, timing=PROFILES[options.profile], path=options.flash, seed=options.seed)


def build_chip(options: VirtualOptions, config: ChipConfig | None = None) -> VirtualChip:
    """The chip, in its loader or its application as ``boot`` says; ``config`` replaces what the options tell of it.

    :raises UsageError: the options do not suit the chip
    :raises DataError: the flash file cannot be used
    """
    chip = load_chip(options.chip)
    if (options.kind == "usb-jtag" and not chip.usb.serial_jtag) or (
        options.kind == "usb-otg" and not chip.usb.otg
    ):
        raise UsageError(
            f"{chip.name} has no {options.kind} port", hint="Leave kind out for a UART."
        )
    config = config if config is not None else build_config(options)
    from espwire.secure.flash_encryption import require_cryptography

    faults = Faults(options.faults, random.Random(options.seed).getrandbits(32))
    fuse_registers(
        chip, config
    )  # what does not fit is refused before a flash file comes into being
    kind = DefectiveChip if options.ails or options.app_baud else VirtualChip
    made = kind(chip, config, build_flash(options), options, faults)
    if options.kind == "usb-jtag":
        made.registers.note_usb(config.revision)
    if config.has_flash_key and chip.rom.encrypted_write and not config.manual_encrypt_disabled:
        require_cryptography()
        made.rom.encrypt = made.slot.encrypt = partial(_encrypt, config.flash_key or OWN_FLASH_KEY)
    elif chip.security.key_readable is not None and not config.manual_encrypt_disabled:
        key, setting = (
            BLANK_FLASH_KEY,
            0,
        )  # with blank eFuses, an ESP32 encrypts with a key of zeros
        if config.has_flash_key:
            require_cryptography()
            key, setting = config.flash_key or OWN_FLASH_KEY, USUAL_CRYPT_CONFIG
        made.slot.encrypt = partial(
            _encrypt_esp32, key, config.fields.get("flash_crypt_config", setting)
        )
    return made


def _encrypt(key: bytes, address: int, data: bytes) -> bytes:
    """What the chip's engine makes of ``data`` for ``address``.

    :raises Unsupported: code ``needs-cryptography``
    """
    from espwire.secure.flash_encryption import encrypt_xts

    return encrypt_xts(data, address, key)


def _encrypt_esp32(key: bytes, crypt_config: int, address: int, data: bytes) -> bytes:
    """The same, of the ESP32's own engine.

    :raises Unsupported: code ``needs-cryptography``
    """
    from espwire.secure.flash_encryption import encrypt_esp32

    return encrypt_esp32(data, address, key, crypt_config)


def _parse_file(key: str, text: str) -> Path:
    if os.path.basename(text) in ("", os.curdir, os.pardir):
        raise UsageError(
            f"virtual chip option {key}={text} names no file",
            hint="Write flash=FILE, such as flash.bin.",
        )
    return Path(text)


def _parse_flag(key: str, text: str) -> bool:
    if text.lower() not in ("", "0", "1", "true", "false", "yes", "no"):
        raise UsageError(
            f"virtual chip option {key}={text} is neither 0 nor 1", hint="Write 1 or 0."
        )
    return text.lower() not in ("0", "false", "no")


def _parse_count(key: str, text: str) -> int:
    return parse_number(text, f"virtual chip option {key}")


def _parse_seconds(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 10:
        raise UsageError(
            f"virtual chip option {key}={text} is no time", hint="Write seconds, such as 0.001."
        )
    return value


def _parse_mac(key: str, text: str) -> bytes:
    try:
        mac = bytes.fromhex(text.replace(":", "").replace("-", ""))
    except ValueError:
        mac = b""
    if len(mac) not in MAC_BYTES:
        raise UsageError(
            f"virtual chip option {key}={text} is no MAC", hint="Write it as 24:0A:C4:00:01:10."
        )
    return mac


def _parse_key(key: str, text: str) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        found = b""
    if len(found) not in KEY_BYTES:
        raise UsageError(
            f"virtual chip option {key} is no flash key", hint="Write 16, 32 or 64 bytes in hex."
        )
    return found


def _parse_revision(key: str, text: str) -> int:
    major, dot, minor = text.removeprefix("v").partition(".")
    number = parse_number(major, f"virtual chip option {key}")
    return (
        number * 100 + parse_number(minor, f"virtual chip option {key}", limit=99)
        if dot
        else number
    )


def _parse_size(key: str, text: str) -> int:
    return parse_flash_size(text)


def _parse_pins(key: str, text: str) -> dict[int, bool]:
    pins = {}
    for word in text.split(","):
        gpio, _, level = word.lower().removeprefix("gpio").partition(":")
        if not (gpio.isdecimal() and len(gpio) <= 3) or level not in ("0", "1"):
            raise UsageError(
                f"virtual chip option {key}={text} is no list of pins", hint="Write it as 15:1,2:0."
            )
        pins[int(gpio)] = level == "1"
    return pins


def _some_of(*choices: str) -> Callable[[str, str], frozenset[str]]:
    one = _one_of(*choices)
    return lambda key, text: frozenset(one(key, word) for word in text.split(","))


def _one_of(*choices: str) -> Callable[[str, str], str]:
    def parse(key: str, text: str) -> str:
        if text not in choices:
            raise UsageError(
                f"virtual chip option {key}={text} is unknown",
                hint=f"Write one of {', '.join(choices)}.",
            )
        return text

    return parse


_PARSERS: Mapping[str, Callable[[str, str], object]] = {
    "flash": _parse_file,
    "size": _parse_size,
    "vendor": lambda key, text: text,
    "sfdp": _parse_flag,
    "starts": _one_of("spi", "continuous", "sleepy"),
    "profile": _one_of(*PROFILES),
    "mac": _parse_mac,
    "revision": _parse_revision,
    "crystal": _parse_count,
    "rom_crystal": _parse_count,
    "secure_download": _parse_flag,
    "secure_boot": _parse_flag,
    "secure_boot_v1": _parse_flag,
    "flash_encryption": _parse_flag,
    "flash_key": _parse_key,
    "manual_encrypt_disabled": _parse_flag,
    "key_manager": _parse_flag,
    "kind": _one_of("uart", "usb-jtag", "usb-otg"),
    "circuit": _one_of(*CIRCUITS),
    "rc": _parse_seconds,
    "pins": _parse_pins,
    "quirk": _some_of("open-asserts", "one-by-one"),
    "line_delay": _parse_seconds,
    "boot": _one_of("download", "app"),
    "strap": _parse_count,
    "ail": _some_of(*AILS),
    "app_baud": _parse_count,
    "latency": _parse_seconds,
    "pace": _parse_flag,
    "fault": lambda key, text: parse_faults(text),
    "seed": _parse_count,
    "stub": _one_of("twin", "engine", "vendor", "off"),
}
