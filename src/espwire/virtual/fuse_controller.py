"""The eFuse controller of a virtual chip, register by register.

The words of blocks that software reads are copies, which are loaded from the eFuses at a reset and by the read command; there,
RD_DIS makes zeros of what it hides. A burn takes the words in the program registers: the controller burns them only with the
write opcode in the configuration register and the right timing, never clears a bit, and does not burn locked bits. The number
of the block stays in the command register. A burn that loses its supply leaves a part of the bits, and one over other data
adds its bits to them, those of the coding included. Coded blocks are then decoded: in a Reed-Solomon block, up to six wrong
bytes are corrected, and counted in the error registers; more are reported as a failure. The bits of the coding are not kept:
they count as right in a block without a failure, and as 0 in one with a failure.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from espwire.efuse.check import CORRECTABLE, has_failed
from espwire.efuse.coding import CHUNK, CODED_CHUNK, RS_DATA, RS_PARITY, encode, encode_chunk
from espwire.efuse.model import Block
from espwire.efuse.store import VirtualStore
from espwire.efuse.timing import find_timing
from espwire.errors import Unsupported

PROGRAM_S = 0.01  # a burn of one block
READ_S = 0.0005
WORD = 0xFFFFFFFF
BLOCK_BYTES = 32
CHUNK_MASK, CODED_MASK = (1 << 8 * CHUNK) - 1, (1 << 8 * CODED_CHUNK) - 1
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
            return self._registers.get(address, 0) | self._busy
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
        self._registers[address] = value & WORD & ~controller.command_mask
        if command == controller.program_command and opcode == controller.write_opcode:
            self._burning = self._find_burns(value)
            self._busy, self._began, self._done = command, t, t + PROGRAM_S
            self.burns += 1
            self._on_burn(t, PROGRAM_S)
        elif command == controller.read_command and opcode == controller.read_opcode:
            self._busy, self._began, self._done = command, t, t + READ_S

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

    def _burn(self, block: Block, raw: int) -> None:
        """Add the bits in the program registers to a block."""
        full, old = self.store.read_burned(), self.store.burned[block.id]
        scheme, locked = full.scheme(block), full.locked_mask(block)
        if scheme == "reed_solomon" and not locked:
            self.store.replace(block, *_decode_block(self._find_coded(block, old) | raw))
        elif scheme == "three_quarter" and not locked:
            failed = has_failed(full, block)
            self.store.replace(block, *_decode_chunks(old, raw, failed=failed))
        elif not locked or block.id == 0:
            self.store.replace(block, old | raw & ~locked & ((1 << block.bits) - 1), 0)

    def _find_coded(self, block: Block, data: int) -> int:
        """A Reed-Solomon block with its parity; after a failure, without."""
        if has_failed(self.store.read_burned(), block):
            return data
        return int.from_bytes(encode(data.to_bytes(RS_DATA, "little"), "reed_solomon"), "little")

    def _burn_part(self, share: float) -> None:
        """Burn a random part of the bits that were to be burned."""
        burns, self._burning = self._burning, []
        for block, raw in burns:
            bits = (1 << i for i in range(raw.bit_length()) if raw >> i & 1)
            self._burn(block, sum(bit for bit in bits if self._random.random() < share))


def _decode_block(raw: int) -> tuple[int, int]:
    """The data of a Reed-Solomon block, and the number of wrong bytes: more than ``CORRECTABLE`` are a failure."""
    import reedsolo

    coded = raw.to_bytes(RS_DATA + RS_PARITY, "little")
    try:
        data = bytes(reedsolo.RSCodec(RS_PARITY).decode(coded)[0])
    except reedsolo.ReedSolomonError:
        return int.from_bytes(coded[:RS_DATA], "little"), CORRECTABLE + 1
    wrong = sum(a != b for a, b in zip(coded, encode(data, "reed_solomon"), strict=True))
    return int.from_bytes(data, "little"), wrong


def _decode_chunks(old: int, raw: int, *, failed: bool) -> tuple[int, int]:
    """The data of a block with the 3/4 scheme after ``raw`` is added to the data ``old``, and the number of wrong chunks."""
    data, wrong = bytearray(), 0
    for index in range(BLOCK_BYTES // CODED_CHUNK):
        before = (old >> 8 * CHUNK * index & CHUNK_MASK).to_bytes(CHUNK, "little")
        more = (raw >> 8 * CODED_CHUNK * index & CODED_MASK).to_bytes(CODED_CHUNK, "little")
        coded = before.ljust(CODED_CHUNK, b"\0") if failed and any(more) else encode_chunk(before)
        coded = bytes(a | b for a, b in zip(coded, more, strict=True))
        data += coded[:CHUNK]
        wrong += coded != encode_chunk(coded[:CHUNK])
    return int.from_bytes(data, "little"), wrong
