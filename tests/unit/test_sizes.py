"""Spellings of numbers and sizes that make no sense end in an error of ours."""

from __future__ import annotations

import pytest

from espwire.errors import UsageError
from espwire.sizes import parse_flash_size, parse_number


@pytest.mark.parametrize(
    "text", ["", "0x", "1e9", "-1", "0x1_0", "٣", "1.5", "9" * 5000, "0" * 5000, "0x" + "f" * 5000]
)
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_number(text)


@pytest.mark.parametrize("text", ["", "MB", "4", "-4MB", "4MiB", "9" * 5000 + "MB", "٤MB"])
def test_what_is_no_flash_size_is_refused(text: str) -> None:
    with pytest.raises(UsageError):
        parse_flash_size(text)


def test_a_letter_that_looks_like_a_digit_is_hexadecimal_only_in_addresses() -> None:
    for what, number in (("--baud", "115200"), ("address", "0x115200")):
        with pytest.raises(UsageError) as caught:
            parse_number("11520O", what)
        assert caught.value.hint.startswith(f"Did you mean {number}? ")
