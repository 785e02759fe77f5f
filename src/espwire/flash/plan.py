"""Decides what to do to the flash, before anything is touched. Pure: a plan can be printed, tested, thrown away.

Whether the plan is wise (encryption, secure boot, wrong chip) is asked in guards.py. All ranges are half-open.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import IntEnum

from espwire.blob import Blob
from espwire.compress import deflate_zlib
from espwire.device.transfer import erase_size_to_send
from espwire.errors import UsageError
from espwire.events import PlannedStep
from espwire.flash.changes import find_changed_runs
from espwire.flash.checks import WRITE_ALIGN, can_compare, check_parts, span
from espwire.flash.estimate import TransportCost, count_wire_bytes, estimate_erase, estimate_write
from espwire.protocol.dialect import Dialect, EraseRule
from espwire.protocol.opcodes import Op
from espwire.sizes import align_down, align_up

BLANK = b"\xff"


Part = Blob  # to be replaced by Blob everywhere


@dataclass(frozen=True, kw_only=True)
class FlashTarget:
    """What is known before planning. ``flash_size`` None: not known, so not checked; ``size_assumed``: it is a guess.

    ``long_addresses``: the loader reaches beyond 16 MB. No ROM loader is known to; our stub does.
    ``part_size``: what the flash's own id tells, whatever size the user states; None: it tells nothing.
    ``present``: addresses of parts that the flash was found to hold already.
    """

    dialect: Dialect
    flash_size: int | None = None
    size_assumed: bool = False
    secure_download: bool = False
    sector_size: int = 0x1000
    encrypted_align: int = 16
    long_addresses: bool = False
    part_size: int | None = None
    present: frozenset[int] = frozenset()

    def supports(self, op: IntEnum) -> bool:
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


@dataclass(frozen=True, kw_only=True)
class Policy:
    """What the caller wants.

    ``compress`` None: where the loader can and it is shorter; True: encrypted parts, too; False: never.
    ``verify`` None: where the loader can; True: refuse to write where it cannot; False: never.
    ``consents`` allow fatal findings by name, ``force`` all of them but those that need their name.
    ``rewrites``: how often a part may be tried again.
    ``ignore_flash_enc_efuse``: do not ask the eFuses whether the chip can encrypt.
    ``skip_flashed``: leave out parts that the flash holds already, by its MD5.
    ``trust_flash_content``: do not even check a part that equals its ``previous``.
    """

    compress: bool | None = None
    verify: bool | None = None
    erase_all: bool = False
    force: bool = False
    consents: frozenset[str] = frozenset()
    rewrites: int = 1
    ignore_flash_enc_efuse: bool = False
    skip_flashed: bool = False
    trust_flash_content: bool = False


@dataclass(frozen=True)
class Finding:
    """Something to know before acting. ``fatal``: it stops the work unless ``consent`` (a name) is given.

    ``by_name_only``: ``force`` does not stand in for the consent.
    """

    code: str
    text: str
    fatal: bool = False
    consent: str = ""
    by_name_only: bool = False


@dataclass(frozen=True)
class Erase:
    """Erase whole sectors. ``whole``: all that the flash has."""

    address: int
    size: int
    whole: bool = False

    def describe(self) -> str:
        """One line for people."""
        return f"erase {span(self.address, self.address + self.size)}"


@dataclass(frozen=True)
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
        return f"write {self.name} to {span(self.address, self.address + len(self.data))}{how}"


@dataclass(frozen=True)
class Verify:
    """The flash must hold ``data`` at ``address``; how to find out is the executor's choice.

    ``rewrite``: what to write if it does not, where the step before wrote only a part of it.
    ``tail``: bytes behind ``data`` that must be blank: up to the end of the last sector, which holds the padding of the
    last block and was erased with the rest.
    """

    address: int
    data: bytes = field(repr=False)
    name: str
    rewrite: Write | None = field(default=None, repr=False)
    tail: int = 0

    @property
    def content(self) -> bytes:
        """All that the flash must hold from ``address`` on, blank tail included."""
        return self.data + BLANK * self.tail

    def describe(self) -> str:
        """One line for people."""
        return f"verify {self.name} at {span(self.address, self.address + len(self.data))}"


@dataclass(frozen=True)
class Skip:
    """Nothing to do for this part, and why. ``checked``: the flash was asked, and holds it."""

    address: int
    size: int
    name: str
    why: str
    checked: bool = False

    def describe(self) -> str:
        """One line for people."""
        return f"skip {self.name}: {self.why}"


Step = (
    Erase | Write | Verify | Skip
)  # later also Keep: journalled on the host, then rewritten after the erase


@dataclass(frozen=True)
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

    @property
    def unverified(self) -> tuple[str, ...]:
        """Names of what is written and not verified after."""
        checks = [
            range(s.address, s.address + len(s.data)) for s in self.steps if isinstance(s, Verify)
        ]
        return tuple(w.name for w in self.writes if not any(w.address in check for check in checks))

    @property
    def unchecked(self) -> tuple[str, ...]:
        """Names of what no step looks at in the flash itself: unverified, or skipped on trust."""
        trusted = (s.name for s in self.steps if isinstance(s, Skip) and s.size and not s.checked)
        return (*self.unverified, *trusted)

    def describe(self) -> tuple[str, ...]:
        """One line per step."""
        return tuple(step.describe() for step in self.steps)

    @property
    def actions(self) -> tuple[PlannedStep, ...]:
        """The steps for programs that show them."""
        return tuple(map(describe_step, self.steps))

    @property
    def shares(self) -> tuple[tuple[str, str, float], ...]:
        """The tasks that will report progress, each with its share of the work, for ``events.Overall``."""
        return tuple(_weigh(step) for step in self.steps if not isinstance(step, Skip))


def describe_step(step: Step) -> PlannedStep:
    """A step as events report it."""
    size = step.size if isinstance(step, Erase | Skip) else len(step.data)
    name = "" if isinstance(step, Erase) else step.name
    return PlannedStep(kind=type(step).__name__.lower(), address=step.address, size=size, name=name)


def _weigh(step: Erase | Write | Verify) -> tuple[str, str, float]:
    """Writing takes most of the time; erasing a byte about an eighth of writing it, verifying a twentieth."""
    if isinstance(step, Erase):
        return "erase", "", step.size / 8
    size = max(len(step.data), 1)
    return (
        ("write", step.name, size) if isinstance(step, Write) else ("verify", step.name, size / 20)
    )


def plan(
    parts: Iterable[Part],
    *,
    survey: FlashTarget,
    cost: TransportCost | None = None,
    policy: Policy | None = None,
) -> Plan:
    """The steps that bring ``parts`` into the flash, by address, each verified right after it is written if possible.

    :raises UsageError: code ``overlap``: two parts share a sector; code ``address``: an address cannot be written to
    :raises Unsupported: verification or encryption was asked for and the loader has none
    """
    cost, policy = cost or TransportCost(), policy or Policy()
    parts = tuple(parts)
    ordered = check_parts(parts, survey, policy)
    steps: list[Step] = [_erase_all(survey)] if policy.erase_all else []
    steps += [Skip(p.address, 0, p.label, "it is empty") for p in parts if not p.data]
    for part in ordered:
        steps += _plan_part(part, survey, policy)
    return Plan(
        tuple(steps),
        _find_side_effects(parts, steps, survey) + _find_ignored(parts, survey, policy),
        sum(step.wire_bytes for step in steps if isinstance(step, Write)),
        sum(_estimate(step, survey, cost) for step in steps),
        policy,
    )


def _plan_part(part: Part, survey: FlashTarget, policy: Policy) -> list[Step]:
    """Write all of it, or what differs, or nothing; then check."""
    if part.address in survey.present:
        return [
            Skip(
                part.address, len(part.data), part.label, "the flash holds it already", checked=True
            )
        ]
    write = _plan_write(part, survey, policy)
    if part.previous is not None and can_compare(part, survey, policy):
        head = BLANK * (part.address - write.address)
        runs = find_changed_runs(write.data, head + part.previous, survey.sector_size)
        if not runs and policy.trust_flash_content and not policy.verify:
            return [
                Skip(
                    part.address,
                    len(part.data),
                    part.label,
                    "nothing has changed, and the flash is trusted",
                )
            ]
        changed = [_cut(write, start, end, survey, policy) for start, end in runs]
        kept = (
            0 if runs and runs[0][0] == 0 else len(head)
        )  # what stands before the part, if nobody erases it
        tail = (
            find_tail(write, survey.sector_size) if runs and runs[-1][1] == len(write.data) else 0
        )
        return [
            *changed,
            Verify(write.address + kept, write.data[kept:], write.name, rewrite=write, tail=tail),
        ]
    if policy.verify is not False and not part.encrypted and survey.can_verify:
        return [
            write,
            Verify(
                write.address, write.data, write.name, tail=find_tail(write, survey.sector_size)
            ),
        ]
    return [write]


def find_tail(write: Write, sector: int) -> int:
    """Bytes from the end of what is written to the end of its last sector."""
    return -(write.address + len(write.data)) % sector


def _cut(write: Write, start: int, end: int, survey: FlashTarget, policy: Policy) -> Write:
    """The write of a run of sectors."""
    if (start, end) == (0, len(write.data)):
        return write
    return _plan_write(
        Part(write.address + start, write.data[start:end], write.name), survey, policy
    )


def _find_ignored(
    parts: tuple[Part, ...], survey: FlashTarget, policy: Policy
) -> tuple[Finding, ...]:
    """Parts that are written whole although they were to be compared with what is there."""
    found = []
    for part in parts:
        if (
            (part.previous is None and not policy.skip_flashed)
            or can_compare(part, survey, policy)
            or not part.data
        ):
            continue
        why = "this loader cannot tell what the flash holds"
        if part.encrypted or policy.erase_all:
            why = "the chip encrypts it" if part.encrypted else "all is erased first"
        found.append(Finding("written-whole", f"{part.label} is written whole: {why}"))
    if policy.compress and not survey.supports(Op.FLASH_DEFL_BEGIN):
        text = f"this {survey.dialect.name} loader cannot unpack: the data goes as it is"
        found.append(Finding("not-compressed", text))
    return tuple(found)


def _erase_all(survey: FlashTarget) -> Erase:
    if survey.real_size is None:
        raise UsageError(
            "the flash size is not known, so not all can be erased",
            hint="Name it with --flash-size.",
        )
    return Erase(0, survey.real_size, whole=True)


def _plan_write(part: Part, survey: FlashTarget, policy: Policy) -> Write:
    """The ROM erases from the sector's start but counts sectors by size, so the transfer begins at a sector."""
    start = align_down(part.address, survey.sector_size)
    align = survey.encrypted_align if part.encrypted else WRITE_ALIGN
    head = BLANK * (part.address - start)
    tail = BLANK * (-(len(head) + len(part.data)) % align)
    data = b"".join((head, part.data, tail)) if head or tail else bytes(part.data)
    packed = None
    wanted = policy.compress if part.encrypted else policy.compress is not False
    if wanted and survey.supports(Op.FLASH_DEFL_BEGIN):
        packed = deflate_zlib(data)
        if len(packed) >= len(data):
            packed = None
    wire_bytes = count_wire_bytes(packed or data, survey.dialect, packed=packed is not None)
    erase_end = find_erased_end(start, len(data), survey)
    return Write(start, data, part.label, packed, wire_bytes, part.encrypted, erase_end)


