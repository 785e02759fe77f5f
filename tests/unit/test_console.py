"""The console for tests: what ``expect`` returns, keeps and reports, on the output of a virtual board."""

from __future__ import annotations

import pytest

from espwire.console import Console
from espwire.errors import DeviceError


class Output:
    """A transport whose board prints pieces, each after a time, on a clock of its own."""

    def __init__(self, *pieces: tuple[float, bytes]) -> None:
        self._pieces, self._now, self.written = list(pieces), 0.0, b""

    def now(self) -> float:
        return self._now

    def read(self, timeout: float) -> bytes:
        if self._pieces and self._pieces[0][0] <= self._now + timeout:
            at, data = self._pieces.pop(0)
            self._now = max(self._now, at)
            return data
        self._now += timeout
        return b""

    def write(self, data: bytes, deadline: float) -> None:
        assert deadline > self._now
        self.written += data


def make(*pieces: tuple[float, bytes], received: bytes = b"") -> tuple[Console, Output]:
    output = Output(*pieces)
    return Console(output, received), output  # type: ignore[arg-type]


def test_lines_are_found_in_order_and_the_match_is_returned() -> None:
    console, _ = make(
        (1.0, b"two\nver"), (2.0, b"sion 1.7\n\x1b[32mready\x1b[0m\n"), received=b"one\n"
    )
    assert console.expect("^one$")[0] == "one"
    assert console.expect(r"version (\S+)")[1] == "1.7"
    assert console.expect("^ready$").string == "ready"


def test_a_prompt_without_an_end_is_found() -> None:
    console, output = make((0.5, b"login: "))
    assert console.expect("login:", timeout=5)
    assert output.now() < 1.0
    console.write_line("root")
    console.write(b"\x00")
    assert output.written == b"root\n\x00"


def test_a_missing_line_names_the_last_one() -> None:
    console, output = make((0.5, b"panic\n"))
    with pytest.raises(DeviceError, match="no line with 'ready' within 3 s") as error:
        console.expect("ready", timeout=3)
    assert (error.value.code, error.value.hint) == ("no-line", "Its last line was: panic")
    assert output.now() == pytest.approx(3.0)
    with pytest.raises(DeviceError) as silent:
        console.expect("ready", timeout=1)
    assert "It printed nothing" in silent.value.hint


def test_a_line_of_failure_ends_the_wait() -> None:
    console, output = make((0.5, b"Guru Meditation\n"), (9.0, b"ready\n"))
    with pytest.raises(DeviceError) as error:
        console.expect("ready", fail="Guru")
    assert error.value.code == "fail-line"
    assert output.now() < 1.0


def test_reading_for_a_time() -> None:
    console, output = make((0.5, b"b"), (0.9, b"c"), (2.0, b"d"), received=b"a")
    assert console.read(1.0) == b"abc"
    assert output.now() == pytest.approx(1.0)
