"""The settings files: which one counts, what each key means, and what is said about mistakes in them."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import fields
from pathlib import Path

import platformdirs
import pytest

from espwire.cli import config_files
from espwire.cli.config import SETTINGS, build_settings
from espwire.cli.config_files import TOML_KEYS, VENDOR_KEYS, Lines, read_files
from espwire.cli.config_files import find_user_file as real_find_user_file
from espwire.cli.main import main
from espwire.errors import UsageError
from espwire.settings import RetryPolicy, Settings, Timing

ALL_KEYS = """\
[esptool]
# every key of the vendor's file
Timeout = 4
chip_erase_timeout = 100
max_timeout = 300
sync_timeout = 0.25
md5_timeout_per_mb: 9
erase_region_timeout_per_mb = 31
erase_write_timeout_per_mb = 41
mem_end_rom_timeout = 0.3
serial_write_timeout = 11
connect_attempts = 8
write_block_attempts = 4
reset_delay = 0.06
open_port_attempts = 2
custom_reset_sequence = D0|R1|W0.1|D1|R0|W0.5|D0
custom_hard_reset_sequence = U0,1|W0.1|U0,0
"""


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Three folders: here, the vendor's, home."""
    here, vendor = tmp_path / "here", tmp_path / "home" / ".config" / "esptool"
    here.mkdir()
    vendor.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.setattr(
        config_files, "vendor_folders", lambda: ("", str(vendor), str(tmp_path / "home"))
    )
    monkeypatch.setattr(
        config_files, "find_user_file", lambda: str(tmp_path / "home" / "espwire.toml")
    )
    return here, vendor, tmp_path / "home"


def timeout_of(folder, name, seconds):
    (folder / name).write_text(f"[esptool]\ntimeout = {seconds}\n", "utf-8")


def default(environment=None):
    loaded = read_files(environment or {})
    return build_settings(loaded.values).timing.default


def test_all_fifteen_keys_have_a_field(home):
    Path("esptool.cfg").write_text(ALL_KEYS, "utf-8")
    loaded = read_files({})
    assert loaded.warnings == []
    assert len(VENDOR_KEYS) == 15
    assert build_settings(loaded.values) == Settings(
        timing=Timing(
            default=4,
            chip_erase=100,
            longest=300,
            sync=0.25,
            md5_per_mb=9,
            erase_per_mb=31,
            write_per_mb=41,
            mem_end=0.3,
            write=11,
            reset_delay=0.06,
        ),
        retry=RetryPolicy(connect_attempts=8, block_attempts=4, open_attempts=2),
        custom_reset_sequence="D0|R1|W0.1|D1|R0|W0.5|D0",
        custom_hard_reset_sequence="U0,1|W0.1|U0,0",
    )


def test_without_files_the_library_s_own_defaults_count(home):
    loaded = read_files({})
    assert (loaded.files, loaded.warnings) == ([], [])
    assert build_settings(loaded.values) == Settings()


def test_every_setting_of_the_library_can_be_given():
    names = {one.name for one in (*fields(Timing), *fields(Settings))} - {"timing", "retry"}
    assert names <= SETTINGS.keys()
    names |= {one.name for one in fields(RetryPolicy)} & SETTINGS.keys()
    assert len(names & {one.name for one in fields(RetryPolicy)}) == 4
    assert names <= set(TOML_KEYS.values())
    assert set(VENDOR_KEYS.values()) <= names


def test_the_page_about_settings_lists_every_key_variable_and_option():
    page = Path(__file__).parents[3].joinpath("docs/guide/settings.md").read_text("utf-8")
    for setting in SETTINGS.values():
        table, _, key = setting.key.partition(".")
        if setting.option.get("hidden"):
            continue
        assert not key or (f"[{table}]" in page and f"\n{key.replace('_', '-')} = " in page)
        assert f"`{setting.vendor_key}`" in page if setting.vendor_key else True
        assert f"_{setting.variable}`" in page if setting.variable else True


