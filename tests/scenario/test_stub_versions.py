"""A stub that stayed: taken up again sealed, left to vendor tools unsealed; one of another protocol version is not used."""

import pytest
from tests.stub_drivers.flips import FlippingLink

from espwire.device.backends.stub_commands import ask_capabilities, is_of_another_protocol
from espwire.device.connect import connect
from espwire.errors import ConnectError, NoReply
from espwire.events import Note
from espwire.protocol import slip
from espwire.protocol import stub as s
from espwire.protocol.commands import ReadReg, Reply, Sync, parse_reply, parse_request
from espwire.protocol.replies import BAD_CHECKSUM
from espwire.virtual.transport import open_virtual

OLD = s.Capabilities(
    code_crc=0,
    features=s.Feature(0xFFB), frame_payload=2048, write_window=26624, read_packet=4096, read_window=65536,
    cpu_hz=240_000_000, batch_bytes=512, image_chip_id=0, build=b"12345678",
)  # fmt: skip


class OldStub:
    """A chip on which a stub of protocol version 1 runs, until a reset: unsealed answers, CRCs of the body in requests."""

    def __init__(self, *, can_reset):
        self.transport, self.decoder, self.answers = (
            open_virtual("virtual:esp32"),
            slip.Decoder(),
            b"",
        )
        self.transport.sleep(1.0)
        self.boots = self.transport.chip.boots
        self.info = type(self.transport.info)(
            **{f: getattr(self.transport.info, f) for f in ("name", "kind", "can_change_baud")},
            can_reset=can_reset,
        )

    def __getattr__(self, name):
        return getattr(self.transport, name)

    @property
    def running(self):
        return self.transport.chip.boots == self.boots

    def write(self, data, deadline):
        if not self.running:
            self.transport.write(data, deadline)
            return
        for frame in self.decoder.feed(data):
            request = parse_request(frame)
            if request is None:
                continue
            value, body = 0, b"\0\0"
            if request.op == s.StubOp.CAPABILITIES:
                value, body = 1, OLD.pack() + body
            if request.check:
                value, body = 0, BAD_CHECKSUM.to_bytes(2, "big")  # it is no CRC of the body alone
            self.answers += slip.encode(Reply(request.op, value, body).packet()) * (
                8 if request.op == Sync.op else 1
            )

    def read(self, timeout):
        if not self.running:
            return self.transport.read(timeout)
        data, self.answers = self.answers, b""
        if not data:
            self.transport.sleep(timeout)
        return data


def test_an_old_stub_is_reset_away():
    transport, events = OldStub(can_reset=True), []
    with connect(transport, before="no-reset", report=events.append, stub=False) as device:
        assert not device.loader.dialect.sealed
        assert device.loader.dialect.name == "ROM"
    assert any(
        "resetting the chip into its ROM" in event.text
        for event in events
        if isinstance(event, Note)
    )


def test_an_old_stub_that_cannot_be_reset_is_reported():
    with pytest.raises(ConnectError, match="another version of espwire") as caught:
        connect(OldStub(can_reset=False), before="no-reset", stub=False)
    assert caught.value.code == "stub-running"
    assert "RESET" in caught.value.hint


@pytest.fixture
def stayed():
    """The link of a chip on which our stub stayed."""
    transport = open_virtual("virtual:esp32")
    device = connect(transport, stub=True)
    device.attach_flash()
    device.leave("no-reset-stub")
    return transport


@pytest.mark.parametrize("before", ["no-reset", "no-reset-no-sync"])
def test_a_stub_that_stayed_is_used_sealed(stayed, before):
    device = connect(stayed, before=before, stub=False)
    assert device.loader.dialect.sealed
    assert device.mac == "24:0a:c4:00:01:10"
    assert not is_of_another_protocol(device.loader)


def ask(transport, packet):
    transport.write(slip.encode(packet), transport.now() + 1)
    decoder, found = slip.Decoder(), []
    while data := transport.read(0.2):
        found += decoder.feed(data)
    return [parse_reply(frame) for frame in found]


@pytest.mark.parametrize("sync", [True, False])
def test_a_stub_that_stayed_answers_a_vendors_tool(stayed, sync):
    if sync:
        assert ask(stayed, Sync().packet()) == [Reply(Sync.op, 0, b"\0\0")] * 8
    assert ask(stayed, ReadReg(0x40001000).packet()) == [Reply(ReadReg.op, 0x00F01D83, b"\0\0")]


def test_a_stub_left_in_the_middle_of_a_write_answers_a_vendors_sync():
    transport = open_virtual("virtual:esp32")
    loader = connect(transport, stub=True).loader
    loader.call(s.WriteOpen(0x10000, 8192, 8192, s.Codec.RAW, 0, 7))
    assert ask(transport, ReadReg(0x40001000).packet()) == []
    assert ask(transport, Sync().packet()) == [Reply(Sync.op, 0, b"\0\0")] * 8
    assert ask(transport, ReadReg(0x40001000).packet()) == [Reply(ReadReg.op, 0x00F01D83, b"\0\0")]


@pytest.mark.parametrize("way", ["out", "in"])
def test_the_running_stub_is_identified_with_any_flipped_bit(stayed, way):
    transport = FlippingLink(stayed)
    device = connect(transport, before="no-reset", stub=False)
    expected = device.loader.dialect.capabilities
    transport.arm(None, 0)
    assert ask_capabilities(device.loader) == expected
    for bit in range(8 * transport.passed[way]):
        transport.arm(way, bit)
        assert ask_capabilities(device.loader) == expected, bit


@pytest.mark.parametrize("way", ["out", "in"])
def test_a_soft_reset_is_done_or_fails_whichever_bit_flips(way):
    bits, bit = 1, 0
    while bit < bits:
        transport = FlippingLink(open_virtual("virtual:esp8266"))
        device = connect(transport, stub=True)
        device.attach_flash()
        boots = transport.chip.boots
        transport.arm(way, bit)
        try:
            device.leave("soft-reset")
        except NoReply:
            pass
        else:
            transport.sleep(0.1)
            assert transport.chip.boots > boots, bit
        bits, bit = 8 * 14, bit + 29
