"""No single flipped bit between espwire and its stub, in either direction, changes the meaning of a frame.

Frames: every bit on the wire. Whole operations: a seeded sample, all bits in soak.
"""

import random
from contextlib import suppress

import pytest
from tests.stub_drivers.flips import PAYLOAD, REQUESTS, FlippingLink, flips
from tests.stub_drivers.programs import FREE_RAM

from espwire.device.backends import stub_commands
from espwire.device.baud import change_baud
from espwire.device.connect import connect
from espwire.device.memory_access import load_segment
from espwire.device.stub_image import stub_chips
from espwire.errors import DeviceError, NoReply, ToolError
from espwire.protocol import slip
from espwire.protocol import stub as s
from espwire.protocol.commands import ReadReg, RegWrite, Reply, SpiFlashMd5, Sync, parse_reply
from espwire.protocol.opcodes import Op
from espwire.virtual.programs.stub_model import Trust, find_trust
from espwire.virtual.transport import open_virtual

CHIPS = stub_chips()
REPLIES = [
    Reply(Op.SYNC, 0, b"\0\0"),
    Reply(Op.READ_REG, 0x00F01D83, b"\0\0"),
    Reply(Op.READ_REG, 0xC0DBC0DB, b"\0\0"),
    Reply(Op.SPI_FLASH_MD5, 0, bytes(range(0xC0, 0xD0)) + b"\0\0"),
    Reply(Op.ERASE_REGION, 0, b"\0\0"),
    Reply(Op.ERASE_REGION, 0, b"\xc2\0"),
    Reply(s.StubOp.CAPABILITIES, 2, s.MAGIC + bytes(40) + b"\0\0"),
    s.Report(2048, 28672, 512, 7, s.REPORT_AGAIN).reply(),
    s.ReadPacket(0x400, PAYLOAD).reply(),
    s.ReadPacket(0x400, b"\xff" * 8).reply(short=True),
    Reply(s.StubOp.HASH, 16, bytes(range(16)) + b"\0\0"),
    Reply(s.StubOp.BATCH, 0, s.pack_batch_answer(Reply(Op.READ_REG, 0x1234, b"\0\0")) + b"\0\0"),
    Reply(s.StubOp.ABORT, 0x5A0001, b"\0\0"),
]


def frames_of(wire, following):
    return slip.Decoder().feed(wire + following)


@pytest.mark.parametrize("command", REQUESTS, ids=lambda command: type(command).__name__)
@pytest.mark.parametrize(
    "behind", [b"", slip.encode(s.seal(ReadReg(0x40001004).packet()))], ids=["alone", "followed"]
)
def test_the_stub_trusts_no_request_with_a_flipped_bit(command, behind):
    packet = s.seal(command.packet())
    after = frames_of(b"", behind)
    for wire in flips(slip.encode(packet)):
        trusted = [
            one
            for one in frames_of(wire, behind)
            if find_trust(one, sealed=True) is not Trust.DAMAGED
        ]
        assert trusted in (
            [],
            [packet],
            after,
            [packet, *after],
        )  # an additional or missing END has no effect


@pytest.mark.parametrize("reply", REPLIES, ids=lambda reply: f"{reply.op:02x}-{reply.value:x}")
def test_the_host_opens_no_reply_with_a_flipped_bit(reply):
    for wire in flips(slip.encode(s.seal_reply(reply))):
        parsed = [one for frame in frames_of(wire, b"") if (one := parse_reply(frame)) is not None]
        assert [opened for one in parsed if (opened := s.unseal(one)) is not None] in ([], [reply])


def test_only_a_sync_is_taken_unsealed_from_a_host_that_seals():
    trusted = [
        one for one in REQUESTS if find_trust(one.packet(), sealed=True) is not Trust.DAMAGED
    ]
    assert trusted == [Sync()]
    own = [one for one in REQUESTS if find_trust(one.packet(), sealed=False) is Trust.UNSEALED]
    assert not [one for one in own if one.op >= s.StubOp.CAPABILITIES]


# --- whole operations ---

AREA, START = 0x4000, 0x2000
OLD = random.Random(1).randbytes(AREA)
NEW = random.Random(2).randbytes(300)


class Board:
    """A chip with our stub, whose flash and transport a test may damage."""

    def __init__(self, chip):
        self.transport = FlippingLink(open_virtual(f"virtual:{chip}?size=1MB&profile=fast"))
        self.device = connect(self.transport, stub=True)
        self.device.attach_flash()
        self.loader, self.flash = self.device.loader, self.transport.chip.flash.contents
        assert self.loader.dialect.sealed
        self.loader.read_reg(self.register)  # what was sent ahead is complete

    @property
    def register(self):
        return self.device.chip.spi.base + self.device.chip.spi.data_offset

    def restore(self):
        self.flash[:AREA] = OLD
        self.transport.arm(None, 0)
        with suppress(ToolError):
            self.loader.abort()
        self.loader.write_regs(RegWrite(self.register, 0x1234))


