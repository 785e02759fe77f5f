"""Engines with some RAM, for tests: code at CODE, data at DATA, a bus that records accesses."""

from espwire.virtual.cpu.engine import Engine
from espwire.virtual.cpu.memory import CpuFault, Memory, Region

CODE, DATA, PERIPHERAL = 0x40100000, 0x3FFE8000, 0x60000000


class RecordingBus:
    """A peripheral bus with words at PERIPHERAL, which records all accesses."""

    def __init__(self):
        self.words, self.writes = {}, []

    def read(self, address):
        if address < PERIPHERAL:
            raise CpuFault("load from an unmapped address", address)
        return self.words.get(address, 0)

    def write(self, address, value):
        if address < PERIPHERAL:
            raise CpuFault("store to an unmapped address", address)
        self.writes.append((address, value))


def make_engine(isa, code, *, hooks=None, words_only=True):
    code_ram = Region(
        "code", CODE, bytearray(code) + bytearray(-len(code) % 4 + 64), words_only=words_only
    )
    rom = Region("rom", 0x40000000, bytearray(64), writable=False)
    memory = Memory([Region("data", DATA, bytearray(0x4000)), code_ram, rom], RecordingBus())
    return Engine(isa, memory, entry=CODE, hooks=hooks)
