"""Addresses to functions, files and lines, with ELF files of real compilers."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import zlib
from pathlib import Path

import pytest
from tests.crash_firmware import FOLDER, find_symbols

from espwire.errors import ElfError, FileError
from espwire.symbols.cache import MAX_FILES, SymbolCache
from espwire.symbols.symbol_file import Frame, SymbolFile
from espwire.symbols.symbol_set import SymbolSet

PROGRAMS = {
    "esp32c3": "riscv64-unknown-elf-addr2line",
    "esp8266": "xtensa-lx106-elf-addr2line",
    "esp32": "xtensa-lx106-elf-addr2line",
    "esp32s3": "xtensa-lx106-elf-addr2line",
}
INLINED = ["read_register", "read_sensor", "measure"]


def load(name: str) -> SymbolFile:
    return SymbolFile(FOLDER / f"{name}.elf")


def find_inlined(file: SymbolFile) -> tuple[Frame, ...]:
    """The places at the first address where two functions are inlined into each other."""
    return next(
        found
        for low, high in file.index.code
        for address in range(low, high)
        if len(found := file.resolve(address)) == 3
    )


@pytest.mark.parametrize("name", PROGRAMS)
def test_inlined_functions_are_a_chain(name: str) -> None:
    assert [
        (frame.function, os.path.basename(frame.file), frame.line, frame.inlined)
        for frame in find_inlined(load(name))
    ] == [
        ("read_register", "sensor.h", 8, False),
        ("read_sensor", "sensor.h", 12, True),
        ("measure", "crash.c", 13, True),
    ]


def test_names_of_cpp_have_their_scope_and_a_lambda_is_not_inlined() -> None:
    file = load("names")
    found = {file.resolve(address) for low, high in file.index.code for address in range(low, high)}
    assert not any(frame.inlined for frames in found for frame in frames)
    assert {frames[0].function for frames in found if frames} == {
        "sensors::(anonymous namespace)::help",
        "sensors::Bus<int>::read",
        "(unnamed class)::operator()",
        "App::loop",
        "start",
    }


@pytest.mark.parametrize("name", PROGRAMS)
def test_every_address_is_what_addr2line_says(name: str) -> None:
    tool = shutil.which(PROGRAMS[name])
    if tool is None:
        pytest.skip("there are no cross compilers on this machine")
    file = load(name)
    addresses = [address for low, high in file.index.code for address in range(low, high)]
    done = subprocess.run(
        [tool, "-fia", "-e", file.path],
        input="\n".join(map(hex, addresses)),
        capture_output=True,
        text=True,
        check=True,
    )
    theirs: dict[int, list[str]] = {}
    lines = done.stdout.splitlines()
    for at, line in enumerate(lines):
        if line.startswith("0x"):
            theirs[int(line, 16)] = places = []
        elif len(lines) > at + 1 and ":" in lines[at + 1] and ":" not in line:
            places.append(f"{line} at {lines[at + 1].split(' (disc')[0]}")
    compared = 0
    for address in addresses:
        if theirs[address][0].endswith(("?", "??:0")):  # padding, assembly code
            continue
        assert [str(frame) for frame in file.resolve(address)] == theirs[address], hex(address)
        compared += 1
    assert compared > 500


def test_a_label_of_assembly_code_is_a_function_without_a_file() -> None:
    file = load("esp8266")
    address = find_symbols("esp8266")["start"]
    assert file.resolve(address) == (Frame("start", "", 0),)
    assert str(file.resolve(address)[0]) == "start"


def test_addresses_outside_of_the_code_are_not_resolved() -> None:
    file = load("esp32c3")
    for address in (0, 0x40000000, 0x3FC90000, 0x4FFFFFFF, 0xFFFFFFFF):
        assert file.resolve(address) == ()


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "elf-magic"),
        (b"\x7fELF", "elf-class"),
        (b"\x7fELF\x01\x01" + bytes(20), "elf-truncated"),
        (b"\x7fELF\x01\x01" + b"\xff" * 200, "elf-broken"),
    ],
)
def test_a_file_that_is_not_a_program_is_an_error(tmp_path: Path, data: bytes, code: str) -> None:
    (tmp_path / "a.elf").write_bytes(data)
    with pytest.raises(ElfError) as caught:
        SymbolFile(tmp_path / "a.elf")
    assert caught.value.code == code


def test_a_missing_file_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileError):
        SymbolFile(tmp_path / "a.elf")


def test_damaged_debug_information_costs_frames_not_the_program(tmp_path: Path) -> None:
    data = bytearray((FOLDER / "esp32c3.elf").read_bytes())
    at = data.find(b"crash.c\0")
    data[at - 400 : at] = random.Random(1).randbytes(400)
    (tmp_path / "a.elf").write_bytes(data)
    file = SymbolFile(tmp_path / "a.elf")
    for low, high in file.index.code:
        for address in range(low, high, 2):
            file.resolve(address)


def mutate(data: bytes, rng: random.Random) -> bytes:
    """Some bytes in the sections of debug information are other ones, or the file is cut."""
    damaged = bytearray(data)
    start = data.find(b"/firmware") // 4
    for _ in range(rng.choice((1, 3, 30))):
        at = rng.randrange(start, len(damaged))
        damaged[at] = rng.choice((0, 0xFF, 0x80, damaged[at] ^ 1 << rng.randrange(8)))
    if rng.random() < 0.1:
        del damaged[rng.randrange(len(damaged)) :]
    return bytes(damaged)


def fuzz_files(folder: Path, seed: int, rounds: int) -> tuple[int, int]:
    """Resolve some addresses by damaged files; numbers of files that were refused, and read."""
    rng = random.Random(seed)
    path = folder / "fuzzed.elf"
    refused = read = 0
    originals = [(FOLDER / f"{name}.elf").read_bytes() for name in PROGRAMS]
    for _ in range(rounds):
        path.write_bytes(mutate(rng.choice(originals), rng))
        try:
            file = SymbolFile(path)
        except ElfError:
            refused += 1
            continue
        read += 1
        for low, high in file.index.code[:3]:
            for address in (low, (low + high) // 2, low + rng.randrange(min(high - low, 0x1000))):
                file.resolve(address)
                words = {low + 4 * n: address for n in range(64)}
                file.unwind(address, {1: address, 2: low, 8: low}, words.get)
    return refused, read


def test_damaged_files_end_in_an_error_or_fewer_frames(tmp_path: Path) -> None:
    refused, read = fuzz_files(tmp_path, 1, 60)
    assert refused + read == 60
    assert read > 10


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(20))
def test_many_damaged_files(tmp_path: Path, seed: int) -> None:
    assert sum(fuzz_files(tmp_path, seed, 1000)) == 1000


def test_the_fuzz_finds_a_missing_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import espwire.symbols.symbol_file as module

    monkeypatch.setattr(module, "DAMAGED", (KeyError,))
    with pytest.raises(Exception, match=r".") as caught:
        fuzz_files(tmp_path, 1, 200)
    assert not isinstance(caught.value, AssertionError)


def test_compressed_sections_are_read(tmp_path: Path) -> None:
    """As `objcopy --compress-debug-sections` makes them; made here by hand, so that no tool is needed."""
    data = bytearray((FOLDER / "esp32c3.elf").read_bytes())
    table = int.from_bytes(data[0x20:0x24], "little")
    count = int.from_bytes(data[0x30:0x32], "little")
    names = table + 40 * int.from_bytes(data[0x32:0x34], "little")
    strings = int.from_bytes(data[names + 16 : names + 20], "little")
    for at in range(table, table + 40 * count, 40):
        name, _, flags, _, offset, size = (
            int.from_bytes(data[at + 4 * n : at + 4 * n + 4], "little") for n in range(6)
        )
        if data[strings + name :].startswith(b".debug_info\0"):
            packed = b"\1\0\0\0" + size.to_bytes(4, "little") + b"\1\0\0\0"
            packed += zlib.compress(bytes(data[offset : offset + size]))
            row = (flags | 0x800, 0, len(data), len(packed))
            data[at + 8 : at + 24] = b"".join(word.to_bytes(4, "little") for word in row)
            data += packed
            break
    (tmp_path / "a.elf").write_bytes(data)
    assert find_inlined(SymbolFile(tmp_path / "a.elf")) == find_inlined(load("esp32c3"))


# --- the cache ---


def test_a_second_run_does_not_read_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.elf"
    shutil.copy(FOLDER / "esp32c3.elf", path)
    cache = SymbolCache(tmp_path / "cache")
    first = cache.open(str(path))
    places = find_inlined(first)
    address = next(at for at, found in first.index.frames.items() if found == places)
    sha = first.sha256()
    cache.save(first)

    import espwire.symbols.symbol_file as module

    monkeypatch.setattr(module, "read_file", None)
    again = cache.open(str(path))
    assert again.resolve(address) == places
    assert again.sha256() == sha
    assert not again.changed


def test_a_file_that_was_built_again_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a.elf"
    shutil.copy(FOLDER / "esp32c3.elf", path)
    cache = SymbolCache(tmp_path / "cache")
    cache.save(cache.open(str(path)))
    shutil.copy(FOLDER / "esp8266.elf", path)
    os.utime(path, ns=(1, 1))
    assert cache.open(str(path)).index.code == load("esp8266").index.code


@pytest.mark.parametrize(
    "kept", [b"", b"{}", b"[1]", b'{"v": 1, "path": 1}', b"\xff\xfe", b"[" * 100000]
)
def test_a_damaged_cache_costs_only_time(tmp_path: Path, kept: bytes) -> None:
    path = str(FOLDER / "esp32c3.elf")
    cache = SymbolCache(tmp_path)
    cache.save(cache.open(path))
    (file,) = tmp_path.glob("*.json")
    file.write_bytes(kept)
    assert find_inlined(cache.open(path)) == find_inlined(load("esp32c3"))


def test_values_of_a_cache_that_are_no_addresses_cost_only_time(tmp_path: Path) -> None:
    path = str(FOLDER / "esp32c3.elf")
    cache = SymbolCache(tmp_path)
    cache.save(cache.open(path))
    (file,) = tmp_path.glob("*.json")
    data = json.loads(file.read_text()) | {"code": [[float("inf"), 1]]}
    file.write_text(json.dumps(data))
    assert find_inlined(cache.open(path)) == find_inlined(load("esp32c3"))


def test_a_cache_that_may_not_be_read_costs_only_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "is_file", refuse)
    path = str(FOLDER / "esp32c3.elf")
    assert find_inlined(SymbolCache(tmp_path).open(path)) == find_inlined(load("esp32c3"))


def test_resolved_addresses_are_kept_up_to_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    import espwire.symbols.symbol_file as module

    monkeypatch.setattr(module, "KEPT_ADDRESSES", 10)
    file = load("esp32c3")
    low = file.index.code[0][0]
    for address in range(low, low + 40, 2):
        file.resolve(address)
    assert list(file.index.frames) == list(range(low + 20, low + 40, 2))


def test_the_cache_is_bounded_and_may_be_missing(tmp_path: Path) -> None:
    cache = SymbolCache(tmp_path / "cache")
    for n in range(MAX_FILES + 3):
        path = tmp_path / f"{n}.elf"
        shutil.copy(FOLDER / "esp8266.elf", path)
        cache.save(cache.open(str(path)))
    assert len(list((tmp_path / "cache").glob("*.json"))) == MAX_FILES
    nothing = SymbolCache(None)
    nothing.save(nothing.open(str(tmp_path / "0.elf")))
    (tmp_path / "file").write_text("")
    blocked = SymbolCache(tmp_path / "file")  # a folder of that name cannot be made
    blocked.save(blocked.open(str(tmp_path / "0.elf")))


# --- several files ---


def test_the_application_s_sha_chooses_the_file(tmp_path: Path) -> None:
    paths = [str(FOLDER / f"{name}.elf") for name in ("esp32c3", "esp32s3")]
    symbols = SymbolSet(paths)
    shared = 0x42000060  # both have code there
    assert symbols.find(shared) is symbols.files[0]
    assert symbols.identify(symbols.files[1].sha256()[:9]) == ""
    assert symbols.find(shared) is symbols.files[1]
    told = symbols.identify("0123456789abcdef")
    assert told.startswith("esp32c3.elf, esp32s3.elf: another build than the application that runs")
    assert symbols.identify("0123456789abcdef") == ""  # told once
    assert symbols.resolve(shared) == ()


def test_a_file_that_is_built_again_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.elf"
    shutil.copy(FOLDER / "esp32c3.elf", path)
    symbols = SymbolSet([str(path)])
    old = symbols.files[0].sha256()
    path.write_bytes((FOLDER / "esp8266.elf").read_bytes())
    os.utime(path, ns=(1, 1))
    symbols.refresh()
    assert symbols.files[0].sha256() != old
    path.unlink()  # the linker removes it before it writes it
    symbols.refresh()
    assert symbols.files[0].holds(0x40201040)
