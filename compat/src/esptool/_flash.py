"""Flash and RAM through the loader's own commands, one call each, for programs that bring their own loop.

Nothing here verifies what it wrote: ``flash_md5sum`` does, and so does ``cmds.write_flash``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from esptool._facts import ChipFacts
from esptool.util import NotSupportedError, div_roundup, translated
from espwire.device import flash_id as flash_part
from espwire.device import memory_access
from espwire.device.backends.base import erase_size_to_send, refuse_encryption
from espwire.device.spi import SpiCommand
from espwire.protocol.commands import (
    Command,
    FlashBegin,
    FlashData,
    FlashDeflBegin,
    FlashDeflData,
    FlashDeflEnd,
    FlashEnd,
    MemBegin,
    MemData,
    MemEnd,
    SpiAttach,
)
from espwire.sizes import SECTOR, align_up

if TYPE_CHECKING:
    from espwire.device.device import Device

DEFAULT_TIMEOUT = 3.0
Progress = Callable[[int, int], object]


class FlashCommands(ChipFacts):
    """esptool's methods on flash and RAM. Sizes and addresses in bytes, time-outs in seconds."""

    if TYPE_CHECKING:

        @property
        def device(self) -> Device:
            """The chip, as espwire's library has it."""

    @translated
    def flash_id(self, cache: bool = True) -> int:
        """The flash part's id, maker in the low byte. ``cache`` changes nothing: it is read each time."""
        device = self.device
        if device.flash is None:
            device.attach_flash()
        return flash_part.read_flash_id(device.backend.spi)

    @translated
    def flash_spi_attach(self, hspi_arg: int) -> None:
        """Connect the flash: 0 for the chip's own pins, else the word that SPI_ATTACH takes."""
        dialect = self.device.loader.dialect
        if hspi_arg and dialect.attach_bytes:
            self.device.loader.call(
                SpiAttach(hspi_arg, 0 if dialect.attach_bytes == 8 else None), repeatable=True
            )
        else:
            self.device.attach_flash()

    @translated
    def flash_set_parameters(self, size: int) -> None:
        """Tell the loader the flash's size."""
        flash_part.set_params(self.device.loader, size)

    @translated
    def flash_begin(
        self, size: int, offset: int, encrypted_write: bool = False, logging: bool = True
    ) -> int:
        """Erase the sectors of the range and announce blocks for it; returns how many blocks."""
        device = self._attached()
        dialect, blocks = device.loader.dialect, div_roundup(size, self.FLASH_WRITE_SIZE)
        erase = erase_size_to_send(dialect.erase, offset, size)
        command = FlashBegin(
            erase, blocks, dialect.flash_block, offset, self._fifth_word(encrypted_write)
        )
        self._call_for(command, device.loader.settings.timing.erase_per_mb, align_up(size, SECTOR))
        return blocks

    @translated
    def flash_block(
        self, data: bytes, seq: int, timeout: float = DEFAULT_TIMEOUT, encrypted: bool = False
    ) -> None:
        """Write one block of ``FLASH_WRITE_SIZE`` bytes, the ``seq``-th (from 0) since ``flash_begin``."""
        self._send(FlashData(seq, bytes(data)), timeout)

    @translated
    def flash_finish(self, reboot: bool = False, timeout: float = DEFAULT_TIMEOUT) -> None:
        """End the write. The ROM leaves download mode in either case."""
        self._send(FlashEnd(int(not reboot)), timeout)

    @translated
    def flash_defl_begin(
        self,
        size: int,
        compsize: int,
        offset: int,
        encrypted_write: bool = False,
        logging: bool = True,
    ) -> int:
        """As ``flash_begin``, for ``compsize`` bytes of zlib data that inflate to ``size``; returns how many blocks."""
        device = self._attached()
        dialect, blocks = device.loader.dialect, div_roundup(compsize, self.FLASH_WRITE_SIZE)
        inflated = size if dialect.exact_deflate_size else align_up(size, dialect.flash_block)
        command = FlashDeflBegin(
            inflated, blocks, dialect.flash_block, offset, self._fifth_word(encrypted_write)
        )
        self._call_for(command, device.loader.settings.timing.erase_per_mb, align_up(size, SECTOR))
        return blocks

    @translated
    def flash_defl_block(self, data: bytes, seq: int, timeout: float = DEFAULT_TIMEOUT) -> None:
        """Write one block of zlib data."""
        self._send(FlashDeflData(seq, bytes(data)), timeout)

    @translated
    def flash_defl_finish(self, reboot: bool = False) -> None:
        """End the write. The ROM would leave download mode: without ``reboot`` nothing is sent to it."""
        if reboot or self.device.loader.dialect.sync_value == 0:
            self._send(FlashDeflEnd(int(not reboot)), DEFAULT_TIMEOUT)

    @translated
    def flash_md5sum(self, addr: int, size: int) -> str:
        """The MD5 of flash contents in hexadecimal, computed by the chip."""
        return self._attached().flash_md5(addr, size).hex()

    @translated
    def read_flash(self, offset: int, length: int, progress_fn: Progress | None = None) -> bytes:
        """Flash contents.

        :param progress_fn: called with the bytes that have come and ``length``
        """

        def progress(done: int) -> None:
            if progress_fn is not None:
                progress_fn(done, length)

        return b"".join(self._attached().backend.read(offset, length, progress=progress))

    def read_flash_slow(
        self, offset: int, length: int, progress_fn: Progress | None = None
    ) -> bytes:
        """Flash contents, as ``read_flash``: the fastest way that the loader has is used there, too."""
        return self.read_flash(offset, length, progress_fn)

    @translated
    def erase_flash(self) -> None:
        """Erase the whole flash."""
        from esptool._running import report
        from espwire.flash import erase

        erase.erase_flash(self.device, report=report)

    @translated
    def erase_region(self, offset: int, size: int) -> None:
        """Erase whole sectors."""
        from esptool._running import report
        from espwire.flash import erase

        erase.erase_region(self.device, offset, size, report=report)

    @translated
    def read_status(self, num_bytes: int = 2) -> int:
        """The flash part's status registers, number 1 in the low byte."""
        return self.device.read_flash_status(num_bytes).value

    @translated
    def write_status(
        self, new_status: int, num_bytes: int = 2, set_non_volatile: bool = False
    ) -> None:
        """Write the flash part's status registers."""
        self.device.write_flash_status(new_status, num_bytes, non_volatile=set_non_volatile)

    @translated
    def read_spiflash_sfdp(self, addr: int, read_bits: int) -> int:
        """8, 16, 24 or 32 bits of the flash part's SFDP table, the first byte in the low bits."""
        return int.from_bytes(self.device.read_flash_sfdp(addr, read_bits // 8), "little")

    @translated
    def run_spiflash_command(
        self,
        spiflash_command: int,
        data: bytes = b"",
        read_bits: int = 0,
        addr: int | None = None,
        addr_len: int = 0,
        dummy_len: int = 0,
    ) -> int:
        """Send any command to the flash part; what it answered, the first byte in the low bits."""
        command = SpiCommand(
            opcode=spiflash_command,
            data=data,
            read_bits=read_bits,
            address=addr or 0,
            address_bits=addr_len,
            dummy_cycles=dummy_len,
        )
        return self._attached().backend.spi((command,))

    @translated
    def mem_begin(self, size: int, blocks: int, blocksize: int, offset: int) -> None:
        """Announce blocks for RAM."""
        self._send(MemBegin(size, blocks, blocksize, offset), DEFAULT_TIMEOUT)

    @translated
    def mem_block(self, data: bytes, seq: int) -> None:
        """Write one block to RAM."""
        self._send(MemData(seq, bytes(data)), DEFAULT_TIMEOUT)

    @translated
    def mem_finish(self, entrypoint: int = 0) -> None:
        """End a download to RAM, and start the program at ``entrypoint``; 0: none."""
        if entrypoint:
            memory_access.start_program(self.device.loader, entrypoint)
        else:
            self._send(MemEnd(1, 0), DEFAULT_TIMEOUT)

    @classmethod
    def parse_flash_size_arg(cls, arg: str) -> int:
        """The header's code of a flash size.

        :raises NotSupportedError: this chip has no such size
        """
        return _look_up(cls.FLASH_SIZES, arg, "flash size")

    @classmethod
    def parse_flash_freq_arg(cls, arg: str) -> int:
        """The header's code of a flash frequency.

        :raises NotSupportedError: this chip has no such frequency
        """
        return _look_up(cls.FLASH_FREQUENCY, arg, "flash frequency")

    def _attached(self) -> Device:
        if self.device.flash is None:
            self.device.attach_flash()
        return self.device

    def _fifth_word(self, encrypted: bool) -> int | None:
        refuse_encryption(self.device.backend.limits, encrypted=encrypted)
        return int(encrypted) if self.device.loader.dialect.begin_words == 5 else None

    def _call_for(self, command: Command, seconds_per_mb: float, size: int) -> None:
        loader = self.device.loader
        loader.call(command, timeout=loader.settings.timing.scaled(seconds_per_mb, size))

    def _send(self, command: Command, timeout: float) -> None:
        self.device.loader.call(command, timeout=max(timeout, DEFAULT_TIMEOUT))


def _look_up(table: dict[str, int], name: str, what: str) -> int:
    if name not in table:
        raise NotSupportedError(f"{what} {name!r} is not one of {', '.join(table)}")
    return table[name]
