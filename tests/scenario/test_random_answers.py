"""A chip that answers anything at all: the client ends in a ToolError or in success, never in another exception."""

import os
import random
import struct

import pytest

from espwire.blob import Blob
from espwire.chips.registry import chip_ids, load_chip
from espwire.device.connect import connect
from espwire.device.loader import Loader
from espwire.errors import ToolError
from espwire.flash.read import read_to_file
from espwire.flash.verify import verify_flash
from espwire.flash.write import write_flash
from espwire.protocol import slip
from espwire.protocol.commands import parse_request
from espwire.protocol.opcodes import Op
from espwire.settings import RetryPolicy, Settings
from espwire.transport.base import TransportInfo

CI_ANSWERS, FULL_ANSWERS = 5_000, 100_000
QUICK = Settings(retry=RetryPolicy(connect_attempts=2, syncs_per_attempt=2, block_attempts=2))


class RandomLink:
    """Answers every request with something: often shaped right, sometimes even good, with lies of all kinds."""

    def __init__(self, rng, chip, kindness):
        self.rng, self.chip, self.kindness = rng, chip, kindness
        self.info = TransportInfo(name="random", kind="virtual", can_reset=rng.random() < 0.3)
        self.decoder = slip.Decoder()
        self.inbox = []
        self.answers = 0
        self.time = 0.0

    def good(self, op):
        size = {Op.SPI_FLASH_MD5: 32, Op.READ_FLASH_SLOW: 64, Op.GET_SECURITY_INFO: 20}.get(op, 0)
        body = self.rng.randbytes(size)
        if op == Op.SPI_FLASH_MD5 and self.rng.random() < 0.7:
            body = body[:16].hex().encode()
        if op == Op.GET_SECURITY_INFO and self.chip.identity.image_chip_id is not None:
            body = bytes(12) + struct.pack("<II", self.chip.identity.image_chip_id, 0)
        magics = self.chip.identity.magic_values
        value = magics[0] if magics and self.rng.random() < 0.5 else self.rng.getrandbits(32)
        return struct.pack("<BBHI", 1, op, len(body) + 4, value) + body + bytes(4)

    def answer(self, op):
        self.answers += 1
        rng = self.rng
        if rng.random() < self.kindness:
            frame = self.good(op)
        else:
            body = rng.randbytes(rng.choice((0, 1, 2, 4, 20, 36, 68, rng.randint(0, 300))))
            said = len(body) if rng.random() < 0.8 else rng.getrandbits(16)
            direction = 1 if rng.random() < 0.9 else rng.getrandbits(8)
            code = op if rng.random() < 0.8 else rng.getrandbits(8)
            frame = struct.pack("<BBHI", direction, code, said, rng.getrandbits(32)) + body
        data = slip.encode(frame) * rng.choice((1, 1, 1, 2, 8))
        match rng.randint(0, 19):
            case 0:
                data = rng.randbytes(rng.randint(1, 400))
            case 1:
                data = data[: rng.randint(0, len(data))]
            case 2:
                data = (
                    rng.choice(
                        (
                            b"\r\nGuru Meditation Error",
                            b"rst:0x1 (POWERON),boot:0x8",
                            b"ets Jan  8 2013",
                        )
                    )
                    + data
                )
            case 3:
                data = b"\xdb" + data
            case 4:
                data = rng.randbytes(70_000)
        return data

    def write(self, data, deadline):
        for frame in self.decoder.feed(data):
            request = parse_request(frame)
            if request is not None and self.rng.random() < 0.97:
                self.inbox.append(self.answer(request.op))

    def read(self, timeout):
        if not self.inbox:
            self.time += max(timeout, 0.0)
            return b""
        data = self.inbox.pop(0)
        if len(data) > 1 and self.rng.random() < 0.2:
            cut = self.rng.randint(1, len(data) - 1)
            self.inbox.insert(0, data[cut:])
            data = data[:cut]
        return data

    def drain(self):
        pass

    def discard_input(self):
        self.inbox.clear()

    def set_baud(self, baud):
        pass

    def set_lines(self, *, dtr=None, rts=None):
        pass

    def now(self):
        return self.time

    def sleep(self, seconds):
        self.time += seconds

    def close(self):
        pass


def session(rng, tmp_path):
    """One use of the library against a random chip; the number of answers given."""
    name = rng.choice(chip_ids())
    transport = RandomLink(rng, load_chip(name), rng.choice((0.5, 0.9, 0.98, 1.0)))
    target = tmp_path / "read.bin"
    try:
        device = connect(
            transport,
            chip=rng.choice((None, name)),
            settings=QUICK,
            baud=rng.choice((115200, 460800)),
            stub=False,
        )
        device.features, device.crystal_mhz  # noqa: B018 reads registers
        device.attach_flash(size=rng.choice((None, 0x400000)))
        part = Blob(0x10000, rng.randbytes(rng.randint(1, 4000)))
        match rng.randint(0, 2):
            case 0:
                write_flash(device, [part])
            case 1:
                verify_flash(device, [part])
            case 2:
                read_to_file(device, 0x1000, rng.randint(1, 2000), target)
        device.leave("hard-reset")
    except ToolError as error:
        unclear = not error.hint or not error.code or target.exists()
    else:
        unclear = False
    assert not unclear
    assert transport.time < 2000
    assert [p.name for p in tmp_path.iterdir() if p != target] == []
    target.unlink(missing_ok=True)
    return transport.answers


def run(count, seed, tmp_path):
    answered, number = 0, 0
    while answered < count:
        answered += session(random.Random(seed * 1_000_003 + number), tmp_path)
        number += 1


def test_five_thousand_random_answers(tmp_path):
    run(CI_ANSWERS, 1, tmp_path)


@pytest.mark.soak
def test_a_hundred_thousand_random_answers(tmp_path):
    run(FULL_ANSWERS, int(os.environ.get("ESPWIRE_SEED", "1000")), tmp_path)


def test_the_harness_notices_a_missing_length_check(tmp_path, monkeypatch):
    def judge(self, reply, result):
        assert reply.body[result] in range(256)
        return type(reply)(reply.op, reply.value, reply.body[:result])

    monkeypatch.setattr(Loader, "check_status", judge)
    with pytest.raises(IndexError):
        run(CI_ANSWERS, 1, tmp_path)
