"""Encrypting writes, writes of what differs, where the flash hangs, what is consented to: on virtual chips."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

import espwire
from espwire.blob import Blob
from espwire.chips.registry import chip_ids, load_chip
from espwire.cli.main import main
from espwire.errors import SafetyStop, Unsupported, UsageError
from espwire.events import Note, Warned
from espwire.flash.findings import Policy
from espwire.secure.flash_encryption import encrypt_xts
from espwire.transport.base import CancelToken
from espwire.virtual.transport import open_virtual

DATA = bytes(range(256)) * 64
KEYS = {size: bytes((3 * at + size) & 255 for at in range(size)) for size in (32, 64)}
LONG_KEYS = {"esp32s2", "esp32s3", "esp32p4", "esp32h4", "esp32s31", "esp32e22"}
CAN_ENCRYPT = [name for name in chip_ids() if load_chip(name).rom.encrypted_write]


def changed(*places: int) -> bytes:
    data = bytearray(DATA)
    for at in places:
        data[at] ^= 0xFF
    return bytes(data)


@dataclass
class Board:
    """A virtual chip whose flash outlives a run of the program."""

    folder: Path
    chip: str = "esp32c3"
    query: str = "size=4MB"
    shown: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"virtual:{self.chip}?{self.query}&flash={(self.folder / 'flash.bin').as_posix()}"

    @property
    def flash(self) -> bytes:
        path = self.folder / "flash.bin"
        return path.read_bytes() if path.exists() else b""

    def file(self, name: str, data: bytes) -> str:
        (self.folder / name).write_bytes(data)
        return str(self.folder / name)

    def run(self, *words: str) -> tuple[int, list[dict]]:
        code = main(["--json", "--port", self.url, *words])
        return code, [json.loads(line) for line in sys.stdout.getvalue().splitlines()]  # type: ignore[attr-defined]


@pytest.fixture
def board(tmp_path, capsys):
    class Captured(Board):
        def run(self, *words: str) -> tuple[int, list[dict]]:
            capsys.readouterr()
            code = main(["--json", "--port", self.url, *words])
            return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return Captured(tmp_path)


def codes(events: list[dict]) -> set[str]:
    return {event["code"] for event in events if event["event"] in ("Warned", "Error")}


def attach_word(chip: str, connection: str | tuple[int, ...]) -> int | None:
    transport = open_virtual(f"virtual:{chip}?size=4MB", CancelToken())
    with espwire.connect(transport, stub=False) as device:
        device.use_flash_pins(connection)
        device.attach_flash()
        return transport.chip.registers.attach_word


# --- encryption ---


@pytest.mark.parametrize("chip_id", CAN_ENCRYPT)
def test_each_chip_that_can_stores_what_its_key_makes_of_it(chip_id):
    for size in (32, 64) if chip_id in LONG_KEYS else (32,):
        key = KEYS[size]
        on = int(load_chip(chip_id).security.flash_encryption is not None)
        query = f"size=4MB&flash-encryption={on}&flash-key={key.hex()}"
        transport = open_virtual(f"virtual:{chip_id}?{query}", CancelToken())
        warned = []
        with espwire.connect(transport, stub=False) as device:
            assert device.flash_key_valid
            part = Blob(0x10000, DATA[:0x1234], "app.bin", encrypted=True)
            espwire.write_flash(device, [part], report=warned.append)
        padded = DATA[:0x1234].ljust(0x1400, b"\xff")
        assert transport.chip.flash.contents[0x10000:0x11400] == encrypt_xts(padded, 0x10000, key)
        reported = ["nothing-compared", "unverified"] if on else ["unverified"]
        assert [e.code for e in warned if isinstance(e, Warned)] == reported


@pytest.mark.parametrize("chip_id", ["esp8266", "esp32"])
def test_a_rom_that_cannot_encrypt_hints_at_a_loader_that_can(chip_id):
    transport = open_virtual(f"virtual:{chip_id}?size=4MB", CancelToken())
    with espwire.connect(transport, stub=False) as device, pytest.raises(Unsupported) as caught:
        espwire.write_flash(
            device, [Blob(0x10000, DATA, encrypted=True)], policy=Policy(force=True)
        )
    assert caught.value.code == "no-encrypted-write"
    assert "On an ESP32, use espwire's stub" in caught.value.hint
    assert "An ESP8266 cannot encrypt" in caught.value.hint
    assert set(transport.chip.flash.contents) == {0xFF}


@pytest.mark.parametrize(
    "words",
    [("--encrypt", "0x10008", "{a}"), ("0x10000", "{a}", "--encrypt-files", "0x20008", "{b}")],
)
def test_both_forms_want_encrypted_files_aligned(board, words):
    board.query += "&flash-encryption=1"
    names = {"a": board.file("a.bin", DATA), "b": board.file("b.bin", DATA)}
    code, events = board.run("write-flash", *(word.format(**names) for word in words))
    assert (code, events[-1]["code"]) == (2, "address")
    assert "multiple of 16" in events[-1]["message"]
    assert set(board.flash) <= {0xFF}


def test_the_safety_checks_cover_encrypted_files(board):
    board.query += "&flash-encryption=1"
    a = board.file("a.bin", DATA)
    foreign = str(Path(__file__).parents[1] / "data/esp32/esp32-bootloader.bin")
    code, events = board.run("write-flash", "0x10000", a, "--encrypt-files", "0", foreign)
    assert (code, events[-1]["details"]["consents"]) == (8, ["wrong-chip-image"])
    code, events = board.run("write-flash", "0x10000", a, "--encrypt-files", "0x3ff000", a)
    assert (code, events[-1]["details"]["consents"]) == (8, ["past-flash-end"])
    assert set(board.flash) <= {0xFF}


def test_encrypted_and_plain_files_go_in_one_run_and_the_unverified_is_named(board):
    board.query += f"&flash-encryption=1&flash-key={KEYS[32].hex()}"
    a, b = board.file("a.bin", DATA), board.file("b.bin", changed(5))
    code, events = board.run(
        "write_flash", "0x10000", a, "--encrypt_files", "0x20000", b, "0x30000", a
    )
    assert code == 0
    assert board.flash[0x10000:0x14000] == DATA
    assert board.flash[0x20000:0x24000] == encrypt_xts(changed(5), 0x20000, KEYS[32])
    assert board.flash[0x30000:0x34000] == encrypt_xts(DATA, 0x30000, KEYS[32])
    warning = next(e for e in events if e["event"] == "Warned" and e["code"] == "unverified")
    assert warning["text"].startswith("b.bin, a.bin: written, but not verified")
    assert (events[-1]["data"]["verified"], events[-1]["text"][-42:]) == (
        False,
        "only partly verified. The board was reset.",
    )


@pytest.mark.parametrize("compress", ["-u", "-z"])
def test_compressed_or_not_the_chip_stores_the_same(board, compress):
    board.query += f"&flash-encryption=1&flash-key={KEYS[32].hex()}"
    assert (
        board.run("write-flash", compress, "--encrypt", "0x10000", board.file("a.bin", DATA))[0]
        == 0
    )
    assert board.flash[0x10000:0x14000] == encrypt_xts(DATA, 0x10000, KEYS[32])


def test_without_a_key_the_chip_encrypts_nothing_and_force_makes_no_key(board):
    a = board.file("a.bin", DATA)
    for words in ((), ("--force",)):
        code, events = board.run("write-flash", "--encrypt", "0x10000", a, *words)
        assert (code, events[-1]["details"]["consents"]) == (8, ["no-flash-key"])
        assert "--allow no-flash-key" in events[-1]["hint"]
    for words in (("--ignore-flash-enc-efuse",), ("--allow", "no-flash-key")):
        code, events = board.run("write-flash", "--encrypt", "0x10000", a, *words)
        assert (code, events[-1]["code"]) == (5, "command-failed"), (
            "our guard let it pass, the chip did not"
        )


def test_an_esp32_with_blank_efuses_encrypts_with_a_key_of_zeros(tmp_path):
    """The expected bytes are espsecure 5.6's, for a key of 32 zeros, address 0x10000 and crypt config 0."""
    data, flash = tmp_path / "a.bin", tmp_path / "flash.bin"
    data.write_bytes(bytes(range(32)))
    line = [
        "-p",
        f"virtual:esp32?size=1MB&flash={flash.as_posix()}",
        "write-flash",
        "--encrypt",
        "0x10000",
        str(data),
    ]
    assert main(line) == 8
    assert main([*line, "--ignore-flash-enc-efuse"]) == 0
    expected = "c17085e07ff78f70a9cf6d9cf8daca5cffe2c22a17e96934dd242002aa0a6aba"
    assert flash.read_bytes()[0x10000:0x10020].hex() == expected


