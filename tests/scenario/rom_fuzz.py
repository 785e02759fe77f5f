"""Sends the same bytes to the model of a ROM loader and to the ROM's own code, and finds the first difference.

A sequence is made from a seed: commands of every kind, valid and damaged, noise, pauses and changes of the baud rate, as
a list of steps that can be read. Compared are the replies to each step, and at its end the flash, the RAM at the addresses that were
written, and whether the loader still answers a SYNC. Times and texts are not compared.

The ROM is started once. Before each sequence it is put back to where it answered its first SYNC (``Snapshot``).

One sequence again: ``python -m tests.scenario.rom_fuzz esp32c3 SEED``. It prints the difference and the steps that it
takes; with numbers behind the seed, only these steps are played.
"""

from __future__ import annotations

import random
import struct
import sys
import zlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass, replace
from enum import Enum
from functools import partial
from pathlib import Path
from types import CellType, FunctionType, MethodType
from typing import NamedTuple

from tests.roms import find_rom_folder

from espwire.chips.model import Chip
from espwire.chips.registry import load_chip
from espwire.protocol import slip
from espwire.protocol.commands import (
    HEADER,
    ChangeBaudrate,
    Command,
    FlashBegin,
    FlashData,
    FlashDeflBegin,
    FlashDeflData,
    FlashDeflEnd,
    FlashEnd,
    GetSecurityInfo,
    MemBegin,
    MemData,
    MemEnd,
    ReadFlashSlow,
    ReadReg,
    RegWrite,
    Reply,
    SpiAttach,
    SpiFlashMd5,
    SpiSetParams,
    Sync,
    WriteReg,
    parse_reply,
)
from espwire.protocol.opcodes import Op
from espwire.record import Record
from espwire.virtual.chip import VirtualChip
from espwire.virtual.rom import BAD_ADLER, BAD_DEFLATE
from espwire.virtual.soc.mask_rom import find_images, load_mask_roms
from espwire.virtual.transport import open_virtual

BAUD = 460_800
BOOT_S, SYNCS = 0.5, 3
FLASH = 4 << 20
PATTERN_AT, PATTERN = 0x4000, bytes(range(1, 256)) * 64  # contents of the flash before a sequence
LONGEST_REPLY_S, QUIET_S, SILENT_S, IDLE_S = 0.5, 0.0015, 0.02, 0.002
RAM_SIZE = 0x1000
HALF_KNOWN = {("esp32s3", 0x15)}  # refused with this opcode in the reply, not with the last one
STATUS_BYTES = 4  # of all ROMs that unpack
SECURITY_INFO_WITH_REVISION = 20  # bytes
SYNC_FRAME = slip.encode(Sync().packet())
RATES = (115_200, 230_400, 460_800, 921_600)


class Step(NamedTuple):
    """Bytes to send, then a pause in seconds; ``rate``: the host's baud rate from now on."""

    text: str
    data: bytes = b""
    pause: float = 0.0
    rate: int | None = None
    writes: tuple[int, int] | None = None  # RAM that it changes: address and size

    def __str__(self) -> str:
        size = f", {len(self.data)} bytes" if self.data else ""
        return f"{self.text}{size}"


class Difference(NamedTuple):
    """Where model and ROM differ first. ``step`` -1: at the end of the sequence."""

    seed: int
    step: int
    what: str

    def __str__(self) -> str:
        return f"seed {self.seed}, step {self.step}: {self.what}"


# --- sequences ---


@dataclass
class Transfer:
    """What the maker of a sequence remembers of a BEGIN."""

    op: Op
    block: int
    sequence: int = 0


