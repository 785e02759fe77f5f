"""The start of a virtual chip with secure boot and flash encryption: what it boots, and what it refuses."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import pytest

from espwire.chips.registry import load_chip
from espwire.efuse.burn import burn
from espwire.efuse.keys import Key, request_keys
from espwire.efuse.plan import plan_burn
from espwire.efuse.planner import Planner
from espwire.efuse.requests import request_fields
from espwire.efuse.store import VirtualStore
from espwire.flash.host_key import FlashCipher
from espwire.image.codec import build, create_image
from espwire.image.descriptors import APP, APP_MAGIC
from espwire.image.model import Segment
from espwire.image.partition_csv import TableOffsets, parse_csv
from espwire.image.partition_table import build_table
from espwire.secure import secure_boot, secure_boot_v1
from espwire.secure.keys import SCHEMES, PrivateKey, generate_key
from espwire.virtual.boot import find_boot_text
from espwire.virtual.build import build_config
from espwire.virtual.config import parse_options
from espwire.virtual.efuses import fuse_registers
from espwire.virtual.fuse_file import build_store, find_flash_key
from espwire.virtual.secure_start import FlashView, Start, build_decrypt, start

TABLE_AT, APP_AT = 0x8000, 0x10000
CSV = "factory, app, factory, 0x10000, 0x10000\n"
FLASH_SIZE = 0x20000
KEY = bytes((7 * at + 3) & 255 for at in range(64))
V1_KEY = bytes(range(100, 132))
IV = bytes(range(128))
VERSION = 3
CODE = bytes(range(256)) * 4


@cache
def make_key(scheme: str, number: int = 0) -> PrivateKey:
    return generate_key(SCHEMES[scheme])


@dataclass
class Secured:
    """A chip with secure boot and flash encryption, and the firmware for it as files."""

    chip_id: str
    scheme: str
    key: bytes
    v1: bool = False
    revision: str = ""
    store: VirtualStore = field(init=False)
    flash: bytearray = field(init=False)

    def __post_init__(self) -> None:
        self.chip = load_chip(self.chip_id)
        query = f"?revision={self.revision}" if self.revision else ""
        config = build_config(parse_options(f"{self.chip_id}{query}"))
        self.store = build_store(self.chip, fuse_registers(self.chip, config))
        self.esp32 = self.chip_id == "esp32"
        self.cipher = FlashCipher(self.key, 0xF if self.esp32 else None)
        self.signer = make_key(self.scheme)
        self.burn_all()
        self.flash = bytearray(b"\xff" * FLASH_SIZE)
        self.write(self.files())

    def burn(self, collect: Callable[[Planner], object]) -> None:
        planner = Planner(self.store.read())
        collect(planner)
        burn(plan_burn(planner), self.store)

    def burn_all(self) -> None:
        digest = self.signer.public.digest()
        if self.esp32:
            boot = Key("secure_boot_v1", V1_KEY) if self.v1 else Key("secure_boot_v2", digest)
            keys = [Key("flash_encryption", self.key), boot]
            enable = [("FLASH_CRYPT_CNT", "1"), ("FLASH_CRYPT_CONFIG", "0xF")]
            enable.append(("ABS_DONE_0" if self.v1 else "ABS_DONE_1", "1"))
        else:
            purpose = f"XTS_AES_{'256' if len(self.key) == 64 else '128'}_KEY"
            keys = [
                Key("BLOCK_KEY0", self.key, purpose),
                Key("BLOCK_KEY3", digest, "SECURE_BOOT_DIGEST0"),
            ]
            enable = [("SPI_BOOT_CRYPT_CNT", "1"), ("SECURE_BOOT_EN", "1")]
        self.burn(lambda planner: request_keys(planner, keys))
        enable.append(("SECURE_VERSION", str((1 << VERSION) - 1)))
        self.burn(lambda planner: request_fields(planner, enable))

    def image(self, *, version: int | None = None) -> bytes:
        """A bootloader, or an application with this security version."""
        address = 0x3FFB0000 if self.esp32 else 0x3FC80000
        if version is None:
            code = Segment(address, self.signer.public.raw() + CODE if self.v1 else CODE)
        else:
            head = struct.pack("<II", APP_MAGIC, version).ljust(APP.size, b"\0")
            code = Segment(address, head + CODE)
        return build(create_image([code], code.address, chip=self.chip))

    def sign(self, image: bytes, signers: Sequence[PrivateKey] = ()) -> bytes:
        if self.v1:
            return secure_boot_v1.sign(image, (signers or [self.signer])[0])
        return secure_boot.sign(image, signers or [self.signer]).data

    def files(self, *, version: int = VERSION) -> dict[int, bytes]:
        """The plaintext of the firmware, signed, by address."""
        boot, at = self.image(), self.chip.flash.bootloader_offset
        app = self.sign(self.image(version=version))
        table = build_table(parse_csv(CSV, TableOffsets(TABLE_AT), "table.csv"))
        files = {TABLE_AT: table, APP_AT: app}
        if self.v1:
            return files | {0: secure_boot_v1.digest_bootloader(boot, V1_KEY, IV)}
        return files | {at: self.sign(boot)}

    def write(self, files: dict[int, bytes], *, cipher: FlashCipher | None = None) -> None:
        for at, data in files.items():
            padded = data + b"\xff" * (-len(data) % 16)
            self.flash[at : at + len(padded)] = (cipher or self.cipher).encrypt(padded, at)

    def start(self) -> Start:
        decrypt = build_decrypt(self.store, find_flash_key(self.store))
        view = FlashView(lambda at, size: bytes(self.flash[at : at + size]), decrypt, FLASH_SIZE)
        return start(find_boot_text(self.chip), self.store, view)

    def refuse(self) -> str:
        result = self.start()
        assert result.app is None
        return result.text


CHIPS = {
    "ESP32, version 1": lambda: Secured("esp32", "ecdsa256", KEY[:32], v1=True, revision="1.0"),
    "ESP32, version 2": lambda: Secured("esp32", "rsa3072", KEY[:32], revision="3.0"),
    "ESP32-C3": lambda: Secured("esp32c3", "rsa3072", KEY[:32]),
    "ESP32-S3": lambda: Secured("esp32s3", "rsa3072", KEY),
    "ESP32-C6": lambda: Secured("esp32c6", "ecdsa256", KEY[:32]),
}


@pytest.fixture(params=CHIPS)
def secured(request: pytest.FixtureRequest) -> Secured:
    return CHIPS[request.param]()


def test_it_starts_a_signed_and_encrypted_image(secured: Secured) -> None:
    result = secured.start()
    assert result.app is not None, result.text
    assert result.app.name == "factory"
    assert result.text.endswith("I boot: Loaded app from partition at offset 0x10000\r\n")
    if not secured.v1:
        assert "secure boot verification succeeded" in result.text


def test_it_refuses_one_flipped_bit_in_each_region(secured: Secured) -> None:
    boot = secured.chip.flash.bootloader_offset
    image, app = secured.image(), secured.files()[APP_AT]
    places = {
        "bootloader": boot + 100,
        "last byte of the bootloader": boot + len(image) - 1,
        "partition table": TABLE_AT + 8,
        "application": APP_AT + 400,
        "signature of the application": APP_AT + len(app) - (20 if secured.v1 else 4096 - 900),
    }
    if secured.v1:
        places |= {"IV": 5, "digest": 140}
        del places["last byte of the bootloader"]  # of a hash that the ROM does not read
    else:
        places["signature of the bootloader"] = boot + 4096 + 900
    for name, at in places.items():
        secured.flash[at] ^= 4
        assert secured.start().app is None, name
        secured.flash[at] ^= 4
    assert secured.start().app is not None


def test_it_refuses_a_wrong_flash_key(secured: Secured) -> None:
    other = bytes(byte ^ 0x55 for byte in secured.key)
    secured.write(secured.files(), cipher=FlashCipher(other, secured.cipher.crypt_config))
    secured.refuse()


def test_it_refuses_a_wrong_signing_key(secured: Secured) -> None:
    other = make_key(secured.scheme, 1)
    secured.write({APP_AT: secured.sign(secured.image(version=VERSION), [other])})
    assert "secure boot signature verification failed" in secured.refuse()
    secured.write(secured.files())
    if secured.v1:
        wrong = secure_boot_v1.digest_bootloader(secured.image(), bytes(32), IV)
        secured.write({0: wrong})
        assert "secure boot check fail" in secured.refuse()
    else:
        secured.write(
            {secured.chip.flash.bootloader_offset: secured.sign(secured.image(), [other])}
        )
        assert "secure boot verification failed" in secured.refuse()


def test_it_refuses_plaintext_in_each_region(secured: Secured) -> None:
    for at, data in secured.files().items():
        secured.write(secured.files())
        secured.flash[at : at + len(data)] = data
        text = secured.refuse()
        if at == TABLE_AT:
            assert "partition 0 invalid magic number" in text
        elif at == APP_AT:
            assert "image at 0x10000 has invalid magic byte" in text
        else:
            expected = "flash read err, 1000" if secured.esp32 else "invalid header: 0x"
            assert expected in text


def test_it_refuses_an_older_security_version(secured: Secured) -> None:
    secured.write({APP_AT: secured.files(version=VERSION - 1)[APP_AT]})
    assert "its security version is 2, below the 3 in the eFuses" in secured.refuse()
    secured.write({APP_AT: secured.files(version=VERSION + 1)[APP_AT]})
    assert secured.start().app is not None


@pytest.mark.parametrize("name", ["ESP32-C3", "ESP32-C6"])
def test_it_refuses_a_revoked_key_and_takes_a_second_signature(name: str) -> None:
    secured = CHIPS[name]()
    second = make_key(secured.scheme, 1)
    digest = Key("BLOCK_KEY4", second.public.digest(), "SECURE_BOOT_DIGEST1")
    secured.burn(lambda planner: request_keys(planner, [digest]))
    assert "Valid secure boot key blocks: 0 1" in secured.start().text
    secured.burn(lambda planner: request_fields(planner, [("SECURE_BOOT_KEY_REVOKE0", "1")]))
    assert "Valid secure boot key blocks: 1\r\n" in secured.refuse()
    boot, both = secured.chip.flash.bootloader_offset, [secured.signer, second]
    secured.write({boot: secured.sign(secured.image(), both)})
    assert "not trusted, or is revoked" in secured.refuse()  # now the application
    secured.write({APP_AT: secured.sign(secured.image(version=VERSION), both)})
    assert secured.start().app is not None


def test_an_esp32_uses_only_the_first_signature() -> None:
    secured = CHIPS["ESP32, version 2"]()
    both = [make_key("rsa3072", 1), secured.signer]
    secured.write({0x1000: secured.sign(secured.image(), both)})
    assert "its key is not trusted" in secured.refuse()


def test_a_hidden_digest_is_not_trusted() -> None:
    secured = CHIPS["ESP32-C3"]()
    lock = secured.store.data.blocks[7].rd_dis[0]
    secured.store.burned[0] |= 1 << 32 + lock
    assert "not trusted" in secured.refuse()


def test_an_even_counter_reads_plaintext() -> None:
    secured = CHIPS["ESP32-C3"]()
    secured.burn(lambda planner: request_fields(planner, [("SPI_BOOT_CRYPT_CNT", "3")]))
    secured.refuse()
    for at, data in secured.files().items():
        secured.flash[at : at + len(data)] = data
    assert secured.start().app is not None


def test_an_ecdsa_signature_is_refused_by_a_chip_without_ecdsa() -> None:
    secured = CHIPS["ESP32-C3"]()
    signer = make_key("ecdsa256")
    boot = secured.chip.flash.bootloader_offset
    secured.write({boot: secured.sign(secured.image(), [signer])})
    assert "this chip does not support ECDSA P-256" in secured.refuse()


@pytest.mark.parametrize("row", ["0x11000, 0x1000", "0xFF0000, 0x1000", "0x10000, 0"])
def test_a_table_with_odd_rows_ends_in_a_line_of_text(row: str) -> None:
    secured = CHIPS["ESP32-C3"]()
    table = bytearray(build_table(parse_csv(CSV, TableOffsets(TABLE_AT), "table.csv"), md5=False))
    offset, size = (int(word, 0) for word in row.split(","))
    struct.pack_into("<II", table, 4, offset, size)
    secured.write({TABLE_AT: bytes(table)})
    assert "No bootable app partitions" in secured.refuse()


def _mutate(secured: Secured, dice: random.Random) -> list[tuple[int, int]]:
    """Flip up to three bits in what is signed or encrypted; returns where."""
    files = secured.files()
    if secured.v1:  # the rest of its sector is not covered, nor is the end of the bootloader's hash
        files |= {0: files[0][:192], 0x1000: secured.image()[:-32]}
    else:  # three signatures fit in the last sector, and one is there
        files = {at: data if at == TABLE_AT else data[: -4096 + 1196] for at, data in files.items()}
    files[TABLE_AT] = files[TABLE_AT][:64]  # the row, and its MD5
    flips = []
    for _ in range(dice.randint(1, 3)):
        at = dice.choice(sorted(files))
        flips.append((at + dice.randrange(len(files[at])), 1 << dice.randrange(8)))
    return flips


@pytest.mark.parametrize("count", [20, pytest.param(300, marks=pytest.mark.soak)])
def test_it_refuses_random_changes(secured: Secured, count: int) -> None:
    dice = random.Random(20261130)
    for number in range(count):
        flips = _mutate(secured, dice)
        for at, bit in flips:
            secured.flash[at] ^= bit
        changed = len({*flips}) == len(flips)
        assert (secured.start().app is None) or not changed, (number, flips)
        for at, bit in flips:
            secured.flash[at] ^= bit
    assert secured.start().app is not None


@pytest.mark.parametrize("count", [20, pytest.param(300, marks=pytest.mark.soak)])
def test_random_flash_ends_in_text(secured: Secured, count: int) -> None:
    dice = random.Random(20261130)
    files = secured.files()
    for _ in range(count):
        part = {at: bytearray(data) for at, data in files.items()}
        at = dice.choice(sorted(part))
        for _ in range(dice.randint(1, 40)):
            place = dice.randrange(min(len(part[at]), 64 if dice.random() < 0.5 else 1 << 20))
            part[at][place] = dice.choice((0, 0xFF, dice.randrange(256)))
        secured.write({each: bytes(data) for each, data in part.items()})
        result = secured.start()
        assert result.text.endswith("\r\n")
        secured.write(files)
