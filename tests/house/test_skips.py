"""The list of accepted skips is well formed, and each entry names tests that exist."""

from __future__ import annotations

from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]


def entries() -> list[str]:
    lines = (TESTS / "skips.txt").read_text("utf-8").splitlines()
    return [line for line in lines if line.strip() and not line.startswith("#")]


def test_every_accepted_skip_has_a_reason_and_names_something_real() -> None:
    for line in entries():
        where, bar, reason = line.partition(" | ")
        assert bar, line
        assert len(reason.strip()) > 10, line
        path = where.split("::")[0].rstrip("*")
        assert (TESTS.parent / path).exists(), line
