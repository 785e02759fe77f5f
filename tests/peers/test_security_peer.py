"""espsecure 5.6.0 against ours: the same bytes where nothing is random, and signatures crosswise.

Each run of espsecure takes half a second, so a run encrypts 64 KiB, of which many ranges are compared.
"""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from espwire.chips.registry import load_chip
from espwire.errors import ToolError
from espwire.image.codec import build, create_image
from espwire.image.model import Segment
from espwire.secure.debug_certificate import digest_key
from espwire.secure.flash_encryption import decrypt_esp32, decrypt_xts, encrypt_esp32, encrypt_xts
from espwire.secure.keys import SCHEMES, generate_key, parse_private_key, parse_public_key
from espwire.secure.secure_boot import read_blocks, sign
from espwire.secure.secure_boot_v1 import build_digest_key, digest_bootloader
from espwire.secure.secure_boot_v1 import sign as sign_v1
from espwire.secure.secure_boot_v1 import verify as verify_v1

SIZE = 0x10000
XTS_KEYS, ESP32_KEYS = (16, 32, 64), (24, 32)


@pytest.fixture
def peer(esptool, tmp_path):
    path = Path(esptool).with_name("espsecure")
    if not path.exists():
        path = path.with_name("espsecure.py")
    assert path.exists(), "espsecure comes with esptool"

    def run(line, code=0):
        done = subprocess.run(
            [str(path), *line.split()],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout

    return run


# the schemes with each length of key, and each FLASH_CRYPT_CONFIG of the ESP32
KINDS = [(size, None) for size in XTS_KEYS] + [(ESP32_KEYS[n % 2], n) for n in range(16)]


def compare_ranges(peer, folder, chance, rounds, cases):
    """For each kind, let espsecure encrypt a random file, and compare ``cases`` random ranges of it. Returns their number."""
    compared = 0
    for size, config in KINDS * rounds:
        key, data = chance.randbytes(size), chance.randbytes(SIZE)
        start = chance.randrange(0, 0x1000000 - SIZE, 16)
        (folder / "key").write_bytes(key)
        (folder / "plain").write_bytes(data)
        more = "--aes-xts" if config is None else f"--flash-crypt-conf {config:#x}"
        peer(f"encrypt-flash-data -k key -o out -a {start:#x} {more} plain")
        theirs = (folder / "out").read_bytes()
        for _ in range(cases):
            first = chance.randrange(0, SIZE, 16)
            end = min(SIZE, first + chance.choice((16, 48, 128, 400, 4096, 4112)))
            ours = (
                encrypt_xts(data[first:end], start + first, key)
                if config is None
                else encrypt_esp32(data[first:end], start + first, key, config)
            )
            assert ours == theirs[first:end], (size, config, hex(start + first), end - first)
            compared += 1
        if config is not None:
            assert decrypt_esp32(theirs, start, key, config) == data
        else:
            assert decrypt_xts(theirs, start, key) == data
    return compared


def test_100_random_ranges_are_the_same_ciphertext(peer, tmp_path):
    assert compare_ranges(peer, tmp_path, random.Random(20261130), rounds=1, cases=6) >= 100


@pytest.mark.soak
def test_2000_random_ranges_are_the_same_ciphertext(peer, tmp_path):
    assert compare_ranges(peer, tmp_path, random.Random(17), rounds=4, cases=27) >= 2000


def test_a_range_of_its_own_has_the_same_edges(peer, tmp_path):
    key, data = bytes(range(64)), bytes(range(208))
    (tmp_path / "key").write_bytes(key)
    (tmp_path / "plain").write_bytes(data)
    peer("encrypt-flash-data -x -k key -o out -a 0x10070 plain")
    assert (tmp_path / "out").read_bytes() == encrypt_xts(data, 0x10070, key)


def test_keys_and_digests_are_the_same(peer, tmp_path):
    for name, scheme in SCHEMES.items():
        key = generate_key(scheme)
        (tmp_path / "key.pem").write_bytes(key.pem())
        peer("digest-sbv2-public-key -k key.pem -o digest")
        assert (tmp_path / "digest").read_bytes() == key.public.digest()
        peer("extract-public-key -v 2 -k key.pem public.pem")
        assert (tmp_path / "public.pem").read_bytes() == key.public.pem()
        if name == "ecdsa256":
            peer("extract-public-key -v 1 -k key.pem raw")
            assert (tmp_path / "raw").read_bytes() == key.public.raw()
            peer("digest-private-key -k key.pem boot.key")
            assert (tmp_path / "boot.key").read_bytes() == build_digest_key(key)
            peer("digest-private-key -k key.pem -l 192 boot.key")
            assert (tmp_path / "boot.key").read_bytes() == build_digest_key(key, 192)
            peer("digest-sdc-public-key -k key.pem -o debug")
            assert (tmp_path / "debug").read_bytes() == digest_key(key.public)
        (tmp_path / "theirs.pem").unlink(missing_ok=True)
        peer(f"generate-signing-key -v 2 -s {name} theirs.pem")
        theirs = (tmp_path / "theirs.pem").read_bytes()
        assert parse_private_key(theirs, "theirs.pem").pem() == theirs


def make_bootloader(chance):
    segment = Segment(0x3FFF0040, chance.randbytes(4 * chance.randint(1, 400)))
    image = bytearray(build(create_image([segment], 0x3FFF0040, chip=load_chip("esp32"))))
    if chance.random() < 0.5:
        image[23] = 0
        del image[-32:]
    return bytes(image)


def test_bootloader_digests_are_the_same(peer, tmp_path):
    chance = random.Random(7)
    for _ in range(6):
        image, key, iv = make_bootloader(chance), chance.randbytes(32), chance.randbytes(128)
        for name, data in (("image", image), ("key", key), ("iv", iv)):
            (tmp_path / name).write_bytes(data)
        peer("digest-secure-bootloader -k key --iv iv -o out image")
        assert (tmp_path / "out").read_bytes() == digest_bootloader(image, key, iv)


def cross_check(peer, folder, chance, rounds):
    """Sign random images on either side, and verify them on the other; also a damaged copy of each."""
    keys = {name: generate_key(scheme) for name, scheme in SCHEMES.items()}
    v1 = generate_key(SCHEMES["ecdsa256"])
    for name, key in (*keys.items(), ("v1", v1)):
        (folder / f"{name}.pem").write_bytes(key.pem())
    for number in range(rounds):
        name = (*SCHEMES, "v1")[number % 5]
        version, key = (1, v1) if name == "v1" else (2, keys[name])
        data = chance.randbytes(chance.randint(1, 20_000))
        (folder / "plain").write_bytes(data)
        peer(f"sign-data -v {version} -k {name}.pem -o theirs plain")
        theirs = (folder / "theirs").read_bytes()
        ours = sign_v1(data, key) if version == 1 else sign(data, [key]).data
        (folder / "ours").write_bytes(ours)
        peer(f"verify-signature -v {version} -k {name}.pem ours")
        assert len(ours) == len(theirs)
        assert is_good(theirs, version, key.public)
        damaged = bytearray(ours)
        at = (
            chance.randrange(len(data))
            if number % 2
            else len(ours) - (4096 if version == 2 else 68) + 40
        )
        damaged[at] ^= 1 << chance.randrange(8)
        assert not is_good(bytes(damaged), version, key.public)
        (folder / "damaged").write_bytes(damaged)
        peer(f"verify-signature -v {version} -k {name}.pem damaged", 2)


def is_good(data, version, public):
    if version == 1:
        return verify_v1(data, public)
    first = read_blocks(data)[0]
    return first.state == "valid" and first.public == public


def test_signatures_are_valid_for_the_other_program(peer, tmp_path):
    cross_check(peer, tmp_path, random.Random(1), rounds=5)


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(8))
def test_200_signatures_are_valid_for_the_other_program(peer, tmp_path, seed):
    cross_check(peer, tmp_path, random.Random(seed), rounds=25)


