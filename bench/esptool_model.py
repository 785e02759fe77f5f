"""What esptool 5.6.0 does on the wire, as a client of the virtual chip's imitation of its stub: in simulated time.

Measured with esptool: so many commands by the ROM and by the stub before the data (``esptool_commands.py``), so much
thinking before each block and after each packet, and its sleeps. The imitation's own pace is compared with esptool's own
stub on the CPU engine by ``vendor_engine.py``, with the same blocks and thinking times.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from dataclasses import dataclass

from espwire.chips.model import Chip
from espwire.chips.registry import load_chip
from espwire.protocol import slip
from espwire.protocol.commands import (
    HEADER,
    Command,
    MemBegin,
    MemData,
    MemEnd,
    ReadReg,
    Sync,
    checksum,
)
from espwire.protocol.opcodes import Op
from espwire.virtual.transport import VirtualTransport, open_virtual

BLOCK, RAM_BLOCK, PACKET = 0x4000, 0x1800, 4096
BLOCK_THINK_S, PACKET_THINK_S = 0.0107, 0.0043
RESET_S, BAUD_S, END_S, DRAIN_S = 0.15, 0.05, 0.1, 0.2


@dataclass(frozen=True)
class Habits:
    """Commands before the data: by the ROM (with the upload of the stub), by the stub. ``drains``: sleeps of 0.2 s."""

    rom_commands: int
    stub_commands: int
    drains: int


HABITS = {
    "esp8266": Habits(22, 59, 1),
    "esp32": Habits(23, 67, 1),
    "esp32s2": Habits(22, 62, 0),
    "esp32c3": Habits(16, 62, 0),
    "esp32s3": Habits(24, 62, 0),
    "esp32c2": Habits(17, 62, 0),
    "esp32c6": Habits(19, 62, 0),
    "esp32h2": Habits(21, 62, 0),
    "esp32p4": Habits(36, 62, 0),
    "esp32c5": Habits(25, 62, 0),
    "esp32c61": Habits(21, 62, 0),
    "esp32h21": Habits(20, 62, 0),
    "esp32h4": Habits(27, 62, 0),
    "esp32s31": Habits(16, 62, 0),
}


class Esptool:
    """One run of it, from the reset on. ``now`` is the time on the wire; starting Python is not in it."""

    def __init__(self, transport: VirtualTransport) -> None:
        """The stub is running already."""
        self.transport = transport
        self._register = transport.chip.chip.uart.clock_divider_address  # any that can be read
        self._decoder, self._frames = slip.Decoder(), list[bytes]()

    @classmethod
    def start(cls, chip: str, query: str, baud: int) -> Esptool:
        """From the reset on, with the imitation of the stub."""
        esptool = cls(open_virtual(f"virtual:{chip}?stub=vendor&{query}"))
        esptool._start(load_chip(chip), HABITS[chip], baud)
        return esptool

    @property
    def now(self) -> float:
        return self.transport.now()

    def write(self, offset: int, data: bytes) -> None:
        """write-flash: packed blocks one by one, then the MD5."""
        self.send(offset, data)
        self.verify(offset, data)
        self._ask_words(Op.FLASH_BEGIN, 0, 0, 0, 0)
        self._ask_words(Op.FLASH_DEFL_END, 1)
        self.leave()

    def send(self, offset: int, data: bytes) -> None:
        """The blocks, until the last one is written."""
        stream = zlib.compress(data, 9)
        blocks = [stream[at : at + BLOCK] for at in range(0, len(stream), BLOCK)]
        self._ask_words(Op.FLASH_DEFL_BEGIN, len(data), len(blocks), BLOCK, offset)
        for number, block in enumerate(blocks):
            self.transport.sleep(BLOCK_THINK_S)
            body = struct.pack("<4I", len(block), number, 0, 0) + block
            self._ask(HEADER.pack(0, Op.FLASH_DEFL_DATA, len(body), checksum(block)) + body)
        self._ask(ReadReg(self._register).packet())  # it waits so for the last block to be written

    def verify(self, offset: int, data: bytes) -> None:
        """verify-flash."""
        found = self._ask_words(Op.SPI_FLASH_MD5, offset, len(data), 0, 0)
        assert found[8:24] == hashlib.md5(data, usedforsecurity=False).digest()

    def read(self, offset: int, size: int) -> bytes:
        """read-flash: a packet, an acknowledgement, a packet."""
        self._ask_words(Op.READ_FLASH, offset, size, PACKET, 64)
        found = bytearray()
        while len(found) < size:
            found += self._next()
            self.transport.sleep(PACKET_THINK_S)
            self._post(len(found).to_bytes(4, "little"))
        self._next()
        self.leave()
        return bytes(found)

    def leave(self) -> None:
        """The reset at the end."""
        self.transport.sleep(END_S)

    def _start(self, chip: Chip, habits: Habits, baud: int) -> None:
        layout = chip.stub.reference_layouts[0]
        self.transport.sleep(RESET_S + DRAIN_S * habits.drains)
        self._post(Sync().packet())
        for _ in range(8):
            self._next()
        pieces = [
            (layout["text_start"], layout["text_bytes"]),
            (layout["data_start"], layout["data_bytes"]),
        ]
        upload = [one for start, size in pieces for one in self._load(start, size)]
        for _ in range(habits.rom_commands - len(upload) - 2):
            self._ask(ReadReg(self._register).packet())
        for command in upload:
            self._ask(command.packet())
        self._post(MemEnd(0, layout["entry"]).packet())
        while self._next() != b"OHAI":
            pass
        if baud != chip.uart.rom_baud:
            self._ask_words(Op.CHANGE_BAUDRATE, baud, chip.uart.rom_baud)
            self.transport.sleep(BAUD_S)
            self.transport.set_baud(baud)
        for _ in range(habits.stub_commands):
            self._ask(ReadReg(self._register).packet())

    def _load(self, start: int, size: int) -> list[Command]:
        blocks = [bytes(min(RAM_BLOCK, size - at)) for at in range(0, size, RAM_BLOCK)]
        begin = MemBegin(size, len(blocks), RAM_BLOCK, start)
        return [begin, *(MemData(number, block) for number, block in enumerate(blocks))]

    def _ask_words(self, op: int, *words: int) -> bytes:
        body = struct.pack(f"<{len(words)}I", *words)
        return self._ask(HEADER.pack(0, op, len(body), 0) + body)

    def _ask(self, packet: bytes) -> bytes:
        self._post(packet)
        answer = self._next()
        assert answer[-2:] in (b"\0\0", answer[-4:-2]) or answer[-2] == 0, answer
        return answer

    def _post(self, packet: bytes) -> None:
        self.transport.write(slip.encode(packet), float("inf"))

    def _next(self) -> bytes:
        while not self._frames:
            data = self.transport.read(200.0)
            assert data, "nothing comes"
            self._frames += self._decoder.feed(data)
        return self._frames.pop(0)