def test_the_first_file_with_the_section_counts(home):
    here, vendor, house = home
    timeout_of(house, "tox.ini", 9)
    assert default() == 9
    timeout_of(house, "esptool.cfg", 8)
    assert default() == 8
    timeout_of(vendor, "setup.cfg", 7)
    assert default() == 7
    timeout_of(here, "tox.ini", 6)
    assert default() == 6
    timeout_of(here, "setup.cfg", 5)
    assert default() == 5
    (here / "esptool.cfg").write_text("[other]\ntimeout = 1\n", "utf-8")
    assert default() == 5
    (here / "esptool.cfg").write_text("[esptool]\n", "utf-8")  # an empty section counts
    assert default() == 3


def test_the_vendor_s_variable_names_a_file_and_is_passed_over_if_that_is_bad(home, tmp_path):
    here, _, _ = home
    timeout_of(here, "esptool.cfg", 5)
    timeout_of(tmp_path, "mine.cfg", 2)
    assert default({"ESPTOOL_CFGFILE": str(tmp_path / "mine.cfg")}) == 2
    for bad in ("", str(tmp_path), str(tmp_path / "none.cfg")):
        assert default({"ESPTOOL_CFGFILE": bad}) == 5
    (tmp_path / "mine.cfg").write_text("[pytest]\n", "utf-8")
    assert default({"ESPTOOL_CFGFILE": str(tmp_path / "mine.cfg")}) == 5


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("rubbish\n[esptool]\n", "line 1: text before the first"),
        ("[esptool]\ntimeout = 1\ntimeout = 2\n", "line 3: timeout is set twice"),
        ("[esptool]\n\ntimeout\n", "line 3: not a setting"),
        ("[esptool]\n[esptool]\n", "line 2: duplicate section [esptool]"),
    ],
)
def test_a_broken_file_is_passed_over_with_a_warning(home, text, said):
    timeout_of(home[2], "esptool.cfg", 6)
    Path("esptool.cfg").write_text(text, "utf-8")
    loaded = read_files({})
    assert build_settings(loaded.values).timing.default == 6
    [(code, warning)] = loaded.warnings
    assert code == "config-ignored"
    assert said in warning


def test_the_longest_wait_follows_the_chip_erase_as_the_vendor_has_it(home):
    Path("esptool.cfg").write_text("[esptool]\nchip_erase_timeout = 100\n", "utf-8")
    assert build_settings(read_files({}).values).timing.longest == 200


@pytest.mark.parametrize("count", ["0", "-1"])
def test_attempts_of_zero_and_less_are_without_end(home, count):
    Path("esptool.cfg").write_text(
        f"[esptool]\nconnect_attempts={count}\nopen_port_attempts={count}\n", "utf-8"
    )
    settings = build_settings(read_files({}).values)
    assert settings.retry.connect_attempts > 1_000_000_000
    assert settings.retry.open_attempts == 0


def test_an_empty_sequence_is_none(home):
    Path("esptool.cfg").write_text("[esptool]\ncustom_reset_sequence =\n", "utf-8")
    assert build_settings(read_files({}).values).custom_reset_sequence is None


@pytest.mark.parametrize(
    "line",
    [
        "timeout = abc",
        "timeout = 4 ; seconds",
        "timeout = -1",
        "timeout = nan",
        "timeout = inf",
        "timeout = 1e9",
        "timeout =",
        "connect_attempts = 2.5",
        "write_block_attempts = 0",
        "custom_reset_sequence = D0|X1",
        "custom_hard_reset_sequence = W",
    ],
)
def test_a_bad_value_names_file_line_and_key(home, line):
    Path("esptool.cfg").write_text(f"# mine\n[esptool]\n\n{line}\n", "utf-8")
    with pytest.raises(UsageError) as caught:
        read_files({})
    key = line.split("=")[0].strip()
    assert caught.value.code == "config-value"
    assert f"esptool.cfg, line 4: {key} must be " in str(caught.value)
    assert caught.value.hint


