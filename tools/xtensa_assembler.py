"""A small assembler for Xtensa cores with register windows, for tests: Debian's assembles for the lx106 only.

Instructions are methods' names as in the manual, with registers and immediates as numbers and labels as text:

    code = Assembler(0x40080000)
    code("entry", 1, 32)
    code("movi", 10, 5)
    code("call8", "function")
    code.label("function")

``assemble()`` returns the bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

THREE = {  # name: op2, op1; operands r, s, t
    "and": (1, 0), "or": (2, 0), "xor": (3, 0), "add": (8, 0), "addx2": (9, 0), "addx4": (10, 0), "addx8": (11, 0),
    "sub": (12, 0), "subx2": (13, 0), "subx4": (14, 0), "subx8": (15, 0), "src": (8, 1), "mul16u": (12, 1), "mul16s": (13, 1),
    "saltu": (6, 2), "salt": (7, 2), "mull": (8, 2), "muluh": (10, 2), "mulsh": (11, 2),
    "quou": (12, 2), "quos": (13, 2), "remu": (14, 2), "rems": (15, 2),
    "min": (4, 3), "max": (5, 3), "minu": (6, 3), "maxu": (7, 3),
    "moveqz": (8, 3), "movnez": (9, 3), "movltz": (10, 3), "movgez": (11, 3),
}  # fmt: skip
PLAIN = {
    "ill": 0x000000, "ret": 0x000080, "retw": 0x000090, "isync": 0x002000, "rsync": 0x002010, "esync": 0x002020, "dsync": 0x002030,
    "memw": 0x0020C0, "nop": 0x0020F0, "rfe": 0x003000, "rfwo": 0x003400, "rfwu": 0x003500, "syscall": 0x005000, "simcall": 0x005100,
}  # fmt: skip
NARROW = {"ret.n": 0xF00D, "retw.n": 0xF01D, "nop.n": 0xF03D}
MEMORY = {  # r, bytes
    "l8ui": (0, 1), "l16ui": (1, 2), "l32i": (2, 4), "s8i": (4, 1), "s16i": (5, 2), "s32i": (6, 4), "l16si": (9, 2),
    "l32ai": (11, 4), "s32c1i": (14, 4), "s32ri": (15, 4),
}  # fmt: skip
BRANCHES = {
    "bnone": 0, "beq": 1, "blt": 2, "bltu": 3, "ball": 4, "bbc": 5,
    "bany": 8, "bne": 9, "bge": 10, "bgeu": 11, "bnall": 12, "bbs": 13,
}  # fmt: skip
BRANCHES_ON_ZERO = {"beqz": 0, "bnez": 1, "bltz": 2, "bgez": 3}
LOOPS = {"loop": 8, "loopnez": 9, "loopgtz": 10}
CALLS = {"call0": 0, "call4": 1, "call8": 2, "call12": 3}
INDIRECT = {"callx0": 0, "callx4": 1, "callx8": 2, "callx12": 3}
SHIFT_AMOUNTS = {"ssr": 0, "ssl": 1, "ssa8l": 2, "ssa8b": 3}
SPECIAL = {"rsr": (0, 3), "wsr": (1, 3), "xsr": (6, 1)}

Operand = int | str


def _word(op2: int, op1: int, r: int, s: int, t: int) -> int:
    return op2 << 20 | op1 << 16 | r << 12 | s << 8 | t << 4


class Assembler:
    """Code from ``start`` on."""

    def __init__(self, start: int) -> None:
        self.start = start
        self._items: list[
            tuple[int, Callable[[], bytes]]
        ] = []  # address, bytes once labels are defined
        self.labels: dict[str, int] = {}
        self.pc = start

    def label(self, name: str) -> None:
        """Define a label here."""
        self.labels[name] = self.pc

    def align(self, size: int = 4) -> None:
        """Go on at a multiple of ``size``."""
        self.data(bytes(-self.pc % size))

    def org(self, address: int) -> None:
        """Go on at an address."""
        self.data(bytes(address - self.pc))

    def data(self, content: bytes) -> None:
        """Bytes as they are."""
        self._items.append((self.pc, lambda: content))
        self.pc += len(content)

    def word(self, value: Operand) -> None:
        """A word of data, which may be a label's address."""
        self._items.append((self.pc, lambda: struct.pack("<I", self._value(value))))
        self.pc += 4

    def __call__(self, name: str, *operands: Operand) -> None:
        """Append an instruction."""
        pc, size = self.pc, 2 if name.endswith(".n") else 3
        self._items.append((pc, lambda: struct.pack("<I", self._encode(name, pc, operands))[:size]))
        self.pc += size

    def assemble(self) -> bytes:
        """The bytes of everything so far."""
        return b"".join(make() for _, make in self._items)

    def _value(self, operand: Operand) -> int:
        return self.labels[operand] if isinstance(operand, str) else operand

    def _encode(self, name: str, pc: int, operands: tuple[Operand, ...]) -> int:
        if name in PLAIN | NARROW:
            return (PLAIN | NARROW)[name]
        values = [self._value(operand) for operand in operands]
        for table, encode in (
            (BRANCHES, self._branch),
            (BRANCHES_ON_ZERO, self._branch),
            (CALLS, self._call),
        ):
            if name in table:
                return encode(name, pc, values)
        if name in LOOPS:
            return (values[1] - pc - 4) << 16 | LOOPS[name] << 12 | values[0] << 8 | 0x76
        if name == "j":
            return (values[0] - pc - 4 & 0x3FFFF) << 6 | 6
        if name == "l32r":
            return (values[1] - (pc + 3 & ~3) >> 2 & 0xFFFF) << 8 | values[0] << 4 | 1
        return _encode_plain(name, *values)

    def _branch(self, name: str, pc: int, values: list[int]) -> int:
        distance = values[-1] - pc - 4
        if name in BRANCHES_ON_ZERO:
            return (distance & 0xFFF) << 12 | values[0] << 8 | BRANCHES_ON_ZERO[name] << 6 | 0x16
        if not -128 <= distance < 128:
            raise ValueError(f"branch by {distance}")
        return (distance & 0xFF) << 16 | BRANCHES[name] << 12 | values[0] << 8 | values[1] << 4 | 7

    def _call(self, name: str, pc: int, values: list[int]) -> int:
        return (values[0] - (pc & ~3) - 4 >> 2 & 0x3FFFF) << 6 | CALLS[name] << 4 | 5


