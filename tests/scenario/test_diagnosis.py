"""Every way of not getting in that a host can tell apart, set up as a physical cause in the virtual chip.

No text is fed: what the diagnosis sees is what the chip, its wires and its supply make of the attempts.
"""

from __future__ import annotations

import pytest

from espwire.chips.registry import chip_ids, load_chip
from espwire.device.connect import connect
from espwire.device.diagnose import OTHER_RATES
from espwire.errors import ConnectError, Unsupported, WrongBootMode
from espwire.events import Note
from espwire.protocol.boot_log import strap_pins
from espwire.settings import RetryPolicy, Settings
from espwire.transport.url import open_transport

SOME = (
    "esp8266",
    "esp32",
    "esp32s3",
    "esp32c3",
    "esp32c5",
    "esp32p4",
)  # one of each form of boot message
IMAGE_MAGIC = 0xE9
TOO_FAST = (
    1_500_000,
    2_000_000,
)  # a whole byte passes within one bit of 115200 baud: nothing certain is left of it
LONGEST = 25.0  # seconds of listening, at all rates and with all attempts


def fail(chip, query="", *, program=True, settle=0.0, **keywords):
    """Connect in vain: the error, and the link."""
    transport = open_transport(f"virtual:{chip}?profile=instant&{query}")
    if program:
        transport.chip.flash.contents[load_chip(chip).flash.bootloader_offset] = IMAGE_MAGIC
    if settle:
        transport.sleep(settle)
    began = transport.now()
    with pytest.raises(ConnectError) as caught:
        connect(transport, **({"stub": False} | keywords))
    assert transport.now() - began < LONGEST
    assert transport.wire.host_baud == 115200, "the rate is left as it was"
    error = caught.value
    assert error.hint.endswith(".")
    assert error.exit_code == 4
    return error, transport


@pytest.mark.parametrize("chip", chip_ids())
@pytest.mark.parametrize("ail", ["mute", "held"])
def test_silence(chip, ail):
    """A cut wire from the chip, and a chip that never leaves reset, look the same from here: the hint names both."""
    error, _ = fail(chip, f"ail={ail}")
    assert error.code == "no-reply"
    assert "EN" in error.hint
    assert "TX" in error.hint
    assert error.boot_text == ""
    assert set(error.details["sequences"]) >= {"classic", "classic_long"}


@pytest.mark.parametrize("chip", chip_ids())
def test_the_wire_to_the_chip_is_cut(chip):
    error, _ = fail(chip, "ail=tx-dead")
    assert error.code == "chip-does-not-hear"
    assert "boot" in error.boot_text


@pytest.mark.parametrize("chip", SOME)
def test_the_wire_to_the_chip_is_cut_and_the_rom_is_told_to_be_quiet(chip):
    assert fail(chip, "ail=tx-dead,quiet-rom")[0].code == "chip-does-not-hear"


@pytest.mark.parametrize("chip", [chip for chip in chip_ids() if load_chip(chip).usb.serial_jtag])
def test_over_native_usb_a_deaf_chip_and_a_silent_one_are_told_apart(chip):
    assert fail(chip, "kind=usb-jtag&ail=tx-dead")[0].code == "chip-does-not-hear"
    assert fail(chip, "kind=usb-jtag&ail=mute")[0].code == "no-reply"


def pins_of(chip):
    return strap_pins(load_chip(chip).strapping)


@pytest.mark.parametrize(
    ("chip", "pin"),
    [(chip, pin) for chip in chip_ids() for pin in pins_of(chip)],
    ids=lambda value: str(value)[:20],
)
def test_a_strapping_pin_at_the_wrong_level_is_named(chip, pin):
    error, _ = fail(chip, f"pins={pin.gpio}:{1 - pin.level}")
    assert isinstance(error, WrongBootMode)
    assert error.code == "wrong-boot-mode"
    assert error.details["wrong_gpios"] == [pin.gpio]
    assert f"GPIO{pin.gpio} " in error.hint
    assert error.details["chip"] == chip
    assert error.details["strap"] >> pin.bit & 1 == 1 - pin.level


def test_a_chip_whose_boot_pin_nobody_knows_is_told_without_it():
    error, _ = fail("esp32e22", "circuit=direct&boot=app&ail=crash-loop", before="no-reset")
    assert error.code == "crash-loop"


@pytest.mark.parametrize("chip", SOME)
def test_an_empty_flash_and_lines_that_do_not_reach_the_chip(chip):
    error, _ = fail(chip, "boot=app&circuit=none", program=False)
    assert error.code == "wrong-boot-mode"
    assert "invalid header" in str(error)


@pytest.mark.parametrize("chip", SOME)
@pytest.mark.parametrize("before", ["default-reset", "no-reset"])
def test_a_program_runs_and_no_line_reaches_the_chip(chip, before):
    wiring = "circuit=none&" if before == "default-reset" else ""
    error, transport = fail(chip, f"{wiring}boot=app&app-baud=115200", before=before)
    assert error.code == "application-running"
    assert "app: running" in error.boot_text
    assert ("the reset did not reach it" in str(error)) is (before == "default-reset")
    assert transport.chip.boots == 0, "nothing was reset"


@pytest.mark.parametrize("chip", ["esp8266", "esp32", "esp32c3"])
@pytest.mark.parametrize("rate", [rate for rate in OTHER_RATES if rate not in TOO_FAST])
def test_a_program_that_talks_at_another_rate_is_told_with_the_rate(chip, rate):
    notes = []
    error, _ = fail(chip, f"circuit=none&boot=app&app-baud={rate}", report=notes.append)
    assert (error.code, error.details["guessed_baud"]) == ("wrong-baud-noise", rate)
    assert str(rate) in str(error)
    assert any(isinstance(event, Note) and "other rates" in event.text for event in notes)


