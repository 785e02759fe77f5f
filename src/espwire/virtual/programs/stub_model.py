"""Python model of our stub: the same replies in the same order, the same flash contents, credits and a rough pace.

It replaces the packed image wherever that is uploaded (``VirtualOptions.stub``), and mirrors ``stub/src``. Two things
are left out: what the stub leaves in the registers of the SPI controller, and what a frame reads past its end if it is
shorter than its command requires.

Pace. The constants here, in ``stub_flash.py``, ``stub_read.py`` and ``stub_write.py`` are CPU cycles of the ESP32's stub, measured on the
CPU engine (two cycles per instruction, twenty per access to a peripheral). Other chips run other machine code for the
same C source; ``stub.own.pace`` is their ratio to these numbers. ``tools/measure_pace.py`` measures it. Bit times of
UART and SPI come on top.

The first stage of the stub, which takes the stub over a faster wire where the ROM cannot change its baud rate, is
modelled here as well: it mirrors ``stub/src/first.c``. On the engine it would take a second of real time.
"""

from __future__ import annotations

import struct
from collections.abc import Generator
from enum import IntEnum
from typing import NamedTuple

from espwire.compress import find_lzma_form, has_lzma
from espwire.device.stub_image import (
    FIRST_BATCH,
    OPTIONS,
    StubImage,
    StubOptions,
    load_stub,
    parse_stub_options,
    stub_chips,
)
from espwire.protocol import stub
from espwire.protocol.commands import HEADER, Reply, parse_request
from espwire.protocol.opcodes import Op
from espwire.protocol.replies import (
    BAD_BLOCK,
    BAD_CHECKSUM,
    BAD_LENGTH,
    NOT_IMPLEMENTED,
    UNKNOWN_COMMAND,
)
from espwire.protocol.stub import Capabilities, Feature, HashKind, StubOp, is_sealed
from espwire.sizes import SECTOR
from espwire.virtual.efuses import security_info
from espwire.virtual.programs.cpu_model import (
    CpuModel,
    Handlers,
    RamCommands,
    Ring,
    Steps,
    is_in_ram,
    word,
)
from espwire.virtual.programs.program import Services
from espwire.virtual.programs.stub_flash import TRANSACTION, Hasher, StubFlash
from espwire.virtual.programs.stub_read import PACKET, READ_WINDOW, Reader
from espwire.virtual.programs.stub_write import (
    CHECKSUM_BYTE,
    COMMAND,
    COPY_BYTE,
    PAYLOAD,
    WINDOW,
    Writer,
)
from espwire.virtual.registers import require_soc

RING_BYTES, QUEUE = 33792 - 1, 64
BATCH_BYTES, ANSWER_BYTES = 512, 64
NO_CHIP_ID = 0xFFFFFFFF
FEATURES = Feature(0x12FFB)
LENGTHS: dict[int, tuple[int, ...]] = {
    Op.FLASH_BEGIN: (16, 20), Op.FLASH_DEFL_BEGIN: (16, 20),
    Op.FLASH_END: (4,), Op.FLASH_DEFL_END: (4,), StubOp.ABORT: (4,), StubOp.RESET: (4,),
    Op.MEM_BEGIN: (16,), StubOp.HASH: (16,), Op.READ_FLASH: (16,),
    Op.MEM_END: (8,), Op.CHANGE_BAUDRATE: (8, 12), Op.ERASE_REGION: (8,), StubOp.READ_ACK: (8,),
    StubOp.WRITE_OPEN: (24,), Op.SYNC: (36,), Op.ERASE_FLASH: (0,), Op.RUN_USER_CODE: (0,),
}  # fmt: skip
# commands that may come in a batch; None: checked by the command
SMALL_LENGTHS: dict[int, int | None] = {
    Op.READ_REG: 4, Op.SPI_ATTACH: 4, StubOp.CAPABILITIES: 4, Op.SPI_SET_PARAMS: 24, Op.SPI_FLASH_MD5: 16,
    Op.GET_SECURITY_INFO: 0, Op.WRITE_REG: None, StubOp.SPI: None,
}  # fmt: skip
UNSEALED_DATA = frozenset({Op.FLASH_DATA, Op.FLASH_DEFL_DATA, Op.MEM_DATA})
# CPU cycles: from the first instruction to the hello; of a byte received, sent, in the CRC-32
START, RECEIVE_BYTE, SEND_BYTE, CRC_BYTE = 146_388, 55, 115, 20
# ditto of the first stage, which clears 36 KiB before it starts, and waits for its last byte to leave
FIRST_START, FIRST_RAM_BYTE, FIRST_LAST_BYTE = 75_000, 84, 250_000
FIRST_LENGTHS: dict[int, tuple[int, ...]] = {
    Op.SYNC: (36,), Op.MEM_BEGIN: (16,), Op.MEM_END: (8,), Op.CHANGE_BAUDRATE: (8,),
}  # fmt: skip


