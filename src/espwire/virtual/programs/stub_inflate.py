"""Unpacking in our stub's twin: by zlib, and where that does not tell enough, as ``stub/src/inflate.c`` does it.

zlib reports a broken stream, but neither how much came out before nor by the stub's rules; and the stub wants 15 bits
before it decodes a code, so at a frame's end it may be a few bytes behind. ``replay`` knows both, slowly.
"""

from __future__ import annotations

import zlib
from typing import NamedTuple

from espwire.protocol.replies import INFLATE_FAILED, TOO_LITTLE

AHEAD_BITS = 15  # the stub wants so many bits before it decodes a code
SURE_BYTES = 4  # with so many left in a frame it is never behind
REPLAY_BYTES = 0x10000  # of longer streams zlib's word is taken
ADLER_BYTES = 4
LENGTH_BASE = (
    3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258,
)  # fmt: skip
LENGTH_EXTRA = (
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    0,
    1,
    1,
    1,
    1,
    2,
    2,
    2,
    2,
    3,
    3,
    3,
    3,
    4,
    4,
    4,
    4,
    5,
    5,
    5,
    5,
    0,
)
DISTANCE_BASE = (
    1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145,
    8193, 12289, 16385, 24577,
)  # fmt: skip
LENGTH_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
Codes = dict[tuple[int, int], int]  # length, code from its first bit on → symbol


class Damaged(Exception):
    """The stream is none. Inside this module only."""


class Starved(Exception):
    """The stream's bytes are used up. Inside this module only."""


class Inflate:
    """``feed`` it; ``done`` once all blocks are out, ``status`` once the stub would leave."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.done = False
        self._inflate = zlib.decompressobj(-15)
        self._adler, self._out = 1, 0
        self._behind = False  # zlib has seen end or damage already; the stub still wants bits, which it looks at ahead
        self._stream = bytearray()
        self._checked = bytearray()

    def feed(self, data: bytes, most: int) -> tuple[bytes, bytes]:
        """At most ``most`` bytes out of ``data``; and what is left of it, to be fed again."""
        head = max(0, 2 - len(self._stream))
        self._stream += data
        if head:
            data = data[head:]
            if len(self._stream) >= 2 and not is_zlib_head(self._stream):
                self.status = INFLATE_FAILED
                return b"", b""
        if self._behind:
            return self._replay(), b""
        if self.done:
            return b"", self._check(data)
        try:
            out = self._inflate.decompress(data, most)
        except zlib.error:
            return self._fail(), b""
        rest = (
            b"" if self._inflate.eof else self._inflate.unconsumed_tail
        )  # at the end it repeats what is unused
        del self._stream[len(self._stream) - len(rest) :]
        self._adler = zlib.adler32(out, self._adler)
        self._out += len(out)
        if self._inflate.eof:
            unused = self._inflate.unused_data
            if (
                len(unused) < ADLER_BYTES
                and len(self._stream) <= REPLAY_BYTES
                and not replay(self._stream).done
            ):
                self._behind = True
                return out, rest
            self.done = True
            self._check(unused)
        return out, rest

    def is_behind(self, rest: bytes) -> bool:
        """Whether the stub, with ``rest`` of the frame still there, has not got the last byte out, for lack of bits."""
        if self.done or len(self._stream) > REPLAY_BYTES:
            return False
        return len(replay(self._stream + rest).out) < self._out

    def finish(self) -> None:
        """The stream ends here, too early."""
        self.status = TOO_LITTLE

    def _fail(self) -> bytes:
        """What came out before the damage, and what the stub makes of it."""
        if len(self._stream) > REPLAY_BYTES:
            self.status = INFLATE_FAILED
            return b""
        self._behind = True
        return self._replay()

    def _replay(self) -> bytes:
        """What the stub has got out by now, beyond what was given already."""
        found = replay(self._stream)
        self.done, self.status = found.done, found.status
        out = bytes(found.out[self._out :])
        self._out = max(self._out, len(found.out))
        return out

    def _check(self, data: bytes) -> bytes:
        self._checked += data
        if len(self._checked) >= ADLER_BYTES:
            right = self._checked[:ADLER_BYTES] == self._adler.to_bytes(ADLER_BYTES, "big")
            self.status = 0 if right else INFLATE_FAILED
        return b""


def is_zlib_head(head: bytes | bytearray) -> bool:
    """Whether the stub takes a stream that starts so."""
    word = head[0] << 8 | head[1]
    return word & 0x8F00 == 0x0800 and word % 31 == 0 and not word & 32


class Replayed(NamedTuple):
    """What the stub has made of a stream: bytes out, all blocks done, its status or None where it waits for more."""

    out: bytearray
    done: bool
    status: int | None


def replay(stream: bytes | bytearray) -> Replayed:
    """The stub's own inflate on the start of a stream."""
    bits = Bits(bytes(stream))
    decoder = Decoder(bits)
    try:
        return Replayed(decoder.out, True, decoder.run())
    except Damaged:
        return Replayed(decoder.out, decoder.done, INFLATE_FAILED)
    except Starved:
        return Replayed(decoder.out, decoder.done, None)


