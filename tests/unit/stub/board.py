"""The minimum of a chip that a stub needs: UART without bit times, SPI controller, NOR flash. Full model: virtual/soc."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from tests.stub_drivers.frames import opened, sent

from espwire.chips.model import Chip
from espwire.protocol import slip
from espwire.virtual.cpu.engine import Engine
from espwire.virtual.cpu.memory import Memory, Region
from espwire.virtual.cpu.riscv import RiscV
from espwire.virtual.cpu.xtensa import Xtensa
from espwire.virtual.registers import require_soc

START, READ_STATUS, WRITE_ENABLE = 1 << 18, 1 << 27, 1 << 30
BUSY_POLLS = 3  # status reads until an operation is over
IDLE_POLLS = (
    300  # of an empty receiver in a row, without flash access in between: the stub is waiting
)


class Nor:
    """A flash of 4 MiB that records operations which would damage data on a real flash."""

    def __init__(self, size: int = 4 << 20) -> None:
        self.memory = bytearray(b"\xff" * size)
        self.enabled = False
        self.busy = 0
        self.complaints: list[str] = []
        self.erased: list[tuple[int, int]] = []

    def transact(self, opcode: int, address: int, out: bytes, count: int) -> bytes:
        if opcode == 0x05:
            self.busy = max(0, self.busy - 1)
            return bytes([(self.busy > 0) | self.enabled << 1]) * count
        if self.busy:
            self.complaints.append(f"{opcode:#x} while busy")
        if opcode == 0x9F:
            return b"\xef\x40\x16"[:count]
        if opcode == 0x06:
            self.enabled = True
        elif opcode in (0x0B, 0x0C):
            return bytes(self.memory[address : address + count])
        elif opcode in (0x02, 0x12):
            self._change(f"program {address:#x}")
            for i, byte in enumerate(out):
                place = address & ~255 | address + i & 255
                if byte & ~self.memory[place]:
                    self.complaints.append(f"program 0 to 1 at {place:#x}")
                self.memory[place] &= byte
        elif size := {
            0x20: 0x1000,
            0x21: 0x1000,
            0xD8: 0x10000,
            0xDC: 0x10000,
            0xC7: len(self.memory),
        }.get(opcode):
            self._change(f"erase {address:#x}")
            start = address & ~(size - 1)
            self.memory[start : start + size] = b"\xff" * size
            self.erased.append((start, size))
        else:
            self.complaints.append(f"opcode {opcode:#x}")
        return bytes(count)

    def _change(self, what: str) -> None:
        if not self.enabled:
            self.complaints.append(f"{what} without write enable")
        self.enabled, self.busy = False, BUSY_POLLS


@dataclass
class Board:
    """A Bus: UART and SPI by the chip's data; every other register keeps the written value."""

    chip: Chip
    nor: Nor = field(default_factory=Nor)
    registers: dict[int, int] = field(default_factory=dict)
    incoming: deque[int] = field(default_factory=deque)
    outgoing: bytearray = field(default_factory=bytearray)
    sent: int = 0  # bytes
    idle: int = 0
    engine: Engine | None = None

    def __post_init__(self) -> None:
        own = self.chip.stub.own
        self.uart = self.chip.uart.clock_divider_address - 0x14
        self.transmit = (own and own.uart_transmit) or self.uart

    def read(self, address: int) -> int:
        if address == self.uart + 0x1C:
            self.idle = 0 if self.incoming else self.idle + 1
            if self.idle > IDLE_POLLS and self.engine:
                self.engine.stop()
            return min(len(self.incoming), 100)
        if address == self.uart:
            return self.incoming.popleft()
        return self.registers.get(address, 0)

    def write(self, address: int, value: int) -> None:
        spi = self.chip.spi
        if address == self.transmit:
            self.outgoing.append(value & 0xFF)
            self.sent += 1
            return
        if address == self.chip.uart.update_address:
            return  # carried out at once
        update = require_soc(self.chip).clock.update
        if update is not None and address == update.address:
            value &= ~(1 << update.bit)
        self.registers[address] = value
        if address == spi.base + spi.command_offset:
            self._run_command(value)

    def _run_command(self, value: int) -> None:
        """A transaction by the USER registers, or a command that the controller makes by itself."""
        spi = self.chip.spi
        self.idle = 0  # the stub is working
        if value & START:
            self._transact()
        elif value & READ_STATUS:
            (status,) = self.nor.transact(0x05, 0, b"", 1)
            self.registers[spi.base + spi.status_offset] = status
        elif value & WRITE_ENABLE:
            self.nor.transact(0x06, 0, b"", 0)
        self.registers[spi.base + spi.command_offset] = 0

    def _transact(self) -> None:
        spi = self.chip.spi

        def read(offset: int) -> int:
            return self.read(spi.base + offset)

        user, user1, user2 = read(spi.user_offset), read(spi.user1_offset), read(spi.user2_offset)
        assert user >> 31
        assert user2 >> 28 == 7
        out_bits, in_bits = user1 >> 17 & 0x1FF, user1 >> 8 & 0x1FF
        if spi.mosi_length_offset is not None and spi.miso_length_offset is not None:
            out_bits, in_bits = read(spi.mosi_length_offset), read(spi.miso_length_offset)
        address, bits = read(spi.address_offset), (user1 >> 26) + 1
        if spi.address_msb_aligned:
            address >>= 32 - bits
        words = [read(spi.data_offset + 4 * i) for i in range(16)]
        out = b"".join(word.to_bytes(4, "little") for word in words)
        found = self.nor.transact(
            user2 & 0xFF,
            address if user >> 30 & 1 else 0,
            out[: (out_bits + 1) // 8] if user >> 27 & 1 else b"",
            (in_bits + 1) // 8 if user >> 28 & 1 else 0,
        )
        found += bytes(-len(found) % 4)
        for i in range(0, len(found), 4):
            self.registers[spi.base + spi.data_offset + i] = int.from_bytes(
                found[i : i + 4], "little"
            )


class Bench:
    """A stub on an engine, and the host's end of its wire, which seals frames while ``sealed``."""

    sealed = True

    def __init__(self, chip: Chip, entry: int, segments: tuple[tuple[int, bytes], ...]) -> None:
        own = chip.stub.own
        assert own is not None
        self.board = Board(chip)
        data = Region("data", own.data_start, bytearray(own.data_end - own.data_start))
        code = Region(
            "code", own.code_start, bytearray(own.code_end - own.code_start), words_only=True
        )
        memory = Memory([data, code], self.board)
        for address, content in segments:
            memory.load(address, content)
        windows = chip.cpu.isa != "lx106"
        isa = RiscV() if chip.cpu.architecture == "riscv" else Xtensa(windows=windows)
        self.engine = Engine(
            isa, memory, entry=entry, hooks=dict.fromkeys(chip.rom_addresses.values(), _return)
        )
        self.board.engine = self.engine
        self._decoder = slip.Decoder()

    def send(self, *frames: bytes) -> list[bytes]:
        """Send frames; returns the answers until the stub waits again."""
        for frame in frames:
            self.board.incoming.extend(slip.encode(sent(frame) if self.sealed else frame))
        self.board.idle = 0
        self.engine.run(self.engine.cycles[0] + 2_000_000_000)
        answers = self._decoder.feed(bytes(self.board.outgoing))
        self.board.outgoing.clear()
        return [opened(answer) if self.sealed else answer for answer in answers]


def _return(engine: Engine) -> None:
    engine.pc = engine.registers[0]
