"""What the eFuses of a chip hold at one moment: words as software reads them, and the fields in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from espwire.chips.model import Chip
from espwire.chips.registry import load_chip
from espwire.device.identity import Identity, Registers
from espwire.efuse.model import Block, Calculated, Field, FuseData, Scheme
from espwire.efuse.tables import AnyField, Layout, find_layout, load_fuses

WRITE_LOCKS, READ_LOCKS = "WR_DIS", "RD_DIS"


class FuseState:
    """Blocks of a chip, each as one number: bit ``i`` of the block is bit ``i`` of the number.

    :ivar blocks: as software reads them: 0 where reading is disabled
    :ivar outside: other registers of the controller by address, such as those that report errors
    """

    def __init__(
        self,
        chip_id: str,
        blocks: Sequence[int],
        *,
        outside: Mapping[int, int] | None = None,
        custom: Sequence[Field] = (),
    ) -> None:
        self.chip: Chip = load_chip(chip_id)
        self.data: FuseData = load_fuses(chip_id)
        self.blocks = tuple(blocks)
        self.outside = dict(outside or {})
        self.revision = int(Identity(self.chip, Registers(self.register)).revision())
        self.layout = (
            Layout(self.data, self.revision, custom)
            if custom
            else find_layout(chip_id, self.revision)
        )

    def change(self, blocks: Sequence[int]) -> FuseState:
        """The same chip with other contents."""
        return FuseState(
            self.data.id,
            blocks,
            outside=self.outside,
            custom=self.layout.custom,
        )

    def register(self, address: int) -> int:
        """The word that software reads at an address; 0 where nothing is known."""
        for block, value in zip(self.data.blocks, self.blocks, strict=True):
            if block.read <= address < block.read + 4 * block.words:
                return value >> 8 * (address - block.read) & 0xFFFFFFFF
        return self.outside.get(address, 0)

    def words(self, block: Block) -> tuple[int, ...]:
        """The words of a block that hold data in its coding scheme."""
        count = self.size(block) // 32
        value = self.blocks[block.id]
        return tuple(value >> 32 * i & 0xFFFFFFFF for i in range(count))

    def scheme(self, block: Block) -> Scheme:
        """The coding scheme of a block."""
        coding = self.data.coding
        if block.id == 0:
            return coding.block0
        if coding.other_blocks != "by_field":
            return coding.other_blocks
        return coding.values[self.blocks[0] >> 32 * coding.word & coding.mask]

    def size(self, block: Block) -> int:
        """Bits of data that a block holds in its coding scheme."""
        return block.bits * 3 // 4 if self.scheme(block) == "three_quarter" else block.bits

    def bits(self, field: AnyField) -> int:
        """The size of a field in the coding scheme of its block."""
        if isinstance(field, Field) and field.bits_three_quarter is not None:
            block = self.data.blocks[field.block]
            if self.scheme(block) == "three_quarter":
                return field.bits_three_quarter
        return field.bits

    def raw(self, field: AnyField) -> int:
        """The number in the bits of a field."""
        if isinstance(field, Field):
            return self.blocks[field.block] >> field.start & ((1 << self.bits(field)) - 1)
        if field.joined:
            return self._join_mac(field)
        value = sum(self.raw(self.layout.field(part.field)) << part.to for part in field.parts)
        if (extra := field.extra_part) is not None:
            value |= (self.register(extra.address) >> extra.bit & 1) << extra.to
        return field.map.get(value, field.otherwise) if field.map else value

    def value_of(self, name: str, default: int = 0) -> int:
        """The number in the field ``name``; ``default`` if the chip has no such field."""
        field = self.layout.find(name)
        return default if field is None else self.raw(field)

    def _join_mac(self, field: Calculated) -> int:
        mac, extension = (self.layout.field(name) for name in field.joined)
        address, middle = self.raw(mac).to_bytes(6, "big"), self.raw(extension).to_bytes(2, "big")
        return int.from_bytes(address[:3] + middle + address[3:], "little")

    # locks

    def locked(self, lock: int | None) -> bool:
        """Whether a bit of WR_DIS is set. No bit: nothing can lock it."""
        return lock is not None and bool(self.value_of(WRITE_LOCKS) >> lock & 1)

    def writeable(self, field: AnyField) -> bool:
        """Whether the bits of a field can still be burned."""
        return isinstance(field, Calculated) or not self.locked(field.wr_dis)

    def readable(self, field: AnyField) -> bool:
        """Whether software can read a field. A field that spans two locks needs both."""
        if isinstance(field, Calculated):
            return True
        return not any(self.read_locked(lock) for lock in field.rd_dis)

    def read_locked(self, lock: int) -> bool:
        """Whether a bit of RD_DIS is set."""
        return bool(self.value_of(READ_LOCKS) >> lock & 1)

    def exists(self, field: AnyField) -> bool:
        """Whether a field has a meaning in this state: groups of fields depend on others."""
        group = field.group if isinstance(field, Field) else ""
        if group == "calibration":
            return self.block_version() >= self.data.groups.calibration_min_block_version
        return group != "adc_calibration" or self.value_of("BLK3_PART_RESERVE") == 1

    def block_version(self) -> int:
        """``100 * major + minor`` of the version of the calibration data."""
        return 100 * self.value_of("BLK_VERSION_MAJOR") + self.value_of("BLK_VERSION_MINOR")

    def fields(self) -> Iterator[AnyField]:
        """The fields that exist in this state."""
        return (field for field in self.layout if self.exists(field))

    def locked_mask(self, block: Block) -> int:
        """The bits of a block that cannot be burned because of WR_DIS. Single fields have locks in block 0 only."""
        if self.locked(block.wr_dis):
            return (1 << block.bits) - 1
        mask = 0
        if block.id == 0:
            for field in (*self.layout.fields, *self.layout.hidden):
                if field.block == 0 and self.locked(field.wr_dis):
                    mask |= field.mask
        return mask

    def hidden_mask(self, block: Block) -> int:
        """The bits of a block that software reads as 0 because of RD_DIS."""
        return self.hidden_by(block, self.value_of(READ_LOCKS))

    def hidden_by(self, block: Block, locks: int) -> int:
        """The bits of a block that these bits of RD_DIS hide.

        The locks of a block share its words evenly: two locks hide a half each. A lock on single fields hides these.
        """
        mask = 0
        share = block.bits // max(len(block.rd_dis), 1)
        for index, lock in enumerate(block.rd_dis):
            if locks >> lock & 1:
                mask |= ((1 << share) - 1) << share * index
        if not block.rd_dis:
            for field in (*self.layout.fields, *self.layout.hidden):
                if field.block == block.id and any(locks >> lock & 1 for lock in field.rd_dis):
                    mask |= field.mask
        return mask
