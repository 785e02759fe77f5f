"""The C code accepts no request with a flipped bit: every bit of every command on this PC, a sample on the engines."""

from __future__ import annotations

import random

import pytest
from tests.stub_drivers.flips import REQUESTS, flip, flips
from tests.stub_drivers.frames import BAD_CHECK, UNKNOWN, frame, sent, split, whole
from tests.stub_drivers.host_program import HostStub
from tests.unit.stub.board import Bench

from espwire.chips.registry import load_chip
from espwire.device.stub_image import load_stub, stub_chips
from espwire.protocol import slip
from espwire.protocol import stub as s
from espwire.protocol.commands import EraseFlash, ReadReg, Reply, Sync
from espwire.protocol.opcodes import Op

SYNC_BODY = Sync().body()
MARK = s.seal(frame(0x77))
MARKED = Reply(0x77, 0, UNKNOWN.to_bytes(2, "big")).packet()


def answers_to(stub, wire):
    """The answers to these bytes; a marked request after them is answered last."""
    stub.send(wire + slip.END * 2 + slip.encode(MARK))
    found = [stub.next()]
    while found[-1] != MARKED:
        found.append(stub.next())
    return found[:-1]


@pytest.mark.parametrize("command", REQUESTS, ids=lambda command: type(command).__name__)
def test_every_flipped_bit_of_a_request_is_refused_and_nothing_done(command):
    stub = HostStub()
    packet = s.seal(command.packet())
    refused = 0
    for wire in flips(slip.encode(packet)):
        answers = [whole(answer) for answer in answers_to(stub, wire)]
        assert all(one.body == BAD_CHECK.to_bytes(2, "big") for one in answers), wire.hex()
        refused += any(s.refuses(one, packet) for one in answers)
    assert refused > 0 or command.op in (
        s.StubOp.WRITE_DATA,
        s.StubOp.READ_ACK,
    )  # these have no answer
    assert stub.close().startswith("end of input")


@pytest.mark.parametrize("chip", stub_chips())
def test_the_packed_images_refuse_alike(chip):
    image, pick = load_stub(chip), random.Random(chip)
    bench = Bench(load_chip(chip), image.entry, image.segments)
    assert bench.send() == [s.HELLO]
    for command in REQUESTS:
        packet = s.seal(command.packet())
        for answer in bench.send(flip(packet, pick.randrange(8 * len(packet)))):
            assert split(answer)[1] == BAD_CHECK
    assert not bench.board.nor.erased


def test_unsealed_requests_count_after_an_unsealed_sync_until_the_next_sealed_one():
    stub, read = HostStub(), ReadReg(0x60000000)
    stub.send(slip.encode(read.packet()))
    assert split(stub.next())[1] == BAD_CHECK
    stub.unseal()
    assert split(stub.ask(read.packet())[0])[1] == 0
    assert (
        split(stub.ask(s.AskCapabilities().packet())[0])[1] == BAD_CHECK
    )  # ours are always sealed
    stub.sealed = True
    assert split(stub.ask(read.packet())[0])[1] == 0
    stub.send(slip.encode(EraseFlash().packet()))
    assert split(stub.next())[1] == BAD_CHECK
    stub.close()


def test_data_that_looks_like_a_request_is_not_executed():
    """A flipped bit can turn a byte of data into an end of frame; any data may follow."""
    stub, data = HostStub(), bytes(2048 - 9) + b"\xc1" + EraseFlash().packet()
    stub.write(0, 4, b"mark", s.Codec.RAW)
    assert stub.call(s.WriteOpen(0x1000, 2048, 2048, s.Codec.RAW, 0, 1).packet())[1] == 0
    wire = slip.encode(sent(s.WriteData(0, data).packet()))
    assert wire[-10:-9] == b"\xc1"
    stub.send(flip(wire, 8 * (len(wire) - 10)))
    stub.abort()
    assert stub.read(0, 4) == b"mark"
    assert [whole(one).body for one in answers_to(stub, flip(wire, 8 * (len(wire) - 10)))] == [
        b"\xc1\0"
    ]
    assert stub.read(0, 4) == b"mark"
    stub.close()


def test_a_write_of_ours_is_ended_by_no_unsealed_request_but_a_sync():
    stub = HostStub()
    assert stub.call(s.WriteOpen(0, 4096, 4096, s.Codec.RAW, 0, 1).packet())[1] == 0
    stub.send(slip.encode(ReadReg(0x60000000).packet()))
    assert split(stub.ask(s.WriteData(0).packet())[0])[0].op == s.StubOp.WRITE_DATA
    stub.sealed = False
    assert len(stub.ask(frame(Op.SYNC, SYNC_BODY), answers=8)) == 8
    stub.abort()
    stub.close()
