"""Broken files for every parser: seeds, mutations, and what each kind of file is put through. No tests here."""

from __future__ import annotations

import contextlib
import copy
import json
import random
import struct
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from espwire.blob import Blob
from espwire.chips.registry import load_chip
from espwire.cli.config_files import Loaded, add_toml_values, add_vendor_values, parse_vendor
from espwire.errors import FileError, TableError, ToolError
from espwire.image.build_dir import plan_folder
from espwire.image.build_file import plan_file
from espwire.image.codec import build, create_image, parse
from espwire.image.diff import diff_images
from espwire.image.elf import parse_elf
from espwire.image.elf2image import choose_chip, convert_elf
from espwire.image.flasher_args import parse_flash_args, parse_flasher_args
from espwire.image.hex import parse_hex, parse_srecord
from espwire.image.inspect import inspect_bytes
from espwire.image.model import Segment
from espwire.image.ota import (
    OtaEntry,
    apply_change,
    build_sector,
    compute_crc,
    find_boot,
    parse_ota_data,
    plan_switch,
)
from espwire.image.partition_csv import build_csv, decode_csv, parse_csv
from espwire.image.partition_table import (
    build_table,
    check_table,
    find_partition,
    parse_table,
    require_sound,
)
from espwire.image.read_any import read_input
from espwire.image.scan import find_regions
from espwire.image.split import split_image
from espwire.image.uf2 import build_uf2, parse_uf2

sys.path.insert(0, str(Path(__file__).parents[1]))
from elf_writer import RISCV, XTENSA, Part, Program, write_elf

DATA = Path(__file__).parents[1] / "data"
BUILDS = DATA / "builds"
MAX_SECONDS, MAX_BYTES = 1.0, 200 * 0x100000
TRACED = 64  # every so many cases, memory is measured exactly; in the others by the process's peak
NUMBERS = (
    0,
    1,
    3,
    0x7F,
    0x80,
    0xFF,
    0x100,
    0xFFFF,
    0x01000000,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFF0,
    0xFFFFFFFF,
)
CSV = b"""# Name, Type, SubType, Offset, Size, Flags
nvs, data, nvs, 0x9000, 0x5000,
otadata, data, ota, 0xe000, 0x2000,
app0, app, ota_0, 0x10000, 1M, encrypted
app1, app, ota_1, , 1M,
store, data, spiffs, , 64K, readonly
"""


CODECS = ("utf-8", "utf-8-sig", "latin-1", "utf-16", "utf-16-be", "utf-32")
OTA = tuple(
    build_sector(OtaEntry(a, crc=compute_crc(a))) + build_sector(OtaEntry(b, crc=compute_crc(b)))
    for a, b in ((0, 0xFFFFFFFF), (1, 2), (7, 6))
)
TOML = b"""[connect]
chip = "esp32c3"
baud = 460800
attempts = 7
[flash]
mode = "dio"
[timing]
sync = 0.1
[reset]
enter = "D0|R1|W0.1|D1|R0|W0.05|D0"
"""
VENDOR = b"[esptool]\ntimeout = 3\nconnect_attempts = 7\nreset_delay = 0.05\ncustom_reset_sequence = D0|R1|W0.1\n"


@dataclass(frozen=True)
class Outcome:
    """How one case ended. ``error``: a ToolError's code; ``bug``: anything else that was raised."""

    kind: str
    number: int
    seconds: float
    peak: int
    error: str = ""
    bug: str = ""


@dataclass(frozen=True)
class Kind:
    """A kind of file: whole ones, and what a broken one goes through."""

    seeds: tuple[bytes, ...]
    run: Callable[[bytes], object]
    text: bool = False
    json: bool = False


def _image(data: bytes) -> None:
    chip = CHIPS[data[-1] % len(CHIPS)] if data else None
    image = parse(data, chip)
    assert build(image) == data, "build(parse(x)) is not x"


def _elf(data: bytes) -> None:
    try:
        chip = load_chip(choose_chip(parse_elf(data)))
    except ToolError:
        chip = load_chip(("esp8266", "esp32", "esp32c3")[len(data) % 3])
    convert_elf(data, chip)


def _table(data: bytes) -> None:
    table = parse_table(data)
    check_table(table)
    for row in table.partitions:
        assert row.label.isprintable()
        with contextlib.suppress(TableError):  # partition-flawed
            find_partition(table, row.label)
    assert parse_table(build_table(table)).partitions == table.partitions
    require_sound(table)


def _csv(data: bytes) -> None:
    table = parse_csv(data.decode("utf-8", "replace"))
    check_table(table)
    build_csv(table)
    build_table(table)


