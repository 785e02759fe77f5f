"""Builds a virtual chip from its options: the individual chip, its flash part, its flash encryption."""

from __future__ import annotations

import dataclasses
import random
from contextlib import suppress
from functools import partial
from pathlib import Path

from espwire.chips.model import Chip
from espwire.chips.registry import load_chip
from espwire.errors import KeyFileError, UsageError
from espwire.secure.flash_encryption import (
    USUAL_CRYPT_CONFIG,
    encrypt_esp32,
    encrypt_xts,
    require_cryptography,
)
from espwire.virtual.chip import VirtualChip
from espwire.virtual.config import VirtualOptions
from espwire.virtual.defects import DefectiveChip
from espwire.virtual.efuses import (
    DEFAULT_FLASH_KEY,
    ChipConfig,
    default_config,
    fuse_registers,
    security_info,
)
from espwire.virtual.faults import COMMAND_KINDS, Faults
from espwire.virtual.flash_parts import PROFILES, find_part
from espwire.virtual.nor_flash import NorFlash
from espwire.virtual.programs.program import Encrypt
from espwire.virtual.soc.mask_rom import LoadedRom, load_rom

BLANK_FLASH_KEY = bytes(32)


def build_config(options: VirtualOptions) -> ChipConfig:
    """The usual individual chip, changed by the options.

    :raises UsageError: a value is not possible for this chip
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
                f"{chip.name} does not support a crystal of {options.crystal} MHz",
                hint=f"It supports {known} MHz.",
            )
        changes["crystal_mhz"] = options.crystal
    if options.secure_download and not chip.rom.secure_ops:
        raise UsageError(
            f"{chip.name} has no Secure Download Mode", hint="Remove the option secure-download."
        )
    return dataclasses.replace(config, **changes)  # type: ignore[arg-type]


def build_flash(options: VirtualOptions) -> NorFlash:
    """The flash part, with its file if it has one.

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


def load_mask_rom(chip: Chip, options: VirtualOptions) -> LoadedRom | None:
    """The image of the chip's own ROM, if the options ask for it.

    :raises UsageError: no image was found, or the port is not the UART
    :raises DataError: the file is not an image of this ROM
    """
    if options.rom is None:
        return None
    if options.kind != "uart":
        raise UsageError(
            f"the ROM runs only behind the UART, not behind {options.kind}",
            hint="Remove the option kind, or the option rom.",
        )
    ignored = {
        "strap": options.strap is not None,
        "stub": options.stub in ("off", "vendor"),
        "fault": any(
            kind in (*options.faults.rates, *options.faults.once) for kind in COMMAND_KINDS
        ),
    }
    for name, is_set in ignored.items():
        if is_set:
            what = f"fault={'/'.join(COMMAND_KINDS)}" if name == "fault" else name
            raise UsageError(
                f"the option {what} is for the model of the ROM and has no effect with rom=",
                hint="Remove one of the two options.",
                code="rom-option",
            )
    return load_rom(chip, Path(options.rom) if options.rom else None)


def build_chip(options: VirtualOptions, config: ChipConfig | None = None) -> VirtualChip:
    """The chip, in its loader or its application (``boot``); ``config`` overrides ``build_config(options)``.

    :raises UsageError: the options do not suit the chip
    :raises DataError: the flash file cannot be used
    """
    chip = load_chip(options.chip)
    if (options.kind == "usb-jtag" and not chip.usb.serial_jtag) or (
        options.kind == "usb-otg" and not chip.usb.otg
    ):
        raise UsageError(
            f"{chip.name} has no {options.kind} port",
            hint="Remove the option kind to connect to the UART.",
        )
    config = config if config is not None else build_config(options)
    faults = Faults(options.faults, random.Random(options.seed).getrandbits(32))
    words = fuse_registers(chip, config)  # report invalid values before a file is created
    fuses = None
    if options.efuse is not None or options.efuse_errors:
        from espwire.virtual import fuse_file

        fuses = (
            fuse_file.build_store(chip, words)
            if options.efuse is None
            else fuse_file.open_store(chip, config, options.efuse)
        )
        fuse_file.apply_errors(fuses, options.efuse_errors)
        config = fuse_file.read_config(chip, config, words | fuse_file.read_words(fuses), fuses)
    kind = DefectiveChip if options.defects or options.app_baud else VirtualChip
    rom = load_mask_rom(chip, options)
    result = kind(chip, config, build_flash(options), options, faults, rom, fuses)
    if options.kind != "uart":
        result.registers.note_usb(config.revision, otg=options.kind == "usb-otg")
    _set_encryption(result, chip, config)
    result.on_fuses = partial(_follow_fuses, result, chip, config)
    return result


def _follow_fuses(result: VirtualChip, chip: Chip, config: ChipConfig) -> None:
    """Encrypt with the key that the eFuses hold now, and report what they enable.

    The hardware takes any key; one that is refused here encrypts nothing.
    """
    from espwire.virtual.fuse_file import read_config

    if result.fuses is not None:
        now = read_config(chip, config, result.registers.words, result.fuses)
        result.rom.security_info = security_info(chip, now)
        with suppress(KeyFileError):
            _set_encryption(result, chip, now)


def _set_encryption(result: VirtualChip, chip: Chip, config: ChipConfig) -> None:
    """Let ROM and programs encrypt, unless eFuses disable it.

    :raises KeyFileError: the key cannot be used
    """
    key = config.flash_key or DEFAULT_FLASH_KEY
    encrypt: Encrypt | None = None
    result.rom.encrypt = None
    if config.manual_encrypt_disabled:
        pass
    elif config.has_flash_key and chip.rom.encrypted_write:
        encrypt_xts(b"", 0, key)  # report an invalid key now
        encrypt = result.rom.encrypt = partial(encrypt_xts, key=key)
    elif chip.security.key_readable is not None:
        setting = USUAL_CRYPT_CONFIG
        if config.has_flash_key:
            require_cryptography()
        else:  # with blank eFuses, an ESP32 encrypts with a key of zeros
            key, setting = BLANK_FLASH_KEY, 0
        encrypt = partial(
            encrypt_esp32, key=key, crypt_config=config.fields.get("flash_crypt_config", setting)
        )
    result.runner.services = dataclasses.replace(result.runner.services, encrypt=encrypt)
