"""Plans: what is written, erased, verified; what is refused."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.unit.flash.targets import rom_target

from espwire.blob import Blob
from espwire.chips.registry import load_chip
from espwire.compress import find_lzma_form
from espwire.errors import Unsupported, UsageError
from espwire.flash.estimate import (
    USB_BAUD,
    Candidate,
    TransportCost,
    choose_codec,
    count_wire_bytes,
    estimate_erase,
)
from espwire.flash.findings import Policy
from espwire.flash.model import Erase, Found, Skip, Verify, Write
from espwire.flash.plan import find_changed_runs, plan
from espwire.protocol import slip
from espwire.protocol.commands import FlashBegin, FlashData
from espwire.protocol.stub import Codec

C3 = rom_target("esp32c3", flash_size=0x400000)
ESP8266 = rom_target("esp8266", flash_size=0x400000)
SECURE = rom_target("esp32c3", flash_size=0x400000, secure=True)
SECTOR = 0x1000

parts = st.lists(
    st.builds(
        Blob,
        st.integers(0, 200).map(lambda n: n * 0x400),
        st.binary(max_size=64).map(lambda d: d * 150),
        st.sampled_from(["a.bin", "b.bin", ""]),
    ),
    max_size=6,
)


@given(parts, st.sampled_from([C3, ESP8266, SECURE]))
def test_any_parts_are_either_written_whole_or_refused_as_overlapping(given_parts, target):
    try:
        planned = plan(given_parts, target=target)
    except UsageError as error:
        assert error.code == "overlap"  # noqa: PT017
        return
    flash = {}
    sectors = set()
    for step in planned.writes:
        assert step.address % SECTOR == 0
        assert len(step.data) % 4 == 0
        end = -(-(step.address + len(step.data)) // SECTOR) * SECTOR
        (piece,) = step.pieces
        assert (piece.address, piece.data) == (step.address, step.data)
        assert end <= piece.erase_end <= end + (SECTOR if target is ESP8266 else 0)
        assert (
            not set(range(step.address, piece.erase_end, SECTOR)) & sectors
        )  # what is written is not erased again
        sectors |= set(range(step.address, end, SECTOR))
        flash |= {step.address + at: value for at, value in enumerate(step.data)}
    for part in given_parts:
        for at, value in enumerate(part.data):
            assert flash.pop(part.address + at) == value
    assert set(flash.values()) <= {0xFF}  # what is written beside the parts changes no erased byte
    addresses = [step.address for step in planned.writes]
    assert addresses == sorted(addresses)
    assert [s.address for s in planned.steps if isinstance(s, Verify)] == (
        addresses if target is C3 else []
    )


@given(parts)
def test_parts_are_refused_exactly_when_they_share_a_sector(given_parts):
    claimed, shared = set(), False
    for part in given_parts:
        if part.data:
            sectors = set(range(part.address // SECTOR, (part.end - 1) // SECTOR + 1))
            shared |= bool(claimed & sectors)
            claimed |= sectors
    try:
        plan(given_parts, target=C3)
        refused = False
    except UsageError:
        refused = True
    assert refused == shared


def test_an_overlap_names_both_parts_and_their_ranges():
    with pytest.raises(UsageError) as caught:
        plan([Blob(0x1800, b"x" * 16, "app.bin"), Blob(0x1000, b"x" * 16, "boot.bin")], target=C3)
    assert caught.value.code == "overlap"
    for text in ("app.bin", "boot.bin", "0x1000..0x1010", "0x1800..0x1810", "4 KiB sector"):
        assert text in str(caught.value)
    assert caught.value.details["parts"] == [
        ["boot.bin", 0x1000, 0x1010],
        ["app.bin", 0x1800, 0x1810],
    ]


def test_neighbours_in_different_sectors_are_fine():
    planned = plan([Blob(0x2000, b"x" * 16), Blob(0x1000, b"y" * 0x1000)], target=C3)
    assert [(p.address, p.erase_end) for s in planned.writes for p in s.pieces] == [
        (0x1000, 0x2000),
        (0x2000, 0x3000),
    ]


def test_a_blob_inside_a_sector_reports_what_else_is_erased():
    planned = plan([Blob(0x1804, b"data", "cal.bin")], target=C3)
    (write,) = planned.writes
    assert (write.address, write.data) == (0x1000, b"\xff" * 0x804 + b"data")
    (finding,) = planned.findings
    assert (finding.code, finding.fatal) == ("erases-before", False)
    assert "cal.bin" in finding.text
    assert "0x1000..0x1804" in finding.text


@pytest.mark.parametrize(
    "address, size, erased",
    [
        (0, 0x1000, 0x2000),
        (0, 0x2000, 0x2000),
        (0xF000, 0x1000, 0x2000),
        (0xF000, 0x3000, 0x3000),
        (0, 0x1F000, 0x20000),
        (0, 0x20000, 0x20000),
        (0, 0x21000, 0x21000),
        (0x11000, 0x23000, 0x23000),
    ],
)
def test_the_surplus_sector_that_the_esp8266_erases_is_reported(address, size, erased):
    planned = plan([Blob(address, bytes(size), "boot.bin")], target=ESP8266)
    assert planned.writes[0].pieces[0].erase_end == address + erased
    assert [f.code for f in planned.findings] == ["erases-behind"] * (erased > size)
    assert (
        plan([Blob(address, bytes(size))], target=C3).writes[0].pieces[0].erase_end
        == address + size
    )


def test_a_surplus_sector_is_not_reported_where_a_blob_follows():
    planned = plan(
        [Blob(0, bytes(0x1000), "boot.bin"), Blob(0x1000, bytes(0x2000), "user.bin")],
        target=ESP8266,
    )
    assert planned.findings == ()


@pytest.mark.parametrize("address", [-4, -1, 1 << 32])
def test_an_address_that_cannot_be_written_to_is_refused(address):
    with pytest.raises(UsageError) as caught:
        plan([Blob(address, b"data", "x")], target=C3)
    assert caught.value.code == "address"


@pytest.mark.parametrize("address", [1, 2, 0x1003])
def test_a_part_at_an_odd_address_is_filled_up_from_its_sectors_start(address):
    write = plan([Blob(address, b"data", "x")], target=C3).writes[0]
    head = address % 0x1000
    assert write.address == address - head
    assert write.data == b"\xff" * head + b"data" + b"\xff" * (-(head + 4) % 4)


def test_an_empty_part_is_skipped_with_a_word():
    planned = plan([Blob(0x1000, b"", "empty.bin"), Blob(0x1000, b"full", "full.bin")], target=C3)
    assert planned.steps[0] == Skip(0x1000, 0, "empty.bin", "it is empty")
    assert [f.code for f in planned.findings] == ["empty-part"]
    assert len(planned.writes) == 1


def test_data_is_compressed_where_it_helps_and_the_loader_can():
    zeros, noise = bytes(0x4000), bytes(range(256)) * 2
    assert plan([Blob(0, zeros)], target=C3).writes[0].pieces[0].packed is not None
    assert plan([Blob(0, bytes([1, 2, 3, 4]))], target=C3).writes[0].pieces[0].packed is None
    assert plan([Blob(0, zeros)], target=ESP8266).writes[0].pieces[0].packed is None
    assert plan([Blob(0, zeros)], target=SECURE).writes[0].pieces[0].packed is None
    assert (
        plan([Blob(0, zeros)], target=C3, policy=Policy(compress=False)).writes[0].pieces[0].packed
        is None
    )
    assert plan([Blob(0, noise)], target=C3).wire_bytes < 1000
    assert plan([Blob(0, b"x")], target=ESP8266).wire_bytes > 1024  # a plain block is sent whole


@pytest.mark.parametrize("target", [ESP8266, SECURE])
def test_required_verification_that_is_impossible_is_unsupported(target):
    with pytest.raises(Unsupported) as caught:
        plan([Blob(0, b"data")], target=target, policy=Policy(verify=True))
    assert caught.value.hint


@pytest.mark.parametrize("target", [ESP8266, SECURE])
def test_impossible_compression_is_reported_and_left_out(target):
    planned = plan([Blob(0, bytes(0x1000))], target=target, policy=Policy(compress=True))
    assert planned.writes[0].pieces[0].packed is None
    assert "not-compressed" in [finding.code for finding in planned.findings]


def test_encryption_needs_a_loader_that_can_and_is_not_verified():
    part = Blob(0x1000, b"secret", "s", encrypted=True)
    with pytest.raises(Unsupported):
        plan([part], target=rom_target("esp32"))
    planned = plan([part], target=C3)
    assert [type(s) for s in planned.steps] == [Write]
    assert len(planned.writes[0].data) == 16
    with pytest.raises(Unsupported):
        plan([part], target=C3, policy=Policy(verify=True))
    with pytest.raises(UsageError, match="multiple of 16"):
        plan([Blob(0x1008, b"secret", encrypted=True)], target=C3)


OLD_DATA = bytes(range(256)) * 64


def differing(*places: int) -> bytes:
    data = bytearray(OLD_DATA)
    for at in places:
        data[at] ^= 1
    return bytes(data)


def test_only_runs_of_sectors_that_differ_are_written_and_the_whole_is_verified():
    part = Blob(0x10000, differing(0x10, 0x1FFF, 0x3000), "x", previous=OLD_DATA)
    planned = plan([part], target=C3)
    (write,) = planned.writes
    assert [(p.address, len(p.data)) for p in write.pieces] == [
        (0x10000, 0x2000),
        (0x13000, 0x1000),
    ]
    assert (write.address, write.data, write.size) == (0x10000, part.data, 0x3000)
    assert write.describe().startswith("write 3 of 4 sectors of x to 0x10000..0x14000")
    verify = planned.steps[-1]
    assert isinstance(verify, Verify)
    assert (verify.address, verify.data) == (0x10000, part.data)
    assert planned.unverified == ()


def test_a_blob_inside_a_sector_is_compared_at_its_own_address():
    part = Blob(0x10800, differing(0x1900), "x", previous=OLD_DATA)
    planned = plan([part], target=C3)
    (write,), verify = planned.writes, planned.steps[-1]
    (piece,) = write.pieces
    assert (piece.address, piece.data) == (0x12000, part.data[0x1800:0x2800])
    assert isinstance(verify, Verify)
    assert (verify.address, verify.data) == (0x10800, part.data), (
        "what stands before the part may be anything"
    )
    first = plan([replace(part, data=differing(0))], target=C3)
    assert (first.writes[0].address, first.steps[-1].address, first.unverified) == (
        0x10000,
        0x10000,
        (),
    )


def test_what_has_not_changed_is_only_verified_or_on_trust_not_even_that():
    part = Blob(0x10000, OLD_DATA, "x", previous=OLD_DATA + b"more")
    assert [type(s) for s in plan([part], target=C3).steps] == [Skip, Verify]
    trusted = plan([part], target=C3, policy=Policy(trust_flash_content=True))
    assert [type(s) for s in trusted.steps] == [Skip]
    assert (trusted.unverified, trusted.unchecked) == ((), ("x",))
    insisting = Policy(trust_flash_content=True, verify=True)
    steps = plan([part], target=C3, policy=insisting).steps
    assert [type(s) for s in steps] == [Skip, Verify]


def test_what_the_flash_holds_already_is_skipped():
    planned = plan(
        [Blob(0x10000, OLD_DATA, "a"), Blob(0x20000, OLD_DATA, "b")],
        target=C3,
        found={0x10000: Found(changed=(), certain=True)},
    )
    assert [type(s) for s in planned.steps] == [Skip, Write, Verify]
    assert planned.unchecked == ()


@pytest.mark.parametrize(
    ("target", "policy", "encrypted"),
    [
        (ESP8266, Policy(), False),
        (SECURE, Policy(), False),
        (C3, Policy(erase_all=True), False),
        (C3, Policy(verify=False), False),
        (C3, Policy(), True),
    ],
)
def test_without_a_comparison_everything_is_written_and_reported(target, policy, encrypted):
    part = Blob(0x10000, OLD_DATA, "x", encrypted, previous=OLD_DATA)
    planned = plan([part], target=target, policy=policy)
    assert [w.data for w in planned.writes] == [OLD_DATA]
    assert [f.code for f in planned.findings if f.code == "written-whole"] == ["written-whole"]
    skipping = plan(
        [replace(part, previous=None)], target=target, policy=policy.replace(skip_flashed=True)
    )
    assert [f.code for f in skipping.findings if f.code == "written-whole"] == ["written-whole"]


def test_erase_all_comes_first_and_needs_a_known_size():
    planned = plan([Blob(0, b"data")], target=C3, policy=Policy(erase_all=True))
    assert planned.steps[0] == Erase(0, 0x400000, whole=True)
    for target in (replace(C3, flash_size=None), replace(C3, size_assumed=True)):
        with pytest.raises(UsageError):
            plan([Blob(0, b"data")], target=target, policy=Policy(erase_all=True))


def test_a_plan_describes_itself_line_by_line():
    planned = plan([Blob(0x1000, bytes(4096), "boot.bin"), Blob(0x8000, b"", "none")], target=C3)
    assert planned.describe()[0] == "skip none: it is empty"
    assert planned.describe()[1].startswith(
        "write boot.bin to 0x1000..0x2000 (4KB), compressed to "
    )
    assert planned.describe()[2] == "verify boot.bin at 0x1000..0x2000 (4KB)"
    assert plan([], target=C3).describe() == ()


@given(st.binary(min_size=1, max_size=5000))
def test_wire_bytes_are_counted_as_they_are_sent(data):
    for target, extra in ((C3, (0,)), (ESP8266, ())):
        limits, size = target.limits, target.limits.block_size
        frames = [slip.encode(FlashBegin(len(data), 5, size, 0, *extra).packet())]
        blocks = [data[at : at + size] for at in range(0, len(data), size)]
        plain = [block.ljust(size, b"\xff") for block in blocks]
        packed_frames = frames + [
            slip.encode(FlashData(n, block).packet()) for n, block in enumerate(blocks)
        ]
        frames += [slip.encode(FlashData(n, block).packet()) for n, block in enumerate(plain)]
        sent = sum(map(len, frames))
        assume(all(b"\xc0" not in f.strip(b"\xc0")[:24] for f in frames))
        # headers may hold a byte or two that needs an escape; payloads are counted exactly
        assert 0 <= sent - count_wire_bytes(data, limits, packed=False) <= 4 * len(frames)
        assert (
            0
            <= sum(map(len, packed_frames)) - count_wire_bytes(data, limits, packed=True)
            <= 4 * len(frames)
        )


def test_bytes_on_the_line_are_an_estimate_where_frames_are_masked():
    blob = Blob(0, bytes(range(256)) * 64)
    assert not plan([blob], target=C3).wire_estimated
    masked = replace(C3, limits=replace(C3.limits, masks_frames=True))
    assert plan([blob], target=masked).wire_estimated


def test_estimates_grow_with_the_work_and_shrink_with_the_baud():
    part = Blob(0, bytes(range(256)) * 4096)
    slow = plan([part], target=ESP8266)
    fast = plan([part], target=ESP8266, cost=TransportCost(baud=921600))
    assert 91 < slow.seconds < 110  # 1 MiB at 115200 baud
    assert fast.seconds < slow.seconds / 4
    assert plan([part], target=ESP8266, cost=TransportCost(baud=0)).seconds < fast.seconds


@pytest.mark.parametrize(
    ("cpu_hz", "baud", "chosen"),
    [  # measured with bench/codec_choice.py
        (160_000_000, 921600, "LZMA"),
        (160_000_000, 2_000_000, "ZLIB"),
        (96_000_000, 115200, "LZMA"),
        (96_000_000, 921600, "LZMA"),
        (64_000_000, 921600, "ZLIB"),
        (64_000_000, 2_000_000, "RAW"),
        (78_000_000, 2_000_000, "RAW"),
        (120_000_000, USB_BAUD, "ZLIB"),
        (64_000_000, USB_BAUD, "RAW"),
    ],
)
def test_the_codec_is_the_fastest_for_line_flash_and_cpu(cpu_hz, baud, chosen):
    form = find_lzma_form(load_chip("esp32c3"))
    limits = replace(
        C3.limits, receives_ahead=True, erases_at_begin=False, cpu_hz=cpu_hz, lzma=form
    )
    packed = 166_000
    candidates = {
        Codec.RAW: Candidate(0x40000, 0x40000 + 3000),
        Codec.ZLIB: Candidate(packed, packed + 2000),
        form.codec: Candidate(int(packed * form.ratio), int((packed + 2000) * form.ratio)),
    }
    span, cost = range(0x10000, 0x50000), TransportCost(baud=baud)
    found = choose_codec(span, candidates, limits, cost)
    assert found.name.startswith(chosen)
    del candidates[Codec.ZLIB], candidates[form.codec]
    assert choose_codec(span, candidates, limits, cost) is Codec.RAW


def test_erasing_takes_blocks_where_they_are_aligned():
    cost = TransportCost(erase_sector_s=1, erase_block_s=100)
    assert estimate_erase(0, 0x1000, cost) == 1
    assert estimate_erase(0x8000, 0x10000, cost) == 16
    assert estimate_erase(0xF000, 0x12000, cost) == 102
    assert estimate_erase(0xF000, 0x12000, cost, by_rom=True) == 102
    assert estimate_erase(0, 0x20000, cost, by_rom=True) == 32
    assert estimate_erase(0, 0x21000, cost, by_rom=True) == 117


SMALL = 4  # a sector size for find_changed_runs


@given(st.binary(max_size=60), st.data())
def test_the_runs_are_what_must_be_written_and_no_more(old, data):
    new = bytearray(old)
    for at in data.draw(st.lists(st.integers(0, max(len(old) - 1, 0)), max_size=4)) if old else ():
        new[at] ^= 1
    new += data.draw(st.binary(max_size=20))
    runs = find_changed_runs(bytes(new), old, SMALL)
    there = bytearray(old.ljust(len(new), b"\0"))
    for start, end in runs:
        there[start:end] = new[start:end]
    assert there[: len(new)] == new
    assert all(start % SMALL == 0 and (end % SMALL == 0 or end == len(new)) for start, end in runs)
    assert all(left[1] < right[0] for left, right in itertools.pairwise(runs))
    for start, end in runs:  # no sector of a run is equal
        assert all(
            new[at : min(at + SMALL, end)] != old[at : min(at + SMALL, end)]
            for at in range(start, end, SMALL)
        )


def test_what_is_equal_or_only_longer_in_the_old_file_needs_nothing():
    assert find_changed_runs(b"abcd", b"abcd", SMALL) == ()
    assert find_changed_runs(b"abcde", b"abcdefgh", SMALL) == ()
    assert find_changed_runs(b"", b"abcd", SMALL) == ()
    assert find_changed_runs(b"abcdefghi", b"abcd", SMALL) == ((4, 9),)
