"""Attaches the SPI flash chip and identifies it by its JEDEC ID.

A flash chip may need power (some revisions of the ESP32-P4), a reset out of the mode that the application left it in
(66h, 99h), and a wake-up (some XMC parts). Source: ``chips/data`` protocol.toml [flash_start_up], flash-ids.toml.

Also here: the pins of the flash chip as the word for SPI_ATTACH (protocol.toml [spi_attach], the chips' [spi]), and the
voltage of its supply (VDD_SDIO of the ESP32), which can be overridden until the next reset.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

from espwire.chips.model import Chip
from espwire.chips.tables import parse_toml, read_data_file
from espwire.device.double_read import read_word, read_words
from espwire.device.identity import Identity, Registers
from espwire.device.loader import Loader
from espwire.device.spi import RunSpi, SpiCommand, run_spi_commands, write_group
from espwire.errors import DeviceError, Unsupported, UsageError
from espwire.protocol.commands import RegWrite, SpiAttach, SpiSetParams
from espwire.protocol.dialect import Dialect
from espwire.protocol.opcodes import (
    ENABLE_RESET,
    POWER_DOWN,
    READ_ID,
    READ_SFDP,
    RELEASE_POWER_DOWN,
    RESET,
)

XMC, XMC_SFDP_ADDRESS = 0x20, 0x10
READ_SFDP_MAKER = SpiCommand(
    opcode=READ_SFDP, read_bits=8, address=XMC_SFDP_ADDRESS, address_bits=24, dummy_cycles=8
)
# families of this maker when awake: type byte, smallest and largest size code
XMC_FAMILIES = ((0x40, 0x13, 0x20), (0x41, 0x17, 0x20), (0x50, 0x15, 0x16))
XMC_WAKE = (
    SpiCommand(opcode=POWER_DOWN),
    SpiCommand(opcode=0x79),
    SpiCommand(opcode=0xFF),
    SpiCommand(opcode=RELEASE_POWER_DOWN, wait_us=2000),
)
RESET_AND_READ_ID = (
    SpiCommand(opcode=ENABLE_RESET),
    SpiCommand(opcode=RESET),
    SpiCommand(opcode=READ_ID, read_bits=24),
)
SKIPPING_REVISION = 302  # the only one with a bit for it
PIN_BITS = 6
PIN_FIELDS = ("spi_pad_clk", "spi_pad_q", "spi_pad_d", "spi_pad_cs", "spi_pad_hd")


@dataclass(frozen=True, kw_only=True)
class FlashInfo:
    """The flash chip. ``jedec``: maker in bits 7..0, type in 15..8, size code in 23..16; None if it cannot be read.

    ``size`` in bytes; None if the id does not show it. ``assumed``: ``size`` is a guess.
    """

    jedec: int | None
    manufacturer: int = 0
    device: int = 0
    size: int | None = None
    maker_name: str = ""
    assumed: bool = False

    @property
    def id_hex(self) -> str:
        """The id as six hex digits, maker first; empty: it cannot be read."""
        return "" if self.jedec is None else self.jedec.to_bytes(3, "little").hex()


def plan_attach(
    dialect: Dialect, chip: Chip, identity: Identity | None, word: int | None = None
) -> SpiAttach | None:
    """The request that connects the flash chip to the SPI controller, in this loader's form; may be repeated.

    None: this loader has no such request; see ``attach_by_registers``.

    :param identity: None if no register can be read
    :param word: for SPI_ATTACH; None: from eFuses
    """
    if dialect.attach_bytes == 0:
        return None  # FLASH_BEGIN of 0 bytes would attach, too, but one flipped bit makes it erase the bootloader
    pins = word
    if pins is None:
        pins = embedded_flash_pins(chip, identity) if identity is not None else 0
    return SpiAttach(pins, 0 if dialect.attach_bytes == 8 else None)


def attach_by_registers(loader: Loader, chip: Chip) -> None:
    """Connect the flash chip as the ROM's own routine does, verify the registers, and wake it up.

    :raises DeviceError: code ``flash-attach``: the registers do not hold what was written
    :raises Unsupported: the loader gives no access to registers
    """
    steps = chip.flash_attach
    checked = [step for step in steps if step.checked]
    for _ in range(loader.settings.retry.attach_attempts):
        write_group(loader, chip, [RegWrite(step.address, step.value, step.mask) for step in steps])
        words = read_words(loader, [step.address for step in checked])
        if all(
            (word ^ step.value) & step.mask == 0 for word, step in zip(words, checked, strict=True)
        ):
            run_spi_commands(loader, chip, (SpiCommand(opcode=RELEASE_POWER_DOWN),))
            return
    raise DeviceError(
        "the registers that connect the flash chip to the SPI controller do not keep their values",
        hint="Reset the board, then try again with a shorter cable.",
        code="flash-attach",
    )


def embedded_flash_pins(chip: Chip, identity: Identity) -> int:
    """The word for SPI_ATTACH: 0 for the default pins; on packages with embedded flash, the pins in eFuses.

    Source: protocol.toml [spi_attach] esp32_embedded_flash.
    """
    packages = chip.field_values.get("embedded_flash_packages", ())
    if PIN_FIELDS[0] not in chip.fields or identity.value("package") not in packages:
        return 0
    return sum(identity.value(name) << PIN_BITS * at for at, name in enumerate(PIN_FIELDS))


def power_on(loader: Loader, chip: Chip, registers: Registers, revision: int) -> None:
    """Switch on the power of the flash chip if the revision requires it (ESP32-P4)."""
    rule = chip.flash_power_on
    if rule is None or revision not in rule.revisions:
        return
    skip = rule.skip_on_302
    if revision == SKIPPING_REVISION and registers.word(skip.address) >> skip.bit & 1:
        clear = rule.skipped_clears
        if read_word(loader, clear.address) & clear.mask == clear.mask:
            loader.write_regs(RegWrite(clear.address, 0, clear.mask))
        return
    writes: list[RegWrite] = []
    wait = 0.0
    for step in rule.steps:
        if step.op == "wait":
            wait += step.seconds
            continue
        # set and clear are masked writes
        value = {"write": step.value, "set": step.mask, "clear": 0}[step.op]
        mask = 0xFFFFFFFF if step.op == "write" else step.mask
        writes.append(RegWrite(step.address, value, mask, round(wait * 1e6)))
        wait = 0.0
    write_group(loader, chip, writes)
    loader.transport.sleep(wait)


def read_flash_id(spi: RunSpi, early: int | None = None) -> int:
    """The JEDEC ID as in ``FlashInfo.jedec``, after a reset of the flash chip and a wake-up if it needs one.

    :param early: the id that our stub read after such a reset; used if it is plausible
    """
    if early is not None and is_plausible(early):
        return early
    jedec = spi(RESET_AND_READ_ID)
    if is_silent(jedec):  # it may be in power-down, where it ignores even a reset
        jedec = spi((SpiCommand(opcode=RELEASE_POWER_DOWN), *RESET_AND_READ_ID))
    if is_plausible(jedec):
        return jedec
    if spi((READ_SFDP_MAKER,)) != XMC:
        return jedec
    spi(XMC_WAKE)
    return spi((SpiCommand(opcode=READ_ID, read_bits=24),))


def is_plausible(jedec: int) -> bool:
    """Whether an awake flash chip can have this id."""
    maker, kind, code = jedec & 0xFF, jedec >> 8 & 0xFF, jedec >> 16
    table = flash_facts()
    if is_silent(jedec) or find_nand(jedec) is not None:
        return False
    if maker == XMC and any(kind == family for family, _, _ in XMC_FAMILIES):
        return any(kind == family and least <= code <= most for family, least, most in XMC_FAMILIES)
    return (
        any(entry["id"] == maker for entry in table["makers"])
        and find_flash_size(jedec) is not None
    )


def check_flash_answers(jedec: int) -> None:
    """Check that a NOR flash chip has this id.

    :raises DeviceError: codes ``no-flash``, ``nand-flash``
    """
    if is_silent(jedec):
        raise DeviceError(
            f"no flash chip answers: its JEDEC ID reads {jedec:#08x}",
            hint="Check the pins, power and strapping pins of the flash chip; octal or NAND flash may not answer.",
            code="no-flash",
            jedec=jedec,
        )
    if (name := find_nand(jedec)) is not None:
        raise DeviceError(
            f"the flash chip is NAND flash ({name}, ID {jedec.to_bytes(3, 'little').hex()}), which is not supported",
            hint="Use a board with NOR flash, or esptool with --flash-type nand.",
            code="nand-flash",
            jedec=jedec,
        )


def is_octal(jedec: int) -> bool:
    """Whether the id belongs to a known part that can have eight data lines."""
    maker, kind = jedec & 0xFF, jedec >> 8 & 0xFF
    return any(
        entry["maker"] == maker and kind in entry["types"] for entry in flash_facts()["octal_types"]
    )


def find_type_doubt(chip: Chip, registers: Registers, jedec: int) -> str:
    """How the eFuse for octal flash contradicts the flash chip's id, as text; empty if it does not."""
    flag = chip.flash.octal_flag
    if flag is None or bool(registers.word(flag.address) >> flag.bit & 1) == is_octal(jedec):
        return ""
    found = f"the flash chip's id {jedec.to_bytes(3, 'little').hex()} is"
    if is_octal(jedec):
        return f"{found} that of octal flash, but the eFuse FLASH_TYPE selects quad flash"
    return f"{found} not that of a known octal part, but the eFuse FLASH_TYPE selects octal flash; the application may not start"


