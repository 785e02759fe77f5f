"""Wrong words on the command line: named, with what was probably meant, before any port is opened."""

from __future__ import annotations

from pathlib import Path

import pytest

from espwire.cli.argument_mistakes import is_partition_name
from espwire.cli.context import Context
from espwire.cli.esptool import program as esptool
from espwire.cli.main import main


class Opened(Exception):
    """A port would be opened now."""


@pytest.fixture(autouse=True)
def _no_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Context) -> None:
        raise Opened

    monkeypatch.setattr(Context, "find_target", refuse)
    monkeypatch.chdir(tmp_path)
    for name in ("r.bin", "a.bin", "my app.bin", "dir/bootloader.bin"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"data" * 20)


def fail(capsys: pytest.CaptureFixture[str], *words: str, program: bool = True) -> str:
    code = main([*words]) if program else esptool.main([*words])
    said = capsys.readouterr().err
    assert code == 2, said
    assert "Opened" not in said, said
    return said


MISTAKES = [
    ("0xZZ r.bin", "'0xZZ' is not a number"),
    ("1OOOO r.bin", "Did you mean 0x10000? The word contains a letter"),
    ("0x1OOOO r.bin", "Did you mean 0x10000?"),
    ("Ox10000 r.bin", "Did you mean 0x10000?"),
    ("0xl0000 r.bin", "Did you mean 0x10000?"),
    ("10000h r.bin", "Did you mean 0x10000? Hexadecimal numbers start with 0x."),
    ("1a000 r.bin", "Did you mean 0x1a000?"),
    ("0x10000, r.bin", "Did you mean 0x10000?"),
    ("0x0x1000 r.bin", "Did you mean 0x1000?"),
    ("010000 r.bin", "Write 0x10000 for hexadecimal or 10000 for decimal."),
    ("10000 r.bin", "Write 0x10000 for hexadecimal, or 0x2710 if you mean decimal 10000."),
    ("8000 r.bin", "Write 0x8000 for hexadecimal"),
    ("-1 r.bin", "-1"),
    ("0x100000000 r.bin", "above 0xffffffff"),
    (
        "dout 0x00000",
        "'dout' is given where an address or a partition's name is expected: it looks like a value",
    ),
    ("dout 0x00000 r.bin", "'dout' is given where"),
    ("dio 0x0 r.bin 0x10000 a.bin", "'dio' is given where"),
    ("keep 0x0 r.bin", "'keep' is given where"),
    ("stray 0x1000 r.bin", "'stray' is given where an address"),
    ("0x0 r.bin stray 0x1000 a.bin", "'stray' is given where an address"),
    ("0x10000 r.bin dir/bootloader.bin r.bin", "'dir/bootloader.bin' is given where"),
    ("0x10000 r.bin a.bin r.bin", "'a.bin' is given where"),
    (
        "r.bin 0x10000",
        "'r.bin' is given where an address or a partition's name is expected: it looks like a file",
    ),
    ("0x10000", "no file given for address 0x10000"),
    ("0x10000 r.bin 0x20000", "no file given for address 0x20000"),
    ("0x10000 0x20000 r.bin", "no file given for address 0x10000"),
    ("r.bin", "'r.bin' is given where"),
    ("0x10000 my app.bin", "the path contains a space"),
    ("0x10000 my app.bin 0x20000 r.bin", "'my app.bin' is: the path contains a space"),
    (
        "0x10000 r.bin a_name_of_more_than_16_bytes a.bin",
        "names of partitions have at most 16 bytes",
    ),
    ("+0x1000 r.bin", "Did you mean 0x1000?"),
    ("\uff10x1000 r.bin", "Did you mean 0x1000?"),
    ("$1000 r.bin", "Did you mean 0x1000?"),
    ("0x10000: r.bin", "Did you mean 0x10000?"),
    ("1e5 r.bin", "Did you mean 0x1e5?"),
    ("0x r.bin", "'0x' is not a number"),
    ("1.5M r.bin", "'1.5M' is not a number"),
    ("4096.0 r.bin", "'4096.0' is not a number"),
    ("10.000 r.bin", "'10.000' is not a number"),
]


