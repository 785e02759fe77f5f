"""Random conversations with the model, the engine and the sources on this PC: the same replies, the same flash."""

from random import Random

import pytest
from tests.stub_drivers.host_program import HostStub
from tests.stub_drivers.ports import stub_ports
from tests.stub_drivers.random_streams import FLASH, Stream
from tests.unit.virtual.stub_bench import start

from espwire.protocol.slip import Decoder
from espwire.virtual.config import parse_options
from espwire.virtual.programs.stub_model import Trust

pytestmark = pytest.mark.slow

IMAGES = [url for _, url in stub_ports() if "usb" not in url]
CI_SEQUENCES, FULL_SEQUENCES = 5, 100
CI_DAMAGED, FULL_DAMAGED = 2, 20
QUIET_S = 0.2  # the fast flash erases a block in 60 ms, and a slow bus takes 40 ms to see whether it is blank
CONTENT_BYTES = 0x5000  # what the flash holds at first


class VirtualStub:
    """A stub in a virtual chip and its answers."""

    def __init__(self, image, mode, seed):
        options = parse_options(image)
        self.bench = start(
            options.chip,
            mode,
            revision=options.revision,
            baud=921600,
            profile="fast",
            flash=Random(seed).randbytes(CONTENT_BYTES),
            size=FLASH,
        )
        self.decoder = Decoder()

    def answers(self, step):
        transport, found = self.bench.transport, []
        transport.write(step, float("inf"))
        while data := transport.read(QUIET_S):
            found += self.decoder.feed(data)
        return found

    def check(self):
        """It still runs, and no byte was lost."""
        assert self.bench.chip.program is not None, self.bench.chip.runner.ended
        assert self.bench.chip.overruns == 0


def compare(image, seed, jobs=2):
    """Number of equal replies from both."""
    model, engine = (VirtualStub(image, mode, seed) for mode in ("twin", "engine"))
    count = 0
    stream = Stream(seed, parse_options(image).chip, damaged_streams=False)
    for number, step in enumerate(stream.steps(jobs)):
        one, other = model.answers(step), engine.answers(step)
        assert one == other, f"{image}, seed {seed}, step {number}: {step[:40].hex()}"
        count += len(one)
    flashes = (stub.bench.chip.flash.contents for stub in (model, engine))
    assert len({bytes(contents) for contents in flashes}) == 1, (
        f"{image}, seed {seed}: the flash differs"
    )
    model.check()
    engine.check()
    return count


def compare_with_host(image, seed, folder, jobs=3):
    """Number of equal replies from the engine and from the sources on this PC, to streams that may be damaged."""
    engine, file = VirtualStub(image, "engine", seed), folder / "flash.bin"
    file.write_bytes(Random(seed).randbytes(CONTENT_BYTES).ljust(FLASH, b"\xff"))
    host, count = HostStub(str(FLASH >> 20), str(file)), 0
    host.sealed = False
    stream = Stream(seed, parse_options(image).chip, for_host=True)
    try:
        for number, step in enumerate(stream.steps(jobs)):
            found = engine.answers(step)
            host.send(step)
            answers = [host.next() for _ in found]
            assert answers == found, f"{image}, seed {seed}, step {number}: {step[:40].hex()}"
            count += len(found)
        assert host.quiet(0.01) == []
    finally:
        host.close()
    engine.check()
    assert file.read_bytes() == engine.bench.chip.flash.contents, (
        f"{image}, seed {seed}: the flash differs"
    )
    return count


@pytest.mark.parametrize("image", IMAGES)
def test_the_same_bytes_come_from_model_and_engine(image):
    counts = [compare(image, seed) for seed in range(CI_SEQUENCES)]
    assert min(counts) > 0


@pytest.mark.parametrize("image", IMAGES)
def test_damaged_streams_give_the_same_bytes_on_engine_and_host(image, tmp_path):
    assert min(compare_with_host(image, seed, tmp_path) for seed in range(CI_DAMAGED)) > 0


@pytest.mark.soak
@pytest.mark.parametrize("image", IMAGES)
def test_full_size(image):
    counts = [compare(image, f"full {seed}", jobs=4) for seed in range(FULL_SEQUENCES)]
    print(f"{image}: {FULL_SEQUENCES} sequences, {sum(counts)} answers")


@pytest.mark.soak
@pytest.mark.parametrize("image", IMAGES)
def test_damaged_streams_full_size(image, tmp_path):
    counts = [
        compare_with_host(image, f"full {seed}", tmp_path, jobs=4) for seed in range(FULL_DAMAGED)
    ]
    print(f"{image}: {FULL_DAMAGED} sequences with damage, {sum(counts)} answers")


def test_a_check_that_one_of_them_lacks_shows(monkeypatch):
    monkeypatch.setattr(
        "espwire.virtual.programs.stub_model.find_trust", lambda frame, sealed: Trust.SEALED
    )
    with pytest.raises(AssertionError, match="seed"):
        _ = [compare("virtual:esp32c3?kind=uart", seed) for seed in range(CI_SEQUENCES)]
