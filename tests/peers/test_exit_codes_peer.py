"""``esptool.py`` ends as esptool 5.6 does, where no chip is needed to see it."""

import subprocess

import pytest

from espwire.cli.esptool import program as ours

LINES = [
    [],
    ["--help"],
    ["version"],
    ["no-such-command"],
    ["--chip", "esp99", "version"],
    ["-p", "/dev/no-such-port", "chip-id"],
    ["-p", "/dev/no-such-port", "write-flash", "0", "no-such-file"],
    ["--chip", "esp32", "image-info", __file__],
]


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_the_exit_code_is_that_of_esptool(esptool, line, tmp_path, capsys):
    theirs = subprocess.run(
        [esptool, *line], capture_output=True, cwd=tmp_path, timeout=60, check=False
    ).returncode
    assert ours.main(line) == theirs
