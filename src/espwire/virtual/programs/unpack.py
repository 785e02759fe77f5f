"""Decompressors of the stub model, with one interface: bytes of a stream in, at most so many bytes of data out."""

from __future__ import annotations

import re
import zlib
from typing import Protocol

from espwire.compress import JAL_RA, JALR, LzmaForm

PIECE = 64  # of an LZMA stream at once: liblzma takes all that it gets
_CANDIDATE = re.compile(rb"[\xEF\x17\x97]")


class DamagedStream(Exception):
    """The stream is not valid."""


class Unpacker(Protocol):
    """A decompressor."""

    @property
    def eof(self) -> bool:
        """Whether the end of the stream was read."""

    def unpack(self, data: bytes, limit: int) -> tuple[bytes, int]:
        """At most ``limit`` bytes of the result, and how many bytes of ``data`` were read for them.

        :raises DamagedStream: it cannot be decompressed
        """


class ZlibUnpacker:
    """zlib streams."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj()

    @property
    def eof(self) -> bool:
        return self._stream.eof

    def unpack(self, data: bytes, limit: int) -> tuple[bytes, int]:
        try:
            out = self._stream.decompress(data, limit)
        except zlib.error as error:
            raise DamagedStream from error
        left = self._stream.unused_data if self._stream.eof else self._stream.unconsumed_tail
        return out, len(data) - len(left)


class LzmaUnpacker:
    """Raw LZMA1 streams with an end marker."""

    def __init__(self, form: LzmaForm) -> None:
        import lzma

        self._error, filters = lzma.LZMAError, form.build_filters()
        self._stream = lzma.LZMADecompressor(format=lzma.FORMAT_RAW, filters=filters)

    @property
    def eof(self) -> bool:
        return self._stream.eof

    def unpack(self, data: bytes, limit: int) -> tuple[bytes, int]:
        piece = data[:PIECE] if self._stream.needs_input else b""
        if self._stream.needs_input and not piece:
            return b"", 0
        try:
            out = self._stream.decompress(piece, limit)
        except self._error as error:
            raise DamagedStream from error
        return out, len(piece) - len(self._stream.unused_data)


def restore_branches(code: bytes, position: int) -> bytes:
    """The reverse of ``compress.convert_branches``, for one unit of it at ``position``."""
    out, at = bytearray(code), 0
    for found in _CANDIDATE.finditer(code):
        start, address = found.start(), position + found.start()
        if start < at or start % 2 or start + 4 > len(code):
            continue
        upper = (code[start + 1] & 0xF0) << 24 | code[start + 2] << 20 | code[start + 3] << 12
        first = int.from_bytes(code[start : start + 4], "little")
        second = int.from_bytes(code[start + 4 : start + 8], "little")
        if code[start] == JAL_RA:
            if first & 0xF00 == 0:
                offset = (upper >> 11) - address
                word = (offset & 0xFF000) | (offset & 0x800) << 9 | (offset & 0x7FE) << 20
                word |= (offset & 0x100000) << 11 | JAL_RA
                out[start : start + 4] = word.to_bytes(4, "little")
                at = start + 4
        elif start + 8 <= len(code):
            at = start + 4
            if second & 0x7F == JALR and not (second >> 15 ^ first >> 7) & 31:
                target = upper | (code[start + 6] & 0xF0) << 4 | code[start + 7]
                offset = target - address & 0xFFFFFFFF
                first = first & 0xFFF | offset + 0x800 & 0xFFFFF000
                second = second & 0xFFFFF | offset << 20 & 0xFFF00000
                out[start : start + 8] = first.to_bytes(4, "little") + second.to_bytes(4, "little")
                at = start + 8
    return bytes(out)
