"""A NOR flash chip in simulated time, at the level of SPI transactions.

Every transaction goes through :meth:`NorFlash.execute`. Programming only clears bits and wraps around inside its page of
256 bytes; changes require a write enable; a busy part answers status reads only, everything else reads 0xFF. Parts of up
to 16 MiB do not have the commands with four address bytes.

*Left in a continuous-read or QPI mode* (``starts_in="continuous"``): identification, SFDP and status work, but array reads
are shifted by a bit and changes are ignored until 66h 99h (or FFh). A client without that reset writes nothing and reads
garbage.

*XMC parts that start in a sleep state* (``sleepy``): ESP-IDF checks the id against XMC's families; if none fits, but SFDP
byte 0x10 is XMC's id, it sends B9h 79h FFh, waits 2 ms, ABh, waits 20 µs, and reads the id again. Such a part answers RDID
with 3F FF FF (a known bad id), status with 0, and SFDP correctly; array reads return 0xFF and changes are ignored until
exactly these steps. Without them the size is unknown and a write does not verify.

Sources: W25Q and XM25QH data sheets, ``chips/data/flash-ids.toml``, ``protocol.toml`` [flash_start_up].
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from espwire.protocol.opcodes import (
    ENABLE_RESET,
    POWER_DOWN,
    READ_ID,
    READ_SFDP,
    READ_STATUS,
    RELEASE_POWER_DOWN,
    RESET,
    WRITE_ENABLE,
)
from espwire.sizes import KIB, MIB, SECTOR
from espwire.virtual.flash_file import open_flash_file
from espwire.virtual.flash_parts import PAGE, XMC, FlashPart, FlashTiming

WEAK_CHANCE, DECAYED_BITS = 0.25, 64  # of interrupted erases, of a sector
# of addresses with three bytes: a read with such a command continues at 0, as on some parts
SHORT_END = 1 << 24
_BUSY, _WRITE_ENABLED = 0x01, 0x02
_BLANK = b"\xff" * MIB
_SHIFTED = bytes(value >> 1 | (value & 1) << 7 for value in range(256))
_SLEEPY_ID = b"\x3f\xff\xff"


class Mode(Enum):
    """Operating mode."""

    SPI = "spi"
    CONTINUOUS = "continuous"
    SLEEPY = "sleepy"
    POWER_DOWN = "power-down"
    ULTRA_POWER_DOWN = "ultra-deep power-down"


@dataclass(frozen=True)
class _Running:
    """A running operation: its range, and the previous contents if it is a program operation."""

    start: int
    end: int
    before: bytes | None


class NorFlash:
    """A flash part with its contents.

    :param path: file for the contents, created full of 0xFF if absent, locked until ``close``.
        Status registers are not stored.
    :param seed: for the contents after an interrupted operation
    :raises DataError: (``flash-file-size``) the file has another size than the part
    :raises FileError: the file cannot be created or opened
    """

    def __init__(
        self, part: FlashPart, *, timing: FlashTiming, path: Path | None = None, seed: int = 0
    ) -> None:
        self.part, self.timing = part, timing
        self._actions = _ACTIONS if part.size > 16 * MIB else _SMALL_ACTIONS
        self.busy_until = float("-inf")
        self._random = random.Random(seed)
        self._weak: set[int] = set()  # sectors that read blank and are not erased completely
        self._file = None if path is None else open_flash_file(path, part.size)
        self.contents = memoryview(
            self._file.map if self._file is not None else bytearray(b"\xff") * part.size
        )
        self._kept_status = [0, 0, 0]
        self.powered = True  # without, it reads as zeros
        self._wake_to = Mode.SPI
        self._ultra_exit_at: float | None = None
        self._start(Mode.SLEEPY if part.sleepy else Mode(part.starts_in))

    def _start(self, mode: Mode) -> None:
        """Volatile state after power-on."""
        self.mode = mode
        self._status = list(self._kept_status)
        self._write_enabled = self._volatile_enabled = self._reset_armed = False
        self._wide = False  # 4-byte addresses
        self._running: _Running | None = None
        self._protect()

    def _protect(self) -> None:
        """Block protection BP2..0 as on a W25Q: a 64th (1) to all (7) of the part, from the top, or from the bottom with TB."""
        level = self._status[0] >> 2 & 7
        size = self.part.size
        protected = max(size >> (7 - level), min(64 * KIB, size)) if level else 0
        from_bottom = bool(self._status[0] & 0x20)
        self._protected = (0, protected) if from_bottom else (size - protected, size)

    def shape(self, opcode: int) -> tuple[int, int]:
        """Number of address bytes and dummy bytes after an opcode, in the current address mode."""
        address, dummy = _SHAPES.get(opcode, (0, 0))
        return (4, dummy) if self._wide and opcode in _FOLLOWS_ADDRESS_MODE else (address, dummy)

    def execute(
        self,
        t: float,
        opcode: int,
        *,
        address: int = 0,
        data: bytes = b"",
        read: int = 0,
    ) -> bytes:
        """Execute an SPI transaction at ``t`` that writes ``data`` and returns ``read`` bytes.

        The contents change immediately; the part stays busy until ``busy_until``.
        """
        if (
            t < self.busy_until
            or self._reset_armed
            or self.mode is not Mode.SPI
            or not self.powered
        ):
            return self._execute_slow(t, opcode, address, data, read)
        action = self._actions.get(opcode)
        answer = action(self, t, opcode, address, data, read) if action is not None else None
        return b"\xff" * read if answer is None else answer

    def read_array(self, t: float, address: int, size: int) -> bytes:
        """The array's contents at ``t``, with 32-bit addresses: the fast path for long reads.

        0xFF while busy or powered down, zeros without power, garbage in a continuous-read mode.
        """
        if not self.powered:
            return bytes(size)
        if t < self.busy_until or self.mode not in (Mode.SPI, Mode.CONTINUOUS):
            return b"\xff" * size
        data = self._array(address, size)
        return data if self.mode is Mode.SPI else data.translate(_SHIFTED)

    def power_loss(self, t: float) -> None:
        """The supply fails at ``t`` and returns: a running erase leaves random bytes, a running program some old bits."""
        self._interrupt(t)
        self.busy_until = float("-inf")
        self._start(Mode.SLEEPY if self.part.sleepy else Mode.SPI)

    def flush(self) -> None:
        """Write the contents to the file, if there is one."""
        if self._file is not None:
            self._file.flush()

    def close(self) -> None:
        """Flush and release the file; the part cannot be used afterwards. May be called again."""
        file, self._file = self._file, None
        if file is not None:
            with contextlib.suppress(BufferError):  # a slice is in use: it keeps the mapping alive
                self.contents.release()
            file.close()

    # the slow path: no power, a reset sequence, busy, or a special mode

    def _execute_slow(self, t: float, opcode: int, address: int, data: bytes, read: int) -> bytes:
        if not self.powered:
            return bytes(read)
        armed, self._reset_armed = self._reset_armed, False
        if self.mode in (Mode.POWER_DOWN, Mode.ULTRA_POWER_DOWN):
            self._execute_asleep(t, opcode)
            return b"\xff" * read
        if opcode == RESET and armed:
            self._reset(t)
        elif opcode == ENABLE_RESET:
            self._arm_reset(t, opcode, address, data, read)
        elif t < self.busy_until:
            return (
                self._read_status(t, opcode, address, data, read)
                if opcode in _STATUS_READS
                else b"\xff" * read
            )
        elif self.mode is Mode.SLEEPY:
            return self._execute_sleepy(t, opcode, address, data, read)
        elif self.mode is Mode.CONTINUOUS:
            return self._execute_continuous(t, opcode, address, data, read)
        else:
            return self.execute(t, opcode, address=address, data=data, read=read)
        return b"\xff" * read

    def _execute_asleep(self, t: float, opcode: int) -> None:
        """Power-down accepts ABh only; XMC's ultra-deep power-down accepts FFh, and ABh 2 ms later."""
        if t < self.busy_until:
            return
        if opcode == 0x79 and self.part.maker == XMC and self.mode is Mode.POWER_DOWN:
            self.mode, self._ultra_exit_at = Mode.ULTRA_POWER_DOWN, None
        elif opcode == 0xFF and self.mode is Mode.ULTRA_POWER_DOWN:
            self._ultra_exit_at = t
        elif opcode == RELEASE_POWER_DOWN:
            if self.mode is Mode.ULTRA_POWER_DOWN:
                # a microsecond of tolerance: callers add floats
                if (
                    self._ultra_exit_at is None
                    or t < self._ultra_exit_at + self.timing.ultra_wake_s - 1e-6
                ):
                    return
                self._wake_to = Mode.SPI
            self.mode = self._wake_to
            self.busy_until = t + self.timing.wake_s

    def _execute_sleepy(self, t: float, opcode: int, address: int, data: bytes, read: int) -> bytes:
        if opcode == POWER_DOWN:
            self._power_down(t, opcode, address, data, read)
        elif opcode in _STATUS_READS:
            return bytes(read)
        elif opcode == READ_ID:
            return (_SLEEPY_ID * (read // 3 + 1))[:read]
        elif opcode == READ_SFDP:
            return self._read_sfdp(t, opcode, address, data, read)
        return b"\xff" * read

    def _execute_continuous(
        self, t: float, opcode: int, address: int, data: bytes, read: int
    ) -> bytes:
        if opcode in _STATUS_READS or opcode in (READ_ID, READ_SFDP):
            return _ACTIONS[opcode](self, t, opcode, address, data, read) or b""
        if opcode == 0xFF:
            self.mode = Mode.SPI
        elif opcode in _READS:
            return self._read(t, opcode, address, data, read).translate(_SHIFTED)
        return b"\xff" * read

    def _reset(self, t: float) -> None:
        self._interrupt(t)
        self._start(Mode.SLEEPY if self.mode is Mode.SLEEPY else Mode.SPI)
        self.busy_until = t + self.timing.reset_s

    def _interrupt(self, t: float) -> None:
        running = self._running
        if running is None or t >= self.busy_until:
            return
        size = running.end - running.start
        noise = self._random.randbytes(size)
        if running.before is None and self._random.random() < WEAK_CHANCE:
            noise = b"\xff" * size
            self._weak |= set(range(running.start, running.end, SECTOR))
        elif running.before is not None:  # some of the bits to clear are cleared
            now = int.from_bytes(self.contents[running.start : running.end], "little")
            old = int.from_bytes(running.before, "little")
            noise = (now | old & int.from_bytes(noise, "little")).to_bytes(size, "little")
        self.contents[running.start : running.end] = noise

    def decay(self) -> None:
        """Time passes: sectors whose erase was interrupted when they already read blank lose content."""
        for sector in sorted(self._weak):
            for _ in range(DECAYED_BITS):
                at = sector + self._random.randrange(SECTOR)
                self.contents[at] &= ~(1 << self._random.randrange(8))

    # commands; each has the signature of _Action and returns what it reads, None for a command that reads nothing

    def _array(self, address: int, size: int) -> bytes:
        start = address % self.part.size
        if start + size <= self.part.size:
            return bytes(self.contents[start : start + size])
        first = bytes(self.contents[start:])
        whole, rest = divmod(size - len(first), self.part.size)
        return first + bytes(self.contents) * whole + bytes(self.contents[:rest])

    def _effective(self, opcode: int, address: int) -> int:
        if not self._wide and opcode in _FOLLOWS_ADDRESS_MODE:
            address &= 0xFFFFFF  # the part receives only three bytes
        return address % self.part.size

    def _read(self, t: float, opcode: int, address: int, data: bytes, read: int) -> bytes:
        start, end = self._effective(opcode, address), SHORT_END
        if self._wide or opcode not in _FOLLOWS_ADDRESS_MODE or start + read <= end:
            return self._array(start, read)
        return self._array(start, end - start) + self._array(0, read - (end - start))

    def _write_enable(self, t: float, opcode: int, address: int, data: bytes, read: int) -> None:
        self._write_enabled = opcode == WRITE_ENABLE

    def _enable_volatile(self, t: float, opcode: int, address: int, data: bytes, read: int) -> None:
        self._volatile_enabled = True

    def _program(self, t: float, opcode: int, address: int, data: bytes, read: int) -> None:
        if not self._write_enabled or not data:
            return
        start = self._effective(opcode, address)
        low, high = self._protected
        if low <= start & -PAGE < high:
            return
        if (start & 0xFF) + (count := len(data)) > PAGE:
            start, data = _wrap_in_page(start, data)
        end = start + len(data)
        before = bytes(self.contents[start:end])
        after = int.from_bytes(before, "little") & int.from_bytes(data, "little")
        self.contents[start:end] = after.to_bytes(len(data), "little")
        self._write_enabled = False
        self._running = _Running(start, end, before)
        self.busy_until = (
            t + self.timing.program_base_s + min(count, PAGE) * self.timing.program_byte_s
        )

    def _erase(self, t: float, opcode: int, address: int, data: bytes, read: int) -> None:
        size = _ERASES[opcode] or self.part.size
        start = self._effective(opcode, address) & -size if size < self.part.size else 0
        low, high = self._protected
        if not self._write_enabled or (start < high and start + size > low):
            return
        self._weak -= {at for at in self._weak if start <= at < start + size}
        for at in range(start, start + size, MIB):
            end = min(at + MIB, start + size)
            self.contents[at:end] = _BLANK[: end - at]
        self._write_enabled = False
        self._running = _Running(start, start + size, None)
        self.busy_until = t + self.timing.erase_s(size)

    def _read_status(self, t: float, opcode: int, address: int, data: bytes, read: int) -> bytes:
        value = self._status[_STATUS_READS[opcode]]
        if opcode == READ_STATUS:
            busy = t < self.busy_until
            value |= _BUSY * busy | _WRITE_ENABLED * (busy or self._write_enabled)
        return bytes((value,)) * read

    def _write_status(self, t: float, opcode: int, address: int, data: bytes, read: int) -> None:
        if not data or not (self._write_enabled or self._volatile_enabled):
            return
        first = {0x01: 0, 0x31: 1, 0x11: 2}[opcode]
        for number, value in enumerate(data[: 2 if first == 0 else 1], first):
            # BUSY, WEL and SUS are read-only
            self._status[number] = value & (0xFC, 0x7F, 0xFF)[number]
            if not self._volatile_enabled:
                self._kept_status[number] = self._status[number]
        if not self._volatile_enabled:
            self.busy_until = t + self.timing.write_status_s
        self._write_enabled = self._volatile_enabled = False
        self._running = None
        self._protect()

    def _read_id(self, t: float, opcode: int, address: int, data: bytes, read: int) -> bytes:
        return (self.part.jedec * (read // 3 + 1))[:read]

    def _read_sfdp(self, t: float, opcode: int, address: int, data: bytes, read: int) -> bytes:
        if not self.part.sfdp:
            return bytes(read)
        return self.part.sfdp[address : address + read].ljust(read, b"\xff")

    def _power_down(self, t: float, opcode: int, address: int, data: bytes, read: int) -> None:
        self._wake_to, self.mode = self.mode, Mode.POWER_DOWN
        self._write_enabled = False

    def _wake(self, t: float, opcode: int, address: int, data: bytes, read: int) -> bytes:
        return bytes((self.part.jedec[2] - 1 & 0xFF,)) * read  # already awake: the old one-byte id

    def _arm_reset(self, t: float, opcode: int, address: int, data: bytes, read: int) -> None:
        self._reset_armed = True

    def _address_mode(self, t: float, opcode: int, address: int, data: bytes, read: int) -> None:
        self._wide = opcode == 0xB7 and self.part.size > 16 * MIB


_Action = Callable[[NorFlash, float, int, int, bytes, int], bytes | None]
_STATUS_READS = {0x05: 0, 0x35: 1, 0x15: 2}
# opcode → bytes, 0: the whole chip; 21h 5Ch DCh have four address bytes
_ERASES = {
    0x20: 4 * KIB, 0x21: 4 * KIB, 0x52: 32 * KIB, 0x5C: 32 * KIB, 0xD8: 64 * KIB, 0xDC: 64 * KIB, 0x60: 0, 0xC7: 0,
}  # fmt: skip
_READS = frozenset({0x03, 0x0B, 0x3B, 0x6B, 0xBB, 0xEB, 0x13, 0x0C})
_FOLLOWS_ADDRESS_MODE = frozenset(
    {0x03, 0x0B, 0x3B, 0x6B, 0xBB, 0xEB, 0x02, 0x32, 0x20, 0x52, 0xD8}
)
# opcode → address bytes, dummy bytes, on one data line
_SHAPES = {
    0x03: (3, 0), 0x0B: (3, 1), 0x3B: (3, 1), 0x6B: (3, 1), 0xBB: (3, 1), 0xEB: (3, 3), 0x13: (4, 0), 0x0C: (4, 1),
    0x02: (3, 0), 0x32: (3, 0), 0x12: (4, 0), 0x20: (3, 0), 0x52: (3, 0), 0xD8: (3, 0),
    0x21: (4, 0), 0x5C: (4, 0), 0xDC: (4, 0), 0x5A: (3, 1), 0xAB: (0, 3),
}  # fmt: skip
_ACTIONS: dict[int, _Action] = {
    WRITE_ENABLE: NorFlash._write_enable,
    0x04: NorFlash._write_enable,
    0x50: NorFlash._enable_volatile,
    READ_ID: NorFlash._read_id,
    0x5A: NorFlash._read_sfdp,
    0xB9: NorFlash._power_down,
    RELEASE_POWER_DOWN: NorFlash._wake,
    0x66: NorFlash._arm_reset,
    0xB7: NorFlash._address_mode,
    0xE9: NorFlash._address_mode,
    **dict.fromkeys(_READS, NorFlash._read),
    **dict.fromkeys((0x02, 0x12, 0x32), NorFlash._program),
    **dict.fromkeys(_ERASES, NorFlash._erase),
    **dict.fromkeys(_STATUS_READS, NorFlash._read_status),
    **dict.fromkeys((0x01, 0x31, 0x11), NorFlash._write_status),
}
_SMALL_ACTIONS = {
    code: action for code, action in _ACTIONS.items() if _SHAPES.get(code, (0, 0))[0] < 4
}


def _wrap_in_page(start: int, data: bytes) -> tuple[int, bytes]:
    """The whole page to program, for data that wraps around the page's end; the last 256 bytes count."""
    offset = (start + max(0, len(data) - PAGE)) % PAGE
    data = data[-PAGE:]
    page = bytearray(b"\xff" * PAGE)
    first = data[: PAGE - offset]
    page[offset : offset + len(first)] = first
    page[: len(data) - len(first)] = data[len(first) :]
    return start & -PAGE, bytes(page)
