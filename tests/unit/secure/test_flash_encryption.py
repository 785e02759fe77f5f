"""Flash encryption: bytes that espsecure 5.6.0 made, the way back, and what is refused."""

from __future__ import annotations

import hashlib
import random
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from espwire.errors import KeyFileError, Unsupported, UsageError
from espwire.secure.flash_encryption import decrypt_esp32, decrypt_xts, encrypt_esp32, encrypt_xts

PLAIN = bytes(range(256))


def key(size: int) -> bytes:
    return bytes((7 * at + 1) & 255 for at in range(size))


@pytest.mark.parametrize(
    ("cipher", "size", "address", "first", "digest"),
    [
        (
            encrypt_xts,
            32,
            0x10000,
            "c33ac4cf9607331b",
            "3533ecffaa47b557c67143dbf8896524d4a6a4de24b5701b291b083335ab2e51",
        ),
        (
            encrypt_xts,
            64,
            0x10000,
            "15daa424bb17cdd7",
            "fc64e247fc7ecef40a7cab395b2025a9328069ded5d75d5678d381c286d89838",
        ),
        (
            encrypt_xts,
            32,
            0x20070,
            "eb10c545fdf6248c",
            "5c381415bd04c69eada925160ea14baab6b67c327b608c8b3d21c02adb85558f",
        ),
        (
            encrypt_esp32,
            32,
            0x10000,
            "d8c14992505eae0a",
            "8652746bb9cea47879db37bd3090d624499d46f03a747134e7e57ec44e76b510",
        ),
        (
            encrypt_esp32,
            24,
            0x10000,
            "8e37844420c510f1",
            "def73501093a7e7cdde24918145400ee3a5855b23832e2e04354274e2e2378bd",
        ),
        (
            encrypt_esp32,
            32,
            0xABCDE0,
            "f224177e774d2ef0",
            "344f8d96f6450d80ca93850c2ab543ca121b5d7107fb044e2b4d519b6505928f",
        ),
    ],
)
def test_the_bytes_are_those_that_espsecure_makes(cipher, size, address, first, digest):
    made = cipher(PLAIN, address, key(size))
    assert made[:8].hex() == first
    assert hashlib.sha256(made).hexdigest() == digest


def test_a_key_of_16_bytes_stands_for_its_sha_256():
    assert encrypt_xts(PLAIN, 0, key(16)) == encrypt_xts(PLAIN, 0, hashlib.sha256(key(16)).digest())


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 0xFFFF),
    st.binary(min_size=1, max_size=40),
    st.sampled_from((16, 32, 64)),
    st.integers(0, 20),
)
def test_each_block_hangs_on_its_own_place_only(place, seed, size, cut):
    address, data = place * 16, (seed * 400)[:400]
    whole = encrypt_xts(data, address, key(size))
    assert decrypt_xts(whole, address, key(size)) == data
    assert whole[16 * cut :] == encrypt_xts(data[16 * cut :], address + 16 * cut, key(size))


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 0xFFFFF), st.integers(0, 15))
def test_the_esp32_s_scheme_goes_back_too(place, config):
    made = encrypt_esp32(PLAIN, place * 16, key(32), config)
    assert decrypt_esp32(made, place * 16, key(32), config) == PLAIN
    assert made[64:] == encrypt_esp32(PLAIN[64:], place * 16 + 64, key(32), config)


@pytest.mark.parametrize("cipher", [encrypt_xts, decrypt_xts, encrypt_esp32, decrypt_esp32])
def test_what_is_no_whole_block_or_no_key_is_refused(cipher):
    for data, address in ((bytes(15), 0), (bytes(16), 8), (bytes(16), -16)):
        with pytest.raises(UsageError) as caught:
            cipher(data, address, key(32))
        assert caught.value.code == "unaligned"
    with pytest.raises(KeyFileError) as wrong:
        cipher(bytes(16), 0, key(31))
    assert wrong.value.code == "key-size"


def test_xts_refuses_a_key_of_two_equal_halves():
    with pytest.raises(KeyFileError, match="both halves") as caught:
        encrypt_xts(bytes(16), 0, b"\x11" * 32)
    assert caught.value.code == "key-halves"


