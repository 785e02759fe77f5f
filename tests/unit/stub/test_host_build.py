"""The stub's sources on this PC under sanitizers: every command, every bad length, damage, go-back, abort, bad streams."""

from __future__ import annotations

import hashlib
import random
import struct
import zlib
from collections.abc import Iterator

import pytest
from tests.unit.stub.host import HostStub, frame, host_program, split

from espwire.wire import slip
from espwire.wire import stub as s
from espwire.wire.commands import Op, checksum

BAD_LENGTH, BAD_CHECK, BAD_BLOCK, UNKNOWN = 0xC000, 0xC100, 0xC200, 0xC300
NOT_OPEN, BAD_STREAM, TOO_LITTLE, TOO_MUCH, NOT_IMPLEMENTED = 0xC600, 0xC700, 0xC800, 0xC900, 0xFF00
PAYLOAD, WINDOW = 2048, 13 * 2048
SECTOR = 4096


def text(size: int, seed: int = 1) -> bytes:
    """What packs like a program."""
    pick = random.Random(seed)
    words = [pick.randbytes(pick.randrange(3, 12)) for _ in range(300)]
    return b"".join(pick.choice(words) for _ in range(size // 3 + 1))[:size]


@pytest.fixture
def stub() -> Iterator[HostStub]:
    found = HostStub(host_program())
    assert found.ask() == [s.HELLO]
    yield found
    found.close()


def words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}I", *values)


def pieces(stream: bytes) -> list[bytes]:
    return [s.WriteData(at, stream[at : at + PAYLOAD]).packet() for at in range(0, len(stream), PAYLOAD)]


def read(stub: HostStub, address: int, size: int) -> bytes:
    """Flash by the stub's own reads, 4 KiB at a time."""
    found = b""
    while len(found) < size:
        count = min(4096, size - len(found))
        opened, packet = stub.ask(s.ReadOpen(address + len(found), count, 4096, 4096, 0).packet(), answers=2)
        assert split(opened)[1] == 0
        part = s.parse_read_packet(split_raw(packet), count)
        assert part is not None
        assert part.intact
        found += part.data
        stub.send(slip.encode(s.ReadAck(count).packet()))
    return found


def split_raw(answer: bytes) -> s.Reply:
    reply, status = split(answer)
    return s.Reply(reply.op, reply.value, reply.body + status.to_bytes(2, "big"))


def report(answer: bytes) -> s.Report:
    found = s.parse_report(split_raw(answer))
    assert found is not None
    return found


def write(stub: HostStub, offset: int, size: int, stream: bytes, codec: int = s.Codec.ZLIB, flags: int = 0) -> s.Report:
    """A whole write, within the window; its last report."""
    reply, status = stub.call(s.WriteOpen(offset, size, len(stream), codec, flags, 77).packet())
    assert status == 0
    assert reply.value == WINDOW
    frames, sent = pieces(stream), 0
    last = s.Report(0, WINDOW, 0, 77)
    while True:
        while sent < len(frames) and min((sent + 1) * PAYLOAD, len(stream)) <= last.credit_end:
            stub.send(slip.encode(frames[sent]))
            sent += 1
        last = report(stub.ask()[0])
        assert last.transfer == 77
        if last.status or last.in_flash == size:
            return last


def test_it_syncs_and_tells_what_it_can(stub):
    assert stub.ask(frame(Op.SYNC, b"\x07\x07\x12\x20" + b"U" * 32), answers=8) == [b"\x01\x08\x02\0\0\0\0\0\0\0"] * 8
    reply, status = stub.call(s.AskCapabilities().packet())
    told = s.parse_capabilities(reply.body)
    assert (reply.value, status, len(reply.body)) == (1, 0, s.CAPABILITIES_BYTES)
    assert told is not None
    assert told.features == s.Feature(0x3FF)
    assert (told.frame_payload, told.write_window, told.batch_bytes) == (PAYLOAD, WINDOW, 512)


@pytest.mark.parametrize("size", [1, 2, 3, 4, 63, 64, 65, 4095, 4096, 4097, 70_001])
@pytest.mark.parametrize("codec", list(s.Codec))
def test_what_is_written_stands_in_flash_and_nothing_beside_it(stub, size, codec):
    data = text(size)
    stream = zlib.compress(data) if codec == s.Codec.ZLIB else data
    assert write(stub, 0x10000, size, stream, codec) == s.Report(len(stream), len(stream) + WINDOW, size, 77, 0)
    end = 0x10000 + size
    padded = data + b"\xff" * (-size % SECTOR + SECTOR)
    assert read(stub, 0x10000 - SECTOR, SECTOR) == b"\xff" * SECTOR
    assert read(stub, 0x10000, len(padded)) == padded
    reply, status = stub.call(frame(Op.SPI_FLASH_MD5, words(0x10000, end - 0x10000, 0, 0)))
    assert (reply.body, status) == (hashlib.md5(data).digest(), 0)


def test_an_erase_takes_the_sectors_of_the_range_and_not_one_more(stub):
    old, new = text(0x30000, 2), text(0x11800, 3)
    write(stub, 0x10000, len(old), zlib.compress(old))
    write(stub, 0x1F000, len(new), zlib.compress(new))
    expected = bytearray(old)
    expected[0xF000:0x21000] = new + b"\xff" * (0x12000 - len(new))
    assert read(stub, 0x10000, len(old)) == expected


def test_a_write_without_erase_adds_to_what_is_there(stub):
    write(stub, 0x4000, 64, b"\xf0" * 64, s.Codec.RAW)
    write(stub, 0x4004, 8, b"\x30" * 8, s.Codec.RAW, s.WRITE_NO_ERASE)
    assert read(stub, 0x4000, 64) == b"\xf0" * 4 + b"\x30" * 8 + b"\xf0" * 52


def test_encrypted_data_goes_another_way(stub):
    data = text(4096)
    write(stub, 0x4000, 4096, data, s.Codec.RAW, s.WRITE_ENCRYPTED)
    assert read(stub, 0x4000, 4096) == bytes(byte ^ 0xA5 for byte in data)


KINDS = {
    "stored": (0, zlib.Z_DEFAULT_STRATEGY),
    "fixed": (9, zlib.Z_FIXED),
    "huffman only": (9, zlib.Z_HUFFMAN_ONLY),
    "runs": (9, zlib.Z_RLE),
    "best": (9, zlib.Z_DEFAULT_STRATEGY),
    "quick": (1, zlib.Z_DEFAULT_STRATEGY),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("data", [text(100_000), b"\0" * 200_000, random.Random(5).randbytes(50_000), b"x"])
def test_every_kind_of_block_is_unpacked(stub, kind, data):
    level, strategy = KINDS[kind]
    packer = zlib.compressobj(level, zlib.DEFLATED, 15, 9, strategy)
    stream = packer.compress(data[: len(data) // 2]) + packer.flush(zlib.Z_FULL_FLUSH)
    stream += packer.compress(data[len(data) // 2 :]) + packer.flush()
    assert write(stub, 0, len(data), stream).status == 0
    reply, _ = stub.call(frame(Op.SPI_FLASH_MD5, words(0, len(data), 0, 0)))
    assert reply.body == hashlib.md5(data).digest()


def test_damage_and_gaps_are_told_once_and_after_eight_more(stub):
    data = text(20 * PAYLOAD)
    frames = pieces(data)
    stub.call(s.WriteOpen(0, len(data), len(data), s.Codec.RAW, 0, 5).packet())
    broken = bytearray(frames[1])
    broken[20] ^= 1
    assert report(stub.ask(frames[0], bytes(broken))[0]) == s.Report(PAYLOAD, PAYLOAD + WINDOW, 0, 5, s.REPORT_AGAIN)
    poke = s.WriteData(PAYLOAD).packet()
    assert report(stub.ask(*frames[2:9], poke)[0]).status == 0  # seven more: nothing but the poke's report
    assert report(stub.ask(frames[9])[0]).status == s.REPORT_AGAIN
    answers = [report(answer) for answer in stub.ask(*frames[1:13], answers=3)]
    assert [(answer.received // PAYLOAD, answer.status) for answer in answers] == [(5, 0), (9, 0), (13, 0)]
    assert [report(answer).status for answer in stub.ask(*frames[13:], answers=2)] == [0, 0]
    assert read(stub, 0, len(data)) == data


def test_a_data_frame_whose_head_is_damaged_does_not_end_the_write(stub):
    data = text(2 * PAYLOAD)
    first, second = pieces(data)
    stub.call(s.WriteOpen(0, len(data), len(data), s.Codec.RAW, 0, 5).packet())
    for at in range(8):
        broken = bytearray(first)
        broken[at] ^= 0x04
        stub.send(slip.encode(bytes(broken)))
    found = [report(answer) for answer in stub.ask(first, second, answers=2)]
    assert found[-1] == s.Report(2 * PAYLOAD, 2 * PAYLOAD + WINDOW, 2 * PAYLOAD, 5)
    assert found[0].status == s.REPORT_AGAIN  # the damage that left it a data frame


def test_a_poke_is_answered_before_in_the_midst_of_and_after_a_write(stub):
    poke = s.WriteData(0).packet()
    assert report(stub.ask(poke)[0]).status == NOT_OPEN
    stub.call(s.WriteOpen(0, PAYLOAD, PAYLOAD, s.Codec.RAW, 0, 9).packet())
    assert report(stub.ask(poke)[0]) == s.Report(0, WINDOW, 0, 9)
    last = report(stub.ask(*pieces(text(PAYLOAD)))[0])
    assert last == report(stub.ask(poke)[0]) == s.Report(PAYLOAD, PAYLOAD + WINDOW, PAYLOAD, 9)


def test_another_request_ends_a_write_and_is_carried_out(stub):
    stub.call(s.WriteOpen(0, 99999, 99999, s.Codec.RAW, 0, 9).packet())
    stub.send(slip.encode(pieces(text(PAYLOAD))[0]))
    reply, status = stub.call(frame(Op.READ_REG, words(0x60000000)))
    assert (reply.op, status) == (Op.READ_REG, 0)
    assert report(stub.ask(s.WriteData(0).packet())[0]).status == NOT_OPEN


def test_an_abort_is_answered_in_the_middle_of_anything(stub):
    begun = s.WriteData(0, b"z" * PAYLOAD).packet()[:1000]
    for token, opening in enumerate(
        [
            s.WriteOpen(0, 99999, 99999, s.Codec.RAW, 0, 9).packet(),
            s.ReadOpen(0, 1 << 20, 4096, 65536).packet(),
            s.Hash(0, 4 << 20, SECTOR).packet(),
            frame(Op.FLASH_DEFL_BEGIN, words(99999, 9, 16384, 0)),
            frame(Op.READ_FLASH, words(0, 1 << 20, 4096, 64)),
            frame(Op.SYNC, b"U" * 36),
        ]
    ):
        stub.send(slip.encode(opening) + slip.encode(begun)[:-1] + slip.END * 2 + slip.encode(s.Abort(token).packet()))
        expected = b"\x01\xf8\x02\0" + token.to_bytes(4, "little") + b"\0\0"
        while stub.ask()[0] != expected:
            pass


def test_an_abort_ends_a_frame_that_unpacks_to_megabytes(stub):
    stream = zlib.compress(bytes(2_000_000))
    assert len(stream) <= PAYLOAD
    stub.call(s.WriteOpen(0, 2_000_000, len(stream), s.Codec.ZLIB, 0, 1).packet())
    stub.send(slip.encode(pieces(stream)[0]) + slip.encode(s.Abort(5).packet()))
    assert split(stub.ask()[0])[0].value == 5
    assert report(stub.ask(s.WriteData(0).packet())[0]).in_flash < 2_000_000


def test_an_abort_forgets_what_was_queued_before_it(stub):
    erase = frame(Op.ERASE_REGION, words(0, SECTOR))
    write(stub, 0, 100, text(100), s.Codec.RAW)
    stub.send(b"".join(map(slip.encode, [erase, frame(Op.READ_REG, words(4)), s.Abort(8).packet()])))
    answers = [stub.ask()[0]]
    while answers[-1][1] != s.StubOp.ABORT:
        answers += stub.ask()
    assert len(answers) <= 3


def test_reads_stay_in_their_window_and_go_back_when_asked(stub):
    data = text(40_000)
    write(stub, 0, len(data), data, s.Codec.RAW)
    answers = stub.ask(s.ReadOpen(0, len(data), 1024, 4096, 0).packet(), answers=5)
    assert [split(answer)[0].value for answer in answers] == [0, 0, 1024, 2048, 3072]
    again = stub.ask(s.ReadAck(1024, s.ACK_AGAIN).packet(), answers=4)
    assert [split(answer)[0].value for answer in again] == [1024, 2048, 3072, 4096]
    back = stub.ask(s.ReadAck(0, s.ACK_AGAIN).packet(), answers=4)  # an earlier acknowledgement was damaged
    assert [split(answer)[0].value for answer in back] == [0, 1024, 2048, 3072]
    found = b""
    for answer in back:
        found += s.parse_read_packet(split_raw(answer), 1024).data
    while len(found) < len(data):
        (answer,) = stub.ask(s.ReadAck(len(found)).packet()) if len(found) % 4096 == 0 else stub.ask()
        packet = s.parse_read_packet(split_raw(answer), min(1024, len(data) - len(found)))
        assert packet.intact
        assert packet.position == len(found)
        found += packet.data
    assert found == data
    stub.send(slip.encode(s.ReadAck(len(found)).packet()))
    assert stub.call(frame(Op.READ_REG, words(0)))[1] == 0


def test_blank_packets_come_without_their_bytes_when_asked(stub):
    _, first, second = stub.ask(s.ReadOpen(0, 8192, 4096, 8192, s.READ_SHORT_BLANKS).packet(), answers=3)
    assert len(first) == len(second) == 8 + 6
    assert s.parse_read_packet(split_raw(second), 4096) == s.ReadPacket(4096, b"\xff" * 4096)


def test_garbage_between_acknowledgements_does_not_end_a_read(stub):
    stub.ask(s.ReadOpen(0, 8192, 4096, 4096, 0).packet(), answers=2)
    for junk in (b"x", b"\x01\xf4\x08\0" + bytes(12), frame(s.StubOp.READ_ACK, bytes(8))[:-1], bytes(7)):
        stub.send(slip.encode(junk))
    assert split(stub.ask(s.ReadAck(4096).packet())[0])[0].value == 4096


@pytest.mark.parametrize("piece", [0, 64, 100, 4096, 5000])
def test_hashes_of_pieces(stub, piece):
    data = text(20_000)
    write(stub, 0x1000, len(data), data, s.Codec.RAW)
    step = piece or len(data)
    expected = [hashlib.md5(data[at : at + step]).digest() for at in range(0, len(data), step)]
    answers = [split(a) for a in stub.ask(s.Hash(0x1000, len(data), piece).packet(), answers=-(-len(expected) // 16))]
    assert b"".join(reply.body for reply, _ in answers) == b"".join(expected)
    assert [reply.value for reply, _ in answers] == list(range(0, len(expected), 16))
    assert {status for _, status in answers} == {0}


def test_blank_checks_tell_one_byte_a_piece(stub):
    write(stub, 0x2000, 4, b"\xff\xff\xfe\xff", s.Codec.RAW)
    reply, status = stub.call(s.Hash(0, 0x4000, SECTOR, s.HashKind.BLANK).packet())
    assert (reply.body, status) == (b"\1\1\0\1", 0)


def test_one_spi_transaction(stub):
    assert stub.call(s.SpiTransaction(0x9F, read=3).packet())[0].body == b"\xef\x40\x16"
    page = text(64)
    wanted = s.SpiTransaction(0x02, 0x5000, 24, 0, page, 0, s.SPI_WRITE_ENABLE | s.SPI_WAIT)
    assert stub.call(wanted.packet())[1] == 0
    assert stub.call(s.SpiTransaction(0x0B, 0x5000, 24, 8, b"", 64).packet())[0].body == page


def test_a_batch_answers_until_the_first_that_fails(stub):
    requests = (
        frame(Op.WRITE_REG, words(0x100, 0xABCD, 0xFFFF, 0)),
        frame(Op.READ_REG, words(0x100)),
        s.SpiTransaction(0x9F, read=3).packet(),
        s.AskCapabilities().packet(),
        frame(Op.SPI_FLASH_MD5, words(0, 16, 0, 0)),
        frame(Op.ERASE_FLASH),
        frame(Op.READ_REG, words(0x100)),
    )
    parsed = tuple(s.Request(r[1], 0, r[8:]) for r in requests)
    reply, status = stub.call(s.Batch(parsed).packet())
    answers = s.parse_batch_reply(reply.body, parsed)
    assert status == 0
    assert [answer.body[-2:] for answer in answers] == [b"\0\0"] * 5 + [b"\xc3\0"]
    assert answers[1].value == 0xABCD
    assert answers[2].body == b"\xef\x40\x16\0\0"
    assert answers[4].body[:16] == hashlib.md5(b"\xff" * 16).digest()
    assert stub.call(frame(s.StubOp.BATCH, b"\x0a\0\x40\0" + bytes(8)))[1] == BAD_LENGTH


def test_the_vendors_compressed_write_as_its_tool_does_it(stub):
    data = text(150_000)
    stream = zlib.compress(data, 9)
    blocks = [stream[at : at + 16384] for at in range(0, len(stream), 16384)]
    assert stub.call(frame(Op.FLASH_DEFL_BEGIN, words(len(data), len(blocks), 16384, 0x10000)))[1] == 0
    for i, block in enumerate(blocks):
        body = words(len(block), i, 0, 0) + block
        assert stub.call(frame(Op.FLASH_DEFL_DATA, body, checksum(block)))[1] == 0
        assert stub.call(frame(Op.FLASH_DEFL_DATA, body, checksum(block)))[1] in (0, NOT_OPEN)  # a repeated one
    reply, status = stub.call(frame(Op.SPI_FLASH_MD5, words(0x10000, len(data), 0, 0)))
    assert (reply.body, status) == (hashlib.md5(data).digest(), 0)
    assert stub.call(frame(Op.FLASH_BEGIN, words(0, 0, 0, 0)))[1] == 0
    assert stub.call(frame(Op.FLASH_DEFL_END, words(1)))[1] == 0


def test_the_vendors_plain_write_fills_up_its_last_block(stub):
    data = text(20_000)
    padded = data + b"\xff" * (-len(data) % 16384)
    assert stub.call(frame(Op.FLASH_BEGIN, words(len(data), 2, 16384, 0)))[1] == 0
    for i in range(2):
        block = padded[i * 16384 : (i + 1) * 16384]
        assert stub.call(frame(Op.FLASH_DATA, words(len(block), i, 0, 0) + block, checksum(block)))[1] == 0
    assert stub.call(frame(Op.FLASH_END, words(1)))[1] == 0
    assert read(stub, 0, len(padded)) == padded


def test_two_of_the_vendors_largest_frames_fit_at_once(stub):
    data = b"\xc0" * 32768
    blocks = [data[:16384], data[16384:]]
    stub.call(frame(Op.FLASH_BEGIN, words(len(data), 2, 16384, 0)))
    frames = [frame(Op.FLASH_DATA, words(16384, i, 0, 0) + b, checksum(b)) for i, b in enumerate(blocks)]
    assert [split(answer)[1] for answer in stub.ask(*frames, answers=2)] == [0, 0]
    assert stub.call(frame(Op.FLASH_END, words(1)))[1] == 0


def test_the_vendors_read_ends_with_a_hash(stub):
    data = text(10_000)
    write(stub, 0, len(data), data, s.Codec.RAW)
    found = b""
    assert stub.call(frame(Op.READ_FLASH, words(0, len(data), 1000, 2)))[1] == 0
    while len(found) < len(data):
        found += stub.ask()[0]
        stub.send(slip.encode(words(len(found))))
    assert found == data
    assert stub.ask() == [hashlib.md5(data).digest()]


def test_a_program_for_ram_is_taken_checked_and_started(stub):
    code = text(300)
    assert stub.call(frame(Op.MEM_BEGIN, words(300, 1, 300, 0x40080000)))[1] == 0
    assert stub.call(frame(Op.MEM_DATA, words(300, 0, 0, 0) + code, 0))[1] == BAD_CHECK
    assert stub.call(frame(Op.MEM_END, words(1, 0)))[1] == TOO_LITTLE
    assert stub.call(frame(Op.MEM_DATA, words(300, 0, 0, 0) + code, checksum(code)))[1] == 0
    assert stub.call(frame(Op.READ_REG, words(0x40080010)))[0].value == int.from_bytes(code[16:20], "little")
    assert stub.call(frame(Op.MEM_END, words(0, 0x40080000)))[1] == 0
    assert "jump to 0x40080000" in stub.close()


@pytest.mark.parametrize(
    "last", [s.StubReset().packet(), frame(Op.FLASH_END, words(0)), frame(Op.FLASH_DEFL_END, words(0))]
)
def test_a_reset_is_answered_first(stub, last):
    stub.ask(last)
    assert "reset" in stub.close()


def test_the_baud_rate_changes_after_the_answer(stub):
    assert stub.call(frame(Op.CHANGE_BAUDRATE, words(921600, 115200)))[1] == 0
    assert stub.call(frame(Op.CHANGE_BAUDRATE, words(0, 115200)))[1] == BAD_BLOCK
    assert "baud 115200 to 921600" in stub.close()


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
    Op.CHANGE_BAUDRATE: (8,),
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


@pytest.mark.parametrize("op", LENGTHS)
def test_a_wrong_length_is_answered_with_its_code(stub, op):
    for size in {0, 1, 3, 4, 5, 8, 15, 16, 17, 20, 24, 25, 36, 37, 600} - set(LENGTHS[op]):
        reply, status = stub.call(frame(op, b"\1" * size))
        assert (reply.op, status) == (op, BAD_LENGTH), size
    lying = bytearray(frame(op, bytes(LENGTHS[op][0])))
    lying[2] += 1
    assert stub.call(bytes(lying))[1] == BAD_LENGTH


def test_every_other_opcode_is_unknown(stub):
    known = {*LENGTHS, *s.StubOp, Op.FLASH_DATA, Op.MEM_DATA, Op.FLASH_DEFL_DATA, Op.RUN_USER_CODE}
    for op in set(range(256)) - known:
        assert stub.call(frame(op, bytes(op % 7)))[1] == UNKNOWN, hex(op)
    assert stub.call(frame(Op.FLASH_DATA, words(4, 0, 0, 0) + b"abcd", checksum(b"abcd")))[1] == NOT_OPEN


@pytest.mark.parametrize(
    ("request_frame", "status"),
    [
        (s.WriteOpen(1, 4, 4, 0, 0, 0), BAD_BLOCK),
        (s.WriteOpen(4, 4, 4, 0, 0, 0), BAD_BLOCK),
        (s.WriteOpen(2, 4, 4, 0, s.WRITE_NO_ERASE, 0), BAD_BLOCK),
        (s.WriteOpen(0, 0, 4, 0, 0, 0), BAD_BLOCK),
        (s.WriteOpen(0, 5, 4, 0, 0, 0), BAD_LENGTH),
        (s.WriteOpen(0, 5, 0, 1, 0, 0), BAD_LENGTH),
        (s.WriteOpen(0, 5, 5, 2, 0, 0), NOT_IMPLEMENTED),
        (s.WriteOpen(0xFFFFF000, 0xFFF, 5, 1, 0, 0), BAD_BLOCK),
        (s.WriteOpen(0x3FF000, 0x1001, 5, 1, 0, 0), BAD_BLOCK),
        (s.ReadOpen(0x3FF000, 0x1001, 4096, 4096, 0), BAD_BLOCK),
        (s.ReadOpen(0, 4, 8192, 8192, 0), BAD_BLOCK),
        (s.ReadOpen(0, 4, 4096, 4095, 0), BAD_BLOCK),
        (s.ReadOpen(0, 4, 0, 4096, 0), BAD_BLOCK),
        (s.Hash(0x3FF000, 0x1001), BAD_BLOCK),
        (s.Hash(0, 4096, 0, 2), BAD_BLOCK),
    ],
)
def test_nonsense_is_refused(stub, request_frame, status):
    assert stub.call(frame(Op.SPI_SET_PARAMS, words(0, 4 << 20, 65536, 4096, 256, 0xFFFF)))[1] == 0
    assert stub.call(request_frame.packet())[1] == status


def finish(stub: HostStub, size: int, stream: bytes) -> s.Report:
    """The end of a write whatever it is; a poke gets it out of a stub that would wait for more."""
    stub.call(s.WriteOpen(0, size, len(stream), s.Codec.ZLIB, 0, 3).packet())
    answers = [report(answer) for answer in stub.ask(*pieces(stream))]
    while not answers[-1].status and answers[-1].in_flash != size:
        answers.append(report(stub.ask()[0]))
    return answers[-1]


def test_streams_that_do_not_fit_their_size(stub):
    data = text(9000)
    assert finish(stub, 8999, zlib.compress(data)).status == TOO_MUCH
    assert finish(stub, 9001, zlib.compress(data)).status == TOO_LITTLE
    for cut in (0, 1, 2, 3, 7, 500, 1000):
        stream = zlib.compress(data)[: cut or -1]
        assert finish(stub, 9000, stream).status in (TOO_LITTLE, BAD_STREAM)
    wrong = bytearray(zlib.compress(data))
    wrong[-1] ^= 1
    assert finish(stub, 9000, bytes(wrong)).status == BAD_STREAM


def mutate(pick: random.Random, stream: bytes) -> bytes:
    found = bytearray(stream)
    for _ in range(pick.choice((1, 1, 2, 5))):
        match pick.randrange(4):
            case 0:
                found[pick.randrange(len(found))] ^= 1 << pick.randrange(8)
            case 1:
                del found[pick.randrange(1, len(found) + 1) :]
            case 2:
                at = pick.randrange(len(found))
                found[at:at] = pick.randbytes(pick.randrange(1, 9))
            case _:
                found[2:] = pick.randbytes(len(found) - 1)
    return bytes(found)


@pytest.mark.parametrize("part", range(2))
def test_mutated_streams_end_in_what_zlib_says(stub, part, request):
    """What zlib takes is written, all else ends in a status; the sanitizers see all of it."""
    many = 10_000 if "soak" in request.config.getoption("-m") else 1000
    pick = random.Random(part)
    for _ in range(many):
        data = pick.choice((text(pick.randrange(1, 3000), pick.randrange(9)), bytes(pick.randrange(1, 40_000))))
        packer = zlib.compressobj(pick.choice((0, 1, 9)), zlib.DEFLATED, 15, 9, pick.randrange(5))
        stream = mutate(pick, packer.compress(data) + packer.flush())
        try:
            unpacker = zlib.decompressobj()
            expected = unpacker.decompress(stream)
            good = expected == data and unpacker.eof and not unpacker.unused_data
        except zlib.error:
            good = False
        last = finish(stub, len(data), stream)
        assert (last.status == 0) is good or (last.status == 0 and unpacker.unused_data)
        if last.status == 0:
            assert stub.call(s.Hash(0, len(data)).packet())[0].body == hashlib.md5(data).digest()


def test_the_harness_sees_a_violation(tmp_path):
    """Without write enable a program is one; so is a program from 0 to 1."""
    stub = HostStub(host_program())
    stub.ask()
    stub.call(s.SpiTransaction(0x02, 0, 24, 0, b"\0", 0, s.SPI_WAIT).packet())
    with pytest.raises(AssertionError, match="violation: program without enable"):
        stub.close()
