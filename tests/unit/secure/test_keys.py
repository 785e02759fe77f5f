"""Key files: what is read, written and refused, and that no message contains a byte of a key."""

from __future__ import annotations

import base64
import hashlib
import random
import sys

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from espwire.errors import KeyFileError, SafetyStop, ToolError, Unsupported, UsageError
from espwire.secure.flash_encryption import generate_key as generate_flash_key
from espwire.secure.key_files import find_key, protect_keys
from espwire.secure.keys import (
    SCHEMES,
    PrivateKey,
    PublicKey,
    generate_key,
    parse_private_key,
    parse_public_key,
)

PEM, DER = serialization.Encoding.PEM, serialization.Encoding.DER
PLAIN = serialization.NoEncryption()


@pytest.fixture(scope="module")
def keys() -> dict[str, PrivateKey]:
    """One key of each scheme."""
    return {name: generate_key(scheme) for name, scheme in SCHEMES.items()}


def refuse(data: bytes, parse=parse_private_key, **more) -> KeyFileError:
    with pytest.raises(KeyFileError) as caught:
        parse(data, "a.pem", **more)
    assert "a.pem" in str(caught.value)
    return caught.value


@pytest.mark.parametrize("name", SCHEMES)
def test_a_key_is_read_from_each_form_of_file(name, keys):
    key = keys[name]
    raw = key._key
    texts = [
        key.pem(),
        key.pem(pkcs8=True),
        b"-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n"
        + key.pem(),
        b"Bag Attributes\n" + key.pem().replace(b"\n", b"\r\n"),
        raw.private_bytes(DER, serialization.PrivateFormat.PKCS8, PLAIN),
        raw.private_bytes(DER, serialization.PrivateFormat.TraditionalOpenSSL, PLAIN),
    ]
    for text in texts[2:] if name == "rsa3072" else texts:  # reading an RSA key takes 0.2 s
        assert parse_private_key(text, "a.pem").public == key.public
        assert parse_public_key(text, "a.pem") == key.public
    public = raw.public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    for text in (key.public.pem(), public.public_bytes(DER, form)):
        assert parse_public_key(text, "a.pem") == key.public
        assert refuse(text).code == "key-public"
    with pytest.raises(ToolError, match="not an ECDSA key") if name == "rsa3072" else _nothing():
        assert len(key.scalar()) == SCHEMES[name].size


class _nothing:
    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


def test_pkcs_1_public_keys_and_raw_points_are_read(keys):
    public = keys["rsa3072"]._key.public_key()
    text = public.public_bytes(PEM, serialization.PublicFormat.PKCS1)
    assert parse_public_key(text, "a.pem") == keys["rsa3072"].public
    der = public.public_bytes(DER, serialization.PublicFormat.PKCS1)
    assert parse_public_key(der, "a.der") == keys["rsa3072"].public
    point = keys["ecdsa256"].public
    assert parse_public_key(point.raw(), "raw.bin") == point
    assert refuse(bytes(64), parse_public_key).code == "key-point"


