"""Reads the security state: secure boot, flash encryption, key purposes."""

from __future__ import annotations

from dataclasses import dataclass, replace

from espwire.chips.model import BitAt, BitPart, Chip
from espwire.device.double_read import ask_twice
from espwire.device.identity import Identity, Registers
from espwire.device.loader import Loader
from espwire.errors import DeviceError
from espwire.protocol.commands import GetSecurityInfo
from espwire.sizes import extract

SECURE_BOOT_ENABLED, SECURE_DOWNLOAD_ENABLED = 1 << 0, 1 << 2
FLAG_NAMES = (
    "SECURE_BOOT_EN",
    "SECURE_BOOT_AGGRESSIVE_REVOKE",
    "SECURE_DOWNLOAD_ENABLE",
    "SECURE_BOOT_KEY_REVOKE0",
    "SECURE_BOOT_KEY_REVOKE1",
    "SECURE_BOOT_KEY_REVOKE2",
    "SOFT_DIS_JTAG",
    "HARD_DIS_JTAG",
    "DIS_USB",
    "DIS_DOWNLOAD_DCACHE",
    "DIS_DOWNLOAD_ICACHE",
)
CRYPT_CONFIG = "flash_crypt_config"
LONG_FORM, SHORT_FORM = 20, 12


@dataclass(frozen=True, kw_only=True)
class SecurityInfo:
    """The security state. None: this chip lacks the feature, or it cannot be read (Secure Download Mode).

    ``known`` is False for chips without security features (ESP8266). ``flags`` is the word of GET_SECURITY_INFO.
    ``key_manager_flash_key``: the key manager, not an eFuse, owns the flash key.
    """

    known: bool = True
    flags: int | None = None
    flash_crypt_count: int | None = None
    secure_boot: bool = False
    secure_boot_v1: bool = False
    flash_encryption: bool = False
    secure_download: bool = False
    key_purposes: tuple[int, ...] = ()
    chip_id: int | None = None
    eco: int | None = None
    manual_encrypt_disabled: bool | None = None
    key_manager_flash_key: bool | None = None

    def flag_names(self) -> tuple[str, ...]:
        """The set flags by name."""
        return tuple(name for bit, name in enumerate(FLAG_NAMES) if (self.flags or 0) >> bit & 1)

    def purpose_names(self, chip: Chip) -> tuple[str, ...]:
        """The key purposes by name, key 0 first."""
        return tuple(
            chip.security.key_purposes.get(purpose, str(purpose)) for purpose in self.key_purposes
        )


UNKNOWN = SecurityInfo(known=False)


@dataclass(frozen=True)
class SecurityReply:
    """The body of GET_SECURITY_INFO. ``chip_id`` and ``eco`` are None in the 12-byte form of the ESP32-S2."""

    flags: int
    flash_crypt_count: int
    key_purposes: tuple[int, ...]
    chip_id: int | None
    eco: int | None

    @property
    def secure_download(self) -> bool:
        """Whether the chip is in Secure Download Mode."""
        return bool(self.flags & SECURE_DOWNLOAD_ENABLED)


def parse_security_reply(body: bytes) -> SecurityReply | None:
    """The 20- or 12-byte form; None for any other length. Source: protocol.toml [security_info]."""
    if len(body) not in (LONG_FORM, SHORT_FORM):
        return None
    ids = (
        [int.from_bytes(body[at : at + 4], "little") for at in (12, 16)]
        if len(body) == LONG_FORM
        else [None, None]
    )
    return SecurityReply(int.from_bytes(body[:4], "little"), body[4], tuple(body[5:12]), *ids)


