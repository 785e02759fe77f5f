"""Requirements of our stub, for the vendor's commands and ours: on its model, on CPU engines, on this PC, at any port.

    pytest tests/conformance/test_stub.py --port /dev/ttyUSB0

The chip waits in its ROM loader; the stub is uploaded first. The 64 KiB of flash at ``--scratch`` are overwritten.
Each check ends with an ABORT that must be answered. docs/protocol.md has the rules.
"""

from __future__ import annotations

import hashlib
import random
import zlib

import pytest
from tests.stub_drivers.client import StubClient
from tests.stub_drivers.contents import CONTENTS
from tests.stub_drivers.frames import (
    BAD_BLOCK,
    BAD_CHECK,
    BAD_LENGTH,
    BAD_STREAM,
    NOT_IMPLEMENTED,
    NOT_OPEN,
    PAYLOAD,
    POKE,
    SECTOR,
    TOO_LITTLE,
    TOO_MUCH,
    UNKNOWN,
    WINDOW,
    damaged,
    frame,
    open_checked,
    pack,
    pack_for,
    packet,
    pieces,
    report,
    split,
    text,
    words,
)
from tests.stub_drivers.programs import FREE_RAM, echo

from espwire.chips.registry import load_chip
from espwire.device.reset_sequences import is_usb_jtag
from espwire.device.stub_image import load_stub
from espwire.protocol import slip
from espwire.protocol import stub as s
from espwire.protocol.commands import Command, Request, checksum
from espwire.protocol.opcodes import Op
from espwire.protocol.packed import codes_body

from .stub_targets import Place, Target, md5, require

pytestmark = pytest.mark.slow

BLOCK = 0x10000
SYNC_BODY = b"\x07\x07\x12\x20" + b"U" * 32


def open_write(
    stub: StubClient, offset: int, size: int, stream: bytes, codec: int = s.Codec.RAW
) -> None:
    assert stub.call(s.WriteOpen(offset, size, len(stream), codec, 0, 5).packet())[1] == 0


# --- who it is ---


@pytest.mark.smoke
def test_it_syncs_and_reports_its_capabilities(place: Place, stub: StubClient) -> None:
    assert stub.ask(frame(Op.SYNC, SYNC_BODY), answers=8) == [b"\x01\x08\x02\0\0\0\0\0\0\0"] * 8
    reply, status = stub.call(s.AskCapabilities().packet())
    told = s.parse_capabilities(reply.body)
    assert (reply.value, status, len(reply.body)) == (s.PROTOCOL_VERSION, 0, s.CAPABILITIES_BYTES)
    assert told is not None
    assert (told.frame_payload, told.write_window, told.batch_bytes) == (PAYLOAD, WINDOW, 512)
    if place.chip is not None and place.device is not None:
        chip, device = place.chip, place.device
        assert told.build == load_stub(chip.id).for_revision(device.revision).build
        own = load_chip(chip.id).stub.own
        assert own is not None
        assert told.cpu_hz == own.cpu_hz
        assert (s.Feature.ENCRYPT in told.features) == own.can_encrypt


def test_noise_and_cut_frames_before_a_request_are_survived(stub: StubClient, place: Place) -> None:
    stub.send(
        b"hello, no frame\r\n\xc0\xc0\xc0\xdb\xc0" + bytes(range(1, 190)) + b"\xc0\xdb\xff\xc0"
    )
    for cut in (1, 7, 20, 40):
        stub.send(slip.encode(frame(Op.SYNC, SYNC_BODY))[:cut] + slip.END)
    reply, status = stub.call(frame(Op.READ_REG, words(place.readable)))
    while reply.op != Op.READ_REG:  # what is long enough for a request is refused
        assert status == BAD_CHECK
        reply, status = split(stub.next())
    assert status == 0


def test_requests_sent_at_once_are_answered_in_turn(stub: StubClient, place: Place) -> None:
    request = frame(Op.READ_REG, words(place.readable))
    assert len({*stub.ask(*[request] * 40, answers=40)}) == 1


# --- writes of ours ---


@pytest.mark.parametrize("size", [1, 3, pytest.param(4097, marks=pytest.mark.smoke), "large"])
@pytest.mark.parametrize("codec", list(s.Codec))
def test_written_data_is_in_flash_and_nothing_else_changes(
    place: Place, stub: StubClient, base: int, size: int | str, codec: s.Codec
) -> None:
    count = size if isinstance(size, int) else place.large
    data = text(count, count)
    require(stub, codec)
    stream = pack_for(codec, data)
    around = [md5(stub, base - SECTOR, SECTOR), md5(stub, base + BLOCK, SECTOR)]
    assert stub.write(base, count, stream, codec) == s.Report(
        len(stream), len(stream) + WINDOW, count, 77, 0
    )
    padded = data + b"\xff" * (-count % SECTOR)
    assert md5(stub, base, count) == hashlib.md5(data).digest()
    assert md5(stub, base, len(padded)) == hashlib.md5(padded).digest()
    assert [md5(stub, base - SECTOR, SECTOR), md5(stub, base + BLOCK, SECTOR)] == around


