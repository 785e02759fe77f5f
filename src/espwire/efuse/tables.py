"""Loads the eFuse tables of a chip, and selects the fields that its revision has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib import import_module
from typing import Any

from espwire.chips.registry import chip_ids, load_chip, parse_chip_id
from espwire.chips.tables import load_table
from espwire.efuse.model import Block, Calculated, Field, FuseData, Purpose
from espwire.errors import UsageError

VIRTUAL_TABLE = "esp32s3"  # the one that `--chip linux` means: ESP-IDF's tests on a PC use it
AnyField = Field | Calculated


def parse_fuse_chip(name: str) -> str:
    """The id of a chip with eFuses that can be burned.

    :raises UsageError: unknown chip, or one without such eFuses
    """
    chip_id = VIRTUAL_TABLE if name.lower() == "linux" else parse_chip_id(name)
    if chip_id not in fuse_chip_ids():
        raise UsageError(
            f"{load_chip(chip_id).name} has no eFuses that can be burned",
            hint="Use chip-info to see what its eFuses hold.",
        )
    return chip_id


@cache
def fuse_chip_ids() -> tuple[str, ...]:
    """Ids of the chips with eFuses that can be burned, oldest chip first."""
    from espwire.chips.fuse_tables import CHIPS

    return tuple(chip_id for chip_id in chip_ids() if chip_id in CHIPS)


@cache
def load_fuses(name: str) -> FuseData:
    """The eFuse data of a chip.

    :raises UsageError: unknown chip, or one without eFuses that can be burned
    :raises TableError: the data file is broken
    """
    chip_id = parse_fuse_chip(name)
    table: Mapping[str, Any] = import_module(f"espwire.chips.fuse_tables.{chip_id}").TABLE
    return load_table(FuseData, table, f"efuses/{chip_id}.toml:")


class Layout:
    """The blocks and fields of a chip of one revision.

    :ivar fields: in the order of the data, then custom fields
    :ivar hidden: fields that are not shown
    """

    def __init__(self, data: FuseData, revision: int, custom: Sequence[Field] = ()) -> None:
        fields: list[Field] = []
        calculated: list[Calculated] = []
        hidden: list[Field] = []
        for table in data.table:
            if not table.covers(revision):
                continue
            if table.mode == "full":
                fields, calculated, hidden = [], [], []
            fields += table.fields
            calculated += table.calculated
            hidden += table.hidden
        self.data, self.revision = data, revision
        self.custom = tuple(custom)
        self.fields = (*fields, *custom)
        self.calculated, self.hidden = tuple(calculated), tuple(hidden)
        self._names: dict[str, AnyField] = {}
        burnable = (*self.fields, *self.hidden)
        for calculated_field in self.calculated:
            self._names[calculated_field.name] = calculated_field
        for field in burnable:
            self._names.setdefault(field.name, field)
        for field in burnable:
            for name in field.alt:
                self._names.setdefault(name, field)

    def __iter__(self) -> Iterator[AnyField]:
        """The fields that are shown: those that can be burned, then calculated ones."""
        yield from self.fields
        yield from self.calculated

    def find(self, name: str) -> AnyField | None:
        """The field with this name, in either case."""
        return self._names.get(name) or self._names.get(name.upper())

    def field(self, name: str) -> Field:
        """The field with this name that can be burned.

        :raises UsageError: unknown, or calculated
        """
        found = self.find(name)
        if isinstance(found, Calculated):
            raise UsageError(
                f"{found.name} cannot be burned: it is calculated from other fields",
                hint=f"Burn {_join(part.field for part in found.parts) or _join(found.joined)}.",
            )
        if found is None:
            raise UsageError(f"{self.data.name} has no eFuse {name!r}", hint=self._suggest(name))
        return found

    def block(self, name: str) -> Block:
        """The block with this name, alias, or number.

        :raises UsageError: unknown block
        """
        wanted = name.upper()
        for block in self.data.blocks:
            names = (block.name, *block.alias, f"BLOCK{block.id}")
            if wanted in (each.upper() for each in names):
                return block
        known = ", ".join(block.name for block in self.data.blocks)
        raise UsageError(f"{self.data.name} has no block {name!r}", hint=f"Its blocks: {known}.")

    def purpose(self, name: str) -> Purpose:
        """The key purpose with this name.

        :raises UsageError: the chip does not have it
        """
        for purpose in self.purposes():
            if purpose.name == name.upper() or purpose.name == name:
                return purpose
        known = ", ".join(purpose.name for purpose in self.data.key_purposes)
        raise UsageError(
            f"{self.data.name} has no key purpose {name!r}", hint=f"Its purposes: {known}."
        )

    def purposes(self) -> tuple[Purpose, ...]:
        """Key purposes, with those of numbers that have no name yet."""
        numbers = self.data.custom_purpose_values
        custom = [Purpose(name=f"CUSTOM_{n}", value=n) for n in numbers]
        digests = [Purpose(name=f"CUSTOM_DIGEST_{n}", value=n, digest=True) for n in numbers]
        named = [
            purpose
            for purpose in self.data.key_purposes
            if purpose.max_revision is None or self.revision <= purpose.max_revision
        ]
        return (*named, *custom, *digests)

    def _suggest(self, name: str) -> str:
        from difflib import get_close_matches

        close = get_close_matches(name.upper(), list(self._names), 3)
        return (
            f"Did you mean {' or '.join(close)}?"
            if close
            else "Run the command `summary` to see the names of all eFuses."
        )


@cache
def find_layout(chip_id: str, revision: int) -> Layout:
    """The layout of a chip without custom fields."""
    return Layout(load_fuses(chip_id), revision)


def _join(names: Any) -> str:
    return " and ".join(names)
