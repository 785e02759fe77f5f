"""Compresses data for the chip: zlib streams for every loader, LZMA streams for our stub.

LZMA streams are raw LZMA1 with an end marker. For RISC-V the targets of calls are made absolute before: a call is stored
relative to its own address, so calls of one function from different places have no bytes in common.
"""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from struct import unpack_from
from typing import TYPE_CHECKING

from espwire.errors import DataError
from espwire.protocol.stub import Codec

if TYPE_CHECKING:
    from espwire.chips.model import Chip

LIBDEFLATE_LEVEL = 12  # the highest
ZLIB_LEVEL = 9
LZMA_DICTIONARY = 0x8000
LZMA_NICE_BYTES = (
    64  # matches as long as this are taken without search; more makes firmware no smaller
)
PIECE = 0x8000  # of the data, compressed at once; 10 ms
UNIT = 256  # a call across the end of one is not converted; the chip restores unit by unit
FIRST_PIECE = 0x1000  # small, so that the first bytes come soon
JAL_RA, JALR = 0xEF, 0x67
_CANDIDATE = re.compile(rb"[\xEF\x17\x97]")  # the first bytes of jal ra and of auipc


def deflate_zlib(data: bytes) -> bytes:
    """``data`` as a zlib stream with a window of 32 KiB, which every loader can decompress.

    Uses libdeflate, whose output for firmware is about 1.6 % smaller at the same speed, or zlib on platforms without the
    ``deflate`` package.
    """
    try:
        from deflate import zlib_compress
    except ImportError:
        import zlib

        return zlib.compress(data, ZLIB_LEVEL)
    return bytes(zlib_compress(data, LIBDEFLATE_LEVEL))


def has_lzma() -> bool:
    """Whether Python was built with LZMA."""
    return find_spec("_lzma") is not None


@dataclass(frozen=True)
class LzmaForm:
    """An LZMA stream: ``lc``, ``lp`` and ``pb`` are from the LZMA specification. ``branches``: RISC-V calls are converted.

    ``ratio``: typical size for firmware, relative to ``deflate_zlib``.
    """

    codec: Codec
    lc: int
    lp: int
    pb: int
    branches: bool
    ratio: float

    def build_filters(self) -> list[dict[str, int]]:
        """The ``filters`` of Python's lzma module for a raw stream."""
        import lzma

        search = {"mode": lzma.MODE_NORMAL, "mf": lzma.MF_BT4, "nice_len": LZMA_NICE_BYTES}
        form = {"lc": self.lc, "lp": self.lp, "pb": self.pb, "dict_size": LZMA_DICTIONARY}
        return [{"id": lzma.FILTER_LZMA1} | form | search]


# instructions of one to three bytes, at any address
FOR_XTENSA = LzmaForm(Codec.LZMA, lc=3, lp=0, pb=0, branches=False, ratio=0.94)
# of two or four bytes, at even addresses
FOR_RISCV = LzmaForm(Codec.LZMA_RISCV, lc=2, lp=1, pb=1, branches=True, ratio=0.86)


def find_lzma_form(chip: Chip) -> LzmaForm:
    """The form for the chip's instructions, which its stub is built for."""
    return FOR_RISCV if chip.cpu.architecture == "riscv" else FOR_XTENSA


class Stream:
    """A stream whose bytes are all there; ``size`` is their number."""

    def __init__(self, data_size: int, stream: bytes) -> None:
        self.size: int | None = len(stream)
        self._data_size, self._stream, self._at = data_size, stream, 0

    def read(self, size: int) -> bytes:
        """The next bytes; fewer than ``size`` only at the end."""
        part = self._stream[self._at : self._at + size]
        self._at += len(part)
        return part

    def find_done(self, sent: int) -> int:
        """About how many bytes of the data the first ``sent`` bytes of the stream stand for."""
        return sent * self._data_size // len(self._stream)

    def close(self) -> None:
        """End what still runs."""


