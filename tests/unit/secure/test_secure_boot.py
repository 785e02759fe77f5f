"""Secure boot version 2: signing, verifying, and everything that is refused."""

from __future__ import annotations

import hashlib
import random
import zlib

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding

from espwire.errors import ImageError, KeyFileError, SafetyStop, ToolError, UsageError
from espwire.image.signature import BLOCK, find_signatures
from espwire.secure.keys import SCHEMES, PublicKey, generate_key
from espwire.secure.secure_boot import (
    check_alignment,
    has_signature_sector,
    read_blocks,
    sign,
)
from espwire.secure.verify import Precomputed, explain_failure, find_salt, is_valid, parse_signature
from espwire.sizes import SECTOR

DATA = bytes(range(256)) * 19 + b"end"
PADDED = DATA.ljust(2 * SECTOR, b"\xff")


@pytest.fixture(scope="module")
def keys():
    made = {name: generate_key(scheme) for name, scheme in SCHEMES.items()}
    return made | {f"other-{n}": generate_key(SCHEMES["ecdsa256"]) for n in range(3)}


def states(data: bytes) -> list[str]:
    return [block.state for block in read_blocks(data)]


@pytest.mark.parametrize("name", SCHEMES)
def test_a_signed_file_is_valid_for_its_key_only(name, keys):
    signed = sign(DATA, [keys[name]])
    assert (signed.image_bytes, signed.padding, signed.blocks) == (8192, 8192 - len(DATA), 1)
    assert signed.data.startswith(PADDED)
    assert len(signed.data) == 3 * SECTOR
    assert states(signed.data) == ["valid", "absent", "absent"]
    assert read_blocks(signed.data)[0].public == keys[name].public
    found = find_signatures(signed.data, len(PADDED))
    assert [(each.crc_valid, each.digest_valid) for each in found] == [(True, True)]
    assert found[0].key_digest == keys[name].public.digest()


@pytest.mark.parametrize("name", SCHEMES)
def test_each_changed_byte_is_noticed(name, keys):
    signed = sign(DATA, [keys[name]]).data
    chance = random.Random(7)
    places = [0, len(PADDED), len(PADDED) + 1, len(PADDED) + 4, len(signed) - SECTOR + BLOCK - 20]
    places += [chance.randrange(len(PADDED) + 1200) for _ in range(40)]
    for at in places:
        changed = bytearray(signed)
        changed[at] ^= 1 << chance.randrange(8)
        assert states(bytes(changed))[0] in ("absent", "damaged", "other data"), at


@pytest.mark.parametrize("name", SCHEMES)
def test_a_field_with_a_right_crc_is_still_checked(name, keys):
    signed = sign(DATA, [keys[name]]).data
    scheme = SCHEMES[name]
    key_at = 4 + len(hashlib.new(scheme.hash_name).digest())
    signature_at = 812 if scheme.is_rsa else key_at + 1 + scheme.point_field
    end = signature_at + (384 if scheme.is_rsa else 2 * scheme.size)
    for at in [0, 1, 2, *range(4, end, 9), key_at, signature_at - 1]:
        block = bytearray(signed[len(PADDED) :][:BLOCK])
        block[at] ^= 0x10
        block[1196:1200] = zlib.crc32(block[:1196]).to_bytes(4, "little")
        data = PADDED + bytes(block).ljust(SECTOR, b"\xff")
        assert read_blocks(data)[0].state != "valid", at


def test_up_to_three_keys_sign_and_can_be_appended(keys):
    first = sign(DATA, [keys["ecdsa256"]])
    more = sign(first.data, [keys["other-0"], keys["other-1"]], append=True)
    assert (more.blocks, more.padding) == (3, 0)
    assert states(more.data) == ["valid"] * 3
    assert more.data[: len(PADDED) + BLOCK] == first.data[: len(PADDED) + BLOCK]
    with pytest.raises(UsageError) as caught:
        sign(more.data, [keys["other-2"]], append=True)
    assert caught.value.code == "too-many-signatures"
    with pytest.raises(UsageError) as caught:
        sign(DATA, [keys["ecdsa256"], *(keys[f"other-{n}"] for n in range(3))])
    assert caught.value.code == "too-many-signatures"
    curves = sign(DATA, [keys["ecdsa256"], keys["ecdsa192"], keys["ecdsa384"]])
    assert states(curves.data) == ["valid"] * 3