def test_a_number_with_spaces_is_not_looked_up_as_a_partition(capsys):
    assert "Did you mean 0x10000?" in fail(
        capsys, "-p", "virtual:esp32c3", "write-flash", "10 000", "r.bin"
    )
    assert "address '' is not a number" in fail(
        capsys, "-p", "virtual:esp32c3", "write-flash", " ", "r.bin"
    )


@pytest.mark.parametrize(("words", "says"), MISTAKES)
@pytest.mark.parametrize("command", ["write-flash", "verify-flash"])
def test_the_word_at_fault_is_named_before_a_port_is_opened(command, words, says, capsys):
    assert says in fail(capsys, "-p", "virtual:esp8266", command, *words.split(" "))


@pytest.mark.parametrize(
    ("words", "says"), [pair for pair in MISTAKES if "esp_name" not in pair[0]]
)
def test_merge_bin_names_it_too(words, says, capsys):
    fail(capsys, "-c", "esp32", "merge-bin", "-o", "out.bin", *words.split(" "))
    assert not Path("out.bin").exists()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("read-flash 0x1OOO 0x1000 out.bin", "Did you mean 0x1000?"),
        ("read-flash 0x1000 0xZZ out.bin", "size '0xZZ' is not a number"),
        ("read-flash 0x1000 04096 out.bin", "Write 0x4096"),
        ("read-flash 10000 0x1000 out.bin", "Write 0x10000 for hexadecimal"),
        ("read-flash 0x0 0x1000 my out.bin", "too many arguments: out.bin"),
        ("read-flash out.bin 0x0 0x1000", "'out.bin' is given where"),
        ("read-flash 0x0", "SIZE and FILE are missing"),
        ("read-flash 0x0 out.bin", "SIZE is missing"),
        ("read-flash 0x0 0x1000", "FILE is missing"),
        ("read-flash 0x0 ALL", "FILE is missing"),
        ("erase-region 010000 0x1000", "Write 0x10000"),
        ("erase-region 0x1000", "SIZE is missing"),
        ("erase-region 0x1000 1OOO", "Did you mean 0x1000?"),
        ("erase-region 0x1000 0x1000 0x1000", "too many arguments: 0x1000"),
        ("erase-region 0x0 5XB", "size '5XB' is not a number"),
        ("read-mem 4000l000", "Did you mean 0x40001000?"),
        ("read-mem 60000000", "Write 0x60000000."),
        ("write-mem 0x3ff44000 0b2", "is not a number"),
        ("dump-mem 0x4OOOOOOO 16 out.bin", "Did you mean 0x40000000?"),
        ("dump-mem 0x40000000 016 out.bin", "Write 0x16"),
        ("write-flash --encrypt-files 010000 r.bin 0x0 r.bin", "Write 0x10000"),
        ("write-flash --partition-table-offset 8000 nvs=r.bin", "Write 0x8000"),
        ("merge-bin -c esp32 -o out.bin -t 0xZZ 0x0 r.bin", "'0xZZ' is not a number"),
        ("merge-bin -c esp32 -o out.bin -t 1000 0x1000 r.bin", "Write 0x1000"),
        ("split-image -o new -t 1OOO r.bin", "Did you mean 0x1000?"),
        ("-b 1M flash-id", "'1M' is not a plain number"),
        ("-b 0115200 flash-id", "Write 0x115200"),
        ("--connect-attempts 1O flash-id", "is not a number"),
        ("flash --app-address 10000 r.bin", "Write 0x10000"),
        ("make-image out.bin -f r.bin -a 040100000", "Write 0x40100000"),
        ("partitions build --bootloader-offset 1000 -o o.bin r.bin", "Write 0x1000"),
    ],
)
def test_every_command_that_takes_an_address_or_a_size(words, says, capsys):
    assert says in fail(capsys, *words.split(" "))


