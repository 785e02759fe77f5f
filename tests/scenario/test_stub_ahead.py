"""What is sent to our stub before its answers are there: the first question with others, a stream with its opening."""

from __future__ import annotations

import zlib

import pytest

from espwire import Device, connect
from espwire.blob import Blob
from espwire.device.backends.stub import WriteTransfer
from espwire.device.loader import Packet
from espwire.errors import CommandFailed, NoReply
from espwire.flash.write import write_flash
from espwire.protocol import slip
from espwire.protocol.commands import Reply
from espwire.protocol.opcodes import Op
from espwire.protocol.stub import Codec, StubOp
from espwire.transport.url import open_transport

pytestmark = pytest.mark.slow

DATA = bytes(at * 7 & 255 for at in range(14_000))
MODES = [("esp32", "twin"), ("esp8266", "twin"), ("esp32c3", "engine")]
HARMS = ["lost request", "damaged request", "lost reply", "damaged reply", "cut reply"]
anywhere = pytest.mark.parametrize(("chip", "mode"), MODES)


class Wire:
    """The frames of one link, for as long as it is watched; harms the first ones with an opcode."""

    def __init__(self, transport, op: int = 0, harm: str = "", times: int = 1) -> None:
        self._times = times
        self.sent: list[int] = []
        self.done = 0
        self.events: list[str] = []
        self._op, self._harm, self._write, self._read = op, harm, transport.write, transport.read
        transport.write, transport.read = self.write, self.read

    def write(self, data: bytes, deadline: float) -> None:
        for frame in slip.Decoder().feed(data):
            if frame[:1] == b"\0":
                self.sent.append(frame[1])
                self.events.append(f"> {frame[1]:02x}")
        if self._harm.endswith("request") and self.done < self._times and self._op in self.sent:
            self.done += 1
            if self._harm.startswith("lost"):
                return
            data = data[:-4] + bytes([data[-4] ^ 0x10]) + data[-3:]
        self._write(data, deadline)

    def read(self, timeout: float) -> bytes:
        data = self._read(timeout)
        at = data.find(bytes((0xC0, 1, self._op)))
        self.events += [f"< {self._op:02x}"] * (at >= 0)
        if at < 0 or self.done >= self._times or not self._harm.endswith("reply"):
            return data
        self.done += 1
        while data.count(0xC0, at) < 2:
            data += self._read(timeout)
        end = data.index(0xC0, at + 1) + 1
        frame = bytearray(data[at:end])
        if self._harm.startswith("cut"):
            del frame[5:9]
        else:
            frame[2] ^= 0x40  # an answer to something that nobody asked
        return data[:at] + (b"" if self._harm.startswith("lost") else bytes(frame)) + data[end:]


def open_stub(chip: str, mode: str, query: str = "") -> Device:
    return connect(f"virtual:{chip}?size=1MB&stub={mode}&{query}", baud=921600, stub=True)


def holds(device: Device, data: bytes = DATA) -> bool:
    return bytes(device.transport.chip.flash.contents[0x10000 : 0x10000 + len(data)]) == data  # type: ignore[attr-defined]


def write(device: Device, packed: bytes | None = None) -> None:
    device.backend.write(0x10000, DATA, packed=packed)


@anywhere
def test_data_does_not_wait_for_the_answer_to_the_opening(chip: str, mode: str) -> None:
    with open_stub(chip, mode, "latency=0.008") as device:
        device.attach_flash()
        wire = Wire(device.transport, StubOp.WRITE_OPEN)
        write(device)
        assert wire.events[:5] == ["> 0b", "> f1", "> f2", "> f2", "> f2"]
        assert wire.events.count("< f1") == 1
        assert holds(device)


@pytest.mark.parametrize("packed", [None, zlib.compress(DATA)], ids=["raw", "packed"])
@pytest.mark.parametrize("op", [StubOp.WRITE_OPEN, StubOp.WRITE_DATA])
@pytest.mark.parametrize("harm", HARMS)
@anywhere
def test_harm_to_the_opening_or_the_first_data_is_repaired(chip, mode, harm, op, packed) -> None:
    with open_stub(chip, mode, "latency=0.008") as device:
        device.attach_flash()
        wire = Wire(device.transport, op, harm)
        began = device.transport.now()
        write(device, packed)
        assert wire.done
        assert holds(device)
        assert device.transport.now() - began < 12
        assert device.loader.read_reg(0x40001000) is not None


@pytest.mark.parametrize("first", [b"", DATA[:0x2000]], ids=["waiting", "ahead"])
@anywhere
def test_a_refused_opening_is_reported_and_its_data_is_dropped(chip, mode, first) -> None:
    with open_stub(chip, mode) as device:
        device.attach_flash()
        before = bytes(device.transport.chip.flash.contents)  # type: ignore[attr-defined]
        with pytest.raises(CommandFailed) as caught:
            WriteTransfer(device.loader, 0xFF000, len(DATA), len(DATA), Codec.RAW, first=first)
        assert str(caught.value) == "WRITE_OPEN failed: wrong block size (0xc200)"
        assert (caught.value.status, caught.value.command) == (0xC200, "WRITE_OPEN")
        assert device.transport.chip.flash.contents == before  # type: ignore[attr-defined]
        write(device)
        assert holds(device)


def test_an_opening_without_a_reply_ends_in_time() -> None:
    with open_stub("esp32", "twin") as device:
        device.attach_flash()
        transport = device.transport
        began, read = transport.now(), transport.read
        transport.read = lambda timeout: (read(timeout), b"")[1]  # type: ignore[method-assign]
        for first in (b"", DATA[:0x2000]):
            with pytest.raises(NoReply) as caught:
                WriteTransfer(device.loader, 0x10000, len(DATA), len(DATA), Codec.RAW, first=first)
            assert str(caught.value) == "no answer to WRITE_OPEN within 3 s"
            device.loader.end_pipeline()
        assert transport.now() - began < 7
        transport.read = read  # type: ignore[method-assign]
        write(device)
        assert holds(device)


