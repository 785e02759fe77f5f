"""What comes before the first byte of data: how long it takes, and what happens where the quick way does not work."""

from __future__ import annotations

from dataclasses import replace

import pytest

from espwire import Device, connect
from espwire.blob import Blob
from espwire.chips.registry import load_chip
from espwire.device import stub_upload as starting
from espwire.device.double_read import read_words
from espwire.device.stub_image import StubImage, StubOptions, load_stub
from espwire.errors import ConnectError
from espwire.events import Event, Note, StubStarted, Warned
from espwire.flash.write import write_flash
from espwire.protocol.commands import Sync
from espwire.protocol.opcodes import Op
from espwire.protocol.stub import StubOp
from espwire.transport.url import open_transport

GOALS_S = {"esp8266": 0.6, "esp32": 0.39, "esp32c3": 0.39}
BAUD = 921600


class Reached(Exception):
    """The first data is about to be sent."""


def stop_at(device_link, marks):
    """Have the link raise when the first frame of data is handed to it."""
    write = device_link.write

    def watch(data, deadline):
        if data[1:3] == bytes((0, StubOp.WRITE_DATA)):
            marks.append(device_link.now())
            raise Reached
        write(data, deadline)

    device_link.write = watch


@pytest.mark.parametrize("mode", ["twin", "engine"])
@pytest.mark.parametrize("chip", GOALS_S)
def test_it_is_as_short_as_promised(chip: str, mode: str) -> None:
    transport = open_transport(f"virtual:{chip}?size=4MB&stub={mode}")
    marks: list[float] = []
    stop_at(transport, marks)
    device = connect(transport, baud=BAUD, stub=True)
    device.attach_flash()
    with pytest.raises(Reached):
        write_flash(device, [Blob(0x10000, bytes(range(256)) * 64)])
    assert 0.2 < marks[0] <= GOALS_S[chip]


def open_with(
    first: StubImage | None, monkeypatch, query: str = "", **more: object
) -> tuple[Device, list[Event]]:
    """An ESP8266 whose stub comes with that first stage."""
    monkeypatch.setattr(starting, "load_stub", lambda chip: replace(load_stub(chip), first=first))
    events: list[Event] = []
    url = f"virtual:esp8266?size=1MB&stub=engine&{query}"
    return connect(url, baud=BAUD, stub=True, report=events.append, **more), events  # type: ignore[arg-type]


def told(events: list[Event]) -> list[str]:
    return [e.text for e in events if isinstance(e, Note)] + [
        e.code for e in events if isinstance(e, Warned)
    ]


def broken(how: str) -> StubImage:
    first = load_stub("esp8266").first
    assert first is not None
    ((address, code),) = first.segments
    if how == "falls over":
        return replace(first, segments=((address, bytes(len(code))),))
    jump_to_itself = b"\x06\xff\xff"
    at = first.entry - address
    return replace(first, segments=((address, code[:at] + jump_to_itself + code[at + 3 :]),))


@pytest.mark.parametrize("how", ["falls over", "loops"])
def test_a_first_stage_that_does_not_start_costs_time_only(how, monkeypatch):
    device, events = open_with(broken(how), monkeypatch)
    with device:
        assert device.loader.dialect.capabilities is not None
        assert device.loader.baud == BAUD
        assert [e.stub for e in events if isinstance(e, StubStarted)] == ["stub"]
        (text,) = told(events)
        assert text.startswith("the stub did not start in two stages")
        assert text.endswith("at 115200 baud")


def test_a_rate_that_the_wire_does_not_carry_is_left_again(monkeypatch):
    """The first stage answers no more at the new rate: the ROM is taken back, and the old rate with it."""

    def refuse(loader, chip, registers, baud, crystal):
        loader.transport.set_baud(baud)
        loader.baud = baud
        raise ConnectError("the chip does not answer there", code="baud-change")

    monkeypatch.setattr(starting, "change_baud", refuse)
    device, events = open_with(load_stub("esp8266").first, monkeypatch)
    with device:
        assert device.loader.dialect.capabilities is not None
        assert told(events)[0].endswith("at 115200 baud")


def test_none_is_used_where_nothing_can_take_it_back(monkeypatch):
    sent: list[int] = []
    upload = starting.upload
    monkeypatch.setattr(
        starting,
        "upload",
        lambda loader, chip, image, **more: (
            sent.append(image.size),
            upload(loader, chip, image, **more),
        ),
    )
    transport = open_transport("virtual:esp8266?size=1MB&boot=download")
    with connect(transport, baud=BAUD, stub=True, before="no-reset") as device:
        assert sent == [load_stub("esp8266").size]
        assert device.loader.baud == BAUD