class Trust(IntEnum):
    """How far a frame is known to be an undamaged request."""

    DAMAGED = 0
    UNSEALED = 1
    SEALED = 2


class Answer(NamedTuple):
    """Reply to a small command."""

    status: int = 0
    value: int = 0
    data: bytes = b""


Small = Generator[float, None, Answer]


def start_program(services: Services, entry: int) -> CpuModel | None:
    """The model, if our stub or its first stage is in RAM and starts at ``entry``; else None."""
    chip = services.chip
    own = chip.stub.own
    if own is None or chip.id not in stub_chips():
        return None
    image = load_stub(chip.id)
    if image.first is not None and entry == image.first.entry:
        return FirstStage(services) if is_in_ram(services, image.first.segments) else None
    if image.older is not None and entry == image.older.entry:
        image = image.older
    code = image.segments[:1]
    if entry != image.entry or not is_in_ram(services, code):
        return None
    size = OPTIONS.size + FIRST_BATCH
    options = parse_stub_options(services.registers.ram.read(image.options_address or 0, size))
    if options.over_usb != services.usb:
        return None  # it talks to the port that is not connected: leave it to the engine
    return StubModel(services, image, options)


class StubModel(CpuModel):
    """One run of the stub. While ``sealed``, the host is ours; else it is a vendor's tool, which sends no CRCs."""

    sealed = True

    def __init__(self, services: Services, image: StubImage, options: StubOptions) -> None:
        own = services.chip.stub.own
        assert own is not None
        self._own, self._image, self._options = own, image, options
        self._features = FEATURES
        self._small_lengths = dict(SMALL_LENGTHS)
        if services.chip.identity.security_info_bytes:
            self._features |= Feature.SECURITY_INFO
        else:
            del self._small_lengths[Op.GET_SECURITY_INFO]
        if own.can_encrypt:
            self._features |= Feature.ENCRYPT
        self._lengths = LENGTHS | {
            op: (size,) for op, size in self._small_lengths.items() if size is not None
        }
        form = find_lzma_form(services.chip) if own.can_lzma and has_lzma() else None
        if form is not None:
            self._features |= Feature[form.codec.name]
        raise_clock = bool(options.baud) or "clock_control" not in own.registers
        full_clock = raise_clock and not options.leave_clock
        self.seal_cycles = CRC_BYTE
        super().__init__(
            services,
            hz=(find_full_hz(services) if full_clock else find_rom_hz(services)) / own.pace,
            receive_cycles=RECEIVE_BYTE,
            send_cycles=SEND_BYTE,
            ring=Ring(RING_BYTES, QUEUE, _is_abort),
        )
        divider = services.spi.find_divider(options.spi_clock)
        self.memory = StubFlash(self, self.flash, find_bus_hz(services, full=full_clock) / divider)
        self.writer = Writer(
            self,
            self.memory,
            self._find_trust,
            services.encrypt,
            can_encrypt=own.can_encrypt,
            lzma=form,
        )
        self.reader = Reader(self, self.memory, self._check)
        self.hasher = Hasher(self, self.memory, self._check)
        self.ram = RamCommands(self, CHECKSUM_BYTE + COPY_BYTE, self.memory.wait)
        self._handlers: Handlers = {
            Op.SYNC: self.sync,
            StubOp.WRITE_OPEN: self.writer.open,
            StubOp.WRITE_DATA: self.writer.late_data,
            **dict.fromkeys((Op.FLASH_BEGIN, Op.FLASH_DEFL_BEGIN), self.writer.begin),
            **dict.fromkeys((Op.FLASH_DATA, Op.FLASH_DEFL_DATA), self.writer.late_data),
            **dict.fromkeys((Op.FLASH_END, Op.FLASH_DEFL_END), self._end),
            StubOp.READ_OPEN: self.reader.open,
            Op.READ_FLASH: self.reader.read,
            StubOp.HASH: self.hasher.hash,
            Op.MEM_BEGIN: self.ram.begin,
            Op.MEM_DATA: self.ram.data,
            Op.MEM_END: self.ram.end,
            Op.CHANGE_BAUDRATE: self.change_baud,
            **dict.fromkeys((Op.ERASE_FLASH, Op.ERASE_REGION), self._erase),
            StubOp.ABORT: self._abort,
            StubOp.RESET: self._restart,
        }

    # --- the program ---

    def main(self) -> Steps:
        """Start, send the hello, serve requests."""
        registers = self.services.registers
        registers.watchdogs.restart(self.now, running=False)
        # hw_start has the ROM attach the flash
        registers.attached |= bool(self.services.chip.flash_attach)
        self.add_work(START)
        yield from self.serve(COMMAND, self._handle, self._run_first_batch())

    def _run_first_batch(self) -> Steps:
        """The batch that was uploaded with the image."""
        if self._options.batch:
            yield from self._batch(self._options.batch)

    def _handle(self, frame: bytes) -> Steps:
        op, size, trust = frame[1], len(frame) - HEADER.size, self._check(frame)
        if not trust:
            if op not in (StubOp.WRITE_DATA, StubOp.READ_ACK):
                yield from self.reply(op, int.from_bytes(frame[4:8], "little"), status=BAD_CHECKSUM)
            return
        self.sealed = trust is Trust.SEALED
        if size not in self._lengths.get(op, (size,)):
            yield from self.reply(op, status=BAD_LENGTH)
            return
        if op not in (StubOp.WRITE_DATA, Op.SPI_FLASH_MD5):
            self.writer.discard_hash()
        handler = self._handlers.get(op, self._small)
        if op not in (StubOp.READ_ACK, Op.RUN_USER_CODE):
            yield from handler(frame, op)

    def _check(self, frame: bytes) -> Trust:
        self.add_work(len(frame) * CRC_BYTE)
        return self._find_trust(frame)

    def _find_trust(self, frame: bytes) -> Trust:
        trust = find_trust(frame, sealed=self.sealed)
        if trust is Trust.SEALED:
            self.extend_trial()
        return trust

    def _erase(self, frame: bytes, op: int) -> Steps:
        offset, size, status = word(frame, 0), word(frame, 1), 0
        if op == Op.ERASE_FLASH:
            yield from self.memory.erase_all()
        elif offset % SECTOR or size % SECTOR or not self.memory.covers(offset, size):
            status = BAD_BLOCK
        else:
            yield from self.memory.erase(offset, size)
        yield from self.reply(op, status=status)

    def _end(self, frame: bytes, op: int) -> Steps:
        yield from self.reply(op, status=self.writer.end())
        if not word(frame, 0):
            yield from self._reset()

    def _abort(self, frame: bytes, op: int) -> Steps:
        self.writer.end()
        yield from self.reply(op, word(frame, 0))

    def _restart(self, frame: bytes, op: int) -> Steps:
        yield from self.reply(op)
        yield from self._reset()

    def _reset(self) -> Steps:
        yield from self.memory.wait()
        yield from self.drain()
        yield from self.reset()

    # --- small commands, alone or in a batch ---

    def _small(self, frame: bytes, op: int) -> Steps:
        body = frame[HEADER.size :]
        answer = Answer(BAD_LENGTH)
        if len(body) <= BATCH_BYTES:
            if op == StubOp.BATCH:
                yield from self._batch(body)
                return
            answer = yield from self._answer(op, body)
        elif op not in self._small_lengths and op != StubOp.BATCH:
            answer = Answer(UNKNOWN_COMMAND)
        yield from self.reply(op, answer.value, answer.data, answer.status)

    def _batch(self, body: bytes) -> Steps:
        at, out, status = 0, bytearray(), 0
        while at < len(body) and not status:
            size = int.from_bytes(body[at + 2 : at + 4], "little")
            padded = (size + 3) & ~3
            if at + 4 + padded > len(body):
                break
            answer = yield from self._answer(body[at], body[at + 4 : at + 4 + size])
            status = answer.status
            packed = stub.pack_batch_answer(
                Reply(body[at], answer.value, answer.data + status.to_bytes(2, "big"))
            )
            if len(out) + len(packed) > BATCH_BYTES:
                break
            out += packed
            at += 4 + padded
        incomplete = at < len(body) and not status
        yield from self.reply(StubOp.BATCH, 0, bytes(out), BAD_LENGTH if incomplete else 0)

    def _answer(self, op: int, body: bytes) -> Small:
        if op not in self._small_lengths:
            return Answer(UNKNOWN_COMMAND)
        if self._small_lengths[op] not in (None, len(body)):
            return Answer(BAD_LENGTH)
        words = struct.unpack_from(f"<{len(body) // 4}I", body)
        match op:
            case Op.WRITE_REG:
                if not body or len(body) % 16:
                    return Answer(BAD_LENGTH)
                return Answer((yield from self.ram.write_registers(words)))
            case StubOp.SPI:
                return (yield from self._spi(body)) if len(body) >= 16 else Answer(BAD_LENGTH)
            case Op.READ_REG:
                if words[0] % 4:
                    return Answer(BAD_BLOCK)
                return Answer(value=(yield from self.ram.read_word(words[0])))
            case Op.SPI_ATTACH:
                return Answer(NOT_IMPLEMENTED if words[0] else 0)
            case Op.GET_SECURITY_INFO:
                return Answer(data=security_info(self.services.chip, self.services.config))
            case Op.SPI_SET_PARAMS:
                self.memory.size = words[1]
                return Answer()
            case Op.SPI_FLASH_MD5:
                return (yield from self._md5(words[0], words[1]))
            case _:
                return Answer(value=stub.PROTOCOL_VERSION, data=self._capabilities())

    def _md5(self, address: int, size: int) -> Small:
        if not self.memory.covers(address, size):
            return Answer(BAD_BLOCK)
        begun = yield from self.writer.take_hash(address, size)
        digest = yield from self.hasher.hash_piece(address, size, HashKind.MD5, begun=begun)
        return Answer(data=digest or b"")

    def _spi(self, body: bytes) -> Small:
        opcode, address, lengths, flags = struct.unpack_from("<IIII", body)
        address_bits, dummy, out, count = lengths.to_bytes(4, "little")
        longest = max(out, count, dummy)
        if len(body) != 16 + out or longest > ANSWER_BYTES or address_bits > 32:
            return Answer(BAD_LENGTH)
        yield from self.memory.wait()
        yield from self.finish_work()
        if flags & stub.SPI_WRITE_ENABLE:
            self._transact(0x06)
        data = self._transact(opcode & 0xFF, address, address_bits, dummy, body[16:], count)
        if flags & stub.SPI_WAIT:
            yield from self.memory.wait()
        return Answer(data=data)

    def _transact(
        self,
        opcode: int,
        address: int = 0,
        address_bits: int = 0,
        dummy: int = 0,
        out: bytes = b"",
        count: int = 0,
    ) -> bytes:
        self.add_work(TRANSACTION)
        return self.services.spi.transact(
            self.now,
            opcode,
            address=address,
            address_bits=address_bits,
            dummy_bits=dummy,
            out=out,
            read=count,
            attached=self.services.registers.attached,
        )

    def _capabilities(self) -> bytes:
        chip_id = self.services.chip.identity.image_chip_id
        return Capabilities(
            features=self._features,
            frame_payload=PAYLOAD,
            write_window=WINDOW,
            read_packet=PACKET,
            read_window=READ_WINDOW,
            cpu_hz=self._own.cpu_hz,
            batch_bytes=BATCH_BYTES,
            image_chip_id=NO_CHIP_ID if chip_id is None else chip_id,
            build=self._image.build,
            code_crc=self._image.code_crc,
        ).pack()


