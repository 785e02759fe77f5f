"""Plans what to do to the flash before anything is touched: which sectors to erase and write, what to verify.

Whether the plan is wise (encryption, secure boot, wrong chip) is `safety`'s question. All ranges are half-open.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise
from types import MappingProxyType

from espwire.blob import Blob
from espwire.compress import deflate_zlib
from espwire.device.backends.base import WORD, FlashLimits
from espwire.errors import Unsupported, UsageError
from espwire.flash.estimate import (
    Candidate,
    TransportCost,
    choose_codec,
    count_wire_bytes,
    estimate_erase,
    estimate_write,
)
from espwire.flash.findings import Finding, Policy, build_fatal
from espwire.flash.model import (
    BLANK,
    Erase,
    FlashTarget,
    Found,
    Piece,
    Plan,
    Skip,
    Step,
    Verify,
    Write,
    format_span,
)
from espwire.protocol.stub import LZMA_CODECS, Codec
from espwire.sizes import BLOCK, SECTOR, Ranges, align_down, align_up

ADDRESS_LIMIT = 1 << 32
COMPRESSED = 0.65  # of firmware, about
NOTHING = Found()


def plan(
    blobs: Iterable[Blob],
    *,
    target: FlashTarget,
    cost: TransportCost | None = None,
    policy: Policy | None = None,
    found: Mapping[int, Found] = MappingProxyType({}),
) -> Plan:
    """The steps that bring ``blobs`` into the flash, by address, each verified right after it is written if possible.

    :param found: what the flash holds now, by the blobs' addresses
    :raises UsageError: code ``overlap``: two blobs share a sector; code ``address``: an address cannot be written to
    :raises Unsupported: verification or encryption is required and the loader has none
    """
    cost, policy = cost or TransportCost(), policy or Policy()
    blobs = tuple(blobs)
    ordered = check_blobs(blobs, target, policy)
    steps: list[Step] = [Erase(low, high - low) for low, high in policy.erase]
    if policy.erase_all:
        steps = [_erase_all(target)]
    steps += [Skip(p.address, 0, p.label, "it is empty") for p in blobs if not p.data]
    for blob in ordered:
        steps += _plan_blob(blob, target, cost, policy, found.get(blob.address, NOTHING))
    return Plan(
        tuple(steps),
        _find_side_effects(blobs, steps, target, policy, found)
        + _find_ignored(blobs, target, policy),
        sum(step.wire_bytes for step in steps if isinstance(step, Write)),
        tuple(_estimate(step, target, cost) for step in steps),
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


def _is_erased(blob: Blob, policy: Policy) -> bool:
    return policy.erases(align_down(blob.address, SECTOR), align_up(blob.end, SECTOR))


def can_compare(blob: Blob, target: FlashTarget, policy: Policy) -> bool:
    """Whether a blob can be compared with the flash, and the result will still be true when it is used.

    With flash encryption enabled, the chip returns ciphertext.
    """
    excluded = blob.encrypted or _is_erased(blob, policy) or policy.verify is False
    return not excluded and not target.encrypts_flash and target.limits.can_verify


def can_keep(blob: Blob, target: FlashTarget, policy: Policy) -> bool:
    """Whether what shares a sector with a blob can be kept: read before, and written again."""
    excluded = blob.encrypted or policy.erase_all or target.encrypts_flash
    return policy.keep and not excluded and target.limits.can_read


def fill_up(blob: Blob, found: Found) -> tuple[int, bytes]:
    """The start of the blob's first sector, and what is to be there from then on.

    A blob whose last sector is blank behind it is filled up to a word only, which is less to send.
    """
    start = align_down(blob.address, SECTOR)
    before = BLANK * (blob.address - start) if found.before is None else found.before
    behind = BLANK * (-blob.end % SECTOR) if found.behind is None else found.behind
    if not behind.strip(BLANK):
        behind = BLANK * (-blob.end % WORD)
    data = blob.data
    return start, b"".join((before, data, behind)) if before or behind else bytes(data)


def fill_sectors(blob: Blob, found: Found) -> tuple[int, bytes]:
    """As ``fill_up``, but always to the end of the last sector."""
    start, data = fill_up(blob, found)
    return start, data + BLANK * (-len(data) % SECTOR)


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
    return "The stub can: leave out --no-stub; if it did not start, check the cable."


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


def _plan_blob(
    blob: Blob, target: FlashTarget, cost: TransportCost, policy: Policy, found: Found
) -> list[Step]:
    """Write what differs, or nothing; then check all of it."""
    start, data = fill_up(blob, found)
    data += BLANK * (-len(data) % (target.encrypted_align if blob.encrypted else WORD))
    runs: Ranges = ((start, start + len(data)),)
    compared = found.changed is not None
    if found.changed is not None:
        runs = bridge_gaps(found.changed, target.limits, cost)
        runs = tuple((low, min(high, start + len(data))) for low, high in runs)
    elif blob.previous is not None and can_compare(blob, target, policy):
        runs = _find_changes(start, data, blob)
    if (
        not runs
        and not found.certain
        and not compared
        and policy.trust_flash_content
        and not policy.verify
    ):
        why = "nothing has changed, and the flash is trusted"
        return [Skip(blob.address, len(blob.data), blob.label, why)]
    steps: list[Step] = [Erase(low, high - low, again=True) for low, high in found.weak]
    if runs:
        steps.append(plan_write(blob, start, data, runs, target, cost, policy))
    else:
        why = "the flash holds it already"
        steps.append(Skip(blob.address, len(blob.data), blob.label, why, checked=True))
    if (
        policy.verify is not False
        and not blob.encrypted
        and target.limits.can_verify
        and not found.certain
    ):
        steps.append(_plan_verify(blob, start, data, runs, found))
    return steps


def bridge_gaps(runs: Ranges, limits: FlashLimits, cost: TransportCost) -> Ranges:
    """Joins runs of changed sectors where it is quicker to write what lies between them, too.

    A 64 KiB block that is written whole is erased at once, which takes as long as three of its sectors.
    """

    def seconds(start: int, end: int) -> float:
        edges = [start, *range(align_up(start + 1, BLOCK), end, BLOCK), end]
        return sum(
            estimate_write(range(low, high), size, size, limits, cost)
            for low, high in pairwise(edges)
            for size in [int((high - low) * COMPRESSED)]
        )

    joined: list[tuple[int, int]] = []
    for run in runs:
        start, end = run
        while joined and start - joined[-1][1] < BLOCK:
            gap = joined[-1][1]  # blocks that the gap does not touch are the same either way
            before = max(joined[-1][0], align_down(gap - 1, BLOCK))
            after = min(end, align_up(start + 1, BLOCK))
            if seconds(before, after) > seconds(before, gap) + seconds(start, after):
                break
            start, _ = joined.pop()
        joined.append((start, end))
    return tuple(joined)


def estimate_stream(blobs: Iterable[Blob], found: Mapping[int, Found]) -> int:
    """About how many bytes the host will send, without what the chip encrypts, which it cannot verify."""
    size = 0
    for blob in blobs:
        changed = found[blob.address].changed if blob.address in found else None
        if not blob.encrypted:
            size += len(blob.data) if changed is None else sum(high - low for low, high in changed)
    return int(size * COMPRESSED)


def _find_changes(start: int, data: bytes, blob: Blob) -> Ranges:
    """What differs from what the flash is believed to hold."""
    head = data[: blob.address - start]
    runs = find_changed_runs(data, head + (blob.previous or b""), SECTOR)
    return tuple((start + low, start + high) for low, high in runs)


def _plan_verify(blob: Blob, start: int, data: bytes, runs: Ranges, found: Found) -> Verify:
    """Check the blob, and the rest of its sectors where their content is known."""
    end, compared = start + len(data), found.changed is not None
    first = compared or found.before is not None or (bool(runs) and runs[0][0] == start)
    last = compared or found.behind is not None or (bool(runs) and runs[-1][1] == end)
    begin = start if first else blob.address
    tail = -end % SECTOR if last else 0
    return Verify(begin, data[begin - start :], blob.label, tail, (blob.address, blob.end))


def plan_write(
    blob: Blob,
    start: int,
    data: bytes,
    runs: Ranges,
    target: FlashTarget,
    cost: TransportCost,
    policy: Policy,
) -> Write:
    """The write of ``runs`` of ``data``, which begins at the sector ``start``."""
    pieces = tuple(
        _plan_piece(
            low, data[low - start : high - start], target, cost, policy, encrypted=blob.encrypted
        )
        for low, high in runs
    )
    return Write(start, data, blob.label, pieces, blob.encrypted, (blob.address, blob.end))


def _plan_piece(
    start: int,
    data: bytes,
    target: FlashTarget,
    cost: TransportCost,
    policy: Policy,
    *,
    encrypted: bool,
) -> Piece:
    """The ROM erases from the sector's start but counts sectors by size, so a piece begins at a sector."""
    limits, packed = target.limits, None
    compress = policy.compress if encrypted else policy.compress is not False
    if encrypted and not limits.can_encrypt_compressed:
        compress = False
    if compress and limits.can_compress:
        packed = deflate_zlib(data)
        if len(packed) >= len(data):
            packed = None
    erase_end = limits.find_erased_end(start, len(data))
    raw = packed is None or (policy.compress is None and limits.cpu_hz > 0 and cost.baud > 0)
    candidates = _list_candidates(data, packed, limits, raw=raw)
    codec = choose_codec(range(start, erase_end), candidates, limits, cost)
    return Piece(
        start,
        data,
        packed,
        candidates[codec].wire_bytes,
        erase_end,
        codec,
        wire_estimated=codec in LZMA_CODECS or limits.masks_frames,
    )