@pytest.mark.parametrize("cipher", [encrypt_xts, encrypt_esp32])
def test_without_the_library_the_error_says_how_to_get_it(cipher, monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers", None)
    with pytest.raises(Unsupported) as caught:
        cipher(bytes(16), 0, key(32))
    assert caught.value.code == "needs-cryptography"
    assert "espwire[secure]" in caught.value.hint


IEEE_1619 = (  # annex B, vector 4: keys, start of the data unit's ciphertext (128 of 512 bytes)
    (
        "2718281828459045235360287471352631415926535897932384626433832795",
        0,
        "27a7479befa1d476489f308cd4cfa6e2a96e4bbe3208ff25287dd3819616e89c"
        "c78cf7f5e543445f8333d8fa7f56000005279fa5d8b5e4ad40e736ddb4d35412"
        "328063fd2aab53e5ea1e0a9f332500a5df9487d07a5c92cc512c8866c7e860ce"
        "93fdf166a24912b422976146ae20ce846bb7dc9ba94a767aaef20c0d61ad0265",
    ),
)


@pytest.mark.parametrize(("key_text", "number", "cipher_text"), IEEE_1619)
def test_xts_of_ieee_1619(key_text, number, cipher_text):
    """The chip reverses each 128 bytes, the standard does not. Blocks of a data unit do not depend on its length."""
    plain, cipher = bytes(range(128)), bytes.fromhex(cipher_text)
    secret = bytes.fromhex(key_text)
    assert encrypt_xts(plain[::-1], number, secret)[::-1] == cipher
    assert decrypt_xts(cipher[::-1], number, secret)[::-1] == plain


NIST_XTS_256 = (  # CAVP, XTSGenAES256 with data unit numbers: keys, number, plain, cipher; those whose number is an address
    (
        "e55ae2837e2ea46c85abecaff8db200398584336985029f9f02cd893e7d863db"
        "451b7939d7553849083f86ed04bcdd651708148cd1d0934a30d6bca63a521bc4",
        128,
        "0369463df6427c4a91ff0297dca5d7d8258a8daca67c775b5e46a0020ca83f84",
        "9ebc3b0a9a948196cb69bd2d1773d2c0c400eb34bf6f65fe0de0b9abcdb901e5",
    ),
)


@pytest.mark.parametrize(("key_text", "number", "plain_text", "cipher_text"), NIST_XTS_256)
def test_xts_of_ieee_1619_with_long_keys(key_text, number, plain_text, cipher_text):
    plain, secret = bytes.fromhex(plain_text).ljust(128, b"\0"), bytes.fromhex(key_text)
    made = encrypt_xts(plain[::-1], number, secret)[::-1]
    assert made[: len(cipher_text) // 2].hex() == cipher_text
    assert decrypt_xts(made[::-1], number, secret)[::-1] == plain


@pytest.mark.parametrize("size", [32, 64])
def test_xts_is_that_of_another_implementation(size):
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    chance = random.Random(size)
    secret, data = chance.randbytes(size), chance.randbytes(128 * 40)
    address = 0x1F_FF80
    made = encrypt_xts(data, address, secret)
    for at in range(0, len(data), 128):
        tweak = (address + at).to_bytes(16, "little")
        run = Cipher(algorithms.AES(secret), modes.XTS(tweak)).encryptor()
        assert made[at : at + 128] == run.update(data[at : at + 128][::-1])[::-1]


@pytest.mark.parametrize("config", range(16))
def test_the_esp32_s_key_follows_the_rule_bit_by_bit(config):
    """Each bit of the key is XORed with an address bit, if the config enables its range: written out once more."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    runs = (23, 23, 23, 14, 23, 23, 23, 12, 23, 23, 23, 10, 23, 23, 23, 8)
    pattern = [bit for start in runs for bit in range(start, 4, -1)]
    ranges = ((0, 67), (67, 132), (132, 195), (195, 256))
    address, secret = 0xABCDE0 + 0x1000 * config, key(32)
    bits = [secret[at // 8] >> (7 - at % 8) & 1 for at in range(256)]
    for enabled, (first, end) in enumerate(ranges):
        for at in range(first, end) if config >> enabled & 1 else ():
            bits[at] ^= address >> pattern[at] & 1
    turned = bytes(int("".join(map(str, bits[at : at + 8])), 2) for at in range(0, 256, 8))
    run = Cipher(algorithms.AES(turned), modes.ECB()).decryptor()
    expected = run.update(PLAIN[:16][::-1])[::-1] + run.update(PLAIN[16:32][::-1])[::-1]
    assert encrypt_esp32(PLAIN[:32], address, secret, config) == expected