def test_the_trace_shows_the_opening() -> None:
    packets: list[Packet] = []
    transport = open_transport("virtual:esp32?size=1MB")
    with connect(transport, stub=True, on_packet=packets.append) as device:
        write_flash(device, [Blob(0x10000, DATA)])
    replies = [packet.content for packet in packets if isinstance(packet.content, Reply)]
    assert [reply.body for reply in replies if reply.op == StubOp.WRITE_OPEN] == [b"\0\0"]


# --- on the way in ---


@pytest.mark.parametrize("harm", HARMS)
@pytest.mark.parametrize("op", [Op.READ_REG, Op.SPI_ATTACH, Op.MEM_BEGIN, Op.MEM_DATA])
@pytest.mark.parametrize("chip", ["esp32", "esp32c3"])
def test_harm_to_what_is_sent_ahead_to_the_rom_is_repaired(chip, op, harm) -> None:
    transport = open_transport(f"virtual:{chip}?size=1MB&latency=0.004")
    wire = Wire(transport, op, harm)
    with connect(transport, baud=921600, stub=True) as device:
        assert wire.done
        assert (device.chip.id, device.mac[:1]) == (chip, "2")
        assert device.loader.dialect.capabilities is not None
        write(device)
        assert holds(device)


def test_a_chip_that_its_boot_text_names_is_known_in_two_trips() -> None:
    transport = open_transport("virtual:esp32?size=1MB")
    wire = Wire(transport, Op.READ_REG)
    with connect(transport, stub=False):
        reads = [event for event in wire.events if event in ("> 0a", "< 0a")]
        assert reads[:10] == ["> 0a", "< 0a", *["> 0a"] * 8], (
            "the magic alone, then the words at once"
        )
        assert f"> {Op.GET_SECURITY_INFO:02x}" not in wire.events


@pytest.mark.parametrize("chip", ["esp32", "esp32c3"])
def test_the_flash_is_attached_along_with_the_beginning_of_the_upload(chip: str) -> None:
    transport = open_transport(f"virtual:{chip}?size=1MB")
    wire = Wire(transport, Op.SPI_ATTACH)
    with connect(transport, stub=True):
        at = wire.events.index(f"> {Op.SPI_ATTACH:02x}")
        assert wire.events[at + 1] == f"> {Op.MEM_BEGIN:02x}"
        assert wire.events.count(f"> {Op.SPI_ATTACH:02x}") == 1


# --- the first question ---


@anywhere
def test_what_the_stub_can_do_and_which_flash_it_is_come_in_one_answer(
    chip: str, mode: str
) -> None:
    transport = open_transport(f"virtual:{chip}?size=1MB&stub={mode}")
    wire = Wire(transport)
    with connect(transport, baud=921600, stub=True) as device:
        info = device.attach_flash()
        assert (info.jedec, info.size) == (0x1440EF, 1 << 20)
        assert not {StubOp.BATCH, StubOp.CAPABILITIES} & {*wire.sent}, (
            "the question came with the image"
        )
        device.attach_flash()
        assert wire.sent.count(StubOp.BATCH) == 1, "asked anew, the part is reset anew"


@pytest.mark.parametrize(("times", "singly"), [(1, False), (2, True)])
@pytest.mark.parametrize("harm", HARMS[2:])
@anywhere
def test_after_harm_the_batch_is_sent_again_and_then_the_requests_singly(
    chip, mode, harm, times, singly
) -> None:
    transport = open_transport(f"virtual:{chip}?size=1MB&stub={mode}&latency=0.004")
    wire = Wire(transport, StubOp.BATCH, harm, times)
    with connect(transport, baud=921600, stub=True) as device:
        assert wire.done == times
        assert device.loader.dialect.capabilities is not None
        assert device.attach_flash().jedec == 0x1440EF
        assert (StubOp.CAPABILITIES in wire.sent) == singly
        write(device)
        assert holds(device)


@pytest.mark.parametrize("harm", HARMS)
@anywhere
def test_harm_to_the_size_is_repaired(chip, mode, harm) -> None:
    with open_stub(chip, mode, "latency=0.004") as device:
        wire = Wire(device.transport, Op.SPI_SET_PARAMS, harm)
        assert device.attach_flash().size == 1 << 20
        assert not wire.sent, "it goes with the next request"
        write(device)
        assert wire.done
        assert wire.sent[:2] == [Op.SPI_SET_PARAMS, StubOp.WRITE_OPEN]
        assert holds(device)


@anywhere
def test_the_size_that_came_is_what_the_stub_checks_by(chip, mode) -> None:
    with open_stub(chip, mode) as device:
        device.attach_flash(size=0x20000)
        with pytest.raises(CommandFailed):
            WriteTransfer(device.loader, 0x1F000, 0x2000, 0x2000, Codec.RAW)


def test_an_implausible_id_is_requested_again() -> None:
    transport = open_transport("virtual:esp32?size=1MB")
    with connect(transport, stub=True) as device:
        device._stub_flash_id = 0xFFFFFF
        assert device.attach_flash().jedec == 0x1440EF


def test_other_pins_or_another_voltage_are_not_answered_from_before() -> None:
    transport = open_transport("virtual:esp32?size=1MB")
    with connect(transport, stub=True) as device:
        assert device._stub_flash_id == 0x1440EF
        device.use_flash_pins("HSPI")
        assert device._stub_flash_id is None
    with connect("virtual:esp32?size=1MB", stub=True) as device:
        device.override_flash_voltage("1.8V")
        assert device._stub_flash_id is None
