"""Every command that writes a file, and every odd thing that can have the output's name. No tests here.

A case runs in a folder with a neighbour file. Afterwards the folder holds either what it held before or that plus the
complete output, and nothing else: no other name, type, link, permission or byte may differ.
"""

from __future__ import annotations

import os
import resource
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DATA = Path(__file__).parents[1] / "data"
PROGRAMS, OTA = DATA / "programs", DATA / "builds/esp-idf-ota/build"
C3 = ("-p", "virtual:esp32c3?size=1MB&profile=instant")
CSV = "nvs,data,nvs,,0x4000\notadata,data,ota,,0x2000\napp0,app,ota_0,,256K\napp1,app,ota_1,,256K\n"
OUT = "out"
READER_S = 10.0  # for a pipe's reader to get everything


@dataclass(frozen=True)
class Case:
    """A command; ``OUT`` in its words is the output's path, ``IN/name`` an input.

    :param made: what kind of output: ``file``; ``files`` (names that begin with the output's); ``folder``;
        ``change`` (an existing file is changed); ``flash`` (a virtual chip's, which follows and replaces nothing)
    """

    name: str
    words: tuple[str, ...]
    made: str = "file"


CASES = (
    Case("read-flash", (*C3, "read-flash", "0", "0x8000", "OUT")),
    Case("read-flash --no-stub", (*C3, "--no-stub", "read-flash", "0", "0x800", "OUT")),
    Case("dump-mem", (*C3, "--no-stub", "dump-mem", "0x3fc80000", "64", "OUT")),
    Case("merge-bin", ("-c", "esp32c3", "merge-bin", "-o", "OUT", "0x8000", "IN/big.bin")),
    Case("elf2image", ("-c", "esp32c3", "elf2image", "-o", "OUT", "IN/esp32c3-hello.elf")),
    Case(
        "elf2image esp8266",
        ("-c", "esp8266", "elf2image", "-o", "OUT", "IN/esp8266-hello.elf"),
        "files",
    ),
    Case(
        "make-image",
        ("-c", "esp32c3", "make-image", "-f", "IN/small.bin", "-a", "0x40380000", "OUT"),
    ),
    Case("partitions build", ("partitions", "build", "IN/table.csv", "-o", "OUT")),
    Case(
        "partitions read",
        ("partitions", "read", "OUT", "--from", "IN/table.csv", "--format", "bin"),
    ),
    Case("image map", ("image", "map", "IN/dump.bin", "--svg", "OUT")),
    Case("split-image", ("split-image", "IN/dump.bin", "-o", "OUT"), "folder"),
    Case("ota switch", ("ota", "switch", "app1", "OUT"), "change"),
    Case(
        "flash file",
        ("-p", "virtual:esp32c3?size=256KB&profile=instant&flash=OUT", "--no-stub", "flash-id"),
        "flash",
    ),
)


def write_inputs(folder: Path) -> None:
    """What the commands read."""
    for name in ("esp32c3-hello.elf", "esp8266-hello.elf"):
        (folder / name).write_bytes((PROGRAMS / name).read_bytes())
    (folder / "small.bin").write_bytes(bytes(range(256)) * 8)
    (folder / "big.bin").write_bytes(bytes(range(256)) * 256)
    (folder / "table.csv").write_text(CSV)
    (folder / "dump.bin").write_bytes(_build_dump())


def _build_dump() -> bytes:
    from espwire.image.partition_csv import parse_csv
    from espwire.image.partition_table import build_table

    dump = bytearray(b"\xff" * 0x90000)
    boot = (OTA / "bootloader/bootloader.bin").read_bytes()
    for at, piece in (
        (0, boot),
        (0x8000, build_table(parse_csv(CSV))),
        (0x10000, boot),
        (0x50000, boot),
    ):
        dump[at : at + len(piece)] = piece
    return bytes(dump)


