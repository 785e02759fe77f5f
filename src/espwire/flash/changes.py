"""Which sectors differ between what shall be in flash and what is said to be there. Pure."""

from __future__ import annotations


def find_changed_runs(new: bytes, old: bytes, sector: int) -> tuple[tuple[int, int], ...]:
    """Half-open ranges of ``new``, whole sectors but for its end, that differ from ``old``; neighbours are joined.

    What lies behind the end of ``old`` counts as changed.

    >>> find_changed_runs(b"aabbccdde", b"aaxbcx", 2)
    ((2, 9),)
    >>> find_changed_runs(b"aabbcc", b"aabbccdd", 2)
    ()
    """
    runs: list[tuple[int, int]] = []
    for start in range(0, len(new), sector):
        end = min(start + sector, len(new))
        if new[start:end] == old[start:end]:
            continue
        if runs and runs[-1][1] == start:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((start, end))
    return tuple(runs)
