"""Dangerous combinations of eFuses: what a burn would leave that makes a chip useless, weak, or unreachable.

The rules are data (``[[danger]]`` of the eFuse files): conditions on fields, and calculated ones that ``CHECKS`` names. A rule
applies to the state after the burn, whatever command sets it, and only if it did not apply before to the same blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from functools import cache
from typing import NamedTuple

from espwire.chips.tables import load_table
from espwire.efuse import meaning
from espwire.efuse.model import Block, CommonData, Danger, Field, FuseData, Purpose
from espwire.efuse.plan import BurnPlan
from espwire.efuse.state import READ_LOCKS, FuseState
from espwire.flash.findings import Finding, build_fatal

CHIP = "chip"
NO_FLASH_KEY = "efuse-no-flash-key"


class Surroundings(NamedTuple):
    """What else matters: the kind of the port in use, and the voltage at which the flash answers; empty: none, unknown."""

    port: str = ""
    flash_voltage: str = ""


ALONE = Surroundings()


class Place(NamedTuple):
    """A key or digest in a block: its bits, and what it is for."""

    block: Block
    mask: int
    purpose: Purpose


@cache
def load_common() -> tuple[Danger, ...]:
    """The rules that all chips share."""
    from espwire.chips.fuse_tables.all_chips import TABLE

    return load_table(CommonData, TABLE, "efuses/common.toml:").danger


def find_dangers(plan: BurnPlan, around: Surroundings = ALONE) -> list[Finding]:
    """The rules that apply after a burn and did not before, or to other places; notes are not fatal."""
    before, after = plan.before, plan.state_after
    found: dict[tuple[str, str], Finding] = {}
    for rule in (*load_common(), *before.data.danger):
        if rule.changes and not any(
            before.value_of(name) != after.value_of(name) for name in rule.changes
        ):
            continue
        if find_affected(rule, after, around) - find_affected(rule, before, around):
            finding = (
                Finding(rule.name, rule.text)
                if rule.note
                else build_fatal(rule.name, rule.text, by_name_only=True)
            )
            found.setdefault((rule.name, rule.text), finding)
    if names := _find_hidden_empty(plan):
        text = f"{', '.join(names)} would be hidden without a key in it: that it is empty could not be found out later"
        finding = build_fatal("efuse-hidden-empty", text, by_name_only=True)
        found[finding.code, text] = finding
    return list(found.values())


def _find_hidden_empty(plan: BurnPlan) -> list[str]:
    """Key blocks of which a burn hides a part that has no bit set."""
    before, full, names = plan.before, plan.before.change(plan.after), []
    for block in before.data.blocks:
        if block.id not in list_secret_blocks(before.data):
            continue
        old = before.value_of(READ_LOCKS)
        for lock in block.rd_dis:
            mask = full.hidden_by(block, full.value_of(READ_LOCKS) & ~old & 1 << lock)
            if mask and not full.blocks[block.id] & mask:
                names.append(block.name)
    return list(dict.fromkeys(names))


def list_secret_blocks(data: FuseData) -> set[int]:
    """The ids of the blocks that may hold secret keys."""
    blocks = {purpose.block for purpose in data.key_purposes if purpose.read_protect}
    if None in blocks:  # in any block for keys
        blocks |= {block.id for block in data.blocks if block.name in data.key_blocks}
    return {block for block in blocks if block is not None}


def applies(rule: Danger, state: FuseState, around: Surroundings) -> bool:
    """Whether all conditions of a rule hold."""
    return bool(find_affected(rule, state, around))


def find_affected(rule: Danger, state: FuseState, around: Surroundings) -> set[str]:
    """The blocks or fields to which a rule applies, ``CHIP`` for the whole chip; empty: a condition does not hold."""
    if not rule.min_revision <= state.revision <= rule.max_revision:
        return set()
    if rule.port and around.port != rule.port:
        return set()
    if not all(state.layout.find(name) for name in rule.present):
        return set()
    if not all(state.value_of(name) for name in rule.all_set):
        return set()
    if rule.any_set and not any(state.value_of(name) for name in rule.any_set):
        return set()
    if not all(state.value_of(name).bit_count() % 2 for name in rule.odd):
        return set()
    if any(state.value_of(name) for name in rule.clear):
        return set()
    found = CHECKS[rule.check](state, rule, around) if rule.check else True
    return ({CHIP} if found else set()) if isinstance(found, bool) else found


def find_places(state: FuseState, names: Collection[str]) -> Iterator[Place]:
    """Where keys with these purposes are, or may be on chips that do not store purposes."""
    data, layout = state.data, state.layout
    blocks = [block for block in data.blocks if block.purpose_field]
    for block in blocks:
        number = meaning.purpose_number(state, layout.field(block.purpose_field))
        for purpose in layout.purposes():
            if purpose.value == number and purpose.name in names:
                yield Place(block, (1 << state.size(block)) - 1, purpose)
    for purpose in () if blocks else data.key_purposes:
        if purpose.name in names:
            place = purpose.block
            block = layout.block(data.key_blocks[0]) if place is None else data.blocks[place]
            size = 8 * purpose.bytes or state.size(block) - purpose.start
            yield Place(block, ((1 << size) - 1) << purpose.start, purpose)


def find_flash_keys(state: FuseState) -> Iterator[tuple[Place, ...]]:
    """Where flash encryption keys are, or may be: one block, or two for the halves of a key; those that win first."""
    rules = (*load_common(), *state.data.danger)
    names = {name for rule in rules if rule.name == NO_FLASH_KEY for name in rule.keys}
    places = {place.purpose.name: place for place in find_places(state, names)}
    for whole in state.data.key_purposes:
        halves = tuple(places.pop(name) for name in whole.splits_into if name in places)
        if len(halves) > 1:
            yield halves
    single = [place for place in places.values() if not _is_half(state, place)]
    for place in sorted(single, key=lambda place: -len(place.purpose.sets)):
        yield (place,)


def _is_half(state: FuseState, place: Place) -> bool:
    return any(place.purpose.name in each.splits_into for each in state.data.key_purposes)


def is_hidden(state: FuseState, place: Place) -> bool:
    """Whether software cannot read some of it."""
    return bool(state.hidden_mask(place.block) & place.mask)


def is_readable(state: FuseState, place: Place) -> bool:
    """Whether data is there that software can read."""
    return bool(state.blocks[place.block.id] & place.mask) and not is_hidden(state, place)


def find_digests(state: FuseState) -> list[Place]:
    """Where digests of public keys are, or may be."""
    names = {purpose.name for purpose in state.data.key_purposes if purpose.digest}
    return list(find_places(state, names))


def is_revoked(state: FuseState, place: Place) -> bool:
    """Whether the digest there is revoked."""
    return bool(state.value_of(meaning.revocation_name(place.purpose.name)))


def _no_digest(state: FuseState, rule: Danger, around: Surroundings) -> bool:
    places = (place for place in find_digests(state) if is_readable(state, place))
    return all(is_revoked(state, place) for place in places)


def _all_revoked(state: FuseState, rule: Danger, around: Surroundings) -> bool:
    places = [place for place in find_digests(state) if is_readable(state, place)]
    return bool(places) and all(is_revoked(state, place) for place in places)


def _hidden_digest(state: FuseState, rule: Danger, around: Surroundings) -> set[str]:
    return {place.block.name for place in find_digests(state) if is_hidden(state, place)}


def _list_keys(state: FuseState, rule: Danger) -> Iterator[Place]:
    """The places with data, or with what cannot be read."""
    for place in find_places(state, rule.keys):
        if is_hidden(state, place) or is_readable(state, place):
            yield place


def _has_key(state: FuseState, rule: Danger, around: Surroundings) -> set[str]:
    return {place.block.name for place in _list_keys(state, rule)}


def _no_key(state: FuseState, rule: Danger, around: Surroundings) -> bool:
    """No whole key: of one in two blocks, both halves are needed."""
    names = {place.purpose.name for place in _list_keys(state, rule)}
    for purpose in state.data.key_purposes:
        if not names.issuperset(purpose.splits_into):
            names -= set(purpose.splits_into)
    return not names


def _coded_data(state: FuseState, rule: Danger, around: Surroundings) -> bool:
    """A block whose coding scheme can be selected holds data, or cannot be read."""
    return any(
        state.blocks[block.id] or state.hidden_mask(block) for block in state.data.blocks[1:]
    )


def _same_purpose(state: FuseState, rule: Danger, around: Surroundings) -> set[str]:
    if not any(block.purpose_field for block in state.data.blocks):
        return set()
    places = [[place.block.name for place in find_places(state, (name,))] for name in rule.keys]
    return {name for names in places if len(names) > 1 for name in names}


def _mixed(state: FuseState, rule: Danger, around: Surroundings) -> bool:
    stored = any(block.purpose_field for block in state.data.blocks)
    return stored and all(any(find_places(state, names)) for names in (rule.keys, rule.others))


def _forbidden_slot(state: FuseState, rule: Danger, around: Surroundings) -> bool:
    slots = [block for block in state.data.blocks if block.purpose_field]
    places = find_places(state, state.data.slot5_forbidden)
    return any(place.block.id == slots[-1].id for place in places)


def _open_key(state: FuseState, rule: Danger, around: Surroundings) -> set[str]:
    """RD_DIS is locked, and a key that it should hide is not hidden. Bits that may be a digest do not count."""
    if not state.locked(state.layout.field(READ_LOCKS).wr_dis):
        return set()
    secret = {purpose.name for purpose in state.data.key_purposes if purpose.read_protect}
    stored = any(block.purpose_field for block in state.data.blocks)
    digests = [] if stored else find_digests(state)
    found = set()
    for place in find_places(state, secret):
        shared = sum(digest.mask for digest in digests if digest.block.id == place.block.id)
        if is_readable(state, place._replace(mask=place.mask & ~shared)):
            found.add(place.block.name)
    return found


def _flash_voltage(state: FuseState, rule: Danger, around: Surroundings) -> bool:
    fixed = find_fixed_voltage(state)
    return bool(around.flash_voltage and fixed) and fixed != around.flash_voltage


def find_fixed_voltage(state: FuseState) -> str:
    """The flash voltage that eFuses select: ``1.8V``, ``3.3V`` or ``OFF``; empty: a pin selects it."""
    names = state.data.flash_voltage
    if names is None or not state.value_of(names.force):
        return ""
    if not state.value_of(names.power):
        return "OFF"
    return "3.3V" if state.value_of(names.high) else "1.8V"


def _counter_hole(state: FuseState, rule: Danger, around: Surroundings) -> set[str]:
    counters = (field for field in state.layout.fields if field.format == "bit_count")
    return {field.name for field in counters if _has_hole(state, field)}


def _has_hole(state: FuseState, field: Field) -> bool:
    value = state.raw(field)
    return bool(value & value + 1)


CHECKS: dict[str, Callable[[FuseState, Danger, Surroundings], bool | set[str]]] = {
    "no_digest": _no_digest,
    "all_revoked": _all_revoked,
    "hidden_digest": _hidden_digest,
    "has_key": _has_key,
    "no_key": _no_key,
    "coded_data": _coded_data,
    "same_purpose": _same_purpose,
    "mixed": _mixed,
    "forbidden_slot": _forbidden_slot,
    "open_key": _open_key,
    "flash_voltage": _flash_voltage,
    "counter_hole": _counter_hole,
}
