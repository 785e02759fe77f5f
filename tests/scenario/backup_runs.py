"""Backups and restores that are interrupted at random places and repeated: test_backup.py, and by hand:

    python tests/scenario/backup_runs.py esp32 --size 16MB --interruptions 20 --firmware FOLDER

FOLDER has files ``<chip>/*.bin``, of which the flash is made; without it, the flash has made-up content.
"""

from __future__ import annotations

import argparse
import random
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from needed_writes import Interrupted

from espwire.chips.registry import load_chip
from espwire.device.connect import connect
from espwire.device.device import Device
from espwire.events import Event, Progress, silent
from espwire.flash.backup import backup_flash, restore_flash
from espwire.flash.journal import Journal
from espwire.image.backup_file import read_backup
from espwire.image.codec import build, create_image
from espwire.image.header import HeaderSettings
from espwire.image.model import Segment
from espwire.image.partition_csv import decode_csv, parse_csv
from espwire.image.partition_table import build_table
from espwire.sizes import SECTOR, format_size, parse_flash_size
from espwire.virtual.transport import VirtualTransport, open_virtual

NVS = 0x9000


@dataclass(frozen=True)
class Case:
    """One chip, and what is done to it. ``tamper``: between two runs, the flash and the partial file change."""

    chip: str
    size: int
    interruptions: int
    seed: int
    tamper: bool = False
    firmware: Path | None = None