def is_silent(jedec: int) -> bool:
    """Whether this is what reading without a flash chip gives: the maker's byte is never all zeros or all ones."""
    floating = jedec & 0xFF in (0x00, 0xFF) and find_nand(jedec) is None
    return floating or jedec in flash_facts()["read_id"]["bad_values"]


def find_nand(jedec: int) -> str | None:
    """Part or maker if the id belongs to NAND flash, with or without a leading dummy byte."""
    table = flash_facts()
    first, second, third = jedec.to_bytes(3, "little")
    late = first in (0x00, 0xFF)
    maker, kind = (second, third) if late else (first, second)
    makers = table["makers"] + table["nand_types"]
    if late:
        known = any(
            entry["id" if "id" in entry else "maker"] == maker for entry in makers
        ) and kind not in (0x00, 0xFF)
    else:
        known = any(
            entry["maker"] == maker and kind in entry.get("types", (kind,))
            for entry in table["nand_types"]
        )
    if not known:
        return None
    part = next(
        (
            row
            for row in table["nand"]
            if (row["maker"], row["device"]) == (maker, kind << 8 | third)
        ),
        None,
    )
    named = next(
        (
            entry["name"]
            for entry in table["nand_types"]
            if entry["maker"] == maker and "name" in entry
        ),
        "",
    )
    return str(part["name"]) if part is not None else named or find_maker_name(maker)


