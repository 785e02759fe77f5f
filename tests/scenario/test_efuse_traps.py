"""What went wrong for users of eFuse tools: each test is a row of docs/evidence/2026-11-30-efuse-traps.md."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from espwire.cli.main import main
from espwire.efuse.store import VirtualStore, open_file

FILE = "fuses"
KEY = bytes(range(1, 33))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "key").write_bytes(KEY)
    (tmp_path / "short").write_bytes(KEY[:16])
    (tmp_path / "long").write_bytes(KEY + KEY[::-1])
    return tmp_path


def run(chip: str, line: str) -> int:
    words = ["efuse", "-c", chip, "--path-efuse-file", FILE, "--do-not-confirm"]
    return main([*words, *line.split()])


def burned(chip: str) -> list[int]:
    return open_file(FILE, chip).burned


def fill(chip: str, block: int, value: int) -> list[int]:
    """eFuses with data in one block."""
    store = VirtualStore(chip, path=FILE)
    store.burned[block] = value
    store.save()
    return burned(chip)


def test_row_16_a_short_key_of_the_c2_makes_the_other_half_final(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = "burn-key BLOCK_KEY0 short XTS_AES_128_KEY_DERIVED_FROM_128_EFUSE_BITS"
    assert run("esp32c2", line) == 0
    final = "Final, because their block takes one burn: BLOCK_KEY0_HI_128\n"
    assert final in capsys.readouterr().out
    assert run("esp32c2", "burn-key BLOCK_KEY0 key SECURE_BOOT_DIGEST") == 5


def test_row_30_the_lock_of_the_encryption_counter_also_locks_the_download_mode(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("esp32", "write-protect-efuse FLASH_CRYPT_CNT --plan plan.json") == 0
    text = "Write-protected for ever: FLASH_CRYPT_CNT, UART_DOWNLOAD_DIS\n"
    assert text in capsys.readouterr().out
    # on one line, the flag is burned before or with its lock
    line = "write-protect-efuse FLASH_CRYPT_CNT burn-efuse UART_DOWNLOAD_DIS 1"
    assert run("esp32", line) == 0
    state = open_file(FILE, "esp32").read()
    assert (state.value_of("UART_DOWNLOAD_DIS"), state.value_of("WR_DIS")) == (1, 4)


@pytest.mark.parametrize(
    ("chip", "name", "others"),
    [
        ("esp32", "MAC", "MAC, MAC_CRC, DISABLE_APP_CPU, DISABLE_BT, DIS_CACHE, VOL_LEVEL_HP_INV"),
        (
            "esp32c3",
            "DIS_ICACHE",
            "DIS_ICACHE, DIS_USB_JTAG, DIS_DOWNLOAD_ICACHE, DIS_USB_SERIAL_JTAG,"
            " DIS_FORCE_DOWNLOAD, DIS_TWAI, DIS_PAD_JTAG, DIS_DOWNLOAD_MANUAL_ENCRYPT",
        ),
    ],
)
def test_row_31_the_plan_names_all_fields_that_share_a_lock(
    capsys: pytest.CaptureFixture[str], chip: str, name: str, others: str
) -> None:
    assert run(chip, f"write-protect-efuse {name} --plan plan.json") == 0
    text = " ".join(capsys.readouterr().out.split())
    assert f"Write-protected for ever: {others} This cannot be undone." in text
    assert burned(chip)[0] == 0
    assert json.loads(Path("plan.json").read_text("utf-8"))["locked"] == others.split(", ")


def test_row_32_a_field_and_its_read_lock_in_one_burn_are_not_a_failure(
    capsys: pytest.CaptureFixture[str],
) -> None:
    line = "burn-efuse FLASH_CRYPT_CONFIG 0xF read-protect-efuse FLASH_CRYPT_CONFIG"
    assert run("esp32", line) == 0
    text = capsys.readouterr().out
    assert "BURN BLOCK0  - OK" in text
    store = open_file(FILE, "esp32")
    field = store.read().layout.field("FLASH_CRYPT_CONFIG")
    assert store.burned[0] & field.mask == field.mask
    assert store.read().value_of("FLASH_CRYPT_CONFIG") == 0


def test_row_33_a_hidden_key_in_json_is_not_readable_and_has_a_number(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("esp32c3", "burn-key BLOCK_KEY0 key XTS_AES_128_KEY") == 0
    capsys.readouterr()
    assert run("esp32c3", "summary --format json BLOCK_KEY0") == 0
    field = json.loads(capsys.readouterr().out)["BLOCK_KEY0"]
    assert (field["readable"], field["writeable"]) == (False, False)
    assert (field["raw_value"], field["value"]) == (f"0x{'0' * 64}", " ".join(["??"] * 32))


def test_row_37_fields_in_the_block_of_the_mac_address_are_refused_with_the_reason(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = fill("esp32c3", 1, 0x240AC4000110)
    assert run("esp32c3", "burn-efuse SPI_PAD_CONFIG_CLK 5") == 5
    text = capsys.readouterr().err
    reason = "MAC_SPI_8M_0 holds data, and its coding does not allow a second burn"
    assert f"SPI_PAD_CONFIG_CLK cannot be burned: {reason} [efuse-second-burn]" in text
    assert "In it: MAC." in text
    assert burned("esp32c3") == before


def test_row_38_spi_pins_of_the_esp32_are_gpio_numbers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("esp32", "burn-efuse SPI_PAD_CONFIG_CLK 32 SPI_PAD_CONFIG_Q 7") == 0
    state = open_file(FILE, "esp32").read()
    assert state.value_of("SPI_PAD_CONFIG_CLK") == 30
    capsys.readouterr()
    for name, pin in (("SPI_PAD_CONFIG_CLK", "32"), ("SPI_PAD_CONFIG_Q", "7")):
        assert run("esp32", f"summary --format value_only {name}") == 0
        assert capsys.readouterr().out == f"{pin}\n"
    before = burned("esp32")
    for pin in ("30", "31", "34"):
        assert run("esp32", f"burn-efuse SPI_PAD_CONFIG_D {pin}") == 2
        assert f"GPIO{pin} cannot be used for SPI_PAD_CONFIG_D" in capsys.readouterr().err
    assert burned("esp32") == before


@pytest.mark.parametrize(
    ("chip", "locked", "line"),
    [
        ("esp32c3", "BLOCK_KEY0", "burn-bit BLOCK_KEY0 1 --force-write-always"),
        ("esp32c3", "BLOCK_KEY0", "burn-block-data BLOCK_KEY0 key --force-write-always"),
        ("esp32c3", "BLOCK_KEY0", "burn-key BLOCK_KEY0 key USER --force-write-always"),
        ("esp32c3", "DIS_ICACHE", "burn-efuse DIS_ICACHE 1 --force"),
        ("esp32c3", "DIS_ICACHE", "burn-bit BLOCK0 {bit} --force-write-always"),
        ("esp32", "BLOCK3", "burn-custom-mac aa:cd:ef:01:02:03 --force-write-always"),
    ],
)
def test_row_47_a_forced_burn_of_what_is_locked_is_an_error(
    capsys: pytest.CaptureFixture[str], chip: str, locked: str, line: str
) -> None:
    assert run(chip, f"write-protect-efuse {locked}") == 0
    store = open_file(FILE, chip)
    before = store.burned
    assert run(chip, line.format(bit=store.read().layout.field(locked).start)) == 5
    assert "write-protected: it can never be changed [efuse-locked]" in capsys.readouterr().err
    assert burned(chip) == before


def test_row_48_a_key_block_that_is_not_empty_is_left_out_or_refused(
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = fill("esp32s3", 5, 1 << 77)  # one bit in BLOCK_KEY1
    assert run("esp32s3", "burn-key BLOCK_KEY1 key USER") == 5
    assert "BLOCK_KEY1 holds other data" in capsys.readouterr().err
    assert burned("esp32s3") == before
    assert run("esp32s3", "burn-key BLOCK_KEY0 long XTS_AES_256_KEY") == 0
    after = burned("esp32s3")
    assert (after[5], after[6]) == (1 << 77, int.from_bytes(KEY, "little"))


@pytest.mark.parametrize("chip", ["esp32", "esp32c3"])
def test_row_54_a_custom_mac_is_burned_with_a_remark_on_firmware(
    capsys: pytest.CaptureFixture[str], chip: str
) -> None:
    assert run(chip, "burn-custom-mac aa:cd:ef:01:02:03") == 0
    text = capsys.readouterr().out
    assert "aa:cd:ef:01:02:03 (" in text
    assert "Firmware uses this address only if it is written to do so." in text


def test_row_57_other_commands_may_follow_a_lock(capsys: pytest.CaptureFixture[str]) -> None:
    line = "write-protect-efuse DIS_ICACHE burn-efuse WDT_DELAY_SEL 1 read-protect-efuse BLOCK_SYS_DATA2"
    assert run("esp32c3", line) == 0
    state = open_file(FILE, "esp32c3").read()
    values = [state.value_of(name) for name in ("WR_DIS", "WDT_DELAY_SEL", "RD_DIS")]
    assert values == [1 << 2, 1, 1 << 6]


def test_rows_18_to_20_ecdsa_keys_need_the_curve_of_their_purpose(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from espwire.secure.keys import SCHEMES, generate_key

    keys = {name: generate_key(SCHEMES[name]) for name in ("ecdsa192", "ecdsa256", "rsa3072")}
    for name, key in keys.items():
        (folder / f"{name}.pem").write_bytes(key.pem())
    for pem, purpose in (
        ("ecdsa256", "ECDSA_KEY_P192"),
        ("ecdsa192", "ECDSA_KEY_P256"),
        ("rsa3072", "ECDSA_KEY_P256"),
    ):
        assert run("esp32c5", f"burn-key BLOCK_KEY0 {pem}.pem {purpose}") == 6
        text = capsys.readouterr().err
        assert text.count("error: ") == 1
        assert "[key-scheme]" in text
        assert "Traceback" not in text
        assert not any(burned("esp32c5"))
    assert run("esp32c5", "burn-key BLOCK_KEY0 ecdsa192.pem ECDSA_KEY_P192") == 0
    stored = burned("esp32c5")[4].to_bytes(32, "little")
    assert stored == keys["ecdsa192"].scalar()[::-1] + bytes(8)


@pytest.mark.parametrize(("major", "code"), [(1, 0), (3, 6)])
def test_before_v3_an_ecdsa_purpose_of_the_p4_takes_both_curves(
    folder: Path, major: int, code: int
) -> None:
    from espwire.secure.keys import SCHEMES, generate_key

    (folder / "p192.pem").write_bytes(generate_key(SCHEMES["ecdsa192"]).pem())
    assert run("esp32p4", f"burn-efuse WAFER_VERSION_MAJOR_LO {major}") == 0
    assert run("esp32p4", "burn-key BLOCK_KEY0 p192.pem ECDSA_KEY") == code


@pytest.mark.parametrize("name", ["ENABLE_SECURITY_DOWNLOAD", "DIS_DOWNLOAD_MODE"])
def test_row_28_download_mode_is_limited_by_the_last_step(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    line = f"burn-efuse {name} 1 WDT_DELAY_SEL 1 burn-key BLOCK_KEY0 key USER --plan plan.json --allow efuse-own-port"
    assert run("esp32c3", line) == 0
    assert "Order: BLOCK4, BLOCK0, BLOCK0, BLOCK0\n" in capsys.readouterr().out
    plan = json.loads(Path("plan.json").read_text("utf-8"))
    assert plan["order"] == [4, 0, 0, 0]


def test_row_34_a_locked_purpose_is_named_as_final_and_stays(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("esp32c3", "burn-key BLOCK_KEY0 key USER") == 0
    assert "Write-protected for ever: KEY_PURPOSE_0, BLOCK_KEY0\n" in capsys.readouterr().out
    before = burned("esp32c3")
    assert run("esp32c3", "burn-key BLOCK_KEY0 key HMAC_UP") == 5
    assert "[efuse-purpose]" in capsys.readouterr().err
    assert burned("esp32c3") == before


def test_rows_39_and_40_coding_schemes_of_the_esp32(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "key24").write_bytes(KEY[:24])
    assert run("esp32", "burn-efuse CODING_SCHEME 1") == 0
    assert run("esp32", "burn-key flash_encryption key") == 2
    assert "has 32 bytes, not 24" in capsys.readouterr().err
    assert run("esp32", "burn-key flash_encryption key24") == 0
    assert burned("esp32")[1].to_bytes(24, "little") == KEY[:24][::-1]
    Path(FILE).unlink()
    assert run("esp32", "burn-efuse CODING_SCHEME 3") == 0  # means none
    assert run("esp32", "burn-key flash_encryption key") == 0
    assert burned("esp32")[1].to_bytes(32, "little") == KEY[::-1]


def test_row_43_a_counter_without_a_value_is_the_next_one_where_espefuse_accepts_it() -> None:
    allowed = "--allow efuse-no-flash-key"
    assert run("esp32c3", f"burn-efuse SPI_BOOT_CRYPT_CNT {allowed}") == 0
    assert open_file(FILE, "esp32c3").read().value_of("SPI_BOOT_CRYPT_CNT") == 1
    Path(FILE).unlink()
    assert run("esp32", f"burn-efuse FLASH_CRYPT_CNT {allowed}") == 2
    assert not any(burned("esp32"))


def test_row_44_a_counter_with_a_gap_is_labelled_by_its_bits(
    capsys: pytest.CaptureFixture[str],
) -> None:
    for value, label in (("2", "Enable"), ("5", "Disable"), ("7", "Enable")):
        Path(FILE).unlink(missing_ok=True)
        line = f"burn-efuse SPI_BOOT_CRYPT_CNT {value} --allow efuse-no-flash-key"
        assert run("esp32c3", line) == 0
        capsys.readouterr()
        assert run("esp32c3", "summary --format value_only SPI_BOOT_CRYPT_CNT") == 0
        assert capsys.readouterr().out == f"{label}\n"