def test_a_chip_whose_encryption_is_disabled_needs_consent_by_name(board):
    board.query += "&flash-encryption=1&manual-encrypt-disabled=1"
    a = board.file("a.bin", DATA)
    for words in ((), ("--force",), ("--ignore-flash-enc-efuse",)):
        code, events = board.run("write-flash", "--encrypt", "0x10000", a, *words)
        assert (code, events[-1]["details"]["consents"]) == (8, ["encrypting-disabled"])
    code, events = board.run("write-flash", "0x10000", a)
    assert (code, events[-1]["details"]["consents"]) == (8, ["plaintext"])
    assert board.run("write-flash", "0x10000", a, "--allow", "plaintext")[0] == 0
    assert board.flash[0x10000:0x14000] == DATA


def test_encryption_in_secure_download_mode(board):
    board.query += f"&flash-encryption=1&secure-download=1&flash-key={KEYS[32].hex()}"
    a = board.file("a.bin", DATA)
    code, events = board.run("write-flash", "-fs", "4MB", "0x10000", a)
    assert (code, events[-1]["details"]["consents"]) == (8, ["plaintext"])
    assert board.run("write-flash", "-fs", "4MB", "0x10000", a, "--encrypt")[0] == 0
    assert board.flash[0x10000:0x14000] == encrypt_xts(DATA, 0x10000, KEYS[32])


