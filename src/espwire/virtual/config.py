"""The options of a virtual chip, and the URL that holds them: ``virtual:esp32c3?size=4MB&fault=flip:1e-4``.

``OPTIONS`` is the only list of the URL's keys: parsing, error messages and the table in ``docs/guide/virtual-chips.md``
are made from it. Any other key is an eFuse field of the chip, such as ``package=1``.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import parse_qsl

from espwire.chips.model import Chip
from espwire.chips.registry import load_chip
from espwire.errors import UsageError
from espwire.sizes import MIB, parse_flash_size, parse_number
from espwire.virtual.adapter import ADAPTERS, Curve, parse_errors
from espwire.virtual.board import CIRCUITS, RC_DELAY_S
from espwire.virtual.faults import FaultSpec, parse_faults
from espwire.virtual.flash_parts import PROFILES
from espwire.virtual.programs.program import StubMode

Kind = Literal["uart", "usb-jtag", "usb-otg"]
MAC_BYTES = (6, 8)
KEY_BYTES = (16, 32, 64)
DEFECTS = {
    "tx-dead": "the wire from the host's TX to the chip's RX is cut",
    "mute": "the wire from the chip's TX to the host's RX is cut",
    "quiet-rom": "the ROM's boot messages are switched off, by a pin or by eFuse",
    "brown-out": "the supply voltage drops at every start",
    "held": "EN is held low permanently",
    "no-pull-up": "EN has no pull-up resistor: once pulled low it stays low",
    "inverted": "the adapter's DTR and RTS have the wrong polarity",
    "crash-loop": "the program in flash crashes shortly after its start, and restarts",
    "noise": "the chip has no supply, and the host's RX picks up noise",
}


@dataclass(frozen=True, kw_only=True)
class VirtualOptions:
    """Everything that defines a virtual chip. Sizes in bytes, times in seconds; None: the chip's usual value.

    ``rom``: an image of the chip's own ROM, which then runs instead of the model; empty: one in the folder ESPWIRE_ROMS.
    """

    chip: str
    rom: str | None = None
    flash: Path | None = None
    efuse: Path | None = None
    efuse_errors: Mapping[int, int] = field(default_factory=dict)
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
    defects: frozenset[str] = frozenset()
    app_baud: int = 0
    latency: float = 0.001
    pace: bool = False
    faults: FaultSpec = field(default_factory=FaultSpec)
    adapter: str = "any"
    errors: Curve = field(default_factory=dict)
    burst: int = 0
    seed: int = 0
    stub: StubMode = "twin"


def parse_options(url: str) -> VirtualOptions:
    """The options in a URL, with or without ``virtual:`` in front.

    :raises UsageError: unknown chip, or an invalid value
    """
    name, pairs = _split(url.removeprefix("virtual:"))
    chip = load_chip(name)
    values: dict[str, object] = {"chip": chip.id}
    fields: dict[str, int] = {}
    for key, text in pairs:
        option = OPTIONS.get(key.replace("_", "-"))
        if option is not None:
            values[option.field or key.replace("-", "_")] = option.parse(key, text)
        else:
            fields[key.replace("-", "_")] = _parse_field(chip, key, text)
    return VirtualOptions(**values, fields=fields)  # type: ignore[arg-type]


def names_file(url: str) -> bool:
    """Whether a port is a virtual chip that creates or writes a file."""
    scheme, _, rest = url.strip().partition(":")
    return scheme.lower() == "virtual" and any(
        option.is_file
        for key, _ in _split(rest)[1]
        if (option := OPTIONS.get(key.replace("_", "-"))) is not None
    )


def _split(text: str) -> tuple[str, list[tuple[str, str]]]:
    """The chip, and the keys with their values."""
    chip, _, query = text.partition("?")
    return chip.strip("/"), parse_qsl(query.replace("+", "%2B"), keep_blank_values=True)


def _error(key: str, text: str, problem: str, hint: str) -> UsageError:
    return UsageError(f"virtual chip option {key}={text} {problem}", hint=hint)


def _parse_file(key: str, text: str) -> Path:
    if os.path.basename(text) in ("", os.curdir, os.pardir):
        raise _error(key, text, "does not name a file", f"Write {key}=FILE, such as {key}.bin.")
    return Path(text)


def _parse_errors(key: str, text: str) -> dict[int, int]:
    errors = {}
    for item in text.split(","):
        block, colon, bits = item.partition(":")
        if not (colon and block.isdecimal() and bits.isdecimal()):
            raise _error(key, text, "is not a list of blocks", "Write it as 4:2,5:9.")
        errors[int(block)] = int(bits)
    return errors


def _parse_flag(key: str, text: str) -> bool:
    if text.lower() not in ("", "0", "1", "true", "false", "yes", "no"):
        raise _error(key, text, "must be 0 or 1", "Write 1 or 0.")
    return text.lower() not in ("0", "false", "no")


def _parse_int(key: str, text: str) -> int:
    return parse_number(text, f"virtual chip option {key}")


def _parse_field(chip: Chip, key: str, text: str) -> int:
    """The value of an eFuse field; other keys are mistakes."""
    if key.replace("-", "_") not in chip.fields and not text[:1].isdecimal():
        close = difflib.get_close_matches(key.lower().replace("_", "-"), OPTIONS, n=1)
        raise UsageError(
            f"unknown virtual chip option {key}={text}",
            hint=f"Did you mean {close[0]}=?" if close else f"Options: {', '.join(OPTIONS)}.",
        )
    return _parse_int(key, text)


def _parse_seconds(key: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 10:
        raise _error(key, text, "is not a time of 0 to 10 seconds", "Write seconds, such as 0.001.")
    return value


def _parse_mac(key: str, text: str) -> bytes:
    mac = _from_hex(text.replace(":", "").replace("-", ""))
    if len(mac) not in MAC_BYTES:
        raise _error(key, text, "is not a MAC address", "Write it as 24:0A:C4:00:01:10.")
    return mac


def _parse_key(key: str, text: str) -> bytes:
    value = _from_hex(text)
    if len(value) not in KEY_BYTES:
        raise UsageError(
            f"virtual chip option {key} is not a flash encryption key",
            hint="Write 16, 32 or 64 bytes in hex.",
        )
    return value


def _from_hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError:
        return b""


def _parse_revision(key: str, text: str) -> int:
    major, dot, minor = text.removeprefix("v").partition(".")
    number = _parse_int(key, major)
    if not dot:
        return number
    return number * 100 + parse_number(minor, f"virtual chip option {key}", limit=99)


def _parse_pins(key: str, text: str) -> dict[int, bool]:
    pins = {}
    for item in text.split(","):
        gpio, _, level = item.lower().removeprefix("gpio").partition(":")
        if not (gpio.isdecimal() and len(gpio) <= 3) or level not in ("0", "1"):
            raise _error(key, text, "is not a list of pins", "Write it as 15:1,2:0.")
        pins[int(gpio)] = level == "1"
    return pins


def _parse_choice(*choices: str) -> Callable[[str, str], str]:
    def parse(key: str, text: str) -> str:
        if text not in choices:
            raise _error(key, text, "is unknown", f"Write one of {', '.join(choices)}.")
        return text

    return parse


def _parse_choices(*choices: str) -> Callable[[str, str], frozenset[str]]:
    parse = _parse_choice(*choices)
    return lambda key, text: frozenset(parse(key, item) for item in text.split(","))


@dataclass(frozen=True)
class UrlOption:
    """A key of the URL. ``example`` and ``help`` are for the table in the guide; ``field``: of ``VirtualOptions``, if
    not the same name; ``in_serve``: ``virtual serve`` has an option of this name."""

    parse: Callable[[str, str], object]
    example: str
    help: str
    field: str = ""
    in_serve: bool = False
    is_file: bool = False


OPTIONS: Mapping[str, UrlOption] = {
    "flash": UrlOption(
        _parse_file,
        "FILE",
        "keep the flash contents in [this file](#the-flash-file)",
        in_serve=True,
        is_file=True,
    ),
    "efuse": UrlOption(
        _parse_file,
        "FILE",
        "keep the eFuses in this file, that of `--path-efuse-file`; a new one starts with the eFuses of this chip",
        in_serve=True,
        is_file=True,
    ),
    "efuse-errors": UrlOption(
        _parse_errors,
        "4:2",
        "coding errors of eFuse blocks: number of the block and of its wrong bits, joined by commas; more than 6 wrong "
        "bits cannot be corrected",
    ),
    "rom": UrlOption(
        lambda key, text: text,
        "FILE",
        "run the chip's own ROM from this image, instruction by instruction, instead of a model of it; without FILE, the "
        "image is searched in the folder that `ESPWIRE_ROMS` names",
        in_serve=True,
    ),
    "size": UrlOption(
        lambda key, text: parse_flash_size(text), "4MB", "flash size, 256KB to 128MB", in_serve=True
    ),
    "vendor": UrlOption(
        lambda key, text: text,
        "xmc",
        "maker of the flash chip: winbond, xmc, gigadevice, macronix, issi",
        in_serve=True,
    ),
    "sfdp": UrlOption(_parse_flag, "0", "flash chip without an SFDP table"),
    "starts": UrlOption(
        _parse_choice("spi", "continuous", "sleepy"),
        "sleepy",
        "state of the flash chip at power-on: `spi` (normal), `continuous` (left in a continuous-read mode), `sleepy` "
        "(an XMC chip that needs the wake-up sequence)",
    ),
    "profile": UrlOption(
        _parse_choice(*PROFILES),
        "typ",
        "speed of the flash chip: typ, fast, slow, instant",
        in_serve=True,
    ),
    "mac": UrlOption(_parse_mac, "…", "MAC address", in_serve=True),
    "revision": UrlOption(_parse_revision, "3.1", "chip revision", in_serve=True),
    "crystal": UrlOption(
        _parse_int,
        "26",
        "crystal frequency in MHz; with 26, an ESP8266 and an ESP32-C2 print their boot text at 74880 baud",
    ),
    "rom-crystal": UrlOption(
        _parse_int, "26", "crystal frequency that the ROM assumes, where it can be wrong"
    ),
    "secure-download": UrlOption(_parse_flag, "1", "Secure Download Mode"),
    "secure-boot": UrlOption(_parse_flag, "1", "secure boot"),
    "secure-boot-v1": UrlOption(_parse_flag, "1", "secure boot version 1"),
    "flash-encryption": UrlOption(_parse_flag, "1", "flash encryption"),
    "flash-key": UrlOption(
        _parse_key,
        "…",
        "flash encryption key as in a key file, in hex (a blank ESP32 encrypts with zeros)",
    ),
    "manual-encrypt-disabled": UrlOption(
        _parse_flag, "1", "eFuses that disable encrypting downloads"
    ),
    "key-manager": UrlOption(_parse_flag, "1", "the key manager holds the flash encryption key"),
    "kind": UrlOption(
        _parse_choice("uart", "usb-jtag", "usb-otg"),
        "uart",
        "port: uart, usb-jtag, usb-otg",
        in_serve=True,
    ),
    "circuit": UrlOption(
        _parse_choice(*CIRCUITS),
        "transistor",
        "reset circuit from DTR and RTS to the chip: transistor, direct, usb-jtag, none",
    ),
    "rc": UrlOption(_parse_seconds, "0.002", "rise time of EN by its capacitor, in seconds"),
    "pins": UrlOption(_parse_pins, "15:1,2:0", "levels that the board forces on strapping pins"),
    "quirk": UrlOption(
        _parse_choices("open-asserts", "one-by-one"),
        "one-by-one,open-asserts",
        "quirks of the port's driver: opening asserts both lines; lines change one by one",
    ),
    "line-delay": UrlOption(_parse_seconds, "0.001", "how long a change of a line takes"),
    "boot": UrlOption(
        _parse_choice("download", "app"),
        "app",
        "start in download mode (`download`) or in the application",
        in_serve=True,
    ),
    "strap": UrlOption(_parse_int, "0x2", "strapping value in the boot message of download mode"),
    "ail": UrlOption(
        _parse_choices(*DEFECTS),
        "tx-dead",
        "hardware defects, joined by commas: "
        + "; ".join(f"`{name}`: {text}" for name, text in DEFECTS.items()),
        "defects",
    ),
    "app-baud": UrlOption(_parse_int, "9600", "baud rate of the application's log"),
    "latency": UrlOption(
        _parse_seconds, "0.001", "latency of the USB bridge, seconds each way", in_serve=True
    ),
    "pace": UrlOption(
        _parse_flag,
        "1",
        "run as slowly as a real chip; also limits the data rate",
        in_serve=True,
    ),
    "fault": UrlOption(
        lambda key, text: parse_faults(text),
        "flip:1e-4",
        "faults of the line and the chip, at random or scheduled",
        "faults",
        in_serve=True,
    ),
    "adapter": UrlOption(
        _parse_choice(*ADAPTERS),
        "cp2102",
        "USB adapter: `cp2102` refuses rates above 921600 without an error, `ch340` and `pl2303` round to the rates "
        "that they have, `any` sets every rate",
    ),
    "errors": UrlOption(
        lambda key, text: parse_errors(text),
        "2000000:1e-4/1e-2",
        "probability of an error per byte at a baud rate, to the chip and to the host; other rates have none",
    ),
    "burst": UrlOption(
        _parse_int, "4096", "the adapter loses what exceeds so many bytes without a pause"
    ),
    "seed": UrlOption(_parse_int, "1", "seed of the random faults", in_serve=True),
    "stub": UrlOption(
        _parse_choice("twin", "engine", "vendor", "off"),
        "twin",
        "what runs programs in RAM: `twin` (our stub and the vendor's by fast models, everything else instruction by "
        "instruction), `engine` (everything instruction by instruction: slower than real time, so not for writing "
        "through `serve`), `vendor` (any program that is not ours is taken for the vendor's stub), `off` (nothing runs)",
    ),
}