def _csv_bytes(data: bytes) -> None:
    if (text := decode_csv(data)) is not None:
        parse_csv(text)


def _ota(data: bytes) -> None:
    """Whatever the entries are, what boots is one of the slots, and a switch leads where it should."""
    table = parse_csv(CSV.decode())
    found = parse_ota_data(data)
    assert find_boot(table, found).boots in table.partitions[2:4]
    for slot in ("app0", "app1"):
        change = plan_switch(table, found, slot)
        status = find_boot(table, parse_ota_data(apply_change(data, change)))
        assert status.boots is not None
        assert status.boots.name == slot or change.nothing


def _toml(data: bytes) -> None:
    add_toml_values("x.toml", data.decode("utf-8", "replace"), Loaded())


def _vendor(data: bytes) -> None:
    text = data.decode("utf-8", "replace")
    parsed = parse_vendor("x.cfg", text)
    if parsed is not None:
        add_vendor_values("x.cfg", text, parsed, Loaded())


def _merged(data: bytes) -> None:
    find_regions(data)
    plan_file(data, "merged.bin")


def _inspect(data: bytes) -> None:
    diff_images(data, _images()[0])
    inspect_bytes(data)


def _folder(data: bytes) -> None:
    """A broken file of a build folder; which one, the first byte tells. It stands beside sound ones."""
    tree, name = FOLDER_FILES[data[0] % len(FOLDER_FILES) if data else 0]
    files = dict(TREES[tree])
    files[name] = data[1:]

    def read(path: str) -> bytes:
        if path not in files:
            raise FileError(f"cannot read {path}", code="file-read")
        return files[path]

    plan_folder(files, read, tree)


def _read_trees() -> dict[str, dict[str, bytes]]:
    trees: dict[str, dict[str, bytes]] = {}
    for path in sorted(BUILDS.rglob("*")):
        if path.is_file():
            tree, _, name = path.relative_to(BUILDS).as_posix().partition("/")
            trees.setdefault(tree, {})[name] = path.read_bytes()
    return trees


def _hex(pieces: list[tuple[int, bytes]]) -> bytes:
    import bincopy

    file = bincopy.BinFile()
    for address, data in pieces:
        file.add_binary(data, address)
    return str(file.as_ihex()).encode()


def _srecord(pieces: list[tuple[int, bytes]]) -> bytes:
    import bincopy

    file = bincopy.BinFile()
    for address, data in pieces:
        file.add_binary(data, address)
    return str(file.as_srec()).encode()


CHIPS = (None, load_chip("esp32"), load_chip("esp8266"), load_chip("esp32c3"))
TREES = _read_trees()
FOLDER_FILES = (
    ("esp-idf", "build/flasher_args.json"),
    ("platformio-esp32s3", ".pio/build/feather/idedata.json"),
    ("platformio-esp32", ".pio/build/esp32dev/partitions.bin"),
    ("arduino-esp32", "build/esp32.esp32.esp32c3/Blink.ino.bin"),
    ("release", "bootloader.bin"),
)


def _uf2(pieces: list[tuple[int, bytes]]) -> bytes:
    return build_uf2([Blob(*piece) for piece in pieces], 0x1C5F21B0)


PIECES = [(0x1000, bytes(range(96))), (0x8000, b"\xaa\x50" * 24), (0x10000, bytes(64))]


def _images() -> tuple[bytes, ...]:
    made = []
    for name in ("esp32", "esp32c3", "esp8266"):
        segments = (Segment(0x40080000, bytes(range(64))), Segment(0x3FFB0000, b"data" * 8))
        made.append(build(create_image(segments, 0x40080000, chip=load_chip(name))))
    v2 = (Path(DATA / "esp8266/boot_v1.7.bin")).read_bytes()
    return (*made, v2[:4096])


def _elves() -> tuple[bytes, ...]:
    c3 = [Part(".flash.appdesc", 0x3C000020, struct.pack("<I", 0xABCD5432) + bytes(252)),
          Part(".flash.text", 0x42010020, b"code" * 40), Part(".iram0.text", 0x40380000, b"iram" * 16),
          Part(".dram0.data", 0x3FC90000, b"data" * 16)]  # fmt: skip
    esp8266 = [Part(".text", 0x40100000, b"code" * 16), Part(".data", 0x3FFE8000, b"data" * 8),
               Part(".irom0.text", 0x40210000, b"irom" * 16)]  # fmt: skip
    return (
        write_elf(Program(c3, RISCV, 0x40380000)),
        write_elf(Program(esp8266, XTENSA, 0x40100000)),
        write_elf(Program([Part(".iram0.text", 0x40080000, b"code" * 16)], XTENSA, 0x40080000)),
    )


