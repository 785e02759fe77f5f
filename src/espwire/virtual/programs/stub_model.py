"""A quick behavioural twin of our stub: the same replies in the same order, the same flash, a pace from the engines.

It stands in for the packed image wherever that is uploaded (``VirtualOptions.stub``): ``stub/src`` is what it mirrors,
``paces.py`` what it has its times from. Left out: what the stub leaves in the SPI controller's registers, and what lies
behind a frame that is shorter than its command reads.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator
from typing import NamedTuple

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
from espwire.protocol.commands import ALL_BITS, HEADER, Reply
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
from espwire.virtual.programs.cpu_model import CpuModel, RamCommands, Ring, Steps, lies_in_ram, word
from espwire.virtual.programs.cycle_costs import PACES
from espwire.virtual.programs.frame_trust import Trust, find_trust
from espwire.virtual.programs.registry import Services
from espwire.virtual.programs.stub_flash import StubFlash
from espwire.virtual.programs.stub_read import PACKET, READ_WINDOW, Reader
from espwire.virtual.programs.stub_write import PAYLOAD, WINDOW, Writer

RING_BYTES, QUEUE = 33792 - 1, 64
BATCH_BYTES, ANSWER_BYTES = 512, 64
NO_CHIP_ID = 0xFFFFFFFF
KEEP, EIGHT_BITS, START = 0x2F0, 7 << 28, 1 << 18
FEATURES = Feature(0xFFB)
LENGTHS: dict[int, tuple[int, ...]] = {
    Op.FLASH_BEGIN: (16, 20), Op.FLASH_DEFL_BEGIN: (16, 20),
    Op.FLASH_END: (4,), Op.FLASH_DEFL_END: (4,), StubOp.ABORT: (4,), StubOp.RESET: (4,),
    Op.MEM_BEGIN: (16,), StubOp.HASH: (16,), Op.READ_FLASH: (16,),
    Op.MEM_END: (8,), Op.CHANGE_BAUDRATE: (8,), Op.ERASE_REGION: (8,), StubOp.READ_ACK: (8,),
    StubOp.READ_OPEN: (20,), StubOp.WRITE_OPEN: (24,), Op.SYNC: (36,), Op.ERASE_FLASH: (0,), Op.RUN_USER_CODE: (0,),
}  # fmt: skip
SMALL_LENGTHS = {
    Op.READ_REG: 4, Op.SPI_ATTACH: 4, StubOp.CAPABILITIES: 4, Op.SPI_SET_PARAMS: 24, Op.SPI_FLASH_MD5: 16,
    Op.WRITE_REG: None, StubOp.SPI: None,
}  # fmt: skip


class Answer(NamedTuple):
    """What a small command answers."""

    status: int = 0
    value: int = 0
    data: bytes = b""


Small = Generator[float, None, Answer]


def start_program(services: Services, entry: int) -> StubModel | None:
    """The twin, if our stub lies in RAM and starts at ``entry``; else None."""
    chip = services.chip
    if chip.id not in PACES or chip.id not in stub_chips():
        return None
    image = load_stub(chip.id)
    if entry != image.entry:
        return None
    own = chip.stub.own
    code = [
        (a, d) for a, d in image.segments if own is not None and own.code_start <= a < own.code_end
    ]
    if not code or not lies_in_ram(services, code):
        return None
    options = parse_stub_options(
        services.registers.ram.read(image.options_address or 0, OPTIONS.size + FIRST_BATCH)
    )
    if options.over_usb != services.usb:
        return None  # it talks where nobody listens: let the engine do so
    return StubModel(services, image, options)


class StubModel(CpuModel):
    """One run of the stub. ``sealed``: the host is ours; else a vendor's tool, which knows no CRCs."""

    sealed = True

    def __init__(self, services: Services, image: StubImage, options: StubOptions) -> None:
        chip = services.chip
        assert chip.stub.own is not None
        self._own, self._image, self._pace = chip.stub.own, image, PACES[chip.id]
        ring = Ring(RING_BYTES, QUEUE, _is_abort)
        self._options = options
        full = self._takes_full_clock()
        hz = self._own.cpu_hz if full else int(find_rom_hz(services))
        pace = self._pace
        self.seal_cycles = pace.crc_byte
        super().__init__(
            services, hz=hz, receive_cycles=pace.receive_byte, send_cycles=pace.send_byte, ring=ring
        )
        flash_hz = find_bus_hz(services, full=full) / services.spi.find_divider(
            self._options.spi_clock
        )
        self.memory = StubFlash(self, self.flash, pace, flash_hz)
        can = self._own.can_encrypt
        self.writer = Writer(self, self.memory, pace, self._trust, services.encrypt, can=can)
        self.reader = Reader(self, self.memory, pace, self._trust)
        self.ram = RamCommands(self, pace.sum_byte + pace.copy_byte, self.memory.wait)

    def _takes_full_clock(self) -> bool:
        told = self._options
        return not told.leave_clock and bool(
            told.baud or "clock_control" not in self._own.registers
        )

    # --- the program ---

    def main(self) -> Steps:
        """Start, say hello, serve for ever."""
        registers = self.services.registers
        registers.watchdogs.restart(self.now, running=False)
        registers.attached |= bool(self.services.chip.flash_attach)  # by the ROM, in hw_start
        self.owe(self._pace.start)
        yield from self.serve(self._pace.command, self._handle, self._greet())

    def _greet(self) -> Steps:
        """The batch that came with the image."""
        if self._options.batch:
            yield from self._batch(self._options.batch)

    def _handle(self, frame: bytes) -> Steps:
        op, size, trust = frame[1], len(frame) - HEADER.size, self._trust(frame)
        if not trust:
            if op not in (StubOp.WRITE_DATA, StubOp.READ_ACK):
                yield from self.reply(op, int.from_bytes(frame[4:8], "little"), status=BAD_CHECKSUM)
            return
        self.sealed = trust is Trust.SEALED
        if size not in LENGTHS.get(op, (size,)):
            yield from self.reply(op, status=BAD_LENGTH)
            return
        if op not in (StubOp.WRITE_DATA, Op.SPI_FLASH_MD5):
            self.writer.forget_hash()
        handler = HANDLERS.get(op)
        if handler is not None:
            yield from handler(self, frame, op)
        elif op not in (StubOp.READ_ACK, Op.RUN_USER_CODE):
            yield from self._small(frame, op)

    def _trust(self, frame: bytes) -> Trust:
        self.owe(len(frame) * self._pace.crc_byte)
        return find_trust(frame, sealed=self.sealed)

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
        self.writer.forget()
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
        elif op not in SMALL_LENGTHS and op != StubOp.BATCH:
            answer = Answer(UNKNOWN_COMMAND)
        yield from self.reply(op, answer.value, answer.data, answer.status)

    def _batch(self, body: bytes) -> Steps:
        at, out, status = 0, bytearray(), 0
        while at < len(body) and not status:
            size = (
                int.from_bytes(body[at + 2 : at + 4], "little")
                if at + 4 <= len(body)
                else len(body)
            )
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
        yield from self.reply(
            StubOp.BATCH, 0, bytes(out), BAD_LENGTH if at < len(body) and not status else 0
        )

    def _answer(self, op: int, body: bytes) -> Small:
        if op not in SMALL_LENGTHS:
            return Answer(UNKNOWN_COMMAND)
        expected = SMALL_LENGTHS[op]  # type: ignore[index]
        if expected is not None and len(body) != expected:
            return Answer(BAD_LENGTH)
        words = struct.unpack_from(f"<{len(body) // 4}I", body)
        match op:
            case Op.WRITE_REG:
                good = bool(body) and len(body) % 16 == 0
                return Answer((yield from self.ram.write_registers(words)) if good else BAD_LENGTH)
            case StubOp.SPI:
                return (yield from self._spi(body)) if len(body) >= 16 else Answer(BAD_LENGTH)
            case Op.READ_REG:
                return (
                    Answer(BAD_BLOCK)
                    if words[0] % 4
                    else Answer(value=(yield from self.ram.read_word(words[0])))
                )
            case Op.SPI_ATTACH:
                return Answer(NOT_IMPLEMENTED if words[0] else 0)
            case Op.SPI_SET_PARAMS:
                self.memory.size = words[1]
                return Answer()
            case Op.SPI_FLASH_MD5:
                if not self.memory.covers(words[0], words[1]):
                    return Answer(BAD_BLOCK)
                begun = yield from self.writer.take_hash(words[0], words[1])
                found = yield from self.reader.piece(
                    words[0], words[1], HashKind.MD5, begun=begun, to_the_end=True
                )
                return Answer(data=found or b"")
            case _:
                return Answer(value=stub.PROTOCOL_VERSION, data=self._capabilities())

    def _spi(self, body: bytes) -> Small:
        opcode, address, lengths, flags = struct.unpack_from("<IIII", body)
        address_bits, dummy, out, count = lengths.to_bytes(4, "little")
        fits = (
            len(body) == 16 + out and max(out, count, dummy) <= ANSWER_BYTES and address_bits <= 32
        )
        if not fits:
            return Answer(BAD_LENGTH)
        yield from self.memory.wait()
        yield from self.settle()
        if flags & stub.SPI_WRITE_ENABLE:
            self._transact(0x06, 0, 0, 0, b"", 0)
        data = self._transact(opcode & 0xFF, address, address_bits, dummy, body[16:], count)
        if flags & stub.SPI_WAIT:
            yield from self.memory.wait()
        return Answer(data=data)

    def _transact(
        self, opcode: int, address: int, address_bits: int, dummy: int, out: bytes, count: int
    ) -> bytes:
        """Through the controller's registers, as the stub does it."""
        spi, registers, t = self.services.chip.spi, self.services.registers, self.now
        self.owe(self._pace.transaction)

        def put(offset: int, value: int) -> None:
            registers.write(t, spi.base + offset, value)

        user = (registers.read(t, spi.base + spi.user_offset) or 0) & KEEP | 1 << 31
        user1 = max(0, dummy - 1) | (max(0, address_bits - 1) << 26)
        user |= bool(address_bits) << 30 | bool(dummy) << 29 | bool(count) << 28 | bool(out) << 27
        if address_bits:
            shifted = (
                address << (32 - address_bits) & ALL_BITS if spi.address_msb_aligned else address
            )
            put(spi.address_offset, shifted)
        if spi.mosi_length_offset is None or spi.miso_length_offset is None:
            user1 |= max(0, len(out) * 8 - 1) << 17 | max(0, count * 8 - 1) << 8
        else:
            put(spi.mosi_length_offset, max(0, len(out) * 8 - 1))
            put(spi.miso_length_offset, max(0, count * 8 - 1))
        for at in range(0, len(out), 4):
            put(spi.data_offset + at, int.from_bytes(out[at : at + 4], "little"))
        put(spi.user_offset, user)
        put(spi.user1_offset, user1)
        put(spi.user2_offset, EIGHT_BITS | opcode)
        put(spi.command_offset, START)
        words = (
            registers.read(t, spi.base + spi.data_offset + at) or 0 for at in range(0, count, 4)
        )
        return b"".join(value.to_bytes(4, "little") for value in words)[:count]

    def _capabilities(self) -> bytes:
        chip_id = self.services.chip.identity.image_chip_id
        return Capabilities(
            features=FEATURES | (Feature.ENCRYPT if self._own.can_encrypt else Feature(0)),
            frame_payload=PAYLOAD,
            write_window=WINDOW,
            read_packet=PACKET,
            read_window=READ_WINDOW,
            cpu_hz=self._own.cpu_hz,
            batch_bytes=BATCH_BYTES,
            image_chip_id=NO_CHIP_ID if chip_id is None else chip_id,
            build=self._image.build,
        ).pack()


