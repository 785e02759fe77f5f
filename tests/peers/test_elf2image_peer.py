"""elf2image against esptool 5.6.0 in the same run: the same bytes, or both refuse. Says how many there were of each."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))
from elf_generator import OPTIONS, generate
from elf_writer import Part, Program, write_elf
from espwire.chips.registry import chip_ids, load_chip
from espwire.errors import ToolError
from espwire.image.elf import find_elf_chips, parse_elf
from espwire.image.elf2image import ElfOptions, convert_elf
from espwire.image.layout import Layout

HERE = Path(__file__).parent
PROGRAMS = HERE.parent / "data/programs"
SHARED = HERE.parents[2] / "shared/firmware/elf"
CI_COUNT, FULL_COUNT = 20, 500


class Peer:
    """esptool, run again and again in one process of its own Python."""

    def __init__(self, program: str, folder: Path) -> None:
        python = Path(program).with_name("python")
        self.folder = folder
        self.process = subprocess.Popen(
            [python, HERE / "drive.py", program],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=folder,
        )

    def run(self, *words: str) -> tuple[int, str]:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(json.dumps(words), file=self.process.stdin, flush=True)
        code, said = json.loads(self.process.stdout.readline())
        return code, said

    def convert(
        self, elf: bytes, chip: str, options: ElfOptions
    ) -> tuple[dict[str, bytes] | None, str]:
        """The files that it makes by the ends of their names, or None and what it said."""
        for old in self.folder.glob("*"):
            old.unlink()
        (self.folder / "x.elf").write_bytes(elf)
        code, said = self.run("--chip", chip, "elf2image", "-o", "out", *words_of(options), "x.elf")
        files = {
            path.name.removeprefix("out"): path.read_bytes() for path in self.folder.glob("out*")
        }
        return (None if code else files), said

    def close(self) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(20)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def peer(esptool, tmp_path_factory):
    running = Peer(esptool, tmp_path_factory.mktemp("peer"))
    yield running
    running.close()


def words_of(options: ElfOptions) -> list[str]:
    settings = options.settings
    given = [
        ("-e", str(options.version), options.version != 1),
        ("--min-rev", str(options.min_revision_legacy), options.min_revision_legacy),
        ("--min-rev-full", str(options.min_revision), options.min_revision),
        ("--max-rev-full", str(options.max_revision), options.max_revision != 65535),
        ("--elf-sha256-offset", str(options.digest_offset), options.digest_offset is not None),
        ("--flash-mmu-page-size", f"{(options.mmu_page_size or 0) >> 10}KB", options.mmu_page_size),
        ("--pad-to-size", f"{(options.pad_to_size or 0) >> 10}KB", options.pad_to_size),
        ("-fm", settings.mode, settings.mode != "keep"),
        ("-fs", settings.size, settings.size != "keep"),
        ("-ff", settings.frequency, settings.frequency != "keep"),
    ]
    words = [word for name, value, wanted in given if wanted for word in (name, value)]
    flags = {
        "--secure-pad": options.secure_pad == 1,
        "--secure-pad-v2": options.secure_pad == 2,
        "--dont-append-digest": not options.append_digest,
        "--use-segments": options.use_segments,
        "--ram-only-header": options.ram_only_header,
    }
    return [*words, *(name for name, wanted in flags.items() if wanted)]


def convert(elf: bytes, chip: str, options: ElfOptions) -> tuple[dict[str, bytes] | None, str]:
    try:
        files = convert_elf(elf, load_chip(chip), options)
    except ToolError as error:
        return None, error.code
    pair = not load_chip(chip).image.extended_header and options.version == 1
    return {file.name if pair else "": file.data for file in files}, ""


def compare(peer: Peer, elf: bytes, chip: str, options: ElfOptions) -> str:
    """``equal``, ``both refuse``, or what differs."""
    theirs, said = peer.convert(elf, chip, options)
    ours, code = convert(elf, chip, options)
    if ours is None and theirs is None:
        return "both refuse"
    if ours == theirs:
        return "equal"
    if theirs is None:
        return f"only we convert: {said.splitlines()[-1] if said.strip() else ''}"
    return f"only they convert: {code}" if ours is None else "differ"


def compare_generated(peer: Peer, chip: str, count: int) -> dict[int, str]:
    found = {}
    for seed in range(count):
        program, options = generate(load_chip(chip), seed)
        found[seed] = compare(peer, write_elf(program), chip, options)
    return found


def judge(found: dict[int, str]) -> Counter[str]:
    odd = {
        seed: verdict for seed, verdict in found.items() if verdict not in ("equal", "both refuse")
    }
    assert not odd
    counts = Counter(found.values())
    assert counts["equal"] * 2 >= len(found), counts
    return counts


@pytest.mark.parametrize("chip", chip_ids())
def test_generated_programs_become_the_same_bytes(peer, chip, record_property):
    counts = judge(compare_generated(peer, chip, CI_COUNT))
    record_property("counts", dict(counts))
    print(f"{chip}: {dict(counts)}")


@pytest.mark.soak
@pytest.mark.parametrize("chip", chip_ids())
def test_very_many_generated_programs_become_the_same_bytes(peer, chip):
    print(f"{chip}: {dict(judge(compare_generated(peer, chip, FULL_COUNT)))}")


def test_the_comparison_notices_a_layout_that_wastes_less(peer, monkeypatch):
    monkeypatch.setattr(Layout, "_room", lambda self, address: None)
    found = compare_generated(peer, "esp32c3", 10)
    assert "differ" in found.values()


def real_programs():
    own = sorted(PROGRAMS.glob("*.elf"))
    return [*own, *(sorted(SHARED.glob("*.elf")) if SHARED.exists() else [SHARED / "absent.elf"])]


@pytest.mark.parametrize("path", real_programs(), ids=lambda path: path.name)
def test_real_programs_become_the_same_bytes_with_each_option(peer, path):
    if not path.exists():
        pytest.skip("there is no collection of firmware beside this project")
    elf = path.read_bytes()
    (chip,) = find_elf_chips(parse_elf(elf))
    choices = [options for options in dict.fromkeys(OPTIONS) if options.digest_offset is None]
    if chip == "esp8266":
        choices = [
            replace(options, version=version) for options in choices for version in (1, 2, 3)
        ]
    verdicts = [(compare(peer, elf, chip, options), options) for options in choices]
    # Rust programs have several parts in one page of flash: we join them, esptool gives up; see docs/differences.md
    known = ("equal", "both refuse")
    odd = [
        v
        for v in verdicts
        if v[0] not in known and "lands in same" not in v[0] and not is_moved_descriptor(v[1])
    ]
    assert not odd
    counts = Counter(verdict.partition(":")[0] for verdict, _ in verdicts)
    print(f"{path.name}: {dict(counts)}")
    assert counts["equal"] + counts["only we convert"] > len(verdicts) / 2


def is_moved_descriptor(options: ElfOptions) -> bool:
    """Whether an application descriptor may stand elsewhere than esptool puts the SHA-256 of the ELF."""
    return options.ram_only_header


DESCRIPTOR = bytes.fromhex("3254cdab") + bytes(252)
# what esptool does and espwire does not, or the other way round: see docs/differences.md
DIFFERENCES = {
    "two parts in one page": (
        [
            Part(".a", 0x42000020, b"a" * 20),
            Part(".m", 0x40380000, b"m" * 8),
            Part(".b", 0x42000100, b"b" * 20),
        ],
        ElfOptions(),
        "only we convert",
    ),
    "a part that begins where another's page ends": (
        [
            Part(".a", 0x42000020, b"a" * 0x10100),
            Part(".m", 0x40380000, b"m" * 8),
            Part(".b", 0x42010200, b"b" * 20),
        ],
        ElfOptions(),
        "differ",
    ),
    "two parts for one address": (
        [Part(".a", 0x40380000, b"a" * 64), Part(".b", 0x40380010, b"b" * 20)],
        ElfOptions(),
        "only they convert: elf-overlap",
    ),
    "nothing to load": ([Part(".a", 0, b"a" * 64)], ElfOptions(), "only they convert: elf-empty"),
    "a SHA-256 outside all segments": (
        [Part(".a", 0x40380000, b"a" * 64)],
        ElfOptions(digest_offset=0x1000),
        "only they convert: elf-digest-place",
    ),
    "a descriptor behind RAM": (
        [Part(".flash.appdesc", 0x3C000020, DESCRIPTOR), Part(".m", 0x40380000, b"m" * 0x200)],
        ElfOptions(ram_only_header=True),
        "only we convert",
    ),
    "padding behind an image without a SHA-256": (
        [Part(".a", 0x40380000, b"a" * 64)],
        ElfOptions(append_digest=False, pad_to_size=0x1000),
        "differ",
    ),
    "16 segments, and one that pads for a signature": (
        [Part(".a", 0x40380000 + 64 * n, b"a" * 16) for n in range(16)],
        ElfOptions(secure_pad=2),
        "only they convert: elf-segments",
    ),
    "a part that goes past the address space": (
        [Part(".a", 0xFFFFFFF0, b"a" * 17)],
        ElfOptions(),
        "only they convert: elf-address",
    ),
    "padding for a signature that the chip does not have, without a SHA-256": (
        [Part(".a", 0x40380000, b"a" * 64)],
        ElfOptions(secure_pad=1, append_digest=False),
        "equal",
    ),
}


@pytest.mark.parametrize("name", DIFFERENCES)
def test_differences_from_esptool_are_as_documented(peer, name):
    parts, options, verdict = DIFFERENCES[name]
    assert compare(peer, write_elf(Program(parts)), "esp32c3", options).startswith(verdict)


def test_a_program_for_another_machine_is_refused_by_us_alone(peer):
    elf = write_elf(Program([Part(".a", 0x40380000, b"a" * 64)], machine=0x5E))
    assert compare(peer, elf, "esp32c3", ElfOptions()) == "only they convert: elf-machine"


if __name__ == "__main__":  # a long run by hand, without pytest
    import tempfile

    with tempfile.TemporaryDirectory() as place:
        running = Peer(os.environ["ESPWIRE_PEER"], Path(place))
        for name in chip_ids():
            print(name, Counter(compare_generated(running, name, int(sys.argv[1])).values()))
        running.close()
