"""Plans: what is written, erased, verified; what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from espwire.chips.registry import load_chip
from espwire.errors import Unsupported, UsageError
from espwire.flash.estimate import TransportCost, count_wire_bytes, estimate_erase
from espwire.flash.plan import Erase, FlashTarget, Part, Policy, Skip, Verify, Write, plan
from espwire.protocol import slip
from espwire.protocol.commands import FlashBegin, FlashData

ROM, ROM8266 = load_chip("esp32c3").rom, load_chip("esp8266").rom
SURVEY = FlashTarget(dialect=ROM, flash_size=0x400000)
OLD = FlashTarget(dialect=ROM8266, flash_size=0x400000)
SECURE = replace(SURVEY, secure_download=True)
SECTOR = 0x1000

parts = st.lists(
    st.builds(
        Part,
        st.integers(0, 200).map(lambda n: n * 0x400),
        st.binary(max_size=64).map(lambda d: d * 150),
        st.sampled_from(["a.bin", "b.bin", ""]),
    ),
    max_size=6,
)


@given(parts, st.sampled_from([SURVEY, OLD, SECURE]))
def test_any_parts_are_either_written_whole_or_refused_as_overlapping(given_parts, survey):
    try:
        made = plan(given_parts, survey=survey)
    except UsageError as error:
        assert error.code == "overlap"  # noqa: PT017
        return
    flash = {}
    sectors = set()
    for step in made.writes:
        assert step.address % SECTOR == 0
        assert len(step.data) % 4 == 0
        end = -(-(step.address + len(step.data)) // SECTOR) * SECTOR
        assert end <= step.erase_end <= end + (SECTOR if survey is OLD else 0)
        assert (
            not set(range(step.address, step.erase_end, SECTOR)) & sectors
        )  # what is written is not erased again
        sectors |= set(range(step.address, end, SECTOR))
        flash |= {step.address + at: value for at, value in enumerate(step.data)}
    for part in given_parts:
        for at, value in enumerate(part.data):
            assert flash.pop(part.address + at) == value
    assert set(flash.values()) <= {0xFF}  # what is written beside the parts changes no erased byte
    addresses = [step.address for step in made.writes]
    assert addresses == sorted(addresses)
    assert [s.address for s in made.steps if isinstance(s, Verify)] == (
        addresses if survey is SURVEY else []
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
        plan(given_parts, survey=SURVEY)
        refused = False
    except UsageError:
        refused = True
    assert refused == shared


def test_an_overlap_names_both_parts_and_their_ranges():
    with pytest.raises(UsageError) as caught:
        plan(
            [Part(0x1800, b"x" * 16, "app.bin"), Part(0x1000, b"x" * 16, "boot.bin")], survey=SURVEY
        )
    assert caught.value.code == "overlap"
    for text in ("app.bin", "boot.bin", "0x1000..0x1010", "0x1800..0x1810", "4 KiB sector"):
        assert text in str(caught.value)
    assert caught.value.details["parts"] == [
        ["boot.bin", 0x1000, 0x1010],
        ["app.bin", 0x1800, 0x1810],
    ]


def test_neighbours_in_different_sectors_are_fine():
    made = plan([Part(0x2000, b"x" * 16), Part(0x1000, b"y" * 0x1000)], survey=SURVEY)
    assert [(s.address, s.erase_end) for s in made.writes] == [(0x1000, 0x2000), (0x2000, 0x3000)]


def test_a_part_inside_a_sector_says_what_else_is_erased():
    made = plan([Part(0x1804, b"data", "cal.bin")], survey=SURVEY)
    (write,) = made.writes
    assert (write.address, write.data) == (0x1000, b"\xff" * 0x804 + b"data")
    (finding,) = made.findings
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
def test_the_sector_too_many_that_the_esp8266_erases_is_told(address, size, erased):
    made = plan([Part(address, bytes(size), "boot.bin")], survey=OLD)
    assert made.writes[0].erase_end == address + erased
    assert [f.code for f in made.findings] == ["erases-behind"] * (erased > size)
    assert plan([Part(address, bytes(size))], survey=SURVEY).writes[0].erase_end == address + size


def test_a_sector_too_many_is_no_news_where_a_part_follows():
    made = plan(
        [Part(0, bytes(0x1000), "boot.bin"), Part(0x1000, bytes(0x2000), "user.bin")], survey=OLD
    )
    assert made.findings == ()


@pytest.mark.parametrize("address", [-4, -1, 1 << 32])
def test_an_address_that_cannot_be_written_to_is_refused(address):
    with pytest.raises(UsageError) as caught:
        plan([Part(address, b"data", "x")], survey=SURVEY)
    assert caught.value.code == "address"


@pytest.mark.parametrize("address", [1, 2, 0x1003])
def test_a_part_at_an_odd_address_is_filled_up_from_its_sectors_start(address):
    write = plan([Part(address, b"data", "x")], survey=SURVEY).writes[0]
    head = address % 0x1000
    assert write.address == address - head
    assert write.data == b"\xff" * head + b"data" + b"\xff" * (-(head + 4) % 4)


def test_an_empty_part_is_skipped_with_a_word():
    made = plan([Part(0x1000, b"", "empty.bin"), Part(0x1000, b"full", "full.bin")], survey=SURVEY)
    assert made.steps[0] == Skip(0x1000, 0, "empty.bin", "it is empty")
    assert [f.code for f in made.findings] == ["empty-part"]
    assert len(made.writes) == 1


def test_data_is_compressed_where_it_helps_and_the_loader_can():
    zeros, noise = bytes(0x4000), bytes(range(256)) * 2
    assert plan([Part(0, zeros)], survey=SURVEY).writes[0].packed is not None
    assert plan([Part(0, bytes([1, 2, 3, 4]))], survey=SURVEY).writes[0].packed is None
    assert plan([Part(0, zeros)], survey=OLD).writes[0].packed is None
    assert plan([Part(0, zeros)], survey=SECURE).writes[0].packed is None
    assert (
        plan([Part(0, zeros)], survey=SURVEY, policy=Policy(compress=False)).writes[0].packed
        is None
    )
    assert plan([Part(0, noise)], survey=SURVEY).wire_bytes < 1000
    assert plan([Part(0, b"x")], survey=OLD).wire_bytes > 1024  # a plain block is sent whole


@pytest.mark.parametrize("survey", [OLD, SECURE])
def test_verifying_that_is_insisted_on_and_impossible_is_unsupported(survey):
    with pytest.raises(Unsupported) as caught:
        plan([Part(0, b"data")], survey=survey, policy=Policy(verify=True))
    assert caught.value.hint


@pytest.mark.parametrize("survey", [OLD, SECURE])
def test_compression_that_is_impossible_is_told_and_left_out(survey):
    made = plan([Part(0, bytes(0x1000))], survey=survey, policy=Policy(compress=True))
    assert made.writes[0].packed is None
    assert "not-compressed" in [finding.code for finding in made.findings]


def test_encryption_needs_a_loader_that_can_and_is_not_verified():
    part = Part(0x1000, b"secret", "s", encrypted=True)
    with pytest.raises(Unsupported):
        plan([part], survey=FlashTarget(dialect=load_chip("esp32").rom))
    made = plan([part], survey=SURVEY)
    assert [type(s) for s in made.steps] == [Write]
    assert len(made.writes[0].data) == 16
    with pytest.raises(Unsupported):
        plan([part], survey=SURVEY, policy=Policy(verify=True))
    with pytest.raises(UsageError, match="multiple of 16"):
        plan([Part(0x1008, b"secret", encrypted=True)], survey=SURVEY)


OLD_DATA = bytes(range(256)) * 64


def differing(*places: int) -> bytes:
    data = bytearray(OLD_DATA)
    for at in places:
        data[at] ^= 1
    return bytes(data)


def test_only_runs_of_sectors_that_differ_are_written_and_the_whole_is_verified():
    part = Part(0x10000, differing(0x10, 0x1FFF, 0x3000), "x", previous=OLD_DATA)
    made = plan([part], survey=SURVEY)
    assert [(s.address, len(s.data)) for s in made.writes] == [(0x10000, 0x2000), (0x13000, 0x1000)]
    verify = made.steps[-1]
    assert isinstance(verify, Verify)
    assert (verify.address, verify.data) == (0x10000, part.data)
    assert verify.rewrite is not None
    assert (verify.rewrite.address, verify.rewrite.data) == (0x10000, part.data)
    assert made.unverified == ()


def test_a_part_inside_a_sector_is_compared_as_it_stands_there():
    part = Part(0x10800, differing(0x1900), "x", previous=OLD_DATA)
    made = plan([part], survey=SURVEY)
    (write,), verify = made.writes, made.steps[-1]
    assert (write.address, write.data) == (0x12000, part.data[0x1800:0x2800])
    assert isinstance(verify, Verify)
    assert (verify.address, verify.data) == (0x10800, part.data), (
        "what stands before the part may be anything"
    )
    first = plan([replace(part, data=differing(0))], survey=SURVEY)
    assert (first.writes[0].address, first.steps[-1].address, first.unverified) == (
        0x10000,
        0x10000,
        (),
    )


def test_what_has_not_changed_is_only_verified_or_on_trust_not_even_that():
    part = Part(0x10000, OLD_DATA, "x", previous=OLD_DATA + b"more")
    assert [type(s) for s in plan([part], survey=SURVEY).steps] == [Verify]
    trusted = plan([part], survey=SURVEY, policy=Policy(trust_flash_content=True))
    assert [type(s) for s in trusted.steps] == [Skip]
    assert (trusted.unverified, trusted.unchecked) == ((), ("x",))
    insisting = Policy(trust_flash_content=True, verify=True)
    assert [type(s) for s in plan([part], survey=SURVEY, policy=insisting).steps] == [Verify]


def test_what_the_flash_holds_already_is_skipped():
    found = replace(SURVEY, present=frozenset({0x10000}))
    made = plan([Part(0x10000, OLD_DATA, "a"), Part(0x20000, OLD_DATA, "b")], survey=found)
    assert [type(s) for s in made.steps] == [Skip, Write, Verify]
    assert made.unchecked == ()


@pytest.mark.parametrize(
    ("survey", "policy", "encrypted"),
    [
        (OLD, Policy(), False),
        (SECURE, Policy(), False),
        (SURVEY, Policy(erase_all=True), False),
        (SURVEY, Policy(verify=False), False),
        (SURVEY, Policy(), True),
    ],
)
def test_where_nothing_can_be_compared_all_is_written_and_said(survey, policy, encrypted):
    part = Part(0x10000, OLD_DATA, "x", encrypted, previous=OLD_DATA)
    made = plan([part], survey=survey, policy=policy)
    assert [w.data for w in made.writes] == [OLD_DATA]
    assert [f.code for f in made.findings if f.code == "written-whole"] == ["written-whole"]
    skipping = plan(
        [replace(part, previous=None)], survey=survey, policy=replace(policy, skip_flashed=True)
    )
    assert [f.code for f in skipping.findings if f.code == "written-whole"] == ["written-whole"]


def test_erase_all_comes_first_and_needs_a_known_size():
    made = plan([Part(0, b"data")], survey=SURVEY, policy=Policy(erase_all=True))
    assert made.steps[0] == Erase(0, 0x400000, whole=True)
    for survey in (replace(SURVEY, flash_size=None), replace(SURVEY, size_assumed=True)):
        with pytest.raises(UsageError):
            plan([Part(0, b"data")], survey=survey, policy=Policy(erase_all=True))


def test_a_plan_describes_itself_line_by_line():
    made = plan([Part(0x1000, bytes(4096), "boot.bin"), Part(0x8000, b"", "none")], survey=SURVEY)
    assert made.describe()[0] == "skip none: it is empty"
    assert made.describe()[1].startswith("write boot.bin to 0x1000..0x2000 (4KB), compressed to ")
    assert made.describe()[2] == "verify boot.bin at 0x1000..0x2000 (4KB)"
    assert plan([], survey=SURVEY).describe() == ()


@given(st.binary(min_size=1, max_size=5000))
def test_wire_bytes_are_counted_as_they_are_sent(data):
    for dialect, extra in ((ROM, (0,)), (ROM8266, ())):
        frames = [slip.encode(FlashBegin(len(data), 5, dialect.flash_block, 0, *extra).packet())]
        blocks = [
            data[at : at + dialect.flash_block] for at in range(0, len(data), dialect.flash_block)
        ]
        plain = [block.ljust(dialect.flash_block, b"\xff") for block in blocks]
        packed_frames = frames + [
            slip.encode(FlashData(n, block).packet()) for n, block in enumerate(blocks)
        ]
        frames += [slip.encode(FlashData(n, block).packet()) for n, block in enumerate(plain)]
        sent = sum(map(len, frames))
        assume(all(b"\xc0" not in f.strip(b"\xc0")[:24] for f in frames))
        # headers may hold a byte or two that needs an escape; payloads are counted exactly
        assert 0 <= sent - count_wire_bytes(data, dialect, packed=False) <= 4 * len(frames)
        assert (
            0
            <= sum(map(len, packed_frames)) - count_wire_bytes(data, dialect, packed=True)
            <= 4 * len(frames)
        )


def test_estimates_grow_with_the_work_and_shrink_with_the_baud():
    part = Part(0, bytes(range(256)) * 4096)
    slow = plan([part], survey=OLD)
    fast = plan([part], survey=OLD, cost=TransportCost(baud=921600))
    assert 91 < slow.seconds < 110  # 1 MiB at 115200 baud
    assert fast.seconds < slow.seconds / 4
    assert plan([part], survey=OLD, cost=TransportCost(baud=0)).seconds < fast.seconds


def test_erasing_takes_blocks_where_they_are_aligned():
    cost = TransportCost(erase_sector_s=1, erase_block_s=100)
    assert estimate_erase(0, 0x1000, cost) == 1
    assert estimate_erase(0x8000, 0x10000, cost) == 16
    assert estimate_erase(0xF000, 0x12000, cost) == 102
