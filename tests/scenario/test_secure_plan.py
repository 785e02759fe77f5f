"""`secure plan` on virtual chips: the plan, its rehearsal, its execution, and where a stopped run continues."""

from __future__ import annotations

import io
import json
import struct
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from espwire.chips.registry import load_chip
from espwire.cli.main import main
from espwire.efuse.store import open_file
from espwire.image.codec import build, create_image
from espwire.image.descriptors import APP, APP_MAGIC
from espwire.image.model import Segment
from espwire.image.partition_csv import TableOffsets, parse_csv
from espwire.image.partition_table import build_table
from espwire.secure.keys import SCHEMES, generate_key
from espwire.virtual.transport import open_virtual

FLASH_KEY = bytes((7 * at + 3) & 255 for at in range(64))
CODE = bytes(range(256)) * 4
CSV = "factory, app, factory, 0x10000, 0x10000\n"
BOTH = "flash-encryption,secure-boot-v2"


@cache
def make_pem(scheme: str, number: int = 0) -> bytes:
    return generate_key(SCHEMES[scheme]).pem()


class Bench:
    """A virtual chip whose flash and eFuses are files, its firmware, and its keys."""

    def __init__(
        self, folder: Path, capsys: pytest.CaptureFixture[str], chip: str = "esp32c3"
    ) -> None:
        self.folder, self.capsys, self.chip, self.extra = folder, capsys, load_chip(chip), ""
        scheme = "ecdsa256" if chip == "esp32c6" else "rsa3072"
        self.path("sign.pem").write_bytes(make_pem(scheme))
        self.path("flash.key").write_bytes(FLASH_KEY[: 64 if chip == "esp32s3" else 32])
        address = 0x3FFB0000 if chip == "esp32" else 0x3FC80000
        head = struct.pack("<II", APP_MAGIC, 0).ljust(APP.size, b"\0")
        for name, content in (("boot.bin", CODE), ("app.bin", head + CODE)):
            image = create_image([Segment(address, content)], address, chip=self.chip)
            self.path(name).write_bytes(build(image))
        self.path("table.bin").write_bytes(
            build_table(parse_csv(CSV, TableOffsets(0x8000), "table.csv"))
        )

    def path(self, name: str) -> Path:
        return self.folder / name

    @property
    def port(self) -> str:
        files = f"flash={self.path('flash.bin')}&efuse={self.path('fuses.bin')}"
        return f"virtual:{self.chip.id}?size=1MB&profile=instant&{files}{self.extra}"

    @property
    def files(self) -> list[object]:
        boot = f"{self.chip.flash.bootloader_offset:#x}"
        names = {boot: "boot.bin", "0x8000": "table.bin", "0x10000": "app.bin"}
        return [word for at, name in names.items() for word in (at, self.path(name))]

    def run(self, *words: object, code: int = 0) -> list[dict[str, Any]]:
        got = main(["--json", *map(str, words)])
        out, err = self.capsys.readouterr()
        self.out = out + err
        assert got == code, (got, out, err)
        return [json.loads(line) for line in out.splitlines() if line.startswith("{")]

    def plan(
        self,
        features: str,
        *words: object,
        mode: str = "release",
        files: Sequence[object] | None = None,
        code: int = 0,
        on_board: bool = True,
    ) -> list[dict[str, Any]]:
        keys: list[object] = []
        if "flash" in features:
            keys += ["--key", self.path("flash.key")]
        if "boot" in features:
            keys += ["--key", self.path("sign.pem")]
        where = ["-p", self.port] if on_board else ["-c", self.chip.id]
        firmware = self.files if files is None else files
        options = ["--mode", mode, *keys, *words]
        return self.run(*where, "secure", "plan", features, *firmware, *options, code=code)

    def execute(self, features: str, *words: object, **options: Any) -> dict[str, str]:
        """How each step ended."""
        words = ("--execute", "--do-not-confirm", *words)
        events = self.plan(features, *words, **options)
        return find_executed(events)

    def status(self) -> dict[str, Any]:
        data: dict[str, Any] = self.run("-p", self.port, "secure", "status")[-1]["data"]
        return data

    def boot_text(self) -> str:
        transport = open_virtual(f"{self.port}&boot=app")
        transport.set_baud(transport.chip.text_baud)
        text = b""
        while transport.now() < 1.5:
            text += transport.read(0.5)
        transport.close()
        return text.decode(errors="replace")


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Bench:
    return Bench(tmp_path, capsys)


