"""Start-up of the eFuse commands, whole processes compared with espefuse."""

from __future__ import annotations

from pathlib import Path

from measure import ESPWIRE, in_turn, peer, ratio_line

GOAL = 0.4


def main(count: int = 9) -> None:
    """Print a line per case."""
    theirs = str(Path(peer()[0]).with_name("espefuse"))
    for ours, more in (
        (["--help"], ["--help"]),
        (["summary", "--virt"], ["--chip", "esp32", "--virt", "summary"]),
    ):
        a, b = in_turn([*ESPWIRE, "efuse", *ours], [theirs, *more], count)
        times = ([1e3 * run.wall for run in a], [1e3 * run.wall for run in b])
        print(ratio_line(f"efuse {' '.join(ours)}", *times, "ms", GOAL))


if __name__ == "__main__":
    main()