def make_flash(case: Case) -> bytes:
    """A bootloader whose header states the size, a partition table, NVS, two applications, and files."""
    rng, chip = random.Random(case.seed), load_chip(case.chip)
    half = case.size // 4 & ~0xFFFF
    rows = f"nvs,data,nvs,{NVS:#x},0x5000\nphy_init,data,phy,0xe000,0x1000\napp0,app,ota_0,0x10000,{half:#x}\napp1,app,ota_1,,{half:#x}\nfiles,data,spiffs,,{case.size // 4:#x}\n"
    settings = HeaderSettings(size=format_size(case.size), mode="dio", frequency="40m")
    segment = Segment(chip.memory.map[0].start, rng.randbytes(0x1000))
    flash = bytearray(b"\xff" * case.size)

    def put(address: int, data: bytes) -> None:
        flash[address : address + len(data)] = data

    put(0x10000, _make_content(case, rng, half))
    put(0x10000 + half, _make_content(case, rng, half // 2))
    put(0x10000 + 2 * half, _make_content(case, rng, case.size // 8))
    put(NVS, rng.randbytes(0x2000))
    put(0xE000, rng.randbytes(0x80))
    put(0x8000, build_table(parse_csv(decode_csv(rows.encode()))))
    boot = build(create_image([segment], segment.address, chip=chip, settings=settings))
    put(chip.flash.bootloader_offset, boot)
    return bytes(flash)


def _make_content(case: Case, rng: random.Random, size: int) -> bytes:
    files = sorted((case.firmware / case.chip).glob("*.bin")) if case.firmware else []
    rng.shuffle(files)
    content = b"".join(file.read_bytes() for file in files)[:size]
    return content or b"".join(
        rng.randbytes(0x800) + bytes(0x800) for _ in range(size // 2 // SECTOR)
    )


def open_flash(case: Case, contents: bytes, weak: set[int] | None = None) -> VirtualTransport:
    query = f"size={format_size(case.size)}&seed={case.seed}&mac=24:6f:28:aa:bb:cc&profile=typ"
    transport = open_virtual(f"virtual:{case.chip}?{query}")
    transport.chip.flash.contents[:] = contents
    transport.chip.flash._weak = set(weak or ())
    return transport


class Interruption:
    """Cuts the cable, or the supply as well, at a time or when a share of the work is done; receives the events."""

    def __init__(self, transport: VirtualTransport, rng: random.Random, left: int) -> None:
        self.transport, self.power, self.dead = transport, rng.random() < 0.5, False
        self.at, self.share = float("inf"), rng.uniform(0, min(2 / (left + 1), 1))
        if rng.random() < 0.2:
            self.at = transport.now() + rng.uniform(0, 2)
        self.first: float | None = None
        for name in ("write", "read"):
            vars(transport)[name] = self._watch(getattr(transport, name))

    def _watch(self, method: Callable[..., object]) -> Callable[..., object]:
        def watched(*arguments: object) -> object:
            self._check()
            result = method(*arguments)
            self._check()
            return result

        return watched

    def _check(self) -> None:
        now = self.transport.now()
        if not self.dead and now >= self.at:
            self.dead = True
            if self.power:
                self.transport.chip.power_loss(now)
        if self.dead:
            raise Interrupted("the cable was pulled")

    def __call__(self, event: Event) -> None:
        if isinstance(event, Progress) and event.task in ("read", "write") and event.total:
            done = (event.percent or 0) / 100 if event.task == "write" else event.done / event.total
            self.first = done if self.first is None else self.first
            if done >= self.first + self.share * (1 - self.first):
                self.at = 0.0


Work = Callable[[Device, Callable[[Event], None]], object]


def repeat(
    case: Case, transport: VirtualTransport, rng: random.Random, work: Work
) -> tuple[bytes, int]:
    """Do the work, interrupted and repeated; the flash at the end, and the number of interruptions."""
    interrupted, left = 0, case.interruptions
    while True:
        watch: Callable[[Event], None] = Interruption(transport, rng, left) if left else silent
        try:
            with connect(transport, baud=921600) as device:
                work(device, watch)
            if not left:
                break
        except Interrupted:
            interrupted, left = interrupted + 1, left - 1
        flash = transport.chip.flash
        flash.busy_until = float("-inf")
        transport = open_flash(case, bytes(flash.contents), flash._weak)
    transport.chip.flash.decay()
    return bytes(transport.chip.flash.contents), interrupted


class Outcome(NamedTuple):
    """``wrong``: what is wrong afterwards, as text; empty if nothing. ``interrupted``: runs that were not completed."""

    wrong: str
    interrupted: int


def back_up(case: Case, path: Path) -> Outcome:
    """Make a backup."""
    rng, transport = random.Random(case.seed), open_flash(case, make_flash(case))
    partial = Path(f"{path}.partial")

    def work(device: Device, report: Callable[[Event], None]) -> None:
        if path.exists():
            path.unlink()  # the interruption came too late
        if case.tamper:
            _tamper(device, partial, rng)
        backup_flash(device, path, report=report)

    flash, interrupted = repeat(case, transport, rng, work)
    wrong = "" if read_backup(path).flash == flash else "the backup differs from the flash"
    if partial.exists():
        wrong = "the partial file was left behind"
    return Outcome(wrong, interrupted)


def _tamper(device: Device, partial: Path, rng: random.Random) -> None:
    """The board has run: its NVS has changed. The disk has lost a bit."""
    transport = device.transport
    assert isinstance(transport, VirtualTransport)
    transport.chip.flash.contents[NVS : NVS + 16] = rng.randbytes(16)
    if partial.exists() and rng.random() < 0.5:
        content = bytearray(partial.read_bytes())
        if len(content) > 0x1000:
            content[rng.randrange(0x1000, len(content))] ^= 1 << rng.randrange(8)
            partial.write_bytes(content)


def restore(case: Case, path: Path) -> Outcome:
    """Restore a backup over other content."""
    rng, saved = random.Random(case.seed), read_backup(path)
    old = bytearray(make_flash(Case(case.chip, case.size, 0, case.seed + 1)))
    for at in range(0, case.size, 4 * SECTOR):  # a quarter is equal
        old[at : at + SECTOR] = saved.flash[at : at + SECTOR]
    journal = Journal(path.parent / "unfinished" / path.name, "board")

    def work(device: Device, report: Callable[[Event], None]) -> None:
        restore_flash(device, path, journal=journal, report=report)

    flash, interrupted = repeat(case, open_flash(case, bytes(old)), rng, work)
    wrong = "" if flash == saved.flash else "the flash differs from the backup"
    if journal.path.exists():
        wrong = "the journal was left behind"
    return Outcome(wrong, interrupted)


def main() -> None:
    """Run one case each way."""
    parser = argparse.ArgumentParser()
    parser.add_argument("chip")
    parser.add_argument("--size", type=parse_flash_size, default=0x100000)
    parser.add_argument("--interruptions", type=int, default=3)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--firmware", type=Path)
    options = parser.parse_args()
    case = Case(
        options.chip,
        options.size,
        options.interruptions,
        options.seed,
        firmware=options.firmware,
    )
    flash = make_flash(case)
    blank = sum(not flash[at : at + SECTOR].strip(b"\xff") for at in range(0, len(flash), SECTOR))
    print(f"{case.chip}: {len(flash) // SECTOR} sectors, {blank} of them blank")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "board.zip"
        for name, run in (("backup", back_up), ("restore", restore)):
            began = time.process_time()
            outcome = run(case, path)
            seconds = time.process_time() - began
            print(
                f"{case.chip} {name}: {outcome.wrong or 'right'} after {outcome.interrupted} interruptions,"
                f" {seconds:.0f} s of CPU time, {path.stat().st_size:,} bytes",
                flush=True,
            )


if __name__ == "__main__":
    main()