def test_without_padding_the_sector_follows_directly(keys):
    signed = sign(DATA, [keys["ecdsa256"]], pad=False)
    assert len(signed.data) == len(DATA) + SECTOR
    assert states(signed.data)[0] == "valid"
    with pytest.raises(ImageError) as caught:
        check_alignment(signed.data)
    assert caught.value.code == "not-signed"
    check_alignment(PADDED)


def test_what_cannot_be_signed_is_refused(keys):
    key, other = keys["ecdsa256"], keys["other-0"]
    signed = sign(DATA, [key]).data
    assert has_signature_sector(signed)
    for again in (signed, _damage(signed, len(PADDED) + 1196), _damage(signed, len(PADDED) + 9)):
        with pytest.raises(SafetyStop) as stop:
            sign(again, [other])
        assert stop.value.code == "already-signed"
    for data, signers, more, code in (
        (signed, [key], {"append": True}, "same-key"),
        (DATA, [key, key], {}, "same-key"),
        (DATA, [key, keys["rsa3072"]], {}, "mixed-schemes"),
        (signed, [keys["rsa3072"]], {"append": True}, "mixed-schemes"),
        (DATA, [key], {"append": True}, "not-signed"),
        (PADDED, [key], {"append": True}, "not-signed"),
        (b"", [key], {}, "empty-file"),
        (_damage(signed, len(PADDED) + 1196), [other], {"append": True}, "signature-damaged"),
        (_damage(signed, 5), [other], {"append": True}, "signature-damaged"),
    ):
        with pytest.raises(ToolError) as caught:
            sign(data, signers, **more)
        assert caught.value.code == code


