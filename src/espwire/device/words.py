"""Reads the words that identify a chip in one trip through its ROM: as many requests at once as it is known to take."""

from __future__ import annotations

from collections.abc import Sequence

from espwire.chips.model import Chip
from espwire.device.identity import Identity, Registers
from espwire.device.loader import BITS_PER_BYTE, Loader
from espwire.device.security import SecurityReply, read_security
from espwire.errors import CommandFailed
from espwire.wire.commands import Op, ReadReg, Reply

PATIENCE_S = 0.15  # for their answers, beyond what the wire needs
NEWEST = 9999  # a revision that has every field
NOTHING_TOLD = SecurityReply(0, 0, (), None, None)


def read_first_words(loader: Loader, chip: Chip, reply: SecurityReply | None) -> tuple[Registers, int | None]:
    """The chip's registers, with what will be asked of them first in them already; and its UART's divider.

    The divider is None where it would cost a trip of its own, or tells nothing: it tells the crystal.
    """
    registers = Registers(loader.read_reg)
    words = plan_first_words(chip, reply)
    found = dict(zip(words, read_words(loader, words), strict=True))
    divider = found.pop(chip.uart.clock_divider_address, None)
    registers.keep(found)
    return registers, divider


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


def read_words(loader: Loader, addresses: Sequence[int]) -> list[int]:
    """The word at each address. Answers do not tell whose they are: one by one, where not all of them came and well."""
    found = read_at_once(loader, addresses) if loader.dialect.requests_ahead > 1 else []
    return found or [loader.read_reg(address) for address in addresses]


def read_at_once(loader: Loader, addresses: Sequence[int]) -> list[int]:
    """All of the words, or none. An answer too few leaves the loader to be brought in step by its next request.

    No more requests than it takes are ahead of its answers; each answer lets another one go.
    """
    loader.require(Op.READ_REG)
    loader.prepare()
    began, ahead = loader.link.now(), loader.dialect.requests_ahead
    requests = [ReadReg(address) for address in addresses]
    loader.post(*(request.packet() for request in requests[:ahead]))
    replies: list[Reply] = []
    for at in range(len(requests)):
        reply = loader.take(Op.READ_REG, PATIENCE_S + 40 * BITS_PER_BYTE / loader.baud)
        if reply is None:
            return []
        replies.append(reply)
        if at + ahead < len(requests):
            loader.post(requests[at + ahead].packet())
    loader.settle()
    try:
        words = [loader.judge(reply, 0).value for reply in replies]
    except CommandFailed:
        return []
    if loader.on_trip is not None:
        for request, reply in zip(requests, replies, strict=True):
            loader.on_trip(request, reply, (loader.link.now() - began) / len(requests))
    return words
