"""SLIP framing: golden bytes by hand, and the properties that resynchronising rests on."""

from hypothesis import given
from hypothesis import strategies as st

from espwire.protocol import slip

chunks = st.lists(st.integers(1, 40), max_size=200)


def feed_in_pieces(decoder, stream, sizes):
    frames, at = [], 0
    for size in sizes:
        frames += decoder.feed(stream[at : at + size])
        at += size
    return frames + decoder.feed(stream[at:])


def test_golden_frame_with_both_escapes():
    assert slip.encode(b"\x01\xc0\xdb\x02") == bytes.fromhex("c001dbdcdbdd02c0")
    assert slip.Decoder().feed(bytes.fromhex("c001dbdcdbdd02c0")) == [b"\x01\xc0\xdb\x02"]


@given(st.lists(st.binary(min_size=1, max_size=300)), chunks)
def test_frames_survive_any_chunking(frames, sizes):
    stream = b"".join(map(slip.encode, frames))
    assert feed_in_pieces(slip.Decoder(), stream, sizes) == frames


@given(st.binary(max_size=300), st.binary(min_size=1, max_size=80), chunks)
def test_a_frame_after_any_noise_is_found(noise, payload, sizes):
    assert feed_in_pieces(slip.Decoder(), noise + slip.encode(payload), sizes)[-1] == payload


def test_a_bad_escape_drops_the_frame_and_is_counted():
    decoder = slip.Decoder()
    assert decoder.feed(b"\xc0ab\xdbx\xc0\xc0good\xc0") == [b"good"]
    assert decoder.dropped == 1
    assert decoder.feed(b"tail\xdb\xc0") == []
    assert decoder.dropped == 2


def test_a_run_longer_than_64_kib_is_dropped_whole_and_the_next_frame_found():
    for piece in (1 << 10, 1 << 20):
        decoder = slip.Decoder()
        for _ in range((1 << 20) // piece):
            assert decoder.feed(b"x" * piece) == []
        assert decoder.tail == b""
        assert decoder.feed(b"end\xc0next\xc0") == [b"next"]
        assert decoder.dropped == 1


def test_an_overlong_run_inside_one_piece_is_dropped():
    decoder = slip.Decoder()
    assert decoder.feed(b"\xc0" + b"x" * (slip.MAX_FRAME + 1) + b"\xc0ok\xc0") == [b"ok"]
    assert decoder.dropped == 1
