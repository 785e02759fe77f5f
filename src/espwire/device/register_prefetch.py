"""Reads the words that identify a chip in one trip through its ROM, each of them twice: see double_read.py.

The request by which the chip was detected is repeated in the same trip.
"""

from __future__ import annotations

from functools import partial

from espwire.chips.model import Chip
from espwire.chips.registry import find_by_magic
from espwire.device.double_read import ask_together, ask_twice, build_difference, read_word
from espwire.device.identity import Identity, Registers
from espwire.device.loader import MAGIC_ADDRESS, Loader
from espwire.device.security import SecurityReply, parse_security_reply, read_security
from espwire.protocol.commands import Command, GetSecurityInfo, ReadReg

NEWEST = 9999  # a revision that has every field
NOTHING_TOLD = SecurityReply(0, 0, (), None, None)


def open_registers(loader: Loader) -> Registers:
    """The chip's registers, each read when it is asked for."""
    return Registers(partial(read_word, loader))


def read_first_words(
    loader: Loader, chip: Chip, reply: SecurityReply | None
) -> tuple[Registers | None, int | None]:
    """The chip's registers, with what will be asked of them first in them already; and its UART's divider.

    None for the registers in Secure Download Mode. The divider, which reveals the crystal, is None where it would
    cost a trip of its own or is not needed.

    :param reply: the answer by which the chip was detected; None: it was detected by its magic word
    :raises DeviceError: code ``answers-differ``: the chip now answers as another one does
    """
    words = plan_first_words(chip, reply) if not loader.secure else ()
    proof: Command = GetSecurityInfo() if reply is not None else ReadReg(MAGIC_ADDRESS)
    if loader.dialect.requests_ahead > 1:
        *answers, last = ask_twice(loader, [*map(ReadReg, words), proof])
    else:  # detection has seen its answer once already
        answers, (last,) = ask_twice(loader, [*map(ReadReg, words)]), ask_together(loader, (proof,))
    same = (
        parse_security_reply(last.body) == reply
        if reply is not None
        else _is_magic_of(chip, last.value)
    )
    if not same:
        raise build_difference("chip detection", 3)
    if loader.secure:
        return None, None
    registers = open_registers(loader)
    found = dict(zip(words, (answer.value for answer in answers), strict=True))
    divider = found.pop(chip.uart.clock_divider_address, None)
    registers.keep(found)
    return registers, divider


def _is_magic_of(chip: Chip, magic: int) -> bool:
    """Whether the word is this chip's, or the chip is detected by another word."""
    identity = chip.identity
    return (
        find_by_magic(magic) == chip.id
        or magic in identity.legacy_magic_values
        or bool(identity.alternate_detect)
    )


def plan_first_words(chip: Chip, reply: SecurityReply | None) -> tuple[int, ...]:
    """Addresses of all words that are read at once: ``plan_words``, and the UART's divider where it costs no trip."""
    words = plan_words(chip, reply)
    alone = chip.crystal.method == "fixed" or chip.rom.requests_ahead == 1
    return words if alone else (*words, chip.uart.clock_divider_address)


def plan_words(chip: Chip, reply: SecurityReply | None) -> tuple[int, ...]:
    """Addresses of the words that name, MAC, security and clock hang on, or nearly: what a chip of zeros is asked."""
    registers = Registers(lambda address: 0)
    identity = Identity(chip, registers)
    identity.revision(), identity.description(), identity.mac(), identity.eui64()
    read_security(chip, registers, NOTHING_TOLD if reply is not None else None, NEWEST)
    if (calibration := chip.crystal.rom_calibration) is not None:
        registers.field(chip.fields[calibration.ck8m_from])
        registers.word(calibration.address)
    return tuple(registers.known())
