"""What must be true of parts before they are planned, told by errors; opinions are guards.py's. Pure."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from espwire.errors import Unsupported, UsageError
from espwire.sizes import align_down, align_up, format_size

if TYPE_CHECKING:
    from espwire.flash.plan import FlashTarget, Part, Policy

ADDRESS_LIMIT = 1 << 32
WRITE_ALIGN = 4


def check_parts(parts: tuple[Part, ...], survey: FlashTarget, policy: Policy) -> list[Part]:
    """The parts that are not empty, by address, once nothing speaks against planning them.

    :raises UsageError, Unsupported: as ``plan``
    """
    _check_abilities(parts, survey, policy)
    ordered = sorted(
        (p for p in parts if p.data), key=lambda p: (p.address, p.end)
    )  # see find_erased_end
    for part in ordered:
        _check_address(part, survey)
    for left, right in pairwise(ordered):
        _check_overlap(left, right, survey.sector_size)
    return ordered


def can_compare(part: Part, survey: FlashTarget, policy: Policy) -> bool:
    """Whether it can be found out that the flash holds a part, and will still hold it then."""
    return not (part.encrypted or policy.erase_all or policy.verify is False) and survey.can_verify


def _check_abilities(parts: tuple[Part, ...], survey: FlashTarget, policy: Policy) -> None:
    name = survey.dialect.name
    if any(part.encrypted for part in parts) and not survey.dialect.encrypted_write:
        raise Unsupported(
            f"this {name} loader cannot encrypt while writing",
            hint="On an ESP32 our own stub can (no --no-stub, no --stub), on newer chips the ROM; no ESP8266 can.",
            code="no-encrypted-write",
        )
    if policy.verify:
        check_can_verify(survey, encrypted=any(part.encrypted for part in parts))


def check_can_verify(survey: FlashTarget, *, encrypted: bool = False) -> None:
    """Raise if flash content cannot be checked.

    :raises Unsupported: neither MD5 nor reading exists, or the content is encrypted by the chip
    """
    if encrypted:
        raise Unsupported(
            "what the chip encrypts cannot be verified", hint="Leave verification out."
        )
    if not survey.can_verify:
        raise Unsupported(
            f"this {survey.dialect.name} loader can neither compute an MD5 of the flash nor read it",
            hint=hint_at_stub(secure=survey.secure_download),
            code="cannot-verify",
        )


def hint_at_stub(*, secure: bool) -> str:
    """What to try where a loader cannot read: a ROM whose stub was not wanted, or did not start.

    :param secure: Secure Download Mode
    """
    if secure:
        return "Secure Download Mode bars it for good."
    return "The stub can: leave out --no-stub; if it did not start, lower --baud."


def _check_address(part: Part, survey: FlashTarget) -> None:
    align = (
        survey.encrypted_align if part.encrypted else 1
    )  # a plain part is filled up from its sector's start
    if part.address < 0 or part.end > ADDRESS_LIMIT:
        raise UsageError(
            f"{part.label} does not fit into 32-bit flash addresses",
            hint="Check the address.",
            code="address",
        )
    if part.address % align:
        raise UsageError(
            f"{part.label} is to go to {part.address:#x}, which is not a multiple of {align}",
            hint="The chip encrypts whole blocks: choose an address at the start of one.",
            code="address",
        )


def _check_overlap(left: Part, right: Part, sector: int) -> None:
    if align_up(left.end, sector) > align_down(right.address, sector):
        raise UsageError(
            f"{left.label} ({span(left.address, left.end)}) and {right.label} ({span(right.address, right.end)}) "
            f"share a {sector // 1024} KiB sector of flash",
            hint="Check the addresses: writing one would erase the other.",
            code="overlap",
            parts=[[left.label, left.address, left.end], [right.label, right.address, right.end]],
        )


def span(start: int, end: int) -> str:
    """A range for people."""
    return f"{start:#x}..{end:#x} ({format_size(end - start)})"
