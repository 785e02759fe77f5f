"""When espwire sends LZMA or raw data, what it sends, and what happens when a transfer breaks in the middle."""

from __future__ import annotations

import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from espwire.blob import Blob
from espwire.compress import LzmaForm, compress_lzma
from espwire.device.backends.stub import WriteTransfer
from espwire.device.connect import connect
from espwire.device.device import Device
from espwire.errors import NoReply
from espwire.flash.findings import Policy
from espwire.flash.write import write_flash
from espwire.protocol.stub import Codec, Feature
from espwire.virtual.transport import VirtualTransport, open_virtual

DATA = (Path(__file__).parents[1] / "data/esp32c3/micropython-head.bin").read_bytes()
FIRMWARE = b"\0" + (DATA * (1 + 0x30000 // len(DATA)))[1:0x30001]  # odd length
DENSE = bytes(random.Random(8).choices(range(0x80), k=0x30001))  # compresses to seven eighths
ADDRESS = 0x10000


@dataclass
class Opened:
    """The writes that were opened: address, codec and announced size."""

    writes: list[tuple[int, Codec, int | None]] = field(default_factory=list)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opened:
    found, start = Opened(), WriteTransfer.__init__

    def record(self, loader, offset, size, stream_size, codec, **others) -> None:
        found.writes.append((offset, codec, stream_size))
        start(self, loader, offset, size, stream_size, codec, **others)

    monkeypatch.setattr(WriteTransfer, "__init__", record)
    return found


def start_stub(chip: str, baud: int) -> tuple[Device, VirtualTransport]:
    transport = open_virtual(f"virtual:{chip}{'&' if '?' in chip else '?'}size=4MB")
    device = connect(transport, stub=True, baud=baud)
    device.attach_flash()
    return device, transport


def write(
    device: Device,
    transport: VirtualTransport,
    policy: Policy | None = None,
    data: bytes = FIRMWARE,
) -> None:
    write_flash(device, [Blob(ADDRESS, data, "app.bin")], policy=policy)
    contents = transport.chip.flash.contents
    assert bytes(contents[ADDRESS : ADDRESS + len(data)]) == data
    assert set(contents[:ADDRESS]) == set(contents[ADDRESS + len(data) :]) == {0xFF}


@pytest.mark.parametrize(
    ("chip", "baud", "codec"),
    [
        ("esp32", 115200, Codec.LZMA),
        ("esp32c3", 115200, Codec.LZMA_RISCV),
        ("esp32", 2_000_000, Codec.ZLIB),  # the flash is slower than the wire
        ("esp32c3", 2_000_000, Codec.ZLIB),
        ("esp8266", 115200, Codec.ZLIB),  # too little RAM
        ("esp32c3?kind=usb-jtag", 115200, Codec.ZLIB),
    ],
)
def test_lzma_is_sent_where_it_is_faster(
    opened: Opened, chip: str, baud: int, codec: Codec
) -> None:
    write(*start_stub(chip, baud))
    assert [write[1] for write in opened.writes] == [codec]


@pytest.mark.parametrize(
    ("chip", "baud", "codec"),
    [
        ("esp32h2?kind=usb-jtag", 115200, Codec.RAW),  # the CPU is slower than line and flash
        ("esp32h4", 2_000_000, Codec.RAW),
        ("esp32h4", 921600, Codec.ZLIB),
    ],
)
def test_data_is_sent_as_it_is_where_that_is_faster(
    opened: Opened, chip: str, baud: int, codec: Codec
) -> None:
    write(*start_stub(chip, baud), data=DENSE)
    assert [write[1] for write in opened.writes] == [codec]


def test_fewer_bytes_are_sent_and_the_plan_estimates_them(opened: Opened) -> None:
    sent = {}
    for features in (Feature(-1), ~Feature.LZMA_RISCV):
        device, transport = start_stub("esp32c3", 115200)
        capabilities = device.loader.dialect.capabilities
        assert capabilities is not None
        vars(capabilities)["features"] = capabilities.features & features
        began, events = transport.now(), []
        write_flash(device, [Blob(ADDRESS, FIRMWARE)], report=events.append)
        sent[opened.writes[-1][1]] = transport.now() - began
        estimate = next(event.seconds for event in events if type(event).__name__ == "PlanReady")
        assert estimate == pytest.approx(sent[opened.writes[-1][1]], rel=0.15)
    assert sent[Codec.LZMA_RISCV] < 0.93 * sent[Codec.ZLIB]


def test_a_user_who_forbids_compression_gets_none(opened: Opened) -> None:
    write(*start_stub("esp32", 115200), Policy(compress=False))
    assert [write[1] for write in opened.writes] == [Codec.RAW]


def test_a_user_who_asks_for_compression_gets_it(opened: Opened) -> None:
    write(*start_stub("esp32h4", 2_000_000), Policy(compress=True), DENSE)
    assert [write[1] for write in opened.writes] == [Codec.ZLIB]


def test_python_without_lzma_sends_zlib(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    device, transport = start_stub("esp32", 115200)
    monkeypatch.setattr("espwire.device.backends.stub.has_lzma", lambda: False)
    write(device, transport)
    assert [write[1] for write in opened.writes] == [Codec.ZLIB]


def test_a_virtual_chip_without_lzma_does_not_offer_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("espwire.virtual.programs.stub_model.has_lzma", lambda: False)
    device, _ = start_stub("esp32", 115200)
    capabilities = device.loader.dialect.capabilities
    assert capabilities is not None
    assert not capabilities.features & (Feature.LZMA | Feature.LZMA_RISCV)


@pytest.mark.parametrize(
    ("chip", "baud", "data", "codecs", "size"),
    [
        ("esp32c3", 115200, FIRMWARE, (Codec.LZMA_RISCV, Codec.LZMA_RISCV), None),
        # raw data is faster only as long as nothing is lost
        ("esp32h4", 2_000_000, DENSE, (Codec.RAW, Codec.ZLIB), len(DENSE) + 3),
    ],
    ids=["LZMA", "raw"],
)
def test_a_broken_transfer_goes_on_where_it_was(
    opened: Opened,
    monkeypatch: pytest.MonkeyPatch,
    chip: str,
    baud: int,
    data: bytes,
    codecs: tuple[Codec, Codec],
    size: int | None,
) -> None:
    device, transport = start_stub(chip, baud)
    send, broken = WriteTransfer.send, False

    def fail_once(self: WriteTransfer, chunk: bytes) -> None:
        nonlocal broken
        send(self, chunk)
        if self.in_flash >= 0x1000 and not broken:
            broken = True
            raise NoReply("the stub stopped acknowledging data")

    monkeypatch.setattr(WriteTransfer, "send", fail_once)
    write(device, transport, data=data)
    (first, codec, announced), (second, again, _) = opened.writes
    assert first == ADDRESS < second < ADDRESS + len(FIRMWARE)
    assert second % 0x1000 == 0
    assert (codec, again) == codecs
    assert announced == size


def test_data_goes_out_while_the_rest_is_compressed(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on, done = threading.Event(), threading.Event()

    def slowly(data: bytes, form: LzmaForm) -> Iterator[tuple[bytes, int]]:
        for number, item in enumerate(compress_lzma(data, form)):
            if number == 3:
                assert go_on.wait(20)
            yield item
        done.set()

    monkeypatch.setattr("espwire.compress.compress_lzma", slowly)
    device, transport = start_stub("esp32", 115200)
    send = WriteTransfer.send

    def look(self: WriteTransfer, chunk: bytes) -> None:
        send(self, chunk)
        if self.received:
            assert go_on.is_set() or not done.is_set()
            go_on.set()

    monkeypatch.setattr(WriteTransfer, "send", look)
    noise = random.Random(3).randbytes(0x30000)
    device.backend.write(ADDRESS, noise, codec=Codec.LZMA)
    assert bytes(transport.chip.flash.contents[ADDRESS : ADDRESS + len(noise)]) == noise
    assert done.is_set()
    assert opened.writes == [(ADDRESS, Codec.LZMA, None)]


@pytest.mark.parametrize("chip", ["esp32c3", "esp32h4"])
def test_a_few_bytes_that_unpack_to_much_are_no_loss(opened: Opened, chip: str) -> None:
    """The stub answers nothing while it programs them."""
    device, transport = start_stub(chip, 921600)
    write(
        device,
        transport,
        data=bytes(random.Random(3).choices(range(16), k=200_000)) + bytes(1 << 20),
    )
    assert len(opened.writes) == 1