def test_a_virtual_chip_without_the_library_reports_it(board, monkeypatch):
    monkeypatch.setitem(sys.modules, "cryptography.hazmat.primitives.ciphers", None)
    board.query += "&flash-encryption=1"
    code, events = board.run("write-flash", "--encrypt", "0x10000", board.file("a.bin", DATA))
    assert (code, events[-1]["code"]) == (5, "needs-cryptography")


# --- what need not be written ---


def test_only_sectors_that_differ_are_written_and_all_is_checked(board):
    old, new = board.file("old.bin", DATA), board.file("new.bin", changed(0x1800, 0x2800, 0x3FFF))
    assert board.run("write-flash", "0x10000", old)[0] == 0
    code, events = board.run("write-flash", "0x10000", new, "--diff-with", old)
    steps = next(e for e in events if e["event"] == "PlanReady")["steps"]
    assert code == 0
    assert [step.split(" (")[0] for step in steps] == [
        "write 3 of 4 sectors of new.bin to 0x10000..0x14000",
        "verify new.bin at 0x10000..0x14000",
    ]
    assert board.flash[0x10000:0x14000] == changed(0x1800, 0x2800, 0x3FFF)


@pytest.mark.parametrize("more", [[], ["--no-stub"]], ids=["stub", "ROM"])
def test_flash_that_held_something_else_is_written_whole(board, more):
    old, new = board.file("old.bin", DATA), board.file("new.bin", changed(0x1800))
    code, events = board.run(
        *more, "write-flash", "0x10000", new, "--diff-with", old
    )  # the flash is blank
    assert code == 0
    assert "rewrite" in codes(events)
    assert board.flash[0x10000:0x14000] == changed(0x1800)


def test_trust_leaves_out_the_check_of_what_has_not_changed_and_no_more(board):
    old, new = board.file("old.bin", DATA), board.file("new.bin", changed(0x1800))
    code, events = board.run(
        "write-flash", "0x10000", old, "--diff-with", old, "--trust-flash-content"
    )
    assert (code, events[-1]["data"]["verified"]) == (0, False)
    assert events[-1]["text"].startswith(
        "Done: 1 file, 16,384 bytes; nothing had to be written. Not checked: old.bin."
    )
    assert set(board.flash) <= {0xFF}, "it was trusted, and nothing was written"
    code, events = board.run(
        "write-flash", "0x10000", new, "--diff-with", old, "--trust-flash-content"
    )
    assert (code, events[-1]["data"]["verified"]) == (0, True)
    assert board.flash[0x10000:0x14000] == changed(0x1800)
    code, events = board.run("write-flash", "0x10000", new, "--trust-flash-content")
    assert (code, events[-1]["code"]) == (2, "usage")


def test_old_files_go_with_new_ones_by_order_and_skip_leaves_one_out(board):
    a, b = board.file("a.bin", DATA), board.file("b.bin", changed(0x1000))
    assert board.run("write-flash", "0x10000", a, "0x20000", a)[0] == 0
    code, events = board.run(
        "write-flash", "0x10000", b, "0x20000", b, "0x30000", b, "--diff-with", "skip", a
    )
    steps = [
        s.split(" (")[0]
        for s in next(e for e in events if e["event"] == "PlanReady")["steps"]
        if s[:5] == "write"
    ]
    assert code == 0
    assert steps == [
        "write 1 of 4 sectors of b.bin to 0x10000..0x14000",
        "write 1 of 4 sectors of b.bin to 0x20000..0x24000",
        "write b.bin to 0x30000..0x34000",
    ]


