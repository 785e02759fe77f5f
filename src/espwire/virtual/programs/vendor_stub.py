"""Imitation of the stub flasher of esptool 5 (generation 2): its protocol and its pace. None of its code runs.

An upload is taken for any version of this stub if it lies where one of the chip's ``reference_layouts`` has it: code at
the same address with the entry inside, data close to the same address, since versions differ by a few hundred bytes.
With ``stub=vendor`` any program that is not ours is. Source of facts: ``chips/data/protocol.toml`` [stub], published
timings. A block is acknowledged when it has arrived, before it is unpacked, erased for and programmed: a failure shows
in the reply to the next request. Reads send one packet at a time. ``stub.clock_boost`` is when the CPU's clock is
raised. Not modelled: encrypted writes, NAND, plug-ins.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Generator, Iterable

from espwire.chips.model import Chip
from espwire.protocol.commands import HEADER, checksum
from espwire.protocol.opcodes import (
    ERASE_BLOCK,
    ERASE_CHIP,
    ERASE_SECTOR,
    PAGE_PROGRAM,
    WRITE_ENABLE,
    Op,
)
from espwire.protocol.replies import (
    BAD_BLOCK,
    BAD_CHECKSUM,
    BAD_LENGTH,
    INFLATE_FAILED,
    NOT_IMPLEMENTED,
    NOT_OPEN,
    TOO_LITTLE,
    TOO_MUCH,
)
from espwire.sizes import BLOCK, SECTOR
from espwire.virtual.efuses import security_info
from espwire.virtual.programs.cpu_model import (
    DATA_HEAD,
    CpuModel,
    RamCommands,
    Ring,
    Steps,
    word,
)
from espwire.virtual.programs.program import Services
from espwire.virtual.programs.stub_model import find_bus_hz, find_rom_hz

PROGRAM_BURST = 32
FRAMES, FRAME_BYTES = 2, 16647
PACKET = 4096
WINDOW = 0x8000  # bytes that are decompressed before they are written
LENGTHS: dict[int, tuple[int, ...]] = {
    Op.SYNC: (36,), Op.FLASH_BEGIN: (16, 20), Op.FLASH_END: (4,), Op.MEM_BEGIN: (16,), Op.MEM_END: (8,),
    Op.READ_REG: (4,), Op.SPI_ATTACH: (4,), Op.SPI_SET_PARAMS: (24,), Op.CHANGE_BAUDRATE: (8,),
    Op.FLASH_DEFL_BEGIN: (16, 20), Op.FLASH_DEFL_END: (4,), Op.SPI_FLASH_MD5: (16,), Op.GET_SECURITY_INFO: (0,),
    Op.READ_FLASH: (16,), Op.ERASE_FLASH: (0,), Op.ERASE_REGION: (8,),
}  # fmt: skip
# CPU cycles: with them, the times are those of the real stub on the CPU engine (bench/vendor_engine.py)
RECEIVE, SEND, SUM, INFLATE, START = 30, 30, 8, 68, 150_000
MD5, BLANK = (
    {"xtensa": 31, "riscv": 38},
    12,
)  # per byte of flash that is hashed, or compared with 0xFF
BURST = 60  # per program operation, in addition to the flash's own time
# bytes that the ROM reads at once; bits on the flash's bus of a program operation
READ_PIECE, BURST_BITS = {"xtensa": 64, "riscv": 16}, 8 + 32 + 8 * PROGRAM_BURST
DATA_TOLERANCE = 0x400  # distance of a version's data from the known address


def start_program(services: Services, entry: int) -> VendorStub | None:
    """The imitation, if the uploads look like the vendor's stub, or any program counts as this stub."""
    known = services.mode == "vendor" or has_vendor_layout(services.chip, services.uploads, entry)
    return VendorStub(services) if known else None


def has_vendor_layout(chip: Chip, uploads: Iterable[tuple[int, int]], entry: int) -> bool:
    """Whether the uploads (address, size) and the entry match a version of the vendor's stub."""
    sizes = dict(uploads)
    for layout in chip.stub.reference_layouts:
        code, data = layout["text_start"], layout["data_start"]
        holds_entry = code <= entry < code + sizes.get(code, 0)
        if holds_entry and any(abs(address - data) < DATA_TOLERANCE for address in sizes):
            return True
    return False


def is_clock_raised(services: Services) -> bool:
    """Whether the stub raises the CPU's clock on this chip and port."""
    return services.chip.stub.clock_boost == "always" or services.usb


def find_clock_hz(services: Services) -> float:
    """The CPU's clock while the stub is running."""
    if is_clock_raised(services):
        return services.chip.stub.boost_mhz * 1e6
    return find_rom_hz(services)


