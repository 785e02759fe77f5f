"""Packed reads of the stub's sources on this PC, with sanitizers: the same bytes as from the model's packer.

On the chips' engines: tests/unit/virtual/test_random_streams.py.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

import pytest
from tests.stub_drivers.contents import CONTENTS
from tests.stub_drivers.frames import BAD_BLOCK, BAD_LENGTH, open_checked, text, whole
from tests.stub_drivers.host_program import HostStub

from espwire.protocol import stub as s
from espwire.protocol.packed import build_codes, codes_body
from espwire.virtual.programs.read_packer import HISTORY, Packer

BASE = 0x10000
ALL = s.READ_SHORT_BLANKS | s.READ_CHECKED | s.READ_PACKED


@pytest.fixture
def stub() -> Iterator[HostStub]:
    found = HostStub()
    yield found
    found.close()


def opening(size: int, step: int, window: int = 65536, flags: int = ALL) -> bytes:
    codes = codes_body() if flags & s.READ_PACKED else b""
    return s.ReadOpen(BASE, size, step, window, flags, codes).packet()


@pytest.mark.parametrize("size", [1, 2, 3, 4, 5, 63, 64, 65, 4095, 4096, 4097, 8191, 20_001])
@pytest.mark.parametrize("name", CONTENTS)
def test_every_content_and_size_comes_back(stub, name, size):
    data = CONTENTS[name](size)
    stub.write(BASE, size, data, s.Codec.RAW)
    for start in (0, 1, 3, 64):
        if start < size:
            assert stub.read_checked(BASE + start, size - start)[0] == data[start:]


@pytest.mark.parametrize("step", [4, 64, 1000, 1028, 2048, 4092, 4096])
def test_every_packet_size(stub, step):
    data = CONTENTS["mixed"](9001)
    stub.write(BASE, len(data), data, s.Codec.RAW)
    assert stub.read_checked(BASE, len(data), step, window=max(step, 64))[0] == data
    assert stub.read_checked(BASE, len(data), step, window=65536, packed=False)[0] == data


@pytest.mark.parametrize("name", CONTENTS)
def test_the_packer_of_the_model_makes_the_same_bytes(stub, name):
    data, step = CONTENTS[name](50_000), 4096
    stub.write(BASE, len(data), data, s.Codec.RAW)
    stub.ask(opening(len(data), step))
    packer, known, at = Packer(), b"", 0
    for position in range(0, len(data), step):
        packet = data[position : position + step]
        content = b""
        if packet.count(0xFF) == len(packet):
            known = b""
        else:
            known = known[-(HISTORY - len(packet)) :]
            content = packer.pack(at, known, packet, build_codes()) or packet
            known += packet
        at += step
        found = s.parse_checked_packet(whole(stub.next()))
        assert found == s.CheckedPacket(position, len(packet), content)
        stub.post(s.ReadAck(position + len(packet)).packet())


def test_going_back_refers_to_nothing_that_was_lost(stub):
    """After every position, the host goes back there once, and unpacks what follows with what it has."""
    data, step = text(12_000), 1024
    stub.write(BASE, len(data), data, s.Codec.RAW)
    stub.ask(opening(len(data), step, window=step))
    found = b""
    while len(found) < len(data):
        stub.next()  # lost
        stub.post(s.ReadAck(len(found), s.ACK_AGAIN).packet())
        # what was known before the loss is not used either
        while whole(answer := stub.next()).value != len(found):
            pass  # the MD5 was on its way
        content = open_checked(answer, min(step, len(data) - len(found)), b"")[1]
        found += content
        stub.post(s.ReadAck(len(found)).packet())
    assert found == data


def test_the_digest_comes_again_and_holds_for_any_order(stub):
    data = text(10_000)
    stub.write(BASE, len(data), data, s.Codec.RAW)
    digest = hashlib.md5(data, usedforsecurity=False).digest()
    stub.ask(opening(len(data), 4096), answers=1 + 3 + 1)
    # from places that are no packet's start
    for place in (1, 5000, 9999, len(data)):
        stub.post(s.ReadAck(place, s.ACK_AGAIN).packet())
        while (answer := whole(stub.next())).value != len(data):
            pass
        packet = s.parse_checked_packet(answer)
        assert packet == s.CheckedPacket(len(data), 16, digest)
    stub.post(s.ReadAck(len(data) + 16).packet())


def test_openings_that_are_not_as_they_must_be(stub):
    for flags, codes in ((ALL, b""), (s.READ_CHECKED, codes_body()), (ALL, codes_body()[:-2])):
        command = s.ReadOpen(BASE, 4096, 4096, 4096, flags, codes)
        assert stub.call(command.packet())[1] == BAD_LENGTH
    assert stub.call(opening(4096, 4097))[1] == BAD_BLOCK
    assert stub.call(opening(4096, 0))[1] == BAD_BLOCK
    assert stub.call(opening(4096, 4096, 4095))[1] == BAD_BLOCK


def test_any_codes_are_survived(stub):
    """Codes of no sense give packets of no sense; the sanitizers see whether memory is touched."""
    pick, data = random.Random(1), CONTENTS["mixed"](20_000)
    stub.write(BASE, len(data), data, s.Codec.RAW)
    for codes in (bytes(632), b"\xff" * 632, pick.randbytes(632), pick.randbytes(632)):
        stub.ask(s.ReadOpen(BASE, len(data), 4096, 65536, ALL, codes).packet(), answers=7)
        stub.post(s.ReadAck(len(data) + 16).packet())
    assert stub.read_checked(BASE, len(data))[0] == data


def test_random_reads_with_damage_and_losses(stub, request):
    many = 3000 if "soak" in request.config.getoption("-m") else 60
    pick, data = random.Random(5), CONTENTS["mixed"](100_000)
    stub.write(BASE, len(data), data, s.Codec.RAW)
    for _ in range(many):
        start, step = pick.randrange(90_000), pick.choice((256, 1000, 4096))
        size, window = pick.randrange(1, 10_000), pick.choice((step, 3 * step, 65536))
        command = s.ReadOpen(BASE + start, size, step, window, ALL, codes_body())
        stub.ask(command.packet())
        found, trouble = b"", pick.choice((0.0, 0.2))
        while len(found) < size:
            answer = stub.next()
            packet = s.parse_checked_packet(whole(answer))
            if packet.position != len(found):
                continue
            if pick.random() < trouble:
                stub.post(s.ReadAck(len(found), s.ACK_AGAIN).packet())
                continue
            found += open_checked(answer, min(step, size - len(found)), found)[1]
            stub.post(s.ReadAck(len(found)).packet())
        assert found == data[start : start + size]
        stub.abort()
