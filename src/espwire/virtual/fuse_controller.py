"""The eFuse controller of a virtual chip, register by register.

The words of blocks that software reads are copies, which are loaded from the eFuses at a reset and by the read command; there,
RD_DIS makes zeros of what it hides. A burn takes the words in the program registers: the controller burns them only with the
write opcode in the configuration register and the right timing, never clears a bit, and burns neither locked bits nor coded
data over other data. A burn that loses its supply leaves a part of the bits: in a Reed-Solomon block, up to six wrong bytes
are corrected when it is read, and counted in the error registers; more are reported as a failure.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from espwire.efuse.check import CORRECTABLE
from espwire.efuse.coding import (
    CHUNK,
    CODED_CHUNK,
    RS_DATA,
    RS_PARITY,
    encode_chunk,
    encode_parity,
)
from espwire.efuse.model import Block
from espwire.efuse.state import FuseState
from espwire.efuse.store import VirtualStore
from espwire.efuse.timing import find_timing
from espwire.errors import DeviceError, Unsupported

PROGRAM_S = 0.01  # a burn of one block
READ_S = 0.0005
WORD = 0xFFFFFFFF
Burn = tuple[Block, int]  # a block, and the words in its program registers as one number


class FuseController:
    """The controller of one chip.

    :ivar store: the eFuses
    :ivar burns: how many burns have started
    :param on_burn: called when a burn starts, with the time and its length; may schedule a loss of power
    """

    def __init__(
        self,
        store: VirtualStore,
        words: dict[int, int],
        *,
        mhz: int,
        seed: int = 0,
        on_load: Callable[[], None],
        on_burn: Callable[[float, float], None],
    ) -> None:
        self.store, self.data = store, store.data
        self.burns, self._on_burn = 0, on_burn
        self._words, self._mhz, self._on_load = words, mhz, on_load
        self._random = random.Random(seed)
        registers = self.data.controller.registers
        self._config, self._command = registers["config"], registers["command"]
        self._registers: dict[int, int] = {}
        self._burning: list[Burn] = []
        self._began = self._done = 0.0
        self._busy = 0  # the command that is being carried out
        self._readable = {
            block.read + 4 * i for block in self.data.blocks for i in range(block.words)
        }

    def covers(self, address: int) -> bool:
        """Whether the address is one of the controller's registers."""
        controller = self.data.controller
        return controller.base <= address < controller.base + controller.size

    def read(self, t: float, address: int) -> int:
        """The register's value at ``t``."""
        self._settle(t)
        if address == self._command:
            return self._busy
        if address in self._readable or address in self.store.errors:
            return self._words.get(address, 0)
        return self._registers.get(address, 0)

    def write(self, t: float, address: int, value: int) -> None:
        """Set a register at ``t``; the command register starts a burn or loads the words. A busy controller ignores it."""
        self._settle(t)
        if self._busy or address in self._readable:
            return
        if address != self._command:
            self._registers[address] = value & WORD
            return
        controller = self.data.controller
        opcode, command = self._registers.get(self._config, 0), value & controller.command_mask
        if command == controller.program_command and opcode == controller.write_opcode:
            self._burning = self._find_burns(value)
            self._busy, self._began, self._done = value, t, t + PROGRAM_S
            self.burns += 1
            self._on_burn(t, PROGRAM_S)
        elif command == controller.read_command and opcode == controller.read_opcode:
            self._busy, self._began, self._done = value, t, t + READ_S

    def restart(self, t: float) -> None:
        """A reset at ``t``, or a loss of power: a burn is cut short."""
        self._settle(t)
        if self._burning:
            self._burn_part((t - self._began) / PROGRAM_S)
        self._busy, self._burning = 0, []
        self._registers.clear()
        self.load()

    def load(self) -> None:
        """Copy the eFuses into the words that software reads."""
        state = self.store.read()
        for block, value in zip(self.data.blocks, state.blocks, strict=True):
            for i in range(block.words):
                self._words[block.read + 4 * i] = value >> 32 * i & WORD
        self._words |= self.store.errors
        self._on_load()

    def _settle(self, t: float) -> None:
        """Finish what is done at ``t``."""
        if not self._busy or t < self._done:
            return
        self._busy = 0
        if not self._burning:
            self.load()
            return
        burns, self._burning = self._burning, []
        for block, raw in burns:
            self._burn(block, raw)

    def _find_burns(self, command: int) -> list[Burn]:
        """What a command burns: nothing if the timing is wrong."""
        try:
            timing = find_timing(self.data, self._mhz)
        except Unsupported:
            return []
        if any(self._registers.get(a, 0) & mask != bits for a, (bits, mask) in timing.items()):
            return []
        controller = self.data.controller
        if controller.per_block_write_registers:
            burns = [(b, self._collect(b.write, b.words)) for b in self.data.blocks]
            return [(block, raw) for block, raw in burns if raw]
        number = command >> controller.block_shift
        if number >= len(self.data.blocks):
            return []
        count = controller.program_words + controller.check_words
        return [
            (
                self.data.blocks[number],
                self._collect(controller.registers["program_data"], count),
            )
        ]

    def _collect(self, start: int, count: int) -> int:
        return sum(self._registers.get(start + 4 * i, 0) << 32 * i for i in range(count))

    def _decode(self, block: Block, raw: int) -> tuple[int, bool]:
        """The data in program registers, and whether its coding is right."""
        scheme = FuseState(self.data.id, self.store.burned).scheme(block)
        if scheme == "reed_solomon":
            data = raw & ((1 << 8 * RS_DATA) - 1)
            parity = (raw >> 8 * RS_DATA).to_bytes(RS_PARITY, "little")
            return data & ((1 << block.bits) - 1), encode_parity(
                data.to_bytes(RS_DATA, "little")
            ) == parity
        raw &= (1 << block.bits) - 1
        if scheme != "three_quarter":
            return raw, True
        coded = raw.to_bytes(block.bits // 8, "little")
        chunks = [coded[i : i + CODED_CHUNK] for i in range(0, len(coded), CODED_CHUNK)]
        right = all(encode_chunk(chunk[:CHUNK]) == chunk for chunk in chunks)
        return int.from_bytes(b"".join(chunk[:CHUNK] for chunk in chunks), "little"), right

    def _burn(self, block: Block, raw: int) -> None:
        data, right = self._decode(block, raw)
        before = self.store.burned[block.id]
        try:
            self.store.program(block, data)
        except DeviceError:  # another burn of coded data
            return
        if not right and self.store.burned[block.id] != before:
            self.store.set_error(block, CORRECTABLE + 1)

    def _burn_part(self, share: float) -> None:
        """Burn a random part of the bits that were to be burned."""
        burns, self._burning = self._burning, []
        for block, raw in burns:
            data, right = self._decode(block, raw)
            coding = FuseState(self.data.id, self.store.burned).scheme(block)
            kept = sum(
                1 << i for i in range(raw.bit_length()) if raw >> i & 1 and self._lasts(share)
            )
            if coding == "none":
                self._burn(block, kept & ((1 << block.bits) - 1))
                continue
            wrong = self._count_wrong_bytes(raw, kept)
            corrected = wrong <= CORRECTABLE and right and coding == "reed_solomon"
            if wrong and not corrected:
                part, _ = self._decode(block, kept)
                self._burn_wrong(block, part, data)
                continue
            self._burn(block, raw)
            if wrong and self.store.burned[block.id] == data:
                self.store.set_error(block, wrong)

    def _burn_wrong(self, block: Block, part: int, data: int) -> None:
        """Burn a part of coded data that cannot be corrected."""
        before = self.store.burned[block.id]
        try:
            self.store.copy().program(block, data)
        except DeviceError:
            return
        self.store.burned[block.id] = before | part & ~self.store.read_burned().locked_mask(block)
        self.store.set_error(block, CORRECTABLE + 1)

    def _lasts(self, share: float) -> bool:
        return self._random.random() < share

    @staticmethod
    def _count_wrong_bytes(raw: int, kept: int) -> int:
        size = RS_DATA + RS_PARITY
        return sum(byte != 0 for byte in (raw ^ kept).to_bytes(size, "little"))
