"""Collects what burning commands request, and refuses what eFuses cannot do. Nothing here touches a chip.

Bits only go from 0 to 1. A Reed-Solomon block takes one burn, and so does each 6-byte chunk with the 3/4 scheme. A locked
field or block takes none. Commands on one line are one burn: each sees what those before it want, but locks among that count
only after the burn, because locks are burned last.

A command that burns a key and hides it may run again after it was interrupted, or after it was complete. The key cannot be
read then, but the first run hid it only after it was read back. So the key counts as burned (``unproven``) if the same
commands hide it, and nothing but locks is missing.
"""

from __future__ import annotations

from espwire.efuse.check import is_finished, list_chunks
from espwire.efuse.model import Block, Field
from espwire.efuse.state import READ_LOCKS, WRITE_LOCKS, FuseState
from espwire.efuse.tables import Layout
from espwire.errors import DeviceError
from espwire.flash.findings import Finding


def build_refusal(message: str, hint: str, code: str) -> DeviceError:
    """An error for a burn that is impossible; nothing is burned."""
    return DeviceError(message, hint=hint, code=code)


class Planner:
    """What is to be burned.

    :ivar before: what the eFuses hold
    :ivar wanted: bits to set in each block; some may be set already
    :ivar dangers: what is dangerous about the files that commands name
    :ivar secret: ids of blocks that get key bytes, which are never shown
    :ivar unproven: bits of each block that are hidden; they may be burned already
    """

    def __init__(self, before: FuseState) -> None:
        self.before = before
        self.wanted = [0] * len(before.blocks)
        self.unproven = [0] * len(before.blocks)
        self._hiding = 0  # bits of RD_DIS that commands want
        self.dangers: list[Finding] = []
        self.secret: set[int] = set()
        self.typed_key = ""  # the field whose key bytes are on the command line
        self.next_value = ""  # the counter that a command increments
        self.named_keys: set[int] = set()  # ids of key blocks that commands name

    @property
    def layout(self) -> Layout:
        """The fields and blocks of the chip."""
        return self.before.layout

    def require_storable(self) -> None:
        """Make sure that the commands may be stored and carried out later: they hold no key, and no value depends on the state.

        :raises DeviceError: code ``efuse-typed-key``, ``efuse-next-value``
        """
        if self.typed_key:
            raise build_refusal(
                f"the plan would hold the key that is given for {self.typed_key}",
                "Put the key into a file and use burn-key or burn-block-data.",
                "efuse-typed-key",
            )
        if self.next_value:
            raise build_refusal(
                f"the plan needs a value for {self.next_value}: the next one differs after each burn",
                f"Write {self.next_value} VALUE.",
                "efuse-next-value",
            )

    def raw(self, field: Field) -> int:
        """The number that a field will hold."""
        block = self.before.blocks[field.block] | self.wanted[field.block]
        return block >> field.start & ((1 << self.before.bits(field)) - 1)

    def purpose_number(self, field: Field) -> int:
        """The number that a purpose field will hold, with the higher bits that another field holds."""
        high = self.raw(self.layout.field(field.high)) if field.high else 0
        return self.raw(field) | high << field.bits

    def content(self, block: Block) -> int:
        """The bits that a block will hold."""
        return self.before.blocks[block.id] | self.wanted[block.id]

    def set_field(self, field: Field, value: int, *, force: bool = False) -> None:
        """Burn a number into a field.

        :param force: add bits to a number that has others
        :raises DeviceError: it does not fit, needs a bit cleared, or the field is locked
        """
        size = self.before.bits(field)
        if value >> size:
            raise build_refusal(
                f"{value} does not fit into the {size} bits of {field.name}",
                f"Use at most {(1 << size) - 1}.",
                "efuse-value",
            )
        old = self.raw(field)
        if old & ~value and not force:
            burned = (self.before.blocks[field.block] >> field.start & ((1 << size) - 1)) == old
            reason = "it is" if burned else "another request makes it"
            raise build_refusal(
                f"{field.name} cannot become {value:#x}: {reason} {old:#x}, and bits cannot be cleared",
                f"The least value with the new bits is {old | value:#x}.",
                "efuse-clear-bits",
            )
        block = self.before.data.blocks[field.block]
        hidden = self.before.hidden_mask(block) >> field.start
        if value & ~old & ~hidden and self.before.locked(field.wr_dis):
            raise self._locked(field.name)
        self.add(block, value << field.start, field.name)

    def set_data(self, block: Block, value: int, mask: int, *, force: bool = False) -> None:
        """Burn data into the bits ``mask`` of a block.

        :raises DeviceError: as ``set_field``
        """
        old = self.content(block) & mask
        if old & ~value and not force:
            raise build_refusal(
                f"{block.name} holds other data, and bits cannot be cleared",
                "Use an empty block.",
                "efuse-clear-bits",
            )
        self.add(block, value, block.name)

    def add(self, block: Block, bits: int, name: str) -> None:
        """Set bits of a block; ``name`` is of the field or block, for errors.

        :raises DeviceError: the block or a field in it is locked, or its coding forbids another burn
        """
        state = self.before
        new = bits & ~state.blocks[block.id]
        if new and not new & ~state.hidden_mask(block):
            self.unproven[block.id] |= new
            bits &= ~new
        elif new:
            if state.scheme(block) == "repeat":
                raise build_refusal(
                    f"{block.name} has the coding scheme repeat, which cannot be burned",
                    "Only block 0 can be burned.",
                    "efuse-coding",
                )
            if bits >> state.size(block):
                raise build_refusal(
                    f"{name} is beyond the {state.size(block)} bits of {block.name}",
                    "Use fewer bits.",
                    "efuse-value",
                )
            if new & state.locked_mask(block):
                raise self._locked(name)
            if state.hidden_mask(block) & new:
                raise self._unreadable(name)
            self._require_unused(block, bits, name)
        self.wanted[block.id] |= bits

    def _require_unused(self, block: Block, bits: int, name: str) -> None:
        old = self.before.blocks[block.id]
        every = bits | self.wanted[block.id]
        for mask in list_chunks(self.before, block):
            if bits & ~old & mask and is_finished(self.before, block, mask, every):
                whole = name == block.name
                what = "" if whole else f"{name} cannot be burned: "
                advice = "Use an empty block." if whole else "Leave it as it is."
                raise build_refusal(
                    f"{what}{block.name} holds data, and its coding does not allow a second burn",
                    f"In it: {self._list_used(block, mask)}. {advice}",
                    "efuse-second-burn",
                )

    def _list_used(self, block: Block, mask: int) -> str:
        used = [
            field.name
            for field in self.before.layout.fields
            if field.block == block.id and field.mask & mask and self.before.raw(field)
        ]
        return ", ".join(used) or "bits without a name"

    def _unreadable(self, name: str) -> DeviceError:
        return build_refusal(
            f"{name} cannot be read, so it may hold other data already",
            "Use another block, or omit what is burned already.",
            "efuse-unreadable",
        )

    def find_unproven(self) -> list[Block]:
        """The blocks whose data must be burned already, because the same commands hide it; it cannot be read.

        :raises DeviceError: code ``efuse-unreadable``: other commands may have hidden it, or more than locks is missing
        """
        state = self.before
        blocks = [block for block in state.data.blocks if self.unproven[block.id]]
        locks = sum(self.layout.field(name).mask for name in (WRITE_LOCKS, READ_LOCKS))
        missing = [want & ~old for want, old in zip(self.wanted, state.blocks, strict=True)]
        missing[0] &= ~locks
        for block in blocks:
            hidden = state.hidden_by(block, self._hiding)
            if any(missing) or self.unproven[block.id] & ~hidden:
                raise self._unreadable(block.name)
        return blocks

    def _locked(self, name: str) -> DeviceError:
        return build_refusal(
            f"{name} is write-protected: it can never be changed",
            "Use summary to see what can still be burned.",
            "efuse-locked",
        )

    # locks

    def lock_write(self, lock: int | None, name: str) -> None:
        """Set a bit of WR_DIS.

        :raises DeviceError: the field or block has none
        """
        if lock is None:
            raise build_refusal(
                f"{name} cannot be write-protected: there is no lock for it",
                "Leave it as it is.",
                "efuse-no-lock",
            )
        field = self.layout.field(WRITE_LOCKS)
        self.set_field(field, self.raw(field) | 1 << lock)

    def lock_read(self, locks: tuple[int, ...], name: str) -> None:
        """Set bits of RD_DIS.

        :raises DeviceError: there are none, or RD_DIS is locked
        """
        if not locks:
            raise build_refusal(
                f"{name} cannot be read-protected: there is no lock for it",
                "Leave it as it is.",
                "efuse-no-lock",
            )
        field = self.layout.field(READ_LOCKS)
        value = self.raw(field)
        for lock in locks:
            value |= 1 << lock
            self._hiding |= 1 << lock
        if value != self.raw(field) and self.before.locked(field.wr_dis):
            raise build_refusal(
                f"{name} cannot be read-protected any more: RD_DIS is write-protected",
                "A key that must stay secret has to be burned before RD_DIS is locked.",
                "efuse-rd-dis-locked",
            )
        self.set_field(field, value)
