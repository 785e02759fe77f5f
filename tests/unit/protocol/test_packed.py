"""Packed packets: what the packer makes, the host unpacks; anything else is refused and never expands."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.stub_drivers.contents import CONTENTS

from espwire.protocol import packed as p
from espwire.virtual.programs.read_packer import HISTORY, Packer

PACKET = 4096


def pack(data, known=b"", at=0):
    return Packer().pack(at, known, data, p.build_codes())


def test_the_codes_are_complete_and_fit_their_words():
    codes = p.build_codes()
    assert len(codes) == p.CODES == 316
    assert len(p.codes_body()) == 2 * 316
    for part in (codes[: p.LITERALS], codes[p.LITERALS :]):
        sizes = [code >> 12 for code in part]
        assert min(sizes) > 0
        assert max(sizes) <= p.MOST_BITS
        assert sum(1 << p.MOST_BITS - size for size in sizes) == 1 << p.MOST_BITS
        assert len(set(part)) == len(part)


@pytest.mark.parametrize("name", CONTENTS)
def test_packets_come_back_with_what_came_before(name):
    data, packer, found, total = CONTENTS[name](5 * PACKET + 1234), Packer(), b"", 0
    for at in range(0, len(data), PACKET):
        packet = data[at : at + PACKET]
        known = data[max(0, at + len(packet) - HISTORY) : at]
        content = packer.pack(at, known, packet, p.build_codes())
        total += len(content or packet)
        found += packet if content is None else p.unpack(content, len(packet), found[-p.HISTORY :])
    assert found == data
    print(f"{name}: {total / len(data):.3f}")


@given(st.binary(min_size=1, max_size=300), st.integers(1, 40))
def test_small_contents_and_odd_sizes_come_back(data, repeats):
    content = data * repeats
    packed = pack(content)
    assert packed is None or p.unpack(packed, len(content), b"") == content
    assert packed is not None or repeats < 3 or len(data) < 20


def test_random_data_is_not_packed():
    assert pack(random.Random(1).randbytes(PACKET)) is None


def test_a_packet_that_refers_to_the_history_needs_it():
    known, packet = CONTENTS["program"](PACKET), CONTENTS["program"](PACKET)
    packed = pack(packet, known, PACKET)
    assert packed is not None
    # the table is empty, so that this packer does not know the history
    packer = Packer()
    packer.pack(0, b"", known, p.build_codes())
    shorter = packer.pack(PACKET, known, packet, p.build_codes())
    assert len(shorter) < 100 < len(packed)
    assert p.unpack(shorter, PACKET, known) == packet
    assert p.unpack(shorter, PACKET, b"") is None


@pytest.mark.parametrize("size", [0, 1, PACKET - 1, PACKET + 1, 0xFFFF])
def test_another_size_than_announced_is_refused(size):
    packed = pack(bytes(PACKET))
    assert p.unpack(packed, PACKET, b"") == bytes(PACKET)
    assert p.unpack(packed, size, b"") is None


def test_a_packet_that_expands_too_far_is_not_unpacked_to_its_end():
    codes = p.build_codes()
    length, distance = codes[284], codes[p.LITERALS]  # 227 bytes and more, from one byte back
    bits = at = 0
    for value, count in [(codes[0] & 0xFFF, codes[0] >> 12)] + 4000 * [
        (length & 0xFFF, (length >> 12) + 5),
        (distance & 0xFFF, distance >> 12),
    ]:
        bits |= value << at
        at += count
    bomb = bits.to_bytes(at + 7 >> 3, "little")
    assert len(bomb) < 0x4000
    assert p.unpack(bomb, PACKET, b"") is None


@given(st.binary(max_size=200), st.integers(0, 600), st.binary(max_size=50))
def test_no_bytes_make_unpacking_raise_or_exceed_its_size(content, size, history):
    found = p.unpack(content, size, history)
    assert found is None or len(found) == size


def test_damaged_packets_are_refused_or_keep_their_size():
    pick, content = random.Random(3), CONTENTS["program"](PACKET)
    packed, refused = pack(content), 0
    for _ in range(2000):
        spoiled = bytearray(packed)
        for _ in range(pick.choice((1, 1, 3))):
            spoiled[pick.randrange(len(spoiled))] ^= 1 << pick.randrange(8)
        found = p.unpack(
            bytes(spoiled[: pick.choice((None, pick.randrange(len(spoiled))))]), PACKET, b""
        )
        refused += found is None
        assert found is None or len(found) == PACKET
    assert refused > 1000
