"""Call frame information: from registers and a copy of the stack to the functions that called (DWARF section 6.4)."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import NamedTuple

from espwire.symbols.dwarf import WORD, damaged, read_sleb, read_string, read_uleb

CIE_ID = 0xFFFFFFFF
MAX_INSTRUCTIONS = 10_000
MAX_REMEMBERED = 100  # states
CFA_REGISTER = -1  # key of the rule for the frame's address


class Entry(NamedTuple):
    """How to unwind a range of code: instructions of the common part and its own."""

    low: int
    high: int
    common: bytes
    own: bytes
    code_align: int
    data_align: int
    return_register: int


Rule = tuple[str, int, int]  # kind; register; offset


def find_entry(data: bytes, address: int) -> Entry | None:
    """The entry of .debug_frame for the code at ``address``.

    :raises ElfError, IndexError, struct.error: the section is damaged
    """
    at = 0
    while at + 16 <= len(data):
        length, common, low, size = struct.unpack_from("<4I", data, at)
        end = at + 4 + length
        if length >= 0xFFFFFFF0 or end > len(data):
            raise damaged("call frame information is damaged")
        if common != CIE_ID and low <= address < low + size:
            return _make_entry(data, common, low, size, data[at + 16 : end])
        at = end
    return None


def _make_entry(data: bytes, common: int, low: int, size: int, own: bytes) -> Entry:
    (length,) = WORD.unpack_from(data, common)
    end, version = common + 4 + length, data[common + 8]
    augmentation, at = read_string(data, common + 9)
    if augmentation or version not in (1, 3, 4):
        raise damaged("call frame information of an unknown kind")
    at += 2 if version == 4 else 0
    code_align, at = read_uleb(data, at)
    data_align, at = read_sleb(data, at)
    if version == 1:
        return_register, at = data[at], at + 1
    else:
        return_register, at = read_uleb(data, at)
    return Entry(low, low + size, data[at:end], own, code_align, data_align, return_register)


def find_rules(entry: Entry, address: int) -> dict[int, Rule]:
    """The rules at ``address``: for each register that was saved, and for ``CFA_REGISTER``."""
    machine = _Rules(entry)
    machine.run(entry.common, address)
    machine.initial = dict(machine.rules)
    machine.run(entry.own, address)
    return machine.rules


class _Rules:
    """Executes call frame instructions."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._at = entry.low
        self.rules: dict[int, Rule] = {}
        self.initial: dict[int, Rule] = {}
        self._stack: list[dict[int, Rule]] = []

    def run(self, code: bytes, address: int) -> None:
        at = 0
        for _ in range(MAX_INSTRUCTIONS):
            if at >= len(code) or self._at > address:
                return
            opcode, at = code[at], at + 1
            high, low = opcode & 0xC0, opcode & 0x3F
            if high == 0x40:
                self._at += low * self._entry.code_align
            elif high == 0x80:
                offset, at = read_uleb(code, at)
                self.rules[low] = ("saved", 0, offset * self._entry.data_align)
            elif high == 0xC0:
                self._restore(low)
            else:
                at = self._extended(low, code, at)
            if self._at > address:
                return

    def _restore(self, register: int) -> None:
        if register in self.initial:
            self.rules[register] = self.initial[register]
        else:
            self.rules.pop(register, None)

    def _extended(self, opcode: int, code: bytes, at: int) -> int:
        rules, align = self.rules, self._entry.data_align
        if opcode in (0x02, 0x03, 0x04):  # advance_loc1, 2, 4
            size = 1 << opcode - 2
            self._at += int.from_bytes(code[at : at + size], "little") * self._entry.code_align
            return at + size
        if opcode == 0x0A:  # remember_state
            if len(self._stack) == MAX_REMEMBERED:
                raise damaged("call frame information is damaged")
            self._stack.append(dict(rules))
            return at
        if opcode == 0x0B:  # restore_state
            if not self._stack:
                raise damaged("call frame information is damaged")
            self.rules = self._stack.pop()
            return at
        if opcode == 0x00:  # nop
            return at
        if opcode == 0x0E:  # def_cfa_offset
            offset, at = read_uleb(code, at)
            rules[CFA_REGISTER] = ("register", rules.get(CFA_REGISTER, ("", 0, 0))[1], offset)
            return at
        register, at = read_uleb(code, at)
        if opcode == 0x0D:  # def_cfa_register
            old = rules.get(CFA_REGISTER, ("", 0, 0))
            rules[CFA_REGISTER] = ("register", register, old[2])
        elif opcode in (0x06, 0x08):  # restore_extended, same_value
            self._restore(register)
        elif opcode == 0x07:  # undefined
            rules[register] = ("undefined", 0, 0)
        elif opcode in (0x05, 0x0C, 0x14):  # offset_extended, def_cfa, val_offset
            offset, at = read_uleb(code, at)
            if opcode == 0x0C:
                rules[CFA_REGISTER] = ("register", register, offset)
            elif opcode == 0x05:
                rules[register] = ("saved", 0, offset * align)
            else:
                raise damaged("a rule for unwinding that is not known")
        elif opcode in (0x11, 0x12):  # offset_extended_sf, def_cfa_sf
            offset, at = read_sleb(code, at)
            if opcode == 0x12:
                rules[CFA_REGISTER] = ("register", register, offset * align)
            else:
                rules[register] = ("saved", 0, offset * align)
        elif opcode == 0x09:  # register
            other, at = read_uleb(code, at)
            rules[register] = ("register", other, 0)
        else:
            raise damaged("a rule for unwinding that is not known")
        return at


def step_out(
    entry: Entry, pc: int, registers: dict[int, int], read_word: Callable[[int], int | None]
) -> dict[int, int] | None:
    """The caller's registers, with its return address in the entry's return register; None: they are not known.

    :param pc: an address in the function
    :param read_word: a word of the stack; None: outside of the copy
    """
    rules = find_rules(entry, pc)
    kind, base, offset = rules.get(CFA_REGISTER, ("", 0, 0))
    if kind != "register" or base not in registers:
        return None
    frame = registers[base] + offset & 0xFFFFFFFF
    caller = dict(registers)
    for register, (how, other, shift) in rules.items():
        if register == CFA_REGISTER:
            continue
        value = None
        if how == "saved":
            value = read_word(frame + shift & 0xFFFFFFFF)
        elif how == "register":
            value = registers.get(other)
        if value is None:
            caller.pop(register, None)
        else:
            caller[register] = value
    caller[CFA_REGISTER] = frame
    return caller if entry.return_register in caller else None
