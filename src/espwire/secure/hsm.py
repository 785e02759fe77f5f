"""Signing keys in a hardware security module, through PKCS#11 (package python-pkcs11, extra ``espwire[hsm]``).

The settings are espsecure's: an INI file with the section ``hsm_config``. The host computes the digest, and the module
only signs it, by the mechanisms ``ECDSA`` and ``RSA_PKCS_PSS``, which every module has. Each error names the setting
that is wrong. A PIN is sent once: most modules lock themselves after a few wrong ones.
"""

from __future__ import annotations

import configparser
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from espwire.errors import Unsupported, UsageError
from espwire.secure.keys import SCHEMES, PublicKey, Scheme
from espwire.secure.verify import SALT

if TYPE_CHECKING:
    from pkcs11 import Key, ObjectClass, Session, Token
    from pkcs11.types import SignMixin

SECTION = "hsm_config"
KEYS = ("pkcs11_lib", "credentials", "slot", "token_label", "label", "label_pubkey")
CURVES = {  # object identifier, in DER → scheme
    bytes.fromhex("06082a8648ce3d030101"): SCHEMES["ecdsa192"],
    bytes.fromhex("06082a8648ce3d030107"): SCHEMES["ecdsa256"],
    bytes.fromhex("06052b81040022"): SCHEMES["ecdsa384"],
}
UNCOMPRESSED = 0x04


class HsmConfig(NamedTuple):
    """Settings of a security module. ``slot`` or ``token_label`` selects the token; ``pin`` None: it is requested."""

    library: str
    label: str
    public_label: str
    slot: int | None = None
    token_label: str | None = None
    pin: str | None = None

    def __repr__(self) -> str:
        return f"HsmConfig({self.library!r}, label={self.label!r})"


class HsmSigner:
    """A key in an open session, as a ``Signer``."""

    def __init__(self, key: SignMixin | None, public: PublicKey) -> None:
        self._key, self.public = key, public

    def sign(self, digest: bytes) -> bytes:
        """See ``Signer``.

        :raises UsageError: code ``hsm-sign``: the module refuses
        """
        from pkcs11 import MGF, Mechanism, PKCS11Error

        if self._key is None:
            raise UsageError("the key cannot sign", hint="Check label.", code="hsm-label")
        try:
            if not self.public.scheme.is_rsa:
                return bytes(self._key.sign(digest, mechanism=Mechanism.ECDSA))
            parameters = (Mechanism.SHA256, MGF.SHA256, SALT)
            pss = Mechanism.RSA_PKCS_PSS
            return bytes(self._key.sign(digest, mechanism=pss, mechanism_param=parameters))
        except PKCS11Error as error:
            raise UsageError(
                f"the security module does not sign with this key: {type(error).__name__}",
                hint="Check that the key may sign, and by which mechanisms.",
                code="hsm-sign",
            ) from None


def parse_config(text: str, name: str) -> HsmConfig:
    """The settings in an INI file.

    :raises UsageError: code ``hsm-config``
    """
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_string(text)
        values = dict(parser[SECTION])
    except (configparser.Error, KeyError):
        raise _wrong_config(name, f"it is not an INI file with the section [{SECTION}]") from None
    if unknown := sorted(values.keys() - set(KEYS)):
        raise _wrong_config(name, f"unknown setting {unknown[0][:40]!r}")
    for key in ("pkcs11_lib", "label"):
        if not values.get(key):
            raise _wrong_config(name, f"{key} is missing")
    slot, token = values.get("slot"), values.get("token_label")
    if (slot is None) == (token is None):
        raise _wrong_config(name, "either slot or token_label is required")
    if slot is not None and not (slot.isascii() and slot.isdecimal() and len(slot) < 20):
        raise _wrong_config(name, f"slot must be a number, not {slot[:40]!r}")
    return HsmConfig(
        values["pkcs11_lib"],
        values["label"],
        values.get("label_pubkey") or values["label"],
        None if slot is None else int(slot),
        token,
        values.get("credentials") or None,
    )


def _wrong_config(name: str, reason: str) -> UsageError:
    return UsageError(f"{name}: {reason}", hint=f"Settings: {', '.join(KEYS)}.", code="hsm-config")


@contextmanager
def open_signer(
    config: HsmConfig, ask_pin: Callable[[], str], *, private: bool = True
) -> Iterator[HsmSigner]:
    """The key, as long as the block lasts.

    :param ask_pin: called once if the settings have no PIN
    :param private: find the private key, not only the public one
    :raises UsageError: code ``hsm-library``, ``hsm-slot``, ``hsm-pin``, ``hsm-label``
    :raises Unsupported: code ``needs-pkcs11``
    """
    token = _find_token(config)
    pin = config.pin if config.pin is not None else ask_pin()
    with _open_session(token, pin) as session:
        from pkcs11 import ObjectClass
        from pkcs11.types import SignMixin

        public = _read_public(_find_key(session, config.public_label, ObjectClass.PUBLIC_KEY))
        key = _find_key(session, config.label, ObjectClass.PRIVATE_KEY) if private else None
        yield HsmSigner(key if isinstance(key, SignMixin) else None, public)


