"""Safety checks: reasons against writing or erasing, as one list of findings.

A fatal finding stops the work without a consent: by name (``--allow``), or ``force`` for all. Rules: the
chips' data (``[security]``, ``[flash]``) and ``chips/data/image.toml`` (``revision_rule``).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

from espwire.blob import Blob
from espwire.chips.registry import find_by_image_id
from espwire.errors import ImageError, Unsupported
from espwire.flash.boot_content import (
    ParsedImages,
    find_boot_content_problems,
    find_boot_start,
    find_misplaced,
)
from espwire.flash.findings import Finding, Policy, build_fatal
from espwire.flash.model import FlashTarget
from espwire.image.codec import is_image
from espwire.image.descriptors import APP_MAGIC, find_app_descriptor
from espwire.image.header import find_header_size
from espwire.image.model import ANY_REVISION, ExtendedHeader, Image
from espwire.image.partition_table import TABLE_OFFSET, TABLE_SIZE
from espwire.image.scan import find_regions, looks_encrypted
from espwire.image.signature import find_signatures, find_signed_end
from espwire.sizes import SECTOR, Revision, format_size

if TYPE_CHECKING:
    from espwire.chips.model import Chip
    from espwire.device.security import SecurityInfo
    from espwire.image.scan import Region

FULL_CRYPT_CONFIG = 0xF  # all address bits change the ESP32's flash key
PLAIN_KINDS = (
    "bootloader",
    "app",
    "image",
    "partition-table",
)  # with sound structure: surely not encrypted
APP_MARK = APP_MAGIC.to_bytes(4, "little")
APP_MARK_AT = 0x20  # behind the headers of an image and of its first segment
CIPHER_BLOCK = 16  # bytes of flash that are encrypted together


def find_problems(
    blobs: Iterable[Blob],
    target: FlashTarget,
    policy: Policy,
    images: ParsedImages | None = None,
    *,
    host_key: bool = False,
) -> tuple[Finding, ...]:
    """The reasons against writing ``blobs``.

    :param images: those of the blobs that are parsed already
    :param host_key: this computer encrypts what the chip reads as encrypted
    """
    images = images or ParsedImages(target.chip)
    findings: list[Finding] = []
    for blob in blobs:
        if blob.data:
            findings += _find_area_problems(blob.label, blob.address, blob.end, target)
            if not host_key:
                findings += _find_encryption_problems(blob, target)
            if blob.encrypted:
                findings += _find_key_problems(blob, target, policy)
            if blob.chips and target.chip.id not in blob.chips:
                text = f"{blob.label} is for {' or '.join(blob.chips)}, not for {target.chip.id}"
                remedy = _describe_remedy(target.chip)
                findings.append(build_fatal("wrong-chip-image", text, remedy=remedy))
            else:
                findings += _find_image_problems(blob, target, images)
            findings += find_misplaced(blob, target.chip, images) or find_boot_content_problems(
                replace(blob, encrypted=True) if host_key else blob, target.chip, target.security
            )
            findings += find_unsigned(blob, target.chip, target.security)
            findings += _find_oversized(blob, target, images)
    if policy.erase_all:
        findings += find_erase_problems(0, target.flash_size or 0, target)
    for start, end in policy.erase:
        findings += find_erase_problems(start, end, target)
    return tuple(findings)


def find_erase_problems(start: int, end: int, target: FlashTarget) -> tuple[Finding, ...]:
    """The reasons against erasing ``start`` to ``end``: with security on, bootloader and partition table must stay."""
    findings = _find_area_problems("the area to erase", start, end, target)
    security = target.security
    secured = security is not None and (
        security.flash_encryption or security.secure_boot or security.secure_boot_v1
    )
    if security is not None and secured and start < TABLE_OFFSET + TABLE_SIZE:
        what = "flash encryption" if security.flash_encryption else "secure boot"
        text = f"{what} is on: if the bootloader or the partition table is erased, the chip may never start again"
        findings.append(build_fatal("erase-secured", text))
    return tuple(findings)


def _find_area_problems(label: str, start: int, end: int, target: FlashTarget) -> list[Finding]:
    """Areas that a security function owns, and the end of the flash.

    :raises Unsupported: code ``beyond-loader``: the loader refuses such an address
    """
    findings = []
    facts, security, size = target.chip.security, target.security, target.flash_size
    protected = facts.secure_boot_v1_protects_below
    v1 = security is not None and security.secure_boot_v1
    if v1 and protected is not None and start < protected:
        text = f"secure boot version 1 is on and {label} begins below {protected:#x}: the chip may never start again. A bootloader can be replaced only if its digest is made with the key in the eFuses, not if the chip made that key itself"
        findings.append(build_fatal("secure-boot-area", text))
    manager = facts.key_manager_flash_key
    managed = security is not None and security.key_manager_flash_key
    if managed and manager is not None and start < manager.protects_below:
        text = f"the key manager keeps its data below {manager.protects_below:#x}, where {label} begins"
        findings.append(build_fatal("key-manager-area", text))
    if target.id_size is not None and end > target.id_size:
        has = f"{format_size(target.id_size)} by its JEDEC id"
        text = f"{label} ends at {end:#x}, which exceeds the flash ({has}); the address would wrap to 0"
        findings.append(build_fatal("past-flash-end", text, by_name_only=True))
    elif size is not None and end > size:
        guess = "assumed to have " if target.size_assumed else ""
        text = f"{label} ends at {end:#x}, past the end of the flash ({guess}{format_size(size)})"
        findings.append(build_fatal("past-flash-end", text))
    limits = target.limits
    if end > limits.reach and limits.refuses_beyond:
        raise Unsupported(
            limits.describe_reach(f"{label} ends at {end:#x}"),
            hint="The stub does not have this limit: leave out --no-stub.",
            code="beyond-loader",
        )
    if end > limits.reach:
        text = limits.describe_reach(f"{label} ends at {end:#x}")
        findings.append(build_fatal("beyond-16mb", text, by_name_only=True))
    return findings


def _find_encryption_problems(blob: Blob, target: FlashTarget) -> list[Finding]:
    security = target.security
    if security is None or not security.flash_encryption or blob.encrypted:
        return []
    plain = any(item.kind in PLAIN_KINDS for item in find_regions(blob.data, target.chip))
    if target.secure_download or security.manual_encrypt_disabled:
        state = "is permanently in Secure Download Mode"
        if not target.secure_download:
            state = "has encrypting downloads permanently disabled"
        is_not = "is not encrypted" if plain else "is written as it is"
        text = f"{blob.label} {is_not}, but the chip reads only encrypted flash and {state}"
        return [build_fatal("plaintext-locked", text, consent="plaintext")]
    if plain:
        text = f"{blob.label} is not encrypted, but the chip has flash encryption on: it cannot run"
        return [Finding("plaintext", text)]
    if blob.address % CIPHER_BLOCK and looks_encrypted(blob.data):
        text = f"{blob.label} looks encrypted, but {blob.address:#x} is not a multiple of {CIPHER_BLOCK}: the chip would decrypt it to something else"
        return [Finding("unaligned-ciphertext", text)]
    return []


def _find_key_problems(blob: Blob, target: FlashTarget, policy: Policy) -> list[Finding]:
    """Whether the chip can encrypt, and would understand what it encrypted. ``force`` does not make a key."""
    findings, security = [], target.security
    if security is not None and security.manual_encrypt_disabled:
        text = (
            f"{blob.label} is to be encrypted by the chip, whose eFuses disable that for downloads"
        )
        findings.append(build_fatal("encrypting-disabled", text, by_name_only=True))
    least = target.chip.flash.encrypts_from_revision
    if target.revision is not None and target.revision < least:
        text = f"{blob.label} is to be encrypted by the chip: the {target.chip.name} before {Revision(least)} is reported to write what its ROM cannot read then"
        remedy = "Use --key, which encrypts on this computer."
        findings.append(
            build_fatal(
                "encrypting-unreliable",
                text,
                consent="encrypting-unreliable",
                by_name_only=True,
                remedy=remedy,
            )
        )
    if policy.ignore_flash_enc_efuse:
        return findings
    if target.flash_key is False:
        text = f"{blob.label} is to be encrypted by the chip, whose eFuses hold no flash encryption key"
        findings.append(build_fatal("no-flash-key", text, by_name_only=True))
    if target.crypt_config not in (None, FULL_CRYPT_CONFIG):
        text = f"the eFuse FLASH_CRYPT_CONFIG is {target.crypt_config:#x}, not 0xf: the key would hardly change"
        findings.append(
            build_fatal("crypt-config", text, consent="no-flash-key", by_name_only=True)
        )
    return findings


def _find_image_problems(blob: Blob, target: FlashTarget, images: ParsedImages) -> list[Finding]:
    """A wrong image is fatal where the ROM will start it, elsewhere it may be on purpose."""
    chip = target.chip
    boot_start = find_boot_start(blob, chip)
    start, at_boot = boot_start or 0, boot_start is not None
    if not is_image(blob.data[start : start + 1]):
        return []
    image = images.parse(blob.data, start)
    if isinstance(image, ImageError):
        # not an image for this chip: perhaps one for another, perhaps broken, perhaps just data
        foreign = images.parse_any(blob.data, start)
        if isinstance(foreign, Image) and foreign.checksum_valid:
            return [_build_foreign(blob, chip, at_boot, foreign)]
        if at_boot:
            text = f"{blob.label} would be written to where the chip boots from, but {image}"
            return [build_fatal("image-broken", text, consent="damaged-image")]
        return []
    findings = []
    if image.extended is not None and image.extended.chip_id != chip.identity.image_chip_id:
        return [_build_foreign(blob, chip, at_boot, image)]
    if image.extended is not None and target.revision is not None:
        findings += _find_revision_problems(blob, image.extended, target, at_boot)
    if not image.intact:
        text = f"{blob.label} is damaged: its checksum or SHA-256 is wrong"
        findings.append(Finding("image-damaged", text, fatal=at_boot, consent="damaged-image"))
    stated, real = find_header_size(chip, image.size_code), target.real_size
    if at_boot and stated is not None and real is not None and stated > real:
        text = f"the header of {blob.label} states {format_size(stated)} of flash, but it has {format_size(real)}"
        findings.append(Finding("header-flash-size", text))
    return findings


def _build_foreign(blob: Blob, chip: Chip, at_boot: bool, image: Image) -> Finding:
    owner = find_by_image_id(image.chip_id) or f"chip id {image.chip_id}"
    text = f"{blob.label} is an image for {owner}, not for {chip.id}"
    remedy = _describe_remedy(chip)
    return Finding(
        "wrong-chip-image", text, fatal=at_boot, consent="wrong-chip-image", remedy=remedy
    )


def _describe_remedy(chip: Chip) -> str:
    return f"Use a build for {chip.id}, or connect another board."


def _find_revision_problems(
    blob: Blob, header: ExtendedHeader, target: FlashTarget, at_boot: bool
) -> list[Finding]:
    revision = target.revision
    legacy_is_minor = target.chip.image.legacy_revision == "minor"
    if revision is None or allows_revision(header, revision, legacy_is_minor=legacy_is_minor):
        return []
    least, most = header.min_revision, header.max_revision
    span = f"v{least // 100}.{least % 100}" + (
        f" to v{most // 100}.{most % 100}" if most != ANY_REVISION else " or later"
    )
    text = f"{blob.label} needs chip revision {span}, this is {Revision(revision)}"
    if _has_legacy_rule(header):
        text = _describe_legacy(blob.label, header.min_revision_legacy, target, revision)
    return [Finding("wrong-revision", text, fatal=at_boot, consent="wrong-revision")]


def _describe_legacy(label: str, legacy: int, target: FlashTarget, revision: int) -> str:
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


def may_hold_application(blobs: Iterable[Blob]) -> bool:
    """Whether a search for applications could find one."""
    return any(APP_MARK in blob.data for blob in blobs)


def find_older_versions(blobs: Iterable[Blob], chip: Chip, least: int) -> tuple[Finding, ...]:
    """Findings for applications whose security version is below ``least``. Whether that is enforced depends on the bootloader."""
    findings = []
    for blob in blobs if least else ():
        for item in find_regions(blob.data, chip, start=blob.address):
            app = None if item.image is None else find_app_descriptor(item.image)
            if app is not None and app.secure_version < least:
                text = f"the application in {blob.label} for {blob.address + item.offset:#x} has security version {app.secure_version}, below the {least} in the eFuses: with anti-rollback enabled, the bootloader refuses it"
                findings.append(Finding("older-security-version", text))
    return tuple(findings)


def find_unsigned(blob: Blob, chip: Chip, security: SecurityInfo | None) -> tuple[Finding, ...]:
    """Findings for images that a chip with secure boot will not start."""
    if security is None or not (security.secure_boot or security.secure_boot_v1):
        return ()
    version = 2 if security.secure_boot else 1
    findings = []
    for item in find_regions(blob.data, chip, start=blob.address):
        if item.image is None or item.image.extended is None:
            continue
        address = blob.address + item.offset
        if version == 1 and address == chip.flash.bootloader_offset:
            continue  # version 1 checks it by a digest in flash, not by a signature
        if (why := _find_signature_fault(item, version)) is not None:
            text = f"the image in {blob.label} for {address:#x} {why}, but secure boot is enabled: it will not start"
            findings.append(build_fatal("unsigned-image", text))
    for address in _find_headless(blob):
        text = f"{blob.label} has an application for {address:#x} that does not start with an image header, but secure boot is enabled: it will not start"
        findings.append(build_fatal("unsigned-image", text))
    return tuple(findings)


def _find_headless(blob: Blob) -> list[int]:
    """The addresses of applications without the first byte of an image: they have a description, or a signature at the end."""
    data, found = blob.data, set()
    at = data.find(APP_MARK)
    while at >= 0:
        start = at - APP_MARK_AT
        if start >= 0 and not (blob.address + start) % SECTOR and not is_image(data[start:]):
            found.add(blob.address + start)
        at = data.find(APP_MARK, at + 1)
    end = len(data) - SECTOR
    signed = end > 0 and not end % SECTOR and not is_image(data)
    if signed and any(each.version == 2 and each.crc_valid for each in find_signatures(data, end)):
        found.add(blob.address)
    return sorted(found)


def find_signed_bootloader(blob: Blob, chip: Chip, images: ParsedImages) -> tuple[int, int] | None:
    """The half-open range of flash of a bootloader signed for secure boot version 2 in ``blob``, with its signature sector."""
    start = find_boot_start(blob, chip)
    if start is None or not isinstance(image := images.parse(blob.data, start), Image):
        return None
    data = blob.data[start:]
    end = find_signed_end(data, len(data) - len(image.trailing))
    offset = chip.flash.bootloader_offset
    return None if end is None else (offset, offset + end)


def _find_oversized(blob: Blob, target: FlashTarget, images: ParsedImages) -> tuple[Finding, ...]:
    """The finding for a signed bootloader that the ROM cannot check: it loads it into a buffer of fixed size first."""
    place = find_signed_bootloader(blob, target.chip, images)
    limit = target.chip.security.signed_bootloader_limit
    if place is None or (size := place[1] - place[0] - SECTOR) <= limit:
        return ()
    text = f"the signed bootloader in {blob.label} has {size:#x} bytes; with secure boot version 2, the ROM of the {target.chip.name} starts at most {limit:#x}"
    enabled = target.security is not None and target.security.secure_boot
    return (Finding("bootloader-size", text, fatal=enabled, consent="bootloader-size"),)


def _find_signature_fault(item: Region, version: int) -> str | None:
    signatures = [signature for signature in item.signatures if signature.version == version]
    if not signatures:
        other = f" by version {3 - version} of secure boot only" if item.signatures else ""
        return f"is signed{other}" if other else "is not signed"
    if not any(signature.intact for signature in signatures):
        return "has no signature that fits its content"
    return None
