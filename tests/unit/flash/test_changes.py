"""Which sectors differ: runs of sectors that, written over the old contents, give the new ones."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from espwire.flash.changes import find_changed_runs

SECTOR = 4


@given(st.binary(max_size=60), st.data())
def test_the_runs_are_what_must_be_written_and_no_more(old, data):
    new = bytearray(old)
    for at in data.draw(st.lists(st.integers(0, max(len(old) - 1, 0)), max_size=4)) if old else ():
        new[at] ^= 1
    new += data.draw(st.binary(max_size=20))
    runs = find_changed_runs(bytes(new), old, SECTOR)
    there = bytearray(old.ljust(len(new), b"\0"))
    for start, end in runs:
        there[start:end] = new[start:end]
    assert there[: len(new)] == new
    assert all(
        start % SECTOR == 0 and (end % SECTOR == 0 or end == len(new)) for start, end in runs
    )
    assert all(left[1] < right[0] for left, right in itertools.pairwise(runs))
    for start, end in runs:  # no sector of a run is equal
        assert all(
            new[at : min(at + SECTOR, end)] != old[at : min(at + SECTOR, end)]
            for at in range(start, end, SECTOR)
        )


def test_what_is_equal_or_only_longer_in_the_old_file_needs_nothing():
    assert find_changed_runs(b"abcd", b"abcd", SECTOR) == ()
    assert find_changed_runs(b"abcde", b"abcdefgh", SECTOR) == ()
    assert find_changed_runs(b"", b"abcd", SECTOR) == ()
    assert find_changed_runs(b"abcdefghi", b"abcd", SECTOR) == ((4, 9),)
