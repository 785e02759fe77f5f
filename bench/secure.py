"""Flash encryption of 4 MB and help, whole processes compared with espsecure."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from measure import ESPWIRE, in_turn, peer, ratio_line

SIZE = 0x400000


def main(count: int = 5) -> None:
    """Print a line per case."""
    theirs = Path(peer()[0]).with_name("espsecure")
    dice = random.Random(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "key").write_bytes(dice.randbytes(32))
        (folder / "data").write_bytes(dice.randbytes(SIZE))
        words = ["encrypt-flash-data", "-k", str(folder / "key"), "-a", "0x10000"]
        words += ["-o", str(folder / "out.bin"), str(folder / "data")]
        for title, ours, more, goal in (
            ("encrypt 4 MB, XTS-AES", [*words, "-x"], [*words, "-x"], 0.9),
            ("encrypt 4 MB, ESP32", [*words, "--chip", "esp32"], words, 0.9),
            ("secure --help", ["--help"], ["--help"], 0.4),
        ):
            a, b = in_turn([*ESPWIRE, "secure", *ours], [str(theirs), *more], count)
            times = ([1e3 * run.wall for run in a], [1e3 * run.wall for run in b])
            print(ratio_line(title, *times, "ms", goal))


if __name__ == "__main__":
    main()
