"""Compares two partition tables: what moved, and whose data will be read as something else."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from espwire.events import PartitionChange
from espwire.image.partition_table import DATA, OTA_DATA, Partition, PartitionTable
from espwire.sizes import Ranges, format_size


class Overlap(NamedTuple):
    """``new`` gets the range ``low`` to ``high`` of ``old``, which is another partition."""

    new: Partition
    old: Partition
    low: int
    high: int


def find_changes(old: PartitionTable, new: PartitionTable) -> tuple[PartitionChange, ...]:
    """What differs, by name, in the order of the new table; partitions that vanish come last."""
    before = {row.name: row for row in reversed(old.partitions)}
    after = {row.name: row for row in reversed(new.partitions)}
    gone = [row for name, row in before.items() if name not in after][::-1]
    changes = []
    for name, row in [*after.items()][::-1]:
        if name in before:
            was: Partition | None = before[name]
        else:
            was = next((other for other in gone if _is_same_place(row, other)), None)
            gone = [other for other in gone if other is not was]
        if was is None:
            text = f"{row.label} at {row.offset:#x} ({format_size(row.size)}) is new"
            changes.append(_build("added", text, None, row))
        elif text := _describe(was, row):
            changes.append(_build("changed", f"{row.label} {text}", was, row))
    for row in gone:
        text = f"{row.label} at {row.offset:#x} ({format_size(row.size)}) vanishes"
        changes.append(_build("removed", text, row, None))
    return tuple(changes)


def _describe(was: Partition, row: Partition) -> str:
    parts = []
    if was.name != row.name:
        parts.append(f"was named {was.label}")
    if was.offset != row.offset:
        parts.append(f"moves from {was.offset:#x} to {row.offset:#x} without its content")
        if row.type == DATA and row.subtype == OTA_DATA:
            parts.append("forgets which application was selected")
    if was.size != row.size:
        verb = "grows" if row.size > was.size else "shrinks"
        parts.append(f"{verb} from {format_size(was.size)} to {format_size(row.size)}")
    if _kind(was) != _kind(row):
        parts.append(f"changes from {_kind(was)} to {_kind(row)}")
    if was.flags != row.flags:
        parts.append(f"changes its flags from {_flags(was)} to {_flags(row)}")
    return " and ".join(parts)


def find_misread(
    old: PartitionTable, new: PartitionTable, find_data: Callable[[int, int], Ranges]
) -> tuple[PartitionChange, ...]:
    """Partitions of the new table that get data of another one.

    :param find_data: the parts of a half-open range that hold data after the write, and held it before
    """
    found = []
    for overlap in _find_overlaps(old, new):
        if not find_data(overlap.low, overlap.high):
            continue
        row, was = overlap.new, overlap.old
        holds = f"{overlap.low:#x}..{overlap.high:#x}, which holds data"
        if row.name != was.name:
            text = f"{row.label} ({_kind(row)}) gets {holds} of {was.label} ({_kind(was)})"
        elif row.offset != was.offset:
            text = f"{row.label} moves to {row.offset:#x} and gets {holds} from its old place at {was.offset:#x}"
        else:
            text = f"{row.label} ({_kind(row)}) gets {holds} from when it was {_kind(was)}"
        found.append(_build("misread", text, was, row))
    return tuple(found)


def _find_overlaps(old: PartitionTable, new: PartitionTable) -> list[Overlap]:
    return [
        Overlap(row, was, low, high)
        for row in new.partitions
        for was in old.partitions
        if not _is_same_place(row, was)
        and (low := max(row.offset, was.offset)) < (high := min(row.end, was.end))
    ]


def _is_same_place(one: Partition, other: Partition) -> bool:
    """Whether what one holds is read as before, although its name or its end changed."""
    return (one.offset, one.type, one.subtype) == (other.offset, other.type, other.subtype)


def _kind(row: Partition) -> str:
    return f"{row.type_name}/{row.subtype_name}"


def _flags(row: Partition) -> str:
    return "+".join(row.flag_names) or "none"


def _build(kind: str, text: str, old: Partition | None, new: Partition | None) -> PartitionChange:
    row = new or old
    return PartitionChange(
        kind=kind,
        name=row.label if row is not None else "",
        text=text,
        old_address=old.offset if old is not None else None,
        old_size=old.size if old is not None else None,
        new_address=new.offset if new is not None else None,
        new_size=new.size if new is not None else None,
    )
