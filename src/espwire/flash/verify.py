"""Does the flash hold what it should? By the chip's MD5, else by reading back. Writes nothing, repairs nothing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import TYPE_CHECKING, Protocol

from espwire.device.erase_check import build_wrong_erase
from espwire.device.retry import LossLimit
from espwire.device.stub_commands import read_md5s
from espwire.errors import DeviceError, NoReply, Unsupported, VerifyError
from espwire.events import Finished, Overall, Progress, Report, silent, thin_out
from espwire.flash.checks import hint_at_stub
from espwire.protocol.opcodes import Op
from espwire.protocol.stub import StubOp
from espwire.sizes import SECTOR, Ranges, align_down, align_up, join_ranges

if TYPE_CHECKING:
    from espwire.device.device import Device
    from espwire.flash.plan import Part, Policy, Write

MD5_BUDGET = 256  # at most so many MD5 requests to find out where the flash differs
UNVERIFIED = "unverified"  # the consent
READ_OPS = (Op.READ_FLASH_SLOW, Op.READ_FLASH, StubOp.READ_OPEN)


class Cancel(Protocol):
    """What the work asks now and then; ``link.base.CancelToken`` is one."""

    def check(self) -> None:
        """Raise ``Cancelled`` if somebody asked to stop."""


def can_read(device: Device) -> bool:
    """Whether flash content can be fetched."""
    return any(map(device.loader.supports, READ_OPS))


def read_md5(device: Device, address: int, size: int) -> bytes:
    """The chip's own MD5 of its flash, 16 bytes; asked again where the answer got lost, for asking changes nothing.

    :raises Unsupported: the loader cannot
    :raises NoReply, DeviceError: it failed ``settings.retry.block_attempts`` times, or the chip has reset
    """
    attempts = device.loader.settings.retry.block_attempts
    while True:
        attempts -= 1
        try:
            return device.flash_md5(address, size)
        except (NoReply, DeviceError) as error:
            if attempts <= 0 or isinstance(error, Unsupported) or error.code == "chip-reset":
                raise


def has_content(
    device: Device, address: int, data: bytes, *, name: str = "", report: Report = silent
) -> bool:
    """Whether the flash at ``address`` holds exactly ``data``. A no counts the second time: answers can be damaged. So
    does a yes where requests have no checksum: a damaged one is answered with the MD5 of another place.

    :raises Unsupported: this loader can neither compute an MD5 nor read
    """
    if not data:
        return True
    if not device.loader.supports(Op.SPI_FLASH_MD5):
        return not _differences_by_reading(device, address, data, name, report)
    wanted = hashlib.md5(data, usedforsecurity=False).digest()
    needed, same, other = 1 if device.loader.dialect.sealed else 2, 0, 0
    while same < needed and other < 2:
        equal = read_md5(device, address, len(data)) == wanted
        same, other = same + equal, other + (not equal)
    return same == needed


def check_encrypted(device: Device, step: Write) -> None:
    """What can be checked of data that the chip has encrypted: it is not plain, not missing, and nothing is behind it.

    :raises VerifyError: codes ``not-encrypted``, ``wrong-erase``, ``verify``
    """
    if not (device.loader.supports(Op.SPI_FLASH_MD5) or can_read(device)):
        return
    end = step.address + len(step.data)
    if has_content(device, step.address, step.data):
        raise VerifyError(
            f"{step.name} is in flash as it was sent: the chip has not encrypted it",
            ranges=((step.address, end),),
            hint="Check that the chip holds a flash encryption key, then write again.",
            code="not-encrypted",
        )
    if has_content(device, step.address, b"\xff" * len(step.data)):
        raise build_wrong_erase(step.address, end, [step.address])
    blocks_end = step.address + align_up(len(step.data), device.loader.dialect.flash_block)
    sectors_end = align_up(end, SECTOR)
    if not has_content(device, blocks_end, b"\xff" * (sectors_end - blocks_end)):
        raise build_verify_error([f"the padding behind {step.name}"], ((blocks_end, sectors_end),))


def find_differences(device: Device, address: int, data: bytes) -> Ranges:
    """Half-open flash ranges, whole sectors but for the ends, that differ from ``data``; () if nothing does.

    With MD5 only, the number of questions is bounded: badly scattered differences come as coarser ranges.

    :raises Unsupported: this loader can neither compute an MD5 nor read
    """
    if not device.loader.supports(Op.SPI_FLASH_MD5):
        return _differences_by_reading(device, address, data, "", silent)
    if has_content(device, address, data):
        return ()
    if device.loader.supports(StubOp.HASH):
        return _differences_by_sectors(device, address, data)
    return _differences_by_md5(device, address, data)


def verify_flash(
    device: Device, parts: Iterable[Part], *, cancel: Cancel | None = None, report: Report = silent
) -> None:
    """Compare the flash with ``parts``; all of them are looked at.

    :raises Unsupported: before anything is read: this loader can neither compute an MD5 nor read
    :raises VerifyError: the ranges that differ
    """
    check_can_verify_device(device)
    if device.flash is None:
        device.attach_flash()
    parts = tuple(parts)
    if report is not silent:
        report = Overall(report, [("verify", part.label, max(len(part.data), 1)) for part in parts])
    report = thin_out(report, device.transport.now)
    wrong: list[str] = []
    ranges: list[tuple[int, int]] = []
    for part in parts:
        if cancel is not None:
            cancel.check()
        began = device.transport.now()
        if has_content(device, part.address, part.data, name=part.label, report=report):
            seconds = device.transport.now() - began
            report(Finished(task="verify", name=part.label, size=len(part.data), seconds=seconds))
            continue
        wrong.append(part.label)
        ranges += find_differences(device, part.address, part.data) or [(part.address, part.end)]
    if wrong:
        raise build_verify_error(wrong, tuple(ranges))


def check_can_verify_device(device: Device) -> None:
    """Raise if flash content cannot be checked.

    :raises Unsupported: this loader can neither compute an MD5 nor read
    """
    loader = device.loader
    if loader.supports(Op.SPI_FLASH_MD5) or can_read(device):
        return
    raise Unsupported(
        f"the {device.chip.name}'s {loader.dialect.name} loader can neither compute an MD5 of the flash nor read it",
        hint=hint_at_stub(secure=device.secure_download),
        code="cannot-verify",
    )


def check_not_blind(device: Device, policy: Policy) -> None:
    """Stop before work that nobody can verify, only because the stub that was wanted did not start.

    :raises VerifyError: code ``unverified``
    """
    loader = device.loader
    blind = not (loader.supports(Op.SPI_FLASH_MD5) or can_read(device))
    if (
        not blind
        or not device.stub_failed
        or policy.verify is False
        or UNVERIFIED in policy.consents
    ):
        return
    raise VerifyError(
        f"the stub did not start, and the {device.chip.name}'s ROM loader can verify nothing: nothing was changed",
        hint=f"Lower --baud or use a shorter cable; if it must be, repeat with --allow {UNVERIFIED}.",
        code="unverified",
        consents=[UNVERIFIED],
    )


def build_verify_error(names: Iterable[str], ranges: Ranges) -> VerifyError:
    """The error that says where flash and files differ."""
    shown = ", ".join(f"{start:#x}..{end:#x}" for start, end in ranges[:4])
    more = f" and {len(ranges) - 4} more ranges" if len(ranges) > 4 else ""
    return VerifyError(f"the flash differs from {', '.join(names)} at {shown}{more}", ranges=ranges)


def _differences_by_reading(
    device: Device, address: int, data: bytes, name: str, report: Report
) -> Ranges:
    """Reads all of it; sectors with any other byte."""
    if not can_read(device):
        check_can_verify_device(device)
    wrong: list[tuple[int, int]] = []
    at = 0
    limit = LossLimit(device.loader)
    for piece in device.read_flash(address, len(data)):
        limit.check()
        if piece != data[at : at + len(piece)]:
            wrong += _differing_sectors(address, data, at, piece)
        before, at = at, at + len(piece)
        if at // SECTOR != before // SECTOR or at >= len(data):
            report(Progress(task="verify", name=name, done=at, total=len(data)))
    if at < len(data):  # never take a short read for a good one
        wrong.append((address + at, address + len(data)))
    return join_ranges(wrong)


def _differing_sectors(address: int, data: bytes, at: int, piece: bytes) -> list[tuple[int, int]]:
    found = []
    for start in range(align_down(address + at, SECTOR), address + at + len(piece), SECTOR):
        low, high = max(start - address, at), min(start + SECTOR - address, at + len(piece))
        if piece[low - at : high - at] != data[low:high]:
            found.append((max(start, address), min(start + SECTOR, address + len(data))))
    return found


def _differences_by_sectors(device: Device, address: int, data: bytes) -> Ranges:
    """Has every sector hashed, in one request for all that are whole; the ends are asked for by themselves."""
    wrong: list[tuple[int, int]] = []
    end = address + len(data)
    first = min(-(-address // SECTOR) * SECTOR, end)
    for start, stop in ((address, first), (first, end)):
        if start == stop:
            continue
        for index, digest in enumerate(read_md5s(device.loader, start, stop - start, SECTOR)):
            low = start + index * SECTOR
            high = min(low + SECTOR, stop)
            piece = data[low - address : high - address]
            if hashlib.md5(piece, usedforsecurity=False).digest() != digest:
                wrong.append((low, high))
    return join_ranges(wrong)


def _differences_by_md5(device: Device, address: int, data: bytes) -> Ranges:
    """Halves what is known to differ, down to sectors."""
    questions = MD5_BUDGET
    pending, final = [(address, address + len(data))], []

    def same(start: int, end: int) -> bool:
        part = data[start - address : end - address]
        return (
            read_md5(device, start, end - start)
            == hashlib.md5(part, usedforsecurity=False).digest()
        )

    while pending:
        start, end = pending.pop(
            0
        )  # coarse before fine, so that an exhausted budget leaves no huge range
        middle = align_down((start + end) // 2, SECTOR)
        if middle <= start:
            middle = align_down(start, SECTOR) + SECTOR
        if middle >= end or not questions:
            final.append((start, end))
            continue
        questions -= 1
        if same(start, middle):
            pending.append((middle, end))  # so the difference is in the other half
            continue
        pending.append((start, middle))
        if not questions:
            pending.append((middle, end))
            continue
        questions -= 1
        if not same(middle, end):
            pending.append((middle, end))
    return join_ranges(final)