def test_our_own_file_wins_over_the_vendor_s(home):
    timeout_of(home[0], "esptool.cfg", 5)
    Path("espwire.toml").write_text(
        '[connect]\nbaud = 921600\nchip = "ESP32-S3"\nport = "/dev/ttyACM0"\nbefore = "usb_reset"\nattempts = 3\n'
        '[timing]\ndefault = 6.5\nmd5-per-mb = 9\n[reset]\nenter = "classic"\nleave = "R1|W0.2|R0"\ndelay = 0.1\n'
        '[flash]\nmode = "dio"\nsize = "detect"\nblock-attempts = 5\n',
        "utf-8",
    )
    loaded = read_files({})
    assert [os.path.basename(path) for path in loaded.files] == ["esptool.cfg", "espwire.toml"]
    given = {name: one.value for name, one in loaded.values.items()}
    assert (given["baud"], given["chip"], given["before"]) == (921600, "esp32s3", "usb-reset")
    settings = build_settings(loaded.values)
    assert (settings.timing.default, settings.timing.md5_per_mb, settings.timing.reset_delay) == (
        6.5,
        9,
        0.1,
    )
    assert (settings.retry.connect_attempts, settings.retry.block_attempts) == (3, 5)
    assert (settings.custom_reset_sequence, settings.custom_hard_reset_sequence) == (
        "classic",
        "R1|W0.2|R0",
    )


def test_our_own_file_is_looked_for_here_and_then_among_the_user_s(home):
    (home[2] / "espwire.toml").write_text("[timing]\ndefault = 8\n", "utf-8")
    assert default() == 8
    Path("espwire.toml").write_text("[timing]\nsync = 0.2\n", "utf-8")
    assert default() == 3


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        (
            "[timing]\n\ndefault = 'x'\n",
            "config-value",
            "espwire.toml, line 3: default must be a time in seconds, 0 or more; got 'x'",
        ),
        (
            "[timing]\ndefault = true\n",
            "config-value",
            "line 2: default must be a time in seconds, 0 or more; got True",
        ),
        (
            "[connect]\nbaud = 9.5\n",
            "config-value",
            "line 2: baud must be a whole number from 1 to 100000000; got 9.5",
        ),
        (
            "[connect]\nchip = 'esp99'\n",
            "config-value",
            "line 2: chip must be a supported chip, or auto; got 'esp99'",
        ),
        ("[connect]\nport = 3\n", "config-value", "line 2: port must be a string; got 3"),
        (
            "[flash]\nmode = 'fast'\n",
            "config-value",
            "line 2: mode must be one of keep, qio, qout, dio, dout; got 'fast'",
        ),
        ("connect = 3\n", "config-file", "connect must be a table"),
        ("[timing\n", "config-file", "espwire.toml is not valid TOML"),
        ("a = 1\na = 2\n", "config-file", "line 2"),
    ],
)
def test_a_mistake_in_our_own_file_is_an_error(home, text, code, said):
    Path("espwire.toml").write_text(text, "utf-8")
    with pytest.raises(UsageError) as caught:
        read_files({})
    assert caught.value.code == code
    assert said in str(caught.value)


def test_unknown_keys_warn_with_file_and_line(home):
    Path("esptool.cfg").write_text("[esptool]\ntimeout = 4\nbogus = 1\n", "utf-8")
    Path("espwire.toml").write_text("[timing]\nbogus = 1\n\n[more]\nx = 1\n", "utf-8")
    loaded = read_files({})
    assert {code for code, _ in loaded.warnings} == {"config-unknown-key"}
    said = [text for _, text in loaded.warnings]
    assert [text.split(os.sep)[-1] for text in said] == [
        "esptool.cfg, line 3: bogus is not a setting of [esptool]",
        "espwire.toml, line 2: bogus is not a setting of [timing]",
        "espwire.toml, line 4: unknown table [more]",
    ]


def test_a_setting_outside_of_all_tables_names_the_table_where_it_belongs(home):
    Path("espwire.toml").write_text('port = "virtual:esp32"\nno-stub = true\nprt = 1\n', "utf-8")
    loaded = read_files({})
    assert not loaded.values
    said = [text.split(": ", 1)[1] for _, text in loaded.warnings]
    assert said == [
        "port is outside all tables and has no effect; put it under [connect]",
        "no-stub is outside all tables and has no effect; put it under [connect]",
        "prt is outside all tables and has no effect",
    ]


