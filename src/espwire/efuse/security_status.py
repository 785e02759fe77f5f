"""What a chip's eFuses allow: secure boot, flash encryption, download mode, JTAG, keys, and what is still open.

``SecurityStatus`` is made of all eFuses, or in Secure Download Mode of the few facts that the ROM reports.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

from espwire.chips.model import Chip
from espwire.device.security import FLAG_NAMES, SecurityInfo
from espwire.efuse import meaning
from espwire.efuse.danger import ALONE, applies
from espwire.efuse.model import Block, Field
from espwire.efuse.state import FuseState
from espwire.efuse.tables import load_fuses
from espwire.record import Record

SECURE_BOOT = ("SECURE_BOOT_EN", "ABS_DONE_1")
SECURE_BOOT_V1 = "ABS_DONE_0"
CRYPT_COUNTS = ("SPI_BOOT_CRYPT_CNT", "FLASH_CRYPT_CNT")
DOWNLOAD_OFF = ("DIS_DOWNLOAD_MODE", "UART_DOWNLOAD_DIS")
SECURE_DOWNLOAD = "ENABLE_SECURITY_DOWNLOAD"
ENCRYPTING_OFF = ("DIS_DOWNLOAD_MANUAL_ENCRYPT", "DISABLE_DL_ENCRYPT")
PAD_JTAG_OFF = ("DIS_PAD_JTAG", "HARD_DIS_JTAG", "JTAG_DISABLE")
USB_JTAG_OFF = ("DIS_USB_JTAG",)
SOFT_JTAG_OFF = ("SOFT_DIS_JTAG",)
DIRECT_BOOT_OFF = ("DIS_DIRECT_BOOT", "DIS_LEGACY_SPI_BOOT")
FIRMWARE_ONLY = "only firmware can do this now"
NO_EFFECT = "efuse-no-effect"  # the rule about eFuses that a revision ignores
FLASH_KEYS = ("XTS_AES", "flash_encryption")
# The eFuse of each flag of GET_SECURITY_INFO, as the ROMs of the ESP32-C3 and the ESP32-S3 report them: a flag is set if its
# eFuse has an odd number of bits, and DIS_USB is USB-OTG. They report none of the eFuses of USB Serial/JTAG.
FLAG_FIELDS = {name: (name,) for name in FLAG_NAMES} | {
    "SECURE_DOWNLOAD_ENABLE": (SECURE_DOWNLOAD,),
    "HARD_DIS_JTAG": PAD_JTAG_OFF,
}


class KeySlot(NamedTuple):
    """A key block. ``state``: ``empty``, ``readable``, ``unreadable`` (read-protected), ``unknown``."""

    block: str
    purpose: str
    state: str
    revoked: bool = False


class Opening(NamedTuple):
    """Something that is still possible, and the step that ends it."""

    code: str
    text: str
    step: str


class Caveat(NamedTuple):
    """Something about this chip that the other lines do not show."""

    code: str
    text: str


class SecurityStatus(Record):
    """The security of a chip. ``complete``: from all eFuses; else from what Secure Download Mode reports.

    ``next_write``: how firmware must be written from now on.
    """

    complete: bool
    secure_boot: str
    flash_encryption: str
    download_mode: str
    pad_jtag: str
    usb_jtag: str
    next_write: str
    keys: tuple[KeySlot, ...] = ()
    openings: tuple[Opening, ...] = ()
    caveats: tuple[Caveat, ...] = ()


class _Fuses:
    """The values of eFuses by name. None: the chip has no such field, or it is not known.

    ``locked``: names of write-protected fields; None: not known. ``advised``: what to burn to end a download mode.
    """

    def __init__(
        self,
        values: Mapping[str, int],
        locked: frozenset[str] | None,
        sizes: Mapping[str, int],
        advised: str = "",
    ):
        self.values, self.locked, self.sizes, self.advised = values, locked, sizes, advised

    def find(self, names: tuple[str, ...]) -> str | None:
        """The first of these fields that is known."""
        return next((name for name in names if name in self.values), None)

    def test(self, names: tuple[str, ...]) -> bool | None:
        """Whether any of these fields is set."""
        known = [self.values[name] for name in names if name in self.values]
        return any(known) if known else None


def read_status(state: FuseState) -> SecurityStatus:
    """The status by all eFuses."""
    ignored = _list_ignored(state)
    fields = [
        field for field in state.fields() if isinstance(field, Field) and field.name not in ignored
    ]
    fuses = _Fuses(
        {field.name: state.raw(field) for field in fields if state.readable(field)},
        frozenset(field.name for field in fields if not state.writeable(field)),
        {field.name: state.bits(field) for field in fields},
        _advise_secure_download(state),
    )
    notes = (rule for rule in state.data.danger if rule.note and applies(rule, state, ALONE))
    caveats = tuple(Caveat(rule.name, rule.text) for rule in notes)
    return _build(fuses, tuple(_list_keys(state)), complete=True, caveats=caveats)


def _list_ignored(state: FuseState) -> frozenset[str]:
    """The eFuses that this revision ignores."""
    return frozenset(
        name
        for rule in state.data.danger
        if rule.name == NO_EFFECT and rule.min_revision <= state.revision <= rule.max_revision
        for name in rule.any_set
    )


def _advise_secure_download(state: FuseState) -> str:
    """The eFuses that enable Secure Download Mode without a danger; empty: this revision should not have it."""
    if state.layout.find(SECURE_DOWNLOAD) is None:
        return ""
    for rule in state.data.danger:
        covers = rule.min_revision <= state.revision <= rule.max_revision
        if covers and not rule.note and rule.all_set == (SECURE_DOWNLOAD,) and not rule.check:
            return " and ".join((*rule.clear, SECURE_DOWNLOAD)) if rule.clear else ""
    return SECURE_DOWNLOAD


def read_reported_status(chip: Chip, info: SecurityInfo) -> SecurityStatus:
    """The status by the reply to GET_SECURITY_INFO, which is all that Secure Download Mode allows."""
    flags, sizes = info.flag_names(), {}
    fields = {field.name for table in load_fuses(chip.id).table for field in table.fields}
    values = {
        name: int(flag in flags)
        for flag, names in FLAG_FIELDS.items()
        for name in names
        if name in fields
    }
    if info.flash_crypt_count is not None and chip.security.flash_encryption is not None:
        values[CRYPT_COUNTS[0]] = info.flash_crypt_count
        sizes[CRYPT_COUNTS[0]] = chip.security.flash_encryption.bits
    keys = tuple(
        KeySlot(f"BLOCK_KEY{number}", purpose, "unknown", meaning.revocation_name(purpose) in flags)
        for number, purpose in enumerate(info.purpose_names(chip))
    )
    status = _build(_Fuses(values, None, sizes), keys, complete=False)
    openings = (each._replace(step=f"{FIRMWARE_ONLY}: {each.step}") for each in status.openings)
    return status.replace(openings=tuple(openings))


def _list_keys(state: FuseState) -> Iterator[KeySlot]:
    names = dict.fromkeys(state.layout.block(name).name for name in state.data.key_blocks)
    for block in map(state.layout.block, names):
        purpose = _find_purpose(state, block)
        hidden = state.hidden_mask(block)
        content = "unreadable" if hidden else "readable" if state.blocks[block.id] else "empty"
        revoked = bool(state.value_of(meaning.revocation_name(purpose)))
        yield KeySlot(block.name, purpose, content, revoked)


def _find_purpose(state: FuseState, block: Block) -> str:
    """The purpose of a block; where the chip stores none, all that it can have."""
    if not block.purpose_field:
        fitting = (each.name for each in state.data.key_purposes if each.block in (None, block.id))
        return " or ".join(fitting)
    number = meaning.purpose_number(state, state.layout.field(block.purpose_field))
    names = (each.name for each in state.layout.purposes() if each.value == number)
    return next(names, str(number))


def _build(
    fuses: _Fuses,
    keys: tuple[KeySlot, ...],
    *,
    complete: bool,
    caveats: tuple[Caveat, ...] = (),
) -> SecurityStatus:
    openings = (
        *_find_boot_openings(fuses, keys),
        *_find_encryption_openings(fuses, keys),
        *_find_download_openings(fuses, complete=complete),
        *_find_jtag_openings(fuses, keys),
    )
    return SecurityStatus(
        complete=complete,
        secure_boot=_describe_boot(fuses),
        flash_encryption=_describe_encryption(fuses),
        download_mode=_describe_download(fuses),
        pad_jtag=_describe_jtag(fuses, PAD_JTAG_OFF),
        usb_jtag=_describe_jtag(fuses, USB_JTAG_OFF),
        next_write=_describe_next_write(fuses),
        keys=keys,
        openings=openings,
        caveats=(*caveats, *_find_boot_caveats(fuses)),
    )


def _describe_boot(fuses: _Fuses) -> str:
    if fuses.test(SECURE_BOOT):
        return "on, version 2"
    return "on, version 1" if fuses.test((SECURE_BOOT_V1,)) else "off"


def _describe_encryption(fuses: _Fuses) -> str:
    name = fuses.find(CRYPT_COUNTS)
    if name is None:
        return "not available"
    count = fuses.values[name]
    state = "on" if count.bit_count() % 2 else "off"
    if name not in fuses.sizes:
        return state
    left = fuses.sizes[name] - count.bit_count()
    if not left:
        return f"{state}, permanently"
    if fuses.locked is None:
        return f"{state}; unknown whether the counter is locked"
    if name in fuses.locked:
        return f"{state}, permanently"
    return f"{state}, can be switched {left} more time{'s' if left > 1 else ''}"


def _describe_download(fuses: _Fuses) -> str:
    if fuses.test(DOWNLOAD_OFF):
        return "off"
    return "secure" if fuses.test((SECURE_DOWNLOAD,)) else "open"


def _describe_next_write(fuses: _Fuses) -> str:
    if fuses.test(DOWNLOAD_OFF):
        return "not possible through this port"
    signed = "signed, " if fuses.test((*SECURE_BOOT, SECURE_BOOT_V1)) else ""
    name = fuses.find(CRYPT_COUNTS)
    if name is None or not fuses.values[name].bit_count() % 2:
        return f"{signed}as plaintext"
    chip = "" if fuses.test(ENCRYPTING_OFF) or fuses.test((SECURE_DOWNLOAD,)) else " or --encrypt"
    return f"{signed}encrypted: write-flash with --key{chip}"


def _find_boot_caveats(fuses: _Fuses) -> Iterator[Caveat]:
    if fuses.test((SECURE_BOOT_V1,)) and not fuses.test(SECURE_BOOT):
        text = "a new bootloader starts only with a digest made with the key in BLOCK2; if the chip made that key itself, the bootloader cannot be replaced"
        yield Caveat("fixed-bootloader", text)


def _describe_jtag(fuses: _Fuses, names: tuple[str, ...]) -> str:
    off = fuses.test(names)
    if off is None:
        return "unknown or not available"
    if off:
        return "off, permanently"
    name = fuses.find(SOFT_JTAG_OFF)
    soft = name is not None and fuses.values[name].bit_count() % 2
    return "off, until firmware enables it with an HMAC key" if soft else "open"


def _find_boot_openings(fuses: _Fuses, keys: tuple[KeySlot, ...]) -> Iterator[Opening]:
    if not fuses.test((*SECURE_BOOT, SECURE_BOOT_V1)):
        text = "write any firmware, which the chip then starts"
        step = "sign the firmware, burn the digest of its key, then enable secure boot"
        yield Opening("any-firmware", text, step)
        return
    used = {meaning.revocation_name(key.purpose) for key in keys}
    for name in meaning.REVOCATIONS:
        if fuses.values.get(name) == 0 and name not in used:
            text = f"burn the digest of another key for slot {name[-1]}, which is unused and not revoked"
            yield Opening("open-digest-slot", text, f"burn {name}")
    if fuses.test(DIRECT_BOOT_OFF) is False:
        text = "start an image in a mode of the ROM other than the usual boot from flash"
        yield Opening("other-boot-mode", text, f"burn {fuses.find(DIRECT_BOOT_OFF)}")


def _find_encryption_openings(fuses: _Fuses, keys: tuple[KeySlot, ...]) -> Iterator[Opening]:
    name = fuses.find(CRYPT_COUNTS)
    if name is None:
        return
    count = fuses.values[name]
    if not count.bit_count() % 2:
        text = "read everything in flash as plaintext"
        step = (
            "burn a flash encryption key, encrypt the flash content, then enable flash encryption"
        )
        yield Opening("plain-flash", text, step)
    elif (
        fuses.locked is not None
        and name not in fuses.locked
        and count.bit_count() < fuses.sizes.get(name, 0)
    ):
        text = "switch flash encryption off again"
        yield Opening("encryption-counter", text, f"write-protect {name}, or burn all of its bits")
    off = fuses.test(ENCRYPTING_OFF)
    if count.bit_count() % 2 and off is False and not fuses.test(DOWNLOAD_OFF):
        text = "have the chip encrypt and write other firmware"
        yield Opening("encrypting-downloads", text, f"burn {fuses.find(ENCRYPTING_OFF)}")
    for key in keys:
        if key.purpose.startswith(FLASH_KEYS) and key.state == "readable":
            text = f"read the flash encryption key in {key.block}"
            yield Opening("readable-key", text, f"read-protect {key.block}")


def _find_download_openings(fuses: _Fuses, *, complete: bool) -> Iterator[Opening]:
    if fuses.test(DOWNLOAD_OFF):
        return
    off = fuses.find(DOWNLOAD_OFF) or ("" if complete else DOWNLOAD_OFF[0])
    if fuses.test((SECURE_DOWNLOAD,)):
        text = "erase and write flash, and read the security state"
        yield Opening("secure-download", text, f"burn {off}, after all other eFuses")
        return
    text = "run programs in RAM, read memory and flash, and burn eFuses"
    names = " or ".join(filter(None, (fuses.advised, off)))
    step = (
        f"burn {names}, after all other eFuses"
        if names
        else "no eFuse of this revision prevents it"
    )
    yield Opening("download-mode", text, step)


def _find_jtag_openings(fuses: _Fuses, keys: tuple[KeySlot, ...]) -> Iterator[Opening]:
    for what, names in (("pins", PAD_JTAG_OFF), ("USB", USB_JTAG_OFF)):
        name, state = fuses.find(names), _describe_jtag(fuses, names)
        if name is None or fuses.test(names):
            continue
        if state == "open":
            yield Opening(
                f"jtag-{what.lower()}", f"debug the chip by JTAG over {what}", f"burn {name}"
            )
        elif any(key.purpose in ("HMAC_DOWN_ALL", "HMAC_DOWN_JTAG") for key in keys):
            text = f"debug the chip by JTAG over {what}, with firmware that has the HMAC key"
            yield Opening(f"jtag-{what.lower()}-hmac", text, f"burn {name}")
