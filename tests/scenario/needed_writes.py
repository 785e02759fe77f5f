"""One seeded write to a flash that holds something already, perhaps interrupted and repeated: test_needed_writes.py."""

from __future__ import annotations

import contextlib
import random
from dataclasses import dataclass
from pathlib import Path

from espwire.blob import Blob
from espwire.device.connect import connect
from espwire.errors import ToolError, TransportLost
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


def interrupt(transport: VirtualTransport, at: float, kind: str) -> None:
    """From the simulated time ``at`` on, the line is dead; without power, so is the chip."""
    done = False

    def check() -> None:
        nonlocal done
        if not done and transport.now() < at:
            return
        if not done and kind == "power":
            transport.chip.power_loss(transport.now())
        done = True
        raise Interrupted("the cable was pulled")

    for name in ("write", "read"):
        method = getattr(transport, name)

        def watched(*arguments: object, method: object = method) -> object:
            check()
            result = method(*arguments)  # type: ignore[operator]
            check()
            return result

        vars(transport)[name] = watched


def watch_changes(transport: VirtualTransport) -> list[float]:
    """The times at which the flash chip is told to change something, as they come."""
    times: list[float] = []
    flash = transport.chip.flash
    execute = flash.execute

    def watched(t: float, opcode: int, **more: object) -> bytes:
        if opcode == WRITE_ENABLE:
            times.append(t)
        return execute(t, opcode, **more)  # type: ignore[arg-type]

    vars(flash)["execute"] = watched
    return times


def run(case: Case, folder: Path) -> tuple[bytes, Plan, list[Event]]:
    """The flash after the write; after an interruption, after the same write once more and some time."""
    journal, events = Journal(folder / f"{case.seed}.json", "board"), list[Event]()
    transport = open_flash(case, case.before, set())
    if case.interrupt is None:
        plan = write(case, transport, journal, events)
        return bytes(transport.chip.flash.contents), plan, events
    began = watch_changes(transport)
    write(case, transport, Journal(folder / "other.json", "board"), [])
    ended = transport.now()
    transport = open_flash(case, case.before, set())
    rng = random.Random(case.seed)
    first = began[0] if began else 0.0
    interrupt(transport, rng.uniform(first, max(began[-1:], default=ended)), case.interrupt)
    with contextlib.suppress(ToolError):
        write(case, transport, journal, [])
    flash = transport.chip.flash
    if case.interrupt == "cable":
        flash.busy_until = float("-inf")  # until the next run, whatever was running has ended
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
