"""Broken files of every kind: one clear error, in bounded time and memory. And the proof that this would notice."""

from __future__ import annotations

import os
import time
from collections import Counter

import fuzz_files
import pytest
from fuzz_files import KINDS, Kind, Outcome, find_bad, find_peak, run_cases

from espwire.errors import ToolError
from espwire.image import codec, flasher_args, hex

pytestmark = pytest.mark.slow

CI_CASES, FULL_CASES = 5_000, 200_000


def count_ends(outcomes: list[Outcome]) -> dict[str, Counter[bool]]:
    return {
        kind: Counter(bool(one.error) for one in outcomes if one.kind == kind) for kind in KINDS
    }


@pytest.mark.parametrize("kind", KINDS)
def test_the_seeds_are_files_that_the_parsers_take(kind: str) -> None:
    """Mutations of what is refused anyway would prove little."""
    good = 0
    for seed in KINDS[kind].seeds:
        try:
            KINDS[kind].run(seed)
        except ToolError:
            continue
        good += 1
    assert good >= max(1, len(KINDS[kind].seeds) // 3)


def test_broken_files_end_in_a_clear_error_or_in_a_model() -> None:
    outcomes = run_cases(CI_CASES)
    assert len(outcomes) == CI_CASES
    assert find_bad(outcomes) == []
    for kind, ends in count_ends(outcomes).items():
        assert ends[True] > 20, kind  # the mutations break something
        assert ends[False] > 0, kind  # and not everything


@pytest.mark.soak
def test_full_size() -> None:
    first = int(os.environ.get("ESPWIRE_SEED", "1000000"))
    cases = int(os.environ.get("ESPWIRE_CASES", str(FULL_CASES)))
    began = time.perf_counter()
    ends: Counter[tuple[str, str]] = Counter()
    slowest, base = 0.0, find_peak()
    for start in range(first, first + cases, 10_000):
        outcomes = run_cases(min(10_000, first + cases - start), start)
        assert find_bad(outcomes) == []
        ends.update((one.kind, one.error or "accepted") for one in outcomes)
        slowest = max(slowest, *(one.seconds for one in outcomes))
    assert find_peak() - base < 2 * fuzz_files.MAX_BYTES
    assert sum(ends.values()) == cases
    for (kind, end), count in sorted(ends.items()):
        print(f"{kind:<14} {end:<24} {count}")
    took = time.perf_counter() - began
    print(
        f"{cases} cases from seed {first} in {took:.0f} s; slowest {slowest:.3f} s, {find_peak() >> 20} MiB at most"
    )


class TestTheHarnessNotices:
    """With a check switched off, or a parser that misbehaves, the same cases must not pass."""

    def test_an_image_reader_that_does_not_look_whether_the_bytes_are_there(
        self, monkeypatch
    ) -> None:
        def take(self, size, what):
            self.at += size
            return self.data[self.at - size : self.at]

        monkeypatch.setattr(codec._Cursor, "take", take)
        assert find_bad(run_cases(1000, kinds=("image", "merged")))

    def test_json_values_that_nobody_checks(self, monkeypatch) -> None:
        monkeypatch.setattr(flasher_args, "_text", lambda value, key, empty=False: value)
        assert find_bad(run_cases(2000, kinds=("flasher_args",)))

    def test_hex_records_that_are_not_decoded_with_care(self, monkeypatch) -> None:
        monkeypatch.setattr(hex, "_find_reason", lambda line, error, start: 1 // 0)
        assert find_bad(run_cases(200, kinds=("hex",)))

    def test_time_and_memory(self, monkeypatch) -> None:
        slow = Kind((b"x",), lambda data: sum(range(2_000_000)))
        greedy = Kind((b"x",), lambda data: len(b"\xff" * (3 << 20)))
        monkeypatch.setattr(fuzz_files, "MAX_SECONDS", 0.01)
        monkeypatch.setattr(fuzz_files, "MAX_BYTES", 1 << 20)
        monkeypatch.setattr(fuzz_files, "KINDS", {"slow": slow, "greedy": greedy})
        assert {one.kind for one in find_bad(run_cases(2, kinds=("slow", "greedy")))} == {
            "slow",
            "greedy",
        }
