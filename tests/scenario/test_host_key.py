"""Writing and reading with a flash encryption key on this computer, on virtual chips with flash encryption."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from espwire.chips.registry import load_chip
from espwire.cli.main import main
from espwire.flash.host_key import FlashCipher, find_key_sizes
from espwire.image.codec import build, create_image
from espwire.image.model import Segment
from espwire.image.partition_csv import TableOffsets, parse_csv
from espwire.image.partition_table import build_table

KEYS = {size: bytes((5 * at + size) & 255 for at in range(size)) for size in (16, 24, 32, 64)}
CSV = """\
nvs,      data, nvs,      0x9000,  0x3000
nvs_key,  data, nvs_keys, 0xd000,  0x1000
otadata,  data, ota,      0xe000,  0x2000
app0,     app,  ota_0,    0x10000, 0x10000
secret,   data, 0x40,     0x20000, 0x1000, encrypted
plain,    data, spiffs,   0x21000, 0x2000
"""
DATA = bytes(range(256)) * 18
FLASH_SIZE = 1 << 20


def boot_image(chip_id: str, *, repeat: int = 8) -> bytes:
    """A small image for a chip."""
    code = Segment(0x3FC80000 if chip_id != "esp32" else 0x3FFB0000, bytes(range(256)) * repeat)
    return build(create_image([code], code.address, chip=load_chip(chip_id)))


def build_partitions(offset: int = 0x8000) -> bytes:
    text = CSV if offset == 0x8000 else CSV.replace("0x9000,  0x3000", "0xb000,  0x2000")
    return build_table(parse_csv(text, TableOffsets(offset), "table.csv"))


@dataclass
class Board:
    """A virtual chip with flash encryption, whose flash holds an encrypted bootloader and partition table."""

    folder: Path
    capsys: pytest.CaptureFixture[str]
    chip: str = "esp32c3"
    key: bytes = KEYS[32]
    query: str = ""
    table_offset: int = 0x8000
    cipher: FlashCipher = field(init=False)

    def __post_init__(self) -> None:
        esp32 = load_chip(self.chip).security.key_readable is not None
        self.cipher = FlashCipher(self.key, 0xF if esp32 else None)
        extra = "&flash_crypt_config=15" if esp32 and "flash_crypt_config" not in self.query else ""
        self.query = f"size=1MB&profile=instant&flash-encryption=1{extra}&{self.query}"
        if len(self.key) in (32, 64):
            self.query += f"&flash-key={self.key.hex()}"
        self.offset = load_chip(self.chip).flash.bootloader_offset
        self.boot = boot_image(self.chip)
        flash = bytearray(b"\xff" * FLASH_SIZE)
        for at, data in (
            (self.offset, self.boot),
            (self.table_offset, build_partitions(self.table_offset)),
        ):
            padded = data + b"\xff" * (-len(data) % 16)
            flash[at : at + len(padded)] = self.cipher.encrypt(padded, at)
        self.flash_path.write_bytes(flash)
        self.path("key.bin").write_bytes(self.key)

    def path(self, name: str) -> Path:
        return self.folder / name

    @property
    def flash_path(self) -> Path:
        return self.path("flash.bin")

    def file(self, name: str, data: bytes) -> Path:
        self.path(name).write_bytes(data)
        return self.path(name)

    def held(self, address: int, size: int) -> bytes:
        return self.flash_path.read_bytes()[address : address + size]

    def plain(self, address: int, size: int) -> bytes:
        """What the chip reads at an address."""
        return self.cipher.decrypt(self.held(address, size + -size % 16), address)[:size]

    def run(self, *words: object, code: int = 0) -> list[dict[str, Any]]:
        """The events of a run that ends with ``code``."""
        url = f"virtual:{self.chip}?{self.query}&flash={self.flash_path.as_posix()}"
        got = main(["--json", "-p", url, *map(str, words)])
        self.out, self.err = self.capsys.readouterr()
        assert got == code, (got, self.out, self.err)
        return [json.loads(line) for line in self.out.splitlines()]

    def write(self, *words: object, code: int = 0) -> list[dict[str, Any]]:
        return self.run("write-flash", "--key", self.path("key.bin"), *words, code=code)

    def read(self, *words: object, code: int = 0) -> list[dict[str, Any]]:
        return self.run("read-flash", "--key", self.path("key.bin"), *words, code=code)


@pytest.fixture
def make(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    return lambda **options: Board(tmp_path, capsys, **options)


def codes(events: list[dict[str, Any]], kind: str = "Warned") -> list[str]:
    return [event["code"] for event in events if event["event"] == kind]


@pytest.mark.parametrize(
    ("chip", "size", "query"),
    [
        ("esp32", 32, ""),
        ("esp32c3", 32, ""),
        ("esp32c6", 32, ""),
        ("esp32s3", 64, ""),
        ("esp32c3", 32, "stub=off"),
    ],
)
def test_what_the_table_marks_is_encrypted_and_the_rest_is_not(make, chip, size, query):
    board = make(chip=chip, key=KEYS[size], query=query)
    app, data = boot_image(chip), board.file("data.bin", DATA)
    events = board.write(
        "0x10000",
        board.file("app.bin", app),
        "nvs",
        data,
        "secret",
        board.file("s.bin", DATA[:4096]),
        "plain",
        data,
    )
    assert board.plain(0x10000, len(app)) == app
    assert board.held(0x9000, len(DATA)) == DATA
    assert board.plain(0x20000, 4096) == DATA[:4096]
    assert board.held(0x21000, len(DATA)) == DATA
    assert events[-1]["data"]["verified"] is True
    assert events[-1]["data"]["unchecked"] == []
    texts = [event["text"] for event in events if event["event"] == "Note"]
    assert "app.bin: encrypted on this computer" in texts
    assert "data.bin: not encrypted, by the partition table" in texts


def test_what_was_written_is_read_back_as_plaintext(make):
    board = make()
    app, copy = boot_image("esp32c3"), board.path("copy.bin")
    board.write("0x10000", board.file("app.bin", app), "plain", board.file("data.bin", DATA))
    board.read("0x10000", len(app) + -len(app) % 16, copy)
    assert copy.read_bytes()[: len(app)] == app
    board.read("plain", copy)
    assert copy.read_bytes()[: len(DATA)] == DATA
    board.read("0x0", "0x30000", copy)  # larger than 64 KiB: through FILE.partial
    whole = copy.read_bytes()
    assert whole[: len(board.boot)] == board.boot
    assert whole[0x8000:][: len(build_partitions())] == build_partitions()
    assert whole[0x10000:][: len(app)] == app
    assert whole[0x21000:][: len(DATA)] == DATA
    assert sorted(path.name for path in board.folder.glob("copy*")) == ["copy.bin"]


def test_a_merged_file_is_encrypted_in_parts(make):
    board = make()
    merged = bytearray(b"\xff" * 0x22000)
    app = boot_image("esp32c3")
    for at, data in (
        (0, board.boot),
        (0x8000, build_partitions()),
        (0x9000, DATA[:0x1000]),
        (0x10000, app),
        (0x21000, DATA[:0x1000]),
    ):
        merged[at : at + len(data)] = data
    board.write("0", board.file("merged.bin", bytes(merged)))
    assert board.plain(0, 0x9000) == merged[:0x9000]
    assert board.held(0x9000, 0x4000) == merged[0x9000:0xD000]
    assert board.plain(0xD000, 0x14000) == merged[0xD000:0x21000]
    assert board.held(0x21000, 0x1000) == merged[0x21000:]


def test_nvs_keys_are_always_encrypted_and_the_missing_flag_is_named(make):
    board = make()
    events = board.write("nvs_key", board.file("keys.bin", DATA[:4096]))
    assert board.plain(0xD000, 4096) == DATA[:4096]
    assert "nvs-keys-flag" in codes(events)


def test_the_partition_table_is_searched(make):
    board = make(table_offset=0xA000)
    events = board.write(
        "0x21000", board.file("data.bin", DATA), "0x20000", board.file("s.bin", DATA[:4096])
    )
    assert any("found in flash at 0xa000" in event.get("text", "") for event in events)
    assert board.held(0x21000, len(DATA)) == DATA
    assert board.plain(0x20000, 4096) == DATA[:4096]


def test_a_table_that_is_written_counts_before_the_one_in_flash(make):
    board = make()
    table = build_table(
        parse_csv(
            CSV.replace("spiffs,   0x21000, 0x2000", "spiffs,   0x21000, 0x2000, encrypted"),
            TableOffsets(),
            "t",
        )
    )
    board.write("0x8000", board.file("table.bin", table), "0x21000", board.file("data.bin", DATA))
    assert board.plain(0x21000, len(DATA)) == DATA
    assert board.plain(0x8000, len(table)) == table


def test_the_user_can_state_the_table_or_encrypt_everything(make):
    board = make()
    data, csv = (
        board.file("data.bin", DATA),
        board.file("t.csv", (CSV.replace("0x2000\n", "0x2000, encrypted\n")).encode()),
    )
    board.write("--partitions", csv, "0x21000", data)
    assert board.plain(0x21000, len(DATA)) == DATA
    board.write("--all-encrypted", "0x9000", board.file("d2.bin", DATA[:4096]))
    assert board.plain(0x9000, 4096) == DATA[:4096]
    board.flash_path.write_bytes(board.held(0, 0x8000) + b"\xff" * (FLASH_SIZE - 0x8000))
    error = board.write("0x21000", data, code=6)[-1]
    assert error["code"] == "no-partition-table"
    assert "--all-encrypted" in error["hint"]


def test_a_wrong_key_is_refused_before_anything_is_written(make):
    board = make()
    before, app = board.flash_path.read_bytes(), board.file("app.bin", boot_image("esp32c3"))
    board.path("key.bin").write_bytes(KEYS[32][::-1])
    for words in ((), ("--force",)):
        error = board.write("--all-encrypted", "0x10000", app, *words, code=8)[-1]
        assert error["details"]["consents"] == ["unproven-key"]
        assert "not the chip's key" in error["message"]
    assert board.flash_path.read_bytes() == before
    warned = board.read("--all-encrypted", "0x0", "0x1000", board.path("copy.bin"))
    assert "unproven-key" in codes(warned)


def test_without_an_encrypted_bootloader_the_key_needs_consent(make):
    board = make()
    board.flash_path.write_bytes(b"\xff" * FLASH_SIZE)
    words = ("--all-encrypted", "0", board.file("boot.bin", board.boot))
    error = board.write(*words, code=8)[-1]
    assert "the flash is blank at 0x0" in error["message"]
    board.write(*words, "--allow", "unproven-key")
    assert board.plain(0, len(board.boot)) == board.boot
    board.flash_path.write_bytes(board.boot + b"\xff" * (FLASH_SIZE - len(board.boot)))
    error = board.write("--all-encrypted", "0x10000", words[-1], code=8)[-1]
    assert "is not encrypted, so the key cannot be checked" in error["message"]


def test_a_chip_without_encryption_needs_consent(make):
    board = make(query="")
    board.query = board.query.replace("flash-encryption=1", "flash-encryption=0").split(
        "&flash-key"
    )[0]
    error = board.write("0x10000", board.file("app.bin", boot_image("esp32c3")), code=8)[-1]
    assert error["details"]["consents"] == ["encryption-off"]


@pytest.mark.parametrize(
    ("chip", "size", "right"),
    [
        ("esp32", 64, "192 or 256"),
        ("esp32c3", 64, "256"),
        ("esp32s3", 32, "512"),
        ("esp32c3", 24, "256"),
    ],
)
def test_a_key_of_another_length_is_refused(make, chip, size, right):
    board = make(chip=chip, key=KEYS[64 if chip == "esp32s3" else 32])
    board.path("key.bin").write_bytes(KEYS[size])
    error = board.write("0x10000", board.file("app.bin", boot_image(chip)), code=6)[-1]
    assert error["code"] == "key-size"
    assert f"uses {right} bits" in error["message"]


def test_the_esp32_takes_its_configuration_from_the_chip_or_the_user(make):
    board = make(chip="esp32", query="flash_crypt_config=15")
    app = board.file("app.bin", boot_image("esp32"))
    error = board.write("--flash-crypt-conf", "3", "0x10000", app, code=2)[-1]
    assert "the chip's FLASH_CRYPT_CONFIG is 0xf" in error["message"]
    board.write("--flash-crypt-conf", "0xf", "0x10000", app)


def test_half_a_block_is_refused_and_the_end_is_padded(make):
    board = make()
    before = board.flash_path.read_bytes()
    data = board.file("data.bin", DATA[:100])
    error = board.write("--all-encrypted", "0x20008", data, code=2)[-1]
    assert error["code"] == "unaligned"
    assert board.flash_path.read_bytes() == before
    board.write("--all-encrypted", "--no-keep", "0x20010", data)
    assert board.plain(0x20010, 112) == DATA[:100] + b"\xff" * 12
    error = board.read("0x20008", "0x10", board.path("copy.bin"), code=2)[-1]
    assert error["code"] == "unaligned"
    assert not board.path("copy.bin").exists()


def test_options_that_contradict_each_other(make):
    board = make()
    data = board.file("data.bin", DATA)
    assert "exclude each other" in board.write("--encrypt", "0x20000", data, code=2)[-1]["message"]
    error = board.run("write-flash", "--all-encrypted", "0x20000", data, code=2)[-1]
    assert error["message"] == "--all-encrypted needs --key"
    error = board.read("0x20000", "0x10", board.path("key.bin"), code=8)[-1]
    assert error["code"] == "overwrite-key"
    assert board.path("key.bin").read_bytes() == board.key


def test_secure_download_mode_writes_with_consent(make):
    """Nothing can be read there: neither the key nor the table can be checked."""
    board = make(query="secure-download=1")
    app = board.file("app.bin", boot_image("esp32c3"))
    error = board.write("0x10000", app, code=5)[-1]
    assert error["code"] == "cannot-read-partitions"
    error = board.write("--all-encrypted", "0x10000", app, code=8)[-1]
    assert error["details"]["consents"] == ["unproven-key"]
    board.write("--all-encrypted", "0x10000", app, "--allow", "unproven-key")
    assert board.plain(0x10000, app.stat().st_size) == app.read_bytes()


def test_a_build_is_encrypted(make):
    board = make()
    build = board.path("build")
    build.mkdir()
    files = {
        "0x0": ("boot.bin", board.boot),
        "0x8000": ("table.bin", build_partitions()),
        "0x10000": ("app.bin", boot_image("esp32c3")),
    }
    for name, data in files.values():
        (build / name).write_bytes(data)
    names = {at: name for at, (name, _) in files.items()}
    (build / "flasher_args.json").write_text(
        json.dumps({"flash_files": names, "extra_esptool_args": {"chip": "esp32c3"}})
    )
    board.run("flash", build, "--key", board.path("key.bin"))
    for at, (_, data) in files.items():
        assert board.plain(int(at, 0), len(data)) == data


@pytest.mark.parametrize("option", ["--json", "--trace", "--verbose"])
def test_the_key_is_in_no_output_and_no_file(make, monkeypatch, option):
    board = make()
    board.query = board.query.replace(f"&flash-key={board.key.hex()}", "")  # ports are shown
    monkeypatch.setenv("XDG_STATE_HOME", str(board.path("state")))
    app = board.file("app.bin", boot_image("esp32c3"))
    board.write("0x10000", app, option)
    shown = board.out + board.err
    board.read("0x0", "0x20000", board.path("copy.bin"), option)
    shown += board.out + board.err
    board.path("key2.bin").write_bytes(KEYS[32][::-1])
    board.run("write-flash", "--key", board.path("key2.bin"), "0x10000", app, option, code=6)
    shown += board.out + board.err
    forms = [key.hex() for key in (board.key, board.key[::-1])]
    assert not any(form[:32] in shown.replace(" ", "").lower() for form in forms)
    for path in board.folder.rglob("*"):
        if path.is_file() and not path.name.startswith("key"):
            content = path.read_bytes()
            assert board.key not in content, path
            assert board.key[::-1] not in content, path
            assert board.key.hex().encode() not in content, path


def test_verify_flash_compares_the_ciphertext(make):
    board = make()
    app, data = board.file("app.bin", boot_image("esp32c3")), board.file("data.bin", DATA)
    board.write("app0", app, "plain", data)
    words = ("verify-flash", "--key", board.path("key.bin"), "app0", app, "plain", data)
    size = app.stat().st_size + len(DATA)
    result = board.run(*words)[-1]["data"]
    assert (result["bytes"], result["equal"]) == (size, True)
    error = board.run("verify-flash", "0x10000", app, code=7)[-1]  # without the key: ciphertext
    assert error["hint"].startswith("Flash encryption is on: add --key FILE")
    app.write_bytes(app.read_bytes()[:-1] + b"!")
    error = board.run(*words, code=7)[-1]
    assert "the flash differs from app.bin at 0x10000" in error["message"]
    board.path("key.bin").write_bytes(KEYS[32][::-1])
    events = board.run(*words[:3], "--all-encrypted", "0x10000", app, code=7)
    assert "unproven-key" in codes(events)


@pytest.mark.parametrize(("revision", "code"), [("1.0", 8), ("3.1", 0)])
def test_an_early_esp32_p4_does_not_encrypt_downloads_itself(make, revision, code):
    board = make(chip="esp32p4", query=f"revision={revision}")
    app, before = board.file("app.bin", boot_image("esp32p4")), board.flash_path.read_bytes()
    words = ("write-flash", "--encrypt", "0x10000", app)
    last = board.run(*words, code=code)[-1]
    if code:
        assert last["details"]["consents"] == ["encrypting-unreliable"]
        assert last["hint"].startswith("Use --key, which encrypts on this computer.")
        board.run(*words, "--force", code=8)
        assert board.flash_path.read_bytes() == before
        board.write("0x10000", app)
    assert board.plain(0x10000, app.stat().st_size) == app.read_bytes()


def test_the_chip_uses_the_longer_of_two_kinds_of_keys():
    chip = load_chip("esp32s3")
    both = frozenset({"XTS_AES_128_KEY", "XTS_AES_256_KEY_1", "XTS_AES_256_KEY_2"})
    assert find_key_sizes(chip, both) == (64,)
    assert find_key_sizes(chip, both - {"XTS_AES_256_KEY_2"}) == (32,)
    assert find_key_sizes(chip, frozenset()) == (32, 64)
    assert find_key_sizes(load_chip("esp32c3"), frozenset()) == (32,)


def test_a_hidden_configuration_must_be_stated(tmp_path, capsys):
    board = Board(tmp_path, capsys, chip="esp32")
    fuses = board.path("fuses.bin").as_posix()
    board.query = f"size=1MB&profile=instant&efuse={fuses}"
    burn = ("efuse", "--do-not-confirm")
    board.run(*burn, "burn-key", "flash_encryption", board.path("key.bin"))
    board.run(*burn, "burn-efuse", "FLASH_CRYPT_CONFIG", "5", "FLASH_CRYPT_CNT", "1")
    words = ("--all-encrypted", "--allow", "unproven-key", "--no-keep", "0x20000")
    data = board.file("data.bin", DATA)
    board.write(*words, data)
    config_5 = FlashCipher(board.key, 5)
    assert config_5.decrypt(board.held(0x20000, len(DATA)), 0x20000) == DATA
    board.run(*burn, "read-protect-efuse", "FLASH_CRYPT_CONFIG")
    error = board.write(*words, data, code=2)[-1]
    assert error["code"] == "crypt-config"
    assert "--flash-crypt-conf" in error["hint"]
    board.write("--flash-crypt-conf", "5", *words, data)
    assert config_5.decrypt(board.held(0x20000, len(DATA)), 0x20000) == DATA


def test_a_file_that_is_encrypted_already_keeps_its_header(make):
    board = make()
    boot = boot_image("esp32c3", repeat=32)
    ready = board.file("ready.bin", board.cipher.encrypt(boot + b"\xff" * (-len(boot) % 16), 0))
    events = board.run(
        "write-flash", "--flash-size", "1MB", "--flash-mode", "dio", "0", ready, "--no-keep"
    )
    assert "header-kept" in codes(events)
    assert board.plain(0, len(boot)) == boot
