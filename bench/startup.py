"""Start-up: wall time of --version, --help and write-flash --help, compared with esptool."""

from __future__ import annotations

from measure import ESPWIRE, in_turn, peer, ratio_line

CASES = [
    (["--version"], ["version"]),
    (["--help"], ["--help"]),
    (["write-flash", "--help"], ["write-flash", "--help"]),
]


def main(count: int = 15) -> None:
    """Print a line per case."""
    for ours, theirs in CASES:
        a, b = in_turn([*ESPWIRE, *ours], [*peer(), *theirs], count)
        print(
            ratio_line(
                f"start-up {' '.join(ours)}",
                [1e3 * r.wall for r in a],
                [1e3 * r.wall for r in b],
                "ms",
                0.45,
            )
        )


if __name__ == "__main__":
    main()
