"""Checks a ROM loader at any port: ``pytest tests/conformance --port /dev/ttyUSB0``.

Without ``--port``, all virtual chips are checked: the models, and the real mask ROMs whose images are in ``--roms DIR``,
in ``ESPWIRE_ROMS``, or in ``../shared/roms``. A real chip must be in download mode (hold BOOT, press RESET). The checks
overwrite the 64 KiB of flash at ``--scratch``.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.roms import find_known_roms, find_rom_folder
from tests.stub_drivers.client import StubClient

from espwire.chips.model import Chip
from espwire.chips.registry import chip_ids, load_chip
from espwire.device.connect import connect
from espwire.device.device import Device
from espwire.protocol import slip
from espwire.protocol.commands import Command, Reply, parse_reply
from espwire.protocol.opcodes import Op
from espwire.transport.base import Transport
from espwire.transport.url import open_transport
from espwire.virtual.soc.mask_rom import RomImage, load_mask_roms

from .stub_targets import Place, Target, target_names, whole_suite_targets

FOLDER = Path(__file__).parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--port", help="check the chip at this port instead of the virtual chips")
    parser.addoption("--roms", help="check the mask ROMs in this folder, and no models")
    parser.addoption(
        "--scratch", default="0x180000", help="flash address of 64 KiB that may be overwritten"
    )


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "port" in metafunc.fixturenames:
        metafunc.parametrize("port", _find_ports(metafunc.config), scope="module")
    if "target" in metafunc.fixturenames:
        names = target_names(metafunc.config.getoption("--port", default=None))
        metafunc.parametrize("target", names, indirect=True, scope="module")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave what repeats other targets to soak runs; what is marked ``smoke`` runs on every target in CI.

    A soak run takes everything on the CPU engines, with larger writes.
    """
    if config.getoption("--port", default=None):
        return
    targets = whole_suite_targets()
    soak = "soak" in (config.option.markexpr or "")
    for item in items:
        test = getattr(item, "callspec", None)
        target = test.params.get("target") if test and item.path.parent == FOLDER else None
        if target is None:
            continue
        on_engine = "stub=engine" in target
        if (soak and on_engine) or not (item.get_closest_marker("smoke") or target in targets):
            item.add_marker(pytest.mark.soak)


def _find_ports(config: pytest.Config) -> list[Any]:
    """The ports to check: what the options name, or the models and the mask ROMs that are here."""
    port, folder = (config.getoption(name, default=None) for name in ("--port", "--roms"))
    if port:
        return [port]
    models = [] if folder else [f"virtual:{name}?size=4MB" for name in chip_ids()]
    return models + list(_find_roms(find_rom_folder(folder)))


def _find_roms(folder: Path) -> Iterator[Any]:
    """A port for each known ROM; skipped if its image is not in the folder."""
    ports = {(chip, image.sha256): port for chip, image, port in find_known_roms(folder)}
    for chip, facts in load_mask_roms().items():
        for image in facts.images:
            port = ports.get((chip, image.sha256), "")
            reason = f"there is no image of the ROM {image.name}"
            marks = [pytest.mark.slow, *([] if port else [pytest.mark.skip(reason=reason)])]
            yield pytest.param(port, id=_name_rom(chip, image), marks=marks)


def _name_rom(chip: str, image: RomImage) -> str:
    return f"{chip}-{image.name}".replace(" ", "_")


def _rom_names() -> list[str]:
    return [
        _name_rom(chip, image) for chip, facts in load_mask_roms().items() for image in facts.images
    ]


