"""Reads and writes the chip's address space by words, and loads programs into its RAM.

A ROM cannot read blocks of memory: each READ_REG returns one word.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from espwire.chips.model import Chip
from espwire.device.backends.stub_commands import run_batch
from espwire.device.double_read import ask_together
from espwire.device.loader import Attempts, Loader
from espwire.device.reconnect import is_native_usb
from espwire.errors import CommandFailed, DeviceError, NoReply, TransportLost, UsageError
from espwire.protocol.commands import (
    ALL_BITS,
    MemBegin,
    MemData,
    MemEnd,
    ReadReg,
    RegWrite,
)
from espwire.sizes import align_up

WORD = 4
ADDRESS_END = 1 << 32
BATCH_WORDS = 64


@dataclass(frozen=True, kw_only=True)
class MemWord:
    """One word."""

    address: int
    value: int


@dataclass(frozen=True, kw_only=True)
class MemWrite:
    """One masked write: only the bits of ``mask`` were written."""

    address: int
    value: int
    mask: int


def read_mem(loader: Loader, address: int) -> MemWord:
    """The word at ``address``.

    :raises UsageError: codes ``unaligned``, ``memory-range``
    :raises Unsupported: code ``secure-download-mode``, before anything is sent
    :raises DeviceError: code ``memory-access``: the chip crashed when it read there
    """
    check_range(address, WORD)
    return MemWord(address=address, value=_read_word(loader, address))


def write_mem(loader: Loader, address: int, value: int, mask: int = ALL_BITS) -> MemWrite:
    """Write the bits of ``mask`` at ``address``, in one trip, once: a write whose answer is lost is not repeated.

    :raises UsageError: codes ``unaligned``, ``memory-range``
    :raises Unsupported: code ``secure-download-mode``, before anything is sent
    :raises DeviceError: code ``memory-access``: no answer; whether it was written is not known
    """
    check_range(address, WORD)
    if not 0 <= value <= ALL_BITS or not 0 <= mask <= ALL_BITS:
        raise UsageError(
            "value or mask does not fit into 32 bits",
            hint="Use numbers up to 0xffffffff.",
            code="memory-range",
        )
    try:
        loader.write_regs(RegWrite(address, value, mask))
    except (NoReply, DeviceError) as error:
        if not _fell_silent(error):
            raise
        raise _build_silence("write to", address) from error
    return MemWrite(address=address, value=value, mask=mask)


def read_words(
    loader: Loader,
    address: int,
    size: int,
    *,
    on_change: Callable[[int], None] = lambda address: None,
) -> Iterator[bytes]:
    """Memory from ``address`` on, in pieces of four bytes (the last may be shorter).

    A ROM's replies have no checksum: each word is read twice, and again if the two differ.

    :param on_change: called with the address of each word that keeps changing
    :raises UsageError: at the first ``next``: codes ``unaligned``, ``memory-range``
    :raises Unsupported, DeviceError: as ``read_mem``
    """
    check_range(address, size)
    read = _read_batch if loader.dialect.sealed else partial(_read_twice, on_change=on_change)
    end = address + size
    for start in range(address, end, BATCH_WORDS * WORD):
        addresses = range(start, min(start + BATCH_WORDS * WORD, end), WORD)
        for at, word in zip(addresses, read(loader, addresses), strict=True):
            yield word.to_bytes(WORD, "little")[: end - at]


def _read_twice(
    loader: Loader, addresses: range, *, on_change: Callable[[int], None]
) -> Iterator[int]:
    # first one by one, so that a crash is reported with its address
    once = [_read_word(loader, at) for at in addresses]
    again = ask_together(loader, [ReadReg(at) for at in addresses])
    for at, word, reply in zip(addresses, once, again, strict=True):
        same = word == reply.value
        yield word if same else _read_until_equal(loader, at, {word, reply.value}, on_change)


def _read_until_equal(
    loader: Loader, address: int, seen: set[int], on_change: Callable[[int], None]
) -> int:
    """The word that two reads agree on; else the last one."""
    for _ in range(loader.settings.retry.unstable_word_attempts):
        word = _read_word(loader, address)
        if word in seen:
            return word
        seen.add(word)
    on_change(address)
    return word


def _read_batch(loader: Loader, addresses: range) -> list[int]:
    """Read by a batch of our stub, again if no reply comes: a word that crashes the chip is rarer than a bad line.

    :raises DeviceError: as ``read_mem``; it cannot name the word that made the chip crash
    """
    commands = [ReadReg(at) for at in addresses]
    attempts = Attempts(loader.settings.retry.memory_batch_attempts)
    try:
        while True:
            try:
                return [reply.value for reply in run_batch(loader, commands)]
            except NoReply as error:
                attempts.failed(error)
    except (NoReply, DeviceError) as error:
        if not _fell_silent(error):
            raise
        raise _build_silence(f"read of {len(commands)} words from", addresses.start) from error


def check_range(address: int, size: int) -> None:
    """Check that this is a range of words.

    :raises UsageError: codes ``unaligned``, ``memory-range``
    """
    if address % WORD:
        raise UsageError(
            f"address {address:#x} is not a multiple of {WORD}",
            hint=f"The loader reads and writes whole words: use {address & ~3:#x}.",
            code="unaligned",
        )
    if address < 0 or size <= 0 or address + size > ADDRESS_END:
        raise UsageError(
            f"{size} bytes at {address:#x} exceed the 32-bit address space",
            hint="Check address and size.",
            code="memory-range",
        )


def load_segment(
    loader: Loader, chip: Chip, address: int, data: bytes, on_block: Callable[[int], None]
) -> None:
    """Load ``data`` into RAM, padded with zeros to whole words; restarts if a block fails.

    :param on_block: called with the number of bytes confirmed so far, which may decrease
    :raises NoReply, CommandFailed: ``settings.retry.block_attempts`` attempts failed
    """
    padded = data.ljust(align_up(len(data), WORD), b"\0")
    step = find_ram_block(loader, chip)
    blocks = [padded[at : at + step] for at in range(0, len(padded), step)]
    attempts = Attempts(loader.settings.retry.block_attempts)
    while True:
        try:
            loader.call(MemBegin(len(padded), len(blocks), step, address))
            for number, block in enumerate(blocks):
                loader.call(MemData(number, block))
                on_block(min((number + 1) * step, len(data)))
            return
        except (NoReply, CommandFailed) as error:
            attempts.failed(error)


def find_ram_block(loader: Loader, chip: Chip) -> int:
    """Size of the largest block for RAM; over USB-OTG some ROMs take less."""
    over_otg = chip.usb.otg_ram_block if loader.transport.info.kind == "usb-otg" else None
    return over_otg or loader.dialect.ram_block


def start_program(loader: Loader, entry: int) -> None:
    """Start the program at ``entry``. The reply may be lost, because the program may use the port at once.

    :raises CommandFailed: the loader refused
    """
    try:
        loader.call(MemEnd(0, entry), timeout=loader.settings.timing.mem_end)
    except NoReply:
        return
    except TransportLost:
        if not is_native_usb(loader.transport.info):  # the chip's own USB ends with the loader
            raise


def _read_word(loader: Loader, address: int) -> int:
    try:
        return loader.read_reg(address)
    except (NoReply, DeviceError) as error:
        if not _fell_silent(error):
            raise
        raise _build_silence("read from", address) from error


def _fell_silent(error: NoReply | DeviceError) -> bool:
    """Whether the chip behaves as it does after an access to an invalid address."""
    return isinstance(error, NoReply) or error.code == "chip-reset"


def _build_silence(what: str, address: int) -> DeviceError:
    return DeviceError(
        f"the chip stopped responding at a {what} {address:#x}",
        hint="The address is probably invalid, which crashes the loader: reset the board.",
        code="memory-access",
        address=address,
    )