@pytest.mark.parametrize(
    "words",
    [
        "read-flash 0x0 5MB out.bin",
        "read-flash 0x0 5mb out.bin",
        "read-flash 4096 10000 out.bin",
        "read-flash 0x0 ALL out.bin",
        "read-flash nvs out.bin",
        "erase-region 0x0 64KB",
        "erase-region 0 4M",
        "write-flash 4096 r.bin",
        "write-flash 64k r.bin 1MB a.bin",
        "write-flash 00000 r.bin",
        "write-flash 2nd=r.bin",
        "write-flash ota_0 r.bin nvs a.bin",
        "write-flash -ff 40 0x0 r.bin",
        "write-flash -ff 40MHz 0x0 r.bin",
        "write-flash -fm DIO 0x0 r.bin",
        "write-flash -fs 16MB 0x0 r.bin",
    ],
)
def test_what_makes_sense_goes_on(words, capsys):
    assert main(["-p", "virtual:esp32", *words.split(" ")]) == 70  # Opened, which is nobody's error
    assert "Opened" in capsys.readouterr().err


def test_esptool_s_name_takes_a_decimal_address_as_it_is(capsys):
    esptool.main(["-p", "virtual:esp32", "write_flash", "10000", "r.bin"])
    assert "Opened" in capsys.readouterr().err
    for words in ("010000 r.bin", "0xZZ r.bin", "0x1000 r.bin dout"):
        fail(capsys, "write_flash", *words.split(" "), program=False)


@pytest.mark.parametrize(
    "words",
    [
        ["write-flash", "-p", "/dev/ttyUSB7", "0x0", "r.bin"],
        ["write-flash", "0x0", "r.bin", "-p", "/dev/ttyUSB7"],
        ["write_flash", "-z", "-p/dev/ttyUSB7", "0x0", "r.bin"],
        ["verify-flash", "-p=/dev/ttyUSB7", "0x0", "r.bin"],
        ["read-flash", "-p", "/dev/ttyUSB7", "0x0", "0x1000", "out.bin"],
        ["dump-mem", "-p", "/dev/ttyUSB7", "0x40000000", "16", "out.bin"],
        ["load-ram", "-p", "/dev/ttyUSB7", "r.bin"],
        ["flash-id", "-p", "/dev/ttyUSB7"],
    ],
)
def test_p_after_a_command_is_the_port_if_its_argument_looks_like_one(words, monkeypatch):
    seen = []
    monkeypatch.setattr(Context, "find_target", lambda self: seen.append(self.get("port")) or 1 / 0)
    for program in (main, esptool.main):
        program(words)
    assert seen == ["/dev/ttyUSB7"] * 2


@pytest.mark.parametrize(
    "port", ["COM3", "com12", "socket://host:1", "rfc2217://host:1", "virtual:esp32", "/dev/cu.usb"]
)
def test_any_spelling_of_a_port_is_one(port, monkeypatch):
    seen = []
    monkeypatch.setattr(
        Context,
        "find_target",
        lambda self: seen.append((self.get("port"), self.progress)) or 1 / 0,
    )
    main(["write-flash", "-p", port, "0x0", "r.bin"])
    main(["-p", port, "write-flash", "-p", "0x0", "r.bin"])  # of esptool 1: no progress
    assert seen == [(port, True), (port, False)]


@pytest.mark.parametrize("name", ["nvs", "ota_0", "my part", "phy-init", "2nd", "ä", "x.y"])
def test_names_of_partitions(name):
    assert is_partition_name(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "0x1",
        "0xZZ",
        "12",
        "1OOO",
        "a/b",
        "a.bin",
        "a.hex",
        "dout",
        "-x",
        "x" * 17,
        "a\nb",
        "64k",
        "5MB",
        "1M",
        "0b1",
    ],
)
def test_what_is_not_the_name_of_a_partition(name):
    assert not is_partition_name(name)
