"""Finds out what the flash holds where blobs go: which sectors differ, and which other bytes share a blob's sectors.

The chip computes the MD5 of each sector. That takes a third of a second per megabyte, so some sectors are looked at
first: if all of them differ, all of the blob is written; if all of them are as the last write has left them, so are the
others, which the MD5 of the whole blob proves at the end. A ROM answers one MD5 per request, so it is asked for 64 KiB
each; its replies carry no CRC, and are confirmed by the MD5 of the whole blob, which is computed at the end anyway.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import md5
from itertools import chain
from types import MappingProxyType
from typing import TYPE_CHECKING

from espwire.blob import Blob
from espwire.flash.findings import Policy
from espwire.flash.journal import NOTHING, Unfinished
from espwire.flash.last_written import DIGEST_BYTES, digest_sectors
from espwire.flash.model import BLANK, FlashTarget, Found
from espwire.flash.plan import can_compare, can_keep, fill_sectors
from espwire.flash.verify import compare_digests, has_content
from espwire.sizes import BLOCK, SECTOR, Ranges, align_down, align_up, join_ranges, subtract_ranges

if TYPE_CHECKING:
    from espwire.device.device import Device

SAMPLES = 8  # sectors of a blob
SAMPLE_BYTES = 256  # of a sector that the last write has not left

Span = tuple[int, int]


def survey(
    device: Device,
    blobs: Iterable[Blob],
    target: FlashTarget,
    policy: Policy,
    unfinished: Unfinished = NOTHING,
    last: Mapping[int, bytes] = MappingProxyType({}),
) -> dict[int, Found]:
    """What the flash holds, by the address of the blob.

    :param last: digests of sectors as the last write left them, by address: see ``LastWritten``
    :param unfinished: a write that was interrupted; what it has kept counts, not what the flash holds there
    :raises NoReply, CommandFailed, VerifyError: from the device
    """
    blobs = [blob for blob in blobs if blob.data]
    digests: Mapping[Span, bytes] = {}
    samples: Mapping[int, tuple[Span, ...]] = {}
    if target.limits.digests_at_once:
        kept = [blob for blob in blobs if can_keep(blob, target, policy)]
        compared = [blob for blob in blobs if _is_compared(blob, target, policy)]
        samples = {blob.address: _find_samples(blob, last) for blob in compared}
        edges = [edge for blob in kept for edge in _find_edges(blob, policy)]
        spans = [*edges, *chain(*samples.values())]
        digests = dict(zip(spans, device.backend.digests_of(spans), strict=True))
    saved = {sector.address: sector.content for sector in unfinished.shared}
    found = {}
    for blob in blobs:
        seen = Found()
        if can_keep(blob, target, policy):
            seen = _read_neighbours(device, blob, policy, digests, saved)
        looked_at = samples.get(blob.address, ())
        differ = [digests[span] != _digest(_cut(blob, *span)) for span in looked_at]
        if looked_at and all(
            last.get(span[0]) == digests[span][:DIGEST_BYTES] for span in looked_at
        ):
            seen = _compare_with_last(device, blob, seen, last)
        elif not (differ and all(differ)):
            seen = _compare(device, blob, seen, target, policy)
        found[blob.address] = _add_weak(device, blob, seen, target, unfinished)
    return found


def _is_compared(blob: Blob, target: FlashTarget, policy: Policy) -> bool:
    """Whether its sectors are compared one by one."""
    compares = policy.diff and not policy.skip_flashed and blob.previous is None
    return compares and target.limits.can_digest and can_compare(blob, target, policy)


def _find_edges(blob: Blob, policy: Policy) -> tuple[Span, ...]:
    """What shares the first or the last sector with the blob, and is not erased first."""
    start, end = align_down(blob.address, SECTOR), align_up(blob.end, SECTOR)
    edges = ((start, blob.address), (blob.end, end))
    return tuple(edge for edge in edges if edge[0] < edge[1] and not policy.erases(*edge))


def _find_samples(blob: Blob, last: Mapping[int, bytes]) -> tuple[Span, ...]:
    """Sectors that are all the blob's, evenly spread, or their beginnings; none that a blank flash would hold."""
    first, end = align_up(blob.address, SECTOR), align_down(blob.end, SECTOR)
    sectors = [
        at for at in range(first, end, SECTOR) if _cut(blob, at, at + SAMPLE_BYTES).strip(BLANK)
    ]
    return tuple(
        (at, at + (SECTOR if at in last else SAMPLE_BYTES))
        for at in sectors[:: -(-len(sectors) // SAMPLES) or 1]
    )


def _read_neighbours(
    device: Device,
    blob: Blob,
    policy: Policy,
    digests: Mapping[Span, bytes],
    saved: Mapping[int, bytes],
) -> Found:
    first, last = align_down(blob.address, SECTOR), align_down(blob.end, SECTOR)
    end = align_up(blob.end, SECTOR)
    before = _read(device, (first, blob.address), policy, digests)
    behind = _read(device, (blob.end, end), policy, digests)
    if first in saved:
        before = saved[first][: blob.address - first]
    if last in saved and end > blob.end:
        behind = saved[last][blob.end - last :]
    return Found(before=before, behind=behind)


def _compare(
    device: Device,
    blob: Blob,
    found: Found,
    target: FlashTarget,
    policy: Policy,
) -> Found:
    if policy.skip_flashed and can_compare(blob, target, policy):
        # with its neighbours, which an interrupted write may have erased
        before, behind = found.before or b"", found.behind or b""
        data = before + blob.data + behind
        if has_content(device, blob.address - len(before), data, name=blob.label):
            return found._replace(changed=(), certain=True)
        return found
    if not _is_compared(blob, target, policy):
        return found
    start, data = fill_sectors(blob, found)
    piece = SECTOR if target.limits.digests_at_once else BLOCK
    changed = compare_digests(device, start, data, piece)
    certain = not changed and target.limits.digests_at_once and target.limits.checksummed
    return found._replace(changed=changed, certain=certain)


def _compare_with_last(
    device: Device, blob: Blob, found: Found, last: Mapping[int, bytes]
) -> Found:
    """The sectors that the last write left are compared with its record, all others with the chip's MD5s."""
    start, data = fill_sectors(blob, found)
    digests = digest_sectors(start, data)
    differ = [(at, at + SECTOR) for at in digests if at in last and last[at] != digests[at]]
    unknown = join_ranges((at, at + SECTOR) for at in digests if at not in last)
    for low, high in unknown:
        differ += compare_digests(device, low, data[low - start : high - start], SECTOR)
    return found._replace(changed=join_ranges(differ))


def _add_weak(
    device: Device, blob: Blob, found: Found, target: FlashTarget, unfinished: Unfinished
) -> Found:
    """Blank sectors of the blob whose erase was interrupted count as changed."""
    first, end = align_down(blob.address, SECTOR), align_up(blob.end, SECTOR)
    if not target.limits.can_verify or (target.encrypts_flash and target.limits.erases_at_begin):
        return found  # the ROM erases all sectors that it writes, and everything is written
    weak = find_weak(device, unfinished, first, end)
    if not weak:
        return found
    changed = found.changed if found.changed is None else join_ranges([*found.changed, *weak])
    return found._replace(weak=weak, changed=changed, certain=False)


def find_weak(device: Device, unfinished: Unfinished, first: int, end: int) -> Ranges:
    """The sectors of a range that read blank and whose erase was interrupted; () if the loader cannot find out."""
    weak: list[Span] = []
    for low, high in unfinished.under_way:
        start, stop = max(low, first), min(high, end)
        if start < stop and device.backend.limits.can_digest:
            written = device.backend.find_written(start, stop - start) or ()
            weak += subtract_ranges([(start, stop)], written)
    return join_ranges(weak)


def _read(device: Device, span: Span, policy: Policy, digests: Mapping[Span, bytes]) -> bytes:
    """The content of part of a sector; most are blank, which is quicker to find out than to read."""
    start, end = span
    size = end - start
    if policy.erases(start, end):
        blank = True
    elif span in digests:
        blank = digests[span] == _digest(BLANK * size)
    else:
        blank = not size or device.backend.find_written(start, size) == ()
    return BLANK * size if blank else b"".join(device.backend.read(start, size))


def _cut(blob: Blob, start: int, end: int) -> bytes:
    return blob.data[start - blob.address : end - blob.address]


def _digest(data: bytes) -> bytes:
    return md5(data, usedforsecurity=False).digest()