class LzmaStream(Stream):
    """An LZMA stream that a thread compresses ahead; without threads (a browser), ``read`` compresses what it needs.

    ``size`` is None until the end was read.
    """

    def __init__(self, data: bytes, form: LzmaForm) -> None:
        self.size, self._size = None, len(data)
        self._ready: queue.SimpleQueue[tuple[bytes, int]] = queue.SimpleQueue()
        self._held = bytearray()
        self._made = self._used = (
            0  # bytes of the stream that arrived here, and of the data in them
        )
        self._complete = self._closed = self._whole = False
        self._pieces: Iterator[tuple[bytes, int]] | None = None  # to compress in ``read``
        try:
            threading.Thread(target=self._compress, args=(data, form), daemon=True).start()
        except RuntimeError:
            self._pieces = compress_lzma(data, form)

    def read(self, size: int) -> bytes:
        while len(self._held) < size and not self._complete:
            piece, self._used = self._take()
            self._complete = not piece
            if self._complete and not self._whole:
                raise DataError("the data could not be compressed", hint="Use --no-compress.")
            self._held += piece
            self._made += len(piece)
        part = bytes(self._held[:size])
        del self._held[:size]
        if self._complete and not self._held:
            self.size = self._made
        return part

    def _take(self) -> tuple[bytes, int]:
        """The next piece; an empty one at the end."""
        if self._pieces is None:
            return self._ready.get()
        piece = next(self._pieces, None)
        self._whole = piece is None
        return (b"", self._size) if piece is None else piece

    def find_done(self, sent: int) -> int:
        return sent * self._used // self._made if self._made else 0

    def close(self) -> None:
        self._closed = True

    def _compress(self, data: bytes, form: LzmaForm) -> None:
        try:
            for item in compress_lzma(data, form):
                if self._closed:
                    return
                self._ready.put(item)
            self._whole = True
        finally:  # whatever happens, the thread that reads does not wait for more
            self._ready.put((b"", len(data)))


def compress_lzma(data: bytes, form: LzmaForm) -> Iterator[tuple[bytes, int]]:
    """The stream in pieces that are not empty, each with the bytes of ``data`` that have been read for it."""
    import lzma

    packer = lzma.LZMACompressor(format=lzma.FORMAT_RAW, filters=form.build_filters())
    at, size = 0, FIRST_PIECE
    while at < len(data):
        piece = data[at : at + size]
        packed = packer.compress(convert_branches(piece, at) if form.branches else piece)
        at, size = at + len(piece), PIECE
        if packed:
            yield packed, at
    yield packer.flush(), at


def convert_branches(code: bytes, position: int) -> bytes:
    """RISC-V code with absolute targets, their most significant byte first. Mirrors ``stub/src/branches.c``.

    ``jal ra`` and ``auipc`` with ``jalr`` are recognised by the bits that stay as they are, so the chip can restore any
    data. :param position: of ``code`` in the data, a multiple of 256
    """
    out, at = bytearray(code), 0
    for found in _CANDIDATE.finditer(code):
        start = found.start()
        last = min(len(code), (start | UNIT - 1) + 1)
        if start < at or start % 2:
            continue
        if code[start] == JAL_RA:
            if start + 4 <= last and code[start + 1] & 0x0F == 0:
                _convert_jal(out, start, position + start)
                at = start + 4
        elif start + 8 <= last:
            at = start + 4 + 4 * _convert_pair(out, start, position + start)
    return bytes(out)


def _convert_jal(code: bytearray, at: int, address: int) -> None:
    (word,) = unpack_from("<I", code, at)
    offset = (word >> 11 & 0x100000) | (word & 0xFF000) | (word >> 9 & 0x800) | (word >> 20 & 0x7FE)
    target = offset + address >> 1
    code[at + 1 : at + 4] = (target >> 12 & 0xF0, target >> 8 & 0xFF, target & 0xFF)


def _convert_pair(code: bytearray, at: int, address: int) -> bool:
    """``auipc``, and ``jalr`` through the same register; whether it is that."""
    first, second = unpack_from("<II", code, at)
    if second & 0x7F != JALR or (second >> 15 ^ first >> 7) & 31:
        return False
    low = second >> 20
    target = (first & 0xFFFFF000) + low - (low >> 11 << 12) + address
    code[at + 1] = code[at + 1] & 0x0F | target >> 24 & 0xF0
    code[at + 2 : at + 4] = (target >> 20 & 0xFF, target >> 12 & 0xFF)
    code[at + 6] = code[at + 6] & 0x0F | target >> 4 & 0xF0
    code[at + 7] = target & 0xFF
    return True
