"""Decides what to do to the flash, before anything is touched. Pure: a plan can be printed, tested, thrown away.

Whether the plan is wise (encryption, secure boot, wrong chip) is asked in guards.py. All ranges are half-open.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import pairwise

from espwire.bits import align_down, align_up, format_size
from espwire.device.transfer import erase_size_to_send
from espwire.errors import Unsupported, UsageError
from espwire.flash.cost import LinkCost, count_wire_bytes, estimate_erase, estimate_write
from espwire.wire.commands import Op
from espwire.wire.dialect import Dialect, EraseRule

ADDRESS_LIMIT = 1 << 32
WRITE_ALIGN = 4
BLANK = b"\xff"
COMPRESSION_LEVEL = 9


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes for a flash address. ``encrypted``: the chip encrypts them while writing."""

    address: int
    data: bytes = field(repr=False)
    name: str = ""
    encrypted: bool = False

    @property
    def end(self) -> int:
        """One past the last address."""
        return self.address + len(self.data)

    @property
    def label(self) -> str:
        """How to call it in messages."""
        return self.name or f"the part at {self.address:#x}"


@dataclass(frozen=True, kw_only=True, slots=True)
class FlashSurvey:
    """What is known before planning. ``flash_size`` None: not known, so not checked; ``size_assumed``: it is a guess.

    ``long_addresses``: the loader reaches beyond 16 MB. No ROM loader is known to.
    """

    dialect: Dialect
    flash_size: int | None = None
    size_assumed: bool = False
    secure_download: bool = False
    sector_size: int = 0x1000
    encrypted_align: int = 16
    long_addresses: bool = False

    def supports(self, op: Op) -> bool:
        """Whether the loader takes ``op`` now."""
        return op in (self.dialect.secure_ops if self.secure_download else self.dialect.ops)

    @property
    def real_size(self) -> int | None:
        """The flash size where it is known, not guessed."""
        return None if self.size_assumed else self.flash_size

    @property
    def can_verify(self) -> bool:
        """Whether flash content can be checked at all."""
        return any(map(self.supports, (Op.SPI_FLASH_MD5, Op.READ_FLASH_SLOW, Op.READ_FLASH)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """What the caller wants.

    ``compress`` None: where the loader can and it is shorter; True: insist; False: never.
    ``verify`` None: where the loader can; True: refuse to write where it cannot; False: never.
    ``consents`` allow fatal findings by name, ``force`` all of them. ``rewrites``: how often a part may be tried again.
    """

    compress: bool | None = None
    verify: bool | None = None
    erase_all: bool = False
    force: bool = False
    consents: frozenset[str] = frozenset()
    rewrites: int = 1


@dataclass(frozen=True, slots=True)
class Finding:
    """Something to know before acting. ``fatal``: it stops the work unless ``consent`` (a name) is given."""

    code: str
    text: str
    fatal: bool = False
    consent: str = ""


@dataclass(frozen=True, slots=True)
class Erase:
    """Erase whole sectors."""

    address: int
    size: int

    def describe(self) -> str:
        """One line for people."""
        return f"erase {_span(self.address, self.address + self.size)}"


@dataclass(frozen=True, slots=True)
class Write:
    """Erase the sectors of a part and write it.

    ``address`` and ``data`` are what is sent: the part, filled with 0xFF down to the sector start and up to 4 bytes.
    ``packed`` is the zlib form where that is to be sent; ``wire_bytes`` is what the host sends in all.
    """

    address: int
    data: bytes = field(repr=False)
    name: str
    packed: bytes | None = field(default=None, repr=False)
    wire_bytes: int = 0
    encrypted: bool = False
    erase_end: int = 0

    def describe(self) -> str:
        """One line for people."""
        how = f", compressed to {len(self.packed)} bytes" if self.packed is not None else ""
        how += ", encrypted by the chip" if self.encrypted else ""
        return f"write {self.name} to {_span(self.address, self.address + len(self.data))}{how}"


@dataclass(frozen=True, slots=True)
class Verify:
    """The flash must hold ``data`` at ``address``; how to find out is the executor's choice."""

    address: int
    data: bytes = field(repr=False)
    name: str

    def describe(self) -> str:
        """One line for people."""
        return f"verify {self.name} at {_span(self.address, self.address + len(self.data))}"


@dataclass(frozen=True, slots=True)
class Skip:
    """Nothing to do for this part, and why."""

    address: int
    size: int
    name: str
    why: str

    def describe(self) -> str:
        """One line for people."""
        return f"skip {self.name}: {self.why}"


Step = Erase | Write | Verify | Skip  # later also Keep: journalled on the host, then rewritten after the erase


@dataclass(frozen=True, slots=True)
class Plan:
    """What will be done, in order. ``wire_bytes`` is what the host sends; ``seconds`` an estimate of the whole."""

    steps: tuple[Step, ...]
    findings: tuple[Finding, ...] = ()
    wire_bytes: int = 0
    seconds: float = 0.0
    policy: Policy = Policy()

    @property
    def writes(self) -> tuple[Write, ...]:
        """The steps that write."""
        return tuple(step for step in self.steps if isinstance(step, Write))

    def describe(self) -> tuple[str, ...]:
        """One line per step."""
        return tuple(step.describe() for step in self.steps)


def plan(
    parts: Iterable[Part],
    *,
    survey: FlashSurvey,
    cost: LinkCost | None = None,
    policy: Policy | None = None,
) -> Plan:
    """The steps that bring ``parts`` into the flash, by address, each verified right after it is written if possible.

    :raises UsageError: code ``overlap``: two parts share a sector; code ``address``: an address cannot be written to
    :raises Unsupported: compression, verification or encryption was asked for and the loader has none
    """
    cost, policy = cost or LinkCost(), policy or Policy()
    parts = tuple(parts)
    _check_abilities(parts, survey, policy)
    ordered = sorted((p for p in parts if p.data), key=lambda p: (p.address, p.end))  # see find_erased_end
    for part in ordered:
        _check_address(part, survey)
    for left, right in pairwise(ordered):
        _check_overlap(left, right, survey.sector_size)
    steps: list[Step] = [_erase_all(survey)] if policy.erase_all else []
    steps += [Skip(p.address, 0, p.label, "it is empty") for p in parts if not p.data]
    for part in ordered:
        write = _plan_write(part, survey, policy)
        steps.append(write)
        if policy.verify is not False and not part.encrypted and survey.can_verify:
            steps.append(Verify(write.address, write.data, write.name))
    return Plan(
        tuple(steps),
        _find_side_effects(parts, steps, survey),
        sum(step.wire_bytes for step in steps if isinstance(step, Write)),
        sum(_estimate(step, survey, cost) for step in steps),
        policy,
    )


def _check_abilities(parts: tuple[Part, ...], survey: FlashSurvey, policy: Policy) -> None:
    name = survey.dialect.name
    if policy.compress and not survey.supports(Op.FLASH_DEFL_BEGIN):
        raise Unsupported(f"this {name} loader cannot unpack compressed data", hint="Leave compression out.")
    if any(part.encrypted for part in parts) and not survey.dialect.encrypted_write:
        raise Unsupported(
            f"this {name} loader cannot encrypt while writing", hint="Encrypt the file on the host first."
        )
    if policy.verify:
        check_can_verify(survey, encrypted=any(part.encrypted for part in parts))


def check_can_verify(survey: FlashSurvey, *, encrypted: bool = False) -> None:
    """Raise if flash content cannot be checked.

    :raises Unsupported: neither MD5 nor reading exists, or the content is encrypted by the chip
    """
    if encrypted:
        raise Unsupported("what the chip encrypts cannot be verified", hint="Leave verification out.")
    if not survey.can_verify:
        hint = "Secure Download Mode bars it for good." if survey.secure_download else "A stub loader will bring it."
        raise Unsupported(
            f"this {survey.dialect.name} loader can neither compute an MD5 of the flash nor read it", hint=hint
        )


def _check_address(part: Part, survey: FlashSurvey) -> None:
    align = survey.encrypted_align if part.encrypted else WRITE_ALIGN
    if part.address < 0 or part.end > ADDRESS_LIMIT:
        raise UsageError(
            f"{part.label} does not fit into 32-bit flash addresses", hint="Check the address.", code="address"
        )
    if part.address % align:
        raise UsageError(
            f"{part.label} is to go to {part.address:#x}, which is not a multiple of {align}",
            hint=f"Flash addresses are multiples of {survey.sector_size:#x}, as a rule.",
            code="address",
        )


def _check_overlap(left: Part, right: Part, sector: int) -> None:
    if align_up(left.end, sector) > align_down(right.address, sector):
        raise UsageError(
            f"{left.label} ({_span(left.address, left.end)}) and {right.label} ({_span(right.address, right.end)}) "
            f"share a {sector // 1024} KiB sector of flash",
            hint="Check the addresses: writing one would erase the other.",
            code="overlap",
            parts=[[left.label, left.address, left.end], [right.label, right.address, right.end]],
        )


def _erase_all(survey: FlashSurvey) -> Erase:
    if survey.real_size is None:
        raise UsageError("the flash size is not known, so not all can be erased", hint="Name it with --flash-size.")
    return Erase(0, survey.real_size)


def _plan_write(part: Part, survey: FlashSurvey, policy: Policy) -> Write:
    """The ROM erases from the sector's start but counts sectors by size, so the transfer begins at a sector."""
    start = align_down(part.address, survey.sector_size)
    align = 2 * survey.encrypted_align if part.encrypted else WRITE_ALIGN
    head = BLANK * (part.address - start)
    tail = BLANK * (-(len(head) + len(part.data)) % align)
    data = b"".join((head, part.data, tail)) if head or tail else bytes(part.data)
    packed = None
    if policy.compress is not False and not part.encrypted and survey.supports(Op.FLASH_DEFL_BEGIN):
        packed = zlib.compress(data, COMPRESSION_LEVEL)
        if len(packed) >= len(data):
            packed = None
    wire_bytes = count_wire_bytes(packed or data, survey.dialect, packed=packed is not None)
    erase_end = find_erased_end(start, len(data), survey)
    return Write(start, data, part.label, packed, wire_bytes, part.encrypted, erase_end)


def find_erased_end(address: int, size: int, survey: FlashSurvey) -> int:
    """Where erasing really ends, which on the ESP8266's ROM may be a sector late.

    Of a short range with an odd number of sectors its ROM erases one more, whatever it is sent. Parts are written
    by ascending address, so what is lost is never a part of the same plan.
    """
    sector = survey.sector_size
    if survey.dialect.erase is EraseRule.TRUE_SIZE:
        return align_up(address + size, sector)
    counted = erase_size_to_send(survey.dialect.erase, address, size) // sector
    twice = min(16 - address // sector % 16, counted)  # sectors up to the end of a 64 KiB block are counted twice
    return address + (counted + twice) * sector


def describe_erased_behind(label: str, end: int, erased_end: int) -> Finding:
    """The finding that says what is lost behind ``end``."""
    text = f"this chip's ROM loader also erases what stands behind {label}, {_span(end, erased_end)}"
    return Finding("erases-behind", text)


def _find_side_effects(parts: tuple[Part, ...], steps: list[Step], survey: FlashSurvey) -> tuple[Finding, ...]:
    found = []
    for part in parts:
        start = align_down(part.address, survey.sector_size)
        if not part.data:
            found.append(Finding("empty-part", f"{part.label} is empty: nothing to write"))
        elif start != part.address:
            span = _span(start, part.address)
            found.append(Finding("erases-before", f"writing {part.label} also erases what stands before it, {span}"))
    writes = [step for step in steps if isinstance(step, Write)]
    starts = {write.address for write in writes}
    for write in writes:
        end = align_up(write.address + len(write.data), survey.sector_size)
        if write.erase_end > end and end not in starts:
            found.append(describe_erased_behind(write.name, end, write.erase_end))
    return tuple(found)


def _estimate(step: Step, survey: FlashSurvey, cost: LinkCost) -> float:
    if isinstance(step, Erase):
        return estimate_erase(step.address, step.size, cost)
    if isinstance(step, Write):
        payload = len(step.packed or step.data)
        return estimate_write(range(step.address, step.erase_end), payload, step.wire_bytes, survey.dialect, cost)
    if isinstance(step, Verify) and survey.supports(Op.SPI_FLASH_MD5):
        return cost.md5_per_mb_s * len(step.data) / 1e6 + cost.latency_s
    return 0.0


def _span(start: int, end: int) -> str:
    return f"{start:#x}..{end:#x} ({format_size(end - start)})"