def test_a_refused_start_is_printed_and_tried_again(bench: Bench) -> None:
    bench.execute("secure-boot-v2", mode="development")
    flash = bytearray(bench.path("flash.bin").read_bytes())
    flash[100] ^= 1
    bench.path("flash.bin").write_bytes(flash)
    text = bench.boot_text()
    failed = "secure boot verification failed\r\nets_main.c 329 \r\n"
    assert failed in text
    assert "rst:0x10 (RTCWDT_RTC_RST),boot:" in text.split(failed)[1]
    assert "app: running" not in text
    # the port still works
    assert bench.status()["secure_boot"] == "on, version 2"


# with its MD5, it ends where a block of 128 bytes ends
THREE_ROWS = """nvs, data, nvs, 0x9000, 0x6000
phy_init, data, phy, 0xf000, 0x1000
factory, app, factory, 0x10000, 0x10000
"""


@pytest.mark.parametrize("chip", ["esp32", "esp32c3"])
def test_secure_boot_without_encryption_starts_with_a_table_of_any_length(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], chip: str
) -> None:
    bench = Bench(tmp_path, capsys, chip)
    table = build_table(parse_csv(THREE_ROWS, TableOffsets(0x8000), "table.csv"))
    bench.path("table.bin").write_bytes(table)
    plan = find_plan(bench.plan("secure-boot-v2", mode="development", on_board=False))
    assert plan["starts"]
    bench.execute("secure-boot-v2", mode="development")
    assert bench.boot_text().rstrip().endswith("app: running")


def find_plan(events: list[dict[str, Any]]) -> dict[str, Any]:
    data: dict[str, Any] = next(
        e["data"] for e in events if e.get("command") == "secure plan" and "steps" in e["data"]
    )
    return data


def find_executed(events: list[dict[str, Any]]) -> dict[str, str]:
    data = next(e["data"] for e in events if "executed" in e.get("data", ()))
    return {each["name"]: each["how"] for each in data["executed"]}


def names(plan: dict[str, Any]) -> list[str]:
    return [step["name"] for step in plan["steps"]]


@pytest.mark.parametrize("chip", ["esp32", "esp32c3", "esp32s3", "esp32c6"])
def test_an_executed_plan_leaves_a_chip_that_starts_its_firmware(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], chip: str
) -> None:
    bench = Bench(tmp_path, capsys, chip)
    words = ("--allow", "efuse-own-port") if chip == "esp32" else ()
    done = bench.execute(BOTH, *words)
    assert list(done) == [
        *("keys", "firmware", "hide-key", "encryption", "secure-boot", "jtag", "close", "download")
    ]
    assert list(done.values())[:-1] == ["done"] * 7
    if chip != "esp32":
        status = bench.status()
        assert (status["complete"], status["download_mode"]) == (False, "secure")
        assert (status["secure_boot"], status["flash_encryption"]) == (
            "on, version 2",
            "on, permanently",
        )
    text = bench.boot_text()
    assert "secure boot verification succeeded" in text
    assert text.rstrip().endswith("app: running")
    flash = bytearray(bench.path("flash.bin").read_bytes())
    assert bench.path("app.bin").read_bytes()[:64] not in flash  # it is encrypted
    flash[0x10200] ^= 1
    bench.path("flash.bin").write_bytes(flash)
    assert "No bootable app partitions" in bench.boot_text()


def test_an_offline_plan_is_rehearsed_and_changes_nothing(bench: Bench) -> None:
    plan = find_plan(bench.plan(BOTH, on_board=False))
    assert plan["starts"] is True
    assert "secure boot verification succeeded" in plan["boot_text"]
    assert plan["key_blocks"] == {
        "BLOCK_KEY0": "XTS_AES_128_KEY",
        "BLOCK_KEY1": "SECURE_BOOT_DIGEST0",
    }
    steps = {step["name"]: step for step in plan["steps"]}
    assert steps["encryption"]["fields"] == ["SPI_BOOT_CRYPT_CNT"]
    assert {"SECURE_BOOT_KEY_REVOKE1", "SECURE_BOOT_KEY_REVOKE2", "DIS_DIRECT_BOOT"} <= {
        *steps["close"]["fields"]
    }
    assert "RD_DIS" in steps["close"]["locked"]
    assert steps["hide-key"]["unreadable"] == ["BLOCK_KEY0"]
    assert steps["download"]["fields"] == ["ENABLE_SECURITY_DOWNLOAD"]
    assert not bench.path("fuses.bin").exists()


def test_every_key_is_hidden_before_rd_dis_is_locked_and_download_mode_comes_last(
    bench: Bench,
) -> None:
    order = names(find_plan(bench.plan(BOTH, on_board=False)))
    assert order.index("hide-key") < order.index("close") < order.index("download")
    assert order[-1] == "download"


