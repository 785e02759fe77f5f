"""One seeded write to a flash that holds something already, perhaps interrupted and repeated: test_needed_writes.py."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import count
from pathlib import Path

import pytest

from espwire.blob import Blob
from espwire.chips.registry import load_chip
from espwire.device.connect import connect
from espwire.errors import TransportLost
from espwire.events import Event, Finished
from espwire.flash.findings import Policy
from espwire.flash.journal import Journal
from espwire.flash.model import Plan
from espwire.flash.prepare import cut_gaps
from espwire.flash.write import write_flash
from espwire.protocol.opcodes import WRITE_ENABLE
from espwire.secure.flash_encryption import encrypt_esp32, encrypt_xts
from espwire.sizes import SECTOR, Ranges, align_down, align_up
from espwire.virtual.transport import VirtualTransport, open_virtual

FLASH = 0x100000
MAX_SECTORS = 12  # of a file
BLANK = b"\xff"
KEY = bytes(range(32))
POLICIES = (
    "",
    "no-diff",
    "no-keep",
    "keep-gaps",
    "erase",
    "erase-all",
    "diff-with",
    "skip-flashed",
)
MODES = {
    "": "",
    "encrypted": f"&flash-encryption=1&flash-key={KEY.hex()}",
    "plain on encrypted": f"&flash-encryption=1&flash-key={KEY.hex()}",
    "secure download": "&secure-download=1",
}


class Interrupted(TransportLost):
    """The cable was pulled, or the supply failed."""


@dataclass(frozen=True)
class Case:
    """What is in flash, and what is to be written.

    ``interrupt``: None, ``cable`` or ``power``. ``policy``: one of POLICIES. ``mode``: of the chip, one of MODES.
    ``erased``: half-open ranges that are erased first.
    """

    chip: str
    stub: bool
    interrupt: str | None
    before: bytes
    blobs: tuple[Blob, ...]
    seed: int
    policy: str = ""
    mode: str = ""
    erased: Ranges = ()

    @property
    def keeps(self) -> bool:
        """Whether what shares a sector with a file is kept."""
        readable = not self.mode and (self.stub or load_chip(self.chip).id != "esp8266")
        return readable and self.policy != "no-keep"

    @property
    def wanted(self) -> bytes:
        """The flash content afterwards."""
        flash = bytearray(self.before)
        for low, high in ((0, FLASH),) if self.policy == "erase-all" else self.erased:
            flash[low:high] = BLANK * (high - low)
            if self.erased and not self.stub and self.chip == "esp8266":
                end = find_erased_end(high - low, low)
                flash[high:end] = BLANK * (end - high)
        for blob in self.blobs:
            first, end = align_down(blob.address, SECTOR), align_up(blob.end, SECTOR)
            content = encrypt(self.chip, blob) if blob.encrypted else blob.data
            for at in range(first, end, SECTOR):
                low, high = max(at, blob.address), min(at + SECTOR, blob.end)
                data = blob.data[low - blob.address : high - blob.address]
                if self.policy == "keep-gaps" and data == BLANK * SECTOR:
                    continue
                if not self.keeps:
                    flash[at : at + SECTOR] = BLANK * SECTOR
                flash[low:high] = content[low - blob.address : high - blob.address]
            if not self.stub and self.chip == "esp8266":  # its ROM erases a sector too many
                behind = find_erased_end(end - first, first) - end
                flash[end : end + behind] = BLANK * behind
        return bytes(flash)

    def is_right(self, flash: bytes, at: int) -> bool:
        """Whether the sector at ``at`` is as wanted. Behind encrypted data it may hold the ciphertext of padding."""
        wanted = self.wanted
        for blob in self.blobs if self.mode == "encrypted" else ():
            low, high = max(at, blob.address), min(at + SECTOR, blob.end)
            if low < high:
                return flash[low:high] == wanted[low:high]
        return flash[at : at + SECTOR] == wanted[at : at + SECTOR]

    @property
    def shared(self) -> set[int]:
        """The sectors that a file does not fill."""
        borders = (border for blob in self.blobs for border in (blob.address, blob.end))
        return {align_down(border, SECTOR) for border in borders if border % SECTOR}

    @property
    def sectors(self) -> int:
        """Sectors that differ from what is wanted."""
        wanted = self.wanted
        return sum(
            self.before[at : at + SECTOR] != wanted[at : at + SECTOR]
            for at in range(0, FLASH, SECTOR)
        )


def encrypt(chip: str, blob: Blob) -> bytes:
    """What a chip with KEY stores."""
    size = len(blob.data)
    padded = blob.data.ljust(align_up(size, 32), BLANK)
    if chip == "esp32":
        return encrypt_esp32(padded, blob.address, KEY, 15)[:size]
    return encrypt_xts(padded, blob.address, KEY)[:size]


def find_erased_end(size: int, start: int) -> int:
    """Where the ESP8266's ROM stops erasing: it erases the sectors up to the end of the first block twice over."""
    sectors, first = size // SECTOR, start // SECTOR
    head = min(16 - first % 16, sectors)
    sent = (sectors + 1) // 2 if sectors < 2 * head else sectors - head
    return start + (sent + min(head, sent)) * SECTOR


