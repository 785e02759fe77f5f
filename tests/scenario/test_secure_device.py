"""Secure boot and a connected chip: images that it would refuse, and ``secure status``."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from test_host_key import boot_image

from espwire.cli.main import main


class Bench:
    """A virtual ESP32-C3 whose flash and eFuses are files, and two signing keys."""

    def __init__(self, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys, self.chip = folder, capsys, "esp32c3"
        self.options = ""

    @property
    def port(self) -> str:
        files = f"flash={self.folder / 'flash.bin'}&efuse={self.folder / 'fuses.bin'}"
        return f"virtual:{self.chip}?size=1MB&profile=instant&{files}{self.options}"

    def run(self, *words: object, code: int = 0) -> list[dict[str, Any]]:
        got = main(["--json", "-p", self.port, *map(str, words)])
        out, err = self.capsys.readouterr()
        assert got == code, (got, out, err)
        return [json.loads(line) for line in out.splitlines()]

    def burn(self, *words: object) -> None:
        self.run("efuse", "--do-not-confirm", *words)

    def offline(self, *words: object) -> None:
        assert main(["secure", *map(str, words)]) == 0
        self.capsys.readouterr()

    def key(self, name: str) -> Path:
        path = self.folder / name
        self.offline("generate-signing-key", "-v", "2", path)
        return path

    def sign(self, key: Path) -> Path:
        path = self.folder / f"{key.stem}.bin"
        path.write_bytes(boot_image(self.chip))
        self.offline("sign-data", "-v", "2", "-k", key, path)
        return path

    def status(self) -> dict[str, Any]:
        data: dict[str, Any] = self.run("secure", "status")[-1]["data"]
        return data


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    return Bench(tmp_path, capsys)


def openings(status: dict[str, Any]) -> set[str]:
    return {each["code"] for each in status["openings"]}


def test_signed_images_are_refused_unless_the_chip_trusts_the_key(bench: Bench) -> None:
    trusted, other = bench.key("trusted.pem"), bench.key("other.pem")
    good, bad = bench.sign(trusted), bench.sign(other)
    bench.run("write-flash", "0x10000", bad)  # before secure boot is on
    bench.burn("burn-key-digest", "BLOCK_KEY0", trusted, "SECURE_BOOT_DIGEST0")
    bench.burn("burn-efuse", "SECURE_BOOT_EN", "1")
    bench.run("write-flash", "0x10000", good)
    before = (bench.folder / "flash.bin").read_bytes()
    error = bench.run("write-flash", "0x10000", bad, code=8)[-1]
    assert error["details"]["consents"] == ["untrusted-key"]
    assert (bench.folder / "flash.bin").read_bytes() == before
    bench.run("write-flash", "0x10000", bad, "--allow", "untrusted-key")
    bench.burn("burn-key-digest", "BLOCK_KEY1", other, "SECURE_BOOT_DIGEST1")
    bench.run("write-flash", "0x10000", bad)
    bench.burn("burn-efuse", "SECURE_BOOT_KEY_REVOKE1", "1")
    error = bench.run("write-flash", "0x10000", bad, code=8)[-1]
    assert error["details"]["consents"] == ["revoked-key"]
    assert "SECURE_BOOT_DIGEST1 in BLOCK_KEY1" in error["message"]
    bench.run("write-flash", "0x10000", good)


def test_a_signed_image_keeps_its_header(bench: Bench) -> None:
    signed = bench.sign(bench.key("key.pem"))
    events = bench.run("write-flash", "--flash-size", "1MB", "0x0", signed)
    assert any(e.get("code") == "header-kept" and "it is signed" in e["text"] for e in events)
    data = signed.read_bytes()
    assert (bench.folder / "flash.bin").read_bytes()[: len(data)] == data


def test_the_status_of_a_new_chip_names_everything_that_is_open(bench: Bench) -> None:
    status = bench.status()
    assert (status["secure_boot"], status["download_mode"]) == ("off", "open")
    assert status["flash_encryption"] == "off, can be switched 3 more times"
    assert openings(status) == {
        "any-firmware",
        "plain-flash",
        "download-mode",
        "jtag-pins",
        "jtag-usb",
    }
    assert [key["block"] for key in status["keys"]] == [f"BLOCK_KEY{n}" for n in range(6)]
    assert {key["state"] for key in status["keys"]} == {"empty"}


def test_each_step_that_the_status_names_closes_its_opening(bench: Bench) -> None:
    trusted = bench.key("trusted.pem")
    flash_key = bench.folder / "flash.key"
    flash_key.write_bytes(bytes(range(1, 33)))
    bench.burn("burn-key", "BLOCK_KEY0", flash_key, "XTS_AES_128_KEY", "--no-read-protect")
    bench.burn("burn-key-digest", "BLOCK_KEY1", trusted, "SECURE_BOOT_DIGEST0")
    bench.burn("burn-efuse", "SECURE_BOOT_EN", "1", "SPI_BOOT_CRYPT_CNT", "1")
    status = bench.status()
    assert openings(status) == {
        "open-digest-slot", "other-boot-mode", "encryption-counter", "encrypting-downloads",
        "readable-key", "download-mode", "jtag-pins", "jtag-usb",
    }  # fmt: skip
    assert status["flash_encryption"] == "on, can be switched 2 more times"
    steps: list[tuple[str, Callable[[], None]]] = [
        (
            "open-digest-slot",
            lambda: bench.burn(
                "burn-efuse", "SECURE_BOOT_KEY_REVOKE1", "1", "SECURE_BOOT_KEY_REVOKE2", "1"
            ),
        ),
        ("readable-key", lambda: bench.burn("read-protect-efuse", "BLOCK_KEY0")),
        ("other-boot-mode", lambda: bench.burn("burn-efuse", "DIS_DIRECT_BOOT", "1")),
        ("encryption-counter", lambda: bench.burn("write-protect-efuse", "SPI_BOOT_CRYPT_CNT")),
        ("jtag-pins", lambda: bench.burn("burn-efuse", "DIS_PAD_JTAG", "1")),
        ("jtag-usb", lambda: bench.burn("burn-efuse", "DIS_USB_JTAG", "1")),
    ]
    for code, step in steps:
        step()
        now = bench.status()
        assert openings(now) == openings(status) - {code}, code
        status = now
    assert status["flash_encryption"] == "on, permanently"
    assert status["keys"][0] == {
        "block": "BLOCK_KEY0",
        "purpose": "XTS_AES_128_KEY",
        "state": "unreadable",
        "revoked": False,
    }


@pytest.mark.parametrize(
    "chip", ["esp32", "esp32c2", "esp32s2", "esp32s3", "esp32c6", "esp32h2", "esp32p4"]
)
def test_the_status_of_every_kind_of_chip(bench: Bench, chip: str) -> None:
    bench.chip = chip
    assert {"any-firmware", "plain-flash", "download-mode", "jtag-pins"} <= openings(bench.status())


def test_the_status_in_secure_download_mode(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    port = "virtual:esp32c3?secure-download=1&secure-boot=1&flash-encryption=1"
    assert main(["--json", "-p", port, "secure", "status"]) == 0
    status = json.loads(capsys.readouterr().out.splitlines()[-1])["data"]
    assert (status["complete"], status["download_mode"]) == (False, "secure")
    unknown_lock = "on; unknown whether the counter is locked"
    assert (status["secure_boot"], status["flash_encryption"]) == ("on, version 2", unknown_lock)
    assert openings(status) == {"secure-download", "jtag-pins", "open-digest-slot"}
    assert (status["pad_jtag"], status["usb_jtag"]) == ("open", "unknown or not available")
    steps = [each["step"] for each in status["openings"]]
    assert all(step.startswith("only firmware can do this now: burn ") for step in steps)
    assert status["keys"][0]["purpose"] == "XTS_AES_128_KEY"


def test_secure_download_mode_reports_what_the_efuses_hold(bench: Bench) -> None:
    burned = ["DIS_PAD_JTAG", "DIS_USB_JTAG", "SECURE_BOOT_KEY_REVOKE1", "DIS_DOWNLOAD_ICACHE"]
    pairs = [word for name in burned for word in (name, "1")]
    bench.burn("burn-efuse", *pairs, "SPI_BOOT_CRYPT_CNT", "7", "--allow", "efuse-no-flash-key")
    bench.burn("burn-efuse", "ENABLE_SECURITY_DOWNLOAD", "1", "--allow", "efuse-own-port")
    info = bench.run("get-security-info")[-1]["data"]
    assert info["flash_crypt_count"] == 7
    assert info["flag_names"] == [
        "SECURE_DOWNLOAD_ENABLE", "SECURE_BOOT_KEY_REVOKE1", "HARD_DIS_JTAG", "DIS_DOWNLOAD_ICACHE",
    ]  # fmt: skip
    status = bench.status()
    assert status["flash_encryption"] == "on, permanently"
    assert (status["pad_jtag"], status["usb_jtag"]) == (
        "off, permanently",
        "unknown or not available",
    )
    assert openings(status) == {"any-firmware", "secure-download"}


def test_flags_follow_the_names_and_counts_of_the_efuses(bench: Bench) -> None:
    bench.chip = "esp32s2"
    bench.burn("burn-efuse", "HARD_DIS_JTAG", "1", "DIS_USB", "1")
    assert bench.run("get-security-info")[-1]["data"]["flag_names"] == ["HARD_DIS_JTAG", "DIS_USB"]
    (bench.folder / "fuses.bin").unlink()
    bench.chip = "esp32s3"
    bench.burn("burn-efuse", "SOFT_DIS_JTAG", "3", "DIS_USB_JTAG", "1")
    assert bench.run("get-security-info")[-1]["data"]["flag_names"] == []
    bench.burn("burn-efuse", "SOFT_DIS_JTAG", "7")
    assert bench.run("get-security-info")[-1]["data"]["flag_names"] == ["SOFT_DIS_JTAG"]


@pytest.mark.parametrize(
    ("revision", "step"),
    [
        ("3.1", "burn DIS_DOWNLOAD_MODE"),
        ("3.2", "burn DOWNLOAD_MODE_XPD_ON and ENABLE_SECURITY_DOWNLOAD or DIS_DOWNLOAD_MODE"),
    ],
)
def test_no_step_is_one_that_efuse_refuses(bench: Bench, revision: str, step: str) -> None:
    bench.chip, bench.options = "esp32p4", f"&revision={revision}"
    steps = {each["code"]: each["step"] for each in bench.status()["openings"]}
    assert steps["download-mode"] == f"{step}, after all other eFuses"


def caveats(status: dict[str, Any]) -> set[str]:
    return {each["code"] for each in status["caveats"]}


@pytest.mark.parametrize("revision", ["1.0", "3.0"])
def test_an_efuse_that_a_revision_ignores_does_not_count(bench: Bench, revision: str) -> None:
    bench.chip, bench.options = "esp32", f"&revision={revision}"
    bench.burn("burn-efuse", "UART_DOWNLOAD_DIS", "1", "--allow", "efuse-own-port")
    status = bench.status()
    if revision == "3.0":
        assert (status["download_mode"], caveats(status)) == ("off", set())
        assert status["next_write"] == "not possible through this port"
        return
    assert status["download_mode"] == "open"
    assert caveats(status) == {"efuse-no-effect"}
    step = next(o["step"] for o in status["openings"] if o["code"] == "download-mode")
    assert step == "no eFuse of this revision prevents it"


def test_weak_ecdsa_hardware_is_named(bench: Bench) -> None:
    key = bench.folder / "key.pem"
    bench.offline("generate-signing-key", "-v", "2", "-s", "ecdsa256", key)
    bench.chip, bench.options = "esp32h2", "&revision=0.1"
    assert caveats(bench.status()) == set()
    bench.burn("burn-key", "BLOCK_KEY0", key, "ECDSA_KEY")
    assert caveats(bench.status()) == {"efuse-weak-ecdsa"}
    (bench.folder / "fuses.bin").unlink()
    bench.options = "&revision=1.2"
    bench.burn("burn-key", "BLOCK_KEY0", key, "ECDSA_KEY")
    assert caveats(bench.status()) == set()


def test_the_status_shows_what_the_next_write_needs(bench: Bench) -> None:
    flash_key = bench.folder / "flash.key"
    flash_key.write_bytes(bytes(range(1, 33)))
    assert bench.status()["next_write"] == "as plaintext"
    bench.burn("burn-key", "BLOCK_KEY0", flash_key, "XTS_AES_128_KEY")
    bench.burn("burn-efuse", "SPI_BOOT_CRYPT_CNT", "1")
    status = bench.status()
    assert status["flash_encryption"] == "on, can be switched 2 more times"
    assert status["next_write"] == "encrypted: write-flash with --key or --encrypt"
    bench.burn("burn-efuse", "SPI_BOOT_CRYPT_CNT", "3")
    assert bench.status()["flash_encryption"] == "off, can be switched 1 more time"
    assert bench.status()["next_write"] == "as plaintext"
    bench.burn("burn-efuse", "SPI_BOOT_CRYPT_CNT", "7", "DIS_DOWNLOAD_MANUAL_ENCRYPT", "1")
    status = bench.status()
    assert status["flash_encryption"] == "on, permanently"
    assert status["next_write"] == "encrypted: write-flash with --key"


def test_secure_boot_version_1_may_have_a_bootloader_that_cannot_be_replaced(bench: Bench) -> None:
    bench.chip = "esp32"
    bench.burn("burn-efuse", "ABS_DONE_0", "1", "--allow", "efuse-no-digest")
    status = bench.status()
    assert status["secure_boot"] == "on, version 1"
    assert caveats(status) == {"fixed-bootloader"}
    assert status["next_write"] == "signed, as plaintext"


def test_the_four_ways_to_switch_jtag_off_are_told_apart(bench: Bench) -> None:
    key = bench.folder / "hmac.key"
    key.write_bytes(bytes(range(32)))
    assert {"jtag-pins", "jtag-usb"} <= openings(bench.status())
    bench.burn("burn-key", "BLOCK_KEY0", key, "HMAC_DOWN_JTAG")
    bench.burn("burn-efuse", "SOFT_DIS_JTAG", "1")
    status = bench.status()
    soft = "off, until firmware enables it with an HMAC key"
    assert (status["pad_jtag"], status["usb_jtag"]) == (soft, soft)
    assert {"jtag-pins-hmac", "jtag-usb-hmac"} <= openings(status)
    bench.burn("burn-efuse", "DIS_PAD_JTAG", "1")
    status = bench.status()
    assert (status["pad_jtag"], status["usb_jtag"]) == ("off, permanently", soft)
    bench.burn("burn-efuse", "DIS_USB_JTAG", "1")
    assert not {code for code in openings(bench.status()) if code.startswith("jtag")}