class Bits:
    """The stream's bits, lowest first."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = self._held = self.count = 0

    def need(self, count: int) -> int:
        """At least so many bits, not yet used."""
        while self.count < count:
            if self._at == len(self._data):
                raise Starved
            self._held |= self._data[self._at] << self.count
            self._at += 1
            self.count += 8
        return self._held

    def take(self, count: int) -> int:
        """Use so many bits."""
        value = self.need(count) & (1 << count) - 1
        self.drop(count)
        return value

    def drop(self, count: int) -> None:
        """They are used."""
        self._held >>= count
        self.count -= count


class Decoder:
    """The blocks of one stream."""

    def __init__(self, bits: Bits) -> None:
        self.bits = bits
        self.out = bytearray()
        self.done = False

    def run(self) -> int:
        """The stub's status."""
        bits = self.bits
        head = bytes((bits.take(8), bits.take(8)))
        if not is_zlib_head(head):
            raise Damaged
        last = 0
        while not last:
            last, kind = bits.take(1), bits.take(2)
            if kind == 0:
                self._stored()
            elif kind == 3:
                raise Damaged
            else:
                self._codes(*(fixed_tables() if kind == 1 else self._tables()))
        self.done = True
        bits.take(bits.count & 7)
        check = int.from_bytes(bytes(bits.take(8) for _ in range(ADLER_BYTES)), "big")
        return 0 if check == zlib.adler32(self.out) else INFLATE_FAILED

    def _stored(self) -> None:
        bits = self.bits
        bits.take(bits.count & 7)
        size = bits.take(16)
        if size != bits.take(16) ^ 0xFFFF:
            raise Damaged
        for _ in range(size):
            self.out.append(bits.take(8))

    def _tables(self) -> tuple[Codes, Codes]:
        bits = self.bits
        literals, distances, count = bits.take(5) + 257, bits.take(5) + 1, bits.take(4) + 4
        sizes = [0] * len(LENGTH_ORDER)
        for i in range(count):
            sizes[LENGTH_ORDER[i]] = bits.take(3)
        codes = build_codes(sizes)
        found: list[int] = []
        while len(found) < literals + distances:
            symbol = self._decode(codes)
            if symbol == 16 and not found:
                raise Damaged
            value, repeat = symbol, 1
            if symbol == 16:
                value, repeat = found[-1], 3 + bits.take(2)
            elif symbol > 16:
                value, repeat = 0, 3 + bits.take(3) if symbol == 17 else 11 + bits.take(7)
            if len(found) + repeat > literals + distances:
                raise Damaged
            found += [value] * repeat
        return build_codes(found[:literals]), build_codes(found[literals:])

    def _codes(self, literals: Codes, distances: Codes) -> None:
        bits, out = self.bits, self.out
        while True:
            symbol = self._decode(literals)
            if symbol > 285:
                raise Damaged
            if symbol < 256:
                out.append(symbol)
                continue
            if symbol == 256:
                return
            size = LENGTH_BASE[symbol - 257] + bits.take(LENGTH_EXTRA[symbol - 257])
            place = self._decode(distances)
            if place > 29:
                raise Damaged
            distance = DISTANCE_BASE[place] + bits.take(0 if place < 4 else (place - 2) // 2)
            if distance > len(out):
                raise Damaged
            for _ in range(size):
                out.append(out[-distance])

    def _decode(self, codes: Codes) -> int:
        held, code = self.bits.need(AHEAD_BITS), 0
        for size in range(1, 16):
            code = code << 1 | held >> (size - 1) & 1
            symbol = codes.get((size, code))
            if symbol is not None:
                self.bits.drop(size)
                return symbol
        raise Damaged


def build_codes(sizes: list[int]) -> Codes:
    """Canonical codes from their lengths; a set that is not complete is taken, one with too many codes is not."""
    codes: Codes = {}
    code = 0
    for size in range(1, 16):
        code <<= 1
        for symbol in (i for i, length in enumerate(sizes) if length == size):
            codes[size, code] = symbol
            code += 1
        if code > 1 << size:
            raise Damaged
    return codes


def fixed_tables() -> tuple[Codes, Codes]:
    """Of a block with fixed codes."""
    sizes = [8] * 144 + [9] * 112 + [7] * 24 + [8] * 8
    return build_codes(sizes), build_codes([5] * 30)
