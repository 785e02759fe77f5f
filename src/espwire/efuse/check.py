"""Coding errors that the controller reports."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from espwire.efuse.coding import CHUNK, RS_PARITY
from espwire.efuse.model import Block
from espwire.efuse.state import FuseState
from espwire.errors import DeviceError

STATUS_BITS = 4  # of each block from BLOCK1 on in the ESP32's status of the coding
CORRECTABLE = RS_PARITY // 2  # wrong bytes of a Reed-Solomon block


class CodingError(NamedTuple):
    """An error in a block. ``bits``: number of wrong bits, 0 if only a failure is known."""

    block: int
    bits: int
    failed: bool

    @property
    def text(self) -> str:
        """One sentence."""
        what = f"{self.bits} wrong bits" if self.bits else "wrong data"
        return f"BLOCK{self.block}: {what}{', which the coding cannot correct' * self.failed}"


def read_error_words(state: FuseState) -> tuple[int, ...]:
    """The registers that report errors: those of block 0, then those of the others."""
    data = state.data
    addresses = list(data.block0_error_registers)
    addresses += [error.count_register for error in data.block_errors]
    return tuple(state.register(address) for address in dict.fromkeys(addresses))


def find_errors(state: FuseState) -> list[CodingError]:
    """The blocks with errors."""
    data, found = state.data, []
    wrong = sum(state.register(address).bit_count() for address in data.block0_error_registers)
    if wrong:
        found.append(CodingError(0, wrong, failed=False))
    for place in data.block_errors:
        count = state.register(place.count_register) >> place.count_shift & place.count_mask
        failed = place.fail_register is not None and bool(
            state.register(place.fail_register) >> place.fail_bit & 1
        )
        if count or failed:
            found.append(CodingError(place.block, count, failed))
    status = data.controller.registers.get("decode_status")
    if status is not None:
        wrong = state.register(status) & data.controller.decode_error_mask
        found += [
            CodingError(block.id, 0, failed=True)
            for block in data.blocks
            if state.scheme(block) == "three_quarter"
            and wrong >> STATUS_BITS * (block.id - 1) & 0xF
        ]
    return found


def has_error(state: FuseState, block: Block) -> bool:
    """Whether the controller reports an error in a block."""
    return any(error.block == block.id for error in find_errors(state))


def has_failed(state: FuseState, block: Block) -> bool:
    """Whether the coding of a block cannot correct its errors: a burn that was cut short, for example."""
    return any(error.block == block.id and error.failed for error in find_errors(state))


def list_chunks(state: FuseState, block: Block) -> Iterator[int]:
    """Masks of the parts of a block that can be burned only once because of their coding."""
    size = state.size(block)
    chunk = {"reed_solomon": size, "three_quarter": 8 * CHUNK}.get(state.scheme(block))
    for start in range(0, size, chunk) if chunk else ():
        yield ((1 << (chunk or 0)) - 1) << start


def is_finished(state: FuseState, block: Block, chunk: int, bits: int) -> bool:
    """Whether a chunk holds data that ``bits`` cannot be added to.

    A chunk that failed takes a burn with all the bits that it holds: this completes one that was cut short. An error that
    the coding corrects does not count, because the chunk holds its data.
    """
    old = state.blocks[block.id] & chunk
    return bool(old) and (bool(old & ~bits) or not has_failed(state, block))


def require_unused(state: FuseState, block: Block, bits: int) -> None:
    """Refuse a second burn of coded data. The same data may be burned again.

    :raises DeviceError: code ``efuse-second-burn``
    """
    content = state.blocks[block.id]
    for mask in list_chunks(state, block):
        new = bits & mask
        if new and new != content & mask and is_finished(state, block, mask, bits):
            raise DeviceError(
                f"{block.name} can be burned only once, and holds data already",
                hint="Use an empty block.",
                code="efuse-second-burn",
            )


def require_no_errors(errors: Sequence[CodingError]) -> None:
    """:raises DeviceError: code ``efuse-errors``: there are errors"""
    if errors:
        blocks = ", ".join(f"BLOCK{error.block}" for error in errors)
        raise DeviceError(
            f"coding errors in {blocks}",
            hint="Run check-error --recovery to burn these blocks again.",
            code="efuse-errors",
        )
