"""The table of attempts, ``RetryPolicy``, is what happens: a chip that never answers gets exactly so many requests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest

from espwire import Device, connect
from espwire.compress import deflate_zlib
from espwire.device.backends.stub_commands import read_md5s, run_batch
from espwire.device.double_read import read_word
from espwire.device.memory_access import load_segment, read_words
from espwire.errors import ToolError
from espwire.protocol import slip
from espwire.protocol.commands import ReadReg, Reply, parse_reply
from espwire.protocol.opcodes import Op
from espwire.protocol.stub import StubOp
from espwire.settings import RetryPolicy, Settings
from espwire.transport.url import open_transport

POLICY = RetryPolicy()
DATA = bytes(range(256)) * 64
RAM = 0x3FC90000  # a word of data memory of the ESP32-C3


class Line:
    """Stands between a loader and its transport: counts requests, and loses or damages what has one of ``ops``."""

    def __init__(self, transport, ops: set[int] | None, harm: str) -> None:
        self.ops, self.harm, self.sent = ops, harm, []
        self._decoder, self._value = slip.Decoder(), 0
        self._write, self._read = transport.write, transport.read
        transport.write, transport.read = self.write, self.read

    def hits(self, op: int) -> bool:
        return self.ops is None or op in self.ops

    def write(self, data: bytes, deadline: float) -> None:
        frames = slip.Decoder().feed(data)
        self.sent += [frame[1] for frame in frames if len(frame) >= 8 and frame[0] == 0]
        if self.harm == "damage":
            frames = [
                frame[:-1] + bytes([frame[-1] ^ 1]) if self.hits(frame[1]) else frame
                for frame in frames
            ]
            data = b"".join(map(slip.encode, frames))
        self._write(data, deadline)

    def read(self, timeout: float) -> bytes:
        data = self._read(timeout)
        if self.harm == "damage" or not data:
            return data
        out = b""
        for frame in self._decoder.feed(data):
            reply = parse_reply(frame)
            if reply is None or not self.hits(reply.op):
                out += slip.encode(frame)
            elif self.harm == "change":
                self._value += 1
                out += slip.encode(Reply(reply.op, self._value, reply.body).packet())
        return out


def ignore(done: int) -> None: ...


@dataclass(frozen=True)
class Row:
    """``job`` fails; until then ``op`` was sent ``count(policy)`` times. ``field`` is the number that decides."""

    name: str
    field: str
    op: int
    job: Callable[[Device], object]
    count: Callable[[RetryPolicy], int]
    chip: str = "esp32c3"
    stub: bool = False
    harm: str = "lose"  # "lose" the replies with ``op``, "lose all", "damage" requests, "change" the value of replies


def attempts(field: str) -> Callable[[RetryPolicy], int]:
    return lambda policy: getattr(policy, field)


ROWS = [
    Row(
        "repeatable request",
        "request_attempts",
        Op.READ_REG,
        lambda device: device.loader.read_reg(RAM),
        attempts("request_attempts"),
    ),
    Row(
        "register write",
        "request_attempts",
        Op.WRITE_REG,
        lambda device: device.write_mem(RAM, 1),
        lambda policy: 1,
    ),
    Row(
        "SYNC after a lost reply",
        "resync_attempts",
        Op.SYNC,
        lambda device: device.loader.read_reg(RAM),
        attempts("resync_attempts"),
        harm="lose all",
    ),
    Row(
        "answers that differ",
        "agreement_attempts",
        Op.READ_REG,
        lambda device: read_word(device.loader, RAM),
        attempts("agreement_attempts"),
        harm="change",
    ),
    Row(
        "flash block",
        "block_attempts",
        Op.FLASH_DATA,
        lambda device: device.backend.write(0x10000, DATA),
        attempts("block_attempts"),
    ),
    Row(
        "compressed flash block",
        "block_attempts",
        Op.FLASH_DEFL_DATA,
        lambda device: device.backend.write(0x10000, DATA, packed=deflate_zlib(DATA)),
        attempts("block_attempts"),
    ),
    Row(
        "slow read",
        "block_attempts",
        Op.READ_FLASH_SLOW,
        lambda device: b"".join(device.backend.read(0, 256)),
        lambda policy: policy.block_attempts**2,
    ),
    Row(
        "RAM block",
        "block_attempts",
        Op.MEM_DATA,
        lambda device: load_segment(device.loader, device.chip, RAM, DATA, ignore),
        attempts("block_attempts"),
    ),
    Row(
        "MD5",
        "block_attempts",
        Op.SPI_FLASH_MD5,
        lambda device: device.backend.digests(0, 0x1000, 0x1000),
        lambda policy: policy.block_attempts * policy.request_attempts,
    ),
    Row(
        "request that the stub reports as damaged",
        "damaged_attempts",
        Op.WRITE_REG,
        lambda device: device.write_mem(RAM, 1),
        attempts("damaged_attempts"),
        stub=True,
        harm="damage",
    ),
    Row(
        "ABORT after a lost reply",
        "abort_attempts",
        StubOp.ABORT,
        lambda device: device.loader.read_reg(RAM),
        attempts("abort_attempts"),
        stub=True,
        harm="lose all",
    ),
    Row(
        "batch",
        "request_attempts",
        StubOp.BATCH,
        lambda device: run_batch(device.loader, [ReadReg(RAM)]),
        attempts("request_attempts"),
        stub=True,
    ),
    Row(
        "batch of memory words",
        "memory_batch_attempts",
        StubOp.BATCH,
        lambda device: b"".join(read_words(device.loader, RAM, 256)),
        lambda policy: policy.memory_batch_attempts * policy.request_attempts,
        stub=True,
    ),
    Row(
        "hashes",
        "block_attempts",
        StubOp.HASH,
        lambda device: read_md5s(device.loader, 0, 0x10000, 0x1000),
        attempts("block_attempts"),
        stub=True,
    ),
]


def run(row: Row, policy: RetryPolicy) -> int:
    transport = open_transport(f"virtual:{row.chip}?size=1MB&profile=instant")
    with connect(transport, settings=Settings(retry=policy), stub=row.stub) as device:
        device.attach_flash()
        ops = None if row.harm == "lose all" else {int(row.op)}
        line = Line(transport, ops, row.harm)
        with pytest.raises(ToolError):
            row.job(device)
        return line.sent.count(row.op)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_a_chip_that_never_answers_gets_as_many_requests_as_the_policy_allows(row: Row) -> None:
    assert run(row, POLICY) == row.count(POLICY)
    other = replace(POLICY, **{row.field: getattr(POLICY, row.field) * 2})
    assert run(row, other) == row.count(other)


@pytest.mark.parametrize("policy", [POLICY, RetryPolicy(connect_attempts=2, syncs_per_attempt=3)])
def test_connecting_sends_as_many_syncs_as_the_policy_allows(policy: RetryPolicy) -> None:
    transport = open_transport("virtual:esp32c3?size=1MB")
    line = Line(transport, None, "lose all")
    with pytest.raises(ToolError):
        connect(transport, settings=Settings(retry=policy), stub=False)
    assert line.sent.count(Op.SYNC) == policy.connect_attempts * policy.syncs_per_attempt


@pytest.mark.parametrize("policy", [POLICY, RetryPolicy(security_info_attempts=4)])
def test_detection_asks_for_security_information_as_often_as_the_policy_allows(
    policy: RetryPolicy,
) -> None:
    transport = open_transport("virtual:esp32c3?size=1MB")
    line = Line(transport, {Op.GET_SECURITY_INFO}, "lose")
    with connect(transport, settings=Settings(retry=policy), stub=False) as device:
        assert device.chip.id == "esp32c3"
    assert line.sent.count(Op.GET_SECURITY_INFO) == policy.security_info_attempts


@pytest.mark.parametrize("limit", [1, 4])
def test_a_port_is_opened_as_often_as_the_policy_allows(
    limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from espwire.errors import TransportError

    calls: list[str] = []

    def refuse(url: str, **_: object) -> None:
        calls.append(url)
        raise TransportError("no such port")

    monkeypatch.setattr("espwire.transport.url.open_transport", refuse)
    monkeypatch.setattr("espwire.device.connect.OPEN_PAUSE_S", 0.0)
    with pytest.raises(TransportError):
        connect("socket://nowhere:1", settings=Settings(retry=RetryPolicy(open_attempts=limit)))
    assert len(calls) == limit
