"""Where eFuses are: the interface of a store, and a virtual one that a file keeps.

The file of a virtual store is an image of the controller's registers, the last word first and each word big-endian, as
espefuse writes it. The words of blocks are those that are burned, read protected or not; the file is private to the user.
The registers for programming, which mean nothing between burns, hold the chip's name, so that the file of another chip is
noticed.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Protocol

from espwire.chips.registry import load_chip
from espwire.efuse.check import CORRECTABLE, has_error, require_unused
from espwire.efuse.model import Block, Field, FuseData
from espwire.efuse.state import FuseState
from espwire.efuse.tables import load_fuses
from espwire.efuse.token import Token
from espwire.errors import FileError
from espwire.files import locked_file, read_file, write_file

TAG = b"espwire "
IMAGE_LIMIT = 1 << 16  # bytes; every controller has fewer registers
ALL_ONES = 0xFFFFFFFF


class FuseStore(Protocol):
    """The eFuses of a chip: a virtual one, or one at the other end of a line."""

    @property
    def data(self) -> FuseData:
        """The chip's eFuse data."""

    @property
    def proves(self) -> bool:
        """Whether ``read`` really reads: some burns end that."""

    def read(self, custom: Sequence[Field] = ()) -> FuseState:
        """What software reads now. ``custom``: fields of a custom table.

        :raises DeviceError, TransportError: the chip cannot be read
        """

    def program(self, block: Block, bits: int) -> None:
        """Burn the bits of a block that are 1 in ``bits``, data without its coding. The caller reads back what is set.

        Protected bits stay as they are, as the controller leaves them.

        :raises DeviceError: the controller refuses, or does not answer
        """