def test_a_file_that_is_in_flash_already_is_skipped(board):
    a, b = board.file("a.bin", DATA), board.file("b.bin", changed(7))
    assert board.run("write-flash", "0x10000", a)[0] == 0
    code, events = board.run("write-flash", "-s", "0x10000", a, "0x20000", b)
    steps = next(e for e in events if e["event"] == "PlanReady")["steps"]
    assert code == 0
    assert steps[0] == "skip a.bin: the flash holds it already"
    assert (events[-1]["data"]["verified"], board.flash[0x20000:0x24000]) == (True, changed(7))


@pytest.mark.parametrize(
    ("chip", "query", "words"),
    [
        ("esp32c3", "", ("--erase-all",)),
        ("esp32c3", "&flash-encryption=1", ("--encrypt",)),
        ("esp32c3", "&secure-download=1", ("-fs", "4MB")),
        ("esp8266", "", ("--no-stub",)),
    ],
)
@pytest.mark.parametrize("way", ["diff", "skip"])
def test_flash_that_cannot_be_compared_is_written_whole_and_reported(
    board, chip, query, words, way
):
    board.chip, board.query = chip, board.query + query
    a = board.file("a.bin", DATA)
    more = ("--diff-with", a) if way == "diff" else ("--skip-flashed",)
    code, events = board.run("write-flash", "0x10000", a, *words, *more)
    assert code == 0, events[-1]
    assert "written-whole" in codes(events)
    assert set(board.flash[0x10000:0x14000]) != {0xFF}


@pytest.mark.parametrize(
    "words",
    [
        ("--encrypt", "--encrypt-files", "0x20000", "{a}"),
        ("--skip-flashed", "--diff-with", "{a}"),
        ("-z", "-u"),
        ("--flash-type", "nand"),
        ("--allow", "everything"),
        ("-sc", "VSPI"),
    ],
)
def test_what_makes_no_sense_is_refused_before_the_chip_is_touched(board, words):
    a = board.file("a.bin", DATA)
    code, events = board.run("write-flash", "0x10000", a, *(word.format(a=a) for word in words))
    assert code == 2
    assert [event["event"] for event in events] == ["Error"]
    if "nand" in words:
        assert (events[0]["code"], "not supported" in events[0]["message"]) == ("nand", True)


# --- where the flash is, and its supply ---


@pytest.mark.parametrize(
    ("chip", "connection", "word"),
    [
        ("esp32", "SPI", 0),
        ("esp32", "HSPI", 1),
        ("esp32", (6, 17, 8, 11, 16), 6 | 17 << 6 | 8 << 12 | 16 << 18 | 11 << 24),
        ("esp32c3", (1, 2, 3, 4, 5), 1 | 2 << 6 | 3 << 12 | 5 << 18 | 4 << 24),
        ("esp32c6", "SPI", 0),
    ],
)
def test_the_loader_receives_the_connection_of_the_flash(chip, connection, word):
    assert attach_word(chip, connection) == word


def test_without_a_word_from_the_user_the_fuses_decide():
    transport = open_virtual(
        "virtual:esp32?size=4MB&package=5&revision=1.1", CancelToken()
    )  # ESP32-PICO-D4
    with espwire.connect(transport, stub=False) as device:
        device.attach_flash()
        by_fuses = transport.chip.registers.attach_word
        device.use_flash_pins("SPI")
        device.attach_flash()
    assert (by_fuses, transport.chip.registers.attach_word) == (0, 0)


@pytest.mark.parametrize(
    "words",
    [
        ("write-flash", "0x10000", "{a}"),
        ("read-flash", "0", "16", "{o}"),
        ("verify-flash", "0x3f0000", "{f}"),
        ("erase-flash",),
        ("erase-region", "0", "0x1000"),
        ("flash-id",),
        ("read-flash-status",),
        ("write-flash-status", "0"),
        ("read-flash-sfdp", "0", "4"),
    ],
)
def test_every_command_that_touches_the_part_takes_its_connection(board, words):
    names = {
        "a": board.file("a.bin", DATA),
        "o": str(board.folder / "o.bin"),
        "f": board.file("f.bin", b"\xff" * 64),
    }
    filled = [word.format(**names) for word in words]
    assert board.run(*filled, "-sc", "1,2,3,4,5")[0] == 0
    code, events = board.run(*filled, "--spi-connection", "HSPI")
    assert (code, events[-1]["code"]) == (2, "spi-connection")


def test_the_esp32_s_supply_is_overridden_before_the_flash_is_used():
    transport = open_virtual("virtual:esp32?size=4MB", CancelToken())
    notes = []
    with espwire.connect(transport, report=notes.append, stub=False) as device:
        device.override_flash_voltage("1.9V")
        assert device.read_mem(0x3FF48074).value == 0xFE600000
    assert "1.9V" in next(e.text for e in notes if isinstance(e, Note) and "supply" in e.text)


