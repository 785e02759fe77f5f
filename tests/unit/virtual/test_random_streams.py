"""Random conversations with the stub model and the engine: the same replies, the same flash. A missing check shows."""

import hashlib
from random import Random

import pytest
from tests.stub_drivers.random_streams import FLASH, Stream
from tests.unit.virtual.stub_bench import start

from espwire.device.stub_image import stub_chips
from espwire.protocol.slip import Decoder
from espwire.virtual.programs.stub_model import Trust

pytestmark = pytest.mark.slow

CHIPS = stub_chips()
CI_SEQUENCES, FULL_SEQUENCES = 5, 200
QUIET_S = 0.2  # the fast flash erases a block in 60 ms, and a slow bus takes 40 ms to see whether it is blank
SLOW_S = 3.0  # for long erases


class Pair:
    """A stub and its answers."""

    def __init__(self, chip, stub, seed):
        content = Random(seed).randbytes(0x5000)
        self.bench = start(chip, stub, baud=921600, profile="fast", flash=content, size=FLASH)
        self.decoder = Decoder()

    def answers(self, step):
        transport, found = self.bench.transport, []
        transport.write(step, float("inf"))
        while data := transport.read(QUIET_S):
            found += self.decoder.feed(data)
        return found

    def flash(self):
        return hashlib.sha256(self.bench.chip.flash.contents).hexdigest()


def compare(chip, seed, jobs=3):
    """Number of equal replies from both."""
    model, engine = (Pair(chip, stub, seed) for stub in ("twin", "engine"))
    count = 0
    for number, step in enumerate(Stream(seed, chip, damaged_streams=False).steps(jobs)):
        one, other = model.answers(step), engine.answers(step)
        assert one == other, f"{chip}, seed {seed}, step {number}: {step[:40].hex()}"
        count += len(one)
    assert model.flash() == engine.flash(), f"{chip}, seed {seed}: the flash differs"
    assert engine.bench.chip.program is not None, engine.bench.chip.runner.ended
    assert engine.bench.chip.overruns == model.bench.chip.overruns == 0
    return count


@pytest.mark.parametrize("chip", CHIPS)
def test_the_same_bytes_come_from_model_and_engine(chip):
    counts = [compare(chip, seed) for seed in range(CI_SEQUENCES)]
    assert min(counts) > 0


@pytest.mark.soak
@pytest.mark.parametrize("chip", CHIPS)
def test_full_size(chip):
    counts = [compare(chip, f"full {seed}", jobs=12) for seed in range(FULL_SEQUENCES)]
    print(f"{chip}: {FULL_SEQUENCES} sequences, {sum(counts)} answers")


def test_a_check_that_one_of_them_lacks_shows(monkeypatch):
    monkeypatch.setattr(
        "espwire.virtual.programs.stub_model.find_trust", lambda frame, sealed: Trust.SEALED
    )
    with pytest.raises(AssertionError, match="seed"):
        _ = [compare("esp32c3", seed) for seed in range(CI_SEQUENCES)]