def _list_candidates(
    data: bytes, packed: bytes | None, limits: FlashLimits, *, raw: bool
) -> dict[Codec, Candidate]:
    """The codecs in which data may be sent."""
    candidates = dict[Codec, Candidate]()
    if raw:
        candidates[Codec.RAW] = Candidate(len(data), count_wire_bytes(data, limits, packed=False))
    if packed is not None:
        size, wire_bytes = len(packed), count_wire_bytes(packed, limits, packed=True)
        candidates[Codec.ZLIB] = Candidate(size, wire_bytes)
        if (form := limits.lzma) is not None and limits.cpu_hz:
            candidates[form.codec] = Candidate(int(size * form.ratio), int(wire_bytes * form.ratio))
    return candidates


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
        if target.encrypts_flash and not target.secure_download:
            why = "flash encryption is enabled"
        if blob.encrypted or _is_erased(blob, policy):
            why = "the chip encrypts it" if blob.encrypted else "its sectors are erased first"
        findings.append(Finding("written-whole", f"{blob.label} is written whole: {why}"))
    if target.encrypts_flash and any(blob.data for blob in blobs):
        why = (
            "Secure Download Mode hides the flash"
            if target.secure_download
            else "flash encryption is enabled"
        )
        text = f"{why}: everything is written, other data in its sectors is erased, and an interrupted write starts over"
        findings.append(Finding("nothing-compared", text))
    if policy.compress and not target.limits.can_compress:
        why = f"this {target.limits.loader} loader cannot unpack it, or not safely"
        text = f"the data is sent uncompressed: {why}"
        findings.append(Finding("not-compressed", text))
    return tuple(findings)


