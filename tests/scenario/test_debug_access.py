"""The device commands for debug certificates of the ESP32-S31, against the virtual chip."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from espwire.cli.main import main
from espwire.device.connect import connect
from espwire.device.debug_access import present_certificate, read_debug_info
from espwire.errors import DeviceError, Unsupported
from espwire.secure.debug_certificate import build_certificate, build_chip_info
from espwire.secure.keys import P256, generate_key

PORT = "virtual:esp32s31?profile=instant&mac=001122334455"
MAC = bytes.fromhex("001122334455")
NONCE = bytes(range(32))


@pytest.mark.parametrize("more", ["", "&secure-download=1"])
def test_the_information_is_what_a_certificate_is_made_for(more: str) -> None:
    with connect(PORT + more, stub=False) as device:
        assert read_debug_info(device.loader, NONCE) == b"".join(build_chip_info(MAC, 0, NONCE))
        first, second = (read_debug_info(device.loader) for _ in range(2))
    assert len(first) == 64
    assert first[32:] != second[32:]
    assert first == b"".join(build_chip_info(MAC, 0, first[32:]))


def test_a_certificate_is_presented_and_the_chip_is_not_reset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("key.pem").write_bytes(generate_key(P256).pem())
    for words in (
        ("secure", "read-sdc-chip-info"),
        (
            "secure",
            "generate-sdc-certificate",
            "-k",
            "key.pem",
            "--chip-info",
            "chip_info.bin",
            "--enable-jtag",
        ),
    ):
        assert main(["-p", PORT, *words]) == 0
    assert Path("chip_info.bin").stat().st_size == 64
    capsys.readouterr()
    assert main(["--json", "-p", PORT, "secure", "verify-sdc-certificate", "sdc_cert.bin"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert events[-1]["data"] == {"file": "sdc_cert.bin", "accepted": True}
    damaged = bytearray(Path("sdc_cert.bin").read_bytes())
    damaged[300] ^= 1
    Path("damaged.bin").write_bytes(damaged)
    for file, code, error in (
        ("damaged.bin", 5, "certificate-refused"),
        ("key.pem", 6, "debug-certificate"),
    ):
        got = main(["--json", "-p", PORT, "secure", "verify-sdc-certificate", file])
        last = json.loads(capsys.readouterr().out.splitlines()[-1])
        assert (got, last["code"]) == (code, error)
    assert main(["-p", PORT, "verify-sdc-certificate", "sdc_cert.bin"]) == 0  # as in esptool
    assert main(["-p", PORT, "read_sdc_chip_info", "-o", "again.bin"]) == 0


def test_other_chips_and_bad_certificates_are_refused() -> None:
    certificate = build_certificate(generate_key(P256), build_chip_info(MAC, 0, NONCE), ())
    with connect("virtual:esp32c3?profile=instant", stub=False) as device:
        for work in (
            lambda: read_debug_info(device.loader),
            lambda: present_certificate(device.loader, certificate),
        ):
            with pytest.raises(Unsupported):
                work()
    with connect(PORT, stub=False) as device:
        with pytest.raises(DeviceError) as error:
            present_certificate(device.loader, bytes(436))
        assert error.value.code == "certificate-refused"
        present_certificate(device.loader, certificate)
        present_certificate(device.loader, certificate[:436])
