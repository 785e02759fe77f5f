"""Plans what to do to the flash before anything is touched: which sectors to erase and write, what to verify.

Whether the plan is wise (encryption, secure boot, wrong chip) is `safety`'s question. All ranges are half-open.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from itertools import pairwise

from espwire.blob import Blob
from espwire.compress import deflate_zlib
from espwire.errors import Unsupported, UsageError
from espwire.flash.estimate import (
    LZMA_CYCLES,
    RAW_CYCLES,
    ZLIB_CYCLES,
    TransportCost,
    count_wire_bytes,
    estimate_erase,
    estimate_lzma_bytes,
    estimate_write,
)
from espwire.flash.findings import Finding, Policy
from espwire.flash.model import (
    BLANK,
    Erase,
    FlashTarget,
    Plan,
    Skip,
    Step,
    Verify,
    Write,
    format_span,
)
from espwire.sizes import SECTOR, align_down, align_up

ADDRESS_LIMIT = 1 << 32
WRITE_ALIGN = 4


def plan(
    blobs: Iterable[Blob],
    *,
    target: FlashTarget,
    cost: TransportCost | None = None,
    policy: Policy | None = None,
    present: Collection[int] = (),
) -> Plan:
    """The steps that bring ``blobs`` into the flash, by address, each verified right after it is written if possible.

    :param present: addresses of blobs that the flash holds already
    :raises UsageError: code ``overlap``: two blobs share a sector; code ``address``: an address cannot be written to
    :raises Unsupported: verification or encryption is required and the loader has none
    """
    cost, policy = cost or TransportCost(), policy or Policy()
    blobs = tuple(blobs)
    ordered = check_blobs(blobs, target, policy)
    steps: list[Step] = [_erase_all(target)] if policy.erase_all else []
    steps += [Skip(p.address, 0, p.label, "it is empty") for p in blobs if not p.data]
    for blob in ordered:
        if blob.address in present:
            why = "the flash holds it already"
            steps.append(Skip(blob.address, len(blob.data), blob.label, why, checked=True))
        else:
            steps += _plan_blob(blob, target, cost, policy)
    return Plan(
        tuple(steps),
        _find_side_effects(blobs, steps) + _find_ignored(blobs, target, policy),
        sum(step.wire_bytes for step in steps if isinstance(step, Write)),
        sum(_estimate(step, target, cost) for step in steps),
        policy,
    )


def check_blobs(blobs: tuple[Blob, ...], target: FlashTarget, policy: Policy) -> list[Blob]:
    """The blobs that are not empty, by address, if they can be planned.

    :raises UsageError, Unsupported: as ``plan``
    """
    _check_abilities(blobs, target, policy)
    # ascending: an erase that goes too far (see FlashLimits.find_erased_end) hits no blob of the same plan
    ordered = sorted((p for p in blobs if p.data), key=lambda p: (p.address, p.end))
    for blob in ordered:
        _check_address(blob, target)
    for left, right in pairwise(ordered):
        _check_overlap(left, right)
    return ordered


def can_compare(blob: Blob, target: FlashTarget, policy: Policy) -> bool:
    """Whether a blob can be compared with the flash, and the result will still be true when it is used."""
    excluded = blob.encrypted or policy.erase_all or policy.verify is False
    return not excluded and target.limits.can_verify


def find_changed_runs(new: bytes, old: bytes, sector: int) -> tuple[tuple[int, int], ...]:
    """Half-open ranges of ``new`` that differ from ``old``: whole sectors, except at its end; neighbours are joined.

    What lies behind the end of ``old`` counts as changed.

    >>> find_changed_runs(b"aabbccdde", b"aaxbcx", 2)
    ((2, 9),)
    >>> find_changed_runs(b"aabbcc", b"aabbccdd", 2)
    ()
    """
    runs: list[tuple[int, int]] = []
    for start in range(0, len(new), sector):
        end = min(start + sector, len(new))
        if new[start:end] == old[start:end]:
            continue
        if runs and runs[-1][1] == start:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((start, end))
    return tuple(runs)


def find_tail(write: Write) -> int:
    """Bytes from the end of what is written to the end of its last sector."""
    return -write.end % SECTOR


def describe_erased_behind(label: str, end: int, erased_end: int) -> Finding:
    """The finding for what is lost behind ``end``."""
    text = (
        f"this chip's ROM loader also erases what follows {label}, {format_span(end, erased_end)}"
    )
    return Finding("erases-behind", text)


def check_can_verify(target: FlashTarget) -> None:
    """Raise if flash content cannot be checked.

    :raises Unsupported: code ``cannot-verify``: the loader can neither compute an MD5 nor read
    """
    if not target.limits.can_verify:
        raise Unsupported(
            f"the {target.chip.name}'s {target.limits.loader} loader can neither compute an MD5 of the flash nor read it",
            hint=hint_at_stub(secure=target.secure_download),
            code="cannot-verify",
        )


def hint_at_stub(*, secure: bool) -> str:
    """The hint if a loader cannot read: a ROM without a stub, which was excluded or did not start.

    :param secure: Secure Download Mode
    """
    if secure:
        return "Secure Download Mode forbids it permanently."
    return "The stub can: leave out --no-stub; if it did not start, lower --baud."


def _check_abilities(blobs: tuple[Blob, ...], target: FlashTarget, policy: Policy) -> None:
    encrypted = any(blob.encrypted for blob in blobs)
    if encrypted and not target.limits.can_encrypt:
        raise Unsupported(
            f"this {target.limits.loader} loader cannot encrypt while writing",
            hint="On an ESP32, use espwire's stub (omit --no-stub and --stub). An ESP8266 cannot encrypt.",
            code="no-encrypted-write",
        )
    if policy.verify and encrypted:
        raise Unsupported("data that the chip encrypts cannot be verified", hint="Omit --verify.")
    if policy.verify:
        check_can_verify(target)


def _check_address(blob: Blob, target: FlashTarget) -> None:
    align = target.encrypted_align if blob.encrypted else 1  # plain blobs are filled up
    if blob.address < 0 or blob.end > ADDRESS_LIMIT:
        raise UsageError(
            f"{blob.label} does not fit into 32-bit flash addresses",
            hint="Check the address.",
            code="address",
        )
    if blob.address % align:
        raise UsageError(
            f"the address {blob.address:#x} of {blob.label} is not a multiple of {align}",
            hint=f"Use a multiple of {align}.",
            code="address",
        )


def _check_overlap(left: Blob, right: Blob) -> None:
    if align_up(left.end, SECTOR) > align_down(right.address, SECTOR):
        raise UsageError(
            f"{left.label} at {left.address:#x}..{left.end:#x} and {right.label} at"
            f" {right.address:#x}..{right.end:#x} share a {SECTOR // 1024} KiB sector of flash",
            hint="Check the addresses: writing one would erase the other.",
            code="overlap",
            parts=[[left.label, left.address, left.end], [right.label, right.address, right.end]],
        )


def _plan_blob(blob: Blob, target: FlashTarget, cost: TransportCost, policy: Policy) -> list[Step]:
    """Write all of it, or what differs, or nothing; then check."""
    write = _plan_write(blob, target, cost, policy)
    if blob.previous is not None and can_compare(blob, target, policy):
        return _plan_changes(blob, blob.previous, write, target, cost, policy)
    if policy.verify is not False and not blob.encrypted and target.limits.can_verify:
        return [write, Verify(write.address, write.data, write.name, tail=find_tail(write))]
    return [write]


def _plan_changes(
    blob: Blob,
    previous: bytes,
    write: Write,
    target: FlashTarget,
    cost: TransportCost,
    policy: Policy,
) -> list[Step]:
    """Write the sectors that differ from ``previous``; then check all of it."""
    head = BLANK * (blob.address - write.address)
    runs = find_changed_runs(write.data, head + previous, SECTOR)
    if not runs and policy.trust_flash_content and not policy.verify:
        why = "nothing has changed, and the flash is trusted"
        return [Skip(blob.address, len(blob.data), blob.label, why)]
    changed = [_cut(write, start, end, target, cost, policy) for start, end in runs]
    kept = 0 if runs and runs[0][0] == 0 else len(head)  # before the blob, if not erased
    tail = find_tail(write) if runs and runs[-1][1] == len(write.data) else 0
    verify = Verify(write.address + kept, write.data[kept:], write.name, rewrite=write, tail=tail)
    return [*changed, verify]


def _cut(
    write: Write, start: int, end: int, target: FlashTarget, cost: TransportCost, policy: Policy
) -> Write:
    """The write of a run of sectors."""
    if (start, end) == (0, len(write.data)):
        return write
    blob = Blob(write.address + start, write.data[start:end], write.name)
    return _plan_write(blob, target, cost, policy)


def _plan_write(blob: Blob, target: FlashTarget, cost: TransportCost, policy: Policy) -> Write:
    """The ROM erases from the sector's start but counts sectors by size, so the transfer begins at a sector."""
    start = align_down(blob.address, SECTOR)
    align = target.encrypted_align if blob.encrypted else WRITE_ALIGN
    head = BLANK * (blob.address - start)
    tail = BLANK * (-(len(head) + len(blob.data)) % align)
    data = b"".join((head, blob.data, tail)) if head or tail else bytes(blob.data)
    packed = None
    compress = policy.compress if blob.encrypted else policy.compress is not False
    if blob.encrypted and not target.limits.can_encrypt_compressed:
        compress = False
    if compress and target.limits.can_compress:
        packed = deflate_zlib(data)
        if len(packed) >= len(data):
            packed = None
    wire_bytes = count_wire_bytes(packed or data, target.limits, packed=packed is not None)
    erase_end = target.limits.find_erased_end(start, len(data))
    fewer = None
    if packed is not None:
        span, size = range(start, erase_end), len(packed)
        fewer = estimate_lzma_bytes(span, size, wire_bytes, target.limits, cost)
    return Write(
        start,
        data,
        blob.label,
        packed,
        fewer or wire_bytes,
        blob.encrypted,
        erase_end,
        lzma=fewer is not None,
        wire_estimated=fewer is not None or target.limits.masks_frames,
    )


