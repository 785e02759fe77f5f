"""The plan of a burn: what changes, in which order it is burned, and what can never be changed afterwards.

Blocks are burned from the last to the first, so that a key is in place and read back before block 0 hides, locks or enables
anything. Within block 0, the bits that stop later burns, hide blocks, or enable a feature come in a second burn. Those that
close download mode come in burns of their own at the end, because little can be read back after them.

A block with a coding error is burned again, even if it reads as planned.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from espwire.efuse.check import has_error, has_failed, list_chunks
from espwire.efuse.model import Block, Field
from espwire.efuse.planner import Planner, build_refusal
from espwire.efuse.state import WRITE_LOCKS, FuseState
from espwire.flash.findings import Finding, build_fatal
from espwire.record import Record

# of block 0: they stop later burns, hide keys, or depend on what is burned before
LAST = (
    "WR_DIS",
    "RD_DIS",
    "UART_DOWNLOAD_DIS",
    "ABS_DONE_1",
    "FLASH_CRYPT_CNT",
    "SPI_BOOT_CRYPT_CNT",
    "SECURE_BOOT_EN",
)
DOWNLOAD_OFF, SECURE_DOWNLOAD = "DIS_DOWNLOAD_MODE", "ENABLE_SECURITY_DOWNLOAD"


class BurnStep(NamedTuple):
    """One burn of one block: the bits that it sets."""

    block: int
    bits: int


class FieldChange(Record):
    """A field whose bits change. ``secret``: the numbers are key bytes, never to be shown."""

    name: str
    block: int
    before: int
    after: int
    bits: int
    secret: bool


class BurnPlan(Record):
    """What a burn does.

    :ivar before: the state that it assumes
    :ivar after: the blocks as they are burned, also where software cannot read them then
    :ivar unreadable: fields that software can no longer read
    :ivar locked: fields that can no longer be burned because of a lock
    :ivar final: fields that can no longer be burned because the coding of their block allows one burn
    :ivar unproven: blocks whose data must be burned already, but cannot be read
    """

    before: FuseState
    after: tuple[int, ...]
    steps: tuple[BurnStep, ...]
    changes: tuple[FieldChange, ...]
    unreadable: tuple[str, ...]
    locked: tuple[str, ...]
    final: tuple[str, ...]
    unproven: tuple[str, ...]

    @property
    def state_after(self) -> FuseState:
        """The state that software reads after the burn."""
        full = self.before.change(self.after)
        hidden = [full.hidden_mask(block) for block in full.data.blocks]
        visible = [value & ~mask for value, mask in zip(self.after, hidden, strict=True)]
        return full.change(visible)


def plan_burn(planner: Planner, *, postpone: bool = True) -> BurnPlan:
    """The plan for what a planner has collected. ``postpone``: burn the bits of ``LAST`` last.

    :raises DeviceError: a coding scheme, or data that cannot be read
    """
    unproven = tuple(block.name for block in planner.find_unproven())
    before = planner.before
    after = tuple(old | new for old, new in zip(before.blocks, planner.wanted, strict=True))
    full = before.change(after)
    _require_scheme(before, full)
    fields = [field for field in before.layout.fields if before.exists(field)]
    return BurnPlan(
        before=before,
        after=after,
        steps=tuple(_order(planner, postpone=postpone)),
        changes=tuple(_find_changes(planner, full)),
        unreadable=tuple(
            field.name for field in fields if before.readable(field) > full.readable(field)
        ),
        locked=tuple(
            field.name for field in fields if before.writeable(field) > full.writeable(field)
        ),
        final=tuple(_find_final(before, after, fields)),
        unproven=unproven,
    )


def judge_unproven(blocks: Sequence[str], missing: str = "") -> list[Finding]:
    """A fatal finding if blocks are burned and hidden: they may hold another key.

    :param missing: what else could prove the key, and does not
    """
    if not blocks:
        return []
    also = f" and {missing}" if missing else ""
    text = f"{', '.join(blocks)} cannot be read back{also}, so this is not proven; if another key was burned there, that key stays"
    return [build_fatal("efuse-unproven", text, by_name_only=True)]


def _require_scheme(before: FuseState, full: FuseState) -> None:
    """Refuse a coding scheme with which nothing can be burned.

    :raises DeviceError: code ``efuse-coding``
    """
    for block in full.data.blocks:
        if full.scheme(block) == "repeat" != before.scheme(block):
            raise build_refusal(
                f"{block.name} would get the coding scheme repeat, which cannot be burned",
                "Use the scheme three-quarter, or none.",
                "efuse-coding",
            )


def _order(planner: Planner, *, postpone: bool) -> list[BurnStep]:
    before, steps = planner.before, []
    new = [want & ~old for want, old in zip(planner.wanted, before.blocks, strict=True)]
    for block in reversed(before.data.blocks[1:]):
        again = _find_repetition(planner, block) if has_error(before, block) else 0
        if bits := new[block.id] | again:
            steps.append(BurnStep(block.id, bits))
    last = sum(_find_mask(before, name) for name in LAST) if postpone else 0
    off, secure = _find_mask(before, DOWNLOAD_OFF), _find_mask(before, SECURE_DOWNLOAD)
    closing = off | secure
    if new[0] & closing:  # a lock that covers them would stop them
        closing |= _find_locks_of(before, (DOWNLOAD_OFF, SECURE_DOWNLOAD))
    rest = new[0] & ~closing
    parts = (rest & ~last, rest & last, new[0] & off, new[0] & closing & ~off)
    return [*steps, *(BurnStep(0, bits) for bits in parts if bits)]


def _find_repetition(planner: Planner, block: Block) -> int:
    """The bits to burn again in a block with a coding error: those of the chunks that commands name.

    :raises DeviceError: code ``efuse-second-burn``: it failed, and holds bits that no command names, or is locked
    """
    before, wanted = planner.before, planner.wanted[block.id]
    content, bits = before.blocks[block.id], 0
    failed = has_failed(before, block)
    for chunk in list_chunks(before, block):
        if not wanted & chunk:
            continue
        if failed and (content & chunk & ~wanted or before.locked(block.wr_dis)):
            raise build_refusal(
                f"{block.name} has a coding error, and this burn cannot complete it",
                "Repeat the burn that was cut short, or use another block.",
                "efuse-second-burn",
            )
        bits |= (content | wanted) & chunk
    if bits and before.locked(block.wr_dis):
        text = f"{block.name} has errors that its coding corrects; it is locked, so it cannot be burned again"
        planner.dangers.append(Finding("efuse-locked-error", text))
        return 0
    return bits


def _find_mask(state: FuseState, name: str) -> int:
    field = state.layout.find(name)
    return field.mask if isinstance(field, Field) else 0


def _find_locks_of(state: FuseState, names: Iterable[str]) -> int:
    """The bits of WR_DIS, in block 0, that lock these fields."""
    start, bits = state.layout.field(WRITE_LOCKS).start, 0
    for name in names:
        field = state.layout.find(name)
        if isinstance(field, Field) and field.wr_dis is not None:
            bits |= 1 << start + field.wr_dis
    return bits


def _find_changes(planner: Planner, full: FuseState) -> list[FieldChange]:
    """The fields whose bits change; of fields that share bits, the smaller ones."""
    before, changes = planner.before, []
    changed = [new & ~old for new, old in zip(full.blocks, before.blocks, strict=True)]
    fields = sorted(before.layout.fields, key=lambda field: (field.block, before.bits(field)))
    for field in fields:
        if not changed[field.block] & field.mask:
            continue
        changed[field.block] &= ~field.mask
        changes.append(
            FieldChange(
                name=field.name,
                block=field.block,
                before=before.raw(field),
                after=full.raw(field),
                bits=before.bits(field),
                secret=field.block in planner.secret,
            )
        )
    for block in before.data.blocks:
        if rest := changed[block.id]:
            old = before.blocks[block.id]
            changes.append(
                FieldChange(
                    name=f"other bits of {block.name}",
                    block=block.id,
                    before=0,
                    after=rest & ~old,
                    bits=block.bits,
                    secret=block.id in planner.secret,
                )
            )
    return changes


def _find_final(before: FuseState, after: tuple[int, ...], fields: list[Field]) -> list[str]:
    """Fields in blocks that get their only burn: those that stay empty in it, and the rest of those that it fills partly."""
    once = [
        field
        for field in fields
        if before.scheme(block := before.data.blocks[field.block]) == "reed_solomon"
        and after[block.id]
        and not before.blocks[block.id]
    ]
    empty = [field for field in once if not after[field.block] & field.mask]
    filled = list(after)
    for field in empty:
        filled[field.block] |= field.mask
    rest = [
        f"rest of {field.name}"
        for field in once
        if field not in empty and _has_rest(field, filled[field.block], before.bits(field))
    ]
    return [*(field.name for field in empty), *rest]


def _has_rest(field: Field, content: int, size: int) -> bool:
    """Whether bits of a number are 0, or a word at an end of data, which is not so in keys."""
    value = content >> field.start & ((1 << size) - 1)
    if field.kind != "bytes":
        return value.bit_count() < size
    data = value.to_bytes(size // 8, "little")
    return not (any(data[:4]) and any(data[-4:]))
