"""Gaps between changed sectors: written too where that is quicker."""

from itertools import pairwise

import pytest
from tests.unit.flash.targets import rom_target

from espwire.flash.estimate import TransportCost
from espwire.flash.plan import bridge_gaps
from espwire.sizes import BLOCK, SECTOR

FAST, SLOW = TransportCost(baud=921600), TransportCost(baud=115200)
LIMITS = rom_target("esp32c3").limits


def runs(*sectors: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    return tuple((first * SECTOR, end * SECTOR) for first, end in sectors)


@pytest.mark.parametrize(
    ("changed", "cost", "written"),
    [
        (runs((0, 15)), FAST, runs((0, 15))),
        (runs((0, 7), (8, 16)), FAST, runs((0, 16))),  # one erase of a block
        (runs((0, 2), (14, 16)), FAST, runs((0, 2), (14, 16))),
        (runs((0, 2), (14, 16)), SLOW, runs((0, 2), (14, 16))),
        (runs((0, 40), (41, 80)), FAST, runs((0, 80))),
        (runs((0, 1), (40, 41)), FAST, runs((0, 1), (40, 41))),
        ((), FAST, ()),
    ],
)
def test_gaps(changed, cost, written):
    limits = LIMITS.__class__(**{**vars(LIMITS), "erases_at_begin": False, "receives_ahead": True})
    assert bridge_gaps(changed, limits, cost) == written


def test_many_runs_are_joined_from_left_to_right():
    limits = LIMITS.__class__(**{**vars(LIMITS), "erases_at_begin": False, "receives_ahead": True})
    every_other = runs(*((at, at + 1) for at in range(0, 4 * BLOCK // SECTOR, 2)))
    joined = bridge_gaps(every_other, limits, FAST)
    assert joined[0][0] == 0
    assert all(a < b for a, b in joined)
    assert all(left[1] < right[0] for left, right in pairwise(joined))