def read_security(
    chip: Chip, registers: Registers | None, reply: SecurityReply | None, revision: int
) -> SecurityInfo:
    """The security state from the reply to GET_SECURITY_INFO and, if they can be read, from registers.

    :param registers: None in Secure Download Mode
    """
    where = chip.security
    encryption = where.flash_encryption
    if reply is None:
        if registers is None or encryption is None:
            return UNKNOWN
        count = _count(encryption, registers)
        return SecurityInfo(
            flash_crypt_count=count,
            secure_boot=_bit(where.secure_boot_v2 or where.secure_boot, registers, revision),
            secure_boot_v1=_bit(where.secure_boot_v1, registers, revision),
            flash_encryption=count.bit_count() % 2 == 1,
            manual_encrypt_disabled=_bit(where.manual_encrypt_disable, registers, revision),
        )
    manual = key_manager = None
    if registers is not None and where.manual_encrypt_disable is not None:
        manual = _bit(where.manual_encrypt_disable, registers, revision)
    if registers is not None and (owner := where.key_manager_flash_key) is not None:
        key_manager = bool(registers.word(owner.address) >> owner.shift & owner.test_mask)
    return SecurityInfo(
        flags=reply.flags,
        flash_crypt_count=reply.flash_crypt_count,
        secure_boot=bool(reply.flags & SECURE_BOOT_ENABLED),
        flash_encryption=reply.flash_crypt_count.bit_count() % 2 == 1,
        secure_download=reply.secure_download,
        key_purposes=reply.key_purposes[: where.key_count],
        chip_id=reply.chip_id,
        eco=reply.eco,
        manual_encrypt_disabled=manual,
        key_manager_flash_key=key_manager,
    )


def ask_security(
    loader: Loader, chip: Chip, registers: Registers | None, revision: int
) -> SecurityInfo:
    """As ``read_security``, with a new reply to GET_SECURITY_INFO.

    :param registers: None in Secure Download Mode
    :raises Unsupported: the loader has no GET_SECURITY_INFO
    :raises DeviceError: code ``bad-reply``
    """
    body = ask_twice(loader, (GetSecurityInfo(),))[0].body
    reply = parse_security_reply(body)
    if reply is None:
        raise DeviceError(
            f"the chip sent {len(body)} bytes of security information, expected {LONG_FORM} or {SHORT_FORM}",
            code="bad-reply",
        )
    return read_security(chip, registers, reply, revision)


def read_fuse_security(chip: Chip, registers: Registers, known: SecurityInfo) -> SecurityInfo:
    """The state from eFuses, for a running stub without GET_SECURITY_INFO. ``flags`` and ``eco`` stay None."""
    purposes = tuple(
        extract(registers.word(slot.address), slot.shift, slot.bits)
        for slot in chip.security.key_purpose_slots
    )
    chip_id = (
        chip.identity.image_chip_id if chip.identity.security_info_bytes == LONG_FORM else None
    )
    return replace(known, key_purposes=purposes[: chip.security.key_count], chip_id=chip_id)


def read_flash_key_valid(chip: Chip, registers: Registers, info: SecurityInfo) -> bool | None:
    """Whether a flash encryption key is burned; None: unknown. Reads up to ten registers."""
    where = chip.security
    if info.key_manager_flash_key:
        return True
    if (readable := where.key_readable) is not None:
        if registers.word(readable.read_disable_address) >> readable.bit & 1:
            return True
        return any(registers.word(readable.key_words_from + 4 * at) for at in range(readable.words))
    if (valid := where.key_valid) is not None:
        long = registers.word(valid.long_key_address) >> valid.long_key_bit & 1
        disabled = registers.word(valid.read_disable_address) & valid.read_disable_mask
        needs, words = (
            (valid.long_needs, valid.long_words) if long else (valid.short_needs, valid.short_words)
        )
        if disabled & needs == needs:
            return True
        return any(registers.word(valid.key_address + 4 * at) for at in range(words))
    if not where.flash_key_valid_if:
        return None
    held = set(info.key_purposes)
    return any(
        held.intersection(rule.any_of) or (rule.all_of and held.issuperset(rule.all_of))
        for rule in where.flash_key_valid_if
    )


def read_crypt_config(chip: Chip, identity: Identity) -> int | None:
    """FLASH_CRYPT_CONFIG of the ESP32: which address bits modify the flash key. None: no such field, or read-protected."""
    hidden = chip.security.crypt_config_read_disable
    if hidden is None or CRYPT_CONFIG not in chip.fields or _bit(hidden, identity.registers, 0):
        return None
    return identity.value(CRYPT_CONFIG)


def _bit(at: BitAt | None, registers: Registers, revision: int) -> bool:
    if at is None or (at.min_revision is not None and revision < at.min_revision):
        return False
    return bool(registers.word(at.address) >> at.bit & 1)


def _count(field: BitPart, registers: Registers) -> int:
    return extract(registers.word(field.address), field.shift, field.bits)
