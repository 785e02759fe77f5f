"""Every kind of fault can happen on every chip, and the same seed gives the same faults."""

import itertools

import pytest

from espwire.chips.registry import chip_ids
from espwire.errors import UsageError
from espwire.protocol import slip
from espwire.protocol.commands import FlashBegin, FlashData, Sync
from espwire.virtual.faults import KINDS, Faults, FaultSpec, parse_faults
from espwire.virtual.transport import VirtualTransport, open_virtual


def talk(transport: VirtualTransport, rounds: int = 6) -> bytes:
    """Sync and write without waiting for answers; returns what was received."""
    out = b""
    five = transport.chip.chip.rom.begin_words == 5
    blocks = [FlashData(i, b"x" * 0x400) for i in range(rounds)]
    for packet in [Sync(), FlashBegin(0x2000, 8, 0x400, 0, 0 if five else None), *blocks]:
        transport.write(slip.encode(packet.packet()), transport.now() + 60)
        end = transport.now() + 2
        while transport.now() < end and not (
            piece := transport.read(end - transport.now())
        ).endswith(b"\xc0"):
            out += piece
    return out


@pytest.mark.parametrize(("kind", "name"), list(itertools.product(KINDS, chip_ids())))
def test_every_kind_fires_on_every_chip(kind, name):
    transport = open_virtual(f"virtual:{name}?fault={kind}@1")
    talk(transport, 2)
    assert [fired for _, fired in transport.chip.faults.fired] == [kind]


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_seed_gives_the_same_faults(kind):
    def run(seed: int) -> tuple[bytes, list[tuple[float, str]]]:
        transport = open_virtual(f"virtual:esp32c3?fault={kind}:0.02&seed={seed}")
        return talk(transport), transport.chip.faults.fired

    assert run(7) == run(7)


def test_a_flip_changes_one_bit_or_the_same_bit_of_two_bytes():
    counts = set()
    for seed in range(50):
        wait, out = Faults(FaultSpec(once={"flip": 5}), seed).piece(0.0, bytes(100), to_chip=True)
        assert wait == 0
        assert len(out) == 100
        changed = [byte for byte in out if byte]
        assert out[4].bit_count() == 1
        assert set(changed) == {out[4]}
        counts.add(len(changed))
    assert counts == {1, 2}


@pytest.mark.parametrize(
    ("kind", "whole"), [("drop", b""), ("dup", bytes(range(200)) * 2), ("garbage", None)]
)
def test_drop_dup_and_garbage_change_the_length(kind, whole):
    data = bytes(range(200))
    outcomes = [
        Faults(FaultSpec(once={kind: 11}), seed).piece(0.0, data, to_chip=True)[1]
        for seed in range(50)
    ]
    for out in outcomes:
        assert out == whole or out[:10] == data[:10]
        assert (len(out) > len(data)) is (kind != "drop")
    assert whole is None or whole in outcomes  # a bridge loses or repeats whole packets too


def test_overflow_takes_a_piece_behind_the_fifo_of_long_frames_to_the_chip_only():
    def spoil(data: bytes, *, to_chip: bool) -> bytes:
        return Faults(FaultSpec(once={"overflow": 1})).piece(0.0, data, to_chip=to_chip)[1]

    data = bytes(range(250)) * 4
    assert spoil(data[:100], to_chip=True) == data[:100]
    assert spoil(data, to_chip=False) == data
    out = spoil(data, to_chip=True)
    assert len(out) < len(data)
    assert out[:128] == data[:128]


def test_delay_and_stall_take_time():
    for kind, least in (("delay", 0.01), ("stall", 1.0)):
        wait, out = Faults(FaultSpec(once={kind: 1})).piece(0.0, b"abc", to_chip=False)
        assert wait >= least
        assert out == b"abc"


def test_rates_come_out_about_right():
    faults = Faults(FaultSpec(rates={"flip": 0.01}), seed=3)
    for _ in range(100):
        faults.piece(0.0, bytes(1000), to_chip=True)
    assert 850 < len(faults.fired) < 1150


def test_reset_and_power_hit_soon_after_a_command_began():
    for kind in ("reset", "power"):
        transport = open_virtual(f"virtual:esp32c3?fault={kind}@2")
        talk(transport, 1)
        transport.sleep(1)
        assert transport.chip.boots == 1
        assert transport.chip.faults.fired[0][1] == kind


def test_without_faults_nothing_is_touched():
    data = bytes(1000)
    assert Faults(FaultSpec()).piece(0.0, data, to_chip=True) == (0.0, data)
    assert parse_faults("") == FaultSpec()


@pytest.mark.parametrize(
    "text", ["flip", "flip:", "flip:2", "flip:-1", "flip@0", "flip@x", "melt:0.1", ":1", "flip:nan"]
)
def test_a_schedule_that_makes_no_sense_is_refused(text):
    with pytest.raises(UsageError) as caught:
        parse_faults(text)
    assert caught.value.code == "fault-spec"


def test_a_schedule_is_read():
    assert parse_faults("flip:0.001, drop:1e-4,power@3") == FaultSpec(
        rates={"flip": 0.001, "drop": 1e-4}, once={"power": 3}
    )