class VirtualStore:
    """eFuses in memory.

    :ivar burned: what is burned in each block, also where software reads zeros
    :ivar errors: the registers that report coding errors, by address
    """

    proves = True

    def __init__(self, chip_id: str, burned: Sequence[int] = (), *, path: str | None = None):
        self.data = load_fuses(chip_id)
        self.burned = list(burned) or [0] * len(self.data.blocks)
        self.errors = dict.fromkeys(find_error_registers(self.data), 0)
        self.path = path
        self._image = b""  # the content of the file as this store has read or written it

    def read(self, custom: Sequence[Field] = ()) -> FuseState:
        """What software reads: zeros where RD_DIS hides words."""
        outside = self._outside()
        full = FuseState(self.data.id, self.burned, outside=outside, custom=custom)
        blocks = [
            value & ~full.hidden_mask(block)
            for block, value in zip(self.data.blocks, self.burned, strict=True)
        ]
        return full.change(blocks)

    def read_burned(self) -> FuseState:
        """What is burned, also where software reads zeros."""
        return FuseState(self.data.id, self.burned, outside=self._outside())

    def program(self, block: Block, bits: int) -> None:
        """Burn, and write the file if there is one.

        :raises DeviceError: code ``efuse-second-burn``: coded data is there already, and differs
        :raises FileError: the file cannot be written; nothing is burned then
        """
        full = self.read_burned()
        bits &= ~full.locked_mask(block)
        old, errors = self.burned[block.id], dict(self.errors)
        if not bits & ~old and not has_error(full, block):
            return
        require_unused(full, block, bits)
        self.burned[block.id] = old | bits
        if bits:
            self._clear_error(block)
        try:
            self.save()
        except FileError:
            self.burned[block.id], self.errors = old, errors
            raise

    def replace(self, block: Block, data: int, wrong: int) -> None:
        """Set what a block holds, and its coding errors as ``set_error``: what the controller makes of a burn.

        :raises FileError: the file cannot be written
        """
        self.burned[block.id] = data & ((1 << block.bits) - 1)
        self.set_error(block, wrong)

    def set_error(self, block: Block, wrong: int) -> None:
        """Report wrong bits or bytes of a block from now on; more than the coding can correct are a failure.

        :raises FileError: the file cannot be written
        """
        self._clear_error(block)
        status = self.data.controller.registers.get("decode_status")
        if block.id == 0 and self.data.block0_error_registers:
            self.errors[self.data.block0_error_registers[0]] = (1 << min(wrong, 32)) - 1
        for place in self.data.block_errors:
            if place.block == block.id:
                self.errors[place.count_register] |= (
                    min(wrong, place.count_mask) << place.count_shift
                )
                if wrong > CORRECTABLE and place.fail_register is not None:
                    self.errors[place.fail_register] |= 1 << place.fail_bit
        if status is not None and block.id and wrong:
            self.errors[status] |= 1 << 4 * (block.id - 1) & self.data.controller.decode_error_mask
        self.save()

    def _clear_error(self, block: Block) -> None:
        status = self.data.controller.registers.get("decode_status")
        if block.id == 0:
            self.errors |= dict.fromkeys(self.data.block0_error_registers, 0)
        for place in self.data.block_errors:
            if place.block == block.id:
                self.errors[place.count_register] &= ~(place.count_mask << place.count_shift)
                if place.fail_register is not None:
                    self.errors[place.fail_register] &= ~(1 << place.fail_bit)
        if status is not None and block.id:
            self.errors[status] &= ~(0xF << 4 * (block.id - 1))

    def copy(self) -> VirtualStore:
        """The same contents in memory only."""
        copy = VirtualStore(self.data.id, self.burned)
        copy.errors = dict(self.errors)
        return copy

    def save(self) -> None:
        """Write the file, if there is one.

        :raises FileError: it cannot be written; code ``efuse-file-changed``: another program has written it in the meantime
        """
        if self.path is None:
            return
        with locked_file(self.path):
            if _read_image(self.path) != self._image:
                raise FileError(
                    f"another program has written {self.path!r} in the meantime; nothing was burned",
                    hint="Run the command again.",
                    code="efuse-file-changed",
                )
            image = build_image(self.data, self.burned, self.errors)
            write_file(self.path, image, private=True)
            self._image = image

    def _outside(self) -> Mapping[int, int]:
        """Registers besides eFuses that a field needs: as in the newest parts, their bits are 1."""
        calculated = (field for table in self.data.table for field in table.calculated)
        extras = [field.extra_part for field in calculated if field.extra_part is not None]
        return {extra.address: 1 << extra.bit for extra in extras} | self.errors


def store_from_state(state: FuseState) -> VirtualStore:
    """A virtual store with what software reads of a chip, and the coding errors that it reports."""
    store = VirtualStore(state.data.id, state.blocks)
    store.errors = {address: state.register(address) for address in store.errors}
    return store


def store_from_token(token: Token) -> VirtualStore:
    """A virtual store with the blocks and the revision of a token."""
    store = VirtualStore(token.chip, token.blocks)
    for name, value in _revision_fields(store, token.revision).items():
        if (field := store.read().layout.find(name)) is not None and isinstance(field, Field):
            store.burned[field.block] |= value << field.start & field.mask
    return store


def _revision_fields(store: VirtualStore, revision: int) -> dict[str, int]:
    """Fields that make the store's revision that of a token: none if its blocks have a revision already."""
    state = store.read()
    if not revision or state.revision:
        return {}
    major, minor = divmod(revision, 100)
    fields = {"WAFER_VERSION_MAJOR": major, "WAFER_VERSION_MINOR": minor}
    for field in state.layout.calculated:
        value = fields.pop(field.name, None)
        if value is None:
            continue
        for raw, meaning in field.map.items():
            value = raw if meaning == value and field.map else value
        for part in field.parts:
            found = state.layout.field(part.field)
            fields[part.field] = value >> part.to & ((1 << found.bits) - 1)
    return fields