class FirstStage(CpuModel):
    """One run of the first stage: RAM commands and the baud rate, until the stub is started."""

    def __init__(self, services: Services) -> None:
        hz = find_rom_hz(services)
        super().__init__(
            services,
            hz=hz,
            receive_cycles=RECEIVE_BYTE,
            send_cycles=SEND_BYTE,
            ring=Ring(RING_BYTES, QUEUE),
        )
        self.last_byte_s = FIRST_LAST_BYTE / hz
        ram = RamCommands(self, FIRST_RAM_BYTE)
        self._handlers: Handlers = {
            Op.SYNC: self.sync,
            Op.CHANGE_BAUDRATE: self.change_baud,
            Op.MEM_BEGIN: ram.begin,
            Op.MEM_DATA: ram.data,
            Op.MEM_END: ram.end,
        }

    def main(self) -> Steps:
        """Start, send the hello, serve requests."""
        self.add_work(FIRST_START)
        yield from self.serve(
            COMMAND, lambda frame: self.dispatch(frame, self._handlers, FIRST_LENGTHS)
        )


def find_trust(frame: bytes, *, sealed: bool) -> Trust:
    """How far a frame can be trusted. Mirrors ``frame_trust`` in ``stub/src/frames.c``.

    :param sealed: the host is ours, so unsealed frames are damaged, except SYNC, which a vendor's tool sends first
    """
    request = parse_request(frame)
    if request is None:
        return Trust.DAMAGED
    if is_sealed(frame):
        return Trust.SEALED
    if request.op != Op.SYNC and (sealed or request.op >= StubOp.CAPABILITIES):
        return Trust.DAMAGED
    # unsealed data carries the vendor's checksum
    limit = 0x100 if request.op in UNSEALED_DATA else 1
    return Trust.UNSEALED if request.check < limit else Trust.DAMAGED


