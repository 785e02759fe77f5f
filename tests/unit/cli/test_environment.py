"""The variables of the environment: names, order, mistakes."""

from __future__ import annotations

import pytest

from espwire.cli.config import SETTINGS, read_environment
from espwire.cli.main import main
from espwire.errors import UsageError

VALUES = {
    "CHIP": ("esp32s3", "esp32s3"),
    "PORT": ("/dev/ttyUSB0", "/dev/ttyUSB0"),
    "BAUD": ("74880", 74880),
    "BEFORE": ("no_reset", "no-reset"),
    "AFTER": ("no-reset-stub", "no-reset-stub"),
    "CONNECT_ATTEMPTS": ("3", 3),
    "OPEN_PORT_ATTEMPTS": ("4", 4),
    "STUB_VERSION": ("1", 1),
    "FF": ("40m", "40m"),
    "FM": ("DIO", "dio"),
    "FS": ("4MB", "4MB"),
}


def test_every_variable_of_the_vendor_has_one_of_ours():
    names = {setting.variable: name for name, setting in SETTINGS.items() if setting.variable}
    assert VALUES.keys() == names.keys()
    for prefix in ("ESPTOOL_", "ESPWIRE_"):
        found = read_environment({prefix + suffix: text for suffix, (text, _) in VALUES.items()})
        assert {name: one.value for name, one in found.items()} == {
            names[suffix]: value for suffix, (_, value) in VALUES.items()
        }


def test_ours_win_and_empty_ones_do_not_count():
    assert (
        read_environment({"ESPTOOL_BAUD": "9600", "ESPWIRE_BAUD": "19200"})["baud"].value == 19200
    )
    assert read_environment({"ESPTOOL_BAUD": "9600", "ESPWIRE_BAUD": " "})["baud"].value == 9600
    assert read_environment({"ESPTOOL_BAUD": ""}) == {}
    assert read_environment({}) == {}


def test_auto_is_a_chip():
    assert read_environment({"ESPTOOL_CHIP": "AUTO"})["chip"].value is None


@pytest.mark.parametrize(
    ("suffix", "text"),
    [
        ("CHIP", "esp99"),
        ("BAUD", "fast"),
        ("BAUD", "0"),
        ("BAUD", "0x100"),
        ("BEFORE", "soft-reset"),
        ("AFTER", "usb-reset"),
        ("CONNECT_ATTEMPTS", "many"),
        ("OPEN_PORT_ATTEMPTS", "1.5"),
        ("STUB_VERSION", "3"),
        ("FF", "81m"),
        ("FM", "fast"),
    ],
)
def test_a_bad_value_names_its_variable(suffix, text):
    with pytest.raises(UsageError) as caught:
        read_environment({f"ESPTOOL_{suffix}": text})
    assert f"ESPTOOL_{suffix}" in str(caught.value)
    assert caught.value.code == "config-value"


def test_a_bad_variable_ends_a_command_that_needs_it_and_no_other(monkeypatch, capsys):
    monkeypatch.setenv("ESPWIRE_BAUD", "fast")
    assert main(["-p", "virtual:esp32", "read-mac"]) == 2
    assert "ESPWIRE_BAUD" in capsys.readouterr().err
    assert main(["chips"]) == 0


def test_attempts_from_the_environment_bound_the_time_to_fail(monkeypatch, capsys):
    import json

    def resets():
        assert main(["--json", "-p", "virtual:esp32?circuit=none&boot=app", "read-mac"]) == 4
        return sum(
            json.loads(line)["event"] == "Resetting"
            for line in capsys.readouterr().out.splitlines()
        )

    monkeypatch.setenv("ESPTOOL_CONNECT_ATTEMPTS", "2")
    assert resets() == 2
    monkeypatch.setenv("ESPWIRE_CONNECT_ATTEMPTS", "3")
    assert resets() == 3
