"""Dangerous burns: each is refused by name, whatever command sets the bits, and allowed with its consent."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest

from espwire.cli.main import main
from espwire.efuse.store import VirtualStore, open_file
from espwire.efuse.tables import load_fuses

FILE = "fuses"
KEY = bytes(range(1, 33))
# chip, commands that make the state before, commands that are refused, name

OPEN = "--no-read-protect --no-write-protect"
DIGEST = "burn-key BLOCK_KEY0 key SECURE_BOOT_DIGEST0"
RULES = [
    ("esp32c3", "", "burn-efuse SECURE_BOOT_EN 1", "efuse-no-digest"),
    ("esp32c3", "", "burn-bit BLOCK0 {SECURE_BOOT_EN}", "efuse-no-digest"),
    ("esp32c3", DIGEST, "burn-efuse SECURE_BOOT_KEY_REVOKE0 1 SECURE_BOOT_EN 1", "efuse-no-digest"),
    ("esp32", "", "burn-efuse ABS_DONE_1 1", "efuse-no-digest"),
    ("esp32", "", "burn-efuse ABS_DONE_0 1", "efuse-no-digest"),
    ("esp32c2", "", "burn-efuse SECURE_BOOT_EN 1", "efuse-no-digest"),
    (
        "esp32c3",
        "",
        "burn-efuse SECURE_BOOT_KEY_REVOKE0 1 SECURE_BOOT_KEY_REVOKE1 1 SECURE_BOOT_KEY_REVOKE2 1",
        "efuse-last-digest",
    ),
    ("esp32c3", "", "burn-efuse DIS_DOWNLOAD_MODE 1", "efuse-own-port"),
    ("esp32c3", DIGEST, "burn-efuse SECURE_BOOT_KEY_REVOKE0 1", "efuse-last-digest"),
    ("esp32c3", DIGEST, "burn-bit BLOCK0 {SECURE_BOOT_KEY_REVOKE0}", "efuse-last-digest"),
    ("esp32c6", "", "burn-efuse SPI_BOOT_CRYPT_CNT 1", "efuse-no-flash-key"),
    ("esp32c2", "", "burn-efuse SPI_BOOT_CRYPT_CNT 1", "efuse-no-flash-key"),
    ("esp32", "", "burn-efuse FLASH_CRYPT_CNT 1", "efuse-no-flash-key"),
    ("esp32c6", "", "burn-bit BLOCK0 {SPI_BOOT_CRYPT_CNT}", "efuse-no-flash-key"),
    ("esp32c3", DIGEST, "burn-efuse RD_DIS 1", "efuse-hidden-digest"),
    ("esp32c3", DIGEST, "burn-bit BLOCK0 32", "efuse-hidden-digest"),
    (
        "esp32",
        "burn-efuse CHIP_VER_REV1 1 CHIP_VER_REV2 1 burn-key secure_boot_v2 key",
        "read-protect-efuse BLOCK2",
        "efuse-hidden-digest",
    ),
    (
        "esp32c3",
        DIGEST,
        "burn-key BLOCK_KEY1 key SECURE_BOOT_DIGEST0",
        "efuse-same-purpose",
    ),
    (
        "esp32c3",
        "burn-key BLOCK_KEY0 key XTS_AES_128_KEY",
        "burn-key BLOCK_KEY1 key XTS_AES_128_KEY",
        "efuse-same-purpose",
    ),
    (
        "esp32s3",
        "burn-key BLOCK_KEY0 key XTS_AES_128_KEY",
        "burn-key BLOCK_KEY1 key2 XTS_AES_256_KEY",
        "efuse-mixed-flash-keys",
    ),
    ("esp32c3", "", "burn-efuse KEY_PURPOSE_5 XTS_AES_128_KEY", "efuse-key-slot"),
    (
        "esp32s3",
        "burn-key BLOCK_KEY0 key XTS_AES_256_KEY_1",
        "burn-efuse SPI_BOOT_CRYPT_CNT 1",
        "efuse-no-flash-key",
    ),
    (
        "esp32s3",
        "burn-efuse KEY_PURPOSE_0 XTS_AES_128_KEY",
        "burn-bit BLOCK0 32",
        "efuse-hidden-empty",
    ),
    ("esp32s3", "", "burn-key BLOCK_KEY0 zeros HMAC_UP", "efuse-hidden-empty"),
    ("esp32", "", "read-protect-efuse BLOCK1", "efuse-hidden-empty"),
    (
        "esp32s3",
        f"{DIGEST} burn-key BLOCK_KEY1 key2a SECURE_BOOT_DIGEST1 burn-bit BLOCK0 32"
        " --allow efuse-hidden-digest",
        "burn-bit BLOCK0 33",
        "efuse-hidden-digest",
    ),
    (
        "esp32",
        "burn-key flash_encryption key",
        "burn-efuse CODING_SCHEME 1",
        "efuse-coding-scheme",
    ),
    (
        "esp32c3",
        f"burn-key BLOCK_KEY0 key XTS_AES_128_KEY {OPEN}",
        "write-protect-efuse RD_DIS",
        "efuse-open-key",
    ),
    (
        "esp32c3",
        "write-protect-efuse RD_DIS",
        "burn-key BLOCK_KEY0 key XTS_AES_128_KEY --no-read-protect",
        "efuse-open-key",
    ),
    (
        "esp32",
        f"burn-key flash_encryption key {OPEN}",
        "write-protect-efuse RD_DIS",
        "efuse-open-key",
    ),
    (
        "esp32c2",
        "burn-key BLOCK_KEY0 key XTS_AES_128_KEY",
        "burn-efuse SECURE_BOOT_EN 1 --allow efuse-no-digest",
        "efuse-key-halves",
    ),
    ("esp32s3", "burn-efuse DIS_USB_JTAG 1", "burn-efuse DIS_USB_SERIAL_JTAG 1", "efuse-usb-boot"),
    (
        "esp32s3",
        "burn-efuse DIS_USB_JTAG 1",
        "burn-bit BLOCK0 {DIS_USB_SERIAL_JTAG}",
        "efuse-usb-boot",
    ),
    ("esp32s3", "", "burn-efuse DIS_USB_JTAG 1 DIS_USB_SERIAL_JTAG 1", "efuse-usb-boot"),
    ("esp32p4", "301", "burn-efuse ENABLE_SECURITY_DOWNLOAD 1", "efuse-no-flash-power"),
    (
        "esp32p4",
        "301",
        "burn-efuse DOWNLOAD_MODE_XPD_ON 1 ENABLE_SECURITY_DOWNLOAD 1",
        "efuse-no-flash-power",
    ),
    ("esp32p4", "302", "burn-efuse ENABLE_SECURITY_DOWNLOAD 1", "efuse-no-flash-power"),
    ("esp32c3", "", "burn-key-digest BLOCK_KEY0 ec.pem SECURE_BOOT_DIGEST0", "efuse-digest-scheme"),
    ("esp32c2", "", "burn-key-digest rsa.pem", "efuse-digest-scheme"),
    (
        "esp32c61",
        "",
        "burn-key-digest BLOCK_KEY0 rsa.pem SECURE_BOOT_DIGEST0",
        "efuse-digest-scheme",
    ),
    (
        "esp32c5",
        "",
        "burn-key-digest BLOCK_KEY0 rsa.pem SECURE_BOOT_DIGEST0",
        "efuse-digest-scheme",
    ),
    (
        "esp32p4",
        "103",
        "burn-key-digest BLOCK_KEY0 p384.pem SECURE_BOOT_DIGEST0",
        "efuse-digest-scheme",
    ),
]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from espwire.secure.keys import SCHEMES, generate_key

    monkeypatch.chdir(tmp_path)
    (tmp_path / "key").write_bytes(KEY)
    (tmp_path / "key2").write_bytes(KEY[::-1] + KEY)
    (tmp_path / "key2a").write_bytes(KEY[::-1])
    (tmp_path / "equal").write_bytes(KEY + KEY)
    (tmp_path / "equal16").write_bytes(KEY[:16] * 2)
    (tmp_path / "key24").write_bytes(KEY[:24])
    (tmp_path / "zeros").write_bytes(bytes(32))
    (tmp_path / "ec.pem").write_bytes(generate_key(SCHEMES["ecdsa256"]).pem())
    (tmp_path / "p384.pem").write_bytes(generate_key(SCHEMES["ecdsa384"]).pem())
    return tmp_path


def run(chip: str, line: str) -> int:
    words = line.format_map(Bits(chip)).split()
    return main(["efuse", "-c", chip, "--path-efuse-file", FILE, "--do-not-confirm", *words])


class Bits(dict[str, int]):
    """The first bit of a field."""

    def __init__(self, chip: str) -> None:
        super().__init__()
        self._fields = [field for table in load_fuses(chip).table for field in table.fields]

    def __missing__(self, name: str) -> int:
        return next(field.start for field in self._fields if field.name == name)


def prepare(chip: str, before: str) -> None:
    if before.isdecimal():  # a revision
        major, minor = divmod(int(before), 100)
        store = VirtualStore(chip, path=FILE)
        layout = store.read().layout
        for name, value in (("WAFER_VERSION_MAJOR_LO", major), ("WAFER_VERSION_MINOR", minor)):
            field = layout.field(name)
            store.burned[field.block] |= value << field.start
        assert store.read().revision == int(before)
        store.save()
    elif before:
        assert run(chip, before) == 0


@pytest.mark.parametrize(("chip", "before", "line", "name"), RULES)
def test_a_dangerous_burn_is_refused_and_allowed_by_its_consent(
    capsys: pytest.CaptureFixture[str], chip: str, before: str, line: str, name: str
) -> None:
    if "rsa.pem" in line:
        from espwire.secure.keys import SCHEMES, generate_key

        Path("rsa.pem").write_bytes(generate_key(SCHEMES["rsa3072"]).pem())
    prepare(chip, before)
    old = open_file(FILE, chip).burned
    capsys.readouterr()
    assert run(chip, line) == 8
    assert f"[{name}]" in capsys.readouterr().err
    assert open_file(FILE, chip).burned == old
    assert run(chip, f"{line} --allow {name}") == 0
    assert open_file(FILE, chip).burned != old


FORMS = ("burn-bit", "burn-block-data", "chain", "force")


def build_line(old: list[int], new: list[int], words: int, form: str) -> list[str]:
    """A line that burns the bits in which ``new`` differs: as single bits, as data, or after other commands."""
    line = ["burn-custom-mac", "aa:cd:ef:01:02:03"] if form == "chain" else []
    for number, (before, after) in enumerate(zip(old, new, strict=True)):
        if before == after:
            continue
        if form == "burn-block-data":
            size = 4 * (words if number == 0 else 8)
            Path(f"data{number}").write_bytes(after.to_bytes(size, "little"))
            line += ["burn-block-data", f"BLOCK{number}", f"data{number}"]
        else:
            bits = [str(i) for i in range(after.bit_length()) if (after & ~before) >> i & 1]
            line += ["burn-bit", f"BLOCK{number}", *bits]
    return [*line, *(["--force-write-always"] if form == "force" else [])]


STATES = [rule for rule in RULES if rule[3] != "efuse-digest-scheme"]  # the others are in a file


@pytest.mark.parametrize(("chip", "before", "line", "name"), STATES)
def test_it_is_refused_whatever_command_burns_the_bits(
    capsys: pytest.CaptureFixture[str], chip: str, before: str, line: str, name: str
) -> None:
    prepare(chip, before)
    start = Path(FILE).read_bytes() if Path(FILE).exists() else None
    old = open_file(FILE, chip).burned
    assert run(chip, f"{line} --allow {name}") == 0
    new = open_file(FILE, chip).burned
    others = line.split(" --allow ")[1:]
    consents = [word for other in others for word in ("--allow", other)]
    size = load_fuses(chip).blocks[0].words
    for form in FORMS:
        Path(FILE).unlink() if start is None else Path(FILE).write_bytes(start)
        words = build_line(old, new, size, form)
        capsys.readouterr()
        assert run(chip, " ".join([*words, *consents])) == 8, form
        assert f"[{name}]" in capsys.readouterr().err
        assert open_file(FILE, chip).burned == old
        assert run(chip, " ".join([*words, *consents, "--allow", name])) == 0, form
        burned = open_file(FILE, chip).burned
        assert [bits & want for bits, want in zip(burned, new, strict=True)] == new
        assert form == "chain" or burned == new


@pytest.mark.parametrize(
    ("chip", "before", "line"),
    [
        ("esp32c3", DIGEST, "burn-efuse SECURE_BOOT_EN 1"),
        ("esp32c3", "", f"{DIGEST} burn-efuse SECURE_BOOT_EN 1"),
        (
            "esp32c6",
            "",
            "burn-key BLOCK_KEY0 key XTS_AES_128_KEY burn-efuse SPI_BOOT_CRYPT_CNT 1",
        ),
        ("esp32", "burn-key flash_encryption key", "burn-efuse FLASH_CRYPT_CNT 1"),
        ("esp32c3", "", "burn-key BLOCK_KEY0 key XTS_AES_128_KEY write-protect-efuse RD_DIS"),
        ("esp32p4", "302", "burn-efuse DOWNLOAD_MODE_XPD_ON 1 ENABLE_SECURITY_DOWNLOAD 1"),
        ("esp32s3", "", "burn-efuse DIS_USB_JTAG 1"),
        ("esp32s3", "", "burn-key BLOCK_KEY1 key2 XTS_AES_256_KEY"),
        (
            "esp32s3",
            "",
            "burn-key BLOCK_KEY0 key2 XTS_AES_256_KEY burn-efuse SPI_BOOT_CRYPT_CNT 1",
        ),
        ("esp32", "", "burn-efuse CODING_SCHEME 1"),
        ("esp32", "burn-efuse CODING_SCHEME 1", "burn-key flash_encryption key24"),
        ("esp32c6", "", "burn-key-digest BLOCK_KEY0 ec.pem SECURE_BOOT_DIGEST0"),
        ("esp32p4", "300", "burn-key-digest BLOCK_KEY0 p384.pem SECURE_BOOT_DIGEST0"),
    ],
)
def test_what_is_complete_needs_no_consent(chip: str, before: str, line: str) -> None:
    prepare(chip, before)
    assert run(chip, line) == 0


@pytest.mark.parametrize(
    ("port", "line", "name"),
    [
        ("esp32c3?kind=usb-jtag", "DIS_USB_SERIAL_JTAG_DOWNLOAD_MODE 1", "efuse-own-port"),
        ("esp32s3?kind=usb-jtag", "DIS_USB_SERIAL_JTAG 1", "efuse-own-port"),
        ("esp32s3?kind=usb-otg", "DIS_USB_OTG_DOWNLOAD_MODE 1", "efuse-own-port"),
        (
            "esp32s3?kind=usb-otg",
            "SPI_BOOT_CRYPT_CNT 1 --allow efuse-no-flash-key",
            "efuse-own-port",
        ),
        ("esp32s3?kind=usb-otg", "SECURE_BOOT_EN 1 --allow efuse-no-digest", "efuse-own-port"),
        ("esp32c6?size=1MB", "DIS_DOWNLOAD_MODE 1", "efuse-own-port"),
        ("esp32?revision=3.0", "UART_DOWNLOAD_DIS 1", "efuse-own-port"),
        ("esp32s3?size=1MB", "VDD_SPI_FORCE 1 VDD_SPI_XPD 1", "efuse-flash-voltage"),
    ],
)
def test_the_port_in_use_and_the_voltage_of_the_flash_are_protected(
    capsys: pytest.CaptureFixture[str], port: str, line: str, name: str
) -> None:
    words = ["-p", f"virtual:{port}&profile=instant&efuse={FILE}", "efuse", "--do-not-confirm"]
    assert main([*words, "burn-efuse", *line.split()]) == 8, capsys.readouterr().err
    assert f"[{name}]" in capsys.readouterr().err
    chip, start = port.partition("?")[0], Path(FILE).read_bytes()
    old = open_file(FILE, chip).burned
    assert main([*words, "burn-efuse", *line.split(), "--allow", name]) == 0
    after, new = Path(FILE).read_bytes(), open_file(FILE, chip).burned
    consents = [word for other in line.split(" --allow ")[1:] for word in ("--allow", other)]
    for form in FORMS:
        Path(FILE).unlink() if start is None else Path(FILE).write_bytes(start)
        forms = build_line(old, new, load_fuses(chip).blocks[0].words, form)
        assert main([*words, *forms, *consents]) == 8, form
        assert f"[{name}]" in capsys.readouterr().err
        assert open_file(FILE, chip).burned == old
    Path(FILE).write_bytes(after)
    other = ["-p", f"virtual:{port}&profile=instant", "efuse", "--do-not-confirm", "burn-efuse"]
    assert main([*other, "WDT_DELAY_SEL", "1"]) == 0 or port.startswith("esp32?")


def test_the_voltage_at_which_the_flash_answers_can_be_fixed() -> None:
    port = "virtual:esp32s3?profile=instant"
    words = ["-p", port, "efuse", "--do-not-confirm", "set-flash-voltage"]
    assert main([*words, "3.3V"]) == 0
    assert main([*words, "1.8V"]) == 8


@pytest.mark.parametrize(
    ("chip", "line", "code"),
    [
        ("esp32", "burn-efuse UART_DOWNLOAD_DIS 1", "efuse-no-effect"),
        ("esp32", "burn-key BLOCK1 key", "for a key, name flash_encryption [efuse-raw-key]"),
        ("esp32", "burn-key BLOCK2 key", "name secure_boot_v1 or secure_boot_v2 [efuse-raw-key]"),
        ("esp32c3", "burn-efuse SECURE_VERSION 5", "efuse-counter-hole"),
        ("esp32c3", "burn-efuse JTAG_SEL_ENABLE 1", "efuse-no-effect"),
        (
            "esp32c5",
            "burn-key-digest BLOCK_KEY0 ec.pem SECURE_BOOT_DIGEST0",
            "ESP32-C5 accepts some invalid ECDSA signatures (AR2026-006) [efuse-weak-ecdsa]",
        ),
        (
            "esp32c3",
            f"{DIGEST} burn-efuse SECURE_BOOT_EN 1",
            "from revision v0.3 on only [efuse-no-effect]",
        ),
        ("esp32h2", f"burn-key BLOCK_KEY0 ec.pem ECDSA_KEY {OPEN}", "efuse-weak-ecdsa"),
        (
            "esp32c3",
            "burn-efuse SPI_BOOT_CRYPT_CNT 2 --allow efuse-no-flash-key",
            "efuse-counter-hole",
        ),
    ],
)
def test_what_has_no_effect_or_is_weak_is_reported(
    capsys: pytest.CaptureFixture[str], chip: str, line: str, code: str
) -> None:
    assert run(chip, line) == 0
    assert code in capsys.readouterr().err


def test_the_error_as_json_names_the_consents(capsys: pytest.CaptureFixture[str]) -> None:
    run("esp32c3", "burn-efuse SECURE_BOOT_EN 1 SPI_BOOT_CRYPT_CNT 1 --json")
    error = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert "efuse-no-digest" in json.dumps(error)
    assert "efuse-no-flash-key" in json.dumps(error)


def test_a_version_1_key_is_hidden_without_a_finding(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("esp32", "burn-key secure_boot_v1 key") == 0
    assert run("esp32", "burn-efuse ABS_DONE_0 1") == 0
    assert capsys.readouterr().err == ""


END_OF_ACCESS = [
    ("esp32c3", "ENABLE_SECURITY_DOWNLOAD 1", "not read or verified"),
    ("esp32c3", "DIS_DOWNLOAD_MODE 1 --allow efuse-own-port", "nor the flash read or written"),
]


@pytest.mark.parametrize(("chip", "words", "effect"), END_OF_ACCESS)
def test_the_end_of_access_is_stated_before_the_burn(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    chip: str,
    words: str,
    effect: str,
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    command = ["efuse", "-c", chip, "--path-efuse-file", FILE, "burn-efuse", *words.split()]
    assert main(command) == 8
    err = capsys.readouterr().err
    assert "eFuses can never be read or burned over a port again" in err
    assert err.index(effect) < err.index("not confirmed")


def test_the_plan_lists_the_rest_of_a_block_that_takes_one_burn(
    capsys: pytest.CaptureFixture[str],
) -> None:
    Path("part").write_bytes(b"abcd")
    assert run("esp32c3", "burn-block-data BLOCK_USR_DATA part --offset 4") == 0
    out = capsys.readouterr().out
    assert "Final, because their block takes one burn: CUSTOM_MAC, rest of BLOCK_USR_DATA" in out


MEANINGS = [
    ("esp32c3", "burn-custom-mac aa:cd:ef:01:02:03", "CUSTOM_MAC (BLOCK3): -> aa:cd:ef:01:02:03"),
    ("esp32c3", "burn-key BLOCK_KEY0 key HMAC_UP", "KEY_PURPOSE_0 (BLOCK0): 0x0 -> 0x8 (HMAC_UP)"),
    (
        "esp32c3",
        "burn-key BLOCK_KEY0 key XTS_AES_128_KEY burn-efuse SPI_BOOT_CRYPT_CNT 1",
        "SPI_BOOT_CRYPT_CNT (BLOCK0): 0x0 -> 0x1 (flash encryption on)",
    ),
    (
        "esp32c3",
        "burn-efuse SPI_BOOT_CRYPT_CNT 3",
        "SPI_BOOT_CRYPT_CNT (BLOCK0): 0x0 -> 0x3 (flash encryption off)",
    ),
    ("esp32", "set-flash-voltage 1.8V", "Flash voltage: 1.8V"),
    ("esp32", "set-flash-voltage 3.3V", "Flash voltage: 3.3V"),
]


@pytest.mark.parametrize(("chip", "line", "text"), MEANINGS)
def test_the_plan_shows_what_the_new_values_mean(
    capsys: pytest.CaptureFixture[str], chip: str, line: str, text: str
) -> None:
    assert run(chip, line) == 0
    assert f"{text}\n" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("chip", "line"),
    [
        ("esp32s3", "burn-key BLOCK_KEY0 equal XTS_AES_256_KEY"),
        ("esp32s3", "burn-key BLOCK_KEY0 key XTS_AES_256_KEY_1 BLOCK_KEY1 key XTS_AES_256_KEY_2"),
        ("esp32c3", "burn-key BLOCK_KEY0 equal16 XTS_AES_128_KEY"),
        ("esp32c3", "burn-key BLOCK_KEY0 zeros XTS_AES_128_KEY"),
        ("esp32c2", "burn-key BLOCK_KEY0 equal16 XTS_AES_128_KEY"),
    ],
)
def test_a_flash_key_with_equal_halves_is_not_burned(
    chip: str, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(chip, line) == 6
    assert "[key-halves]" in capsys.readouterr().err
    assert not any(open_file(FILE, chip).burned)


def test_a_coding_scheme_is_not_selected_with_a_key_in_one_burn(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("esp32", "burn-efuse CODING_SCHEME 1 burn-key flash_encryption key") == 8
    assert "[efuse-coding-scheme]" in capsys.readouterr().err
    assert not any(open_file(FILE, "esp32").burned)