def find_rom_hz(services: Services) -> float:
    """The CPU's clock as the ROM leaves it."""
    return _find_crystal_hz(services) / (require_soc(services.chip).clock.divider_start + 1)


def _find_crystal_hz(services: Services) -> float:
    return services.config.crystal_mhz * 1e6 * services.chip.crystal.clock_multiple


def find_full_hz(services: Services) -> float:
    """The CPU's clock once the stub has raised it."""
    own, tree = services.chip.stub.own, require_soc(services.chip).clock
    assert own is not None
    multiple = tree.pll_multiple
    if tree.select is None and tree.double is None:
        return _find_crystal_hz(services)
    return own.cpu_hz if multiple is None else services.config.crystal_mhz * 1e6 * multiple


def find_bus_hz(services: Services, *, full: bool) -> float:
    """The input clock of the flash controller: the PLL's, if the stub has changed to it (``full``)."""
    tree = require_soc(services.chip).clock
    if not full:
        return find_rom_hz(services)
    if tree.flash_multiple is not None:
        return tree.flash_multiple * services.config.crystal_mhz * 1e6
    if tree.select is not None and tree.pll_multiple is None:
        return tree.bus_mhz * 1e6
    return _find_crystal_hz(services)


def _is_abort(frame: bytes) -> bool:
    return len(frame) == HEADER.size + 4 and frame[1] == StubOp.ABORT and is_sealed(frame)
