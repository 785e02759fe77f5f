"""merge-bin against esptool 5.6.0 on generated command lines: the same bytes, or refused by both."""

import random
import sys
from pathlib import Path

import pytest

import espwire.image.merge
from espwire.blob import Blob
from espwire.chips.registry import chip_ids, load_chip
from espwire.cli.main import main
from espwire.image.codec import build, create_image
from espwire.image.hex import build_hex
from espwire.image.model import Segment

sys.path.insert(0, str(Path(__file__).parent))
from many import run_many

# where esptool 5.6.0 is wrong, as docs/differences.md tells: it crashes, writes what cannot be used, or takes nonsense
PEER_CRASHES = ("AssertionError", "ZeroDivisionError", "OverflowError")


def make_files(folder, seed):
    """Raw bytes, images of every chip, a damaged one, Intel HEX."""
    dice = random.Random(seed)
    for number, size in enumerate((0, 1, 3, 16, 452, 476, 4096, 5000, 0x3001)):
        (folder / f"raw{number}.bin").write_bytes(dice.randbytes(size))
    for chip in map(load_chip, chip_ids()):
        address = chip.mapped_flash.irom_start + 0x20
        ram = next(region for region in chip.memory.map if "RAM" in region.name).start
        segments = [
            Segment(ram, dice.randbytes(dice.randrange(4, 3000))),
            Segment(address, dice.randbytes(400)),
        ]
        image = build(create_image(segments, address, chip=chip, hash_appended=dice.random() < 0.7))
        (folder / f"{chip.id}.bin").write_bytes(image)
        (folder / f"{chip.id}-damaged.bin").write_bytes(
            image[:60] + bytes([image[60] ^ 1]) + image[61:]
        )
    pieces = [
        Blob(0x1000, dice.randbytes(100)),
        Blob(0x9000, dice.randbytes(5000)),
        Blob(0x1FFF0, dice.randbytes(40)),
    ]
    (folder / "pieces.hex").write_bytes(build_hex(pieces))


def make_line(dice, folder):
    """One command line, mostly one that makes sense."""
    chip = load_chip(dice.choice(chip_ids()))
    kind = dice.choice(("raw", "raw", "uf2", "hex"))
    words = ["--chip", chip.id, "merge-bin", "-f", kind]
    if dice.random() < 0.5:
        words += ["-fm", dice.choice(("keep", "qio", "dout"))]
    if dice.random() < 0.4:
        words += ["-ff", dice.choice((*chip.flash.frequencies, "keep", "15m"))]
    if dice.random() < 0.4:
        sizes = [
            size
            for size in chip.flash.sizes
            if size in ("256KB", "1MB", "2MB", "2MB-c1", "4MB", "16MB", "128MB")
        ]
        words += ["-fs", dice.choice((*sizes, "keep", "256KB"))]
    if dice.random() < 0.3:
        words += ["-t", hex(dice.choice((0, 0x400, 0x1000, 0x8000)))]
    if dice.random() < 0.3:
        words += ["--pad-to-size", dice.choice(("256KB", "1MB", "4MB"))]
    if kind == "uf2" and dice.random() < 0.6:
        words += ["--chunk-size", str(dice.choice((4, 64, 256, 452, 456, 476, 480, 3)))]
    if kind == "uf2" and dice.random() < 0.4:
        words.append("--md5-disable")
    files = sorted(path.name for path in folder.glob("*.bin") if not path.name.startswith("esp"))
    pairs, at = [], chip.flash.bootloader_offset
    if dice.random() < 0.8:
        # a damaged one is left alone here, while the peer gives it a right SHA-256: docs/differences.md
        damaged = not {"-fm", "-ff", "-fs"} & set(words) and dice.random() < 0.4
        pairs.append((at, f"{chip.id}{'-damaged' if damaged else ''}.bin"))
        at += 0x4000
    for _ in range(dice.randrange(1, 4)):
        at += dice.choice((0, 0x1000, 0x2000, 0x10000, 5, 0x800))
        pairs.append((at, dice.choice(files)))
        at = (at + 0x4000) & ~0xFFF if dice.random() < 0.9 else at
    if dice.random() < 0.15:
        pairs = [(0, "pieces.hex"), *((address + 0x100000, name) for address, name in pairs)]
    dice.shuffle(pairs)
    return [*words, *(word for address, name in pairs for word in (hex(address), name))]


def compare(esptool, folder, lines):
    """Byte-equal, refused by both, differing lines, lines where the peer crashed."""
    theirs = run_many(
        esptool,
        [[*line[:3], "-o", f"{n}.theirs", *line[3:]] for n, line in enumerate(lines)],
        folder,
    )
    equal, refused, wrong, crashed = 0, 0, [], 0
    for number, (line, (end, _)) in enumerate(zip(lines, theirs, strict=True)):
        code = main([*line[:3], "-o", f"{number}.ours", *line[3:]])
        ours, their = Path(folder, f"{number}.ours"), Path(folder, f"{number}.theirs")
        if not code and not end and ours.read_bytes() == their.read_bytes():
            equal += 1
        elif code == 2 and end.startswith(PEER_CRASHES):
            crashed += 1
        elif code == 2 and end and not ours.exists():
            refused += 1
        elif not (
            code == 2 and not end and "esp32e22" in line and "uf2" in line
        ):  # it takes the ESP32's family id
            wrong.append((line, code, end))
        for path in (ours, their):
            path.unlink(missing_ok=True)
    return equal, refused, wrong, crashed


@pytest.mark.parametrize("count", [40, pytest.param(300, marks=pytest.mark.soak)])
def test_merged_files_are_byte_equal_or_refused_by_both(
    esptool, tmp_path, monkeypatch, capsys, count
):
    monkeypatch.chdir(tmp_path)
    make_files(tmp_path, count)
    dice = random.Random(count)
    lines = [make_line(dice, tmp_path) for _ in range(count)]
    equal, refused, wrong, crashed = compare(esptool, tmp_path, lines)
    with capsys.disabled():
        print(
            f"\nmerge-bin: {equal} byte-equal, {refused} refused by both, {crashed} where the peer crashed, of {count}"
        )
    assert wrong == [], "\n".join(map(str, wrong))
    assert 2 * equal >= count


def test_the_comparison_notices_one_wrong_byte(esptool, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_files(tmp_path, 1)
    lines = [["--chip", "esp32", "merge-bin", "0x1000", "esp32.bin", "0x8000", "raw3.bin"]]
    assert compare(esptool, tmp_path, lines)[:3] == (1, 0, [])
    built = espwire.image.merge._build_raw
    monkeypatch.setattr(
        espwire.image.merge, "_build_raw", lambda *given: built(*given).replace(b"\xff", b"\x00", 1)
    )
    assert compare(esptool, tmp_path, lines)[0] == 0
