"""Executing plans, verifying, reading and erasing, on a device made of a bytearray."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espwire.blob import Blob
from espwire.chips.registry import load_chip
from espwire.device.backends.base import ignore
from espwire.device.backends.rom import find_block_limits
from espwire.device.flash_id import FlashInfo
from espwire.device.loader import Loader
from espwire.device.security import SecurityInfo
from espwire.errors import (
    Cancelled,
    SafetyStop,
    Unsupported,
    UsageError,
    VerifyError,
)
from espwire.events import Finished, Progress, Warned
from espwire.flash.erase import erase_region
from espwire.flash.findings import Policy
from espwire.flash.model import FlashTarget
from espwire.flash.plan import plan
from espwire.flash.read import read_to_file
from espwire.flash.verify import MOST_DIGESTS, find_differences, verify_flash
from espwire.flash.write import execute
from espwire.transport.base import CancelToken

SIZE, SECTOR = 0x400000, 0x1000


class FakeClock:
    time = 0.0

    def now(self):
        self.time += 0.5
        return self.time


class FakeBackend:
    """Flash made of a bytearray. ``spoil_writes``: addresses that come out wrong, once each."""

    def __init__(self, limits):
        self.limits = limits
        self.memory = bytearray(b"\x55" * SIZE)
        self.spoil_writes = []
        self.md5s = self.writes = 0

    def digests(self, start, size, piece):
        ends = range(start, start + size, piece)
        self.md5s += len(ends)
        return [
            hashlib.md5(self.memory[at : min(at + piece, start + size)]).digest() for at in ends
        ]

    def read(self, start, size, *, progress=ignore, report=None):
        for at in range(start, start + size, 64):
            yield bytes(self.memory[at : min(at + 64, start + size)])
            progress(min(at + 64, start + size) - start)

    def write(self, start, data, *, packed=None, codec=None, encrypted=False, progress=ignore):
        self.writes += 1
        end = start + len(data)
        self.memory[start : -(-end // SECTOR) * SECTOR] = b"\xff" * (
            -(-end // SECTOR) * SECTOR - start
        )
        self.memory[start:end] = data
        self._spoil()
        for done in range(1024, len(data), 1024):
            progress(done)
        progress(len(data))

    def erase(self, start, size, *, progress=ignore):
        self.memory[start : start + size] = b"\xff" * size
        self._spoil()
        progress(size)

    def find_written(self, start, size):
        return (
            () if not self.memory[start : start + size].strip(b"\xff") else ((start, start + size),)
        )

    def _spoil(self):
        if self.spoil_writes:
            self.memory[self.spoil_writes.pop(0)] ^= 1


class FakeDevice:
    """As much of a Device as flash/ needs."""

    def __init__(self, chip_id="esp32c3", *, secure=False, **security):
        self.chip = load_chip(chip_id)
        self.transport = FakeClock()
        self.backend = FakeBackend(find_block_limits(Loader(None, self.chip.rom, secure=secure)))
        self.flash = FlashInfo(jedec=0x1640EF, size=SIZE)
        self.mac = "24:0a:c4:00:01:10"
        self.revision, self.revision_known = 3, True
        self.secure_download = secure
        self.stub_failed = False
        self.security = SecurityInfo(**security)

    @property
    def memory(self):
        return self.backend.memory

    def tune_line(self, direction, size):
        pass


def run(device, parts, policy=None, **keywords):
    events = []
    planned = plan(parts, target=FlashTarget.of(device), policy=policy)
    execute(planned, device, report=events.append, **keywords)
    return events


def codes(events):
    return [event.code for event in events if isinstance(event, Warned)]


def test_a_blob_is_written_verified_and_reported():
    device = FakeDevice()
    events = run(device, [Blob(0x10000, b"content" * 1000, "app.bin")])
    assert device.memory[0x10000:][:7000] == b"content" * 1000
    assert [(e.task, e.name) for e in events if isinstance(e, Finished)] == [
        ("write", "app.bin"),
        ("verify", "app.bin"),
    ]
    bar = [(e.task, e.done, e.total) for e in events if isinstance(e, Progress)]
    assert bar[0] == ("write", 0, 7000)
    assert bar[-2:] == [("write", 7000, 7000), ("verify", 0, 8192)]
    assert codes(events) == []


def test_a_blob_that_came_out_wrong_is_written_once_more():
    device = FakeDevice()
    device.backend.spoil_writes = [0x10005]
    events = run(device, [Blob(0x10000, b"content", "app.bin")])
    assert device.backend.writes == 2
    assert device.memory[0x10000:][:7] == b"content"
    assert codes(events) == ["rewrite"]


@pytest.mark.parametrize("rewrites, writes", [(0, 1), (1, 2), (2, 3)])
def test_a_part_that_stays_wrong_is_a_verify_error_with_its_ranges(rewrites, writes):
    device = FakeDevice()
    device.backend.spoil_writes = [0x12005] * 9
    with pytest.raises(VerifyError, match=r"app\.bin at 0x12000\.\.0x13000") as caught:
        run(device, [Blob(0x10000, bytes(0x8000), "app.bin")], Policy(rewrites=rewrites))
    assert caught.value.ranges == ((0x12000, 0x13000),)
    assert device.backend.writes == writes


def test_the_flash_is_not_compared_when_verification_is_off():
    device = FakeDevice()
    device.backend.spoil_writes = [0x10005]
    assert codes(run(device, [Blob(0x10000, b"content")], Policy(verify=False))) == []
    assert device.backend.md5s == 0


@pytest.mark.parametrize("arguments", [{"chip_id": "esp8266"}, {"secure": True}])
def test_what_cannot_be_verified_is_warned_of_by_name(arguments):
    device = FakeDevice(**arguments)
    events = run(
        device, [Blob(0x10000, b"content", "app.bin"), Blob(0x20000, b"content", "data.bin")]
    )
    assert codes(events) == ["unverified"]
    assert "app.bin, data.bin: written, but not verified" in next(
        e.text for e in events if isinstance(e, Warned)
    )
    assert not any(e.task == "verify" for e in events if isinstance(e, Finished))


def test_verification_that_is_demanded_and_impossible_writes_nothing():
    device = FakeDevice("esp8266")
    planned = plan([Blob(0, b"content")], target=FlashTarget.of(device))
    object.__setattr__(planned, "policy", Policy(verify=True))
    with pytest.raises(Unsupported):
        execute(planned, device)
    assert device.backend.writes == 0


def test_cancelling_stops_between_blocks():
    device, cancel = FakeDevice(), CancelToken()
    events = []

    def report(event):
        events.append(event)
        if isinstance(event, Progress) and event.done >= 2048:
            cancel.cancel()

    planned = plan([Blob(0, bytes(0x8000))], target=FlashTarget.of(device))
    with pytest.raises(Cancelled):
        execute(planned, device, cancel=cancel, report=report)
    assert max(e.done for e in events if isinstance(e, Progress)) < 0x8000


@given(
    st.sets(st.integers(0, 0x2FFFF), min_size=1, max_size=12),
    st.sampled_from([0, 0x10000, 0x10800]),
)
def test_every_difference_is_found_and_nothing_far_from_one(places, address):
    device = FakeDevice()
    data = bytes(device.memory[address : address + 0x30000])
    for place in places:
        device.memory[address + place] ^= 0xFF
    ranges = find_differences(device, address, data)
    for place in places:
        assert any(start <= address + place < end for start, end in ranges)
    bad_sectors = {(address + place) // SECTOR for place in places}
    for start, end in ranges:
        assert set(range(start // SECTOR, (end - 1) // SECTOR + 1)) <= bad_sectors
    assert device.backend.md5s <= MOST_DIGESTS + 3


def test_looking_for_differences_is_bounded():
    device = FakeDevice()
    ranges = find_differences(device, 0, bytes(SIZE))
    assert ranges == ((0, SIZE),)
    assert device.backend.md5s <= MOST_DIGESTS + 3


def test_a_difference_is_hashed_twice_as_a_whole_and_once_by_parts():
    device = FakeDevice()
    with pytest.raises(VerifyError) as caught:
        verify_flash(device, [Blob(0, bytes(64 * SECTOR), "a")])
    assert caught.value.ranges == ((0, 64 * SECTOR),)
    assert device.backend.md5s == 2 + 64


def test_verify_looks_at_every_part_before_it_complains():
    device = FakeDevice()
    device.memory[0x1000:0x1003] = b"one"
    parts = [Blob(0x1000, b"one", "a"), Blob(0x2000, b"two", "b"), Blob(0x3000, b"three", "c")]
    with pytest.raises(VerifyError) as caught:
        verify_flash(device, parts)
    assert "b, c" in str(caught.value)
    assert caught.value.ranges == ((0x2000, 0x2003), (0x3000, 0x3005))
    events = []
    verify_flash(device, parts[:1], report=events.append)
    assert [type(e) for e in events] == [Progress, Finished]
    assert events[-1].percent == 100.0
    with pytest.raises(Unsupported):
        verify_flash(FakeDevice("esp8266"), parts)


def test_flash_is_read_into_a_file(tmp_path):
    device = FakeDevice()
    device.memory[0x11000:0x11007] = b"content"
    events = []
    assert (
        read_to_file(device, 0x10FFF, 0x20001, tmp_path / "out.bin", report=events.append)
        == 0x20001
    )
    assert (tmp_path / "out.bin").read_bytes() == device.memory[0x10FFF:0x31000]
    bar = [e.done for e in events if isinstance(e, Progress)]
    assert bar == sorted(bar)
    assert bar[-1] == 0x20001
    assert isinstance(events[-1], Finished)


def test_all_means_up_to_the_end(tmp_path):
    device = FakeDevice()
    assert read_to_file(device, SIZE - 0x1000, None, tmp_path / "out.bin") == 0x1000


def test_a_range_that_is_not_there_is_a_usage_error(tmp_path):
    for address, size in ((SIZE, None), (0, 0), (SIZE - 16, 32), (-1, 4)):
        with pytest.raises(UsageError):
            read_to_file(FakeDevice(), address, size, tmp_path / "out.bin")
    with pytest.raises(Unsupported) as caught:
        read_to_file(FakeDevice("esp8266"), 0, 4, tmp_path / "out.bin")
    assert "stub" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_region_is_erased_and_checked():
    device = FakeDevice()
    erase_region(device, 0x10000, 0x3000)
    assert device.memory[0xFFFF:0x13001] == b"\x55" + b"\xff" * 0x3000 + b"\x55"
    erase_region(device, SIZE - SECTOR, None)
    assert device.memory[SIZE - SECTOR :] == b"\xff" * SECTOR


def test_an_erase_that_did_not_work_is_not_called_a_success():
    device = FakeDevice()
    device.backend.spoil_writes = [0x10001]
    with pytest.raises(VerifyError) as caught:
        erase_region(device, 0x10000, 0x1000)
    assert caught.value.code == "not-blank"


@pytest.mark.parametrize(
    "address, size", [(0x10001, 0x1000), (0x10000, 0x1001), (0x10000, 0), (0, -4096)]
)
def test_only_whole_sectors_are_erased(address, size):
    device = FakeDevice()
    with pytest.raises(UsageError):
        erase_region(device, address, size)
    assert device.memory == b"\x55" * SIZE


def test_a_secured_chip_is_erased_only_with_consent():
    device = FakeDevice(flash_encryption=True)
    with pytest.raises(SafetyStop) as caught:
        erase_region(device, 0, 0x1000)
    assert caught.value.consents == ("erase-secured",)
    assert device.memory[:4096] == b"\x55" * 4096
    erase_region(device, 0, 0x1000, policy=Policy(consents=frozenset({"erase-secured"})))
    assert device.memory[:4096] == b"\xff" * 4096