def test_what_espsecure_appends_to_our_file_is_valid_and_the_other_way_round(peer, tmp_path):
    first, second = (generate_key(SCHEMES["ecdsa256"]) for _ in range(2))
    for name, key in (("first", first), ("second", second)):
        (tmp_path / f"{name}.pem").write_bytes(key.pem())
    data = bytes(range(256)) * 40
    (tmp_path / "file").write_bytes(sign(data, [first]).data)
    peer("sign-data -v 2 -a -k second.pem -o both file")
    both = (tmp_path / "both").read_bytes()
    assert [block.state for block in read_blocks(both)] == ["valid", "valid", "absent"]
    (tmp_path / "file").write_bytes(
        sign(both, [generate_key(SCHEMES["ecdsa256"])], append=True).data
    )
    assert "Public key digest for block 2" in peer("signature-info-v2 file")
    (tmp_path / "short").write_bytes(sign(data, [first], pad=False).data)
    peer("verify-signature -v 2 --skip-padding -k first.pem short")


def test_defects_that_espwire_does_not_have(peer, tmp_path):
    """docs/differences.md: what 5.6 accepts, and espwire refuses."""
    key = generate_key(SCHEMES["ecdsa256"])
    (tmp_path / "key.pem").write_bytes(key.pem())
    (tmp_path / "plain").write_bytes(bytes(4096))
    peer("sign-data -v 2 -k key.pem -o signed plain")
    peer("sign-data -v 2 -k key.pem -o again signed")
    signed = (tmp_path / "signed").read_bytes()
    assert (tmp_path / "again").stat().st_size == len(signed) + 4096
    with pytest.raises(ToolError):
        sign(signed, [key])
    peer("generate-flash-encryption-key -l 100 odd.key")
    assert (tmp_path / "odd.key").stat().st_size == 12
    peer("generate-flash-encryption-key key.pem")
    with pytest.raises(ToolError):
        parse_public_key((tmp_path / "key.pem").read_bytes(), "key.pem")