def test_the_option_for_it_is_refused_elsewhere(board):
    code, events = board.run("--override-vddsdio", "1.8v", "flash-id")
    assert (code, events[-1]["code"]) == (2, "flash-voltage")
    board.chip = "esp32"
    assert board.run("--override-vddsdio", "OFF", "flash-id")[0] == 0


# --- small ones ---


@pytest.mark.parametrize("query", ["&secure-boot=1", "&secure-download=1"])
def test_a_chip_that_checks_signatures_gets_its_images_unchanged(board, query):
    board.query += query
    image = Path(espwire.__file__).parent / "demo/esp32c3-hello.bin"
    allowed = ["--allow", "past-flash-end", "--allow", "unsigned-image"]
    code, events = board.run("write-flash", "-fs", "8MB", "-fm", "dout", "0", str(image), *allowed)
    assert code == 0, events[-1]
    assert "header-kept" in codes(events)
    data = image.read_bytes()
    assert board.flash[: len(data)] == data


def test_verifying_past_a_stated_flash_size_names_the_option(board):
    file = board.folder / "a.bin"
    file.write_bytes(b"\xff" * 0x2000)
    code, events = board.run("verify-flash", "-fs", "1MB", "0xff000", str(file))
    assert (code, events[-1]["code"]) == (2, "past-flash-end")
    assert "--flash-size" in events[-1]["hint"]
    assert board.run("verify-flash", "-fs", "1MB", "0xfe000", str(file))[0] == 0


def test_reading_takes_a_flash_size_and_sfdp_takes_header_options(board):
    out = str(board.folder / "o.bin")
    assert board.run("read-flash", "-fs", "1MB", "0xff000", "0x1000", out)[0] == 0
    code, events = board.run("read-flash", "-fs", "1MB", "0xff000", "0x2000", out)
    assert (code, events[-1]["code"]) == (2, "past-flash-end")
    assert board.run("read-flash", "-fs", "5 apples", "0", "16", out)[0] == 2
    plain = board.run("read-flash-sfdp", "0", "4")[1][-1]["data"]
    assert (
        board.run("read-flash-sfdp", "-fm", "dio", "-ff", "40m", "-fs", "4MB", "0", "4")[1][-1][
            "data"
        ]
        == plain
    )
    assert board.run("read-flash-sfdp", "-fs", "5 apples", "0", "4")[0] == 2


def test_consents_are_given_one_by_one(board):
    board.query += "&flash-encryption=1"
    code, events = board.run("erase-region", "0", "0x1000", "--allow", "plaintext")
    assert (code, events[-1]["details"]["consents"]) == (8, ["erase-secured"])
    assert (
        board.run(
            "erase-region", "0", "0x1000", "--allow", "plaintext", "--allow", "erase-secured"
        )[0]
        == 0
    )
    assert board.run("erase-flash", "--allow", "erase-secured")[0] == 0
    code, events = board.run("erase-flash", "--allow", "nothing")
    assert (code, events[-1]["code"]) == (2, "unknown-consent")
    assert "erase-secured" in events[-1]["hint"]


def test_bits_that_lock_the_flash_need_their_name(board):
    code, events = board.run("write-flash-status", "--non-volatile", "0x80")
    assert (code, events[-1]["code"], events[-1]["details"]["consents"]) == (
        8,
        "status-lock",
        ["status-lock"],
    )
    assert board.run("write-flash-status", "--non-volatile", "0x80", "--force")[0] == 2
    assert (
        board.run("write-flash-status", "--non-volatile", "0x80", "--allow", "status-lock")[0] == 0
    )
    with (
        espwire.connect("virtual:esp32c3", stub=False) as device,
        pytest.raises(UsageError) as caught,
    ):
        device.write_flash_status(0, consents=["status_lock"])
    assert caught.value.code == "unknown-consent"


def test_the_library_wants_names_as_well():
    transport = open_virtual(
        "virtual:esp32c3?size=4MB&flash-encryption=1&secure-download=1", CancelToken()
    )
    settings = espwire.HeaderSettings(size="4MB")
    with espwire.connect(transport, stub=False) as device:
        with pytest.raises(SafetyStop) as caught:
            espwire.write_flash(device, [Blob(0x10000, DATA)], settings=settings)
        assert caught.value.consents == ("plaintext",)
        policy = Policy(consents=frozenset({"plaintext"}))
        espwire.write_flash(device, [Blob(0x10000, DATA)], policy=policy, settings=settings)
    assert transport.chip.flash.contents[0x10000:0x14000] == DATA