def spell(case: Case, inputs: Path, out: str) -> list[str]:
    """The words of the command."""
    return [word.replace("IN/", f"{inputs}/").replace("OUT", out) for word in case.words]


Snapshot = dict[str, tuple[Any, ...]]


def look(folder: Path) -> Snapshot:
    """Everything below a folder: type, permissions, and content or target or device number."""
    return {
        path.relative_to(folder).as_posix(): _look_at(path) for path in sorted(folder.rglob("*"))
    }


def _look_at(path: Path) -> tuple[Any, ...]:
    found = os.lstat(path)
    kind, mode = stat.S_IFMT(found.st_mode), stat.S_IMODE(found.st_mode)
    if kind == stat.S_IFLNK:
        return (kind, os.readlink(path))
    return (kind, mode, path.read_bytes() if kind == stat.S_IFREG else found.st_rdev)


@dataclass
class Place:
    """The folder of one run."""

    folder: Path
    inputs: Path
    case: Case
    expected: (
        Snapshot  # what the command makes in an empty folder, the output's names as in ``OUT``
    )
    before: Snapshot = field(default_factory=dict)

    @property
    def out(self) -> Path:
        return self.folder / OUT

    @property
    def old(self) -> bytes:
        """What an existing output holds: for most commands anything."""
        if self.case.made == "change":
            return (self.inputs / "dump.bin").read_bytes()
        return self.expected[OUT][2] if self.case.made == "flash" else b"the old content"

    def complete(self) -> Snapshot:
        """The folder as it should be after success."""
        return self.before | {
            name: (row[0], self.before.get(name, row)[1], *row[2:])
            for name, row in self.expected.items()
        }

    def check(self, code: int, *, refused: bool | None) -> None:
        """Compare.

        :param refused: whether the command has to fail; None: both are right
        """
        after = look(self.folder)
        if refused is None:
            refused = code != 0
        assert (code == 0) != refused, f"exit code {code}"
        wanted = self.before if refused else self.complete()
        assert after.keys() == wanted.keys(), (
            f"names changed: {sorted(after.keys() ^ wanted.keys())}"
        )
        changed = [name for name in wanted if after[name] != wanted[name]]
        assert not changed, f"{changed} are neither as before nor complete"

    def check_broken_off(self) -> None:
        """After a signal: each output is complete, or as before; nothing else changed."""
        after, complete = look(self.folder), self.complete()
        assert after.keys() <= complete.keys(), (
            f"left behind: {sorted(after.keys() - complete.keys())}"
        )
        for name, row in complete.items():
            assert after.get(name) in (row, self.before.get(name)), (
                f"{name} is neither as before nor complete"
            )


# what an output may be; each yields (the words' output, whether the command is refused)
Condition = Callable[[Place], Iterator[tuple[str, bool]]]


def absent(place: Place) -> Iterator[tuple[str, bool]]:
    yield str(place.out), place.case.made == "change"


def existing(place: Place) -> Iterator[tuple[str, bool]]:
    """A file with unusual permissions; of several outputs the first one."""
    name = min(place.expected) if place.case.made == "files" else OUT
    (place.folder / name).write_bytes(place.old)
    (place.folder / name).chmod(0o640)
    yield str(place.out), place.case.made == "folder"


def pipe_without_reader(place: Place) -> Iterator[tuple[str, bool]]:
    for name in _names(place):
        os.mkfifo(place.folder / name)
    yield str(place.out), True


def pipe_with_reader(place: Place) -> Iterator[tuple[str, bool]]:
    """The reader gets everything; a flash file, a folder or a change cannot be in a pipe."""
    got: dict[str, bytes] = {}

    def read(name: str) -> None:
        got[name] = (place.folder / name).read_bytes()

    names = _names(place)
    for name in names:
        os.mkfifo(place.folder / name)
    readers = [threading.Thread(target=read, args=(name,), daemon=True) for name in names]
    for reader in readers:
        reader.start()
    works = place.case.made in ("file", "files")
    content = {name: place.expected[name][2] for name in names} if works else {}
    if works:
        place.expected = {}  # the pipes stay what they are
    yield str(place.out), not works
    for name, reader in zip(names, readers, strict=True):
        while not works and reader.is_alive():  # nobody opened it: let the reader go
            os.close(os.open(place.folder / name, os.O_RDWR | os.O_NONBLOCK))
            reader.join(0.01)
        reader.join(READER_S)
        assert not reader.is_alive()
    assert not works or got == content