def find_flash_size(jedec: int) -> int | None:
    """Size in bytes of the flash chip with this id; None: unknown."""
    table = flash_facts()
    maker, kind, code = jedec & 0xFF, jedec >> 8 & 0xFF, jedec >> 16 & 0xFF
    for part in table["odd_parts"]:
        if (part["maker"], part["device"]) == (maker, kind << 8 | code):
            return int(part["bytes"])
    if maker == table["adesto"]["maker"]:
        codes, code = table["adesto"]["codes"], kind & 0x1F
    else:
        codes = table["size_codes"]
    return next((int(entry["bytes"]) for entry in codes if entry["code"] == code), None)


def find_maker_name(manufacturer: int) -> str:
    """The maker's name, or its number."""
    makers = flash_facts()["makers"]
    return next(
        (entry["name"] for entry in makers if entry["id"] == manufacturer),
        f"maker {manufacturer:#04x}",
    )


def describe_flash(jedec: int, size: int | None = None) -> FlashInfo:
    """What an id reveals; ``size`` overrides the size in it."""
    kind, code = jedec >> 8 & 0xFF, jedec >> 16 & 0xFF
    return FlashInfo(
        jedec=jedec,
        manufacturer=jedec & 0xFF,
        device=kind << 8 | code,
        size=size if size is not None else find_flash_size(jedec),
        maker_name=find_maker_name(jedec & 0xFF),
    )


def set_params(loader: Loader, size: int) -> None:
    """Send the flash size to the loader, which checks addresses against it, if it has that command."""
    command = SpiSetParams(0, size)
    if loader.dialect.sealed:
        loader.send_later(command.packet())  # if it is lost, our stub works without the size too
        return
    with suppress(Unsupported):  # some ROMs need no size
        loader.call(command, repeatable=True)


@cache
def flash_facts() -> dict[str, Any]:
    """``chips/data/flash-ids.toml``: makers, sizes, opcodes, SFDP."""
    return parse_toml(read_data_file("flash-ids.toml"), "flash-ids.toml")


