"""The eFuses of a virtual chip: those in its file, or those that its options describe; and what of the chip follows from them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espwire.chips.fuse_tables import CHIPS
from espwire.chips.model import BitAt, Chip
from espwire.device.identity import Identity
from espwire.device.identity import Registers as KnownWords
from espwire.errors import UsageError
from espwire.sizes import extract
from espwire.virtual.efuses import ChipConfig, fuse_registers

if TYPE_CHECKING:
    from espwire.efuse.store import VirtualStore


def find_controller(chip: Chip) -> range:
    """The addresses of the eFuse controller; empty if its registers are unknown."""
    if chip.id not in CHIPS:
        return range(0)
    table: Mapping[str, Any] = import_module(f"espwire.chips.fuse_tables.{chip.id}").TABLE
    base, size = table["controller"]["base"], table["controller"]["size"]
    return range(base, base + size)


def build_store(chip: Chip, words: Mapping[int, int]) -> VirtualStore:
    """eFuses in memory with the words that software reads."""
    from espwire.efuse.store import VirtualStore
    from espwire.efuse.tables import load_fuses

    data = load_fuses(chip.id)
    return VirtualStore(
        chip.id,
        [
            sum(words.get(block.read + 4 * i, 0) << 32 * i for i in range(block.words))
            for block in data.blocks
        ],
    )


def open_store(chip: Chip, config: ChipConfig, path: Path) -> VirtualStore:
    """The eFuses in a file; a new one gets those of ``config``.

    :raises UsageError: the chip has no eFuses that can be burned
    :raises FileError: it belongs to another chip, or is not such a file
    """
    from espwire.efuse.store import open_file

    if chip.id not in CHIPS:
        raise UsageError(
            f"{chip.name} has no eFuses that can be burned", hint="Remove the option efuse."
        )
    if os.path.exists(path) and os.path.getsize(path):
        return open_file(str(path), chip.id)
    store = build_store(chip, fuse_registers(chip, config))
    store.path = str(path)
    store.save()
    return store


def apply_errors(store: VirtualStore, errors: Mapping[int, int]) -> None:
    """Report coding errors: wrong bits by number of the block.

    :raises UsageError: there is no such block
    """
    for number, wrong in errors.items():
        if number >= len(store.data.blocks):
            raise UsageError(
                f"{store.data.name} has no eFuse block {number}",
                hint=f"The last one is {len(store.data.blocks) - 1}.",
            )
        store.set_error(store.data.blocks[number], wrong)


def read_words(store: VirtualStore) -> dict[int, int]:
    """The words that software reads, and the registers that report errors, by address."""
    state = store.read()
    words = dict(store.errors)
    for block, value in zip(state.data.blocks, state.blocks, strict=True):
        words |= {block.read + 4 * i: value >> 32 * i & 0xFFFFFFFF for i in range(block.words)}
    return words


def read_config(chip: Chip, config: ChipConfig, words: Mapping[int, int]) -> ChipConfig:
    """``config`` with what its eFuses say."""
    identity = Identity(chip, KnownWords(lambda address: words.get(address, 0)))
    security, revision = chip.security, identity.revision()
    return dataclasses.replace(
        config,
        mac=identity.mac(),
        revision=int(revision),
        secure_download=is_set(security.secure_download, words),
        secure_boot=is_set(security.secure_boot or security.secure_boot_v2, words),
        secure_boot_v1=is_set(security.secure_boot_v1, words),
        flash_encryption=is_encrypting(chip, words),
        key_purposes=tuple(
            extract(words.get(slot.address, 0), slot.shift, slot.bits)
            for slot in security.key_purpose_slots
        ),
    )


def is_set(at: BitAt | None, words: Mapping[int, int]) -> bool:
    """Whether a bit of the eFuses is set."""
    return at is not None and bool(words.get(at.address, 0) >> at.bit & 1)


def is_encrypting(chip: Chip, words: Mapping[int, int]) -> bool:
    """Whether flash encryption is on: its counter has an odd number of bits."""
    at = chip.security.flash_encryption
    count = 0 if at is None else extract(words.get(at.address, 0), at.shift, at.bits)
    return bool(count.bit_count() % 2)