def test_a_first_stage_answers_what_it_does_not_know():
    transport = open_transport("virtual:esp8266?size=1MB&stub=engine")
    with connect(transport, stub=False) as device:
        loader, image = device.loader, load_stub("esp8266")
        assert image.first is not None
        starting.start_first_stage(loader, device.chip, image.first, 460800)
        for op in (Op.READ_REG, StubOp.CAPABILITIES, Op.FLASH_BEGIN):
            reply = loader.exchange(op, bytes((0, op, 4, 0)) + bytes(8))
            assert reply.body == b"\xc3\x00"
        assert (
            loader.exchange(Op.MEM_END, bytes((0, Op.MEM_END, 4, 0)) + bytes(8)).body == b"\xc0\x00"
        )
        assert loader.sync() == 0
        starting.start_stub(
            loader, device.chip, image.with_options(StubOptions(baud=460800, spi_clock=0x1001))
        )
        assert loader.dialect.capabilities is not None


def test_its_place_is_free():
    image, own = load_stub("esp8266"), load_chip("esp8266").stub.own
    room = own.first_stage
    ((address, code),) = image.first.segments
    assert room.code_start == address <= image.first.entry < address + len(code) <= room.code_end
    for start, data in image.segments:
        assert start + len(data) <= room.data_start or start >= room.data_end
        assert start + len(data) <= room.code_start or start >= room.code_end


def test_a_lost_answer_among_many_makes_them_be_asked_one_by_one():
    transport = open_transport("virtual:esp32?size=1MB")
    with connect(transport, stub=False) as device:
        addresses = [0x3FF5A000 + 4 * at for at in range(7)]
        wanted = [device.loader.read_reg(address) for address in addresses]
        assert read_words(device.loader, addresses) == wanted
        read, lost = transport.read, []

        def lose(timeout):
            data = read(timeout)
            if not lost and data.count(b"\xc0\x01\x0a"):
                lost.append(data)
                return b""
            return data

        transport.read = lose  # type: ignore[method-assign]
        assert read_words(device.loader, addresses) == wanted
        assert lost


def test_no_more_requests_are_ahead_of_their_answers_than_the_rom_takes():
    transport = open_transport("virtual:esp32?size=1MB")
    with connect(transport, stub=False) as device:
        assert device.divider is not None, "the crystal's register came along"
        write, read, ahead, most, sent = transport.write, transport.read, 0, 0, []

        def count_out(data, deadline):
            nonlocal ahead, most
            requests = data.count(b"\xc0\x00\x0a")
            ahead, most = ahead + requests, max(most, ahead + requests)
            sent.append(requests)
            write(data, deadline)

        def count_in(timeout):
            nonlocal ahead
            data = read(timeout)
            ahead -= data.count(b"\xc0\x01\x0a")
            return data

        transport.write, transport.read = count_out, count_in  # type: ignore[method-assign]
        assert len(read_words(device.loader, [0x3FF5A000 + 4 * at for at in range(20)])) == 20
        assert (most, ahead) == (8, 0)
        assert sent == [8] + [1] * 32, "each word twice"


def test_a_chip_that_changes_its_rate_late_is_asked_again():
    transport = open_transport("virtual:esp32c3?size=1MB")
    with connect(transport, stub=False) as device:
        write, lost = transport.write, []

        def lose(data, deadline):
            if device.loader.baud == BAUD and len(lost) < 3 and Sync().packet() in data:
                lost.append(data)
            else:
                write(data, deadline)

        transport.write = lose  # type: ignore[method-assign]
        device.change_baud(BAUD)
        assert len(lost) == 3
        assert device.loader.read_reg(0x40001000) is not None


def test_a_rate_that_never_comes_ends():
    transport = open_transport("virtual:esp32c3?size=1MB")
    with connect(transport, stub=False) as device:
        read = transport.read
        transport.read = lambda timeout: (
            read(timeout) if device.loader.baud != BAUD else (transport.sleep(timeout), b"")[1]
        )  # type: ignore[method-assign]
        began = transport.now()
        with pytest.raises(ConnectError) as caught:
            device.change_baud(BAUD)
        assert caught.value.code == "baud-change"
        assert transport.now() - began < 6


@pytest.mark.parametrize("chip", ["esp8266", "esp32"])
def test_refusals_that_come_byte_by_byte_are_all_waited_for(chip):
    """As a real ROM's do; one too few, and the next request is taken for refused."""
    transport = open_transport(f"virtual:{chip}?size=1MB")
    read, held = transport.read, bytearray()

    def trickle(timeout):
        held.extend(b"" if held else read(timeout))
        piece = bytes(held[:1])
        del held[:1]
        return piece

    transport.read = trickle
    with connect(transport, stub=False) as device:
        assert device.chip.id == chip