def open_file(path: str, chip_id: str, *, empty_is_blank: bool = False) -> VirtualStore:
    """The virtual store in a file; a new file means blank eFuses. The first burn writes it.

    :param empty_is_blank: take a file without content for a new file, as espefuse does
    :raises FileError: code ``efuse-file``: it belongs to another chip, or is not such a file
    """
    data, image = load_fuses(chip_id), _read_image(path)
    if not image and (empty_is_blank or not os.path.exists(path)):
        return VirtualStore(chip_id, (), path=path)
    store = VirtualStore(chip_id, parse_image(data, image, path), path=path)
    store._image = image
    for address in store.errors:
        store.errors[address] = _find_word(data, image, address)
    return store


def _read_image(path: str) -> bytes:
    return read_file(path, limit=IMAGE_LIMIT) if os.path.exists(path) else b""


def find_error_registers(data: FuseData) -> tuple[int, ...]:
    """The registers that report coding errors."""
    status = data.controller.registers.get("decode_status")
    addresses = [*data.block0_error_registers, *([] if status is None else [status])]
    for place in data.block_errors:
        addresses += [place.count_register]
        addresses += [] if place.fail_register is None else [place.fail_register]
    return tuple(dict.fromkeys(addresses))


def _find_word(data: FuseData, image: bytes, address: int) -> int:
    return int.from_bytes(image, "big") >> 8 * (address - data.controller.base) & ALL_ONES


def build_image(
    data: FuseData, burned: Sequence[int], errors: Mapping[int, int] | None = None
) -> bytes:
    """The file's content for the burned blocks, and the registers that report errors."""
    value = int.from_bytes(_tag(data), "little") << 8 * _tag_offset(data)
    for block, bits in zip(data.blocks, burned, strict=True):
        value |= bits << 8 * (block.read - data.controller.base)
    for address, word in (errors or {}).items():
        value |= word << 8 * (address - data.controller.base)
    return value.to_bytes(data.controller.size, "big")


def parse_image(data: FuseData, image: bytes, path: str) -> list[int]:
    """The burned blocks in a file.

    :raises FileError: code ``efuse-file``
    """
    size, base = data.controller.size, data.controller.base
    if len(image) != size:
        raise _wrong_file(data, path, f"it has {len(image)} bytes, not {size}")
    value = int.from_bytes(image, "big")
    place = value >> 8 * _tag_offset(data) & ((1 << 8 * len(_tag(data))) - 1)
    tag = place.to_bytes(len(_tag(data)), "little")
    if tag.startswith(TAG) and tag != _tag(data):
        other = tag.removeprefix(TAG).rstrip(b"\0").decode(errors="replace")
        raise _wrong_file(data, path, f"it belongs to {other}")
    if value & ~_known_bits(data):
        raise _wrong_file(data, path, "it has bits where no register is")
    return [value >> 8 * (block.read - base) & ((1 << block.bits) - 1) for block in data.blocks]


def _known_bits(data: FuseData) -> int:
    """The bits of an image that can be set: blocks, registers for programming, and the controller's others."""
    controller = data.controller
    words = {*controller.registers.values(), *data.block0_error_registers}
    for block in data.blocks:
        words |= {block.read + 4 * i for i in range(block.words)}
        words |= {block.write + 4 * i for i in range(block.words)}
    for name, count in (
        ("program_data", controller.program_words),
        ("check_data", controller.check_words),
    ):
        start = controller.registers.get(name, 0)
        words |= {start + 4 * i for i in range(count if start else 0)}
    return sum(ALL_ONES << 8 * (address - controller.base) for address in words)


def _tag_offset(data: FuseData) -> int:
    return data.blocks[0].write - data.controller.base


def _tag(data: FuseData) -> bytes:
    """The chip's name as it is in the file. All names have the same length there."""
    return (TAG + data.id.encode()).ljust(20, b"\0")


def _wrong_file(data: FuseData, path: str, reason: str) -> FileError:
    return FileError(
        f"{path!r} does not hold the eFuses of {load_chip(data.id).name}: {reason}",
        hint=f"Use a file of {data.controller.size} bytes that was made for this chip, or a new name.",
        code="efuse-file",
    )