def _merged_seed() -> bytes:
    whole = bytearray(b"\xff" * 0x10100)
    for at, data in (
        (0, _images()[1]),
        (0x8000, TREES["release"]["partitions.bin"]),
        (0x10000, _images()[1]),
    ):
        whole[at : at + len(data)] = data
    return bytes(whole)


FAR = tuple(
    pack([(base + at, data) for at, data in PIECES])
    for base in (0, 0x01FD0000, 0x0FFE0000, 0xF0000000)
    for pack in (_hex, _uf2)
)
IDF_JSON = TREES["esp-idf-ota"]["build/flasher_args.json"]
IDF_ARGS = TREES["esp-idf-ota"]["build/flash_args"]
KINDS: dict[str, Kind] = {
    "image": Kind(_images(), _image),
    "elf": Kind(_elves(), _elf),
    "hex": Kind((_hex(PIECES),), lambda data: parse_hex(data, "x.hex"), text=True),
    "srecord": Kind((_srecord(PIECES),), lambda data: parse_srecord(data, "x.srec"), text=True),
    "uf2": Kind((_uf2(PIECES),), lambda data: parse_uf2(data, "x.uf2")),
    "table": Kind((TREES["release"]["partitions.bin"],), _table),
    "csv": Kind((CSV,), _csv, text=True),
    "csv-bytes": Kind(
        tuple(CSV.replace(b"store", "größe".encode()).decode().encode(c) for c in CODECS),
        _csv_bytes,
    ),
    "ota": Kind(OTA, _ota),
    "toml": Kind((TOML,), _toml, text=True),
    "vendor": Kind((VENDOR,), _vendor, text=True),
    "flasher_args": Kind((IDF_JSON,), parse_flasher_args, text=True, json=True),
    "flash_args": Kind((IDF_ARGS,), parse_flash_args, text=True),
    "input": Kind(
        (
            *_images()[:1],
            *_elves()[:2],
            _hex(PIECES),
            _srecord(PIECES),
            _uf2(PIECES),
        ),
        lambda data: read_input(data, "x"),
    ),
    "merged": Kind((_merged_seed(),), _merged),
    "inspect": Kind((*_images(), _merged_seed(), *FAR), _inspect),
    "split": Kind((_merged_seed(), _merged_seed(), *FAR[2:4]), split_image),
    "folder": Kind(
        tuple(bytes([at]) + TREES[tree][name] for at, (tree, name) in enumerate(FOLDER_FILES)),
        _folder,
    ),
}


