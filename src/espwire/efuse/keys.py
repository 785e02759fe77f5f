"""Turns the commands that burn keys into changes of a planner: key bytes, purpose and locks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from espwire.efuse import meaning
from espwire.efuse.check import has_error
from espwire.efuse.model import Block, Field, Purpose
from espwire.efuse.planner import Planner, build_refusal
from espwire.efuse.state import FuseState
from espwire.errors import KeyFileError, UsageError
from espwire.flash.findings import Finding

XTS_KEY, XTS_HALVES = "XTS_AES_128_KEY", ("XTS_AES_256_KEY_1", "XTS_AES_256_KEY_2")


class Key(NamedTuple):
    """A key for a block; ``purpose`` is empty on chips where the name of the block implies it."""

    block: str
    data: bytes
    purpose: str = ""


class Placed(NamedTuple):
    """A part of a key and the block that it goes into."""

    block: Block
    data: bytes
    purpose: Purpose


def request_keys(
    planner: Planner,
    keys: Sequence[Key],
    *,
    read_protect: bool = True,
    write_protect: bool = True,
    force: bool = False,
) -> list[Placed]:
    """``burn-key``: keys, their purposes, and their locks. Returns where each went.

    :raises UsageError: unknown block or purpose, wrong length
    :raises DeviceError: a block, purpose or lock cannot be burned
    """
    named = [(_find_key_block(planner, key.block), key) for key in keys]
    planner.named_keys |= {block.id for block, _ in named}
    placed: list[Placed] = []
    for block, key in named:
        purpose = _find_purpose(planner, block, key)
        for part in _split(planner, block, purpose, key.data):
            _require_together(planner, [*placed, part])
            _place(
                planner, part, read_protect=read_protect, write_protect=write_protect, force=force
            )
            placed.append(part)
    _require_distinct_halves(placed)
    return placed


def _require_distinct_halves(placed: Sequence[Placed]) -> None:
    """Refuse a flash encryption key with equal halves, which XTS-AES does not allow.

    :raises KeyFileError: code ``key-halves``
    """
    halves = [
        (part.block.name, part.data[: len(part.data) // 2], part.data[len(part.data) // 2 :])
        for part in placed
        if part.purpose.name == XTS_KEY
    ]
    parts = {part.purpose.name: part for part in placed}
    if all(name in parts for name in XTS_HALVES):
        first, second = (parts[name] for name in XTS_HALVES)
        halves.append((first.block.name, first.data, second.data))
    for name, low, high in halves:
        if low == high:
            raise KeyFileError(
                f"both halves of the flash encryption key for {name} are equal, which XTS-AES does not allow",
                hint="Use a random key.",
                code="key-halves",
            )


def _find_key_block(planner: Planner, name: str) -> Block:
    data = planner.before.data
    if name.upper() not in (known.upper() for known in data.key_blocks):
        raise UsageError(
            f"{data.name} has no key block {name!r}",
            hint=f"Its key blocks: {', '.join(data.key_blocks)}.",
        )
    return planner.layout.block(name)


def _find_purpose(planner: Planner, block: Block, key: Key) -> Purpose:
    """The purpose that is named, or that the name of the block stands for.

    :raises UsageError: the chip does not have it, or not in this block or revision
    """
    state = planner.before
    if key.purpose:
        return planner.layout.purpose(key.purpose)
    for purpose in state.data.key_purposes:
        if purpose.name == key.block.lower() and purpose.block == block.id:
            return purpose
    names = [purpose.name for purpose in state.data.key_purposes if purpose.block == block.id]
    if names:
        text = f"{block.name} gets the bytes as they are in the file, and stays readable; for a key, name {' or '.join(names)}"
        planner.dangers.append(Finding("efuse-raw-key", text))
    return Purpose(name=block.name, block=block.id)


def _split(planner: Planner, block: Block, purpose: Purpose, data: bytes) -> list[Placed]:
    """The parts of a key: two blocks for a purpose that stands for two.

    :raises UsageError: wrong length
    :raises DeviceError: no second block is free
    """
    size = purpose.bytes or planner.before.size(block) // 8
    lengths = [size * max(len(purpose.splits_into), 1)]
    if purpose.takes_digest:
        lengths.append(purpose.takes_digest)
    if len(data) not in lengths:
        raise UsageError(
            f"the key for {block.name} has {len(data)} bytes, not {' or '.join(map(str, lengths))}",
            hint="Use a file of raw key bytes of this length.",
        )
    if not purpose.splits_into:
        return [Placed(block, data[:size], purpose)]
    first_purpose, second_purpose = (planner.layout.purpose(name) for name in purpose.splits_into)
    second = _find_half(planner, data[size:], second_purpose) or _find_next(planner, block)
    planner.named_keys.add(second.id)
    return [
        Placed(block, data[:size], first_purpose),
        Placed(second, data[size:], second_purpose),
    ]


def _find_half(planner: Planner, data: bytes, purpose: Purpose) -> Block | None:
    """The block that the second half of a key went into before: it holds the data, or is hidden and has the purpose."""
    state = planner.before
    value = build_number(purpose, data)
    for block in state.data.blocks:
        field = state.layout.find(block.purpose_field) if block.purpose_field else None
        if not isinstance(field, Field) or block.id in planner.named_keys:
            continue
        number, content = meaning.purpose_number(state, field), state.blocks[block.id]
        hidden = bool(state.hidden_mask(block)) and number == purpose.value
        if hidden or (content and not content & ~value and not number & ~purpose.value):
            return block
    return None


def _find_next(planner: Planner, block: Block) -> Block:
    """The next empty key block that no command names; after the last one, the search starts again with the first.

    :raises DeviceError: there is none
    """
    state = planner.before
    blocks = state.data.blocks
    for each in (*blocks[block.id + 1 :], *blocks[: block.id]):
        if (
            is_free(state, each)
            and each.id not in planner.named_keys
            and not planner.wanted[each.id]
            and not planner.raw(state.layout.field(each.purpose_field))
        ):
            return each
    raise build_refusal(
        f"no key block is free for the second half of the key in {block.name}",
        "Show the key blocks with the command summary.",
        "efuse-no-free-block",
    )


def is_free(state: FuseState, block: Block) -> bool:
    """Whether a block is for keys with any purpose, is empty, and has neither locks nor coding errors."""
    if not block.purpose_field:
        return False
    field = state.layout.field(block.purpose_field)
    locked = state.locked(block.wr_dis) or state.locked(field.wr_dis)
    used = state.blocks[block.id] or state.raw(field) or has_error(state, block)
    return not (locked or used or state.hidden_mask(block))


def _require_together(planner: Planner, placed: Sequence[Placed]) -> None:
    """Keys of one block that exclude each other.

    :raises UsageError: two of them do
    """
    *others, new = placed
    for other in others:
        if other.block.id == new.block.id and (
            _mask(planner, other) & _mask(planner, new) or not new.purpose.bytes
        ):
            raise UsageError(
                f"{other.purpose.name} and {new.purpose.name} need the same bits of"
                f" {new.block.name}",
                hint="Burn one of them.",
            )


def _mask(planner: Planner, part: Placed) -> int:
    size = 8 * (part.purpose.bytes or planner.before.size(part.block) // 8)
    return ((1 << size) - 1) << part.purpose.start


def _place(
    planner: Planner, part: Placed, *, read_protect: bool, write_protect: bool, force: bool
) -> None:
    block, data, purpose = part
    if purpose.name in planner.before.data.slot5_forbidden and _is_last_slot(planner, block):
        raise build_refusal(
            f"{block.name} cannot hold a key for {purpose.name}: the hardware has a fault there",
            "Use another key block.",
            "efuse-slot",
        )
    if not purpose.digest:
        planner.secret.add(block.id)
    value = build_number(purpose, data) << purpose.start
    planner.set_data(block, value, _mask(planner, part), force=force)
    _request_purpose(planner, block, purpose)
    for name in purpose.sets:
        if isinstance(flag := planner.layout.find(name), Field):
            planner.set_field(flag, 1)
    if read_protect and purpose.read_protect:
        planner.lock_read(find_read_locks(block, _mask(planner, part)), block.name)
    if write_protect:
        planner.lock_write(block.wr_dis, block.name)


def build_number(purpose: Purpose, key: bytes) -> int:
    """The bytes of a key file as the number that a block stores."""
    return int.from_bytes(key[::-1] if purpose.reverse else key, "little")


def find_read_locks(block: Block, mask: int) -> tuple[int, ...]:
    """The read locks of the part of a block that a key fills."""
    share = block.bits // len(block.rd_dis)
    return tuple(
        lock
        for index, lock in enumerate(block.rd_dis)
        if mask >> share * index & ((1 << share) - 1)
    )


def _is_last_slot(planner: Planner, block: Block) -> bool:
    slots = [each.id for each in planner.before.data.blocks if each.purpose_field]
    return bool(slots) and block.id == slots[-1]


def _request_purpose(planner: Planner, block: Block, purpose: Purpose) -> None:
    """Burn and lock the purpose of a block.

    :raises DeviceError: it has another purpose for ever
    """
    if not block.purpose_field:
        return
    field = planner.layout.field(block.purpose_field)
    number = planner.purpose_number(field)
    locked = planner.before.locked(field.wr_dis)
    if number != purpose.value and (locked or number & ~purpose.value):
        burned = number == meaning.purpose_number(planner.before, field)
        raise build_refusal(
            f"{block.name} cannot become a key for {purpose.name}:"
            f" {'its purpose is' if burned else 'another command gives it the purpose'}"
            f" {meaning.name_purpose(planner.layout, number)}",
            "Use another key block.",
            "efuse-purpose",
        )
    planner.set_field(field, purpose.value & ((1 << field.bits) - 1))
    if field.high:
        planner.set_field(planner.layout.field(field.high), purpose.value >> field.bits)
    planner.lock_write(field.wr_dis, field.name)


def require_hideable(planner: Planner, field: Field) -> None:
    """Whether a field may become unreadable: the chip itself reads digests, and firmware reads user data.

    :raises DeviceError: code ``efuse-must-be-readable``
    """
    block = planner.before.data.blocks[field.block]
    if field.start or field.bits != block.bits:
        return
    if not block.purpose_field:
        if len(block.rd_dis) > 1:
            raise build_refusal(
                f"{block.name} must stay readable: a part of it is for a digest",
                "Name the part that holds the key.",
                "efuse-must-be-readable",
            )
        return
    number = planner.purpose_number(planner.layout.field(block.purpose_field))
    purposes = [each for each in planner.layout.purposes() if each.value == number]
    if not any(purpose.read_protect for purpose in purposes):
        name = purposes[0].name if purposes else meaning.UNKNOWN_PURPOSE
        digest = any(purpose.digest for purpose in purposes)
        raise build_refusal(
            f"{block.name} must stay readable: its purpose is {name}",
            "The chip has to read the digest: leave it readable."
            if digest
            else "Burn a key with a secret purpose first.",
            "efuse-must-be-readable",
        )