def read_words(board):
    commands = [
        ReadReg(0x40001000),
        s.SpiTransaction(0x9F, read=3),
        SpiFlashMd5(0, 64),
        ReadReg(board.register),
    ]
    return [(one.value, one.body) for one in stub_commands.run_batch(board.loader, commands)]


def write(board):
    board.device.backend.write(START, NEW)
    return board.flash[START : START + 0x1000] == NEW + b"\xff" * (0x1000 - len(NEW))


def erase(board):
    board.device.backend.erase(START, 0x1000)
    return board.flash[START : START + 0x1000] == b"\xff" * 0x1000


def write_register(board):
    board.loader.write_regs(RegWrite(board.register, 0xC0DB1234))
    return board.transport.chip.registers.read(board.transport.now(), board.register)


def load_ram(board):
    address = FREE_RAM[board.device.chip.id]
    load_segment(board.loader, board.device.chip, address, NEW, lambda done: None)
    return board.transport.chip.registers.ram.read(address, len(NEW)) == NEW


def go_faster(board):
    change_baud(
        board.loader,
        board.device.chip,
        None,
        230400 if board.loader.baud == 115200 else 115200,
        None,
    )
    return board.loader.sync(1)


JOBS = {
    "read a register": lambda board: board.loader.read_reg(0x40001000),
    "batch": read_words,
    "capabilities": lambda board: (
        board.loader.call(s.AskCapabilities(), result=s.CAPABILITIES_BYTES, repeatable=True).body
    ),
    "hashes": lambda board: stub_commands.read_md5s(board.loader, 0, 0x2000, 0x1000),
    "blank check": lambda board: stub_commands.find_written(board.loader, 0, AREA, 0x1000),
    "MD5": lambda board: board.device.backend.digests(0, 0x1000, 0x1000),
    "read": lambda board: b"".join(board.device.backend.read(START, 100)),
    "read blank": lambda board: b"".join(board.device.backend.read(0x8000, 5000)),
    "write": write,
    "erase": erase,
    "write a register": write_register,
    "RAM": load_ram,
    "baud rate": go_faster,
    "abort": lambda board: board.loader.abort(),
}


def sweep(chip, name, pick, most):
    """Number of flips with the right result, and with an error; anything else fails."""
    board, job = Board(chip), JOBS[name]
    board.restore()
    expected = job(board)
    passed, right, failed = dict(board.transport.passed), 0, 0
    places = [(way, bit) for way in ("out", "in") for bit in range(8 * passed[way])]
    for way, bit in places if most is None else pick.sample(places, min(most, len(places))):
        board.restore()
        board.transport.arm(way, bit)
        try:
            found = job(board)
        except ToolError:
            failed += 1
        else:
            right += 1
            assert found == expected, (way, bit)
        assert board.flash[:START] == OLD[:START], (way, bit)
        assert board.flash[START + 0x1000 : AREA] == OLD[START + 0x1000 :], (way, bit)
        assert bytes(board.flash[AREA:]).count(0xFF) == len(board.flash) - AREA, (way, bit)
    return right, failed


@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("chip", CHIPS)
def test_a_flipped_bit_ends_in_the_right_result_or_an_error(chip, name):
    right, failed = sweep(chip, name, random.Random(f"{chip} {name}"), 12)
    assert right > failed


@pytest.mark.soak
@pytest.mark.parametrize("name", JOBS)
@pytest.mark.parametrize("chip", CHIPS)
def test_every_flipped_bit_ends_in_the_right_result_or_an_error(chip, name):
    right, failed = sweep(chip, name, random.Random(), None)
    print(f"{chip}, {name}: {right + failed} bits, {failed} errors")
    assert right > failed


@pytest.mark.parametrize("lacking", ["host", "stub"])
def test_the_sweep_sees_a_side_that_does_not_check(monkeypatch, lacking):
    if lacking == "host":
        cut = lambda reply: Reply(reply.op, reply.value, reply.body[: -s.SEAL_BYTES])  # noqa: E731
        monkeypatch.setattr("espwire.protocol.reply_matcher.unseal", cut)
    else:
        monkeypatch.setattr("espwire.virtual.programs.stub_model.is_sealed", lambda packet: True)
    # a wrong result, or the stub is gone, or the chip has reset
    with pytest.raises((AssertionError, NoReply, DeviceError)):
        _ = [
            sweep("esp32c3", name, random.Random(1), 150)
            for name in ("read a register", "write a register", "erase")
        ]