@pytest.mark.parametrize("rate", TOO_FAST)
def test_a_program_that_talks_too_fast_leaves_noise_or_nothing_but_never_a_wrong_rate(rate):
    error, _ = fail("esp32", f"circuit=none&boot=app&app-baud={rate}")
    assert error.code in ("wrong-baud-noise", "noise", "no-reply", "application-running")
    assert error.details.get("guessed_baud") in (None, rate)


@pytest.mark.parametrize("chip", SOME)
def test_no_supply_and_an_open_line(chip):
    error, _ = fail(chip, "ail=noise")
    assert error.code == "noise"
    assert "guessed_baud" not in error.details


@pytest.mark.parametrize("seed", range(20))
def test_noise_never_looks_like_anything_else(seed):
    assert fail("esp32", f"ail=noise&seed={seed}")[0].code == "noise"


@pytest.mark.parametrize("chip", SOME)
def test_an_enable_pin_without_pull_up(chip):
    """It ran, and our own reset stopped it for good."""
    error, transport = fail(chip, "boot=app&ail=no-pull-up", settle=2.5)
    assert error.code == "held-in-reset"
    assert "pull-up" in error.hint
    assert transport.chip.boots == 0


@pytest.mark.parametrize("chip", SOME)
def test_an_adapter_with_inverted_lines_on_a_direct_circuit(chip):
    error, _ = fail(chip, "circuit=direct&ail=inverted")
    assert error.code == "held-in-reset"
    assert "inverted" in str(error)


@pytest.mark.parametrize("chip", chip_ids())
@pytest.mark.parametrize("wiring", ["", "&circuit=none&boot=app"])
def test_a_supply_that_breaks_down_at_each_start(chip, wiring):
    error, _ = fail(chip, "ail=brown-out" + wiring)
    assert error.code == "brown-out-loop"
    assert error.details["boots"] > 2


@pytest.mark.parametrize("chip", chip_ids())
@pytest.mark.parametrize("before", ["default-reset", "no-reset"])
def test_a_program_that_crashes_again_and_again_on_an_unwired_chip(chip, before):
    error, _ = fail(chip, "boot=app&circuit=none&ail=crash-loop", before=before)
    assert error.code == "crash-loop"
    assert "Guru Meditation" in error.details["panic"]


@pytest.mark.parametrize("chip", SOME)
def test_a_program_that_crashes_is_no_obstacle_where_the_lines_are_wired(chip):
    transport = open_transport(f"virtual:{chip}?profile=instant&boot=app&ail=crash-loop")
    transport.sleep(3.1)
    with connect(transport, stub=False) as device:
        assert device.chip.id == chip


@pytest.mark.parametrize("chip", SOME)
def test_a_crashing_program_behind_a_boot_pin_that_is_not_pulled_is_the_boot_pin_s_fault(chip):
    boot = pins_of(chip)[0]
    error, _ = fail(chip, f"boot=app&ail=crash-loop&pins={boot.gpio}:1")
    assert (error.code, error.details["wrong_gpios"]) == ("wrong-boot-mode", [boot.gpio])


@pytest.mark.parametrize("chip", ["esp32c3", "esp32s2"])
def test_secure_download_mode_is_told_when_it_refuses(chip):
    with connect(f"virtual:{chip}?profile=instant&secure-download=1", stub=False) as device:
        with pytest.raises(Unsupported) as caught:
            device.loader.read_reg(0x40001000)
        assert caught.value.code == "secure-download-mode"


@pytest.mark.parametrize("attempts", [1, 2, 3])
@pytest.mark.parametrize("latency", ["0.001", "0.016"])
@pytest.mark.parametrize("chip", ["esp8266", "esp32", "esp32c3"])
@pytest.mark.parametrize(
    ("query", "settle", "code"),
    [
        ("ail=tx-dead", 0, "chip-does-not-hear"),
        ("ail=mute", 0, "no-reply"),
        ("ail=brown-out", 0, "brown-out-loop"),
        ("ail=noise", 0, "noise"),
        ("boot=app&ail=no-pull-up", 1.97, "held-in-reset"),
        ("boot=app&ail=no-pull-up", 2.0, "held-in-reset"),
        ("circuit=direct&ail=inverted", 0, "held-in-reset"),
        ("circuit=none&boot=app&ail=crash-loop", 0, "crash-loop"),
        ("circuit=none&boot=app&ail=crash-loop", 0.37, "crash-loop"),
        ("circuit=none&boot=app&app-baud=115200", 0.3, "application-running"),
        ("circuit=none&boot=app&app-baud=9600", 0.3, "wrong-baud-noise"),
    ],
)
def test_few_attempts_and_a_slow_bridge_change_no_diagnosis(
    chip, query, settle, code, latency, attempts
):
    settings = Settings(retry=RetryPolicy(connect_attempts=attempts))
    error, _ = fail(chip, f"{query}&latency={latency}&rc=0.02", settle=settle, settings=settings)
    assert error.code == code


def test_a_chip_that_waits_in_its_loader_without_hearing_is_not_restarted_when_that_is_forbidden():
    error, transport = fail("esp32c3", "boot=app&ail=tx-dead,mute", before="no-reset")
    assert error.code == "no-reply"
    assert transport.chip.boots == 0
    assert "by hand" in error.hint


def test_a_rom_image_that_crashes(tmp_path):
    image = tmp_path / "rom.bin"
    image.write_bytes(bytes(0x60000))
    with pytest.raises(ConnectError, match="the ROM crashed at 0x40000000: illegal") as caught:
        connect(open_transport(f"virtual:esp32c3?rom={image}"))
    assert caught.value.code == "rom-crashed"
    assert "rom=" in caught.value.hint