def test_a_named_file_is_read_by_its_form_and_must_be_there(home, tmp_path):
    timeout_of(home[0], "esptool.cfg", 5)
    (tmp_path / "a.toml").write_text("[timing]\nsync = 0.2\n", "utf-8")
    timeout_of(tmp_path, "b.cfg", 2)
    toml = build_settings(read_files({}, str(tmp_path / "a.toml")).values)
    assert (toml.timing.default, toml.timing.sync) == (5, 0.2)
    assert build_settings(read_files({}, str(tmp_path / "b.cfg")).values).timing.default == 2
    assert default({"ESPWIRE_CFGFILE": str(tmp_path / "b.cfg")}) == 2
    for bad in ("none.toml", "none.cfg"):
        with pytest.raises(UsageError, match="cannot be read") as caught:
            read_files({"ESPWIRE_CFGFILE": bad})
        assert "ESPWIRE_CFGFILE" in caught.value.hint
    (tmp_path / "long.cfg").write_bytes(b"[esptool]\n" + b"#" * (1 << 20))
    with pytest.raises(UsageError, match="too long"):
        read_files({}, str(tmp_path / "long.cfg"))
    (tmp_path / "b.cfg").write_text("[pytest]\n", "utf-8")
    with pytest.raises(UsageError, match=r"no section \[esptool\]"):
        read_files({}, str(tmp_path / "b.cfg"))


def test_the_line_of_a_key_is_found_in_its_own_section():
    text = '[a]\nx = 1\n[ b ]\n# x = 2\n"x" = 3\nlong-name: 4\n'
    assert Lines(text).find("a", "x") == 2
    assert Lines(text).find("b", "x") == 5
    assert Lines(text).find("b", "long_name") == 6
    assert Lines(text).find("b") == 3
    assert Lines(text).find("b", "y") == Lines(text).find("c") == 0


@pytest.mark.skipif(sys.platform == "win32", reason="paths of POSIX")
def test_the_vendor_s_folders(monkeypatch):
    monkeypatch.setenv("HOME", "/h")
    assert config_files.vendor_folders() == ("", "/h/.config/esptool", "/h")


# what the program makes of it


def run(capsys, *line):
    code = main(["-p", "virtual:esp32c3", *line]) if "-p" not in line else main([*line])
    out = capsys.readouterr()
    return code, out.out, out.err


def test_the_order_is_file_environment_option(home, capsys, monkeypatch):
    Path("espwire.toml").write_text('[connect]\nchip = "esp32"\n', "utf-8")
    assert run(capsys, "read-mac")[0] == 4  # another chip
    monkeypatch.setenv("ESPTOOL_CHIP", "esp32c3")
    assert run(capsys, "read-mac")[0] == 0
    monkeypatch.setenv("ESPWIRE_CHIP", "esp32s3")
    assert run(capsys, "read-mac")[0] == 4
    assert run(capsys, "--chip", "auto", "read-mac")[0] == 0
    assert run(capsys, "read-mac", "--chip", "esp32c3")[0] == 0


def test_port_and_rate_may_come_from_outside(home, capsys, monkeypatch):
    monkeypatch.setenv("ESPTOOL_PORT", "virtual:esp32c6")
    Path("espwire.toml").write_text('[connect]\nport = "virtual:esp32"\nbaud = 460800\n', "utf-8")
    assert main(["--json", "chip-info"]) == 0
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert next(e for e in events if e["event"] == "ChipFound")["chip"] == "ESP32-C6"


def test_a_warning_comes_once_and_the_files_are_told_if_asked(home, capsys):
    Path("esptool.cfg").write_text("[esptool]\nbogus = 1\n", "utf-8")
    code, out, error = run(capsys, "read-mac")
    assert code == 0
    assert error.count("bogus") == 1
    assert "[config-unknown-key]" in error
    assert "read settings from" not in out
    _, out, _ = run(capsys, "--verbose", "read-mac")
    assert f"read settings from {Path('esptool.cfg').resolve()}" in out


