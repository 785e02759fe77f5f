"""An imitation of the vendor's stub of esptool 5 (generation 2): its dialect and its pace. No code of it runs.

An upload is taken for this stub, of any version, if it lies where one of the chip's ``reference_layouts`` says: code at
the same address with the entry inside, data close to the same address, since versions differ by a few hundred bytes.
Under ``stub=vendor`` any program that is not ours is. Facts: ``chips/data/protocol.toml`` [stub], published timings. A
block is acknowledged when it has come, before it is unpacked, erased for and programmed: a failure shows on the next
request. Reads go packet by packet, one in flight. The CPU's clock is raised as ``stub.clock_boost`` tells. Left out:
encrypted writes, NAND, the plug-ins.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Callable, Generator, Iterable

from espwire.chips.model import Chip
from espwire.protocol.commands import HEADER, checksum
from espwire.protocol.opcodes import Op
from espwire.protocol.replies import (
    BAD_BLOCK,
    BAD_CHECKSUM,
    BAD_LENGTH,
    INFLATE_FAILED,
    NOT_IMPLEMENTED,
    NOT_OPEN,
    TOO_LITTLE,
    TOO_MUCH,
    UNKNOWN_COMMAND,
)
from espwire.protocol.spi_flash import (
    ERASE_BLOCK,
    ERASE_CHIP,
    ERASE_SECTOR,
    PAGE_PROGRAM,
    WRITE_ENABLE,
)
from espwire.protocol.stub import HELLO
from espwire.sizes import BLOCK, SECTOR
from espwire.virtual.efuses import security_info
from espwire.virtual.programs.cpu_model import CpuModel, RamCommands, Ring, Steps, word
from espwire.virtual.programs.registry import Services

PROGRAM_BURST = 32
FRAMES, FRAME_BYTES = 2, 16647
DATA_HEAD, PACKET = 16, 4096
LENGTHS: dict[int, tuple[int, ...]] = {
    Op.SYNC: (36,), Op.FLASH_BEGIN: (16, 20), Op.FLASH_END: (4,), Op.MEM_BEGIN: (16,), Op.MEM_END: (8,),
    Op.READ_REG: (4,), Op.SPI_ATTACH: (4,), Op.SPI_SET_PARAMS: (24,), Op.CHANGE_BAUDRATE: (8,),
    Op.FLASH_DEFL_BEGIN: (16, 20), Op.FLASH_DEFL_END: (4,), Op.SPI_FLASH_MD5: (16,), Op.GET_SECURITY_INFO: (0,),
    Op.READ_FLASH: (16,), Op.ERASE_FLASH: (0,), Op.ERASE_REGION: (8,),
}  # fmt: skip
# cycles, from instruction counts of such code (1.3 cycles each) and from published times; START_HZ is the ROM's clock
RECEIVE, SEND, SUM, INFLATE, START = 30, 30, 8, 38, 150_000
MD5, LOOK = (
    41,
    12,
)  # for a byte of flash: read through the ROM in pieces of 16, then hashed; or looked at
MD5_BUS_S, LOOK_BUS_S = 0.22e-6, 0.18e-6  # and what the flash's bus takes for it
BURST_S = 3e-6  # of a program operation, beside the flash's own time
BOOST_MHZ = 160  # or the most that the chip can do
RESET_DIVIDER = 2  # of the CPU's clock, where the ROM runs on the crystal
DATA_TOLERANCE = 0x400  # how far versions of one layout put their data from the known address


def start_program(services: Services, entry: int) -> Vendor | None:
    """The imitation, if the uploads lie as the vendor's stub does, or the options say that any program is this stub."""
    known = services.mode == "vendor" or has_vendor_layout(services.chip, services.uploads, entry)
    return Vendor(services) if known else None


