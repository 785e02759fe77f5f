"""Summaries of eFuses: all fields as data, and as tables."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from espwire.efuse import meaning
from espwire.efuse.model import Calculated
from espwire.efuse.state import FuseState
from espwire.efuse.tables import AnyField
from espwire.errors import UsageError

# names of categories that differ from ours with a space instead of an underscore
CATEGORIES = {"mac": "MAC"}


def category_name(field: AnyField) -> str:
    """The category as espefuse spells it."""
    return CATEGORIES.get(field.category, field.category.replace("_", " "))


def select(state: FuseState, names: Sequence[str]) -> list[AnyField]:
    """The fields with these names or other names of theirs; all that exist if there are no names.

    :raises UsageError: a name is unknown, or its field has no meaning in this state
    """
    shown = list(state.fields())
    if not names:
        return shown
    found = []
    for name in names:
        field = state.layout.find(name)
        if field is None or field not in shown:
            state.layout.field(name)
            raise UsageError(
                f"{name} has no meaning in this chip: the eFuses that it depends on are not set",
                hint="Omit the name to see all eFuses that have one.",
            )
        found.append(field)
    return [field for field in shown if field in found]


def field_data(state: FuseState, field: AnyField) -> dict[str, Any]:
    """A field as data, with the keys of espefuse's JSON."""
    start = None if isinstance(field, Calculated) else field.start
    block = _first_block(state, field) if isinstance(field, Calculated) else field.block
    return {
        "bit_len": state.bits(field),
        "block": block,
        "category": category_name(field),
        "description": field.about,
        "efuse_type": meaning.type_text(state, field),
        "name": field.name,
        "pos": None if start is None else start % 32,
        "raw_value": meaning.raw_text(state, field),
        "readable": state.readable(field),
        "value": meaning.describe(state, field),
        "word": None if start is None else start // 32,
        "writeable": state.writeable(field),
    }


def _first_block(state: FuseState, field: Calculated) -> int:
    """The block that a calculated field is listed with: that of a joined MAC address, otherwise block 0."""
    return state.layout.field(field.joined[0]).block if field.joined else 0


def summary_data(state: FuseState, fields: Sequence[AnyField]) -> dict[str, dict[str, Any]]:
    """Fields by name."""
    return {field.name: field_data(state, field) for field in fields}


def is_active(state: FuseState, field: AnyField) -> bool:
    """Whether a field differs from a blank chip's, or cannot be read."""
    return bool(state.raw(field)) or not state.readable(field)