def find_erased_end(address: int, size: int, survey: FlashTarget) -> int:
    """Where erasing really ends, which on the ESP8266's ROM may be a sector late.

    Of a short range with an odd number of sectors its ROM erases one more, whatever it is sent. Parts are written
    by ascending address, so what is lost is never a part of the same plan.
    """
    sector = survey.sector_size
    if survey.dialect.erase is EraseRule.TRUE_SIZE:
        return align_up(address + size, sector)
    counted = erase_size_to_send(survey.dialect.erase, address, size) // sector
    twice = min(
        16 - address // sector % 16, counted
    )  # sectors up to the end of a 64 KiB block are counted twice
    return address + (counted + twice) * sector


def describe_erased_behind(label: str, end: int, erased_end: int) -> Finding:
    """The finding that says what is lost behind ``end``."""
    text = f"this chip's ROM loader also erases what stands behind {label}, {span(end, erased_end)}"
    return Finding("erases-behind", text)


def _find_side_effects(
    parts: tuple[Part, ...], steps: list[Step], survey: FlashTarget
) -> tuple[Finding, ...]:
    found = []
    for part in parts:
        start = align_down(part.address, survey.sector_size)
        if not part.data:
            found.append(Finding("empty-part", f"{part.label} is empty: nothing to write"))
        elif start != part.address:
            text = f"writing {part.label} also erases what stands before it, {span(start, part.address)}"
            found.append(Finding("erases-before", text))
    writes = [step for step in steps if isinstance(step, Write)]
    starts = {write.address for write in writes}
    for write in writes:
        end = align_up(write.address + len(write.data), survey.sector_size)
        if write.erase_end > end and end not in starts:
            found.append(describe_erased_behind(write.name, end, write.erase_end))
    return tuple(found)


def _estimate(step: Step, survey: FlashTarget, cost: TransportCost) -> float:
    if isinstance(step, Erase):
        return estimate_erase(step.address, step.size, cost)
    if isinstance(step, Write):
        payload = len(step.packed or step.data)
        return estimate_write(
            range(step.address, step.erase_end), payload, step.wire_bytes, survey.dialect, cost
        )
    if isinstance(step, Verify) and survey.supports(Op.SPI_FLASH_MD5):
        return cost.md5_per_mb_s * len(step.data) / 1e6 + cost.latency_s
    return 0.0
