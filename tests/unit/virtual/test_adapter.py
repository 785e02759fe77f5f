"""The USB adapter of a virtual chip: rates that it sets, errors per rate, losses in long bursts."""

from __future__ import annotations

import pytest

from espwire.errors import UsageError
from espwire.virtual.adapter import Adapter, parse_errors


def test_errors_per_rate_and_direction() -> None:
    assert parse_errors("921600:0, 2000000:1e-4/0.01") == {
        921600: (0.0, 0.0),
        2000000: (1e-4, 0.01),
    }


@pytest.mark.parametrize("text", ["921600", "921600:2", "x:0.1", "0:0.1", "921600:0.1/x"])
def test_an_invalid_error_rate_is_refused(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_errors(text)
    assert caught.value.code == "fault-spec"


@pytest.mark.parametrize(
    ("name", "wanted", "rate"),
    [
        ("any", 1_234_567, 1_234_567),
        ("cp2102", 921_600, 921_600),
        ("cp2102", 1_000_000, 460_800),  # refused: it stays where it was
        ("ch340", 921_600, 923_077),
        ("ch340", 2_000_000, 2_000_000),
        ("pl2303", 1_000_000, 921_600),
        ("pl2303", 115_200, 115_200),
    ],
)
def test_an_adapter_sets_its_own_rates(name: str, wanted: int, rate: int) -> None:
    assert Adapter(name, {}, 0, 1).find_rate(wanted, 460_800) == rate


def test_errors_come_at_their_rate_and_in_their_direction_only() -> None:
    data = bytes(range(256)) * 400
    adapter = Adapter("any", parse_errors("921600:0.001/0"), 0, 5)
    assert adapter.carry(0, 1, data, 460_800, to_chip=True) == data
    assert adapter.carry(0, 1, data, 921_600, to_chip=False) == data
    spoiled = adapter.carry(0, 1, data, 921_600, to_chip=True)
    lost = len(data) - len(spoiled)
    assert 100 < lost < 1_500, "about 30 losses of 16 bytes"
    assert adapter.carry(0, 1, b"", 921_600, to_chip=True) == b""


def test_what_exceeds_a_burst_is_lost_until_the_line_pauses() -> None:
    adapter = Adapter("any", {}, 1000, 5)
    parts = [adapter.carry(n, n + 1, bytes(600), 1, to_chip=False) for n in range(3)]
    assert [len(part) for part in parts] == [600, 400, 0]
    assert len(adapter.carry(0, 1, bytes(600), 1, to_chip=True)) == 600, "the other direction"
    assert len(adapter.carry(3.01, 4, bytes(600), 1, to_chip=False)) == 600
