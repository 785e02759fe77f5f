"""image-info's verdicts against those of esptool 5.6.0, on real images and on damaged copies of them."""

import random
import re
import sys
from pathlib import Path

import pytest

from espwire.chips.registry import chip_ids, load_chip
from espwire.cli.esptool.output import describe_first_image
from espwire.cli.image_text import file_data
from espwire.errors import DataError
from espwire.image.codec import build, create_image
from espwire.image.inspect import inspect_bytes
from espwire.image.model import Segment

sys.path.insert(0, str(Path(__file__).parent))
from many import run_many

ROOT = Path(__file__).resolve().parents[2]
REAL = sorted((ROOT / "tests/data").glob("esp*/*.bin")) + sorted(
    (ROOT.parent / "shared/firmware").glob("esp*/*.bin")
)
SEGMENT = re.compile(r"^ +\d+ +(0x[0-9a-f]+) +(0x[0-9a-f]+) +0x[0-9a-f]+ +(.*)$", re.MULTILINE)


def images():
    """Real files by name; and a generated one for each chip."""
    found = {path.name: path.read_bytes() for path in REAL}
    for chip in map(load_chip, chip_ids()):
        start = chip.mapped_flash.irom_start + 0x20
        segments = [
            Segment(start, bytes(range(1, 251)) * 2),
            Segment(chip.memory.map[-1].start, b"espwire!" * 40),
        ]
        found[f"made-{chip.id}.bin"] = build(create_image(segments, start, chip=chip))
    return found


def damaged(content, count, seed=5):
    """Copies with a flipped bit (mostly in headers), a changed byte, or the end cut off."""
    dice = random.Random(seed)
    names = sorted(name for name, data in content.items() if data[:1] in (b"\xe9", b"\xea"))
    for number in range(count):
        name = names[number % len(names)]
        data = bytearray(content[name])
        how = dice.randrange(4)
        at = dice.randrange(1, 0x40) if how == 0 else dice.randrange(len(data))
        if how == 3:
            del data[at:]
        else:
            data[at] ^= 1 << dice.randrange(8)
        yield f"{number}-{name}", bytes(data)


def first_verdict(data):
    """Whether the first image's checksum and SHA-256 hold; None: refused."""
    try:
        found = inspect_bytes(data)
    except DataError:
        return None
    image = next(item.info for item in found.items if item.info)
    known = image.image.extended is None or image.chip is not None
    return (
        image.image.checksum_valid
        and known
        and (image.image.version != 3 or image.image.digest_valid is not False)
    )


def judge(esptool, folder, content):
    """Names of the files on which the verdicts differ, and how often which verdict was given."""
    for name, data in content.items():
        (folder / name).write_bytes(data)
    answers = run_many(esptool, [["image-info", name] for name in content], folder)
    differ, counts = [], {"good": 0, "wrong sums": 0, "refused": 0}
    for (name, data), (end, said) in zip(content.items(), answers, strict=True):
        theirs = None if end else "(invalid" not in said
        ours = first_verdict(data)
        counts["refused" if ours is None else "good" if ours else "wrong sums"] += 1
        # a broken structure is an error here, where the peer sometimes goes on and finds the sums wrong
        if bool(ours) != bool(theirs):
            differ.append((name, ours, theirs, end))
    return differ, counts


def test_esptool_image_info_prints_the_peers_lines(esptool, tmp_path):
    """Every line with a label that esptool prints for this file is the one that esptool prints."""
    content = {
        name: data
        for name, data in images().items()
        if name not in MISTAKEN and data[:1] in (b"\xe9", b"\xea")
    }
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    answers = run_many(esptool, [["image-info", name] for name in content], tmp_path)
    compared = 0
    for (name, data), (end, said) in zip(content.items(), answers, strict=True):
        ours = describe_first_image(file_data(inspect_bytes(data, name))).splitlines()
        if end:
            continue
        theirs = {line.rstrip() for line in said.splitlines()}
        labels = {line.partition(":")[0] for line in theirs}
        comparable = [
            line.rstrip()
            for line in ours
            if line.partition(":")[0] in labels or line.startswith(" ")
        ]
        assert [line for line in comparable if line not in theirs] == [], name
        compared += len(comparable)
    assert compared > 200


# boot_v1.7.bin has an ESP8266's image that esptool takes for an ESP32-S31's: docs/differences.md
MISTAKEN = ("boot_v1.7.bin",)


def known(differ):
    return [item for item in differ if not item[0].endswith(MISTAKEN)]


def test_verdicts_on_whole_images_are_the_peer_s(esptool, tmp_path, capsys):
    differ, counts = judge(esptool, tmp_path, images())
    with capsys.disabled():
        print(f"\nimage-info, whole images: {counts}, differing {[name for name, *_ in differ]}")
    assert known(differ) == []
    assert counts["good"] >= 15


@pytest.mark.parametrize("count", [200, pytest.param(2000, marks=pytest.mark.soak)])
def test_verdicts_on_damaged_copies_are_the_peer_s(esptool, tmp_path, capsys, count):
    content = dict(damaged(images(), count))
    differ, counts = judge(esptool, tmp_path, content)
    with capsys.disabled():
        print(f"\nimage-info, damaged copies: {counts}, differing {[name for name, *_ in differ]}")
    assert known(differ) == []


def test_memory_types_are_the_peer_s(esptool, tmp_path):
    content = images()
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    names = [name for name in content if name.startswith("made-")]
    answers = run_many(esptool, [["image-info", name] for name in names], tmp_path)
    for name, (end, said) in zip(names, answers, strict=True):
        assert not end, said
        ours = inspect_bytes(content[name]).items[0].info.segments
        theirs = [
            (int(size, 16), int(at, 16), set(kinds.replace(" ", "").split(",")) - {""})
            for size, at, kinds in SEGMENT.findall(said)
        ]
        assert theirs == [
            (segment.size, segment.address, set(segment.memory)) for segment in ours
        ], name


def test_the_comparison_notices_a_check_that_is_switched_off(esptool, tmp_path, monkeypatch):
    monkeypatch.setattr("espwire.image.codec.compute_checksum", lambda segments: 0)
    differ, _ = judge(esptool, tmp_path, {"made-esp32.bin": images()["made-esp32.bin"]})
    assert known(differ)