def make_case(
    seed: int,
    chip: str,
    *,
    stub: bool,
    interrupt: str | None = None,
    policy: str = "",
    mode: str = "",
) -> Case:
    """Files at random places, in a flash that holds some of them, others, or nothing."""
    if policy == "keep-gaps" and not stub and chip == "esp8266":
        policy = ""  # a file in pieces makes its ROM erase more
    if policy == "erase-all" and mode == "secure download":
        policy = ""  # the flash size is unknown
    rng = random.Random(f"{seed} {chip} {stub}{policy}{mode}")
    flash = bytearray(rng.choice((BLANK * FLASH, rng.randbytes(FLASH))))
    blobs, at, ends = [], rng.randrange(16), list[int]()
    encrypted = mode == "encrypted"
    for number in range(rng.randint(1, 3)):
        size = rng.randint(1, MAX_SECTORS * SECTOR)
        offset = rng.choice((0, 0, rng.randrange(SECTOR)))
        address = at * SECTOR + (offset & -32 if encrypted else offset)
        data = bytearray(rng.randbytes(size))
        for _ in range(rng.randrange(3)):  # blank stretches
            start = rng.randrange(size)
            data[start : start + 2 * SECTOR] = BLANK * len(data[start : start + 2 * SECTOR])
        old = bytearray(data)
        for _ in range(rng.choice((0, 0, 1, 3))):
            old[rng.randrange(size)] ^= 1 << rng.randrange(8)
        if rng.random() < 0.7:
            flash[address : address + size] = old
        previous = bytes(old) if policy == "diff-with" else None
        blobs.append(Blob(address, bytes(data), f"{number}.bin", encrypted, previous))
        ends += [align_down(address, SECTOR), align_up(address + size, SECTOR)]
        at = align_up(address + size, SECTOR) // SECTOR + rng.randrange(4)
        if not stub and chip == "esp8266":
            at += MAX_SECTORS + 2  # clear of what its ROM erases
    erased: Ranges = ()
    if policy == "erase":
        low = max(rng.choice(ends) - SECTOR * rng.randrange(3), 0)
        erased = ((low, low + SECTOR * rng.randint(1, 4)),)
    return Case(chip, stub, interrupt, bytes(flash), tuple(blobs), seed, policy, mode, erased)


def open_flash(case: Case, contents: bytes, weak: set[int]) -> VirtualTransport:
    query = f"size=1MB&seed={case.seed}&profile=typ{MODES[case.mode]}"
    if case.mode == "encrypted" and case.chip == "esp32":
        query += "&flash-crypt-config=15"
    transport = open_virtual(f"virtual:{case.chip}?{query}")
    flash = transport.chip.flash
    flash.contents[:] = contents
    flash._weak = set(weak)
    return transport


def write(case: Case, transport: VirtualTransport, journal: Journal, events: list[Event]) -> Plan:
    device = connect(transport, baud=921600 if case.stub else 115200, stub=case.stub)
    policy = Policy(
        keep=case.policy != "no-keep",
        diff=case.policy != "no-diff",
        skip_flashed=case.policy == "skip-flashed",
        erase=case.erased,
        erase_all=case.policy == "erase-all",
        consents=frozenset({"neighbours"}),
        force=True,
    )
    blobs = cut_gaps(case.blobs) if case.policy == "keep-gaps" else case.blobs
    return write_flash(device, blobs, policy=policy, journal=journal, report=events.append)


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
    other = Journal(journal.path.with_name("other.json"), "board")
    for record in (other.last_written, journal.last_written):
        record.forget()  # of another case: both runs are to plan the same
    write(case, transport, other, [])
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