def _damage(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_a_block_in_the_second_place_is_found_and_not_appended_to(keys):
    signed = sign(DATA, [keys["ecdsa256"]]).data
    block = signed[len(PADDED) :][:BLOCK]
    moved = PADDED + (b"\xff" * BLOCK + block).ljust(SECTOR, b"\xff")
    assert states(moved) == ["absent", "valid", "absent"]
    with pytest.raises(ImageError, match="follows an empty one"):
        sign(moved, [keys["other-0"]], append=True)
    broken = PADDED + (_damage(block, 40) + block).ljust(SECTOR, b"\xff")
    assert states(broken) == ["damaged", "valid", "absent"]


def precompute(keys, data: bytes, salt: int = 32, scheme=None) -> Precomputed:
    key = keys["rsa3072"]
    scheme = scheme or padding.PSS(padding.MGF1(hashes.SHA256()), salt)
    return Precomputed(key.public, key._key.sign(data, scheme, hashes.SHA256()))


def test_a_signature_made_elsewhere_is_added(keys):
    assert states(sign(DATA, [precompute(keys, PADDED)]).data)[0] == "valid"
    key = keys["ecdsa384"]
    der = key._key.sign(PADDED, ec.ECDSA(hashes.SHA384()))
    signature = parse_signature(der, key.public, "a.sig")
    assert parse_signature(signature, key.public, "a.sig") == signature
    assert states(sign(DATA, [Precomputed(key.public, signature)]).data)[0] == "valid"


def test_a_wrong_signature_made_elsewhere_is_explained(keys):
    public = keys["rsa3072"].public
    private = keys["rsa3072"]._key.private_numbers()
    digest = hashlib.sha256(PADDED).digest()
    bare = pow(int.from_bytes(digest, "big"), private.d, public.first).to_bytes(384, "big")
    for signer, reason in (
        (precompute(keys, PADDED, scheme=padding.PKCS1v15()), "PKCS #1 v1.5"),
        (precompute(keys, PADDED, salt=20), "its salt has 20 bytes"),
        (precompute(keys, PADDED, salt=0), "its salt has 0 bytes"),
        (precompute(keys, PADDED, salt=350), "its salt has 350 bytes"),
        (precompute(keys, DATA), "without padding to whole sectors"),
        (Precomputed(public, bare), "it has no padding"),
        (precompute(keys, b"other"), "by another key, or for other data"),
        (Precomputed(public, b"\xff" * 384), "by another key, or for other data"),
    ):
        with pytest.raises(KeyFileError, match=reason) as caught:
            sign(DATA, [signer])
        assert caught.value.code == "signature-invalid"
        assert "PSS with SHA-256 and a salt of 32 bytes" in caught.value.hint


def test_signature_files_of_a_wrong_size_are_refused(keys):
    for name, data in (("rsa3072", bytes(383)), ("ecdsa256", b""), ("ecdsa256", b"\x30" * 70)):
        with pytest.raises(KeyFileError) as caught:
            parse_signature(data, keys[name].public, "a.sig")
        assert caught.value.code == "signature-size"


def test_a_signer_that_returns_nonsense_is_caught(keys):
    class Liar:
        public = keys["ecdsa256"].public

        def sign(self, digest):
            return bytes(64)

    with pytest.raises(KeyFileError, match="does not fit its public key"):
        sign(DATA, [Liar()])


def test_the_encoding_of_rfc_8017_step_by_step():
    """RFC 8017, 9.1.1, with a salt of 32 bytes."""
    digest, salt = hashlib.sha256(b"abc").digest(), bytes(range(32))
    check = hashlib.sha256(bytes(8) + digest + salt).digest()
    block = bytes(384 - 66) + b"\x01" + salt
    mask = b"".join(
        hashlib.sha256(check + bytes([0, 0, 0, count])).digest() for count in range(11)
    )[: len(block)]
    masked = bytes(a ^ b for a, b in zip(block, mask, strict=True))
    encoded = bytes([masked[0] & 0x7F]) + masked[1:] + check + b"\xbc"
    assert len(encoded) == 384
    assert find_salt(encoded, digest) == 32
    assert find_salt(encoded, bytes(32)) is None


def test_rsa_pss_of_fips_186():
    """NIST's vectors for FIPS 186-3 (CAVP, SigVerPSS), 3072 bits with SHA-256: PSS of RFC 8017 with a salt of 10 bytes.

    The chip requires 32 bytes, so the signature is correct, but refused.
    """
    public = PublicKey(SCHEMES["rsa3072"], int(NIST_MODULUS, 16), 0x10001)
    signature, message = bytes.fromhex(NIST_SIGNATURE), bytes.fromhex(NIST_MESSAGE)
    digest = hashlib.sha256(message).digest()
    encoded = pow(int.from_bytes(signature, "big"), public.second, public.first)
    assert find_salt(encoded.to_bytes(384, "big"), digest) == 10
    assert find_salt(encoded.to_bytes(384, "big"), hashlib.sha256(b"").digest()) is None
    assert not is_valid(public, digest, signature)
    error = explain_failure(public, message, signature, unpadded=message, elsewhere=True)
    assert "its salt has 10 bytes instead of 32" in str(error)


NIST_MODULUS = (
    "a5f3da0aaf54b45f99a5d7085f213c3721cbe7e83b3e6c3fe0f5a84c7e387ba513392c28a901"
    "0d3b618c03847e6b11bbbbe4d5e47fc97ea696250699e96ecd911404f7b806957038a68bb59a"
    "520f2d90182d183e035204a914e6ac03c2bc6d3f9d7856b25f9041b56df310de3feb30aa468a"
    "0668a1e5da9cdb185956caa5d75e1cdcac2db823173495619105367231b7f2de7528a8a79ec9"
    "fdbbab601178a204a5aa4e19759eb16ea4bab87bf48bb1790f9fc6eb4d5674d3fbc11b922558"
    "d4e568e454b26a7178f3e147beb0c8ca6ecff5e52af248ac07d6a189393e17232adff2f7423f"
    "56b94b9a7d61fde23a9558ac7a3bc7c06748a5da11759f92baf4e386bb0212565b5beecf31d0"
    "63cfab71af896b3d734750d9bca07343bfb3c28645226e9dad3070fc247c71c078e974934941"
    "000a79d01abab14d21f5e608c4e4d13deec1aef298e1247c50b47bfee6162f352f41cdba8628"
    "d1d628848c876cfb102dacce7fa160c04d3aabc8667a142a710b7f495fd350c4862a653d15c3"
    "3d9266fd"
)
NIST_MESSAGE = (
    "886f83a22335aee35be0f76ec4c32e644c29467e1ba459fcbea2ebdf8541735829651880b207"
    "b84998d02eb529e6d5462a0648b5c1d36ce7936db11c2946946a9831696a61bc573196c0a481"
    "3e363241fb4c4a2beab999c5cb4d789262cc71891cfcfec6f6fd93809bd9df3bcc5c503e0526"
    "d5485efee77faf69caa9f77b109e"
)
NIST_SIGNATURE = (
    "92ae66dbda65a60a5f70031c3562ece74e615486acde2276c20ea01d82f7bab23af2aba27d62"
    "749850d49d2689381f1e875ade766dfe7b7f02fd601f3401dcf319caef080d73caecc08a2b45"
    "76d4cc3704bde1b7495bce086846a8a01488d00aecd54d4045f0b9e31262b460a94f0563e3d9"
    "eeb86d8f9403e5eef0d223ceb74e058a8095db8efe228d6755715bbaaafe1ab375df1112d740"
    "d951db72f6f4d25fae951a26d4c1d99f3b5a7bf311fa9cf580860b8c1b434e03d3ae0500b645"
    "7a2582275db531037a781aefc9d4f5820167a2a9cf86595fed5596246fa7fd2c8c2df0042caf"
    "9e25c59b289f58474145bf50950ecb05271afd7ce21da967b415f0de136ce5ba01fa7948bff6"
    "6fea0a8063882cf88469a495ae75bba4ffb539ee5176731ec3778477f643669f94de0e4b7c85"
    "6bcc511f56ad8aa23edca0c1d84d2c19abbdd191bfc0ca898fdb4b8100c44df99e5afcc93faf"
    "227a01a63c15bfd26e5e3f49fb34a98ea8a851703aad68463513d3a2ee6a4a2fe9fee958205d"
    "fd2db254"
)


def test_ecdsa_of_fips_186():
    """RFC 6979, A.2.5 and A.2.6 (the curves and the algorithm of FIPS 186): "sample" with SHA-256 and SHA-384."""
    p256 = PublicKey(
        SCHEMES["ecdsa256"],
        0x60FED4BA255A9D31C961EB74C6356D68C049B8923B61FA6CE669622E60F29FB6,
        0x7903FE1008B8BC99A41AE9E95628BC64F2F1B20C2D7E9F5177A3C294D4462299,
    )
    signature = bytes.fromhex(
        "EFD48B2AACB6A8FD1140DD9CD45E81D69D2C877B56AAF991C34D0EA84EAF3716"
        "F7CB1C942D657C41D436C7A1B6E29F65F3E900DBB9AFF4064DC4AB2F843ACDA8"
    )
    digest = hashlib.sha256(b"sample").digest()
    assert is_valid(p256, digest, signature)
    assert not is_valid(p256, digest, signature[32:] + signature[:32])
    p384 = PublicKey(
        SCHEMES["ecdsa384"],
        0xEC3A4E415B4E19A4568618029F427FA5DA9A8BC4AE92E02E06AAE5286B300C64DEF8F0EA9055866064A254515480BC13,
        0x8015D9B72D7D57244EA8EF9AC0C621896708A59367F9DFB9F54CA84B3F1C9DB1288B231C3AE0D4FE7344FD2533264720,
    )
    signature = bytes.fromhex(
        "94EDBB92A5ECB8AAD4736E56C691916B3F88140666CE9FA73D64C4EA95AD133C81A648152E44ACF96E36DD1E80FABE46"
        "99EF4AEB15F178CEA1FE40DB2603138F130E740A19624526203B6351D0A3A94FA329C145786E679E7B82C71A38628AC8"
    )
    assert is_valid(p384, hashlib.sha384(b"sample").digest(), signature)
    p192 = PublicKey(
        SCHEMES["ecdsa192"],
        0xAC2C77F529F91689FEA0EA5EFEC7F210D8EEA0B9E047ED56,
        0x3BC723E57670BD4887EBC732C523063D0A7C957BC97C1C43,
    )
    signature = bytes.fromhex(
        "4B0B8CE98A92866A2820E20AA6B75B56382E0F9BFD5ECB55"
        "CCDB006926EA9565CBADC840829D8C384E06DE1F1E381B85"
    )
    assert is_valid(p192, digest, signature)