def _find_token(config: HsmConfig) -> Token:
    """:raises UsageError: code ``hsm-library``, ``hsm-slot``"""
    try:
        import pkcs11
    except ImportError:
        raise Unsupported(
            "security modules need the Python package python-pkcs11, which is not installed",
            hint='Run: pip install "espwire[hsm]"',
            code="needs-pkcs11",
        ) from None
    try:
        slots = pkcs11.lib(config.library).get_slots(token_present=True)
        tokens = {slot.slot_id: slot.get_token() for slot in slots}
    except (pkcs11.PKCS11Error, RuntimeError) as error:
        raise UsageError(
            f"pkcs11_lib {config.library!r} cannot be used: {str(error)[:200] or type(error).__name__}",
            hint="Set pkcs11_lib to the PKCS#11 library of the security module.",
            code="hsm-library",
        ) from None
    if config.slot is not None:
        found = [token for slot, token in tokens.items() if slot == config.slot]
        wrong = f"slot {config.slot} has no token"
    else:
        found = [token for token in tokens.values() if token.label.strip() == config.token_label]
        wrong = f"{len(found) or 'no'} tokens have the token_label {config.token_label!r}"
    if len(found) == 1:
        return found[0]
    known = ", ".join(f"slot {slot} ({token.label.strip()})" for slot, token in tokens.items())
    raise UsageError(wrong, hint=f"Tokens: {known or 'none'}.", code="hsm-slot")


@contextmanager
def _open_session(token: Token, pin: str) -> Iterator[Session]:
    """:raises UsageError: code ``hsm-pin``"""
    import pkcs11

    try:
        session = token.open(user_pin=pin)
    except pkcs11.PKCS11Error as error:
        name = type(error).__name__
        locked = isinstance(error, pkcs11.PinLocked)
        if not name.startswith(("Pin", "UserPin")):
            raise UsageError(
                f"the token cannot be opened: {name}", hint="Check the token.", code="hsm-slot"
            ) from None
        raise UsageError(
            "the token is locked after wrong PINs" if locked else f"the PIN is wrong ({name})",
            hint="Unlock the token." if locked else "Check credentials. The PIN was sent once.",
            code="hsm-pin",
        ) from None
    with session:
        yield session


def _find_key(session: Session, label: str, kind: ObjectClass) -> Key:
    """:raises UsageError: code ``hsm-label``"""
    import pkcs11

    private = kind == pkcs11.ObjectClass.PRIVATE_KEY
    what = f"{'private' if private else 'public'} key with the label {label!r}"
    setting = "label" if private else "label_pubkey"
    try:
        return session.get_key(object_class=kind, label=label)
    except pkcs11.MultipleObjectsReturned:
        reason = f"the token has more than one {what}"
    except pkcs11.PKCS11Error:
        reason = f"the token does not have a {what}"
    raise UsageError(reason, hint=f"Check {setting}.", code="hsm-label") from None


def _read_public(key: Key) -> PublicKey:
    """:raises UsageError: code ``hsm-label``: not a key for secure boot"""
    import pkcs11
    from pkcs11 import Attribute, KeyType

    try:
        if key.key_type == KeyType.RSA:
            modulus = int.from_bytes(key[Attribute.MODULUS], "big")
            if modulus.bit_length() == 3072 and modulus & 1:
                exponent = int.from_bytes(key[Attribute.PUBLIC_EXPONENT], "big")
                return PublicKey(SCHEMES["rsa3072"], modulus, exponent)
        elif key.key_type == KeyType.EC:
            scheme = CURVES.get(bytes(key[Attribute.EC_PARAMS]))
            if scheme is not None:
                return _split_point(bytes(key[Attribute.EC_POINT]), scheme)
    except (pkcs11.PKCS11Error, ValueError):
        pass
    raise UsageError(
        "the key in the token is not one for secure boot",
        hint="Use an RSA-3072, ECDSA P-192, P-256 or P-384 key.",
        code="hsm-label",
    )


def _split_point(data: bytes, scheme: Scheme) -> PublicKey:
    """The point, with or without the header of an OCTET STRING around it.

    :raises ValueError: it has another length
    """
    point = data[-1 - 2 * scheme.size :]
    if len(point) != 1 + 2 * scheme.size or point[0] != UNCOMPRESSED:
        raise ValueError(data)
    x, y = point[1 : 1 + scheme.size], point[1 + scheme.size :]
    return PublicKey(scheme, int.from_bytes(x, "big"), int.from_bytes(y, "big"))