def has_vendor_layout(chip: Chip, uploads: Iterable[tuple[int, int]], entry: int) -> bool:
    """Whether the uploads (address, size) and the entry are those of a version of the vendor's stub."""
    placed = dict(uploads)
    for layout in chip.stub.reference_layouts:
        code, data = layout["text_start"], layout["data_start"]
        holds_entry = code <= entry < code + placed.get(code, 0)
        if holds_entry and any(abs(address - data) < DATA_TOLERANCE for address in placed):
            return True
    return False


def find_clock_hz(services: Services) -> int:
    """The CPU's clock while the stub runs."""
    chip = services.chip
    if chip.stub.clock_boost == "always" or services.usb:
        return min(BOOST_MHZ, chip.cpu.max_mhz) * 1_000_000
    crystal, multiple = services.config.crystal_mhz * 1_000_000, chip.crystal.clock_multiple
    return crystal * multiple if multiple > 1 else crystal // RESET_DIVIDER


class Vendor(CpuModel):
    """One run of it."""

    def __init__(self, services: Services) -> None:
        hz, ring = find_clock_hz(services), Ring(FRAMES * FRAME_BYTES, FRAMES)
        super().__init__(services, hz=hz, receive_cycles=RECEIVE, send_cycles=SEND, ring=ring)
        self.ram = RamCommands(self, SUM, self._ready)
        self._open = False
        self._address = self._left = self._erased = self._erase_end = self._error = 0
        self._blank_so_far = True
        self._inflate: zlib._Decompress | None = None

    def main(self) -> Steps:
        """Start, say hello, serve for ever; what a block brings is worked on after its reply."""
        registers = self.services.registers
        registers.watchdogs.restart(self.now, running=False)
        registers.attached = True
        self.owe(START)
        yield from self.settle()
        yield from self.send_frame(HELLO)
        while True:
            frame = yield from self.take()
            if len(frame) >= HEADER.size and not frame[0]:
                yield from self._handle(frame)
            self.ring.release()

    def _handle(self, frame: bytes) -> Steps:
        op, size = frame[1], len(frame) - HEADER.size
        handler = HANDLERS.get(op)
        absent = op == Op.GET_SECURITY_INFO and op not in self.services.chip.rom.ops
        if size != int.from_bytes(frame[2:4], "little") or size not in LENGTHS.get(op, (size,)):
            yield from self.reply(op, status=BAD_LENGTH)
        elif handler is None or absent:
            yield from self.reply(op, status=UNKNOWN_COMMAND)
        else:
            yield from handler(self, frame, op)

    # --- the flash ---

    def _ready(self) -> Steps:
        return self.settle(self.flash.busy_until)

    def _change(self, opcode: int, address: int, data: bytes = b"") -> Steps:
        yield from self._ready()
        self.flash.execute(self.now, WRITE_ENABLE)
        self.flash.execute(self.now, opcode, address=address, data=data)

    def _program(self, data: bytes) -> Steps:
        """In bursts of 32 bytes, each waited for."""
        at = 0
        while at < len(data):
            place = self._address + at
            piece = data[at : at + PROGRAM_BURST - place % PROGRAM_BURST]
            yield from self._change(PAGE_PROGRAM, place, piece)
            self._owed += max(0.0, self.flash.busy_until - self.now) + BURST_S  # the CPU spins
            at += len(piece)
        self._address += len(data)
        self._left -= len(data)

    def _erase_ahead(self, end: int) -> Steps:
        """Up to ``end``: blank sectors are passed over until the first that is not, then all is erased."""
        while self._erased < min(end, self._erase_end):
            if self._blank_so_far:
                yield from self._ready()
                data = self.flash.read_array(self.now, self._erased, SECTOR)
                seen = SECTOR - len(data.lstrip(b"\xff"))
                self._owe_bytes(max(64, seen), LOOK, LOOK_BUS_S)
                yield from self.settle()
                if seen == SECTOR:
                    self._erased += SECTOR
                    continue
                self._blank_so_far = False
            self._erased += yield from self._erase_unit(self._erased, self._erase_end)

    def _erase_unit(self, address: int, end: int) -> Generator[float, None, int]:
        whole = address % BLOCK == 0 and end - address >= BLOCK
        yield from self._change(ERASE_BLOCK if whole else ERASE_SECTOR, address)
        return BLOCK if whole else SECTOR

    def _owe_bytes(self, count: int, cycles: float, bus_s: float) -> None:
        self.owe(count * (cycles + bus_s * self.hz))

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

    def _data(self, frame: bytes, op: int) -> Steps:
        payload, packed = frame[HEADER.size + DATA_HEAD :], op == Op.FLASH_DEFL_DATA
        self.owe(len(payload) * SUM)
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
            try:
                out = self._inflate.decompress(data, SECTOR)
            except zlib.error:
                self._error = INFLATE_FAILED
                return
            data = self._inflate.unconsumed_tail
            if len(out) > self._left:
                self._error = TOO_MUCH
                return
            self.owe(len(out) * INFLATE)
            yield from self._write(out)
            if self._inflate.eof:
                return

    def _write(self, data: bytes) -> Steps:
        yield from self._erase_ahead(self._address + len(data))
        yield from self._program(data)

    def _end(self, frame: bytes, op: int) -> Steps:
        yield from self._ready()
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
        yield from self._ready()
        while done < size:
            data = self.flash.read_array(self.now, offset + done, min(packet, size - done))
            digest.update(data)
            self._owe_bytes(len(data), MD5, MD5_BUS_S)
            yield from self.settle()
            yield from self.send_frame(data)
            ack = yield from self.take()
            self.ring.release()
            if len(ack) != 4:
                return
            done = int.from_bytes(ack, "little")
        yield from self.send_frame(digest.digest())

    def _md5(self, frame: bytes, op: int) -> Steps:
        offset, size = word(frame, 0), word(frame, 1)
        digest = hashlib.md5(usedforsecurity=False)
        yield from self._ready()
        for at in range(offset, offset + size, BLOCK):
            count = min(BLOCK, offset + size - at)
            digest.update(self.flash.read_array(self.now, at, count))
            self._owe_bytes(count, MD5, MD5_BUS_S)
            yield from self.settle()
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
        yield from self._ready()
        yield from self.reply(op, status=status)

    def _change_baud(self, frame: bytes, op: int) -> Steps:
        wanted, now = word(frame, 0), word(frame, 1)
        yield from self.reply(op)
        yield from self.drain()
        self.rate = round(self.rate * wanted / now) if now else wanted

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

    def _well(self, frame: bytes, op: int) -> Steps:
        yield from self.reply(op)

    def _security(self, frame: bytes, op: int) -> Steps:
        yield from self.reply(op, data=security_info(self.services.chip, self.services.config))