def _find_side_effects(
    blobs: tuple[Blob, ...],
    steps: list[Step],
    target: FlashTarget,
    policy: Policy,
    found: Mapping[int, Found],
) -> tuple[Finding, ...]:
    """What is erased next to the blobs: it need not be kept, or cannot be read."""
    findings = []
    for blob in blobs:
        start = align_down(blob.address, SECTOR)
        if not blob.data:
            findings.append(Finding("empty-part", f"{blob.label} is empty: nothing to write"))
        elif start != blob.address and found.get(blob.address, NOTHING).before is None:
            text = f"writing {blob.label} also erases what precedes it, {format_span(start, blob.address)}"
            findings.append(_build_loss("erases-before", text, target, policy))
    pieces = [piece for step in steps if isinstance(step, Write) for piece in step.pieces]
    names = {piece: step.name for step in steps if isinstance(step, Write) for piece in step.pieces}
    starts = {piece.address for piece in pieces}
    for piece in pieces:
        end = align_up(piece.end, SECTOR)
        if piece.erase_end > end and end not in starts:
            finding = describe_erased_behind(names[piece], end, piece.erase_end)
            findings.append(_build_loss(finding.code, finding.text, target, policy))
    for low, high in policy.erase:
        end = target.limits.find_erased_end(low, high - low)
        if end > high and high not in starts and not policy.erases(high, end):
            finding = describe_erased_behind("the area to erase", high, end)
            findings.append(_build_loss(finding.code, finding.text, target, policy))
    return tuple(findings)


def _build_loss(code: str, text: str, target: FlashTarget, policy: Policy) -> Finding:
    """The finding for what is erased next to a blob: fatal if it must be kept and cannot be read."""
    if (
        not policy.keep
        or policy.erase_all
        or (target.limits.can_read and not target.encrypts_flash)
    ):
        return Finding(code, text)
    return build_fatal(
        code,
        f"{text}, which cannot be read here and kept; --no-keep erases it",
        consent="neighbours",
    )


def _estimate(step: Step, target: FlashTarget, cost: TransportCost) -> float:
    if isinstance(step, Erase):
        by_rom = target.limits.erases_at_begin
        return estimate_erase(step.address, step.size, cost, by_rom=by_rom)
    if isinstance(step, Write):
        return sum(_estimate_piece(piece, target, cost) for piece in step.pieces)
    if isinstance(step, Verify) and target.limits.can_digest:
        return cost.md5_per_mb_s * len(step.data) / 1e6 + cost.latency_s
    if isinstance(step, Verify):
        return cost.on_wire(len(step.data))
    return 0.0


def _estimate_piece(piece: Piece, target: FlashTarget, cost: TransportCost) -> float:
    span = range(piece.address, piece.erase_end)
    return estimate_write(span, piece.payload, piece.wire_bytes, target.limits, cost, piece.codec)
