"""Runs SPI transactions on the flash chip through the registers of the flash controller.

The whole set-up and the start are groups of one WRITE_REG. The recorded ROMs carry them out in order; the first use on
a connection proves it by a data register that only the last group sets. Groups are carried out from the first on, so a
ROM that stops early never reaches the start, which comes after the set-up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from espwire.chips.model import Chip, Spi
from espwire.device.double_read import ask_together, build_difference, read_words
from espwire.device.loader import Loader
from espwire.errors import DeviceError
from espwire.protocol.commands import ReadReg, RegWrite, WriteReg

START = 1 << 18
USE_COMMAND, USE_ADDRESS, USE_DUMMY, USE_READ, USE_WRITE = (
    1 << bit for bit in (31, 30, 29, 28, 27)
)
COMMAND_8_BITS = 7 << 28
ADDRESS_SHIFT = 26
MAX_READ_BITS, MAX_WRITE_BYTES = 32, 64
BUSY_POLLS = 10
SETTLE_US = 200  # 64 bytes at 5 MHz, and what a flash needs after a reset
PROOF = 0x6A09E667  # no flash chip reads like this


@dataclass(frozen=True, kw_only=True)
class SpiCommand:
    """One transaction: ``data`` bytes out, ``read_bits`` in; an address of ``address_bits`` and dummy cycles before them.

    ``wait_us``: microseconds to wait before it.
    """

    opcode: int
    data: bytes = b""
    read_bits: int = 0
    address: int = 0
    address_bits: int = 0
    dummy_cycles: int = 0
    wait_us: int = 0


RunSpi = Callable[[Sequence[SpiCommand]], int]  # `FlashBackend.spi`


def run_spi_commands(loader: Loader, chip: Chip, commands: Sequence[SpiCommand]) -> int:
    """Run commands one after the other and restore the controller once; what the last one read.

    The first byte that a command reads is in bits 7..0 of the result; 0 if it reads nothing.

    :raises DeviceError: code ``spi-busy``: the controller does not finish
    :raises Unsupported: the loader gives no access to registers
    """
    spi = chip.spi
    # the ROM's flash routines rely on these two
    user, user2 = spi.base + spi.user_offset, spi.base + spi.user2_offset
    saved_user, saved_user2 = read_words(loader, (user, user2))
    writes: list[RegWrite] = []
    for command in commands:
        writes += plan_transaction(spi, command)
    if loader.dialect.write_groups is None and any(command.data for command in commands):
        prove_groups(loader, chip)  # a write must not be carried out twice
    writes += [RegWrite(user, saved_user, delay_us=SETTLE_US), RegWrite(user2, saved_user2)]
    if not commands[-1].read_bits:
        write_group(loader, chip, writes)
        return 0
    mask = (1 << commands[-1].read_bits) - 1
    seen: list[int] = []
    # requests and replies have no checksum: repeated until two results agree
    for _ in range(loader.settings.retry.agreement_attempts):
        value = _run_and_read(loader, chip, writes) & mask
        if value in seen:
            return value
        seen.append(value)
    raise build_difference(f"flash command {commands[-1].opcode:#04x}", len(seen))


def _run_and_read(loader: Loader, chip: Chip, writes: Sequence[RegWrite]) -> int:
    """Do the writes, which start a transaction, then read its data: in one round trip where the loader can."""
    address = chip.spi.base + chip.spi.data_offset
    if loader.dialect.write_groups and loader.dialect.requests_ahead > 1:
        return ask_together(loader, (WriteReg(tuple(writes)), ReadReg(address)))[1].value
    write_group(loader, chip, writes)
    if loader.dialect.write_groups is False:
        _wait_idle(loader, chip.spi)
    return loader.read_reg(address)


def plan_transaction(spi: Spi, command: SpiCommand) -> list[RegWrite]:
    """The register writes of one transaction, the start last. Lengths are bits - 1; some chips left-align addresses."""
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
    # the first write waits for the transaction before, the write after the start for this one
    first = RegWrite(
        spi.base + writes[0][0], writes[0][1], delay_us=max(SETTLE_US, command.wait_us)
    )
    rest = [RegWrite(spi.base + offset, value) for offset, value in writes[1:]]
    return [first, *rest, RegWrite(spi.base + spi.command_offset, START)]


def prove_groups(loader: Loader, chip: Chip) -> None:
    """Find out whether the loader carries out all groups of one WRITE_REG. Harmless; once per connection."""
    if loader.dialect.write_groups is None:
        word = chip.spi.base + chip.spi.data_offset
        write_group(loader, chip, [RegWrite(word, 0), RegWrite(word + 4, 0)])


def write_group(loader: Loader, chip: Chip, writes: Sequence[RegWrite]) -> None:
    """Write registers in order: in one request if the loader carries out several groups, else one by one.

    The first time, one more group at the end proves it, which costs one read. If that group was not carried out, all
    writes are done again one by one: they must bear that.
    """
    groups = loader.dialect.write_groups
    if groups is None:
        proof = chip.spi.base + chip.spi.data_offset + 4
        loader.write_regs(*writes, RegWrite(proof, PROOF))
        groups = loader.read_reg(proof) == PROOF
        loader.dialect = loader.dialect.replace(write_groups=groups)
        if groups:
            return
    if groups:
        loader.write_regs(*writes)
        return
    for write in writes:
        loader.write_regs(write)


def _wait_idle(loader: Loader, spi: Spi) -> None:
    for _ in range(BUSY_POLLS):
        if not loader.read_reg(spi.base + spi.command_offset) & START:
            return
    raise DeviceError(
        "the SPI controller does not finish its command",
        hint="Reset the board; if this repeats, check the wiring of the flash chip.",
        code="spi-busy",
    )
