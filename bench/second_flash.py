"""The second flash of a board: espwire writes what differs, esptool 5.6.0 writes everything. Simulated time; no test.

Both run on the same virtual chip with the flash profile typ, which holds the first build; the times are of whole commands,
from the reset on, without Python's start. espwire uses its default stub's model, esptool_model.py is the peer. The pairs
of builds are from ESPWIRE_FIRMWARE, or a collection of firmware next to this project; without it, they are made up.
"""

from __future__ import annotations

import os
import random
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from esptool_model import Esptool
from espwire.blob import Blob
from espwire.device.connect import connect
from espwire.device.loader import BITS_PER_BYTE
from espwire.events import ChipFound, Event, Finished, PlanReady, StubStarted
from espwire.flash.journal import Journal
from espwire.flash.last_written import digest_sectors
from espwire.flash.model import BLANK
from espwire.flash.write import write_flash
from espwire.sizes import SECTOR
from espwire.virtual.transport import open_virtual
from stub_speed import BASE, COLLECTION

QUERY = "size=4MB&profile=typ&latency=0.001"
UNCHANGED_BYTES = 1_500_000
UNCHANGED_GOAL_S = 0.6
PAIRS = {
    "marauder": ("esp32", "marauder_v1.12.3_a_log.bin", "marauder_v1.12.3_b_visible.bin"),
    "MicroPython": ("esp32c3", "mpy_GENERIC_C3_2023-04-22.bin", "mpy_GENERIC_C3_2023-04-26.bin"),
    "WLED": ("esp32", "wled_ESP32_2025-03-27.bin", "wled_ESP32_2025-03-29.bin"),
}


@dataclass(frozen=True)
class Case:
    """Two builds for a chip; ``goal``: how many times faster than the peer, or None."""

    name: str
    chip: str
    baud: int
    before: bytes
    after: bytes
    goal: float | None = None


@dataclass
class Terms:
    """When something was complete, in seconds. ``stub_size``: bytes that were uploaded."""

    marks: list[tuple[str, float]] = field(default_factory=list)
    stub_size: int = 0

    def note(self, event: Event, now: float) -> None:
        """Note the events that end a part of the command."""
        if isinstance(event, StubStarted):
            self.stub_size = event.size
        names = {
            ChipFound: "reset and identification",
            StubStarted: "stub",
            PlanReady: "comparison",
        }
        if isinstance(event, Finished) and event.task == "verify":
            self.marks.append(("write and MD5", now))
        elif (name := names.get(type(event))) is not None:
            self.marks.append((name, now))

    def describe(self, baud: int) -> str:
        """The parts in milliseconds, and how long the stub takes on the line alone."""
        begins = [0.0, *(at for _, at in self.marks)]
        parts = [
            f"{name} {1000 * (end - begin):.0f}"
            for (name, end), begin in zip(self.marks, begins, strict=False)
        ]
        line = 1000 * self.stub_size * BITS_PER_BYTE / baud
        return f"    ms: {', '.join(parts)}; bits of the stub on the line {line:.0f}"


def _made_up(size: int) -> bytes:
    pick, out = random.Random(5), bytearray()
    while len(out) < size:
        out += pick.randbytes(166) + bytes(90)
    return bytes(out[:size])


def _build(chip: str, name: str) -> bytes | None:
    path = Path(os.environ.get("ESPWIRE_FIRMWARE") or COLLECTION, chip, name)
    # without the magic byte: a merged image may not be written to 0x10000
    return b"\0" + path.read_bytes()[1:] if path.is_file() else None


def _collect() -> list[Case]:
    first = _build("esp32", PAIRS["marauder"][1]) or _made_up(UNCHANGED_BYTES)
    build = (first * 2)[:UNCHANGED_BYTES]
    changed = bytearray(build)
    for sector in (20, 200):
        changed[sector * SECTOR + 100] ^= 0xFF
    cases = [
        Case(f"{what}, 1.5 MB", chip, baud, build, bytes(after), goal)
        for chip in ("esp32", "esp32c3")
        for what, baud, after, goal in (
            ("unchanged", 921600, build, 10.0),
            ("2 changed sectors", 460800, changed, 20.0),
        )
    ]
    for name, (chip, old, new) in PAIRS.items():
        before, after = _build(chip, old), _build(chip, new)
        if before and after:
            cases.append(Case(f"{name}, two builds", chip, 921600, before, after))
    return cases


def ours(case: Case, folder: Path) -> tuple[float, float, int, Terms]:
    """Seconds of the command, seconds of them after connecting, sectors that were written, and the parts."""
    terms = Terms()

    def report(event: Event) -> None:
        terms.note(event, transport.now())

    transport = open_virtual(f"virtual:{case.chip}?{QUERY}")
    transport.chip.flash.contents[BASE : BASE + len(case.before)] = case.before
    journal = Journal(folder / "unfinished/board.json", case.chip)
    journal.last_written.write(digest_sectors(BASE, case.before + BLANK * SECTOR))
    with connect(transport, baud=case.baud, stub=True, report=report) as device:
        device.attach_flash()
        connected = transport.now()
        plan = write_flash(device, [Blob(BASE, case.after)], journal=journal, report=report)
        job = transport.now() - connected
        device.leave("hard-reset")
        terms.marks.append(("reset at the end", transport.now()))
    assert transport.chip.flash.contents[BASE : BASE + len(case.after)] == case.after
    written = sum(len(piece.data) for write in plan.writes for piece in write.pieces)
    return transport.now(), job, -(-written // SECTOR), terms


def theirs(case: Case) -> float:
    """Seconds of esptool's command, which writes everything."""
    esptool = Esptool.start(case.chip, QUERY, case.baud)
    esptool.transport.chip.flash.contents[BASE : BASE + len(case.before)] = case.before
    esptool.write(BASE, case.after)
    return esptool.now


def main() -> None:
    """Print times, ratios and goals."""
    print("second flash                         espwire  (job)   esptool   ratio")
    for case in _collect():
        with tempfile.TemporaryDirectory() as folder:
            took, job, sectors, terms = ours(case, Path(folder))
        other = theirs(case)
        ratio, goal = other / took, ""
        if case.goal is not None:
            goal = f"  goal >= {case.goal:.0f}{'' if ratio >= case.goal else ' MISSED'}"
        if case.before == case.after:
            late = ["" if seconds <= UNCHANGED_GOAL_S else " MISSED" for seconds in (took, job)]
            goal += f", command <= {UNCHANGED_GOAL_S} s{late[0]}, job{late[1]}"
        name = f"{case.name}, {case.chip}, {case.baud}"
        print(
            f"{name:<36} {took:6.2f} ({job:5.2f}) {other:8.2f} s {ratio:6.1f}   {sectors} sectors{goal}",
            flush=True,
        )
        print(terms.describe(case.baud), flush=True)


if __name__ == "__main__":
    main()
