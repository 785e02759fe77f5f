"""One seeded write to a flash that holds something already, perhaps interrupted and repeated: test_needed_writes.py."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from espwire.blob import Blob
from espwire.device.connect import connect
from espwire.errors import TransportLost
from espwire.events import Event, Finished
from espwire.flash.findings import Policy
from espwire.flash.journal import Journal
from espwire.flash.model import Plan
from espwire.flash.write import write_flash
from espwire.protocol.opcodes import WRITE_ENABLE
from espwire.sizes import SECTOR, align_down, align_up
from espwire.virtual.transport import VirtualTransport, open_virtual

FLASH = 0x100000
MAX_SECTORS = 12  # of a file


class Interrupted(TransportLost):
    """The cable was pulled, or the supply failed."""


@dataclass(frozen=True)
class Case:
    """What is in flash, and what is to be written. ``interrupt``: None, ``cable`` or ``power``."""

    chip: str
    stub: bool
    keep: bool
    interrupt: str | None
    before: bytes
    blobs: tuple[Blob, ...]
    seed: int

    @property
    def wanted(self) -> bytes:
        """The flash content afterwards."""
        flash = bytearray(self.before)
        for blob in self.blobs:
            if not self.keep:
                first, end = align_down(blob.address, SECTOR), align_up(blob.end, SECTOR)
                flash[first:end] = b"\xff" * (end - first)
            flash[blob.address : blob.end] = blob.data
        return bytes(flash)

    @property
    def shared(self) -> set[int]:
        """The sectors that a file does not fill."""
        borders = (border for blob in self.blobs for border in (blob.address, blob.end))
        return {align_down(border, SECTOR) for border in borders if border % SECTOR}

    @property
    def sectors(self) -> int:
        """Sectors that differ from what is wanted."""
        return sum(
            self.before[at : at + SECTOR] != self.wanted[at : at + SECTOR]
            for at in range(0, FLASH, SECTOR)
        )


def make_case(
    seed: int, chip: str, *, stub: bool, keep: bool = True, interrupt: str | None = None
) -> Case:
    """Files at random places, in a flash that holds some of them, others, or nothing."""
    rng = random.Random(f"{seed} {chip} {stub}")
    flash = bytearray(rng.choice((b"\xff" * FLASH, rng.randbytes(FLASH))))
    blobs, at = [], rng.randrange(16)
    for number in range(rng.randint(1, 3)):
        size = rng.randint(1, MAX_SECTORS * SECTOR)
        address = at * SECTOR + rng.choice((0, 0, rng.randrange(SECTOR)))
        data = bytearray(rng.randbytes(size))
        for _ in range(rng.randrange(3)):  # blank stretches
            start = rng.randrange(size)
            data[start : start + 2 * SECTOR] = b"\xff" * len(data[start : start + 2 * SECTOR])
        blobs.append(Blob(address, bytes(data), f"{number}.bin"))
        old = bytearray(data)
        for _ in range(rng.choice((0, 0, 1, 3))):
            old[rng.randrange(size)] ^= 1 << rng.randrange(8)
        if rng.random() < 0.7:
            flash[address : address + size] = old
        at = align_up(address + size, SECTOR) // SECTOR + rng.randrange(4)
    return Case(chip, stub, keep, interrupt, bytes(flash), tuple(blobs), seed)


def open_flash(case: Case, contents: bytes, weak: set[int]) -> VirtualTransport:
    transport = open_virtual(f"virtual:{case.chip}?size=1MB&seed={case.seed}&profile=typ")
    flash = transport.chip.flash
    flash.contents[:] = contents
    flash._weak = set(weak)
    return transport


def write(case: Case, transport: VirtualTransport, journal: Journal, events: list[Event]) -> Plan:
    device = connect(transport, baud=921600 if case.stub else 115200, stub=case.stub)
    policy = Policy(keep=case.keep, consents=frozenset({"neighbours"}), force=True)
    return write_flash(device, case.blobs, policy=policy, journal=journal, report=events.append)


@dataclass(frozen=True)
class Change:
    """An erase or program command to the flash chip. ``at``: seconds."""

    number: int
    at: float
    sector: int
    erases: bool


def watch_changes(transport: VirtualTransport, on_change: Callable[[Change], None]) -> None:
    """Call ``on_change`` with each erase and program command, once it has begun."""
    flash, numbers = transport.chip.flash, count()
    execute, enabled = flash.execute, False

    def watched(t: float, opcode: int, *, address: int = 0, **more: object) -> bytes:
        nonlocal enabled
        changes, enabled = enabled, opcode == WRITE_ENABLE
        result = execute(t, opcode, address=address, **more)  # type: ignore[arg-type]
        if changes:
            erases = not more.get("data")
            on_change(Change(next(numbers), t, align_down(address, SECTOR), erases))
        return result

    vars(flash)["execute"] = watched


def pick_change(case: Case, changes: list[Change]) -> int:
    """Which change to interrupt: half the time one in a sector that a file shares with other data, often an erase."""
    rng = random.Random(case.seed)
    some = [change for change in changes if change.sector in case.shared]
    if not some or rng.random() < 0.5:
        some = changes
    erases = [change for change in some if change.erases]
    return rng.choice(erases if erases and rng.random() < 0.5 else some).number


def write_interrupted(case: Case, journal: Journal) -> VirtualTransport:
    """A write that ends at one of its changes: the cable is pulled, or the supply fails before the change is complete."""
    changes: list[Change] = []
    transport = open_flash(case, case.before, set())
    watch_changes(transport, changes.append)
    write(case, transport, Journal(journal.path.with_name("other.json"), "board"), [])
    if not changes:
        return transport
    last = pick_change(case, changes)
    transport = open_flash(case, case.before, set())
    flash = transport.chip.flash

    def interrupt(change: Change) -> None:
        if change.number == last:
            if case.interrupt == "power":
                flash.power_loss(random.Random(case.seed).uniform(change.at, flash.busy_until))
            raise Interrupted(f"{case.interrupt} lost")

    watch_changes(transport, interrupt)
    with pytest.raises(Interrupted):
        write(case, transport, journal, [])
    flash.busy_until = float("-inf")  # until the next run, whatever was running has ended
    return transport


def run(case: Case, folder: Path) -> tuple[bytes, Plan, list[Event]]:
    """The flash after the write; after an interruption, after the same write once more and some time."""
    journal, events = Journal(folder / f"unfinished/{case.seed}.json", "board"), list[Event]()
    if case.interrupt is None:
        transport = open_flash(case, case.before, set())
    else:
        flash = write_interrupted(case, journal).chip.flash
        transport = open_flash(case, bytes(flash.contents), flash._weak)
    plan = write(case, transport, journal, events)
    transport.chip.flash.decay()
    assert not journal.path.exists()
    return bytes(transport.chip.flash.contents), plan, events


def count_written(events: list[Event]) -> int:
    """Bytes that were sent to be programmed."""
    return sum(
        event.size if event.written is None else event.written
        for event in events
        if isinstance(event, Finished) and event.task == "write"
    )
