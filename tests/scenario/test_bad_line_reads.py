"""Reading through a ROM over a line that loses answers: repaired where few are lost, ended in time where many are."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from espwire.blob import Blob
from espwire.device.connect import connect
from espwire.device.device import Device
from espwire.errors import NoReply
from espwire.flash.load_ram import dump_mem
from espwire.flash.read import read_flash, read_to_file
from espwire.flash.verify import verify_flash
from espwire.protocol import slip
from espwire.protocol.opcodes import Op

SIZE = 0x40000
TIMEOUT_S = 3.0


@pytest.fixture
def device() -> Iterator[Device]:
    with connect("virtual:esp32?size=4MB", stub=False) as device:
        yield device


def lose_answers(device: Device, monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    """Lose every so many replies, other than those to SYNC, on their way to the host."""
    numbers, decoder, read = count(1), slip.Decoder(), device.transport.read

    def lossy_read(timeout: float) -> bytes:
        deadline = device.transport.now() + timeout
        while data := read(max(deadline - device.transport.now(), 0.0)):
            frames = [
                frame
                for frame in decoder.feed(data)
                if frame[1] == Op.SYNC or next(numbers) % every
            ]
            if frames:
                return b"".join(map(slip.encode, frames))
        return b""

    monkeypatch.setattr(device.transport, "read", lossy_read)


def test_a_line_that_loses_few_answers_is_read_right(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    lose_answers(device, monkeypatch, 200)
    assert read_flash(device, 0, SIZE) == b"\xff" * SIZE
    assert device.loader.lost > 10


@pytest.mark.parametrize("every", [2, 3, 10, 25])
def test_a_read_over_a_bad_line_ends_in_time(
    device: Device, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, every: int
) -> None:
    lose_answers(device, monkeypatch, every)
    began, trips = device.transport.now(), device.loader.trips
    with pytest.raises(NoReply) as caught:
        read_to_file(device, 0, 0x400000, tmp_path / "out.bin")
    assert caught.value.code in (
        "no-reply",
        "line-too-bad",
    )  # three in a row at one place end it, too
    lost, policy = device.loader.lost, device.loader.settings.retry
    share = (device.loader.trips - trips) // policy.requests_per_lost_reply
    assert lost <= policy.lost_replies + share + 2
    # what was lost costs a time-out each, and putting the loader in step again less than that
    assert device.transport.now() - began < (lost + 2) * 2 * TIMEOUT_S + 0.02 * (
        device.loader.trips - trips
    )
    assert not (tmp_path / "out.bin").exists()


def test_a_dump_of_memory_and_a_verification_by_reading_end_in_time(
    device: Device, monkeypatch: pytest.MonkeyPatch
) -> None:
    device.attach_flash()
    began = device.transport.now()
    lose_answers(device, monkeypatch, 10)
    with pytest.raises(NoReply) as caught:
        dump_mem(device, 0x40000000, 0x10000)
    assert caught.value.code == "line-too-bad"
    whole = device.loader.supports
    monkeypatch.setattr(
        device.loader, "supports", lambda op: op is not Op.SPI_FLASH_MD5 and whole(op)
    )
    with pytest.raises(NoReply) as caught:
        verify_flash(device, [Blob(0, b"\xff" * SIZE, "x")])
    assert caught.value.code in ("no-reply", "line-too-bad")
    assert device.transport.now() - began < 600