def test_an_esp32_locks_its_counter_together_with_the_end_of_download_mode(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = Bench(tmp_path, capsys, "esp32")
    steps = find_plan(bench.plan(BOTH, on_board=False))["steps"]
    assert steps[-1]["fields"] == ["WR_DIS", "UART_DOWNLOAD_DIS"] or {*steps[-1]["fields"]} == {
        "WR_DIS",
        "UART_DOWNLOAD_DIS",
    }
    assert {"FLASH_CRYPT_CNT", "UART_DOWNLOAD_DIS"} <= {*steps[-1]["locked"]}
    assert not any("FLASH_CRYPT_CNT" in step.get("locked", ()) for step in steps[:-1])
    bench.extra = "&revision=1.0"
    error = bench.plan("secure-boot-v2", code=5)[-1]
    assert error["code"] == "efuse-revision"


def test_a_stopped_run_continues_with_the_first_step_that_is_not_done(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [1, 1, 2, 6]
    for count in answers:
        monkeypatch.setattr("sys.stdin", io.StringIO("BURN\n" * count + "NO\n"))
        if count < 6:
            events = bench.plan(BOTH, "--execute", code=8)
            assert events[-1]["code"] == "efuse-not-confirmed"
        else:
            events = bench.plan(BOTH, "--execute")
    steps = find_executed(events)
    assert steps["keys"] == steps["firmware"] == steps["hide-key"] == "done before"
    assert bench.boot_text().rstrip().endswith("app: running")


def test_a_hidden_key_is_proven_by_the_firmware_in_flash(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("BURN\nBURN\n"))
    bench.plan("flash-encryption", "--execute", code=8)  # stops before encryption
    bench.path("flash.key").write_bytes(FLASH_KEY[32:])  # another key
    error = bench.plan("flash-encryption", "--execute", "--do-not-confirm", code=8)[-1]
    assert error["code"] == "efuse-unproven"
    assert (
        "cannot be read back and the flash does not hold firmware for this key" in error["message"]
    )
    assert bench.status()["flash_encryption"].startswith("off")
    bench.path("flash.key").write_bytes(FLASH_KEY[:32])
    done = bench.execute("flash-encryption")
    assert (done["keys"], done["hide-key"], done["encryption"]) == (
        "done before",
        "done before",
        "done",
    )


def test_development_mode_leaves_open_what_is_not_needed(bench: Bench) -> None:
    done = bench.execute(BOTH, mode="development")
    assert list(done) == ["keys", "firmware", "hide-key", "encryption", "secure-boot"]
    status = bench.status()
    assert status["secure_boot"] == "on, version 2"
    assert status["flash_encryption"] == "on, can be switched 2 more times"
    assert status["download_mode"] == "open"
    assert bench.boot_text().rstrip().endswith("app: running")
    again = bench.execute(BOTH, mode="development")
    assert {*again.values()} == {"done before"}


def test_jtag_is_switched_off_softly_or_for_ever(bench: Bench) -> None:
    soft = find_plan(bench.plan("jtag-off", mode="development", files=(), on_board=False))
    assert soft["steps"][0]["fields"] == ["SOFT_DIS_JTAG"]
    assert "HMAC key" in soft["notes"][0]
    assert bench.execute("jtag-off", files=()) == {"jtag": "done"}
    status = bench.status()
    assert (status["pad_jtag"], status["usb_jtag"]) == ("off, permanently", "off, permanently")


def test_firmware_that_would_not_start_stops_the_plan_before_anything_is_burned(
    bench: Bench,
) -> None:
    table = ["0x8000", bench.path("table.bin")]
    boot = ["0x0", bench.path("boot.bin")]
    error = bench.plan("secure-boot-v2", "--execute", "--do-not-confirm", files=boot, code=8)[-1]
    assert error["code"] == "plan-does-not-start"
    assert "load partition table error" in error["message"]
    error = bench.plan("flash-encryption", files=boot, code=2)[-1]
    assert error["code"] == "plan-table"
    error = bench.plan("secure-boot-v2", files=[*boot, *table], code=8)[-1]
    assert "No bootable app" in error["message"]
    assert bench.status()["secure_boot"] == "off"


def test_a_public_key_needs_firmware_that_is_signed_already(bench: Bench) -> None:
    private = bench.path("sign.pem")
    bench.run("secure", "extract-public-key", "-v", "2", "-k", private, bench.path("public.pem"))
    private.rename(bench.path("private.pem"))
    bench.path("public.pem").rename(private)
    error = bench.plan("secure-boot-v2", on_board=False, code=6)[-1]
    assert error["code"] == "plan-image"
    for name in ("boot.bin", "app.bin"):
        key = bench.path("private.pem")
        bench.run("secure", "sign-data", "-v", "2", "-k", key, bench.path(name))
    assert find_plan(bench.plan("secure-boot-v2", on_board=False))["starts"] is True


def test_reserved_blocks_stay_empty_and_used_ones_are_skipped(bench: Bench) -> None:
    words = ("--reserve", "BLOCK_KEY0", "--reserve", "BLOCK_KEY2")
    plan = find_plan(bench.plan(BOTH, *words, on_board=False))
    assert list(plan["key_blocks"]) == ["BLOCK_KEY1", "BLOCK_KEY3"]


def test_aggressive_revocation_needs_consent_by_name(bench: Bench) -> None:
    plan = find_plan(bench.plan("secure-boot-v2", on_board=False))
    assert any("--allow aggressive-revoke" in note for note in plan["notes"])
    close = next(step for step in plan["steps"] if step["name"] == "close")
    assert "SECURE_BOOT_AGGRESSIVE_REVOKE" not in close["fields"]
    plan = find_plan(bench.plan("secure-boot-v2", "--allow", "aggressive-revoke", on_board=False))
    close = next(step for step in plan["steps"] if step["name"] == "close")
    assert "SECURE_BOOT_AGGRESSIVE_REVOKE" in close["fields"]


def test_flash_encryption_after_rd_dis_was_locked_is_refused(bench: Bench) -> None:
    bench.execute("secure-boot-v2", "--keep-download-mode")
    before = bench.path("fuses.bin").read_bytes()
    error = bench.plan(BOTH, "--execute", "--do-not-confirm", code=5)[-1]
    assert error["code"] == "efuse-rd-dis-locked"
    assert bench.path("fuses.bin").read_bytes() == before


def test_the_steps_are_asked_for_and_the_text_explains_them(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("BURN\n" * 7 + "DELETE\n"))
    words = ["-p", bench.port, "secure", "plan", BOTH, *map(str, bench.files)]
    keys = [f"--key={bench.path(name)}" for name in ("flash.key", "sign.pem")]
    assert main([*words, *keys, "--mode", "release", "--execute"]) == 0
    out = bench.capsys.readouterr().out
    assert "Key blocks: BLOCK_KEY0: XTS_AES_128_KEY, BLOCK_KEY1: SECURE_BOOT_DIGEST0" in out
    assert out.count("Type 'BURN'") == 7
    assert "All steps are done and proven." in out
    assert not bench.path("flash.key").exists()
    assert FLASH_KEY[:32].hex() not in out


def test_mistakes_are_reported_before_anything_is_connected(bench: Bench) -> None:
    assert "unknown feature" in bench.plan("secure-boot", code=2)[-1]["message"]
    words = ("--key", bench.path("flash.key"))
    error = bench.plan(BOTH, *words, code=2)[-1]
    assert error["message"] == "two flash encryption keys are given"
    error = bench.run(
        "-c", "esp32c3", "secure", "plan", "flash-encryption", "--mode", "release", code=2
    )[-1]
    assert "needs a flash encryption key" in error["message"]


def test_secure_boot_follows_flash_encryption_in_a_second_plan(bench: Bench) -> None:
    bench.execute("flash-encryption", mode="development")
    error = bench.plan("secure-boot-v2", code=2)[-1]
    assert error["code"] == "plan-flash-key"
    key = ("--key", bench.path("flash.key"))
    done = bench.execute("secure-boot-v2", *key)
    assert done["firmware"] == "done"  # it is signed now
    text = bench.boot_text()
    assert "secure boot verification succeeded" in text
    assert text.rstrip().endswith("app: running")


def test_a_digest_that_is_trusted_but_not_given_is_named(bench: Bench) -> None:
    from espwire.secure.keys import parse_private_key

    bench.execute("secure-boot-v2", mode="development")
    pem = bench.path("sign.pem").read_bytes()
    digest = parse_private_key(pem, "sign.pem", lambda: b"").public.digest()
    bench.plan("secure-boot-v2", mode="development")
    bench.path("sign.pem").write_bytes(make_pem("rsa3072", 1))
    error = bench.plan("secure-boot-v2", mode="development", code=8)[-1]
    assert error["code"] == "efuse-other-digest"
    assert digest.hex()[:16] in error["message"]
    bench.plan("secure-boot-v2", "--allow", "efuse-other-digest", mode="development")


def test_a_plan_without_firmware_burns_nothing(bench: Bench) -> None:
    words = ("--execute", "--do-not-confirm")
    error = bench.plan(BOTH, *words, files=(), code=2)[-1]
    assert error["code"] == "plan-firmware"
    assert bench.status()["keys"][0]["state"] == "empty"


def test_a_burn_that_loses_power_stops_the_plan_and_is_done_again(bench: Bench) -> None:
    bench.extra = "&fault=burn@3&seed=5"
    bench.plan(BOTH, "--execute", "--do-not-confirm", mode="development", code=4)
    bench.extra = ""
    bench.execute(BOTH, mode="development")
    assert bench.boot_text().rstrip().endswith("app: running")


def test_the_one_key_block_of_an_esp32c2_gets_both_keys_in_one_burn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = Bench(tmp_path, capsys, "esp32c2")
    bench.path("sign.pem").write_bytes(make_pem("ecdsa256"))
    bench.path("flash.key").write_bytes(FLASH_KEY[:16])
    plan = find_plan(bench.plan(BOTH, on_board=False))
    assert plan["starts"] is True
    assert plan["key_blocks"] == {
        "BLOCK_KEY0": "XTS_AES_128_KEY_DERIVED_FROM_128_EFUSE_BITS and SECURE_BOOT_DIGEST"
    }
    bench.execute(BOTH)
    assert bench.boot_text().rstrip().endswith("app: running")
    bench.path("flash.key").write_bytes(FLASH_KEY[:32])
    error = bench.plan(BOTH, on_board=False, code=2)[-1]
    assert "BLOCK_KEY0 of ESP32-C2 has no room for a digest" in error["message"]
    assert error["hint"] == "Use a flash encryption key of 128 bits."


def test_a_refused_plan_is_shown_and_names_the_option_that_leaves_the_step_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bench = Bench(tmp_path, capsys, "esp32p4")
    bench.extra = "&revision=3.1"
    events = bench.plan("secure-boot-v2", code=8)
    assert names(find_plan(events))[-1] == "download"
    assert events[-1]["code"] == "efuse-no-flash-power"
    assert "--keep-download-mode" in events[-1]["hint"]
    events = bench.plan("secure-boot-v2", "--keep-download-mode")
    assert "download" not in names(find_plan(events))


def test_a_finished_release_plan_that_is_run_again_names_the_status(bench: Bench) -> None:
    assert list(bench.execute("secure-boot-v2"))[-1] == "download"
    error = bench.plan("secure-boot-v2", "--execute", "--do-not-confirm", code=5)[-1]
    assert "a finished release plan leaves a chip in this state" in error["message"]
    assert "espwire secure status" in error["hint"]


@pytest.mark.parametrize(
    ("chip", "text"),
    [
        ("esp32", "BLOCK2 holds the digest of another signing key, and this chip has no slot"),
        ("esp32c3", "BLOCK_KEY0 holds the digest of another signing key, and no slot"),
    ],
)
def test_another_signing_key_is_named_as_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], chip: str, text: str
) -> None:
    bench = Bench(tmp_path, capsys, chip)
    bench.execute("secure-boot-v2", "--keep-download-mode")
    bench.path("sign.pem").write_bytes(make_pem("rsa3072", 1))
    error = bench.plan("secure-boot-v2", "--keep-download-mode", code=5)[-1]
    assert text in error["message"]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_an_interrupted_key_burn_continues_in_the_same_block(bench: Bench, seed: int) -> None:
    bench.extra = f"&fault=burn@1&seed={seed}"
    with pytest.raises(AssertionError):
        bench.execute("flash-encryption")
    bench.extra = ""
    done = bench.execute("flash-encryption")
    assert done["keys"] == "done"
    state = open_file(str(bench.path("fuses.bin")), "esp32c3").read()
    assert not any(state.blocks[4:10])
    assert state.value_of("RD_DIS") == 1


def test_a_part_of_another_key_stops_the_plan(bench: Bench) -> None:
    bench.status()
    store = open_file(str(bench.path("fuses.bin")), "esp32c3")
    store.replace(store.data.blocks[5], 0x8001, 9)
    error = bench.plan("flash-encryption", code=5)[-1]
    assert error["code"] == "plan-partial-key"
    assert "BLOCK_KEY1" in error["message"]
    bench.plan("flash-encryption", "--reserve", "BLOCK_KEY1")


def test_a_last_step_that_fails_is_not_called_done(bench: Bench) -> None:
    bench.extra = "&fault=burn@9&seed=0"
    with pytest.raises(AssertionError):
        bench.execute("flash-encryption")
    assert "All steps are done" not in bench.out
    state = open_file(str(bench.path("fuses.bin")), "esp32c3").read()
    assert state.value_of("ENABLE_SECURITY_DOWNLOAD") == 0
