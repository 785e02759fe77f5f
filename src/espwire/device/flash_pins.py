"""Which pins the flash hangs on: the word for SPI_ATTACH. Source: protocol.toml [spi_attach], chips' [spi]."""

from __future__ import annotations

from espwire.chips.model import Chip
from espwire.errors import UsageError

SPI, HSPI = 0, 1  # the words for the usual pins, and for the ESP32's second controller
SHIFTS = {"clk": 0, "q": 6, "d": 12, "hd": 24, "cs": 18}
Connection = str | tuple[int, ...]
_HINT = "Give SPI, HSPI, or five GPIO numbers as CLK,Q,D,HD,CS."


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
        raise UsageError(f"{text!r} names no connection of the flash", hint=_HINT, code="spi-connection")
    return pins


def build_attach_word(chip: Chip, connection: Connection) -> int:
    """The word that attaches the flash at ``connection``.

    :raises UsageError: code ``spi-connection``: this chip cannot have its flash there
    """
    if connection == "SPI":
        return SPI
    if connection == "HSPI":
        if not chip.spi.hspi_pins:
            raise _refuse(f"the {chip.name} has no flash on HSPI", "Only the ESP32 has; leave it out.")
        return HSPI
    if isinstance(connection, str) or not chip.spi.custom_pins:
        raise _refuse(f"the {chip.name} cannot have its flash on other pins", "Leave it out.")
    pins = dict(zip(SHIFTS, connection, strict=True))
    allowed = _allowed_pins(chip)
    for name, pin in pins.items():
        if pin not in allowed:
            told = ", ".join(chip.spi.allowed_pins)
            raise _refuse(f"GPIO{pin} of the {chip.name} cannot be the flash's {name.upper()}", f"Take from {told}.")
    most = chip.spi.max_hd_pin
    if most is not None and pins["hd"] > most:
        raise _refuse(f"GPIO{pins['hd']} of the {chip.name} cannot be the flash's HD", f"Take one up to {most}.")
    return sum(pin << SHIFTS[name] for name, pin in pins.items())


def find_pin_doubts(chip: Chip, connection: Connection) -> tuple[str, ...]:
    """What is odd about pins that the chip would take."""
    if isinstance(connection, str):
        return ()
    doubts = []
    if len(set(connection)) != len(connection):
        doubts.append("two of the flash's five signals are to be on one pin")
    if usb := [str(pin) for pin in connection if pin in chip.spi.usb_pins]:
        doubts.append(f"GPIO{' and GPIO'.join(usb)} carry this chip's own USB: a connection over USB will break")
    return tuple(doubts)


def _allowed_pins(chip: Chip) -> frozenset[int]:
    found: set[int] = set()
    for span in chip.spi.allowed_pins:
        first, _, last = span.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return frozenset(found)


def _refuse(text: str, hint: str) -> UsageError:
    return UsageError(text, hint=hint, code="spi-connection")
