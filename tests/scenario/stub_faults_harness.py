"""One seeded write or read through our stub on a wire that misbehaves; a host that dies. Judged in test_stub_faults.py.

The flash is watched: every program and every erase is written down, whoever asked for it.
"""

from __future__ import annotations

import random
import zlib
from dataclasses import dataclass

from faults_harness import choose_spec
from tests.conformance.killed_clients import CutLink, Killed

from espwire.device.connect import connect
from espwire.device.device import Device
from espwire.errors import ToolError
from espwire.flash.read import read_flash
from espwire.protocol.stub import Codec
from espwire.sizes import align_up
from espwire.virtual.config import parse_options
from espwire.virtual.faults import BYTE_KINDS, FRAME_KINDS, PIECE_KINDS, Faults
from espwire.virtual.nor_flash import NorFlash
from espwire.virtual.transport import VirtualTransport, open_virtual

KINDS = (*BYTE_KINDS, *PIECE_KINDS, *FRAME_KINDS)
JOBS = ("write", "read")
SECTOR, FLASH = 0x1000, 0x100000
BAUD = 921600
SECONDS = 400.0  # the longest that a job may take on the link's clock: 30 stalls of six seconds, and then the patience


class FlashWatch:
    """``ranges``: what was programmed or erased, as (start, end)."""

    def __init__(self, flash: NorFlash) -> None:
        self.ranges: list[tuple[int, int]] = []
        execute = flash.execute

        def watched(*arguments: object, **keywords: object) -> bytes:
            before = flash._running
            found = execute(*arguments, **keywords)  # type: ignore[arg-type]
            if flash._running is not before and flash._running is not None:
                self.ranges.append((flash._running.start, flash._running.end))
            return found

        vars(flash)["execute"] = watched

    def outside(self, start: int, end: int) -> list[tuple[int, int]]:
        """What touched something else."""
        return [(low, high) for low, high in self.ranges if low < start or high > end]


@dataclass(frozen=True)
class StubOutcome:
    """What one case came to. ``right``: the flash, or what was read, is as it should be."""

    seed: int
    port: str
    kind: str
    job: str
    error: ToolError | None
    right: bool
    outside: tuple[tuple[int, int], ...]
    changed: int
    fired: int
    seconds: float

    @property
    def false_success(self) -> bool:
        return self.error is None and not self.right


def open_stub(
    port: str, mode: str, seed: int, profile: str = "fast", baud: int = BAUD
) -> tuple[Device, VirtualTransport]:
    """A chip with our stub running, nothing disturbed yet; its flash full of noise."""
    transport = open_virtual(
        f"{port}&size=1MB&seed={seed}&profile={profile}&stub={mode}&latency=0.0005"
    )
    transport.chip.flash.contents[:] = random.Random(seed).randbytes(FLASH)
    device = connect(transport, stub=True, baud=baud)
    assert device.loader.dialect.capabilities is not None
    device.attach_flash()
    return device, transport


def make_payload(rng: random.Random, most: int) -> bytes:
    payload = rng.randbytes(rng.randint(1, most))
    kind = rng.randrange(4)
    if kind == 0:
        return payload[:50] * (len(payload) // 50 + 1)
    return payload[: len(payload) // 3] + b"\xff" * (len(payload) // 2) if kind == 1 else payload


def run_stub_case(
    seed: int, port: str, mode: str, kind: str, job: str, *, most: int = 12 * 1024
) -> StubOutcome:
    """Connect undisturbed, then one job under faults of one kind."""
    rng = random.Random(f"{seed} {parse_options(port).chip} {kind} {job}")
    device, transport = open_stub(
        port, mode, seed, rng.choice(("typ", "fast")) if mode == "twin" else "fast"
    )
    flash, payload = transport.chip.flash, make_payload(rng, most)
    address = SECTOR * rng.randint(0x10, 0xE0)
    before = bytes(flash.contents)
    watch = FlashWatch(flash)
    transport.chip.faults = Faults(
        choose_spec(rng, kind, len(payload) + 200, early=rng.random() < 0.2), seed
    )
    began, error, right = transport.now(), None, False
    end = address + align_up(len(payload), SECTOR) if job == "write" else address
    try:
        if job == "write":
            whole = payload.ljust(align_up(len(payload), 4), b"\xff")
            form = device.backend.limits.lzma
            codec = rng.choice((None, Codec.RAW, Codec.ZLIB, *((form.codec,) if form else ())))
            packed = None if codec is None else zlib.compress(whole, 9)
            device.backend.write(address, payload, packed=packed, codec=codec)
            right = bytes(flash.contents[address : address + len(payload)]) == payload
        else:
            found = read_flash(device, address, len(payload))
            right = found == before[address : address + len(payload)]
    except ToolError as caught:
        error = caught
    right = (
        right
        and flash.contents[:address] == before[:address]
        and flash.contents[end:] == before[end:]
    )
    return StubOutcome(
        seed=seed,
        port=port,
        kind=kind,
        job=job,
        error=error,
        right=right,
        outside=tuple(watch.outside(address, end)),
        changed=len(watch.ranges),
        fired=len(transport.chip.faults.fired),
        seconds=transport.now() - began,
    )


def run_stub_cases(
    count: int, mode: str, ports: tuple[str, ...], first: int = 0, most: int = 12 * 1024
) -> list[StubOutcome]:
    """So many cases, over all kinds, jobs and ports in turn."""
    each = len(KINDS) * len(JOBS)  # cases of a port in a row
    return [
        run_stub_case(
            first + i,
            ports[i // each % len(ports)],
            mode,
            KINDS[i % len(KINDS)],
            JOBS[i // len(KINDS) % 2],
            most=most,
        )
        for i in range(count)
    ]


@dataclass(frozen=True)
class Recovery:
    """What came of the client after one that was killed. ``where``: after how many bytes it died."""

    port: str
    where: int
    before: str
    error: ToolError | None
    right: bool
    outside: tuple[tuple[int, int], ...]
    seconds: float


def kill_and_recover(seed: int, port: str, mode: str) -> Recovery:
    """A client dies in mid-frame; the next one connects, with a reset or without, writes and reads."""
    rng = random.Random(f"kill {seed} {parse_options(port).chip}")
    where, before = rng.randrange(1, 9000), rng.choice(("default-reset", "no-reset"))
    baud = (
        BAUD if before == "default-reset" else 115200
    )  # what runs at another rate only a reset brings back
    device, transport = open_stub(port, mode, seed, baud=baud)
    data = rng.randbytes(6000)
    watch, address = FlashWatch(transport.chip.flash), SECTOR * rng.randint(0x10, 0xE0)
    cut = CutLink(transport, where)
    device.loader.transport = cut
    try:
        device.backend.write(address, data)
        while True:
            read_flash(device, address, len(data))
    except Killed:
        transport.sleep(rng.choice((0.0, 0.01, 1.0)))
    began, error, right = transport.now(), None, False
    transport.set_baud(transport.chip.chip.uart.rom_baud)  # as whoever opens a port does
    try:
        again = connect(transport, before=before, stub=True, baud=baud)  # type: ignore[arg-type]
        again.attach_flash()
        again.backend.write(address, data[::-1])
        right = read_flash(again, address, len(data)) == data[::-1]
    except ToolError as caught:
        error = caught
    outside = tuple(watch.outside(address, address + align_up(len(data), SECTOR)))
    return Recovery(port, where, before, error, right, outside, transport.now() - began)
