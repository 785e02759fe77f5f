"""Peak memory of a client that reads 16 MB of flash from a virtual chip in another process."""

from __future__ import annotations

import tempfile
from pathlib import Path

from measure import ESPWIRE, run, served


def main() -> None:
    """Print the peak."""
    with (
        tempfile.TemporaryDirectory() as folder,
        served("esp32c3", "--tcp", "127.0.0.1:0", "--size", "16MB", "--profile", "instant") as port,
    ):
        options = [
            "--chip",
            "esp32c3",
            "--port",
            port,
            "--before",
            "no-reset",
            "--after",
            "no-reset",
        ]
        done = run([*ESPWIRE, *options, "read-flash", "0", "16M", str(Path(folder, "out.bin"))])
        assert Path(folder, "out.bin").stat().st_size == 16 << 20
    print(
        f"peak memory, reading 16 MB   {done.peak / 1e6:9.1f} MB    goal <= 80   ({done.wall:.0f} s)"
    )


if __name__ == "__main__":
    main()
