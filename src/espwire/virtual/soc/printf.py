"""The text that the ROM's ets_printf makes: integers, characters, strings and pointers. Pure.

The ROM's own printf knows fewer forms than C's and no floating point; an unknown one is printed as it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

LONGEST = 4096  # of one text, whatever a program asks for
FLAGS = b"-0+ #"


def format_text(template: int, arguments: Iterator[int], read_byte: Callable[[int], int]) -> bytes:
    """Fill in the template.

    :param template: its address; it ends with a zero byte
    :param arguments: the words that follow it
    :param read_byte: gives the byte at an address
    """
    text, out, at = _read_string(template, read_byte), bytearray(), 0
    while (mark := text.find(b"%", at)) >= 0 and len(out) < LONGEST:
        out += text[at:mark]
        form = _Form(text, mark + 1)
        out += form.fill(arguments, read_byte)
        at = form.end
    return bytes(out + text[at:])[:LONGEST]


class _Form:
    """One conversion: ``%-08lx``."""

    def __init__(self, text: bytes, at: int) -> None:
        start = at
        while text[at : at + 1] and text[at] in FLAGS:
            at += 1
        self._flags = text[start:at]
        self._width, at = _read_number(text, at)
        self._digits: int | None = None
        if text[at : at + 1] == b".":
            self._digits, at = _read_number(text, at + 1)
        long = 0
        while text[at : at + 1] in (b"l", b"h", b"z"):
            long += text[at] == ord("l")
            at += 1
        self._words = 2 if long > 1 else 1
        self._kind = text[at : at + 1]
        self.end = at + 1 if self._kind else at
        self._whole = b"%" + text[start : self.end]

    def fill(self, arguments: Iterator[int], read_byte: Callable[[int], int]) -> bytes:
        """The text for the next argument."""
        kind = self._kind
        if kind == b"%":
            return b"%"
        if kind == b"c":
            return self._pad(bytes((next(arguments) & 0xFF,)))
        if kind == b"s":
            address = next(arguments)
            text = _read_string(address, read_byte) if address else b"(null)"
            return self._pad(text if self._digits is None else text[: self._digits])
        if kind and kind in b"diuxXpo":
            value = sum(next(arguments) << 32 * i for i in range(self._words))
            return self._number(value)
        return self._whole

    def _number(self, value: int) -> bytes:
        bits = 32 * self._words
        sign = b""
        if self._kind in b"di" and value >> (bits - 1):
            value, sign = (1 << bits) - value, b"-"
        elif self._kind in b"di" and b"+" in self._flags:
            sign = b"+"
        base = {b"x": "x", b"X": "X", b"p": "x", b"o": "o"}.get(self._kind, "d")
        digits = format(value, base).encode().rjust(min(self._digits or 0, LONGEST), b"0")
        if self._kind == b"p" or (b"#" in self._flags and self._kind in b"xX"):
            sign = b"0x"
        if b"0" in self._flags and b"-" not in self._flags and self._digits is None:
            digits = digits.rjust(self._width - len(sign), b"0")
        return self._pad(sign + digits)

    def _pad(self, text: bytes) -> bytes:
        return text.ljust(self._width) if b"-" in self._flags else text.rjust(self._width)


def _read_number(text: bytes, at: int) -> tuple[int, int]:
    end = at
    while text[end : end + 1].isdigit():
        end += 1
    return min(int(text[at:end][:5] or b"0"), LONGEST), end


def _read_string(address: int, read_byte: Callable[[int], int]) -> bytes:
    out = bytearray()
    while len(out) < LONGEST and (byte := read_byte(address + len(out) & 0xFFFFFFFF)):
        out.append(byte)
    return bytes(out)