def find_rom_hz(services: Services) -> float:
    """The CPU's clock as the ROM leaves it."""
    return services.config.crystal_mhz * 1e6 * services.chip.crystal.clock_multiple


def find_bus_hz(services: Services, *, full: bool) -> float:
    """The clock of the peripherals: of the PLL, where the stub has changed to it."""
    tree = services.chip.soc.clock if services.chip.soc is not None else None
    return (
        tree.bus_mhz * 1e6
        if full and tree is not None and tree.select is not None
        else find_rom_hz(services)
    )


def _is_abort(frame: bytes) -> bool:
    return len(frame) == HEADER.size + 4 and frame[1] == StubOp.ABORT and is_sealed(frame)


def _late(twin: StubModel, frame: bytes, op: int) -> Steps:
    return twin.writer.late(frame, op)


def _begin(twin: StubModel, frame: bytes, op: int) -> Steps:
    return twin.writer.begin(frame, op)


Handler = Callable[[StubModel, bytes, int], Steps]
HANDLERS: dict[int, Handler] = {
    Op.SYNC: StubModel.answer_sync,
    StubOp.WRITE_OPEN: lambda twin, frame, op: twin.writer.open(frame),
    **dict.fromkeys((StubOp.WRITE_DATA, Op.FLASH_DATA, Op.FLASH_DEFL_DATA), _late),
    **dict.fromkeys((Op.FLASH_BEGIN, Op.FLASH_DEFL_BEGIN), _begin),
    **dict.fromkeys((Op.FLASH_END, Op.FLASH_DEFL_END), StubModel._end),
    StubOp.READ_OPEN: lambda twin, frame, op: twin.reader.open(frame),
    Op.READ_FLASH: lambda twin, frame, op: twin.reader.read(frame),
    StubOp.HASH: lambda twin, frame, op: twin.reader.hash(frame),
    Op.MEM_BEGIN: lambda twin, frame, op: twin.ram.begin(frame),
    Op.MEM_DATA: lambda twin, frame, op: twin.ram.data(frame),
    Op.MEM_END: lambda twin, frame, op: twin.ram.end(frame),
    Op.CHANGE_BAUDRATE: StubModel.change_baud,
    **dict.fromkeys((Op.ERASE_FLASH, Op.ERASE_REGION), StubModel._erase),
    StubOp.ABORT: StubModel._abort,
    StubOp.RESET: StubModel._restart,
}  # fmt: skip