SPI, HSPI = 0, 1  # words for the default pins, and for the second controller of the ESP32
SHIFTS = {"clk": 0, "q": 6, "d": 12, "hd": 24, "cs": 18}
Connection = str | tuple[int, ...]
_HINT = "Use SPI, HSPI, or five GPIO numbers as CLK,Q,D,HD,CS."


def parse_connection(text: str) -> Connection:
    """``SPI``, ``HSPI``, or the numbers of five pins, in the order CLK, Q, D, HD, CS.

    :raises UsageError: code ``spi-connection``

    >>> parse_connection("hspi"), parse_connection("6,7,8,9,11")
    ('HSPI', (6, 7, 8, 9, 11))
    """
    if text.upper() in ("SPI", "HSPI"):
        return text.upper()
    try:
        pins = tuple(int(word, 0) for word in text.split(","))
    except ValueError:
        pins = ()
    if len(pins) != len(SHIFTS):
        raise UsageError(f"{text!r} is not a flash connection", hint=_HINT, code="spi-connection")
    return pins


def build_attach_word(chip: Chip, connection: Connection) -> int:
    """The word for SPI_ATTACH.

    :raises UsageError: code ``spi-connection``: this chip cannot have its flash there
    """
    if connection == "SPI":
        return SPI
    if connection == "HSPI":
        if not chip.spi.hspi_pins:
            raise _refuse(
                f"the {chip.name} does not support flash on HSPI",
                "Omit the option; only the ESP32 does.",
            )
        return HSPI
    if isinstance(connection, str) or not chip.spi.custom_pins:
        raise _refuse(f"the {chip.name} does not support flash on other pins", "Omit the option.")
    pins = dict(zip(SHIFTS, connection, strict=True))
    allowed = _allowed_pins(chip)
    for name, pin in pins.items():
        if pin not in allowed:
            allowed_text = ", ".join(chip.spi.allowed_pins)
            raise _refuse(
                f"GPIO{pin} of the {chip.name} cannot be the flash's {name.upper()}",
                f"Use one of {allowed_text}.",
            )
    most = chip.spi.max_hd_pin
    if most is not None and pins["hd"] > most:
        raise _refuse(
            f"GPIO{pins['hd']} of the {chip.name} cannot be the flash's HD",
            f"Use a GPIO up to {most}.",
        )
    return sum(pin << SHIFTS[name] for name, pin in pins.items())


def find_pin_doubts(chip: Chip, connection: Connection) -> tuple[str, ...]:
    """Warnings about pins that the chip accepts."""
    if isinstance(connection, str):
        return ()
    doubts = []
    if len(set(connection)) != len(connection):
        doubts.append("two of the five flash signals are on the same pin")
    if usb := [str(pin) for pin in connection if pin in chip.spi.usb_pins]:
        doubts.append(
            f"GPIO{' and GPIO'.join(usb)} are the pins of this chip's USB: a connection over USB will break"
        )
    return tuple(doubts)


def _allowed_pins(chip: Chip) -> frozenset[int]:
    found: set[int] = set()
    for span in chip.spi.allowed_pins:
        first, _, last = span.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _refuse(text: str, hint: str) -> UsageError:
    return UsageError(text, hint=hint, code="spi-connection")


OFF, RAISED = "OFF", "1.9V"


def override_flash_voltage(loader: Loader, chip: Chip, voltage: str) -> None:
    """Set the internal regulator to ``voltage``, or switch it off (``OFF``: the board supplies the flash chip).

    :raises UsageError: code ``flash-voltage``: this chip has no such override, or no such voltage
    :raises Unsupported: code ``secure-download-mode``, before anything is sent
    """
    address, value = build_voltage_word(chip, voltage)
    loader.write_regs(RegWrite(address, value))


def build_voltage_word(chip: Chip, voltage: str) -> tuple[int, int]:
    """Register and value that override the eFuses. Source: ``chips/data`` [flash_voltage].

    :raises UsageError: code ``flash-voltage``
    """
    override = chip.flash_voltage
    if override is None:
        raise UsageError(
            f"the flash voltage of the {chip.name} cannot be overridden: only the ESP32 has such a regulator",
            hint="Omit --override-vddsdio.",
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
