"""The SPI controller that drives the flash, register by register. The flash commands are in ``nor_flash.py``.

A transaction is modelled as the bits on the wire. The controller shifts out the enabled phases (command, address,
dummy, data), then shifts in; the flash part only counts clocks. A phase that a client forgets therefore has the same
effect as on silicon: without a dummy phase SFDP arrives a byte late, without an address phase the bits that follow are
taken for the address, without a read phase W0 keeps its contents.

Register bits: ``chips/data/protocol.toml`` [spi_command]; reset values: the recorded traces of ESP32 and ESP32-C3.
"""

from __future__ import annotations

from espwire.chips.model import Chip
from espwire.sizes import extract
from espwire.virtual.nor_flash import NorFlash

START = 1 << 18
# bits of the command register that run a command without USER registers, which ROMs use; opcode of each
SHORTCUTS = {
    1 << 31: 0x03,  # read
    1 << 30: 0x06,  # write enable
    1 << 29: 0x04,  # write disable
    1 << 28: 0x9F,  # JEDEC id
    1 << 27: 0x05,  # read status
    1 << 26: 0x01,  # write status
    1 << 25: 0x02,  # page program
    1 << 24: 0x20,  # erase sector
    1 << 23: 0xD8,  # erase block
    1 << 22: 0x60,  # erase chip
    1 << 21: 0xB9,  # power down
    1 << 20: 0xAB,  # release from power-down
}
COMMANDS = START | sum(SHORTCUTS)
ADDRESSED = (0x03, 0x02, 0x20, 0xD8)
JEDEC_BYTES = 3
_COMMAND, _ADDRESS, _DUMMY, _READ, _WRITE = 1 << 31, 1 << 30, 1 << 29, 1 << 28, 1 << 27
_BUFFER = 64
_SPAN = 0x100
_OLD_LAYOUT_USER_OFFSET = 0x1C  # ESP8266 and ESP32; all later chips have USER at 0x18
_WORD = 0xFFFFFFFF
UNDIVIDED = 1 << 31
ROM_DIVIDER = 4  # as long as the clock register is 0: the ROMs run the flash slowly


class _Bits:
    """Bits on the wire, the first one sent on top."""

    def __init__(self) -> None:
        self.value = self.count = 0

    def append(self, value: int, count: int) -> None:
        self.value, self.count = (
            self.value << count | value & ((1 << count) - 1),
            self.count + count,
        )

    def take(self, start: int, count: int) -> int:
        """``count`` bits from ``start``; the line is low after the last one."""
        end = start + count
        value = (
            self.value << (end - self.count)
            if end > self.count
            else self.value >> (self.count - end)
        )
        return value & ((1 << count) - 1)