@pytest.mark.parametrize("codec", list(s.Codec))
def test_what_is_read_back_meanwhile_gives_the_same_md5(
    stub: StubClient, base: int, codec: s.Codec
) -> None:
    size = 3 * SECTOR + 5
    data = text(size)
    require(stub, codec)
    stream = pack_for(codec, data)
    stub.write(base, size, stream, codec, s.WRITE_READ_BACK)
    assert md5(stub, base, size) == hashlib.md5(data).digest()
    stub.write(base, size, stream, codec, s.WRITE_READ_BACK)
    stub.write(base, 4, b"new!", s.Codec.RAW)  # what was read back does not hold any more
    changed = b"new!" + b"\xff" * (SECTOR - 4) + data[SECTOR:]
    assert md5(stub, base, size) == hashlib.md5(changed).digest()


@pytest.mark.parametrize("codec", list(s.Codec))
def test_a_mask_on_the_way_does_not_show_in_flash(
    stub: StubClient, base: int, codec: s.Codec
) -> None:
    data = text(2 * SECTOR, 3)
    require(stub, codec)
    stream = pack(data, 0) if codec == s.Codec.ZLIB else pack_for(codec, data)
    open_write(stub, base, len(data), stream, codec)
    for mask, frame_at in zip(
        (0xFF, 0, 1, 0xC0, 0xDB), range(0, len(stream), PAYLOAD), strict=False
    ):
        stub.post(s.WriteData(frame_at, stream[frame_at : frame_at + PAYLOAD], mask).packet())
    while report(stub.next()).in_flash != len(data):
        pass
    assert md5(stub, base, len(data)) == hashlib.md5(data).digest()


@pytest.mark.smoke
def test_an_erase_takes_the_sectors_of_the_range_and_not_one_more(
    stub: StubClient, base: int
) -> None:
    for at in range(0, 5 * SECTOR, SECTOR):
        stub.write(base + at, 4, b"old!", s.Codec.RAW)
    stub.write(base + SECTOR, SECTOR + 1, pack(b"\xff" * SECTOR + b"n"))
    marks = [stub.read(base + at, 4) for at in range(0, 5 * SECTOR, SECTOR)]
    assert marks == [b"old!", b"\xff" * 4, b"n\xff\xff\xff", b"old!", b"old!"]


def test_a_whole_block_is_erased_and_its_neighbours_are_not(stub: StubClient, base: int) -> None:
    around = [md5(stub, base - SECTOR, SECTOR), md5(stub, base + BLOCK, SECTOR)]
    for at in range(0, BLOCK, 0x3000):
        stub.write(base + at, 4, b"old!", s.Codec.RAW)
    stub.write(base, BLOCK, pack(b"\xff" * BLOCK))
    assert md5(stub, base, BLOCK) == hashlib.md5(b"\xff" * BLOCK).digest()
    assert [md5(stub, base - SECTOR, SECTOR), md5(stub, base + BLOCK, SECTOR)] == around


def test_a_write_without_erase_adds_to_what_is_there(stub: StubClient, base: int) -> None:
    stub.write(base, 64, b"\xf0" * 64, s.Codec.RAW)
    stub.write(base + 4, 8, b"\x30" * 8, s.Codec.RAW, s.WRITE_NO_ERASE)
    assert stub.read(base, 64) == b"\xf0" * 4 + b"\x30" * 8 + b"\xf0" * 52


