"""image-info and merge-bin of 4 MB, whole processes compared with esptool: time and peak memory."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
from pathlib import Path

from measure import ESPWIRE, in_turn, peer, ratio_line

MEGABYTE = 0x100000


def make_files(folder: Path) -> None:
    """An application of almost 4 MB and a boot loader for the ESP32."""
    from espwire.chips.registry import load_chip
    from espwire.image.codec import build, create_image
    from espwire.image.model import Segment

    chip, dice = load_chip("esp32"), random.Random(1)
    app = [
        Segment(0x3F400020, dice.randbytes(MEGABYTE)),
        Segment(0x400D0018, dice.randbytes(2 * MEGABYTE + 0xD0000)),
    ]
    boot = [Segment(0x3FFF0040, dice.randbytes(0x6000))]
    (folder / "app.bin").write_bytes(build(create_image(app, 0x400D0018, chip=chip)))
    (folder / "boot.bin").write_bytes(build(create_image(boot, 0x3FFF0040, chip=chip)))


def main(count: int = 7) -> None:
    """Print two lines per case."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # in a process of its own: a child's peak memory counts what its parent holds
        subprocess.run([sys.executable, __file__, name], check=True)
        app, boot = str(folder / "app.bin"), str(folder / "boot.bin")
        merge = ["--chip", "esp32", "merge-bin", "-o", str(folder / "out")]
        pairs = ["0x1000", boot, "0x10000", app]
        for title, words, goal in (
            ("image-info of 4 MB", ["image-info", app], 0.45),
            ("merge-bin of 4 MB, raw", [*merge, "--pad-to-size", "4MB", *pairs], 0.6),
            ("merge-bin of 4 MB, hex", [*merge, "-f", "hex", *pairs], 0.6),
            ("merge-bin of 4 MB, uf2", [*merge, "-f", "uf2", *pairs], 0.6),
        ):
            a, b = in_turn([*ESPWIRE, *words], [*peer(), *words], count)
            print(
                ratio_line(title, [1e3 * r.wall for r in a], [1e3 * r.wall for r in b], "ms", goal)
            )
            print(
                ratio_line(
                    f"{title}, peak memory",
                    [r.peak / 1e6 for r in a],
                    [r.peak / 1e6 for r in b],
                    "MB",
                    1.0,
                )
            )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        make_files(Path(sys.argv[1]))
    else:
        main()
