"""One seeded write to a virtual chip whose wire and supply misbehave, and what came of it. Judged in test_faults.py."""

from __future__ import annotations

import random
from dataclasses import dataclass
from itertools import product

from espwire.blob import Blob
from espwire.chips.registry import chip_ids, load_chip
from espwire.device.connect import connect
from espwire.errors import ToolError
from espwire.events import Event, Warned
from espwire.flash.findings import Policy
from espwire.flash.write import write_flash
from espwire.protocol import slip
from espwire.protocol.dialect import Md5Form
from espwire.protocol.opcodes import Op
from espwire.settings import Settings
from espwire.virtual.faults import BYTE_KINDS, KINDS, Faults, FaultSpec
from espwire.virtual.rom import Work
from espwire.virtual.transport import VirtualTransport, open_virtual

CELLS = tuple(product(chip_ids(), KINDS))
FLASH = 0x100000
FLASH_OPS = frozenset({Op.FLASH_BEGIN, Op.FLASH_DATA, Op.FLASH_DEFL_BEGIN, Op.FLASH_DEFL_DATA})
TRANSFERS = 2  # the write and one rewrite
RESTARTS = 30  # of one transfer: transfer.py


def time_bound(settings: Settings, size: int) -> float:
    """The longest that a write may take on the link's clock, from the stated time-outs.

    A restart costs at most one unanswered request, a resynchronisation of two rounds of SYNC and the next BEGIN.
    """
    timing = settings.timing
    per_restart = 4 * timing.default + timing.scaled(timing.erase_per_mb, size) + 1
    stalls = RESTARTS * 6  # the fault itself holds the wire for up to six seconds
    return TRANSFERS * RESTARTS * per_restart + stalls + 4 * timing.scaled(timing.md5_per_mb, size)


@dataclass(frozen=True)
class Outcome:
    """What one case came to. ``right``: the flash holds the payload. ``fooled``: see Witness."""

    chip: str
    kind: str
    error: ToolError | None
    right: bool
    unverified: bool
    fooled: bool
    fired: int
    seconds: float
    bound: float

    @property
    def false_success(self) -> bool:
        """Success was said, but the flash holds something else.

        The one excuse: a loader that can neither compute an MD5 nor read its flash has itself taken a damaged request
        for a good one (BEGIN has no checksum, a block's has eight bits), and the user is warned that nothing was
        verified. Nothing on this wire could tell.
        """
        return self.error is None and not self.right and not (self.unverified and self.fooled)


class Witness:
    """Listens at both ends: ``fooled`` once the ROM carries out a flash request that nobody sent like that."""

    def __init__(self, transport: VirtualTransport) -> None:
        self.fooled = False
        self._sent: set[bytes] = set()
        self._heard = b""
        self._decoder = slip.Decoder()
        rom = transport.chip.rom
        write, handle, answer = transport.write, rom.handle, rom._answer

        def watched_write(data: bytes, deadline: float) -> None:
            self._sent.update(self._decoder.feed(data))
            write(data, deadline)

        def watched_handle(t: float, frame: bytes) -> Work:
            self._heard = bytes(frame)
            return (yield from handle(t, frame))

        def watched_answer(size: int, error: int) -> None:
            if (
                not error
                and self._heard[1:2]
                and self._heard[1] in FLASH_OPS
                and self._heard not in self._sent
            ):
                self.fooled = True
            answer(size, error)

        vars(transport)["write"], vars(rom)["handle"], vars(rom)["_answer"] = (
            watched_write,
            watched_handle,
            watched_answer,
        )


def choose_spec(rng: random.Random, kind: str, traffic: int, *, early: bool) -> FaultSpec:
    """A schedule of one kind that will most likely fire in ``traffic`` bytes of a write; ``early``: surely."""
    if early:
        return FaultSpec(once={kind: rng.randint(1, 60 if kind in BYTE_KINDS else 1)})
    if kind in BYTE_KINDS:
        if rng.random() < 0.5:
            return FaultSpec(once={kind: rng.randint(1, traffic)})
        return FaultSpec(rates={kind: rng.choice((1e-4, 3e-4, 1e-3))})
    blocks = max(2, traffic // 0x400)
    if rng.random() < 0.5:
        return FaultSpec(once={kind: rng.randint(1, blocks)})
    return FaultSpec(rates={kind: rng.choice((0.02, 0.1, 0.3))})


def run_case(seed: int, chip: str, kind: str, *, early: bool) -> Outcome:
    """Connect undisturbed, then write a random payload under faults of one kind."""
    rng = random.Random(f"{seed} {chip} {kind}")
    transport = open_virtual(
        f"virtual:{chip}?size=1MB&seed={seed}&profile={rng.choice(('typ', 'fast', 'slow'))}"
    )
    contents = transport.chip.flash.contents
    contents[:] = rng.randbytes(FLASH)
    payload = rng.randbytes(rng.randint(0x200 if early else 1, 24 * 1024))
    if not early and rng.random() < 0.3:
        payload = payload[:64] * (len(payload) // 64 + 1)
    address = 0x1000 * rng.randint(0x10, 0xF0)
    events: list[Event] = []
    settings = Settings()
    device = connect(transport, settings=settings, stub=False)
    device.attach_flash()
    witness = Witness(transport)
    transport.chip.faults = Faults(choose_spec(rng, kind, len(payload) + 200, early=early), seed)
    began, error = transport.now(), None
    policy = Policy(compress=rng.choice((None, False)), force=True)
    try:
        write_flash(
            device, [Blob(address, payload, "payload")], policy=policy, report=events.append
        )
    except ToolError as caught:
        error = caught
    return Outcome(
        chip=chip,
        kind=kind,
        error=error,
        right=bytes(contents[address : address + len(payload)]) == payload,
        unverified=any(
            isinstance(event, Warned) and event.code == "unverified" for event in events
        ),
        fooled=witness.fooled,
        fired=len(transport.chip.faults.fired),
        seconds=transport.now() - began,
        bound=time_bound(settings, len(payload)),
    )


def run_cases(rounds: int, first_seed: int = 0) -> list[Outcome]:
    """``rounds`` times all cells of chip and kind, in the first round with a fault that is sure to come.

    Then as many cases again for the chips whose loader cannot verify: there the checks on the way are all there is.
    """
    blind = [cell for cell in CELLS if load_chip(cell[0]).rom.md5 is Md5Form.NONE]
    cells = list(CELLS) * rounds
    cells += blind * (len(cells) // len(blind))
    return [
        run_case(first_seed + at, *cell, early=at < len(CELLS)) for at, cell in enumerate(cells)
    ]