def _erase_all(target: FlashTarget) -> Erase:
    if target.real_size is None:
        raise UsageError(
            "the flash size is unknown, so the whole flash cannot be erased",
            hint="Give it with --flash-size.",
        )
    return Erase(0, target.real_size, whole=True)


def _find_ignored(
    blobs: tuple[Blob, ...], target: FlashTarget, policy: Policy
) -> tuple[Finding, ...]:
    """Parts that are written whole although they were to be compared with the flash."""
    findings = []
    for blob in blobs:
        asked = blob.previous is not None or policy.skip_flashed
        if not blob.data or not asked or can_compare(blob, target, policy):
            continue
        why = "this loader cannot read or hash the flash"
        if blob.encrypted or policy.erase_all:
            why = "the chip encrypts it" if blob.encrypted else "all is erased first"
        findings.append(Finding("written-whole", f"{blob.label} is written whole: {why}"))
    if policy.compress and not target.limits.can_compress:
        why = f"this {target.limits.loader} loader cannot unpack it, or not safely"
        text = f"the data is sent uncompressed: {why}"
        findings.append(Finding("not-compressed", text))
    return tuple(findings)


def _find_side_effects(blobs: tuple[Blob, ...], steps: list[Step]) -> tuple[Finding, ...]:
    findings = []
    for blob in blobs:
        start = align_down(blob.address, SECTOR)
        if not blob.data:
            findings.append(Finding("empty-part", f"{blob.label} is empty: nothing to write"))
        elif start != blob.address:
            text = f"writing {blob.label} also erases what precedes it, {format_span(start, blob.address)}"
            findings.append(Finding("erases-before", text))
    writes = [step for step in steps if isinstance(step, Write)]
    starts = {write.address for write in writes}
    for write in writes:
        end = align_up(write.end, SECTOR)
        if write.erase_end > end and end not in starts:
            findings.append(describe_erased_behind(write.name, end, write.erase_end))
    return tuple(findings)


def _estimate(step: Step, target: FlashTarget, cost: TransportCost) -> float:
    if isinstance(step, Erase):
        by_rom = target.limits.erases_at_begin
        return estimate_erase(step.address, step.size, cost, by_rom=by_rom)
    if isinstance(step, Write):
        span, payload = range(step.address, step.erase_end), len(step.packed or step.data)
        if step.lzma:
            payload = step.wire_bytes
        cycles = LZMA_CYCLES if step.lzma else ZLIB_CYCLES if step.packed else RAW_CYCLES
        return estimate_write(span, payload, step.wire_bytes, target.limits, cost, cycles)
    if isinstance(step, Verify) and target.limits.can_digest:
        return cost.md5_per_mb_s * len(step.data) / 1e6 + cost.latency_s
    return 0.0