KINDS = {
    "stored": (0, zlib.Z_DEFAULT_STRATEGY),
    "fixed": (9, zlib.Z_FIXED),
    "huffman only": (9, zlib.Z_HUFFMAN_ONLY),
    "runs": (9, zlib.Z_RLE),
    "quick": (1, zlib.Z_DEFAULT_STRATEGY),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_block_is_unpacked(
    place: Place, stub: StubClient, base: int, kind: str
) -> None:
    level, strategy = KINDS[kind]
    data = text(place.large // 3) + bytes(place.large // 3)
    packer = zlib.compressobj(level, zlib.DEFLATED, 15, 9, strategy)
    stream = packer.compress(data[: len(data) // 2]) + packer.flush(zlib.Z_FULL_FLUSH)
    stream += packer.compress(data[len(data) // 2 :]) + packer.flush()
    assert stub.write(base, len(data), stream).status == 0
    assert md5(stub, base, len(data)) == hashlib.md5(data).digest()


@pytest.mark.smoke
def test_damage_and_gaps_are_reported_once_and_after_eight_more(
    place: Place, stub: StubClient, base: int
) -> None:
    count = 6 if place.slow else 12
    data = text(count * PAYLOAD)
    frames = pieces(data)
    open_write(stub, base, len(data), data)
    broken = damaged(frames[1], 20)
    assert report(stub.ask(frames[0], broken)[0]) == s.Report(
        PAYLOAD, PAYLOAD + WINDOW, 0, 5, s.REPORT_AGAIN
    )
    small = s.WriteData(PAYLOAD * 3, b"not the one").packet()
    assert (
        report(stub.ask(*[small] * 7, POKE)[0]).status == 0
    )  # seven more: nothing but the poke's report
    assert report(stub.ask(small)[0]).status == s.REPORT_AGAIN
    told = [*range(5, count, 4), count]  # each quarter of a window, and the end
    answers = [report(answer) for answer in stub.ask(*frames[1:], answers=len(told))]
    assert [(answer.received // PAYLOAD, answer.status) for answer in answers] == [
        (at, 0) for at in told
    ]
    assert answers[-1].in_flash == len(data)
    assert md5(stub, base, len(data)) == hashlib.md5(data).digest()


def test_a_frame_that_comes_twice_is_not_the_expected_one(stub: StubClient, base: int) -> None:
    data = text(PAYLOAD + 9)
    first, second = pieces(data)
    open_write(stub, base, len(data), data)
    assert report(stub.ask(first, first)[0]) == s.Report(
        PAYLOAD, PAYLOAD + WINDOW, 0, 5, s.REPORT_AGAIN
    )
    assert report(stub.ask(second)[0]).in_flash == len(data)


def test_a_data_frame_whose_head_is_damaged_does_not_end_the_write(
    stub: StubClient, base: int
) -> None:
    data = text(PAYLOAD + 100)
    first, second = pieces(data)
    open_write(stub, base, len(data), data)
    stub.post(*(damaged(second, at, 4) for at in range(8)))
    found = [report(answer) for answer in stub.ask(first, second, answers=2)]
    assert found[-1] == s.Report(len(data), len(data) + WINDOW, len(data), 5)
    assert found[0].status == s.REPORT_AGAIN  # the damage that left it a data frame


def test_a_poke_is_answered_before_in_the_midst_of_and_after_a_write(
    stub: StubClient, base: int
) -> None:
    stub.abort()
    assert report(stub.ask(POKE)[0]).status == NOT_OPEN
    open_write(stub, base, PAYLOAD, bytes(PAYLOAD))
    assert report(stub.ask(POKE)[0]) == s.Report(0, WINDOW, 0, 5)
    last = report(stub.ask(*pieces(text(PAYLOAD)))[0])
    assert last == report(stub.ask(POKE)[0]) == s.Report(PAYLOAD, PAYLOAD + WINDOW, PAYLOAD, 5)


def test_after_an_error_data_is_dropped_and_a_poke_repeats_the_report(
    stub: StubClient, base: int
) -> None:
    stream = pieces(b"this is no zlib stream" * 10)[0]
    open_write(stub, base, 9999, bytes(9999), s.Codec.ZLIB)
    stub.post(s.WriteData(0, b"x" * PAYLOAD).packet())
    told = report(stub.next())
    assert told.status == BAD_STREAM
    assert report(stub.ask(stream, stream, POKE)[0]) == told
    assert report(stub.ask(POKE)[0]) == told


def test_another_request_ends_a_write_and_is_carried_out(
    place: Place, stub: StubClient, base: int
) -> None:
    open_write(stub, base, 9999, bytes(9999))
    stub.post(pieces(text(PAYLOAD))[0])
    reply, status = stub.call(frame(Op.READ_REG, words(place.readable)))
    assert (reply.op, status) == (Op.READ_REG, 0)
    assert report(stub.ask(POKE)[0]).status == NOT_OPEN


def finish(
    stub: StubClient, base: int, size: int, stream: bytes, codec: int = s.Codec.ZLIB
) -> s.Report:
    """The end of a write, whatever it is."""
    open_write(stub, base, size, stream, codec)
    answers = [report(answer) for answer in stub.ask(*pieces(stream))]
    while not answers[-1].status and answers[-1].in_flash != size:
        answers.append(report(stub.next()))
    return answers[-1]


def test_streams_that_do_not_fit_their_size(stub: StubClient, base: int) -> None:
    data = text(1000)
    stream = pack(data)
    assert finish(stub, base, 999, stream).status == TOO_MUCH
    assert finish(stub, base, 1001, stream).status == TOO_LITTLE
    for cut in (1, 2, 3, 7, 100, 500, len(stream) - 1):
        assert finish(stub, base, 1000, stream[:cut]).status in (TOO_LITTLE, BAD_STREAM)
    assert finish(stub, base, 1000, damaged(stream, len(stream) - 1)).status == BAD_STREAM


LZMA = [s.Codec.LZMA, s.Codec.LZMA_RISCV]


@pytest.mark.parametrize("codec", LZMA)
def test_lzma_streams_that_do_not_fit_their_size(
    stub: StubClient, base: int, codec: s.Codec
) -> None:
    require(stub, codec)
    data = text(1000)
    stream = pack_for(codec, data)
    assert finish(stub, base, 999, stream, codec).status == TOO_MUCH
    assert finish(stub, base, 1001, stream, codec).status == TOO_LITTLE
    for cut in (1, 2, 3, 7, 100, 500, len(stream) - 6):
        assert finish(stub, base, 1000, stream[:cut], codec).status == TOO_LITTLE
    assert finish(stub, base, 1000, b"\1" + stream[1:], codec).status == BAD_STREAM


@pytest.mark.parametrize("codec", LZMA)
def test_an_lzma_stream_of_unknown_size_ends_with_a_frame_that_is_not_full(
    stub: StubClient, base: int, codec: s.Codec
) -> None:
    require(stub, codec)
    data = random.Random(3).randbytes(SECTOR)
    stream = pack_for(codec, data)
    written = stub.write(base, SECTOR, stream, codec, announced=0)
    assert written == s.Report(len(stream), len(stream) + WINDOW, SECTOR, 77, 0)
    assert md5(stub, base, SECTOR) == hashlib.md5(data).digest()
    assert stub.write(base, SECTOR, stream[:-9], codec, announced=0).status == TOO_LITTLE


# --- abort ---


def test_an_abort_is_answered_in_the_middle_of_anything(stub: StubClient, base: int) -> None:
    begun = slip.encode(s.WriteData(0, b"z" * PAYLOAD).packet())
    for number, opening in enumerate(
        [
            s.WriteOpen(base, BLOCK, BLOCK, s.Codec.RAW, 0, 9).packet(),
            s.ReadOpen(0, 1 << 20, 4096, 65536).packet(),
            s.Hash(0, 4 << 20, SECTOR).packet(),
            s.Hash(0, 4 << 20, 0, s.HashKind.BLANK).packet(),
            frame(Op.FLASH_DEFL_BEGIN, words(BLOCK, 9, 16384, base)),
            frame(Op.READ_FLASH, words(0, 1 << 20, 4096, 64)),
            frame(Op.SYNC, SYNC_BODY),
        ]
    ):
        stub.send(slip.encode(opening) + begun[: 1 + number * 97])
        stub.abort()


def test_an_abort_ends_a_frame_that_unpacks_to_much(stub: StubClient, base: int) -> None:
    stream = pack(bytes(BLOCK))
    open_write(stub, base, BLOCK, stream, s.Codec.ZLIB)
    stub.post(pieces(stream)[0], s.Abort(5).packet())
    assert split(stub.next())[0].value == 5
    assert md5(stub, base, BLOCK) != hashlib.md5(bytes(BLOCK)).digest()


@pytest.mark.smoke
def test_what_an_aborted_write_has_prepared_is_not_programmed_later(
    stub: StubClient, base: int
) -> None:
    """The stub loads the flash controller with the next data while the flash is busy."""
    size, unit, erased = 4 * SECTOR, 64, 5 * SECTOR
    assert stub.call(frame(Op.ERASE_REGION, words(base, erased)))[1] == 0
    stream = pack(b"\x11" * size)
    opening = s.WriteOpen(base, size, len(stream), s.Codec.ZLIB, s.WRITE_NO_ERASE, 5)
    assert stub.call(opening.packet())[1] == 0
    stub.post(*pieces(stream))
    stub.quiet(0.01)
    stub.abort()
    done = stub.read(base, erased).count(0x11)
    assert done <= size
    assert done % unit == 0
    stub.write(base + done, unit, b"\x22" * unit, s.Codec.RAW, s.WRITE_NO_ERASE)
    assert stub.read(base, erased) == (b"\x11" * done + b"\x22" * unit).ljust(erased, b"\xff")


def test_an_abort_forgets_what_was_queued_before_it(
    place: Place, stub: StubClient, base: int
) -> None:
    stub.write(base, 100, text(100), s.Codec.RAW)
    erase = frame(Op.ERASE_REGION, words(base, SECTOR))
    stub.post(erase, frame(Op.READ_REG, words(place.readable)), s.Abort(8).packet())
    answers = [stub.next()]
    while answers[-1][1] != s.StubOp.ABORT:
        answers.append(stub.next())
    assert len(answers) <= 3


# --- reads of ours ---


def test_reads_stay_in_their_window_and_go_back_when_asked(stub: StubClient, base: int) -> None:
    step, size = 256, 2300
    data = text(size)
    stub.write(base, size, pack(data))
    answers = stub.ask(s.ReadOpen(base, size, step, 4 * step, 0).packet(), answers=5)
    assert [split(answer)[0].value for answer in answers] == [size, 0, step, 2 * step, 3 * step]
    again = stub.ask(s.ReadAck(step, s.ACK_AGAIN).packet(), answers=4)
    assert [split(answer)[0].value for answer in again] == [step, 2 * step, 3 * step, 4 * step]
    back = stub.ask(
        s.ReadAck(0, s.ACK_AGAIN).packet(), answers=4
    )  # an earlier acknowledgement was damaged
    assert [split(answer)[0].value for answer in back] == [0, step, 2 * step, 3 * step]
    found = b"".join(packet(answer, step).data for answer in back)
    while len(found) < size:
        (answer,) = (
            stub.ask(s.ReadAck(len(found)).packet()) if len(found) % (4 * step) == 0 else stub.ask()
        )
        part = packet(answer, min(step, size - len(found)))
        assert part.position == len(found)
        found += part.data
    assert found == data
    stub.post(s.ReadAck(len(found)).packet())


def test_blank_packets_come_without_their_bytes_when_asked(stub: StubClient, base: int) -> None:
    stub.write(base, 4, b"mark", s.Codec.RAW)
    _, first, second = stub.ask(s.ReadOpen(base, 2048, 1024, 2048).packet(), answers=3)
    assert packet(first, 1024).data == b"mark" + b"\xff" * 1020
    assert len(second) == 8 + 2
    assert packet(second, 1024) == s.ReadPacket(1024, b"\xff" * 1024)
    stub.abort()
    _, first, second = stub.ask(s.ReadOpen(base, 2048, 1024, 2048, 0).packet(), answers=3)
    assert len(second) == 8 + 2 + 1024


@pytest.mark.smoke
def test_packed_reads_give_what_is_in_flash(place: Place, stub: StubClient, base: int) -> None:
    size = min(place.large, 30_001)
    data = CONTENTS["mixed"](size)
    stub.write(base, size, pack(data))
    assert stub.read_checked(base, size, packed=False)[0] == data
    found, came = stub.read_checked(base, size)
    assert found == data
    assert came < size * 0.9
    assert stub.read_checked(base + 1, size - 2, 1000, 3000)[0] == data[1:-1]


def test_packets_after_a_loss_do_not_refer_to_lost_ones(stub: StubClient, base: int) -> None:
    data, step = text(3 * 1024, 2), 1024
    stub.write(base, len(data), pack(data))
    flags = s.READ_SHORT_BLANKS | s.READ_CHECKED | s.READ_PACKED
    opening = s.ReadOpen(base, len(data), step, 2 * step, flags, codes_body())
    _, first, _ = stub.ask(opening.packet(), answers=3)
    assert open_checked(first, step, b"") == (0, data[:step])
    second, third, digest = stub.ask(s.ReadAck(step, s.ACK_AGAIN).packet(), answers=3)
    assert open_checked(second, step, data[:step]) == (step, data[step : 2 * step])
    assert open_checked(third, step, data[: 2 * step]) == (2 * step, data[2 * step :])
    assert open_checked(digest, 16, b"") == (len(data), hashlib.md5(data).digest())
    stub.post(s.ReadAck(len(data) + 16).packet())


def test_garbage_between_acknowledgements_does_not_end_a_read(stub: StubClient, base: int) -> None:
    stub.ask(s.ReadOpen(base, 2048, 1024, 1024, 0).packet(), answers=2)
    for junk in (
        b"x",
        b"\x01\xf4\x08\0" + bytes(12),
        frame(s.StubOp.READ_ACK, bytes(8))[:-1],
        bytes(7),
    ):
        stub.post(junk)
    assert split(stub.ask(s.ReadAck(1024).packet())[0])[0].value == 1024


# --- hashes, SPI, batches ---


@pytest.mark.parametrize("piece", [0, 60, 4096, 5000])
def test_hashes_of_pieces(stub: StubClient, base: int, piece: int) -> None:
    data = text(9000)
    if stub.read(base, 64) != data[:64]:
        stub.write(base, len(data), pack(data))
    step = piece or len(data)
    expected = [hashlib.md5(data[at : at + step]).digest() for at in range(0, len(data), step)]
    answers = [
        split(a)
        for a in stub.ask(s.Hash(base, len(data), piece).packet(), answers=-(-len(expected) // 16))
    ]
    assert b"".join(reply.body for reply, _ in answers) == b"".join(expected)
    assert [reply.value for reply, _ in answers] == list(range(0, len(expected), 16))
    assert {status for _, status in answers} == {0}


def test_blank_checks_tell_one_byte_a_piece(stub: StubClient, base: int) -> None:
    assert stub.call(frame(Op.ERASE_REGION, words(base, 4 * SECTOR)))[1] == 0
    stub.write(base + 2 * SECTOR, 4, b"\xff\xff\xfe\xff", s.Codec.RAW)
    reply, status = stub.call(s.Hash(base, 4 * SECTOR, SECTOR, s.HashKind.BLANK).packet())
    assert (reply.body, status) == (b"\1\1\0\1", 0)


@pytest.mark.smoke
def test_one_spi_transaction(stub: StubClient, base: int) -> None:
    jedec = stub.call(s.SpiTransaction(0x9F, read=3).packet())[0].body
    assert len(jedec) == 3
    assert jedec[2] >= 0x12
    assert stub.call(frame(Op.ERASE_REGION, words(base, SECTOR)))[1] == 0
    page = text(64)
    wanted = s.SpiTransaction(0x02, base, 24, 0, page, 0, s.SPI_WRITE_ENABLE | s.SPI_WAIT)
    assert stub.call(wanted.packet())[1] == 0
    assert stub.call(s.SpiTransaction(0x0B, base, 24, 8, b"", 64).packet())[0].body == page


def test_registers_are_written_in_order_under_their_masks(place: Place, stub: StubClient) -> None:
    at = place.writable
    body = words(
        at,
        0x11223344,
        0xFFFFFFFF,
        0,
        at + 4,
        0xAABBCCDD,
        0xFFFFFFFF,
        0,
        at,
        0xFFFFFFFF,
        0x00FF0000,
        5,
    )
    assert stub.call(frame(Op.WRITE_REG, body))[1] == 0
    assert stub.call(frame(Op.READ_REG, words(at)))[0].value == 0x11FF3344
    assert stub.call(frame(Op.READ_REG, words(at + 4)))[0].value == 0xAABBCCDD


def test_a_batch_answers_until_the_first_that_fails(
    place: Place, stub: StubClient, base: int
) -> None:
    at = place.writable
    requests = (
        Request(Op.WRITE_REG, 0, words(at, 0xABCD, 0xFFFF, 0)),
        Request(Op.READ_REG, 0, words(at)),
        s.SpiTransaction(0x9F, read=3).request(),
        s.AskCapabilities().request(),
        Request(Op.SPI_FLASH_MD5, 0, words(base, 16, 0, 0)),
        Request(Op.ERASE_FLASH, 0, b""),
        Request(Op.READ_REG, 0, words(at)),
    )
    reply, status = stub.call(s.Batch(requests).packet())
    answers = s.parse_batch_reply(reply.body, requests)
    assert status == 0
    assert answers is not None
    assert [answer.body[-2:] for answer in answers] == [b"\0\0"] * 5 + [b"\xc3\0"]
    assert answers[1].value & 0xFFFF == 0xABCD
    assert answers[2].body[:-2] == stub.call(s.SpiTransaction(0x9F, read=3).packet())[0].body
    assert answers[4].body[:16] == md5(stub, base, 16)
    assert stub.call(frame(s.StubOp.BATCH, b"\x0a\0\x40\0" + bytes(8)))[1] == BAD_LENGTH


# --- the vendor's commands ---


@pytest.mark.smoke
def test_the_vendors_compressed_write_as_its_tool_does_it(
    place: Place, stub: StubClient, base: int
) -> None:
    data = text(place.large)
    stream = pack(data)
    size = 16384 if not place.slow else 2048
    blocks = [stream[at : at + size] for at in range(0, len(stream), size)]
    stub.unseal()
    assert stub.call(frame(Op.FLASH_DEFL_BEGIN, words(len(data), len(blocks), size, base)))[1] == 0
    for number, block in enumerate(blocks):
        body = words(len(block), number, 0, 0) + block
        assert stub.call(frame(Op.FLASH_DEFL_DATA, body, checksum(block)))[1] == 0
        assert stub.call(frame(Op.FLASH_DEFL_DATA, body, checksum(block)))[1] in (
            0,
            NOT_OPEN,
        )  # a repeated one
    assert md5(stub, base, len(data)) == hashlib.md5(data).digest()
    assert stub.call(frame(Op.FLASH_BEGIN, words(0, 0, 0, 0)))[1] == 0
    assert stub.call(frame(Op.FLASH_DEFL_END, words(1)))[1] == 0


def test_the_vendors_plain_write_fills_up_its_last_block(
    place: Place, stub: StubClient, base: int
) -> None:
    size = 0x4000 if not place.slow else 0x800
    data = text(2 * size - 777)
    padded = data + b"\xff" * (-len(data) % size)
    stub.unseal()
    assert stub.call(frame(Op.FLASH_BEGIN, words(len(data), 2, size, base)))[1] == 0
    for number in range(2):
        block = padded[number * size : (number + 1) * size]
        body = words(size, number, 0, 0) + block
        if number:
            assert stub.call(frame(Op.FLASH_DATA, body, checksum(block) ^ 1))[1] == BAD_CHECK
            assert (
                stub.call(frame(Op.FLASH_DATA, words(size, 7, 0, 0) + block, checksum(block)))[1]
                == BAD_BLOCK
            )
        assert stub.call(frame(Op.FLASH_DATA, body, checksum(block)))[1] == 0
    assert stub.call(frame(Op.FLASH_END, words(1)))[1] == 0
    assert md5(stub, base, len(padded)) == hashlib.md5(padded).digest()


def test_two_of_the_vendors_largest_frames_fit_at_once(
    place: Place, stub: StubClient, base: int
) -> None:
    size = 16384 if not place.slow else 2048
    data = b"\xc0" * 2 * size
    stub.unseal()
    stub.call(frame(Op.FLASH_BEGIN, words(len(data), 2, size, base)))
    frames = [
        frame(Op.FLASH_DATA, words(size, i, 0, 0) + data[:size], checksum(data[:size]))
        for i in range(2)  # kept short
    ]
    assert [split(answer)[1] for answer in stub.ask(*frames, answers=2)] == [0, 0]
    assert stub.call(frame(Op.FLASH_END, words(1)))[1] == 0


def test_the_vendors_read_ends_with_a_hash(stub: StubClient, base: int) -> None:
    data = text(2500)
    stub.write(base, len(data), pack(data))
    found = b""
    stub.unseal()
    assert stub.call(frame(Op.READ_FLASH, words(base, len(data), 1000, 2)))[1] == 0
    while len(found) < len(data):
        found += stub.next()
        stub.post(words(len(found)))
    assert found == data
    assert stub.next() == hashlib.md5(data).digest()


@pytest.mark.smoke
def test_a_program_for_ram_is_taken_checked_and_started(
    place: Place, stub: StubClient, target: Target
) -> None:
    chip = place.chip
    if chip is None:
        start, code = 0x40080000, text(300)
        entry = start
    else:
        entry = FREE_RAM[chip.id]
        start, code = echo(chip.id, entry, over_usb=is_usb_jtag(stub.transport.info))
    count = len(code)
    stub.unseal()
    assert stub.call(frame(Op.MEM_BEGIN, words(count, 1, count, start)))[1] == 0
    assert stub.call(frame(Op.MEM_DATA, words(count, 0, 0, 0) + code, 0))[1] == BAD_CHECK
    assert stub.call(frame(Op.MEM_END, words(1, 0)))[1] == TOO_LITTLE
    assert stub.call(frame(Op.MEM_DATA, words(count, 0, 0, 0) + code, checksum(code)))[1] == 0
    assert stub.call(frame(Op.READ_REG, words(start + 8)))[0].value == int.from_bytes(
        code[8:12], "little"
    )
    assert stub.call(frame(Op.MEM_END, words(1, 0)))[1] == 0  # stay
    assert stub.call(frame(Op.MEM_END, words(0, entry)))[1] == 0
    if chip is not None:
        said, end = b"", stub.transport.now() + 1
        while len(said) < 2 and stub.transport.now() < end:
            said += stub.transport.read(0.2)
        assert said == b"hi"
    target.drop()


@pytest.mark.parametrize(
    "last", [pytest.param("reset", marks=pytest.mark.smoke), "end", "deflate end"]
)
def test_a_reset_is_answered_first(stub: StubClient, target: Target, last: str) -> None:
    frames = {
        "reset": s.StubReset().packet(),
        "end": frame(Op.FLASH_END, words(0)),
        "deflate end": frame(Op.FLASH_DEFL_END, words(0)),
    }
    assert split(stub.ask(frames[last])[0])[0].op == frames[last][1]
    if target.name != "host build":
        stub.transport.sleep(0.5)
        stub.transport.discard_input()
        stub.post(POKE)
        assert not [
            frame for frame in stub.quiet(0.5) if frame[1:2] == b"\xf2"
        ]  # nobody knows it any more
    target.drop()


@pytest.mark.smoke
def test_the_baud_rate_changes_after_the_answer(place: Place, stub: StubClient) -> None:
    assert stub.call(frame(Op.CHANGE_BAUDRATE, words(0, 115200)))[1] == BAD_BLOCK
    transport, now = stub.transport, 115200
    if not transport.info.can_change_baud:
        return  # there is no rate to change
    for baud in (921600, 2_000_000, 115200):
        assert stub.call(frame(Op.CHANGE_BAUDRATE, words(baud, now)))[1] == 0
        transport.sleep(0.05)
        transport.set_baud(baud)
        now = baud
        assert stub.call(frame(Op.READ_REG, words(place.readable)))[1] == 0


@pytest.mark.smoke
def test_a_trial_of_a_rate_ends_by_itself(place: Place, stub: StubClient) -> None:
    """Each sealed request prolongs it; after a silence the stub is back at the rate before the trial."""
    transport = stub.transport
    too_long = s.TrialBaudrate(921600, 115200, s.LONGEST_TRIAL_MS + 1)
    assert stub.call(too_long.packet())[1] == BAD_BLOCK
    read = frame(Op.READ_REG, words(place.readable))
    now = 115200
    for new in (230400, 460800):  # a trial within a trial returns to the rate before both
        assert stub.call(s.TrialBaudrate(new, now, 50).packet())[1] == 0
        now = new
        transport.sleep(0.01)
        transport.set_baud(new)
        for _ in range(3):
            assert stub.call(read)[1] == 0
            transport.sleep(0.03)
    transport.sleep(0.5)
    transport.set_baud(115200)
    assert stub.abort() == []
    assert stub.call(read)[1] == 0


def test_a_trial_of_a_rate_can_be_confirmed(place: Place, stub: StubClient) -> None:
    transport, read = stub.transport, frame(Op.READ_REG, words(place.readable))
    assert stub.call(s.TrialBaudrate(460800, 115200, 50).packet())[1] == 0
    transport.sleep(0.01)
    transport.set_baud(460800)
    assert stub.call(frame(Op.CHANGE_BAUDRATE, words(460800, 460800)))[1] == 0
    transport.sleep(0.3)
    assert stub.call(read)[1] == 0
    assert stub.call(frame(Op.CHANGE_BAUDRATE, words(115200, 460800)))[1] == 0
    transport.sleep(0.05)
    transport.set_baud(115200)
    assert stub.call(read)[1] == 0


@pytest.mark.parametrize("busy_with", ["a read", "a write"])
def test_a_trial_of_a_rate_ends_during_a_transfer(
    place: Place, stub: StubClient, busy_with: str
) -> None:
    transport = stub.transport
    assert stub.call(s.TrialBaudrate(460800, 115200, 50).packet())[1] == 0
    transport.sleep(0.01)
    transport.set_baud(460800)
    opening: Command = s.ReadOpen(place.scratch, 4096, 1024, 1024)
    if busy_with == "a write":
        opening = s.WriteOpen(place.scratch, 4096, 4096, s.Codec.RAW, 0, 1)
    assert stub.call(opening.packet())[1] == 0
    stub.quiet(0.1)
    transport.sleep(0.4)
    transport.set_baud(115200)
    assert stub.abort() == []
    assert stub.call(frame(Op.READ_REG, words(place.readable)))[1] == 0


# --- nonsense ---

LENGTHS = {
    Op.FLASH_BEGIN: (16, 20),
    Op.FLASH_END: (4,),
    Op.MEM_BEGIN: (16,),
    Op.MEM_END: (8,),
    Op.SYNC: (36,),
    Op.WRITE_REG: (16, 32),
    Op.READ_REG: (4,),
    Op.SPI_SET_PARAMS: (24,),
    Op.SPI_ATTACH: (4,),
    Op.CHANGE_BAUDRATE: (8, 12),
    Op.FLASH_DEFL_BEGIN: (16, 20),
    Op.FLASH_DEFL_END: (4,),
    Op.SPI_FLASH_MD5: (16,),
    Op.ERASE_FLASH: (0,),
    Op.ERASE_REGION: (8,),
    Op.READ_FLASH: (16,),
    s.StubOp.CAPABILITIES: (4,),
    s.StubOp.WRITE_OPEN: (24,),
    s.StubOp.READ_OPEN: (20,),
    s.StubOp.HASH: (16,),
    s.StubOp.SPI: (16, 17, 80),
    s.StubOp.ABORT: (4,),
    s.StubOp.RESET: (4,),
}


def test_a_wrong_length_is_answered_with_its_code(place: Place, stub: StubClient) -> None:
    sizes = (
        {0, 3, 5, 17, 37} if place.slow else {0, 1, 3, 4, 5, 8, 15, 16, 17, 20, 24, 25, 36, 37, 600}
    )
    for op, right in LENGTHS.items():
        wrong = sorted(sizes - set(right))
        for size in wrong:
            reply, status = stub.call(frame(op, b"\1" * size))
            assert (reply.op, status) == (op, BAD_LENGTH), size
        lying = bytearray(frame(op, bytes(right[0])))
        lying[2] += 1
        assert stub.call(bytes(lying))[1] == BAD_CHECK
    assert stub.call(frame(Op.MEM_DATA, words(9, 0, 0, 0) + b"12345678"))[1] == BAD_LENGTH


def test_every_other_opcode_is_unknown(stub: StubClient) -> None:
    known = {*LENGTHS, *s.StubOp, Op.FLASH_DATA, Op.MEM_DATA, Op.FLASH_DEFL_DATA, Op.RUN_USER_CODE}
    known.add(Op.GET_SECURITY_INFO)  # of most chips
    others = sorted(set(range(256)) - known)
    for at in range(0, len(others), 32):
        some = others[at : at + 32]
        answers = stub.ask(*(frame(op, bytes(op % 7)) for op in some), answers=len(some))
        assert [(a[1], split(a)[1]) for a in answers] == [(op, UNKNOWN) for op in some]
    stub.abort()
    assert stub.call(frame(Op.FLASH_DATA, words(4, 0, 0, 0) + b"abcd"))[1] == NOT_OPEN


def test_nonsense_is_refused(stub: StubClient) -> None:
    assert stub.call(frame(Op.SPI_SET_PARAMS, words(0, 4 << 20, 65536, 4096, 256, 0xFFFF)))[1] == 0
    for request, status in (
        (s.WriteOpen(1, 4, 4, 0, 0, 0), BAD_BLOCK),
        (s.WriteOpen(4, 4, 4, 0, 0, 0), BAD_BLOCK),
        (s.WriteOpen(2, 4, 4, 0, s.WRITE_NO_ERASE, 0), BAD_BLOCK),
        (s.WriteOpen(0, 0, 4, 0, 0, 0), BAD_BLOCK),
        (s.WriteOpen(0, 5, 4, 0, 0, 0), BAD_LENGTH),
        (s.WriteOpen(0, 5, 0, 1, 0, 0), BAD_LENGTH),
        (s.WriteOpen(0, 5, 5, max(s.Codec) + 1, 0, 0), NOT_IMPLEMENTED),
        (s.WriteOpen(0xFFFFF000, 0xFFF, 5, 1, 0, 0), BAD_BLOCK),
        (s.WriteOpen(0x3FF000, 0x1001, 5, 1, 0, 0), BAD_BLOCK),
        (s.ReadOpen(0x3FF000, 0x1001, 4096, 4096, 0), BAD_BLOCK),
        (s.ReadOpen(0, 4, 8192, 8192, 0), BAD_BLOCK),
        (s.ReadOpen(0, 4, 4096, 4095, 0), BAD_BLOCK),
        (s.ReadOpen(0, 4, 0, 4096, 0), BAD_BLOCK),
        (s.Hash(0x3FF000, 0x1001), BAD_BLOCK),
        (s.Hash(0, 4096, 0, 2), BAD_BLOCK),
    ):
        assert stub.call(request.packet())[1] == status, request
    for op, body in (
        (Op.ERASE_REGION, words(1, SECTOR)),
        (Op.ERASE_REGION, words(0, SECTOR + 1)),
        (Op.ERASE_REGION, words(0x3FF000, 2 * SECTOR)),
        (Op.SPI_FLASH_MD5, words(0x3FF000, 0x1001, 0, 0)),
        (Op.FLASH_BEGIN, words(0x2000, 1, 0x2000, 0x3FF000)),
        (Op.FLASH_BEGIN, words(4, 1, 0x4001, 0)),
        (Op.READ_FLASH, words(0, 4, 0, 1)),
        (Op.READ_FLASH, words(0, 4, 4096, 0)),
        (Op.READ_FLASH, words(0x3FF000, 0x1001, 4096, 1)),
        (Op.READ_REG, words(2)),
        (Op.MEM_BEGIN, words(4, 1, 4, 2)),
    ):
        assert stub.call(frame(op, body))[1] == BAD_BLOCK, (op, body)
