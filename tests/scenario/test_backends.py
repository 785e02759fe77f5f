"""The contract of `FlashBackend`, the same for every loader: ROM, the vendor's stub and ours."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator

import pytest

from espwire import Device, connect
from espwire.compress import deflate_zlib
from espwire.device.backends.base import FlashBackend
from espwire.device.spi import SpiCommand
from espwire.device.stub_image import StubImage
from espwire.errors import NoReply
from espwire.protocol.opcodes import READ_ID

VENDOR = StubImage(entry=0x400BE5AC, segments=((0x400BE000, bytes(3432)), (0x3FFDEBA8, bytes(4))))
STUBS = {"rom": False, "vendor stub": VENDOR, "stub": True}
START, DATA = 0x11000, random.Random(8).randbytes(0x2800) + bytes(0x2800)


@pytest.fixture(params=list(STUBS))
def device(request: pytest.FixtureRequest) -> Iterator[Device]:
    url = "virtual:esp32?size=1MB" + ("&stub=vendor" if request.param == "vendor stub" else "")
    with connect(url, stub=STUBS[request.param]) as device:
        device.attach_flash()
        yield device


@pytest.fixture
def backend(device: Device) -> FlashBackend:
    return device.backend


@pytest.mark.parametrize("compressed", [False, True])
def test_what_is_written_is_read_and_hashed(backend: FlashBackend, compressed: bool) -> None:
    done: list[int] = []
    packed = deflate_zlib(DATA) if compressed and backend.limits.can_compress else None
    backend.write(START, DATA, packed=packed, progress=done.append)
    assert done[-1] == len(DATA)
    assert b"".join(backend.read(START, len(DATA))) == DATA
    whole = hashlib.md5(DATA).digest()
    assert backend.digests(START, len(DATA), len(DATA)) == [whole]
    pieces = [hashlib.md5(DATA[at : at + 0x1000]).digest() for at in range(0, len(DATA), 0x1000)]
    assert backend.digests(START, len(DATA), 0x1000) == pieces


def test_what_is_erased_is_blank_and_nothing_else(backend: FlashBackend) -> None:
    backend.write(START, DATA)
    assert backend.find_written(START, 0x5000)
    done: list[int] = []
    backend.erase(START + 0x1000, 0x2000, progress=done.append)
    assert done[-1] == 0x2000
    assert backend.find_written(START + 0x1000, 0x2000) == ()
    assert b"".join(backend.read(START, 0x1000)) == DATA[:0x1000]
    assert b"".join(backend.read(START + 0x3000, 0x2000)) == DATA[0x3000:]


def test_the_whole_chip_is_erased(backend: FlashBackend) -> None:
    backend.write(START, DATA)
    backend.erase(0, 0x100000)
    assert backend.find_written(0, 0x100000) == ()


def test_spi_transactions_reach_the_flash_chip(backend: FlashBackend) -> None:
    assert backend.spi((SpiCommand(opcode=READ_ID, read_bits=24),)) == 0x1440EF


def test_a_failed_write_carries_how_much_is_certain(device: Device) -> None:
    backend, transport = device.backend, device.transport
    write, left = transport.write, [40 if backend.limits.can_resume else 6]

    def cut(data: bytes, deadline: float) -> None:
        left[0] -= 1
        if left[0] > 0:
            write(data, deadline)

    transport.write = cut  # type: ignore[method-assign]
    with pytest.raises(NoReply) as caught:
        backend.write(START, random.Random(9).randbytes(0x20000))
    until = caught.value.written_until
    assert (until is not None) is backend.limits.can_resume
    if until is not None:
        assert START <= until < START + 0x20000
        contents = transport.chip.flash.contents  # type: ignore[attr-defined]
        assert contents[START:until] == random.Random(9).randbytes(0x20000)[: until - START]
