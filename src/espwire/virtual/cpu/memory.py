"""Memory of an engine: RAM regions, with code in some of them, and a bus of peripherals for all other addresses.

As strict as the chips: bytes in memory for words only, writes to ROM and unmapped addresses fault. Unaligned accesses
and bytes of peripherals fault unless ``Memory`` allows them: they are faults of a stub, which must run everywhere, but
some cores do them and their ROMs use them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol


class CpuFault(Exception):
    """The program did something that crashes the chip. Not a ToolError: the virtual chip handles it."""

    def __init__(self, what: str, address: int, pc: int = 0) -> None:
        super().__init__(f"{what} at {address:#010x}")
        self.what, self.address, self.pc = what, address, pc


def find_cause(what: str) -> int:
    """RISC-V's number (mcause) of a fault (``CpuFault.what``).

    >>> find_cause("unaligned load"), find_cause("store to read-only memory"), find_cause("illegal instruction 0x0")
    (4, 7, 2)
    """
    starts = {
        "unaligned load": 4,
        "unaligned store": 6,
        "load": 5,
        "store": 7,
        "instruction fetch": 1,
        "code runs out": 1,
        "environment call": 11,
        "breakpoint": 3,
    }
    return next((cause for start, cause in starts.items() if what.startswith(start)), 2)


class Bus(Protocol):
    """All addresses outside RAM. Peripherals can only be accessed by words."""

    def read(self, address: int) -> int:
        """Read a word; CpuFault if the address is unmapped."""

    def write(self, address: int, value: int) -> None:
        """Write a word; CpuFault if the address is unmapped."""


@dataclass
class Region:
    """Memory from ``start`` on. ``words_only``: smaller accesses fault. Regions may share ``data``: one RAM on two buses.

    ``code`` False: instructions cannot be fetched from it.
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
    """Regions and the bus. The first region is the fast path (see engine.py), so it should hold the stack.

    ``ports`` and ``sinks`` are the fast path of the bus: functions that read and write the words at these addresses.
    ``unaligned``: the core loads and stores at any address. ``narrow``: bytes and half-words of peripherals can be accessed.
    ``stores`` counts stores outside the first region; ``code_changed`` is called when code was overwritten.
    """

    def __init__(
        self, regions: Iterable[Region], bus: Bus, *, unaligned: bool = False, narrow: bool = False
    ) -> None:
        self.regions = tuple(regions)
        self.bus = bus
        self.unaligned, self.narrow = unaligned, narrow
        self.peripheral_cycles = 20
        self.cycles = [0]  # shared with the engine; peripherals derive the time from it
        self.accesses = 0  # to peripherals
        self.stores = 0
        self.ports: dict[int, Callable[[], int]] = {}
        self.sinks: dict[int, Callable[[int], None]] = {}
        self.code_changed: Callable[[], None] = lambda: None
        self._code: set[int] = set()  # pieces of 256 bytes that were fetched

    def find(self, address: int) -> Region | None:
        """The region of an address."""
        for region in self.regions:
            if region.start <= address < region.end:
                return region
        return None

    def load(self, address: int, data: bytes) -> None:
        """Upload ``data``; CpuFault if it does not fit."""
        region = self.find(address)
        if region is None or address + len(data) > region.end:
            raise CpuFault("no memory for an upload", address)
        at = address - region.start
        region.data[at : at + len(data)] = data

    def fetch(self, address: int, size: int) -> bytes:
        """Up to ``size`` bytes of code, fewer at the end of a region. CpuFault if the address cannot hold code."""
        region = self.find(address)
        if region is None or not region.code:
            where = "nowhere" if region is None else region.name
            raise CpuFault(f"instruction fetch from {where}", address)
        at = address - region.start
        self._code.add(address >> 8)
        self._code.add(address + size - 1 >> 8)
        return bytes(region.data[at : at + size])

    def read(self, address: int, size: int) -> int:
        """A load of 1, 2 or 4 bytes outside the fast path."""
        port = self.ports.get(address)
        if port is not None and size == 4:
            self._count()
            return port()
        if address % size and not self.unaligned:
            raise CpuFault("unaligned load", address)
        region = self.find(address)
        if region is not None:
            if region.words_only and size < 4:
                raise CpuFault(
                    f"load of {size} bytes from memory that supports words only", address
                )
            at = address - region.start
            return int.from_bytes(region.data[at : at + size], "little")
        if size < 4:
            if not self.narrow or address % size:
                raise CpuFault(f"load of {size} bytes from a peripheral", address)
            return self.read(address & ~3, 4) >> 8 * (address & 3) & (1 << 8 * size) - 1
        if address % 4:
            raise CpuFault("unaligned load from a peripheral", address)
        self._count()
        return self.bus.read(address)

    def write(self, address: int, value: int, size: int) -> None:
        """A store of 1, 2 or 4 bytes outside the fast path."""
        sink = self.sinks.get(address)
        if sink is not None and size == 4:
            self._count()
            sink(value)
            return
        if address % size and not self.unaligned:
            raise CpuFault("unaligned store", address)
        region = self.find(address)
        if region is not None:
            if not region.writable:
                raise CpuFault("store to read-only memory", address)
            if region.words_only and size < 4:
                raise CpuFault(f"store of {size} bytes to memory that supports words only", address)
            at = address - region.start
            region.data[at : at + size] = value.to_bytes(size, "little")
            self.stores += 1
            if address >> 8 in self._code:
                self._code.clear()
                self.code_changed()
            return
        if size < 4:
            if not self.narrow or address % size:
                raise CpuFault(f"store of {size} bytes to a peripheral", address)
            shift, mask = 8 * (address & 3), (1 << 8 * size) - 1
            old = self.read(address & ~3, 4)
            self.write(address & ~3, old & ~(mask << shift) | value << shift, 4)
            return
        if address % 4:
            raise CpuFault("unaligned store to a peripheral", address)
        self._count()
        self.bus.write(address, value)

    def _count(self) -> None:
        self.accesses += 1
        self.cycles[0] += self.peripheral_cycles
