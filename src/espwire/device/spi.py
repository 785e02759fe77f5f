"""Runs one SPI flash command through the chip's controller, register by register. Knows no flash part.

All set-up and the start go in one WRITE_REG with several groups. The recorded ROMs carry them out in order; the first
use on a connection proves it by a word of data memory that only the last group sets. Groups are carried out from the
first on, so a ROM that stops early never reaches the start, which comes after the whole set-up.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from espwire.chips.model import Chip, Spi
from espwire.device.double_read import ask_together, build_difference, read_words
from espwire.device.loader import Loader
from espwire.device.stub_commands import run_batch
from espwire.errors import DeviceError
from espwire.protocol.commands import Command, ReadReg, RegWrite, Reply, WriteReg
from espwire.protocol.stub import SpiTransaction, StubOp

START = 1 << 18
USE_COMMAND, USE_ADDRESS, USE_DUMMY, USE_READ, USE_WRITE = (
    1 << 31,
    1 << 30,
    1 << 29,
    1 << 28,
    1 << 27,
)
COMMAND_8_BITS = 7 << 28
ADDRESS_SHIFT = 26
MAX_READ_BITS, MAX_WRITE_BYTES = 32, 64
BUSY_POLLS = 10
SETTLE_US = 200  # 64 bytes at 5 MHz, and what a flash needs after a reset
PROOF = 0x6A09E667  # any word that no flash answers


@dataclass(frozen=True, kw_only=True)
class SpiCommand:
    """One transaction: ``data`` bytes out, ``read_bits`` in, an address of ``address_bits`` and dummy cycles between.

    ``wait_us``: microseconds to wait before it.
    """

    opcode: int
    data: bytes = b""
    read_bits: int = 0
    address: int = 0
    address_bits: int = 0
    dummy_cycles: int = 0
    wait_us: int = 0


@dataclass(frozen=True)
class Saved:
    """The registers that the ROM's own flash routines rely on."""

    user: int
    user2: int


def run_spi_command(
    loader: Loader,
    chip: Chip,
    opcode: int,
    *,
    data: bytes = b"",
    read_bits: int = 0,
    address: int = 0,
    address_bits: int = 0,
    dummy_cycles: int = 0,
) -> int:
    """Run one command; what it read as a register holds it: the first byte in bits 7..0. 0 if nothing was read.

    :raises DeviceError: code ``spi-busy``: the controller does not finish
    :raises Unsupported: the loader gives no access to registers
    """
    command = SpiCommand(
        opcode=opcode,
        data=data,
        read_bits=read_bits,
        address=address,
        address_bits=address_bits,
        dummy_cycles=dummy_cycles,
    )
    return run_spi_commands(loader, chip, (command,))


def run_spi_commands(loader: Loader, chip: Chip, commands: Sequence[SpiCommand]) -> int:
    """Run several commands, one after the other, and restore the controller once; what the last one read.

    :raises DeviceError: code ``spi-busy``
    """
    spi = chip.spi
    if loader.supports(StubOp.SPI):
        return _run_in_one_trip(loader, spi, commands)
    saved = Saved(*read_words(loader, (spi.base + spi.user_offset, spi.base + spi.user2_offset)))
    writes: list[RegWrite] = []
    for command in commands:
        writes += plan_transaction(spi, command)
    if loader.grouped is None and any(command.data for command in commands):
        prove_groups(loader, chip)  # what writes must not be done twice
    writes += _restore(spi, saved)
    if not commands[-1].read_bits:
        write_group(loader, chip, writes)
        return 0
    mask = (1 << commands[-1].read_bits) - 1
    seen: list[int] = []
    # set-up and answer have no checksum: all of it is done until two answers agree
    for _ in range(loader.settings.retry.agreement_attempts):
        value = _run_and_read(loader, chip, writes) & mask
        if value in seen:
            return value
        seen.append(value)
    raise build_difference(f"flash command {commands[-1].opcode:#04x}", len(seen))


def _run_and_read(loader: Loader, chip: Chip, writes: Sequence[RegWrite]) -> int:
    """Do the writes, in which a transaction starts, then read its data: in one trip where the loader can."""
    address = chip.spi.base + chip.spi.data_offset
    if loader.grouped and loader.dialect.requests_ahead > 1:
        return ask_together(loader, (WriteReg(tuple(writes)), ReadReg(address)))[1].value
    write_group(loader, chip, writes)
    if loader.grouped is False:
        _wait_idle(loader, chip.spi)
    return loader.read_reg(address)


def _run_in_one_trip(loader: Loader, spi: Spi, commands: Sequence[SpiCommand]) -> int:
    """Have our stub do it: one batch."""
    return parse_last(run_batch(loader, plan_batch(spi, commands))[-1], commands)


def parse_last(reply: Reply, commands: Sequence[SpiCommand]) -> int:
    """What the last command read, from our stub's answer to it."""
    return int.from_bytes(reply.body, "little") & ((1 << commands[-1].read_bits) - 1)