def test_commands_without_a_device_read_no_settings(home, capsys):
    Path("espwire.toml").write_text("[timing\n", "utf-8")
    assert main(["chips"]) == 0
    assert main(["version"]) == 0
    assert main(["--help"]) == 0
    assert main(["write-flash", "--help"]) == 0
    assert run(capsys, "read-mac")[0] == 2


def test_flash_settings_may_come_from_outside(home, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("ESPTOOL_FM", "fast")
    image = tmp_path / "image.bin"
    image.write_bytes(bytes(100))
    code, _, error = run(capsys, "write-flash", "0x10000", str(image))
    assert code == 2
    assert "ESPTOOL_FM" in error
    monkeypatch.setenv("ESPTOOL_FM", "dio")
    assert run(capsys, "write-flash", "0x10000", str(image))[0] == 0


def test_config_stands_in_the_help_and_works_after_the_command(home, capsys, tmp_path):
    main(["--help-all"])
    assert "--config FILE" in capsys.readouterr().out
    (tmp_path / "x.toml").write_text('[connect]\nchip = "esp32"\n', "utf-8")
    assert run(capsys, "read-mac", "--config", str(tmp_path / "x.toml"))[0] == 4
    code, _, error = run(capsys, "--config", "none.toml", "read-mac")
    assert code == 2
    assert "none.toml cannot be read" in error


def test_values_of_the_library_are_checked_there():
    for bad in (-1, float("nan"), float("inf"), "3", True):
        with pytest.raises(UsageError):
            Timing(sync=bad)
    for bad in (0, -1, 1.5, "3"):
        with pytest.raises(UsageError):
            RetryPolicy(connect_attempts=bad)
    assert RetryPolicy(open_attempts=0).open_attempts == 0
    assert Timing().scaled(40, 1_000_000_000) == 240


@pytest.mark.skipif(sys.platform != "linux", reason="other systems ask platformdirs itself")
@pytest.mark.parametrize("home", [None, "/somewhere/else", ""])
def test_the_users_folder_is_where_platformdirs_says(monkeypatch, home):
    if home is None:
        monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    else:
        monkeypatch.setenv("XDG_CONFIG_HOME", home)
    expected = platformdirs.user_config_dir("espwire", appauthor=False)
    assert real_find_user_file() == os.path.join(expected, "espwire.toml")


@pytest.mark.parametrize("value", ["40", '"40"', '"40m"'])
def test_a_frequency_may_lack_its_unit(tmp_path, monkeypatch, value):
    (tmp_path / "x.toml").write_text(f"[flash]\nfreq = {value}\n")
    assert read_files({}, str(tmp_path / "x.toml")).values["flash_freq"].value == "40m"


WRITES = "virtual:esp32c3?size=1MB&flash=made.bin"


@pytest.mark.parametrize("port", [WRITES, f"COM3,{WRITES}"])
def test_the_file_of_the_working_folder_may_not_name_a_file_to_write(home, capsys, port):
    Path("espwire.toml").write_text(f'[connect]\n\nport = "{port}"\n')
    assert main(["flash-id"]) == 2
    said = capsys.readouterr().err
    assert f"{Path('espwire.toml').absolute()}, line 3: port" in said
    assert "[config-port-file]" in said
    assert (
        main(["-p", "virtual:esp32c3", "flash-id"]) == 2
    )  # it is a mistake also where it would not count
    assert not Path("made.bin").exists()


def test_a_settings_file_that_the_user_named_or_owns_may(home, monkeypatch):
    Path("espwire.toml").write_text(f'[connect]\nport = "{WRITES}"\n')
    assert read_files({}, "espwire.toml").values["port"].value == WRITES
    assert read_files({"ESPWIRE_CFGFILE": "espwire.toml"}).values["port"].value == WRITES
    monkeypatch.setattr(config_files, "find_user_file", lambda: os.path.abspath("espwire.toml"))
    assert read_files({}).values["port"].value == WRITES


def test_other_ports_may_stand_in_the_file_of_the_working_folder(home):
    Path("espwire.toml").write_text('[connect]\nport = "virtual:esp32c3?size=1MB"\n')
    assert read_files({}).values["port"].value == "virtual:esp32c3?size=1MB"