def test_the_first_forms_of_a_generated_key_are_those_of_espsecure(keys):
    assert keys["rsa3072"].pem().startswith(b"-----BEGIN RSA PRIVATE KEY-----\n")
    assert keys["ecdsa256"].pem().startswith(b"-----BEGIN EC PRIVATE KEY-----\n")
    assert keys["ecdsa256"].pem(pkcs8=True).startswith(b"-----BEGIN PRIVATE KEY-----\n")
    assert keys["ecdsa256"].pem(b"secret").startswith(b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n")
    assert "0x" not in repr(keys["ecdsa256"])


def test_encrypted_keys_need_their_passphrase(keys):
    key = keys["ecdsa256"]
    old = serialization.PrivateFormat.TraditionalOpenSSL
    secret = serialization.BestAvailableEncryption(b"secret")
    for text in (key.pem(b"secret"), key._key.private_bytes(PEM, old, secret)):
        assert parse_private_key(text, "a.pem", lambda: b"secret").public == key.public
        assert refuse(text).code == "key-passphrase"
        assert refuse(text, passphrase=lambda: b"wrong").code == "key-passphrase"


def der(kind: int, content: bytes) -> bytes:
    length = len(content)
    size = bytes([length]) if length < 128 else b"\x81" + bytes([length])
    return bytes([kind]) + size + content


def encrypted(oid: str, numbers: list[int]) -> bytes:
    """An encrypted PKCS#8 key with these parameters of its key derivation."""
    ints = b"".join(der(2, n.to_bytes(n.bit_length() // 8 + 1, "big")) for n in numbers)
    kdf = der(0x30, der(6, bytes.fromhex(oid)) + der(0x30, der(4, bytes(8)) + ints))
    aes = der(0x30, der(6, bytes.fromhex("60864801650304012a")) + der(4, bytes(16)))
    pbes2 = der(0x30, der(6, bytes.fromhex("2a864886f70d01050d")) + der(0x30, kdf + aes))
    return der(0x30, pbes2 + der(4, bytes(64)))


@pytest.mark.parametrize(
    ("oid", "numbers"),
    [("2a864886f70d01050c", [1 << 40]), ("2b06010401da47040b", [1 << 25, 8, 1])],
)
@pytest.mark.parametrize("pem", [False, True])
def test_a_passphrase_that_takes_minutes_to_check_is_refused(oid, numbers, pem):
    data = encrypted(oid, numbers)
    if pem:
        text = base64.encodebytes(data)
        data = (
            b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n"
            + text
            + b"-----END ENCRYPTED PRIVATE KEY-----\n"
        )
    assert refuse(data, passphrase=lambda: b"secret").code == "key-cost"


def test_keys_of_other_kinds_are_refused_by_name():
    forms = serialization.PrivateFormat.PKCS8
    small = rsa.generate_private_key(65537, 2048).private_bytes(PEM, forms, PLAIN)
    assert "2048 bits" in str(refuse(small))
    other = ec.generate_private_key(ec.SECP521R1()).private_bytes(PEM, forms, PLAIN)
    assert "secp521r1" in str(refuse(other))
    edwards = ed25519.Ed25519PrivateKey.generate()
    assert refuse(edwards.private_bytes(PEM, forms, PLAIN)).code == "key-scheme"
    public = edwards.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    assert refuse(public, parse_public_key).code == "key-scheme"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "not-a-key"),
        (b"\xe9" + bytes(100), "not-a-key"),
        (b"-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n", "not-a-key"),
        (
            b"-----BEGIN PRIVATE KEY-----\n" + b"A" * 20_000 + b"\n-----END PRIVATE KEY-----",
            "key-damaged",
        ),
        (b"-----BEGIN PRIVATE KEY-----\nMIG\n-----END PRIVATE KEY-----\n", "key-damaged"),
        (b"-----BEGIN PRIVATE KEY-----\nMIGHAgEA\n", "not-a-key"),
        (b"-----BEGIN " * 5000, "not-a-key"),
        (b"\x30\x82\x01\x00\x02\x01\x00", "key-damaged"),
    ],
)
def test_what_is_not_a_key_is_one_error(data, code):
    assert refuse(data).code in (code, "key-public")


def test_a_damaged_key_is_refused_without_printing_it(keys):
    lines = keys["rsa3072"].pem().splitlines()
    lines[5] = lines[5][:10] + b"!" + lines[5][11:]
    error = refuse(b"\n".join(lines))
    assert error.code == "key-damaged"
    assert not any(line.decode() in str(error) + error.hint for line in lines[1:-1])


def test_random_changes_of_keys_end_in_tool_errors(keys):
    """CI: 2,000 files, each read as private and as public key."""
    assert mutate_keys(keys, random.Random(20261130), rounds=2000) > 2000


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
def test_50000_random_changes_of_keys_end_in_tool_errors(keys, seed):
    assert mutate_keys(keys, random.Random(seed), rounds=5000) > 5000


def test_the_changes_find_a_check_that_is_missing(keys, monkeypatch):
    def load(data, name, passphrase, *, pem):
        read = serialization.load_pem_private_key if pem else serialization.load_der_private_key
        return read(data, password=None)

    monkeypatch.setattr("espwire.secure.keys._load_private", load)
    with pytest.raises((ValueError, TypeError)):
        mutate_keys(keys, random.Random(20261130), rounds=50)


def mutate_keys(keys, chance, *, rounds):
    """Change bytes of PEM and DER files at random; everything is read or refused with a ToolError. The number refused."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    originals = []
    for key in keys.values():
        raw = key._key
        originals += [key.pem(), key.public.pem(), key.pem(pkcs8=True)]
        originals += [
            raw.private_bytes(DER, serialization.PrivateFormat.PKCS8, PLAIN),
            raw.private_bytes(DER, serialization.PrivateFormat.TraditionalOpenSSL, PLAIN),
            raw.public_key().public_bytes(DER, form),
        ]
    originals += [keys["ecdsa256"].pem(b"x"), encrypted("2a864886f70d01050c", [2048])]
    refused = 0
    for _ in range(rounds):
        data = bytearray(chance.choice(originals))
        if data.startswith(b"-----") and chance.random() < 0.6:  # change what is inside of the text
            first, *lines, last = bytes(data).splitlines()
            try:
                inner = bytearray(base64.b64decode(b"".join(lines)))
            except ValueError:
                inner = bytearray(16)
            change(inner, chance)
            data = bytearray(b"\n".join((first, base64.encodebytes(inner).strip(), last, b"")))
        else:
            change(data, chance)
        for parse in (parse_private_key, parse_public_key):
            try:
                parse(bytes(data), "a.pem", lambda: b"x")
            except ToolError as error:
                refused += 1
                assert error.hint  # noqa: PT017
    return refused


def change(data: bytearray, chance: random.Random) -> None:
    for _ in range(chance.randint(1, 3)):
        at = chance.randrange(len(data)) if data else 0
        what = chance.randrange(5)
        if what == 0:
            data[at : at + 1] = bytes([chance.randrange(256)])
        elif what == 1:
            del data[at : at + chance.randint(1, 40)]
        elif what == 2:
            data[at:at] = chance.randbytes(chance.randint(1, 40))
        elif what == 3:
            del data[at:]
        else:
            data[at : at + 4] = b"\xff\xff\xff\xff"


def test_the_digest_of_a_key_is_the_hash_of_its_packed_form(keys):
    for key in keys.values():
        packed = key.public.pack()
        assert key.public.digest() == hashlib.sha256(packed).digest()
        assert (
            len(packed)
            == {True: 776, False: 1 + key.public.scheme.point_field}[key.public.scheme.is_rsa]
        )


def test_only_lengths_that_chips_use_are_generated():
    assert [len(generate_flash_key(bits)) for bits in (128, 192, 256, 512)] == [16, 24, 32, 64]
    for bits in (0, 8, 129, 255, 1024, -256):
        with pytest.raises(UsageError) as caught:
            generate_flash_key(bits)
        assert caught.value.code == "key-size"


def test_outputs_do_not_replace_keys(tmp_path, keys):
    path = tmp_path / "file"
    protect_keys(str(path), b"new", new=True)
    for old in (keys["ecdsa256"].pem(), bytes(range(32)), bytes(16), keys["rsa3072"].pem(b"x")):
        path.write_bytes(old)
        with pytest.raises(SafetyStop) as caught:
            protect_keys(str(path), b"new")
        assert caught.value.consents == ("overwrite-key",)
        protect_keys(str(path), old)
        protect_keys(str(path), b"new", allowed=True)
    for old in (b"", b"firmware" * 100, keys["ecdsa256"].public.pem()):
        path.write_bytes(old)
        protect_keys(str(path), b"new")
    with pytest.raises(SafetyStop, match="would be replaced by a key"):
        protect_keys(str(path), b"new", new=True)


def test_without_the_library_one_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography", None)
    for parse in (parse_private_key, parse_public_key):
        with pytest.raises(Unsupported) as caught:
            parse(b"", "a.pem")
        assert caught.value.code == "needs-cryptography"
        assert "espwire[secure]" in caught.value.hint


def test_the_key_in_a_file_is_the_first():
    found = find_key(b"x-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----y", "a")
    assert found == (b"-----BEGIN PUBLIC KEY-----\nAA==\n-----END PUBLIC KEY-----\n", True, False)


def test_points_are_checked():
    with pytest.raises(KeyFileError):
        PublicKey(SCHEMES["ecdsa256"], 1, 1).pem()