class VendorStub(CpuModel):
    """One run of the stub."""

    def __init__(self, services: Services) -> None:
        hz, ring = find_clock_hz(services), Ring(FRAMES * FRAME_BYTES, FRAMES)
        bus_hz = find_bus_hz(services, full=is_clock_raised(services))
        self._bit_s = services.spi.find_divider(0) / bus_hz
        architecture = services.chip.cpu.architecture
        self._byte_s = (8 + 32 / READ_PIECE[architecture]) * self._bit_s
        self._md5_cycles = MD5[architecture]
        super().__init__(services, hz=hz, receive_cycles=RECEIVE, send_cycles=SEND, ring=ring)
        self.ram = RamCommands(self, SUM, self._wait_ready)
        handlers: dict[int, Callable[[bytes, int], Steps]] = {
            Op.SYNC: self.sync,
            **dict.fromkeys((Op.FLASH_BEGIN, Op.FLASH_DEFL_BEGIN), self._begin),
            **dict.fromkeys((Op.FLASH_DATA, Op.FLASH_DEFL_DATA), self._data),
            **dict.fromkeys((Op.FLASH_END, Op.FLASH_DEFL_END), self._end),
            **dict.fromkeys((Op.ERASE_FLASH, Op.ERASE_REGION), self._erase),
            **dict.fromkeys((Op.SPI_ATTACH, Op.SPI_SET_PARAMS), self._accept),
            Op.MEM_BEGIN: self.ram.begin,
            Op.MEM_DATA: self.ram.data,
            Op.MEM_END: self.ram.end,
            Op.READ_FLASH: self._read_flash,
            Op.SPI_FLASH_MD5: self._md5,
            Op.CHANGE_BAUDRATE: self._change_baud,
            Op.READ_REG: self._read_reg,
            Op.WRITE_REG: self._write_reg,
            Op.GET_SECURITY_INFO: self._security,
        }
        if Op.GET_SECURITY_INFO not in services.chip.rom.ops:
            del handlers[Op.GET_SECURITY_INFO]
        self._handlers = handlers
        self._open = False
        self._address = self._left = self._erased = self._erase_end = self._error = 0
        self._blank_so_far = True
        self._inflate: zlib._Decompress | None = None

    def main(self) -> Steps:
        """Start, send the hello, serve requests. A block is processed after its reply."""
        registers = self.services.registers
        registers.watchdogs.restart(self.now, running=False)
        registers.attached = self.flash.powered = True
        self.add_work(START)
        yield from self.serve(0, lambda frame: self.dispatch(frame, self._handlers, LENGTHS))

    # --- the flash ---

    def _wait_ready(self) -> Steps:
        return self.finish_work(self.flash.busy_until)

    def _change(self, opcode: int, address: int, data: bytes = b"") -> Steps:
        yield from self._wait_ready()
        self.flash.execute(self.now, WRITE_ENABLE)
        self.flash.execute(self.now, opcode, address=address, data=data)

    def _program(self, data: bytes) -> Steps:
        """Program in bursts of 32 bytes, waiting after each."""
        at = 0
        while at < len(data):
            address = self._address + at
            piece = data[at : at + PROGRAM_BURST - address % PROGRAM_BURST]
            yield from self._change(PAGE_PROGRAM, address, piece)
            self._work_s += max(0.0, self.flash.busy_until - self.now)  # the CPU polls
            self.add_work(BURST + BURST_BITS * self._bit_s * self.hz)
            at += len(piece)
        self._address += len(data)
        self._left -= len(data)

    def _erase_ahead(self, end: int) -> Steps:
        """Erase up to ``end``."""
        while self._erased < min(end, self._erase_end):
            yield from self._start_erase()

    def _start_erase(self) -> Steps:
        """Erase the next unit, or skip a sector, if all sectors up to it are blank; starts as soon as the flash is ready."""
        if self._blank_so_far:
            yield from self._wait_ready()
            data = self.flash.read_array(self.now, self._erased, SECTOR)
            seen = SECTOR - len(data.lstrip(b"\xff"))
            self._add_bytes(max(64, seen), BLANK)
            yield from self.finish_work()
            if seen == SECTOR:
                self._erased += SECTOR
                return
            self._blank_so_far = False
        self._erased += yield from self._erase_unit(self._erased, self._erase_end)

    def _erase_unit(self, address: int, end: int) -> Generator[float, None, int]:
        whole = address % BLOCK == 0 and end - address >= BLOCK
        yield from self._change(ERASE_BLOCK if whole else ERASE_SECTOR, address)
        return BLOCK if whole else SECTOR

    def _add_bytes(self, count: int, cycles: float) -> None:
        self.add_work(count * (cycles + self._byte_s * self.hz))

    # --- writes ---

    def _begin(self, frame: bytes, op: int) -> Steps:
        size, offset, encrypted = word(frame, 0), word(frame, 3), word(frame, 4)
        status = NOT_IMPLEMENTED if encrypted else 0
        self._open = not status
        self._address, self._left, self._error = offset, size, 0
        self._erased, self._erase_end = offset & -SECTOR, -(-(offset + size) // SECTOR) * SECTOR
        self._blank_so_far = True
        self._inflate = zlib.decompressobj() if op == Op.FLASH_DEFL_BEGIN else None
        yield from self.reply(op, status=status)
        if not status and size:
            yield from self._start_erase()

    def _data(self, frame: bytes, op: int) -> Steps:
        payload, packed = frame[HEADER.size + DATA_HEAD :], op == Op.FLASH_DEFL_DATA
        self.add_work(len(payload) * SUM)
        if not self._open or packed != (self._inflate is not None):
            status = NOT_OPEN
        elif len(frame) < HEADER.size + DATA_HEAD or word(frame, 0) != len(payload):
            status = BAD_LENGTH
        elif int.from_bytes(frame[4:8], "little") != checksum(payload):
            status = BAD_CHECKSUM
        else:
            status = self._error
        yield from self.reply(op, status=status)
        if not status:
            yield from self._work(payload)

    def _work(self, data: bytes) -> Steps:
        if self._inflate is None:
            yield from self._write(data[: self._left])
            return
        while data or self._inflate.unconsumed_tail:
            if self._erased < self._erase_end and self.now >= self.flash.busy_until:
                yield from self._start_erase()
            try:
                out = self._inflate.decompress(data, WINDOW)
            except zlib.error:
                self._error = INFLATE_FAILED
                return
            data = self._inflate.unconsumed_tail
            if len(out) > self._left:
                self._error = TOO_MUCH
                return
            self.add_work(len(out) * INFLATE)
            yield from self._write(out)
            if self._inflate.eof:
                return

    def _write(self, data: bytes) -> Steps:
        yield from self._erase_ahead(self._address + len(data))
        yield from self._program(data)

    def _end(self, frame: bytes, op: int) -> Steps:
        yield from self._wait_ready()
        status = (
            NOT_OPEN if not self._open else self._error or (TOO_LITTLE if self._left > 0 else 0)
        )
        self._open = False
        yield from self.reply(op, status=status)

    # --- reads ---

    def _read_flash(self, frame: bytes, op: int) -> Steps:
        offset, size, packet, _ = struct.unpack_from("<4I", frame, HEADER.size)
        bad = not packet or packet > PACKET
        yield from self.reply(op, status=BAD_BLOCK if bad else 0)
        if bad:
            return
        self.ring.release()
        digest, done = hashlib.md5(usedforsecurity=False), 0
        yield from self._wait_ready()
        while done < size:
            data = self.flash.read_array(self.now, offset + done, min(packet, size - done))
            digest.update(data)
            self._add_bytes(len(data), self._md5_cycles)
            yield from self.finish_work()
            yield from self.send_frame(data)
            ack = yield from self.next_frame()
            self.ring.release()
            if len(ack) != 4:
                return
            done = int.from_bytes(ack, "little")
        yield from self.send_frame(digest.digest())

    def _md5(self, frame: bytes, op: int) -> Steps:
        offset, size = word(frame, 0), word(frame, 1)
        digest = hashlib.md5(usedforsecurity=False)
        yield from self._wait_ready()
        for at in range(offset, offset + size, BLOCK):
            count = min(BLOCK, offset + size - at)
            digest.update(self.flash.read_array(self.now, at, count))
            self._add_bytes(count, self._md5_cycles)
            yield from self.finish_work()
        yield from self.reply(op, data=digest.digest())

    # --- the rest ---

    def _erase(self, frame: bytes, op: int) -> Steps:
        offset, size, status = word(frame, 0), word(frame, 1), 0
        if op == Op.ERASE_FLASH:
            yield from self._change(ERASE_CHIP, 0)
        elif offset % SECTOR or size % SECTOR:
            status = BAD_BLOCK
        else:
            at = offset
            while at < offset + size:
                at += yield from self._erase_unit(at, offset + size)
        yield from self._wait_ready()
        yield from self.reply(op, status=status)

    def _change_baud(self, frame: bytes, op: int) -> Steps:
        new, old = word(frame, 0), word(frame, 1)
        yield from self.reply(op)
        yield from self.drain()
        self.baud = round(self.baud * new / old) if old else new

    def _read_reg(self, frame: bytes, op: int) -> Steps:
        value = yield from self.ram.read_word(word(frame, 0))
        yield from self.reply(op, value)

    def _write_reg(self, frame: bytes, op: int) -> Steps:
        size = len(frame) - HEADER.size
        status = BAD_LENGTH
        if size and size % 16 == 0:
            status = yield from self.ram.write_registers(
                struct.unpack_from(f"<{size // 4}I", frame, HEADER.size)
            )
        yield from self.reply(op, status=status)

    def _accept(self, frame: bytes, op: int) -> Steps:
        yield from self.reply(op)

    def _security(self, frame: bytes, op: int) -> Steps:
        yield from self.reply(op, data=security_info(self.services.chip, self.services.config))