class Maker:
    """Makes the steps of one sequence for a chip."""

    def __init__(self, chip: Chip, seed: int) -> None:
        self.chip, self.rng = chip, random.Random(seed * 1_000_003 + 7)
        self.dialect = chip.rom
        self.ram = find_scratch(chip)
        self.mac = chip.mac.low_word or self.ram
        self.kinds = [
            (kind, weight)
            for ops, kind, weight in KINDS
            if not ops or all(op in chip.rom.ops for op in ops)
        ]

    def make(self) -> list[Step]:
        rng = self.rng
        steps: list[Step] = []
        if rng.random() < 0.7 and self.dialect.attach_bytes:
            steps.append(self.step(SpiSetParams(0, FLASH)))
        while len(steps) < 10:
            (kind,) = rng.choices(
                [kind for kind, _ in self.kinds], [weight for _, weight in self.kinds]
            )
            steps += kind(self)
        if rng.random() < 0.15:
            steps.append(self.leave())
        return steps

    def step(self, command: Command, note: str = "", **changes: object) -> Step:
        """A valid command; once in a while its packet is damaged."""
        return self.packet(str(command) + note, command.packet())

    def packet(self, text: str, packet: bytes) -> Step:
        return Step(text, slip.encode(packet))

    def maybe_damaged(self, command: Command, often: float = 0.2) -> Step:
        if self.rng.random() >= often:
            return self.step(command)
        damage = self.rng.choice(DAMAGES)
        text, data = damage(self, command.packet())
        return Step(f"{command}, {text}", data)

    def first_steps(self) -> list[Step]:
        """What a sequence can rely on: the flash is attached, and a BEGIN of each kind was received."""
        rom = self.dialect
        extra = 0 if rom.begin_words == 5 else None
        steps = [self.step(MemBegin(0, 0, 0, self.ram))]
        if rom.attach_bytes:
            steps.append(self.step(SpiAttach(0, 0)))
        if Op.FLASH_DEFL_BEGIN in rom.ops:
            steps.append(self.step(FlashDeflBegin(0, 0, 0, 0, extra)))
        return [*steps, self.step(FlashBegin(0, 0, 0, 0, extra))]

    # --- kinds of steps ---

    def sync(self) -> list[Step]:
        return [self.maybe_damaged(Sync())]

    def registers(self) -> list[Step]:
        rng, ram = self.rng, self.ram
        address = ram + 4 * rng.randrange(RAM_SIZE // 8)
        choice = rng.random()
        if choice < 0.35:
            known = [self.mac, address]
            if len(self.chip.identity.magic_values) == 1:
                known.append(self.chip.identity.magic_address)
            return [self.maybe_damaged(ReadReg(rng.choice(known)))]
        groups = tuple(
            RegWrite(
                address + 4 * number,
                rng.getrandbits(32),
                rng.choice((0xFFFFFFFF, 0xFF, 0xFFFF0000, 0, rng.getrandbits(32))),
                rng.choice((0, 0, 0, 10, 700)),
            )
            for number in range(rng.choice((1, 1, 1, 2, 3)))
        )
        step = self.maybe_damaged(WriteReg(groups))
        return [step._replace(writes=(address, 4 * len(groups)))]

    def upload(self) -> list[Step]:
        rng = self.rng
        block = rng.choice((4, 16, 64, 100, 256))
        count = rng.randrange(1, 4)
        address = self.ram + 4 * rng.randrange(RAM_SIZE // 16)
        steps = [self.maybe_damaged(MemBegin(block * count, count, block, address), 0.1)]
        steps += self.blocks(MemData, block, count, whole=rng.random() < 0.8)
        steps = [step._replace(writes=(address, block * count)) for step in steps]
        if rng.random() < 0.4:
            steps.append(self.maybe_damaged(MemEnd(1, rng.choice((0, address))), 0.1))
        if rng.random() < 0.5:
            steps.append(self.step(ReadReg(address)))
        return steps

    def blocks(
        self, kind: type[MemData | FlashData], size: int, count: int, *, whole: bool
    ) -> list[Step]:
        """Data commands, some with a wrong number, size or checksum."""
        rng, steps, sequence = self.rng, [], 0
        for _ in range(count + rng.choice((0, 0, 0, 1))):
            length = size if whole else rng.choice((size, size // 2, size - 1, 0, 3, size + 4))
            data = rng.randbytes(max(0, length))
            choice = rng.random()
            if choice < 0.06:
                steps.append(
                    self.step(kind(sequence + rng.choice((1, 2, -sequence, 0xFFFFFF00)), data))
                )
            elif choice < 0.12:
                packet = bytearray(kind(sequence, data).packet())
                packet[4 + rng.choice((0, 0, 1, 3))] ^= 1 << rng.randrange(8)
                steps.append(self.packet(f"{kind(sequence, data)}, wrong checksum", bytes(packet)))
                sequence += rng.choice((0, 1))
            elif choice < 0.18:
                steps.append(self.maybe_damaged(kind(sequence, data), 1))
            else:
                steps.append(self.step(kind(sequence, data)))
                sequence += 1
        return steps

    def address(self) -> int:
        rng = self.rng
        return rng.choice(
            (PATTERN_AT, 0x10000, 0x1000 * rng.randrange(64), 0x10000, 0x30000)
        ) + rng.choice((0, 0, 0, 0, 0x100, 4, 2, 0x7FC))

    def begin(
        self, kind: type[FlashBegin | FlashDeflBegin], size: int, blocks: int, block: int
    ) -> Step:
        rng = self.rng
        offset = 0x1000 * rng.randrange(4, 64)
        if rng.random() < 0.08:
            offset = rng.choice((self.address(), FLASH - 0x1000, 2 << 20, FLASH, 0xFFFFF000))
        words = self.dialect.begin_words
        extra = 0 if (words == 5) is (rng.random() < 0.95) else None
        return self.maybe_damaged(kind(size, blocks, block, offset, extra), 0.06)

    def write(self) -> list[Step]:
        rng = self.rng
        block = rng.choice((0x100, 0x400, 0x400, 0x40, 0x204))
        count = rng.randrange(1, 4)
        size = rng.choice((block * count, block * count, 0x1000, 0, 0x2000, 0x10400))
        steps = [self.begin(FlashBegin, size, count, block)]
        steps += self.blocks(FlashData, block, count, whole=rng.random() < 0.75)
        return steps

    def inflate(self) -> list[Step]:
        rng = self.rng
        size = rng.choice((16, 100, 0x400, 0x1000, 0x3001, 0x9000))
        plain = rng.choice((bytes(size), rng.randbytes(size % 0x900), PATTERN[: size // 2] * 2))
        packed = zlib.compress(plain, rng.choice((0, 1, 9)))
        block = rng.choice((0x100, 0x400, 0x1000))
        packed = packed[: 4 * block]
        pieces = [packed[at : at + block] for at in range(0, len(packed), block)]
        steps = [
            self.begin(
                FlashDeflBegin, len(plain), len(pieces) + rng.choice((0, 0, 0, 1, -1)), block
            )
        ]
        for count, piece in enumerate(pieces):
            choice, data = rng.random(), bytearray(piece)
            if choice < 0.06:
                data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            elif choice < 0.1:
                del data[rng.randrange(len(data)) :]
            number = count + (rng.random() < 0.03)
            steps.append(self.maybe_damaged(FlashDeflData(number, bytes(data)), 0.04))
        return steps

    def read(self) -> list[Step]:
        rng = self.rng
        size = rng.choice((64, 64, 16, 4, 1, 5, 0, 63, 65, 256))
        at = rng.choice((self.address(), self.address(), FLASH - 32, FLASH, 0xFFFFFFF0))
        return [self.maybe_damaged(ReadFlashSlow(at, size))]

    def md5(self) -> list[Step]:
        rng = self.rng
        size = rng.choice((16, 1, 0, 1000, 0x401, 130, 0x80, 0x80000001))
        at = rng.choice((self.address(), self.address(), FLASH - 16, FLASH + 16))
        return [self.maybe_damaged(SpiFlashMd5(at, size))]

    def configure(self) -> list[Step]:
        rng = self.rng
        if rng.random() < 0.4:
            return [self.maybe_damaged(SpiAttach(0, rng.choice((0, 0, 1))))]
        total = rng.choice((FLASH, FLASH, 2 << 20, 0x11000, 0))
        return [self.maybe_damaged(SpiSetParams(rng.choice((0, 0x164020)), total))]

    def security(self) -> list[Step]:
        return [self.maybe_damaged(GetSecurityInfo())]

    def unknown(self) -> list[Step]:
        rng = self.rng
        op = rng.choice(
            (0, 1, 0x0C, 0x15, 0x1F, 0x55, 0x80, 0xD0, 0xD3, 0xFF, rng.randrange(0x20, 256))
        )
        if (self.chip.id, op) in HALF_KNOWN:
            op = 0x0C
        body = rng.randbytes(rng.choice((0, 4, 16, 100)))
        packet = HEADER.pack(0, op, len(body), 0) + body
        return [self.packet(f"unknown opcode {op:#04x}", packet)]

    def no_request(self) -> list[Step]:
        rng = self.rng
        packet = rng.choice((b"\1\x08\0\0\0\0\0\0", b"\0", b"\1", b"\xff" * 9, rng.randbytes(20)))
        if packet[0] == 0:
            packet = packet[:1]
        return [self.packet(f"frame {packet.hex()}", packet)]

    def noise(self) -> list[Step]:
        rng = self.rng
        data = rng.choice(
            (
                rng.randbytes(rng.randrange(1, 30)).replace(slip.END, b"x"),
                slip.END * rng.randrange(1, 4),
                b"\r\n",
                b"AT\r\n",
                slip.ESC,
                slip.ESC + slip.END,
                slip.END + slip.END + slip.ESC + b"\x31",
            )
        )
        return [Step(f"noise {data.hex()}", data)]

    def truncated(self) -> list[Step]:
        rng = self.rng
        command = rng.choice((Sync(), ReadReg(self.ram), GetSecurityInfo(), SpiAttach(0, 0)))
        data = slip.encode(command.packet())
        cut = rng.randrange(1, len(data))
        steps = [Step(f"{command}, cut after {cut} bytes", data[:cut])]
        if rng.random() < 0.5:
            steps.append(Step("pause", pause=0.01))
        return steps

    def together(self) -> list[Step]:
        """Several short requests in one piece, for ROMs that buffer them."""
        rng = self.rng
        if self.dialect.requests_ahead == 1:
            return self.sync()
        commands = [
            rng.choice((ReadReg(self.ram), SpiAttach(0, 0), ReadReg(self.mac)))
            for _ in range(rng.randrange(2, 4))
        ]
        data = b"".join(slip.encode(command.packet()) for command in commands)
        return [Step("together: " + ", ".join(map(str, commands)), data)]

    def baud(self) -> list[Step]:
        rate = self.rng.choice(RATES)
        return [
            self.step(ChangeBaudrate(rate, 0)),
            Step(f"host at {rate} Bd", rate=rate, pause=0.001),
        ]

    def long_frame(self) -> list[Step]:
        rng = self.rng
        size = rng.choice((0x400, 0x1810, 0x2100))
        data = ReadReg(self.ram).packet() + rng.randbytes(size)
        return [self.packet(f"READ_REG with {size} bytes too many", data)]

    def leave(self) -> Step:
        stay = self.rng.choice((0, 0, 1, 0x100))
        kinds = [FlashEnd, FlashDeflEnd] if Op.FLASH_DEFL_END in self.dialect.ops else [FlashEnd]
        return self.maybe_damaged(self.rng.choice(kinds)(stay), 0.1)


KINDS: tuple[tuple[tuple[Op, ...], Callable[[Maker], list[Step]], float], ...] = (
    ((), Maker.sync, 1),
    ((), Maker.registers, 4),
    ((), Maker.upload, 2),
    ((), Maker.write, 4),
    ((Op.FLASH_DEFL_BEGIN,), Maker.inflate, 3),
    ((Op.READ_FLASH_SLOW,), Maker.read, 2),
    ((Op.SPI_FLASH_MD5,), Maker.md5, 2),
    ((Op.SPI_ATTACH,), Maker.configure, 1),
    ((), Maker.security, 1),
    ((), Maker.unknown, 1),
    ((), Maker.no_request, 1),
    ((), Maker.noise, 1),
    ((), Maker.truncated, 1),
    ((), Maker.together, 1),
    ((), Maker.long_frame, 0.2),
    ((Op.CHANGE_BAUDRATE,), Maker.baud, 0.7),
)


def _flip(maker: Maker, packet: bytes) -> tuple[str, bytes]:
    """Flip a bit where it cannot change an address that the loader accesses: in header, checksum and sequence."""
    at = maker.rng.choice((0, 2, 2, 3, 4, 5, 6, 7))
    bit = maker.rng.randrange(8)
    damaged = bytearray(packet)
    damaged[at] ^= 1 << bit
    return f"bit {bit} of byte {at} flipped", slip.encode(bytes(damaged))


def _declare(maker: Maker, packet: bytes) -> tuple[str, bytes]:
    size = len(packet) - HEADER.size
    wrong = (
        maker.rng.choice((0, size - 4, size + 4, size + 1, 4, 16, 0x1810, 0x1811, 0xFFFF)) & 0xFFFF
    )
    return f"declared size {wrong}", slip.encode(packet[:2] + struct.pack("<H", wrong) + packet[4:])


def _append(maker: Maker, packet: bytes) -> tuple[str, bytes]:
    more = maker.rng.randbytes(maker.rng.randrange(1, 40))
    return f"{len(more)} bytes too many", slip.encode(packet + more)


# addresses, sizes, or the encrypted flag could become anything
NOT_TRUNCATED = (Op.WRITE_REG, Op.MEM_BEGIN, Op.SPI_SET_PARAMS, Op.FLASH_BEGIN, Op.SPI_FLASH_MD5)


def _truncate(maker: Maker, packet: bytes) -> tuple[str, bytes]:
    if packet[1] in NOT_TRUNCATED:
        return _append(maker, packet)
    size = maker.rng.randrange(1, len(packet))
    return f"only {size} bytes of {len(packet)}", slip.encode(packet[:size])


def _lose_end(maker: Maker, packet: bytes) -> tuple[str, bytes]:
    data = slip.encode(packet)
    return maker.rng.choice((("no END before it", data[1:]), ("no END after it", data[:-1])))


def _escape(maker: Maker, packet: bytes) -> tuple[str, bytes]:
    data = bytearray(slip.encode(packet))
    at = maker.rng.randrange(1, len(data) - 1)
    if packet[1] in (Op.WRITE_REG, Op.READ_REG, Op.MEM_BEGIN) and at < 14:
        at = 2
    data.insert(at, slip.ESC[0])
    return f"ESC inserted at {at}", bytes(data)


DAMAGES: tuple[Callable[[Maker, bytes], tuple[str, bytes]], ...] = (
    _flip,
    _declare,
    _declare,
    _append,
    _truncate,
    _lose_end,
    _escape,
)


def find_scratch(chip: Chip) -> int:
    """RAM that no loader uses: where stubs have their data."""
    own = chip.stub.own
    if own is not None:  # the ESP32's ROM clears 0x3FFD2000 to 0x3FFDC000 when it leaves the loader
        return own.data_end - 15 * RAM_SIZE
    return int(chip.stub.reference_layouts[0]["data_start"]) & ~0xFFF


# --- both chips ---


class Snapshot:
    """The state of everything that can be reached from an object, to be restored in place.

    Objects keep their identity, since functions and machine code that was translated hold references. Records, which
    never change, and the engine's translated blocks, which depend on the ROM only, are left out.
    """

    def __init__(self, root: object) -> None:
        self._undo: list[Callable[[], None]] = []
        self._seen: set[int] = set()
        self._kept: list[object] = []
        todo = [root]
        while todo:
            item = todo.pop()
            if id(item) not in self._seen:
                self._seen.add(id(item))
                self._kept.append(item)
                todo += self._save(item)

    def restore(self) -> None:
        """Put everything back."""
        for undo in self._undo:
            undo()

    def _save(self, item: object) -> list[object]:
        match item:
            case bytearray():
                self._undo.append(partial(_refill, item, bytes(item)))
                return []
            case memoryview():
                return [item.obj]
            case dict():
                self._undo.append(partial(_set_items, item, dict(item)))
                return [*item.keys(), *item.values()]
            case list() | deque():
                self._undo.append(partial(_set_list, item, list(item)))
                return list(item)
            case set():
                self._undo.append(partial(_set_set, item, set(item)))
                return list(item)
            case tuple() | frozenset():
                return list(item)
            case MethodType():
                return [item.__self__, item.__func__]
            case partial():
                return [item.func, *item.args, *item.keywords.values()]
            case FunctionType():
                return list(item.__closure__ or ())
            case CellType():
                self._undo.append(partial(setattr, item, "cell_contents", item.cell_contents))
                return [item.cell_contents]
        return self._save_object(item)

    def _save_object(self, item: object) -> list[object]:
        if not type(item).__module__.startswith("espwire.virtual") or isinstance(
            item, Record | Enum
        ):
            return []
        names = [*getattr(item, "__dict__", ()), *getattr(type(item), "__slots__", ())]
        values = {name: getattr(item, name) for name in names if name != "_blocks"}
        if not (is_dataclass(item) and item.__dataclass_params__.frozen):  # type: ignore[attr-defined]
            self._undo.append(partial(_set_attributes, item, values))
        return list(values.values())


def _refill(item: bytearray, contents: bytes) -> None:
    if item != contents:
        item[:] = contents


def _set_items(item: dict[object, object], contents: dict[object, object]) -> None:
    item.clear()
    item.update(contents)


def _set_list(item: list[object] | deque[object], contents: list[object]) -> None:
    item.clear()
    item.extend(contents)


def _set_set(item: set[object], contents: set[object]) -> None:
    item.clear()
    item.update(contents)


def _set_attributes(item: object, values: dict[str, object]) -> None:
    for name, value in values.items():
        setattr(item, name, value)


class Player:
    """A virtual chip whose loader is ready, and that can go back to that moment.

    It has answered a SYNC and ``first``: commands before which the ROM uses what its RAM held by chance.
    """

    def __init__(
        self,
        url: str,
        first: Sequence[Step],
        prepare: Callable[[VirtualChip], None] = lambda chip: None,
    ) -> None:
        self.transport = open_virtual(url)
        chip = self.transport.chip
        prepare(chip)
        chip.flash.contents[PATTERN_AT : PATTERN_AT + len(PATTERN)] = PATTERN
        self.transport.sleep(BOOT_S)
        self.transport.discard_input()
        sync = Step("SYNC", SYNC_FRAME, rate=BAUD)
        assert any(self.play(sync, least=1) for _ in range(SYNCS)), "no answer to SYNC"
        for step in (sync, *first):  # the first answer comes from another part of the ROM
            assert self.play(step, least=1), f"no answer to {step}"
        self._snapshot = Snapshot(self.transport)

    def restart(self) -> None:
        """Go back to the first SYNC."""
        self._snapshot.restore()

    def send(self, data: bytes) -> None:
        self.transport.write(data, self.transport.now() + 100)
        self.transport.drain()

    def read(self, first: float, quiet: float = QUIET_S, least: int = 1) -> bytes:
        """What arrives: at most ``first`` seconds until there are ``least`` bytes, then until it is quiet."""
        out = b""
        while data := self.transport.read(first if len(out) < least else quiet):
            out += data
        return out

    def play(self, step: Step, *, least: int | None = None) -> list[Reply]:
        """Do one step; returns the replies. ``least``: how many bytes are expected; None: wait for all that come."""
        if step.rate is not None:
            self.transport.set_baud(step.rate)
        if step.data:
            self.send(step.data)
        if step.pause:
            self.transport.sleep(step.pause)
        if least is None:
            self.output = self.read(LONGEST_REPLY_S, LONGEST_REPLY_S)
        else:
            self.output = self.read(LONGEST_REPLY_S if least else SILENT_S, least=least)
        frames = slip.Decoder().feed(self.output)
        return [reply for frame in frames if (reply := parse_reply(frame)) is not None]

    def sync(self) -> list[Reply]:
        """The replies to a SYNC once one has been answered: after a restart, the ROM measures the baud rate with the
        first, and may answer the next with a part of it."""
        step = Step("SYNC", SYNC_FRAME)
        return (
            self.play(step, least=8) if any(self.play(step, least=8) for _ in range(SYNCS)) else []
        )

    def ram(self, start: int, size: int) -> bytes:
        return self.transport.chip.registers.ram.read(start, size)

    @property
    def flash(self) -> bytes:
        return bytes(self.transport.chip.flash.contents)


class Pair:
    """The model and the ROM of a chip."""

    def __init__(self, chip: str, rom: Path) -> None:
        self.chip = load_chip(chip)
        options = f"profile=instant&size={FLASH >> 20}MB&latency=0.0001"
        if self.chip.flash_power_on is not None:
            options += "&revision=1.0"  # a revision whose flash has power from the start
        first = Maker(self.chip, 0).first_steps()
        self.rom = Player(f"virtual:{chip}?rom={rom}&{options}", first)
        self.model = Player(f"virtual:{chip}?{options}", first, self._adopt_revision)

    def close(self) -> None:
        """Close both."""
        self.model.transport.close()
        self.rom.transport.close()

    def _adopt_revision(self, model: VirtualChip) -> None:
        """Give the model the revision that the ROM reports, which is a constant in it."""
        info = model.rom.security_info
        if len(info) == SECURITY_INFO_WITH_REVISION:
            (reply,) = self.rom.play(Step("", slip.encode(GetSecurityInfo().packet())), least=1)
            model.rom.security_info = info[:-4] + reply.body[len(info) - 4 : len(info)]

    def make(self, seed: int) -> list[Step]:
        """The steps of a sequence."""
        return Maker(self.chip, seed).make()

    def compare(self, seed: int, steps: Sequence[Step] | None = None) -> Difference | None:
        """Play a sequence on both; the first difference, or None."""
        steps = self.make(seed) if steps is None else steps
        self.model.restart()
        self.rom.restart()
        for number, step in enumerate(steps):
            wanted = self.model.play(step)
            replies = self.rom.play(step, least=len(self.model.output))
            if [level(reply) for reply in replies] != [level(reply) for reply in wanted]:
                what = f"{step}: {describe(wanted, replies)}"
                return Difference(seed, number, what)
        return self._compare_end(seed, steps)

    def _compare_end(self, seed: int, steps: Sequence[Step]) -> Difference | None:
        wanted, replies = self.model.sync(), self.rom.sync()
        if replies != wanted:
            return Difference(seed, -1, f"SYNC: {describe(wanted, replies)}")
        for step in steps:
            if step.writes is not None and self.model.ram(*step.writes) != self.rom.ram(
                *step.writes
            ):
                start, size = step.writes
                return Difference(seed, -1, f"RAM at {start:#x}, {size} bytes, after {step}")
        one, other = self.model.flash, self.rom.flash
        if one != other:
            at = next(at for at in range(len(one)) if one[at] != other[at])
            end = next(at for at in reversed(range(len(one))) if one[at] != other[at]) + 1
            text = f"model {one[at : at + 16].hex()}, ROM {other[at : at + 16].hex()}"
            return Difference(seed, -1, f"flash from {at:#x} to {end:#x}: {text}")
        return None

    def minimize(self, difference: Difference) -> tuple[Difference, list[int]]:
        """Leave out steps as long as there is a difference; returns it and the numbers of the steps."""
        steps = self.make(difference.seed)
        kept = list(range(len(steps)))
        for number in reversed(range(len(steps))):
            fewer = [at for at in kept if at != number]
            found = self.compare(difference.seed, [steps[at] for at in fewer])
            if found is not None:
                kept, difference = fewer, found
        return difference, kept


def level(reply: Reply) -> Reply:
    """The reply, with one error code for all kinds of damaged compressed data.

    The ESP32's ROM leaves the code in the replies after that one, also where they report success.
    """
    status = reply.body[-STATUS_BYTES:]
    if status[1:2] != bytes((BAD_ADLER,)):
        return reply
    code = status[:1] + bytes((BAD_DEFLATE,)) + status[2:]
    return replace(reply, body=reply.body[:-STATUS_BYTES] + code)


def describe(wanted: Sequence[Reply], replies: Sequence[Reply]) -> str:
    return f"model {show(wanted)}, ROM {show(replies)}"


def show(replies: Sequence[Reply]) -> str:
    texts = [f"{reply.op:02x} {reply.value:08x} {reply.body.hex()}" for reply in replies]
    first = texts[0] if texts else "nothing"
    return (
        f"{len(texts)} × {first}"
        if len(texts) > 1 and len(set(texts)) == 1
        else "; ".join(texts) or first
    )


def find_roms() -> dict[str, Path]:
    """The images of ROMs that can be run here, by chip."""
    folder = find_rom_folder()
    known = {chip: facts.images[0] for chip, facts in load_mask_roms().items()}
    found = find_images(folder, known.values()) if folder.is_dir() else {}
    return {chip: found[image.sha256][0] for chip, image in known.items() if image.sha256 in found}


def main(chip: str, seed: str, *numbers: str) -> int:
    pair = Pair(chip, find_roms()[chip])
    steps = pair.make(int(seed))
    kept = [int(number) for number in numbers] or list(range(len(steps)))
    difference = pair.compare(int(seed), [steps[number] for number in kept])
    if difference is not None and not numbers:
        difference, kept = pair.minimize(difference)
    for number in kept:
        print(f"{number:3} {steps[number]}")
    print(difference or "no difference")
    return int(difference is not None)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
