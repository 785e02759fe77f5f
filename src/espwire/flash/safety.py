"""What speaks against a plan: findings on security, wrong images and sizes. Pure: facts in, findings out.

A fatal finding stops the work unless its consent is given by name, or ``force`` for all. Rules: the chips' data
(``[security]``, ``[flash]``) and ``chips/data/image.toml`` (``revision_rule``).

Finds images in the wrong place, other files where the chip boots from, and missing signatures. Pure.

Used for parts on their way into flash, and for parts that are merged into a file for flash.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from espwire.chips.index import CHIPS
from espwire.chips.registry import find_by_image_id, load_chip
from espwire.device.consents import check_consents
from espwire.errors import ImageError, SafetyStop
from espwire.flash.plan import Finding, FlashTarget, Part, Policy
from espwire.image.codec import is_image, parse
from espwire.image.descriptors import find_app_descriptor, find_boot_descriptor
from espwire.image.elf import is_flash
from espwire.image.file_kind import describe_kind
from espwire.image.header import find_header_size
from espwire.image.model import ANY_REVISION, ExtendedHeader, Image
from espwire.image.partition_table import ROW_MAGIC
from espwire.image.scan import find_contents, looks_encrypted
from espwire.sizes import SECTOR, Revision, format_size

if TYPE_CHECKING:
    from espwire.chips.model import Chip
    from espwire.device.security import SecurityInfo
if TYPE_CHECKING:
    from espwire.chips.model import Chip
    from espwire.device.security import SecurityInfo
    from espwire.image.model import Image
    from espwire.image.scan import Found


BOOT_OFFSETS = sorted({entry.bootloader_offset for entry in CHIPS})
FULL_CRYPT_CONFIG = 0xF  # all bits of the address change the ESP32's flash key
SHORT_ADDRESS_LIMIT = 0x1000000  # what 24 address bits reach


@dataclass(frozen=True, kw_only=True)
class Target:
    """The chip to be written to, as identified. ``security`` None: nothing is known of it.

    ``flash_key``: whether its eFuses hold a key to encrypt flash with; ``crypt_config``: which bits of the address
    change that key (ESP32). None: not known, or no such thing.
    """

    chip: Chip
    survey: FlashTarget
    revision: int | None = None
    security: SecurityInfo | None = None
    flash_key: bool | None = None
    crypt_config: int | None = None

    @property
    def checks_images(self) -> bool:
        """Whether the chip may refuse an image of which a byte was changed."""
        security = self.security
        secured = security is not None and (
            security.secure_boot or security.secure_boot_v1 or security.secure_download
        )
        return secured or self.survey.secure_download


def find_problems(parts: Iterable[Part], target: Target, policy: Policy) -> tuple[Finding, ...]:
    """Everything that speaks against writing ``parts``."""
    found: list[Finding] = []
    for part in parts:
        if part.data:
            found += _find_area_problems(part.label, part.address, part.end, target)
            found += _find_encryption_problems(part, target)
            if part.encrypted:
                found += _find_key_problems(part, target, policy)
            if part.chips and target.chip.id not in part.chips:
                text = f"{part.label} is for {' or '.join(part.chips)}, not for {target.chip.id}"
                found.append(
                    Finding("wrong-chip-image", text, fatal=True, consent="wrong-chip-image")
                )
            else:
                found += _find_image_problems(cut_boot_part(part, target.chip) or part, target)
            found += find_place_problems(part, target.chip, target.security)
            found += find_unsigned(part, target.chip, target.security)
    if policy.erase_all:
        found += find_erase_problems(0, target.survey.flash_size or 0, target)
    return tuple(found)


def find_erase_problems(start: int, end: int, target: Target) -> tuple[Finding, ...]:
    """Everything that speaks against erasing ``start`` to ``end``."""
    found = _find_area_problems("the area to erase", start, end, target)
    security = target.security
    if security is not None and (
        security.flash_encryption or security.secure_boot or security.secure_boot_v1
    ):
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


def stop_if_fatal(findings: Iterable[Finding], policy: Policy, *, code: str | None = None) -> None:
    """Raise if something fatal lacks its consent.

    :raises SafetyStop: all of them, with the consents that would allow it
    :raises UsageError: code ``unknown-consent``: the policy names one that there is not
    """
    allowed = check_consents(policy.consents)
    open_ones = [
        f
        for f in findings
        if f.fatal and f.consent not in allowed and (f.by_name_only or not policy.force)
    ]
    if not open_ones:
        return
    more = f" (and {len(open_ones) - 1} more)" if len(open_ones) > 1 else ""
    consents = tuple(dict.fromkeys(f.consent for f in open_ones))
    raise SafetyStop(
        open_ones[0].text + more,
        hint=_build_hint(open_ones),
        code=code or open_ones[0].code,
        consents=consents,
        findings=[{"code": f.code, "text": f.text, "consent": f.consent} for f in open_ones],
    )


def _build_hint(findings: list[Finding]) -> str:
    names = " ".join(f"--allow {name}" for name in dict.fromkeys(f.consent for f in findings))
    if any(finding.by_name_only for finding in findings):
        return f"If you are sure, repeat with {names}; --force does not pass this."
    return f"If you are sure, repeat with {names}, or with --force."


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
        text = (
            f"the key manager's data stands below {manager.protects_below:#x}, where {label} begins"
        )
        found.append(Finding("key-manager-area", text, fatal=True, consent="key-manager-area"))
    if survey.part_size is not None and end > survey.part_size:
        has = f"which by its own id has {format_size(survey.part_size)}: it would come back at address 0"
        text = f"{label} ends at {end:#x}, past the end of the flash, {has}"
        found.append(
            Finding("past-flash-end", text, fatal=True, consent="past-flash-end", by_name_only=True)
        )
    elif survey.flash_size is not None and end > survey.flash_size:
        guess = "assumed to have " if survey.size_assumed else ""
        text = f"{label} ends at {end:#x}, past the end of the flash ({guess}{format_size(survey.flash_size)})"
        found.append(Finding("past-flash-end", text, fatal=True, consent="past-flash-end"))
    if end > SHORT_ADDRESS_LIMIT and not survey.long_addresses:
        text = f"{label} goes beyond 16MB, which this {survey.dialect.name} loader's 24-bit addresses do not reach"
        found.append(Finding("beyond-16mb", text, fatal=True, consent="beyond-16mb"))
    return found


def _find_encryption_problems(part: Part, target: Target) -> list[Finding]:
    security = target.security
    if security is None or not security.flash_encryption or part.encrypted:
        return []
    plain = _looks_plain(part)
    if target.survey.secure_download or security.manual_encrypt_disabled:
        why = (
            "in Secure Download Mode"
            if target.survey.secure_download
            else "with encrypting downloads disabled"
        )
        is_not = "is not encrypted" if plain else "is written as it is"
        text = f"{part.label} {is_not}, but the chip reads only encrypted flash, {why} for good"
        return [Finding("plaintext-locked", text, fatal=True, consent="plaintext")]
    if not plain:
        return []
    return [
        Finding(
            "plaintext",
            f"{part.label} is not encrypted, but the chip has flash encryption on: it cannot run",
        )
    ]


def _find_key_problems(part: Part, target: Target, policy: Policy) -> list[Finding]:
    """Whether the chip can encrypt, and would understand what it encrypted. ``force`` does not make a key."""
    found, security = [], target.security
    if security is not None and security.manual_encrypt_disabled:
        text = (
            f"{part.label} is to be encrypted by the chip, whose eFuses disable that for downloads"
        )
        found.append(
            Finding(
                "encrypting-disabled",
                text,
                fatal=True,
                consent="encrypting-disabled",
                by_name_only=True,
            )
        )
    if policy.ignore_flash_enc_efuse:
        return found
    if target.flash_key is False:
        text = f"{part.label} is to be encrypted by the chip, whose eFuses hold no flash encryption key"
        found.append(
            Finding("no-flash-key", text, fatal=True, consent="no-flash-key", by_name_only=True)
        )
    if target.crypt_config not in (None, FULL_CRYPT_CONFIG):
        text = f"the eFuse FLASH_CRYPT_CONFIG is {target.crypt_config:#x}, not 0xf: the key would hardly change"
        found.append(
            Finding("crypt-config", text, fatal=True, consent="no-flash-key", by_name_only=True)
        )
    return found


def _looks_plain(part: Part) -> bool:
    """An image or a partition table with sound structure is surely not encrypted; of other data nobody can tell."""
    if not is_image(part.data):
        return part.data[:2] == ROW_MAGIC
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
    owner = (
        "esp8266"
        if header is None
        else find_by_image_id(header.chip_id) or f"chip id {header.chip_id}"
    )
    text = f"{part.label} is an image for {owner}, not for {chip.id}"
    return Finding("wrong-chip-image", text, fatal=at_boot, consent="wrong-chip-image")


def _find_revision_problems(
    part: Part, header: ExtendedHeader, target: Target, at_boot: bool
) -> list[Finding]:
    revision = target.revision
    legacy_is_minor = target.chip.image.legacy_revision == "minor"
    if revision is None or allows_revision(header, revision, legacy_is_minor=legacy_is_minor):
        return []
    least, most = header.min_revision, header.max_revision
    span = f"v{least // 100}.{least % 100}" + (
        f" to v{most // 100}.{most % 100}" if most != ANY_REVISION else " or later"
    )
    text = f"{part.label} needs chip revision {span}, this is {Revision(revision)}"
    if _has_legacy_rule(header):
        text = _describe_legacy(part.label, header.min_revision_legacy, target, revision)
    return [Finding("wrong-revision", text, fatal=at_boot, consent="wrong-revision")]


def _describe_legacy(label: str, legacy: int, target: Target, revision: int) -> str:
    """Why an image is refused whose header has the old one-byte field only."""
    major, minor = divmod(revision, 100)
    chip = target.chip
    if chip.image.legacy_revision != "minor":
        return f"{label} needs chip revision v{legacy}.0 or later, this is v{major}.{minor}"
    return (
        f"{label} has an old header that states only a minor revision, {legacy}, as the minimum; this {chip.name} is"
        f" v{major}.{minor}, so its minor revision {minor} is too low. The old field leaves the major revision"
        " out: build with ESP-IDF 5 or later, which states both"
    )


def _has_legacy_rule(header: ExtendedHeader) -> bool:
    """Whether the old one-byte field decides."""
    most = header.max_revision
    return not most or (
        most == ANY_REVISION and not header.min_revision and bool(header.min_revision_legacy)
    )


def allows_revision(
    header: ExtendedHeader, revision: int, *, legacy_is_minor: bool = False
) -> bool:
    """Whether a chip of ``revision`` may run the image. The one-byte legacy field holds the major revision.

    :param legacy_is_minor: on the ESP32-C3 it holds the minor revision
    """
    if _has_legacy_rule(header):
        return (
            revision % 100 if legacy_is_minor else revision // 100
        ) >= header.min_revision_legacy
    return header.min_revision <= revision <= header.max_revision


def _find_size_problems(part: Part, image: Image, target: Target) -> list[Finding]:
    stated = find_header_size(target.chip, image.size_code)
    real = target.survey.real_size
    if stated is None or real is None or stated <= real:
        return []
    text = f"{part.label} says that the flash has {format_size(stated)}, but it has {format_size(real)}"
    return [Finding("header-flash-size", text)]


TABLE_ADDRESS = 0x8000  # of the partition table, by default


@dataclass(frozen=True)
class Bootloader:
    """A bootloader in a part, or a merged file that begins with one. ``at``: its flash address there."""

    at: int
    chip: Chip
    merged: bool


def cut_boot_part(part: Part, chip: Chip) -> Part | None:
    """What a part puts where the chip boots from; None: nothing."""
    offset = chip.flash.bootloader_offset
    if not part.address <= offset < part.end:
        return None
    return (
        part
        if part.address == offset
        else replace(part, address=offset, data=part.data[offset - part.address :])
    )


def find_place_problems(
    part: Part, chip: Chip, security: SecurityInfo | None
) -> tuple[Finding, ...]:
    """Findings for a part that is meant for another address, or not for where the chip boots from.

    :param security: of the chip, if known: one with flash encryption boots from encrypted data
    """
    return find_misplaced(part, chip) or find_boot_content_problems(part, chip, security)


def find_misplaced(part: Part, chip: Chip) -> tuple[Finding, ...]:
    """The finding for a bootloader or a merged file at another address than its own."""
    loader = find_bootloader(part)
    if loader is None or not (loader.chip.image.extended_header or chip.image.extended_header):
        return ()  # an ESP8266 has images at many addresses
    right = loader.chip.flash.bootloader_offset
    if loader.at == chip.flash.bootloader_offset or not (
        loader.merged or loader.at in BOOT_OFFSETS
    ):
        return ()  # at the chip's own offset, other checks apply
    what = "a merged file that begins with the bootloader" if loader.merged else "a bootloader"
    text = f"{part.label} at {part.address:#x} is {what} for {loader.chip.id}"
    if loader.chip.id == chip.id:
        text += f", which belongs at {right:#x}: give {part.address - loader.at + right:#x} as its address"
    else:
        text += f", not for {chip.id}; the {loader.chip.name} boots from {right:#x}"
    return (Finding("wrong-offset", text, fatal=True, consent="wrong-offset"),)


def find_bootloader(part: Part) -> Bootloader | None:
    """The bootloader at the beginning of a part, or behind blank bytes where a chip boots from."""
    for start in BOOT_OFFSETS:
        if start and part.data[:start].strip(b"\xff"):
            return None
        if not is_image(part.data[start : start + 1]):
            continue
        try:
            image = parse(part.data[start:])
        except ImageError:
            return None
        chip = _find_chip(image)
        if chip is None:
            return None
        table = start + TABLE_ADDRESS - chip.flash.bootloader_offset
        merged = part.data[table : table + len(ROW_MAGIC)] == ROW_MAGIC
        if not (merged or _is_bootloader(image, chip)):
            return None
        return Bootloader(part.address + start, chip, merged)
    return None


def _find_chip(image: Image) -> Chip | None:
    if image.extended is None and not image.checksum_valid:
        return None
    chip_id = find_by_image_id(image.chip_id)
    return None if chip_id is None else load_chip(chip_id)


def _is_bootloader(image: Image, chip: Chip) -> bool:
    """An image that says so, or that has nothing in mapped flash and does not say that it is an application."""
    if find_boot_descriptor(image) is not None:
        return True
    mapped = any(segment.data and is_flash(chip, segment.address) for segment in image.segments)
    return not mapped and image.irom is None and find_app_descriptor(image) is None


def find_boot_content_problems(
    part: Part, chip: Chip, security: SecurityInfo | None = None
) -> tuple[Finding, ...]:
    """Findings for a part that puts something else than an image where the chip boots from."""
    boot = cut_boot_part(part, chip)
    if boot is None or not boot.data or is_image(boot.data):
        return ()
    place = f"{chip.flash.bootloader_offset:#x}, where the {chip.name} boots from"
    if not boot.data[:SECTOR].strip(b"\xff"):
        return (
            Finding(
                "boot-blank", f"{part.label} is blank at {place}: the chip cannot start from flash"
            ),
        )
    encrypted_flash = security is None or not security.known or security.flash_encryption
    if encrypted_flash and not part.encrypted and looks_encrypted(boot.data):
        return ()
    verb = "is" if boot is part else "holds"
    text = f"{part.label} {verb} {describe_kind(boot.data)}, not an image, but is to be written to {place}"
    return (Finding("not-an-image", text, fatal=True, consent="not-an-image"),)


def find_unsigned(part: Part, chip: Chip, security: SecurityInfo | None) -> tuple[Finding, ...]:
    """Findings for images that a chip with secure boot will not start."""
    if security is None or not (security.secure_boot or security.secure_boot_v1):
        return ()
    version = 2 if security.secure_boot else 1
    found = []
    for item in find_contents(part.data, chip, start=part.address):
        if item.image is None or item.image.extended is None:
            continue
        address = part.address + item.offset
        if version == 1 and address == chip.flash.bootloader_offset:
            continue  # version 1 checks it by a digest in flash, not by a signature
        if (why := _find_signature_fault(item, version)) is not None:
            text = f"the image in {part.label} for {address:#x} {why}, but secure boot is enabled: it will not start"
            found.append(Finding("unsigned-image", text, fatal=True, consent="unsigned-image"))
    return tuple(found)


def _find_signature_fault(item: Found, version: int) -> str | None:
    signatures = [signature for signature in item.signatures if signature.version == version]
    if not signatures:
        other = f" by version {3 - version} of secure boot only" if item.signatures else ""
        return f"is signed{other}" if other else "is not signed"
    if not any(signature.intact for signature in signatures):
        return "has no signature that fits its content"
    return None
