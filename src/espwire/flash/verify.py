"""Compares flash content with what it should be: by the chip's MD5, or by reading where the loader computes none."""

from __future__ import annotations

from collections.abc import Iterable
from hashlib import md5
from typing import TYPE_CHECKING

from espwire.blob import Blob
from espwire.device.backends.base import build_wrong_erase, holds
from espwire.errors import VerifyError
from espwire.events import Finished, Progress, Report, silent
from espwire.flash.findings import Policy
from espwire.flash.model import BLANK, Cancel, FlashTarget, Write
from espwire.flash.plan import check_can_verify, find_changed_runs
from espwire.progress import Task, track
from espwire.sizes import SECTOR, Ranges, align_down, align_up, join_ranges

if TYPE_CHECKING:
    from espwire.device.device import Device

MOST_DIGESTS = 256  # requests to find out where the flash differs
UNVERIFIED = "unverified"  # the consent


def verify_flash(
    device: Device, blobs: Iterable[Blob], *, cancel: Cancel | None = None, report: Report = silent
) -> None:
    """Compare the flash with ``blobs``; all of them are compared even if the first one differs.

    :raises Unsupported: before anything is read: this loader can neither compute an MD5 nor read
    :raises VerifyError: the ranges that differ
    """
    check_can_verify(FlashTarget.of(device))
    blobs = tuple(blobs)
    tasks = [Task("verify", blob.label, len(blob.data), len(blob.data)) for blob in blobs]
    report = track(report, device.transport.now, tasks)
    wrong: list[str] = []
    ranges: list[tuple[int, int]] = []
    for blob in blobs:
        if cancel is not None:
            cancel.check()
        began = device.transport.now()
        report(Progress(task="verify", name=blob.label, done=0, total=len(blob.data)))
        differ = find_differences(device, blob.address, blob.data, name=blob.label, report=report)
        if differ:
            wrong.append(blob.label)
            ranges += differ
            continue
        seconds = device.transport.now() - began
        report(Finished(task="verify", name=blob.label, size=len(blob.data), seconds=seconds))
    if wrong:
        raise build_verify_error(wrong, tuple(ranges))


def has_content(
    device: Device, address: int, data: bytes, *, name: str = "", report: Report = silent
) -> bool:
    """Whether the flash at ``address`` holds exactly ``data``.

    :raises Unsupported: this loader can neither compute an MD5 nor read
    """
    if not data:
        return True
    if device.backend.limits.can_digest:
        return holds(device.backend, address, data)
    return not _compare_by_reading(device, address, data, name, report)


def find_differences(
    device: Device, address: int, data: bytes, *, name: str = "", report: Report = silent
) -> Ranges:
    """Half-open flash ranges that differ from ``data``: whole sectors, except at the ends; () if all is equal.

    Of large ranges, a loader that computes one MD5 per request gives coarser ranges. All of it, if the MD5 of the whole
    differs and those of its parts do not: then the flash answers differently each time.

    :raises Unsupported: this loader can neither compute an MD5 nor read
    """
    if not data:
        return ()
    if not device.backend.limits.can_digest:
        return _compare_by_reading(device, address, data, name, report)
    if has_content(device, address, data):
        return ()
    piece = SECTOR
    if not device.backend.limits.digests_at_once:
        piece = max(SECTOR, align_up(len(data) // MOST_DIGESTS, SECTOR))
    return compare_digests(device, address, data, piece) or ((address, address + len(data)),)


def check_encrypted(device: Device, step: Write) -> None:
    """What can be checked of data that the chip encrypted: it is not plain, not missing, and blank bytes follow.

    :raises VerifyError: codes ``not-encrypted``, ``wrong-erase``, ``verify``
    """
    limits = device.backend.limits
    if not limits.can_verify:
        return
    if has_content(device, step.address, step.data):
        raise VerifyError(
            f"{step.name} was written as plaintext: the chip did not encrypt it",
            ranges=((step.address, step.end),),
            hint="Check that the chip holds a flash encryption key, then write again.",
            code="not-encrypted",
        )
    if has_content(device, step.address, BLANK * len(step.data)):
        raise build_wrong_erase(step.address, step.end, [step.address])
    blocks_end = step.address + align_up(len(step.data), limits.block_size)
    sectors_end = align_up(step.end, SECTOR)
    if not has_content(device, blocks_end, BLANK * (sectors_end - blocks_end)):
        raise build_verify_error([f"the padding behind {step.name}"], ((blocks_end, sectors_end),))


def check_not_blind(device: Device, policy: Policy) -> None:
    """Stop before work that cannot be verified, if the only reason is that the stub did not start.

    :raises VerifyError: code ``unverified``
    """
    if (
        device.backend.limits.can_verify
        or not device.stub_failed
        or policy.verify is False
        or UNVERIFIED in policy.consents
    ):
        return
    raise VerifyError(
        f"the stub did not start, and the {device.chip.name}'s ROM loader cannot verify flash; nothing was changed",
        hint=f"{device.loader.line_hint} To work without verification, repeat with --allow {UNVERIFIED}.",
        code="unverified",
        consents=[UNVERIFIED],
    )


def build_verify_error(names: Iterable[str], ranges: Ranges) -> VerifyError:
    """The error for flash that differs from files."""
    shown = ", ".join(f"{start:#x}..{end:#x}" for start, end in ranges[:4])
    more = f" and {len(ranges) - 4} more ranges" if len(ranges) > 4 else ""
    return VerifyError(f"the flash differs from {', '.join(names)} at {shown}{more}", ranges=ranges)


def _compare_by_reading(
    device: Device, address: int, data: bytes, name: str, report: Report
) -> Ranges:
    """Reads all of it; the sectors with any other byte."""
    check_can_verify(FlashTarget.of(device))
    shown = 0

    def progress(done: int) -> None:
        nonlocal shown
        if done // SECTOR > shown // SECTOR or done >= len(data):
            shown = done
            report(Progress(task="verify", name=name, done=done, total=len(data)))

    content = b"".join(device.backend.read(address, len(data), progress=progress))
    start = align_down(address, SECTOR)
    head = bytes(address - start)
    runs = find_changed_runs(head + data, head + content, SECTOR)
    return tuple((max(start + low, address), start + high) for low, high in runs)


def compare_digests(device: Device, address: int, data: bytes, piece: int) -> Ranges:
    """Compares the MD5 of each ``piece`` bytes, from sector to sector; half-open ranges that differ."""
    backend, end = device.backend, address + len(data)
    wrong: list[tuple[int, int]] = []
    first = min(align_up(address, SECTOR), end)
    for start, stop in ((address, first), (first, end)):
        if start == stop:
            continue
        for index, digest in enumerate(backend.digests(start, stop - start, piece)):
            low = start + index * piece
            high = min(low + piece, stop)
            if md5(data[low - address : high - address], usedforsecurity=False).digest() != digest:
                wrong.append((low, high))
    return join_ranges(wrong)