def mutate(rng: random.Random, data: bytes, *, text: bool) -> bytes:
    """One to four changes."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        (_change_text if text and rng.random() < 0.6 else _change)(rng, out)
    return bytes(out)


def mutate_json(rng: random.Random, data: bytes) -> bytes:
    """Valid JSON in which one to three values, at any depth, are something else, or gone."""
    table = json.loads(data)
    for _ in range(rng.randint(1, 3)):
        node: Any = table
        while isinstance(node, dict | list) and node:
            key = rng.choice(list(node) if isinstance(node, dict) else range(len(node)))
            if not isinstance(node[key], dict | list) or rng.random() < 0.3:
                if rng.random() < 0.2:
                    del node[key]
                else:
                    other = isinstance(node, dict) and rng.random() < 0.3
                    node[rng.choice(JSON_KEYS) if other else key] = copy.deepcopy(
                        rng.choice(JSON_VALUES)
                    )
                break
            node = node[key]
    return json.dumps(table).encode()


JSON_KEYS = (
    "0x10000",
    "-1",
    "",
    "0xFFFFFFFFFF",
    "9" * 5000,
    "\x00",
    "chip",
    "flash_files",
    "file",
    "0X10000",
)
JSON_VALUES = (
    None, True, 0, -1, 1e300, 10**400, "", "x", "\0", "é" * 5000, [], {}, [[]], {"file": 1}, {"file": "x"}, "hard_reset",
    "esp32", "esp99", "64MB", "-4MB", "80m", ["a"], "../x", "9" * 5000,
)  # fmt: skip


def _change(rng: random.Random, out: bytearray) -> None:
    at = rng.randrange(len(out)) if out else 0
    # headers stand at the beginning: they deserve more attention than data
    at = min(at, rng.choice((at, at, 64, 0x60, 0x200)))
    match rng.randrange(8):
        case 0 if out:
            out[min(at, len(out) - 1)] ^= 1 << rng.randrange(8)
        case 1 if out:
            out[min(at, len(out) - 1)] = rng.randrange(256)
        case 2:
            out[at & ~3 : (at & ~3) + 4] = rng.choice(NUMBERS).to_bytes(4, "little")
        case 3:
            del out[rng.randrange(len(out) + 1) :]
        case 4:
            out += rng.randbytes(rng.choice((1, 16, 32, 512)))
        case 5:
            del out[at : at + rng.randint(1, 32)]
        case 6:
            piece = out[at : at + rng.randint(1, 64)]
            target = rng.randrange(len(out) + 1)
            out[target:target] = piece
        case _:
            out[at & ~1 : (at & ~1) + 2] = (rng.choice(NUMBERS) & 0xFFFF).to_bytes(2, "little")


def _change_text(rng: random.Random, out: bytearray) -> None:
    lines = bytes(out).splitlines(keepends=True) or [b""]
    at = rng.randrange(len(lines))
    match rng.randrange(7):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, rng.choice(lines))
        case 2:
            rng.shuffle(lines)
        case 3:
            words = lines[at].split(b",") if b"," in lines[at] else lines[at].split(b" ")
            words[rng.randrange(len(words))] = rng.choice(WORDS)
            lines[at] = (b"," if b"," in lines[at] else b" ").join(words)
        case 4:
            lines[at] = lines[at] * rng.choice((2, 50))
        case 5:
            lines[at] = (
                lines[at]
                .replace(b"0x", b"-0x")
                .replace(b"1", rng.choice((b"9", b"-", b"", b"1e9")))
            )
        case _:
            lines[at] = rng.choice(WORDS) + b"\n"
    out[:] = b"".join(lines)


WORDS = (
    b"", b"-1", b"0xFFFFFFFFF", b"9" * 5000, b"null", b"[]", b"{}", b'"', b"true", b"\xff\xfe", b"\0", b"1M", b"-1M", b"app",
    b"data", b"ota", b"[" * 3000, b":00000001FF", b":0400000300003800C1", b":02000004FFFFFC", b"S9030000FC", b"NaN", b"1e999",
    b"9" * 10_000, b"0x" + b"f" * 10_000, b"[" * 900, b"{" * 900, b"a." * 3000, b"x" * 100_000, b"\x1b]0;t\x07", b"\xe2\x80\xae",
    b"S0030000FC", b"S5030003F9", b"../../x", b"/etc/hostname",
)  # fmt: skip


def run_cases(count: int, first: int = 0, kinds: tuple[str, ...] = tuple(KINDS)) -> list[Outcome]:
    """``count`` cases, shared out evenly; the same numbers give the same cases."""
    return [run_case(kinds[number % len(kinds)], number) for number in range(first, first + count)]


def run_case(kind: str, number: int) -> Outcome:
    """One case. A slow one is tried again: on a busy machine any may be held up once, a slow one is slow each time."""
    outcome = _run_once(kind, number)
    for _ in range(2):
        if outcome.seconds > MAX_SECONDS:
            outcome = replace(
                outcome, seconds=min(outcome.seconds, _run_once(kind, number).seconds)
            )
    return outcome


def _run_once(kind: str, number: int) -> Outcome:
    rng = random.Random(number * 1_000_003 + 17)
    what = KINDS[kind]
    seed = rng.choice(what.seeds)
    structured = what.json and rng.random() < 0.6
    data = mutate_json(rng, seed) if structured else mutate(rng, seed, text=what.text)
    traced = number // len(KINDS) % TRACED == 0
    error = bug = ""
    before = find_peak()
    if traced:
        tracemalloc.start()
    began = time.process_time()  # other programs on the machine do not count
    try:
        what.run(data)
    except ToolError as caught:
        error = caught.code
        if not caught.hint or "\n" in str(caught) or len(str(caught)) > 1000:
            bug = f"the error is no clear sentence: {caught}"
    except Exception as caught:
        bug = f"{type(caught).__name__}: {caught}"
    seconds = time.process_time() - began
    peak = find_peak() - before
    if traced:
        peak = max(peak, tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    return Outcome(kind, number, seconds, peak, error, bug)


def find_peak() -> int:
    """The most memory that the process ever had; 0 where the system does not tell."""
    try:
        import resource
    except ImportError:
        return 0
    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024


def find_bad(outcomes: list[Outcome]) -> list[Outcome]:
    """Those that a user should not see: bugs, slow ones, ones that take too much memory."""
    return [one for one in outcomes if one.bug or one.seconds > MAX_SECONDS or one.peak > MAX_BYTES]