Handler = Callable[[Vendor, bytes, int], Steps]
HANDLERS: dict[int, Handler] = {
    Op.SYNC: Vendor.answer_sync,
    **dict.fromkeys((Op.FLASH_BEGIN, Op.FLASH_DEFL_BEGIN), Vendor._begin),
    **dict.fromkeys((Op.FLASH_DATA, Op.FLASH_DEFL_DATA), Vendor._data),
    **dict.fromkeys((Op.FLASH_END, Op.FLASH_DEFL_END), Vendor._end),
    **dict.fromkeys((Op.ERASE_FLASH, Op.ERASE_REGION), Vendor._erase),
    **dict.fromkeys((Op.SPI_ATTACH, Op.SPI_SET_PARAMS), Vendor._well),
    Op.MEM_BEGIN: lambda vendor, frame, op: vendor.ram.begin(frame),
    Op.MEM_DATA: lambda vendor, frame, op: vendor.ram.data(frame),
    Op.MEM_END: lambda vendor, frame, op: vendor.ram.end(frame),
    Op.READ_FLASH: Vendor._read_flash,
    Op.SPI_FLASH_MD5: Vendor._md5,
    Op.CHANGE_BAUDRATE: Vendor._change_baud,
    Op.READ_REG: Vendor._read_reg,
    Op.WRITE_REG: Vendor._write_reg,
    Op.GET_SECURITY_INFO: Vendor._security,
}
