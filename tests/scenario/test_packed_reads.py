"""Reads by our stub through the library: packed on a UART, plain over USB, and what happens if something is wrong."""

import random

import pytest
from tests.stub_drivers.contents import CONTENTS

from espwire.device.backends.stub import ReadTransfer
from espwire.device.connect import connect
from espwire.errors import DeviceError, NoReply, VerifyError
from espwire.flash.read import read_flash, read_to_file
from espwire.protocol import packed
from espwire.protocol import stub as s
from espwire.virtual.programs.stub_read import _Transfer
from espwire.virtual.transport import open_virtual

SIZE = 60_001
NOISE = random.Random(6).randbytes(SIZE)


def open_device(chip="esp32c3", query="", content=b"", baud=921600):
    transport = open_virtual(f"virtual:{chip}?size=1MB&{query}")
    transport.chip.flash.contents[: len(content)] = content
    device = connect(transport, baud=baud, stub=True)
    device.attach_flash()
    return device


def opening(device):
    """The last READ_OPEN."""
    commands = [packet.command for packet in device.loader.packets]
    return [command for command in commands if isinstance(command, s.ReadOpen)][-1]


def send_instead(monkeypatch, change):
    """Have the stub send other contents: ``change`` gets position, size and content, and returns size and content."""
    send = _Transfer._send_packet

    def changed(self, position, size, content):
        return send(self, position, *change(position, size, content))

    monkeypatch.setattr(_Transfer, "_send_packet", changed)


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("query", ["", "kind=usb-jtag"])
def test_every_content_comes_back(name, query):
    data = CONTENTS[name](SIZE)
    with open_device(query=query, content=data) as device:
        assert read_flash(device, 0, SIZE) == data
        assert read_flash(device, 3, 4097) == data[3:4100]
        assert read_flash(device, SIZE - 1, 1) == data[-1:]


@pytest.mark.parametrize("chip", ["esp32", "esp32c3", "esp8266"])
def test_program_code_takes_less_time_than_its_bytes_on_the_line(chip):
    data = CONTENTS["program"](SIZE)
    with open_device(chip, content=data) as device:
        before = device.transport.now()
        assert read_flash(device, 0, SIZE) == data
        assert device.transport.now() - before < 0.6 * SIZE * 10 / 921600
        assert opening(device).flags == s.READ_SHORT_BLANKS | s.READ_CHECKED | s.READ_PACKED
        assert opening(device).codes == packed.codes_body()


def test_over_usb_packets_are_checked_but_not_packed():
    with open_device(query="kind=usb-jtag", content=NOISE) as device:
        assert read_flash(device, 0, SIZE) == NOISE
        assert opening(device).flags == s.READ_SHORT_BLANKS | s.READ_CHECKED
        assert opening(device).codes == b""


@pytest.mark.parametrize(
    "change",
    [
        lambda position, size, content: (size - 1, content),
        lambda position, size, content: (size + 1, content),
        lambda position, size, content: (0xFFFF, content),
        lambda position, size, content: (size, content[:-1]),
        lambda position, size, content: (size, content + b"\0"),
        lambda position, size, content: (size, b"\xff" * 300),
    ],
    ids=["shorter", "longer", "longest", "cut", "more", "nonsense"],
)
def test_an_intact_packet_that_is_invalid_is_a_clear_error(monkeypatch, change):
    content = CONTENTS["program"](8192)
    send_instead(monkeypatch, lambda *packet: change(*packet) if packet[0] == 4096 else packet[1:])
    with open_device(content=content) as device:
        with pytest.raises(DeviceError, match="invalid packet at 0x1000") as caught:
            read_flash(device, 0, 8192)
        assert caught.value.code == "bad-reply"
        monkeypatch.undo()
        assert read_flash(device, 0, 8192) == content


def test_contents_that_differ_from_the_md5_are_not_kept(monkeypatch, tmp_path):
    send_instead(
        monkeypatch,
        lambda position, size, content: (size, content[:-1] + b"?" if not position else content),
    )
    with open_device(content=NOISE) as device:
        with pytest.raises(VerifyError, match="differs from the chip's MD5"):
            read_to_file(device, 0, SIZE, tmp_path / "dump.bin")
        assert not list(tmp_path.iterdir())


def test_a_lost_md5_is_requested_again(monkeypatch):
    lost = []
    receive = ReadTransfer._receive_packet

    def lose(self):
        if self.received == self.size and not lost:
            lost.append(self._loader.receive(s.StubOp.READ_OPEN, 1.0))
        return receive(self)

    monkeypatch.setattr(ReadTransfer, "_receive_packet", lose)
    with open_device(content=NOISE) as device:
        assert read_flash(device, 0, SIZE) == NOISE
        assert lost[0].value == SIZE


@pytest.mark.parametrize("right", [True, False])
def test_a_broken_read_goes_on_where_it_was_and_is_checked_as_a_whole(monkeypatch, right):
    opened, receive = [], ReadTransfer._open_packet

    def fail(self, reply, expected):
        if self.offset not in opened:
            opened.append(self.offset)
        if self.offset + self.received == 0x4000 and len(opened) == 1:
            raise NoReply("broken")
        data = receive(self, reply, expected)
        return data if right or self.received or self.offset else b"?" * expected

    monkeypatch.setattr(ReadTransfer, "_open_packet", fail)
    content = CONTENTS["mixed"](SIZE)
    with open_device(content=content) as device:
        if right:
            assert read_flash(device, 0, SIZE) == content
        else:
            with pytest.raises(VerifyError, match="differs from the chip's MD5"):
                read_flash(device, 0, SIZE)
    assert opened == [0, 0x4000]


def test_a_bad_line_is_survived_and_a_worse_one_reported():
    content = CONTENTS["mixed"](SIZE)
    with open_device(query="fault=flip:3e-6&seed=5", content=content) as device:
        assert read_flash(device, 0, SIZE) == content
    with (
        pytest.raises((NoReply, DeviceError, VerifyError)),  # at the latest while it reads
        open_device(query="fault=flip:1e-3&seed=5", content=content, baud=115200) as device,
    ):
        read_flash(device, 0, SIZE)


def test_the_harness_sees_packets_that_refer_to_lost_ones(monkeypatch):
    monkeypatch.setattr(_Transfer, "go_back", lambda self: None)
    content = CONTENTS["program"](SIZE)
    device = open_device(query="fault=flip:1e-4&seed=1", content=content)
    with device, pytest.raises((DeviceError, VerifyError)):
        read_flash(device, 0, SIZE)