def _encode_plain(name: str, *v: int) -> int:
    """Instructions without addresses."""
    if name in THREE:
        op2, op1 = THREE[name]
        return _word(op2, op1, v[0], v[1], v[2])
    if name in MEMORY:
        r, size = MEMORY[name]
        return v[2] // size << 16 | _word(0, 0, r, v[1], v[0]) | 2
    if name in SPECIAL:  # register, number
        op2, op1 = SPECIAL[name]
        return _word(op2, op1, 0, 0, v[0]) | v[1] << 8
    if name in INDIRECT:
        return _word(0, 0, 0, v[0], 12 | INDIRECT[name])
    if name in SHIFT_AMOUNTS:
        return _word(4, 0, SHIFT_AMOUNTS[name], v[0], 0)
    encode = _OTHERS[name]
    return encode(*v)


_OTHERS: dict[str, Callable[..., int]] = {
    "entry": lambda s, size: size >> 3 << 12 | s << 8 | 0x36,
    "movsp": lambda t, s: _word(0, 0, 1, s, t),
    "rotw": lambda n: _word(4, 0, 8, 0, n & 15),
    "l32e": lambda t, s, offset: _word(0, 9, (offset + 64) >> 2, s, t),
    "s32e": lambda t, s, offset: _word(4, 9, (offset + 64) >> 2, s, t),
    "mov": lambda r, s: _word(2, 0, r, s, s),
    "movi": lambda t, n: (n & 0xFF) << 16 | _word(0, 0, 10, n >> 8 & 15, t) | 2,
    "addi": lambda t, s, n: (n & 0xFF) << 16 | _word(0, 0, 12, s, t) | 2,
    "addmi": lambda t, s, n: (n >> 8 & 0xFF) << 16 | _word(0, 0, 13, s, t) | 2,
    "neg": lambda r, t: _word(6, 0, r, 0, t),
    "abs": lambda r, t: _word(6, 0, r, 1, t),
    "nsa": lambda t, s: _word(4, 0, 14, s, t),
    "nsau": lambda t, s: _word(4, 0, 15, s, t),
    "sext": lambda r, s, bit: _word(2, 3, r, s, bit - 7),
    "clamps": lambda r, s, bit: _word(3, 3, r, s, bit - 7),
    "slli": lambda r, s, n: _word(32 - n >> 4, 1, r, s, 32 - n & 15),
    "srli": lambda r, t, n: _word(4, 1, r, n, t),
    "srai": lambda r, t, n: _word(2 | n >> 4, 1, r, n & 15, t),
    "sll": lambda r, s: _word(10, 1, r, s, 0),
    "srl": lambda r, t: _word(9, 1, r, 0, t),
    "sra": lambda r, t: _word(11, 1, r, 0, t),
    "extui": lambda r, t, shift, bits: _word(bits - 1, 4 | shift >> 4, r, shift & 15, t),
    "rsil": lambda t, level: _word(0, 0, 6, level, t),
    "waiti": lambda level: _word(0, 0, 7, level, 0),
    "rfi": lambda level: _word(0, 0, 3, level, 1),
    "jx": lambda s: _word(0, 0, 0, s, 10),
    "rur": lambda r, number: _word(14, 3, r, 0, 0) | number << 4,
    "wur": lambda t, number: _word(15, 3, 0, 0, t) | number << 8,
}
