"""The eFuses of a virtual chip: those in its file, or those that its options describe; and what of the chip follows from them."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from espwire.chips.fuse_tables import CHIPS
from espwire.chips.model import BitAt, Chip
from espwire.device.identity import Identity
from espwire.device.identity import Registers as KnownWords
from espwire.device.security import FLAG_NAMES
from espwire.errors import UsageError
from espwire.secure.flash_encryption import USUAL_CRYPT_CONFIG
from espwire.sizes import extract
from espwire.virtual.efuses import DEFAULT_FLASH_KEY, ChipConfig, fuse_registers

CRYPT_CONFIG = "FLASH_CRYPT_CONFIG"
ReadWord = Callable[[int], int]  # the word at an address

if TYPE_CHECKING:
    from espwire.efuse.danger import Place
    from espwire.efuse.state import FuseState
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
    if os.path.exists(path):
        return open_file(str(path), chip.id)
    store = build_store(chip, fuse_registers(chip, config))
    if config.has_flash_key:
        _burn_flash_key(store, config)
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


def find_flash_key(store: VirtualStore) -> bytes:
    """The flash encryption key as in a key file; empty: none is burned."""
    from espwire.efuse.danger import find_flash_keys

    state = store.read_burned()
    for places in find_flash_keys(state):
        flags = (name for place in places for name in place.purpose.sets)
        if all(state.value_of(name) for name in flags):
            parts = [read_part(store, place) for place in places]
            if all(any(part) for part in parts):
                return b"".join(parts)
    return b""


def read_part(store: VirtualStore, place: Place) -> bytes:
    """The bytes of a key, or of a part of one, as in a key file."""
    value = (store.burned[place.block.id] & place.mask) >> place.purpose.start
    data = value.to_bytes(place.mask.bit_count() // 8, "little")
    return data[::-1] if place.purpose.reverse else data


def _burn_flash_key(store: VirtualStore, config: ChipConfig) -> None:
    """Burn and hide the key that the chip encrypts with, where the purposes are."""
    from espwire.efuse.danger import find_flash_keys
    from espwire.efuse.keys import build_number, find_read_locks
    from espwire.efuse.model import Field
    from espwire.efuse.state import READ_LOCKS

    key, state = config.flash_key or DEFAULT_FLASH_KEY, store.read()
    for places in find_flash_keys(state):
        sizes = [place.mask.bit_count() // 8 for place in places]
        if sum(sizes) != len(key):
            continue
        left = key
        for place, size in zip(places, sizes, strict=True):
            part, left = left[:size], left[size:]
            store.burned[place.block.id] |= build_number(place.purpose, part) << place.purpose.start
            locks = find_read_locks(place.block, place.mask)
            flags = {READ_LOCKS: sum(1 << lock for lock in locks)}
            flags |= dict.fromkeys(place.purpose.sets, 1)
            flags |= (
                {CRYPT_CONFIG: USUAL_CRYPT_CONFIG}
                if CRYPT_CONFIG.lower() not in config.fields
                else {}
            )
            for name, value in flags.items():
                if isinstance(field := state.layout.find(name), Field):
                    store.burned[field.block] |= value << field.start
        return


def read_config(
    chip: Chip, config: ChipConfig, words: Mapping[int, int], store: VirtualStore
) -> ChipConfig:
    """``config`` with what the eFuses hold; ``words`` is what software reads of them."""
    full = store.read_burned()
    read = open_words(words)
    identity = Identity(chip, KnownWords(read))
    security, revision = chip.security, identity.revision()
    flash_key, fields = find_flash_key(store), dict(config.fields)
    if store.path is None:  # made of the words that software reads
        flash_key = flash_key or config.flash_key
    if flash_key and CRYPT_CONFIG.lower() in chip.fields:
        fields[CRYPT_CONFIG.lower()] = full.value_of(CRYPT_CONFIG)
    return dataclasses.replace(
        config,
        fields=fields,
        flash_key=flash_key,
        manual_encrypt_disabled=is_set(security.manual_encrypt_disable, read),
        mac=identity.mac(),
        revision=int(revision),
        secure_download=is_set(security.secure_download, read),
        secure_boot=is_set(security.secure_boot or security.secure_boot_v2, read),
        secure_boot_v1=is_set(security.secure_boot_v1, read),
        flash_encryption=is_encrypting(chip, read),
        crypt_count=find_crypt_count(chip, read),
        security_flags=find_security_flags(full),
        key_purposes=tuple(
            extract(read(slot.address), slot.shift, slot.bits)
            for slot in security.key_purpose_slots
        ),
    )


def open_words(words: Mapping[int, int]) -> ReadWord:
    """Reads words by address; those that are not known are 0."""
    return lambda address: words.get(address, 0)


def is_set(at: BitAt | None, read: ReadWord) -> bool:
    """Whether a bit of the eFuses is set."""
    return at is not None and bool(read(at.address) >> at.bit & 1)


def is_encrypting(chip: Chip, read: ReadWord) -> bool:
    """Whether flash encryption is on: its counter has an odd number of bits."""
    return bool(find_crypt_count(chip, read).bit_count() % 2)


def find_crypt_count(chip: Chip, read: ReadWord) -> int:
    """The counter of flash encryption; 0 if the chip has none."""
    at = chip.security.flash_encryption
    return 0 if at is None else extract(read(at.address), at.shift, at.bits)


def find_security_flags(state: FuseState) -> int:
    """The flags that GET_SECURITY_INFO reports of these eFuses."""
    from espwire.efuse.security_status import FLAG_FIELDS

    flags = 0
    for bit, flag in enumerate(FLAG_NAMES):
        values = [state.value_of(name) for name in FLAG_FIELDS[flag]]
        flags |= any(value.bit_count() % 2 for value in values) << bit
    return flags
