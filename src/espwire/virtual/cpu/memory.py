"""The address space of an engine: RAM regions, code among them, and a bus of peripherals for all else. No CPU here.

Strict, as the chips are: alignment, bytes in memory that only takes words, writes to ROM and unmapped addresses raise.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol


class CpuFault(Exception):
    """The program did what the chip would not survive. Not a ToolError: the virtual chip turns it into a crash."""

    def __init__(self, what: str, address: int, pc: int = 0) -> None:
        super().__init__(f"{what} at {address:#010x}")
        self.what, self.address, self.pc = what, address, pc


class Bus(Protocol):
    """What answers where no RAM is. Words only: a peripheral does not take less."""

    def read(self, address: int) -> int:
        """The word at ``address``; CpuFault where nothing is."""

    def write(self, address: int, value: int) -> None:
        """Write a word; CpuFault where nothing is."""


@dataclass
class Region:
    """Memory from ``start``. ``words_only``: less than a word faults. Two may share ``data``: two buses, one RAM.

    ``code`` False: no instruction can be fetched there.
    """

    name: str
    start: int
    data: bytearray = field(repr=False)
    writable: bool = True
    words_only: bool = False
    code: bool = True

    @property
    def end(self) -> int:
        """One past the last address."""
        return self.start + len(self.data)


class Memory:
    """Regions and the bus behind them; the first region is the fast one (see engine.py): put the stack there.

    ``ports`` and ``sinks`` are the bus's quick way: words at these addresses are read and written by these functions.
    ``stores`` counts stores that are not in the first region; ``code_changed`` is called when code was stored to.
    """

    def __init__(self, regions: Iterable[Region], bus: Bus) -> None:
        self.regions = tuple(regions)
        self.bus = bus
        self.peripheral_cycles = 20
        self.cycles = [0]  # shared with the engine, and read by peripherals: what time it is
        self.accesses = 0  # to peripherals
        self.stores = 0
        self.ports: dict[int, Callable[[], int]] = {}
        self.sinks: dict[int, Callable[[int], None]] = {}
        self.code_changed: Callable[[], None] = lambda: None
        self._code: set[int] = set()  # what was fetched, in pieces of 256 bytes

    def find(self, address: int) -> Region | None:
        """The region that holds ``address``."""
        for region in self.regions:
            if region.start <= address < region.end:
                return region
        return None

    def load(self, address: int, data: bytes) -> None:
        """Put ``data`` there, as an upload does; CpuFault where it does not fit."""
        region = self.find(address)
        if region is None or address + len(data) > region.end:
            raise CpuFault("no memory for an upload", address)
        at = address - region.start
        region.data[at : at + len(data)] = data

    def fetch(self, address: int, size: int) -> bytes:
        """Up to ``size`` bytes of code; fewer at the end of a region. CpuFault where no code can be."""
        region = self.find(address)
        if region is None or not region.code:
            where = "nowhere" if region is None else region.name
            raise CpuFault(f"instruction fetch from {where}", address)
        at = address - region.start
        self._code.add(address >> 8)
        self._code.add(address + size - 1 >> 8)
        return bytes(region.data[at : at + size])

    def read(self, address: int, size: int) -> int:
        """A load of 1, 2 or 4 bytes that the fast path did not serve."""
        port = self.ports.get(address)
        if port is not None and size == 4:
            self.accesses += 1
            self.cycles[0] += self.peripheral_cycles
            return port()
        if address % size:
            raise CpuFault("unaligned load", address)
        region = self.find(address)
        if region is not None:
            if region.words_only and size < 4:
                raise CpuFault(f"load of {size} bytes from memory that takes words only", address)
            at = address - region.start
            return int.from_bytes(region.data[at : at + size], "little")
        if size < 4:
            raise CpuFault(f"load of {size} bytes from a peripheral", address)
        self._count()
        return self.bus.read(address)

    def write(self, address: int, value: int, size: int) -> None:
        """A store of 1, 2 or 4 bytes that the fast path did not serve."""
        sink = self.sinks.get(address)
        if sink is not None and size == 4:
            self.accesses += 1
            self.cycles[0] += self.peripheral_cycles
            sink(value)
            return
        if address % size:
            raise CpuFault("unaligned store", address)
        region = self.find(address)
        if region is not None:
            if not region.writable:
                raise CpuFault("store to read-only memory", address)
            if region.words_only and size < 4:
                raise CpuFault(f"store of {size} bytes to memory that takes words only", address)
            at = address - region.start
            region.data[at : at + size] = value.to_bytes(size, "little")
            self.stores += 1
            if address >> 8 in self._code:
                self._code.clear()
                self.code_changed()
            return
        if size < 4:
            raise CpuFault(f"store of {size} bytes to a peripheral", address)
        self._count()
        self.bus.write(address, value)

    def _count(self) -> None:
        self.accesses += 1
        self.cycles[0] += self.peripheral_cycles
