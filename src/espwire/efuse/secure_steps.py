"""The steps that switch on security features, in the order in which a chip needs them.

The order is that of ESP-IDF's "Security Features Enablement Workflows", with two changes. Firmware is written before a feature
is enabled, and a flash encryption key is hidden only after that: until then, its block proves which key it holds, and from
then on, the firmware in flash does. All keys that must be hidden come before RD_DIS is locked, and what closes download mode
comes last.

Each step is a request to a planner (``planner.py``), so whether a step is done is visible in the eFuses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from espwire.efuse import meaning
from espwire.efuse.check import has_error, has_failed
from espwire.efuse.digests import find_only_place, judge_scheme, list_digest_purposes
from espwire.efuse.keys import Key, build_number, is_free, request_keys
from espwire.efuse.model import Field, Purpose
from espwire.efuse.planner import Planner, build_refusal
from espwire.efuse.requests import Pair, request_fields, request_write_locks
from espwire.efuse.security_status import (
    CRYPT_COUNTS,
    DIRECT_BOOT_OFF,
    PAD_JTAG_OFF,
    SECURE_BOOT,
    SECURE_DOWNLOAD,
    SOFT_JTAG_OFF,
    USB_JTAG_OFF,
)
from espwire.efuse.state import READ_LOCKS, FuseState
from espwire.efuse.trust import list_trusted
from espwire.errors import Unsupported, UsageError
from espwire.flash.findings import Finding, build_fatal
from espwire.secure.flash_encryption import USUAL_CRYPT_CONFIG
from espwire.secure.keys import PublicKey

ENCRYPTION, SECURE_BOOT_V2, JTAG_OFF = "flash-encryption", "secure-boot-v2", "jtag-off"
FEATURES = (ENCRYPTION, SECURE_BOOT_V2, JTAG_OFF)
DOWNLOAD = "download"  # the name of the last step
UART_DOWNLOAD_OFF = "UART_DOWNLOAD_DIS"
DOWNLOAD_OFF_REVISION = 300  # of the ESP32; see the rule efuse-no-effect
CRYPT_CONFIG = "FLASH_CRYPT_CONFIG"
AGGRESSIVE = "SECURE_BOOT_AGGRESSIVE_REVOKE"
SHA384 = "SECURE_BOOT_SHA384_EN"
# what release mode burns, where the chip has it
CLOSE_ENCRYPTION = (
    "DISABLE_DL_ENCRYPT",
    "DISABLE_DL_DECRYPT",
    "DISABLE_DL_CACHE",
    "DIS_DOWNLOAD_ICACHE",
    "DIS_DOWNLOAD_DCACHE",
    "DIS_DOWNLOAD_MANUAL_ENCRYPT",
    "DIS_DOWNLOAD_MSPI",
    "XTS_DPA_PSEUDO_LEVEL",
)
CLOSE_BOOT = (*DIRECT_BOOT_OFF, "DIS_BOOT_REMAP")
LOCKED_TOGETHER = ("DIS_CACHE", "DIS_ICACHE")  # their lock covers the fields above
PURPOSES = {
    16: "XTS_AES_128_KEY_DERIVED_FROM_128_EFUSE_BITS",
    32: "XTS_AES_128_KEY",
    64: "XTS_AES_256_KEY",
}
Collect = Callable[[Planner], None]


class SecureRequest(NamedTuple):
    """What is to be enabled.

    :ivar release: also close what is open afterwards
    :ivar flash_key: as in a key file; empty: none
    :ivar reserved: names of key blocks to leave empty
    :ivar aggressive: a signature that fails revokes its key
    :ivar keep_download: leave download mode as it is
    """

    features: frozenset[str]
    release: bool
    signing_keys: tuple[PublicKey, ...] = ()
    flash_key: bytes = b""
    reserved: tuple[str, ...] = ()
    aggressive: bool = False
    keep_download: bool = False


class SecureStep(NamedTuple):
    """A step. ``collect`` requests its burns; None: firmware is written."""

    name: str
    title: str
    collect: Collect | None


class SecureSteps(NamedTuple):
    """The steps for a chip, the use of its key blocks, and what is left out.

    :ivar flash_key: the flash encryption key that the chip will have, or has
    """

    steps: tuple[SecureStep, ...]
    blocks: dict[str, str]
    notes: tuple[str, ...]
    flash_key: tuple[Key, ...]


def list_steps(state: FuseState, request: SecureRequest) -> SecureSteps:
    """The steps for a chip in this state.

    :raises UsageError: a key is missing, or a name is unknown
    :raises Unsupported: code ``plan-feature``: the chip does not have the feature
    :raises DeviceError: no key block or digest slot is free, or a key is revoked
    """
    return _Steps(state, request).build()


class _Steps:
    def __init__(self, state: FuseState, request: SecureRequest) -> None:
        self._state, self._request = state, request
        self._on = request.features
        self._reserved = {state.layout.block(name).id for name in request.reserved}
        self._notes: list[str] = []
        self._require_features()
        self._flash_key = self._place_flash_key() if ENCRYPTION in self._on else ()
        encrypts = any(state.raw(count).bit_count() % 2 for count in self._find(CRYPT_COUNTS))
        has_key = encrypts and bool(request.flash_key)
        self._burned_key = self._place_flash_key() if has_key else ()
        self._digests = self._place_digests() if SECURE_BOOT_V2 in self._on else ()
        self._require_no_remains()

    def build(self) -> SecureSteps:
        return SecureSteps(
            tuple(self._list()),
            self._map_blocks(),
            tuple(self._notes),
            self._flash_key or self._burned_key,
        )

    def _map_blocks(self) -> dict[str, str]:
        uses: dict[str, list[str]] = {}
        for key in (*self._flash_key, *self._digests):
            name = self._state.layout.block(key.block).name
            uses.setdefault(name, []).append(key.purpose or key.block)
        return {name: " and ".join(each) for name, each in uses.items()}

    def _list(self) -> Iterator[SecureStep]:
        release, on = self._request.release, self._on
        keys = (*self._flash_key, *self._digests)
        if keys:
            what = " and ".join(
                text
                for text, part in (
                    ("the flash encryption key", self._flash_key),
                    ("the digests of the signing keys", self._digests),
                )
                if part
            )
            yield SecureStep("keys", f"burn {what}", self._burn_keys)
            yield SecureStep("firmware", "write the firmware that the chip will accept", None)
        if self._flash_key:
            hide = self._flash_key
            title = "make the flash encryption key unreadable"
            yield SecureStep(
                "hide-key", title, lambda planner: self._request_keys(planner, hide, True)
            )
        if ENCRYPTION in on:
            yield self._fields("encryption", "enable flash encryption", self._encryption_fields())
        if SECURE_BOOT_V2 in on:
            yield self._fields("secure-boot", "enable secure boot", self._boot_fields())
        if JTAG_OFF in on or (release and self._jtag_fields()):
            yield self._fields("jtag", "switch JTAG off", self._jtag_fields())
        if release and on - {JTAG_OFF}:
            yield SecureStep("close", "close what is left open", self._close)
            if self._digests:
                self._notes.append(
                    "after the step close, no key can be made unreadable any more: burn other secret keys before"
                )
            yield from self._end_download()

    def _require_features(self) -> None:
        jtag = (*PAD_JTAG_OFF, *USB_JTAG_OFF, *SOFT_JTAG_OFF)
        needed = {ENCRYPTION: CRYPT_COUNTS, SECURE_BOOT_V2: SECURE_BOOT, JTAG_OFF: jtag}
        for feature, names in needed.items():
            if feature in self._on and not self._find(names):
                raise Unsupported(
                    f"{self._state.data.name} has no eFuses for {feature}",
                    hint="Leave it out of the plan.",
                    code="plan-feature",
                )

    def _find(self, names: Iterable[str]) -> list[Field]:
        """The fields of these names that the chip has, each once."""
        found = (self._state.layout.find(name) for name in names)
        return list({each.name: each for each in found if isinstance(each, Field)}.values())

    def _set(self, names: Iterable[str]) -> list[Pair]:
        return [(field.name, "1") for field in self._find(names)]

    def _fields(self, name: str, title: str, pairs: list[Pair]) -> SecureStep:
        def collect(planner: Planner) -> None:
            request_fields(planner, pairs)

        return SecureStep(name, f"{title}: {', '.join(each for each, _ in pairs)}", collect)

    # keys

    def _burn_keys(self, planner: Planner) -> None:
        """Keys stay readable until the firmware is in flash."""
        for public in self._request.signing_keys if self._digests else ():
            planner.dangers += judge_scheme(planner.before, public.scheme)
        planner.dangers += self._find_other_digests(planner.before)
        keys = (*self._flash_key, *self._digests)
        hidden = any(self._is_hidden(planner.before, key) for key in self._flash_key)
        self._request_keys(planner, keys, hidden)

    def _find_other_digests(self, state: FuseState) -> list[Finding]:
        """Digests in the chip that are not of the given signing keys, for example of an earlier attempt."""
        given = [key.data for key in self._digests]
        others = [
            f"{each.digest.hex()[:16]}… ({each.purpose} in {each.block})"
            for each in (list_trusted(state) if self._digests else ())
            if not each.revoked and not any(key.startswith(each.digest) for key in given)
        ]
        if not others:
            return []
        text = f"the chip would also trust a signing key that is not given, with the digest {' and '.join(others)}"
        remedy = "Add its public key with --key, or revoke its digest."
        return [build_fatal("efuse-other-digest", text, by_name_only=True, remedy=remedy)]

    def _is_hidden(self, state: FuseState, key: Key) -> bool:
        block = state.layout.block(key.block)
        return bool(state.hidden_mask(block))

    def _request_keys(self, planner: Planner, keys: tuple[Key, ...], hide: bool) -> None:
        planner.named_keys |= self._reserved
        request_keys(planner, keys, read_protect=hide)

    def _place_flash_key(self) -> tuple[Key, ...]:
        key, data = self._request.flash_key, self._state.data
        if not key:
            raise UsageError(
                "flash-encryption needs a flash encryption key",
                hint="Create one with `espwire secure generate-flash-encryption-key`, and add --key FILE.",
            )
        named = [each for each in data.key_purposes if each.name == "flash_encryption"]
        if named:
            return (Key(named[0].name, key),)
        if len(key) not in PURPOSES:
            raise UsageError(
                f"the flash encryption key has {len(key)} bytes",
                hint=f"{data.name} uses keys of 32 bytes; see the guide, Security.",
                code="key-size",
            )
        purpose = self._state.layout.purpose(PURPOSES[len(key)])
        return (Key(self._choose_block(purpose, key, set()), key, purpose.name),)

    def _place_digests(self) -> tuple[Key, ...]:
        keys, data = self._request.signing_keys, self._state.data
        if not keys:
            raise UsageError("secure-boot-v2 needs a signing key", hint="Add --key FILE.")
        only = find_only_place(self._state)
        other = self._find_other_digest()
        if other and only is not None:
            raise build_refusal(
                f"{other} holds the digest of another signing key, and this chip has no slot for one more",
                "Use the signing key that the chip knows.",
                "plan-no-slot",
            )
        if other:
            self._notes.append(f"{other} holds the digest of another signing key")
        if only is None:
            return tuple(self._place_each(keys, list_digest_purposes(data)))
        if len(keys) > 1:
            raise UsageError(
                f"{data.name} uses one signing key, not {len(keys)}", hint="Give one --key."
            )
        start = next((each.start for each in data.key_purposes if each.name == only.purpose), 0)
        flash_keys = (*self._flash_key, *self._burned_key)
        if any(each.block == only.block and 8 * len(each.data) > start for each in flash_keys):
            raise UsageError(
                f"{only.block} of {data.name} has no room for a digest next to a flash encryption key of more than {start} bits",
                hint=f"Use a flash encryption key of {start} bits.",
                code="key-size",
            )
        return (only._replace(data=keys[0].digest()),)

    def _find_other_digest(self) -> str:
        """The block with a digest, if the chip trusts none of the signing keys; empty: it has none, or trusts one."""
        digests = [key.digest() for key in self._request.signing_keys]
        trusted = [each for each in list_trusted(self._state) if not each.revoked]
        known = any(digest.startswith(each.digest) for digest in digests for each in trusted)
        return trusted[0].block if trusted and not known else ""

    def _place_each(self, keys: Iterable[PublicKey], purposes: list[Purpose]) -> Iterator[Key]:
        state = self._state
        taken = {state.layout.block(key.block).id for key in self._flash_key}
        trusted = {each.digest: each for each in list_trusted(state)}
        used = {each.purpose for each in trusted.values()} | {
            purpose.name
            for purpose in purposes
            if state.value_of(meaning.revocation_name(purpose.name))
        }
        for public in keys:
            digest = public.digest()
            known = trusted.get(digest)
            if known is not None and known.revoked:
                raise build_refusal(
                    f"the signing key in {known.block} is revoked on this chip",
                    "Use another signing key.",
                    "plan-revoked-key",
                )
            if known is not None:
                yield Key(known.block, digest, known.purpose)
                continue
            free = next((each for each in purposes if each.name not in used), None)
            if free is None:
                other = self._find_other_digest()
                raise build_refusal(
                    (f"{other} holds the digest of another signing key, and " if other else "")
                    + "no slot for another digest is free: all are used or revoked",
                    "Use a signing key that the chip knows.",
                    "plan-no-slot",
                )
            used.add(free.name)
            block = self._choose_block(free, digest, taken)
            taken.add(state.layout.block(block).id)
            yield Key(block, digest, free.name)

    def _choose_block(self, purpose: Purpose, data: bytes, taken: set[int]) -> str:
        """The block that holds the key already, even if its burn was cut short, or the first free one.

        :raises DeviceError: code ``efuse-no-free-block``
        """
        state, halves = self._state, [purpose]
        if purpose.splits_into:
            halves = [state.layout.purpose(name) for name in purpose.splits_into]
        part = data[: len(data) // len(halves)]
        stored = build_number(halves[0], part)
        slots = [block for block in state.data.blocks if block.purpose_field]
        if not slots:
            return state.data.key_blocks[0]
        for block in slots:
            field = state.layout.field(block.purpose_field)
            same = meaning.purpose_number(state, field) == halves[0].value
            content = state.blocks[block.id]
            cut_short = has_error(state, block) and not content & ~stored
            if content == stored or cut_short or (same and state.hidden_mask(block)):
                return block.name
        barred = {slots[-1].id} if halves[0].name in state.data.slot5_forbidden else set()
        for block in slots:
            if block.id not in taken | self._reserved | barred and is_free(state, block):
                return block.name
        raise build_refusal(
            f"no key block is free for {purpose.name}",
            "Show the key blocks with `espwire secure status`.",
            "efuse-no-free-block",
        )

    def _require_no_remains(self) -> None:
        """Stop if a key block holds a part of another key, which software can read.

        :raises DeviceError: code ``plan-partial-key``
        """
        state = self._state
        used = {state.layout.block(key.block).id for key in (*self._flash_key, *self._digests)}
        for block in state.data.blocks:
            content = state.blocks[block.id] and has_failed(state, block)
            if block.purpose_field and content and block.id not in used | self._reserved:
                raise build_refusal(
                    f"{block.name} has a coding error and can be read: it may hold a part of a key whose burn was cut short",
                    f"Use the key of that burn, or leave the block as it is with --reserve {block.name}.",
                    "plan-partial-key",
                )

    # fields

    def _encryption_fields(self) -> list[Pair]:
        count = self._find(CRYPT_COUNTS)[0]
        every = f"{(1 << count.bits) - 1:#x}"
        config = self._find((CRYPT_CONFIG,))
        pairs: list[Pair] = [(field.name, f"{USUAL_CRYPT_CONFIG:#x}") for field in config]
        value = every if self._request.release else "1"
        raw = self._state.raw(count)
        if not self._request.release and raw.bit_count() % 2:
            value = f"{raw:#x}"  # on already
        return [*pairs, (count.name, value)]

    def _boot_fields(self) -> list[Pair]:
        long = any(key.scheme.hash_name == "sha384" for key in self._request.signing_keys)
        return [*(self._set((SHA384,)) if long else []), *self._set(SECURE_BOOT)]

    def _jtag_fields(self) -> list[Pair]:
        if self._request.release:
            return self._set((*PAD_JTAG_OFF, *USB_JTAG_OFF))
        soft = self._find(SOFT_JTAG_OFF)
        if not soft:
            raise Unsupported(
                f"{self._state.data.name} can switch JTAG off only permanently",
                hint="Use --mode release.",
                code="plan-feature",
            )
        self._notes.append(
            "JTAG can be enabled again by firmware that has an HMAC key of the chip; release mode prevents that"
        )
        return [(field.name, f"{(1 << field.bits) - 1:#x}") for field in soft]

    # release mode

    def _close(self, planner: Planner) -> None:
        on = self._on
        names = [*(CLOSE_ENCRYPTION if ENCRYPTION in on else ()), *CLOSE_BOOT]
        if SECURE_BOOT_V2 in on:
            names += self._list_unused_slots()
            names += [AGGRESSIVE] if self._request.aggressive else []
        request_fields(planner, self._set(names))
        locks = [field.name for field in self._find(LOCKED_TOGETHER if ENCRYPTION in on else ())]
        locks += [READ_LOCKS] if SECURE_BOOT_V2 in on else []
        request_write_locks(planner, locks)

    def _list_unused_slots(self) -> list[str]:
        purposes = [key.purpose for key in self._digests]
        purposes += [trusted.purpose for trusted in list_trusted(self._state)]
        used = {meaning.revocation_name(purpose) for purpose in purposes}
        return [name for name in meaning.REVOCATIONS if name not in used]

    def _end_download(self) -> Iterator[SecureStep]:
        """Secure Download Mode where there is one; else no download mode, and the lock that it shares with the counter."""
        secure = self._find((SECURE_DOWNLOAD,))
        if (
            SECURE_BOOT_V2 in self._on
            and self._find((AGGRESSIVE,))
            and not self._request.aggressive
        ):
            self._notes.append(
                f"{AGGRESSIVE} is left out: with it, one image with a wrong signature revokes its key. Add --allow aggressive-revoke to burn it"
            )
        if self._request.keep_download:
            self._notes.append("download mode stays open")
            return
        if secure:
            title = "allow only Secure Download Mode: eFuses can no longer be read or burned"
            yield self._fields(DOWNLOAD, title, self._set((SECURE_DOWNLOAD,)))
            return
        effective = self._state.revision >= DOWNLOAD_OFF_REVISION
        if not effective:
            self._notes.append(f"{UART_DOWNLOAD_OFF} has no effect on this revision")

        def collect(planner: Planner) -> None:
            request_fields(planner, self._set((UART_DOWNLOAD_OFF,)) if effective else [])
            if ENCRYPTION in self._on:
                request_write_locks(planner, [self._find(CRYPT_COUNTS)[0].name])

        if effective or ENCRYPTION in self._on:
            yield SecureStep(DOWNLOAD, "end download mode over UART, and lock the counter", collect)
