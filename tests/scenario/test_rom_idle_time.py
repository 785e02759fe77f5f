"""Skipping the idle loops of a real mask ROM changes neither a byte nor a time, and nothing in the flash."""

from __future__ import annotations

import random
from typing import NamedTuple

import pytest
from tests.roms import find_ports

from espwire.device.connect import connect
from espwire.transport.url import open_transport
from espwire.virtual.soc.program import EngineProgram

pytestmark = pytest.mark.slow
SIZE, PAUSE_S = 0x800, 0.1


class Run(NamedTuple):
    """``received``: what arrived, with simulated times; ``skipped``: fraction of the time before the first SYNC."""

    received: list[tuple[float, bytes]]
    contents: bytes
    skipped: float


def run(port: str) -> Run:
    """Connect to the ROM, write to the flash, read a register."""
    transport = open_transport(port)
    received, read = [], transport.read

    def read_and_record(timeout: float) -> bytes:
        data = read(timeout)
        received.append((transport.now(), data))
        return data

    transport.read = read_and_record
    data = random.Random(port).randbytes(SIZE)
    transport.sleep(PAUSE_S)
    program = transport.chip.program
    jumped = program.jumped
    transport.sleep(PAUSE_S)
    skipped = (program.jumped - jumped) / (PAUSE_S * program.clock.hz)
    with connect(transport, before="no-reset", stub=False) as device:
        transport.sleep(PAUSE_S)  # it waits with interrupts on
        device.attach_flash()
        device.backend.write(0x20000, data)
        assert device.read_mem(device.chip.identity.magic_address)
    contents = bytes(transport.chip.flash.contents[0x20000 : 0x20000 + SIZE])
    assert contents == data
    return Run(received, contents, skipped)


@pytest.mark.parametrize("chip", ["esp32s3", "esp32c3", "esp32p4"])
def test_skipped_idle_loops_change_nothing(chip: str, monkeypatch: pytest.MonkeyPatch) -> None:
    ports = find_ports(chip)
    skipping = run(ports[0])
    monkeypatch.setattr(EngineProgram.__init__, "__kwdefaults__", {"jumps": False})
    executing = run(ports[0])
    assert skipping.received == executing.received
    assert skipping.contents == executing.contents
    assert skipping.skipped > 0.8
    assert executing.skipped == 0