# --- a table of the mask ROMs at the end ---


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Note the ROM of a test for its reports: with xdist, another process prints the table."""
    test = getattr(item, "callspec", None)
    name = next((name for name in _rom_names() if test and test.id.startswith(name)), None)
    if name is not None:
        item.user_properties += [("rom", name), ("start", time.process_time())]
    return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Note the CPU time of the process when the test is over."""
    if call.when == "teardown":
        item.user_properties.append(("end", time.process_time()))
    return (yield)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what passed and was skipped on each mask ROM, and the CPU seconds of its tests."""
    counts: dict[str, Counter[str]] = {}
    seconds: Counter[str] = Counter()
    for outcome, reports in terminalreporter.stats.items():
        for report in reports:
            noted = dict(getattr(report, "user_properties", ()))
            name = noted.get("rom")
            if name is None:
                continue
            counts.setdefault(name, Counter())[outcome] += 1
            seconds[name] += noted["end"] - noted["start"] if "end" in noted else 0
    missing = [name for name, count in counts.items() if count.keys() <= {"", "skipped"}]
    if len(missing) < len(counts):
        terminalreporter.section("mask ROMs")
        terminalreporter.write_line(f"{'':32} passed skipped failed CPU s")
    for name, count in counts.items():
        if name not in missing:
            failed = count["failed"] + count["error"]
            numbers = f"{count['passed']:6} {count['skipped']:7} {failed:6} {seconds[name]:5.1f}"
            terminalreporter.write_line(f"{name:32} {numbers}")
    if missing and len(missing) < len(counts):
        terminalreporter.write_line(f"without an image: {', '.join(missing)}")


@pytest.fixture(scope="module")
def target(request: pytest.FixtureRequest, scratch: int) -> Iterator[Target]:
    """A running stub of espwire, kept for all tests."""
    target = Target(request.param, scratch, soak="soak" in (request.config.getoption("-m") or ""))
    yield target
    target.drop()


@pytest.fixture
def place(target: Target) -> Iterator[Place]:
    """A stub that waits, and afterwards still answers."""
    found = target.place()
    try:
        yield found
    except BaseException:
        target.drop()
        raise
    if target._place is found:
        try:
            found.stub.abort()
        except BaseException:
            target.drop()
            raise


@pytest.fixture
def stub(place: Place) -> StubClient:
    return place.stub


@pytest.fixture
def base(place: Place) -> int:
    return place.scratch


class Wire:
    """Sends raw frames, valid or not, and collects the replies."""

    def __init__(self, transport: Transport) -> None:
        self.transport = transport
        self.decoder = slip.Decoder()

    def send(self, data: bytes) -> None:
        self.transport.write(data, self.transport.now() + 10)

    def frames(self, seconds: float = 0.5, quiet: float = 0.3) -> list[bytes]:
        """Collect frames until ``quiet`` seconds pass without a byte; wait ``seconds`` for the first."""
        frames, wait = [], seconds
        while data := self.transport.read(wait):
            frames += self.decoder.feed(data)
            wait = quiet
        return frames

    def request(self, command: Command | bytes, seconds: float = 5.0) -> list[Reply]:
        """Send a request and collect the replies."""
        self.frames(0.01, 0.01)
        self.send(slip.encode(command if isinstance(command, bytes) else command.packet()))
        return [
            reply for frame in self.frames(seconds) if (reply := parse_reply(frame)) is not None
        ]

    def exchange(self, command: Command, seconds: float = 5.0) -> Reply:
        """Send a request and return its only reply."""
        (reply,) = self.request(command, seconds)
        assert reply.op == command.op
        return reply


@pytest.fixture(scope="module")
def device(port: str) -> Iterator[Device]:
    """The chip, reset if the port can reset it, and identified by the library."""
    with connect(open_transport(port), before="default-reset", stub=False) as device:
        yield device


@pytest.fixture(scope="module")
def chip(device: Device) -> Chip:
    return load_chip(device.chip.id)


@pytest.fixture(scope="module")
def wire(device: Device) -> Wire:
    return Wire(device.transport)


@pytest.fixture(scope="module")
def scratch(request: pytest.FixtureRequest) -> int:
    return int(request.config.getoption("--scratch", default="0x180000"), 0)


@pytest.fixture(scope="module")
def flash(device: Device) -> Device:
    """The device with its flash attached."""
    if device.secure_download:
        pytest.skip("Secure Download Mode hides the flash")
    device.attach_flash()
    return device


def failed(reply: Reply, chip: Chip) -> bool:
    """Whether the status byte, the first of the status bytes at the end, is not 0."""
    return reply.body[-chip.rom.status_bytes] != 0


def needs(chip: Chip, *ops: Op) -> None:
    """Skip if the ROM lacks a command."""
    missing = [op.name for op in ops if op not in chip.rom.ops]
    if missing:
        pytest.skip(f"the ROM of {chip.name} has no {missing[0]}")
