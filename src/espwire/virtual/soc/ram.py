"""The RAM of a virtual chip: the loader writes it, programs run in it. Chips whose banks no fact tells have pages."""

from __future__ import annotations

from espwire.chips.model import Chip
from espwire.virtual.cpu.memory import Region
from espwire.virtual.memory_map import find_soc

PAGE = 0x1000


class Ram:
    """Banks as the chip has them; outside of them sparse memory: pages come into being when written, all else is 0."""

    def __init__(self, chip: Chip) -> None:
        self._pages: dict[int, bytearray] = {}
        self._places: list[tuple[int, int, bytearray]] = []
        self.regions: list[Region] = []
        soc = find_soc(chip)
        for bank in soc.ram if soc is not None else ():
            data = bytearray(bank.end - bank.start)
            self._add(
                Region(bank.name, bank.start, data, words_only=bank.words_only, code=bank.code)
            )
            if bank.code_alias is not None:
                name = f"{bank.name} on the instruction bus"
                self._add(Region(name, bank.code_alias, data, words_only=True, code=True))

    def _add(self, region: Region) -> None:
        self.regions.append(region)
        self._places.append((region.start, region.end, region.data))

    def covers(self, address: int) -> bool:
        """Whether one of the banks is there."""
        return any(start <= address < end for start, end, _ in self._places)

    def write(self, address: int, data: bytes) -> None:
        """Store bytes."""
        view = memoryview(data)
        while view:
            bank, offset, room = self._find(address, create=True)
            size = min(room, len(view))
            assert bank is not None
            bank[offset : offset + size] = view[:size]
            address, view = address + size, view[size:]

    def read(self, address: int, size: int) -> bytes:
        """The bytes at an address."""
        out = bytearray()
        while len(out) < size:
            bank, offset, room = self._find(address + len(out), create=False)
            room = min(room, size - len(out))
            out += bank[offset : offset + room] if bank is not None else bytes(room)
        return bytes(out)

    def clear(self) -> None:
        """Forget all, as without power."""
        self._pages.clear()
        for _, _, data in self._places:
            data[:] = bytes(len(data))

    def _find(self, address: int, *, create: bool) -> tuple[bytearray | None, int, int]:
        """The memory that holds an address, the place in it, and how much follows there."""
        for start, end, data in self._places:
            if start <= address < end:
                return data, address - start, end - address
        number, offset = divmod(address, PAGE)
        if create:
            self._pages.setdefault(number, bytearray(PAGE))
        return self._pages.get(number), offset, PAGE - offset
