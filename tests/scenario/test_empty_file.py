"""What write-flash reports about a file without content."""

from __future__ import annotations

from espwire.cli.main import main


def test_an_empty_file_is_not_reported_as_written(tmp_path, capsys):
    (tmp_path / "empty.bin").touch()
    assert (
        main(
            [
                "-q",
                "--no-state",
                "-p",
                "virtual:esp32c3",
                "write-flash",
                "0x10000",
                str(tmp_path / "empty.bin"),
            ]
        )
        == 0
    )
    assert (
        "Nothing was written: the file is empty. The board was reset.\n" in capsys.readouterr().out
    )
