"""What speaks against a plan: findings on security, wrong images and sizes. Pure: facts in, findings out.

A fatal finding stops the work unless its consent is given by name, or ``force`` for all. Rules: the chips' data
(``[security]``, ``[flash]``) and ``chips/data/image.toml`` (``revision_rule``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from espwire.bits import format_size
from espwire.chips.registry import find_by_image_id
from espwire.errors import ImageError, SafetyStop
from espwire.flash.plan import Finding, FlashSurvey, Part, Policy
from espwire.image.flash_settings import find_header_size
from espwire.image.model import ANY_REVISION, ExtendedHeader, Image
from espwire.image.parse import is_image, parse

if TYPE_CHECKING:
    from espwire.chips.model import Chip
    from espwire.device.security import SecurityInfo

PARTITION_MAGIC = b"\xaa\x50"
SHORT_ADDRESS_LIMIT = 0x1000000  # what 24 address bits reach


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """The chip to be written to, as identified. ``security`` None: nothing is known of it."""

    chip: Chip
    survey: FlashSurvey
    revision: int | None = None
    security: SecurityInfo | None = None


def find_problems(parts: Iterable[Part], target: Target, policy: Policy) -> tuple[Finding, ...]:
    """Everything that speaks against writing ``parts``."""
    found: list[Finding] = []
    for part in parts:
        if part.data:
            found += _find_area_problems(part.label, part.address, part.end, target)
            found += _find_encryption_problems(part, target)
            found += _find_image_problems(part, target)
    if policy.erase_all:
        found += find_erase_problems(0, target.survey.flash_size or 0, target)
    return tuple(found)


def find_erase_problems(start: int, end: int, target: Target) -> tuple[Finding, ...]:
    """Everything that speaks against erasing ``start`` to ``end``."""
    found = _find_area_problems("the area to erase", start, end, target)
    security = target.security
    if security is not None and (security.flash_encryption or security.secure_boot or security.secure_boot_v1):
        what = "flash encryption" if security.flash_encryption else "secure boot"
        found.append(
            Finding(
                "erase-secured",
                f"{what} is on: if the boot loader is erased, the chip may never start again",
                fatal=True,
                consent="erase-secured",
            )
        )
    return tuple(found)


def stop_if_fatal(findings: Iterable[Finding], policy: Policy) -> None:
    """Raise if something fatal lacks its consent.

    :raises SafetyStop: all of them, with the consents that would allow it
    """
    open_ones = [f for f in findings if f.fatal and not policy.force and f.consent not in policy.consents]
    if not open_ones:
        return
    more = f" (and {len(open_ones) - 1} more)" if len(open_ones) > 1 else ""
    consents = tuple(dict.fromkeys(f.consent for f in open_ones))
    raise SafetyStop(
        open_ones[0].text + more,
        consents=consents,
        findings=[{"code": f.code, "text": f.text, "consent": f.consent} for f in open_ones],
    )


def _find_area_problems(label: str, start: int, end: int, target: Target) -> list[Finding]:
    """Areas that a security function owns, and the end of the flash."""
    found = []
    facts, security, survey = target.chip.security, target.security, target.survey
    barred = facts.secure_boot_v1_protects_below
    if barred is not None and security is not None and security.secure_boot_v1 and start < barred:
        text = f"secure boot is on and {label} begins below {barred:#x}: the chip may never start again"
        found.append(Finding("secure-boot-area", text, fatal=True, consent="secure-boot-area"))
    manager = facts.key_manager_flash_key
    if (
        manager is not None
        and security is not None
        and security.key_manager_flash_key
        and start < manager.protects_below
    ):
        text = f"the key manager's data stands below {manager.protects_below:#x}, where {label} begins"
        found.append(Finding("key-manager-area", text, fatal=True, consent="key-manager-area"))
    if survey.flash_size is not None and end > survey.flash_size:
        guess = "assumed to have " if survey.size_assumed else ""
        text = f"{label} ends at {end:#x}, past the end of the flash ({guess}{format_size(survey.flash_size)})"
        found.append(Finding("past-flash-end", text, fatal=True, consent="past-flash-end"))
    if end > SHORT_ADDRESS_LIMIT and not survey.long_addresses:
        text = f"{label} goes beyond 16MB, which this {survey.dialect.name} loader's 24-bit addresses do not reach"
        found.append(Finding("beyond-16mb", text, fatal=True, consent="beyond-16mb"))
    return found


def _find_encryption_problems(part: Part, target: Target) -> list[Finding]:
    security = target.security
    if security is None or not security.flash_encryption or part.encrypted or not _looks_plain(part):
        return []
    if target.survey.secure_download or security.manual_encrypt_disabled:
        why = "in Secure Download Mode" if target.survey.secure_download else "with encrypting downloads disabled"
        text = f"{part.label} is not encrypted, but the chip reads only encrypted flash, {why} for good"
        return [Finding("plaintext-locked", text, fatal=True, consent="plaintext")]
    return [Finding("plaintext", f"{part.label} is not encrypted, but the chip has flash encryption on: it cannot run")]


def _looks_plain(part: Part) -> bool:
    """An image or a partition table with sound structure is surely not encrypted; of other data nobody can tell."""
    if not is_image(part.data):
        return part.data[:2] == PARTITION_MAGIC
    try:
        parse(part.data)
    except ImageError:
        return False
    return True


def _find_image_problems(part: Part, target: Target) -> list[Finding]:
    """A wrong image is fatal where the ROM will start it, elsewhere it may be on purpose."""
    chip = target.chip
    at_boot = part.address == chip.flash.bootloader_offset
    if not is_image(part.data):
        return []
    try:
        image = parse(part.data, chip)
    except ImageError as error:
        return _find_foreign(part, chip, at_boot, error)
    found = []
    if image.extended is not None and image.extended.chip_id != chip.identity.image_chip_id:
        return [_foreign(part, chip, at_boot, image.extended)]
    if image.extended is not None and target.revision is not None:
        found += _find_revision_problems(part, image.extended, target, at_boot)
    if not image.intact:
        text = f"{part.label} is damaged: its checksum or SHA-256 is wrong"
        found.append(Finding("image-damaged", text, fatal=at_boot, consent="damaged-image"))
    return found + (_find_size_problems(part, image, target) if at_boot else [])


def _find_foreign(part: Part, chip: Chip, at_boot: bool, error: ImageError) -> list[Finding]:
    """No image for this chip: perhaps one for another, perhaps broken, perhaps just data."""
    try:
        image = parse(part.data)
    except ImageError:
        image = None
    if image is not None and image.checksum_valid:
        return [_foreign(part, chip, at_boot, image.extended)]
    if at_boot:
        text = f"{part.label} goes where the chip boots from, but {error}"
        return [Finding("image-broken", text, fatal=True, consent="damaged-image")]
    return []


def _foreign(part: Part, chip: Chip, at_boot: bool, header: ExtendedHeader | None) -> Finding:
    owner = "esp8266" if header is None else find_by_image_id(header.chip_id) or f"chip id {header.chip_id}"
    text = f"{part.label} is an image for {owner}, not for {chip.id}"
    return Finding("wrong-chip-image", text, fatal=at_boot, consent="wrong-chip-image")


def _find_revision_problems(part: Part, header: ExtendedHeader, target: Target, at_boot: bool) -> list[Finding]:
    revision = target.revision
    legacy_is_minor = target.chip.image.legacy_revision == "minor"
    if revision is None or allows_revision(header, revision, legacy_is_minor=legacy_is_minor):
        return []
    least, most = header.min_revision, header.max_revision
    legacy = header.min_revision_legacy
    span = f"v{least // 100}.{least % 100}" + (
        f" to v{most // 100}.{most % 100}" if most != ANY_REVISION else " or later"
    )
    if not most or (most == ANY_REVISION and not least):
        span = (f"v0.{legacy}" if legacy_is_minor else f"v{legacy}.0") + " or later"
    text = f"{part.label} needs chip revision {span}, this is v{revision // 100}.{revision % 100}"
    return [Finding("wrong-revision", text, fatal=at_boot, consent="wrong-revision")]


def allows_revision(header: ExtendedHeader, revision: int, *, legacy_is_minor: bool = False) -> bool:
    """Whether a chip of ``revision`` may run the image. The one-byte legacy field holds the major revision.

    :param legacy_is_minor: on the ESP32-C3 it holds the minor revision
    """
    least, most, legacy = header.min_revision, header.max_revision, header.min_revision_legacy
    if not most or (most == ANY_REVISION and not least and legacy):
        return (revision % 100 if legacy_is_minor else revision // 100) >= legacy
    return least <= revision <= most


def _find_size_problems(part: Part, image: Image, target: Target) -> list[Finding]:
    stated = find_header_size(target.chip, image.size_code)
    real = target.survey.real_size
    if stated is None or real is None or stated <= real:
        return []
    text = f"{part.label} says that the flash has {format_size(stated)}, but it has {format_size(real)}"
    return [Finding("header-flash-size", text)]