def null_device(place: Place) -> Iterator[tuple[str, bool]]:
    yield from _device(place, 3, works=place.case.made in ("file", "files"))


def full_device(place: Place) -> Iterator[tuple[str, bool]]:
    yield from _device(place, 7, works=False)


def _device(place: Place, minor: int, *, works: bool) -> Iterator[tuple[str, bool]]:
    """A device of our own where we may make one; else the system's, which we cannot harm then."""
    for name in _names(place):
        try:
            os.mknod(place.folder / name, stat.S_IFCHR | 0o666, os.makedev(1, minor))
            (place.folder / name).chmod(0o666)
            os.close(os.open(place.folder / name, os.O_WRONLY))
        except PermissionError:
            (place.folder / name).unlink(missing_ok=True)
            (place.folder / name).symlink_to({3: "/dev/null", 7: "/dev/full"}[minor])
    if works:
        place.expected = {}
    yield str(place.out), not works


def folder_there(place: Place) -> Iterator[tuple[str, bool]]:
    for name in _names(place):
        (place.folder / name).mkdir()
        (place.folder / name / "file").write_bytes(b"inside")
    yield str(place.out), True


def new_folder_named(place: Place) -> Iterator[tuple[str, bool]]:
    """``out/``; with several outputs that is where they go, and there is no such folder."""
    yield f"{place.out}/", place.case.made != "folder"


def link_to_file(place: Place) -> Iterator[tuple[str, bool]]:
    """The link stays, and its target, elsewhere, is the output."""
    target, made = place.folder / "elsewhere", place.case.made
    name = min(_names(place))
    target.write_bytes(place.old)
    target.chmod(0o600)
    (place.folder / name).symlink_to("elsewhere")
    refused = made in ("folder", "flash")
    if not refused:
        place.expected = {
            ("elsewhere" if key == name else key): row for key, row in place.expected.items()
        }
    yield str(place.out), refused


def dangling_link(place: Place) -> Iterator[tuple[str, bool]]:
    for name in _names(place):
        (place.folder / name).symlink_to("nothing")
    yield str(place.out), True


def circular_link(place: Place) -> Iterator[tuple[str, bool]]:
    for name in _names(place):
        (place.folder / name).symlink_to(name)
    yield str(place.out), True


def full_disk(place: Place) -> Iterator[tuple[str, bool]]:
    """The system takes half of the largest output and no more."""
    if place.case.made == "change":
        place.out.write_bytes(place.old)
    largest = max(len(row[2]) for row in place.expected.values() if row[0] == stat.S_IFREG)
    with _limit(largest // 2):
        yield str(place.out), True


def full_disk_over_old(place: Place) -> Iterator[tuple[str, bool]]:
    if place.case.made in ("folder", "flash"):
        yield from full_disk(place)
        return
    for name in _names(place):
        (place.folder / name).write_bytes(place.old)
    largest = max(len(row[2]) for row in place.expected.values())
    with _limit(largest // 2):
        yield str(place.out), True


@contextmanager
def _limit(size: int) -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def _names(place: Place) -> list[str]:
    """What the command's outputs are called."""
    return sorted(place.expected) if place.case.made == "files" else [OUT]


CONDITIONS: tuple[Condition, ...] = (
    *(
        absent,
        existing,
        pipe_without_reader,
        pipe_with_reader,
        null_device,
        full_device,
        folder_there,
    ),
    *(new_folder_named, link_to_file, dangling_link, circular_link, full_disk, full_disk_over_old),
)