class SpiController:
    """The registers of one chip's flash controller.

    ``bit_time``: seconds per bit; 0 for the ROM loader, whose own time hides it. ``done_at`` and ``opcode`` belong to
    the last transaction, ``status`` is the last status byte that was read. ``words``: values of the registers, by offset.
    """

    def __init__(self, chip: Chip, flash: NorFlash) -> None:
        self.spi, self.flash = chip.spi, flash
        self.opcode = self.status = 0
        self.reset()

    def reset(self) -> None:
        """Registers as after a chip reset."""
        self.bit_time = self.done_at = 0.0
        self.words = {
            self.spi.user_offset: 0x80000000 if self.has_old_layout else 0x800000C0,
            self.spi.user2_offset: 0x70000000,
        }

    @property
    def has_old_layout(self) -> bool:
        """Whether the registers are laid out as on the ESP8266 and the ESP32; all later chips share another layout."""
        return self.spi.user_offset == _OLD_LAYOUT_USER_OFFSET

    def find_divider(self, word: int) -> int:
        """Divider of the bus clock, from the clock register's value."""
        if not word:
            return ROM_DIVIDER
        if word & UNDIVIDED:
            return 1
        if self.has_old_layout:
            return ((word >> 18 & 0x1FFF) + 1) * ((word >> 12 & 0x3F) + 1)
        return (word >> 16 & 0xFF) + 1

    def covers(self, address: int) -> bool:
        """Whether the address is one of this controller's registers."""
        return self.spi.base <= address < self.spi.base + _SPAN

    def read(self, t: float, address: int) -> int:
        """The register's value."""
        return self.words.get(address - self.spi.base & ~3, 0)

    def write(self, t: float, address: int, value: int) -> None:
        """Sets the register; the start bit of the command register runs the transaction and clears itself."""
        offset = address - self.spi.base & ~3
        if offset != self.spi.command_offset:
            self.words[offset] = value & _WORD
        elif value & START:
            self._run(t)
        else:
            for bit, opcode in SHORTCUTS.items():
                if value & bit:
                    self._run_shortcut(t, opcode)

    def transact(
        self,
        t: float,
        opcode: int,
        *,
        address: int = 0,
        address_bits: int = 0,
        dummy_bits: int = 0,
        out: bytes = b"",
        read: int = 0,
        attached: bool = True,
    ) -> bytes:
        """Run a transaction as a driver does that sets all registers for it; returns ``read`` bytes of the data buffer.

        ``attached`` False: no flash is connected, so the buffer keeps what it held.
        """
        bits = _Bits()
        bits.append(opcode, 8)
        bits.append(address, address_bits)
        bits.append(0, dummy_bits)
        bits.append(int.from_bytes(out, "big"), len(out) * 8)
        self._set_buffer(out)
        if attached:
            self._transfer(t, bits, read * 8)
        return bytes(self._buffer()[:read])

    def _lengths(self, user1: int) -> tuple[int, int]:
        """Bits to write and to read, at most the size of the data buffer."""
        spi = self.spi
        if spi.length_in_user1 is not None:
            write = extract(user1, spi.length_in_user1.mosi_shift, 9)
            read = extract(user1, spi.length_in_user1.miso_shift, 9)
        else:
            write = self.words.get(spi.mosi_length_offset or 0, 0)
            read = self.words.get(spi.miso_length_offset or 0, 0)
        return min(write + 1, _BUFFER * 8), min(read + 1, _BUFFER * 8)

    def _run_status(self, t: float, user: int, user1: int, user2: int) -> bool:
        """Fast path for the most frequent transaction, reading a status byte; False if this is a different one."""
        if (
            user & 0xF8000000 != _COMMAND | _READ
            or user2 != 0x70000005
            or self._lengths(user1)[1] != 8
        ):
            return False
        self.opcode = 0x05
        self.done_at = t + 16 * self.bit_time
        at = self.spi.data_offset
        answer = self.flash.execute(self.done_at, 0x05, read=1)
        self.status = answer[0]
        self.words[at] = self.words.get(at, 0) & ~0xFF | answer[0]
        return True

    def _run_shortcut(self, t: float, opcode: int) -> None:
        """A command that the controller makes by itself: address and data come from their registers."""
        word = self.words.get(self.spi.address_offset, 0)
        address, out, read = word & 0xFFFFFF, b"", 0
        write_bits, read_bits = self._lengths(self.words.get(self.spi.user1_offset, 0))
        if opcode == 0x03:
            address = word >> 8 if self._counts_in_registers and self.has_old_layout else address
            read = read_bits // 8 if self._counts_in_registers else word >> 24
        elif opcode == 0x02:  # the number of bytes is above the address
            out = self._buffer()[: word >> 24 or write_bits // 8]
        elif opcode == 0x01:
            out = bytes((self.words.get(self.spi.status_offset, 0) & 0xFF,))
        elif opcode in (0x9F, 0xAB):
            read = JEDEC_BYTES
        elif opcode == 0x05:
            read = 1
        self.opcode = opcode
        header = 4 if opcode in ADDRESSED else 1
        self.done_at = t + 8 * (header + len(out) + read) * self.bit_time
        answer = self.flash.execute(self.done_at, opcode, address=address, data=out, read=read)
        if opcode == 0x05:
            self.status = answer[0]
            self.words[self.spi.status_offset] = answer[0]
        elif answer:
            self._set_buffer(answer)

    @property
    def _counts_in_registers(self) -> bool:
        """Whether lengths have registers of their own; the ESP8266 has them in USER1 and above the address."""
        return self.spi.length_in_user1 is None

    def _run(self, t: float) -> None:
        spi = self.spi
        user = self.words.get(spi.user_offset, 0)
        user1 = self.words.get(spi.user1_offset, 0)
        user2 = self.words.get(spi.user2_offset, 0)
        if self._run_status(t, user, user1, user2):
            return
        write_bits, read_bits = self._lengths(user1)
        out = _Bits()
        if user & _COMMAND:
            length = extract(user2, 28, 4) + 1
            out.append(user2, min(length, 8))  # the low byte goes first
            if length > 8:
                out.append(user2 >> 8, length - 8)
        if user & _ADDRESS:
            length = extract(user1, 26, 6) + 1
            word = self.words.get(spi.address_offset, 0)
            if spi.address_msb_aligned:
                out.append(word >> (32 - length) if length <= 32 else word << (length - 32), length)
            else:
                out.append(word, length)
        if user & _DUMMY:
            out.append(0, extract(user1, 0, 8 if self.has_old_layout else 6) + 1)
        if user & _WRITE:
            size = -(-write_bits // 8)
            out.append(
                int.from_bytes(self._buffer()[:size], "big") >> (size * 8 - write_bits), write_bits
            )
        read_bits = read_bits if user & _READ else 0
        self.done_at = t + (out.count + read_bits) * self.bit_time
        self._transfer(self.done_at, out, read_bits)

    def _transfer(self, t: float, out: _Bits, read_bits: int) -> None:
        """How the part decodes the bits: opcode, then as many address and dummy bits as that opcode has."""
        if out.count + read_bits < 8:
            return
        opcode = self.opcode = out.take(0, 8)
        address_bytes, dummy_bytes = self.flash.shape(opcode)
        header = 8 * (1 + address_bytes)
        if out.count + read_bits < header:
            return  # chip select rises before the address is complete: nothing happens
        address = out.take(8, 8 * address_bytes)
        size = max(0, out.count - header) // 8
        data = out.take(header, size * 8).to_bytes(size, "big")
        # bits of the answer that pass before reading starts
        ahead = out.count - header - 8 * dummy_bytes
        bits = max(0, ahead + read_bits) if read_bits else 0
        answer = self.flash.execute(t, opcode, address=address, data=data, read=-(-bits // 8))
        if read_bits:
            self._store(answer, ahead, read_bits)

    def _store(self, answer: bytes, ahead: int, read_bits: int) -> None:
        """Store the bits read in the data buffer; before the part's answer the line is high."""
        seen = _Bits()
        if ahead < 0:
            seen.append(-1, -ahead)
        seen.append(int.from_bytes(answer, "big"), len(answer) * 8)
        size = -(-read_bits // 8)
        value = seen.take(max(0, ahead), read_bits) << (size * 8 - read_bits)
        self._set_buffer(value.to_bytes(size, "big"))

    def _buffer(self) -> bytes:
        """W0 to W15 as bytes."""
        words = (self.words.get(self.spi.data_offset + at, 0) for at in range(0, _BUFFER, 4))
        return b"".join(word.to_bytes(4, "little") for word in words)

    def _set_buffer(self, data: bytes) -> None:
        """Replace the first bytes of W0 to W15."""
        data += self._buffer()[len(data) :]
        for at in range(0, _BUFFER, 4):
            self.words[self.spi.data_offset + at] = int.from_bytes(data[at : at + 4], "little")