def plan_batch(spi: Spi, commands: Sequence[SpiCommand]) -> list[Command]:
    """The commands for a batch of our stub, waits in between by a register that nobody needs."""
    batch: list[Command] = []
    for command in commands:
        wait = max(SETTLE_US, command.wait_us) if batch else command.wait_us
        if wait:
            batch.append(WriteReg((RegWrite(spi.base + spi.data_offset, 0, delay_us=wait),)))
        batch.append(
            SpiTransaction(
                opcode=command.opcode,
                address=command.address,
                address_bits=command.address_bits,
                dummy=command.dummy_cycles,
                write=command.data,
                read=-(-command.read_bits // 8),
            )
        )
    return batch


def plan_transaction(spi: Spi, command: SpiCommand) -> list[RegWrite]:
    """The register writes of one transaction, the start last. Lengths are bits - 1; addresses stand left where told."""
    if command.read_bits > MAX_READ_BITS or len(command.data) > MAX_WRITE_BYTES:
        raise ValueError("one SPI transaction reads at most 32 bits and writes at most 64 bytes")
    user, user1 = USE_COMMAND, 0
    writes: list[tuple[int, int]] = []
    write_bits = 8 * len(command.data)
    if write_bits:
        user |= USE_WRITE
    if command.read_bits:
        user |= USE_READ
    if command.address_bits:
        user |= USE_ADDRESS
        user1 |= command.address_bits - 1 << ADDRESS_SHIFT
        left = 32 - command.address_bits if spi.address_msb_aligned else 0
        writes.append((spi.address_offset, command.address << left))
    if command.dummy_cycles:
        user |= USE_DUMMY
        user1 |= command.dummy_cycles - 1
    if spi.length_in_user1 is not None:
        user1 |= max(write_bits - 1, 0) << spi.length_in_user1.mosi_shift
        user1 |= max(command.read_bits - 1, 0) << spi.length_in_user1.miso_shift
    if spi.mosi_length_offset is not None and write_bits:
        writes.append((spi.mosi_length_offset, write_bits - 1))
    if spi.miso_length_offset is not None and command.read_bits:
        writes.append((spi.miso_length_offset, command.read_bits - 1))
    if user1 or spi.length_in_user1 is not None:
        writes.append((spi.user1_offset, user1))
    writes += [(spi.user_offset, user), (spi.user2_offset, COMMAND_8_BITS | command.opcode)]
    words = command.data.ljust(-(-len(command.data) // 4) * 4 or 4, b"\0")
    for at in range(0, len(words), 4):
        writes.append((spi.data_offset + at, int.from_bytes(words[at : at + 4], "little")))
    # the first write waits for a transaction before this one, the write after the start for this one
    first = RegWrite(
        spi.base + writes[0][0], writes[0][1], delay_us=max(SETTLE_US, command.wait_us)
    )
    rest = [RegWrite(spi.base + offset, value) for offset, value in writes[1:]]
    return [first, *rest, RegWrite(spi.base + spi.command_offset, START)]


def prove_groups(loader: Loader, chip: Chip) -> bool:
    """Whether the loader carries out all groups of one WRITE_REG; tried once per connection, harmless."""
    if loader.grouped is None:
        word = chip.spi.base + chip.spi.data_offset
        loader.write_regs(RegWrite(word, 0), RegWrite(word + 4, 0), RegWrite(word + 4, PROOF))
        loader.grouped = loader.read_reg(word + 4) == PROOF
    return loader.grouped


def write_group(loader: Loader, chip: Chip, writes: Sequence[RegWrite]) -> None:
    """Write registers in order: in one request if the loader carries out several groups, else one by one.

    The first time, a last group more proves it, at the price of one read. If it did not happen, all writes are
    done again one by one: they must bear that.
    """
    if loader.grouped is None:
        proof = chip.spi.base + chip.spi.data_offset + 4
        loader.write_regs(*writes, RegWrite(proof, PROOF))
        loader.grouped = loader.read_reg(proof) == PROOF
        if loader.grouped:
            return
    if loader.grouped:
        loader.write_regs(*writes)
        return
    for write in writes:
        loader.write_regs(write)


def _restore(spi: Spi, saved: Saved) -> list[RegWrite]:
    return [
        RegWrite(spi.base + spi.user_offset, saved.user, delay_us=SETTLE_US),
        RegWrite(spi.base + spi.user2_offset, saved.user2),
    ]


def _wait_idle(loader: Loader, spi: Spi) -> None:
    for _ in range(BUSY_POLLS):
        if not loader.read_reg(spi.base + spi.command_offset) & START:
            return
    raise DeviceError(
        "the flash controller does not finish its command",
        hint="Reset the board; if it repeats, the flash's wiring is suspect.",
        code="spi-busy",
    )
