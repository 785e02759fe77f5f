"""Collects a core dump that ESP-IDF prints as base64, and checks it.

No timer ends a dump, and nothing of it is dropped: it ends at its last line, when the chip is reset or begins another one,
at a gap in the output, or with the monitor.
Source: ESP-IDF's page "Core Dump"; the first word of a dump is its length, and its end is a CRC-32 or a SHA-256.
"""

from __future__ import annotations

import binascii
import hashlib
import re
import zlib
from typing import NamedTuple

LIMIT = 32 * 0x100000  # bytes
_START = re.compile(r"=+ CORE DUMP START =+")
_END = re.compile(r"=+ CORE DUMP END =+")
_BOOT = re.compile(r"\s*(?:ESP-ROM:|ets \w{3} +\d|rst:0x)")  # the first lines of ROMs
_DATA = re.compile(r"[A-Za-z0-9+/]+={0,2}")


class CoreDump(NamedTuple):
    """The bytes, and what is wrong with them; empty: nothing."""

    data: bytes
    problem: str


class DumpCollector:
    """Gets complete lines."""

    def __init__(self) -> None:
        self._data: bytearray | None = None
        self._bad = 0

    @property
    def active(self) -> bool:
        """Whether a dump is being received."""
        return self._data is not None

    def feed(self, line: str) -> CoreDump | None:
        """Take a line; return the dump at its end."""
        if _START.search(line):
            found = self.finish("another one begins before its end")
            self._data, self._bad = bytearray(), 0
            return found
        if self._data is None:
            return None
        if _END.search(line):
            return self.finish("")
        if _BOOT.match(line):
            return self.finish("the chip was reset before its end")
        text = line.strip()
        if not text:
            return None
        try:
            if len(self._data) > LIMIT or not _DATA.fullmatch(text):
                raise ValueError
            self._data += binascii.a2b_base64(text, strict_mode=True)
        except ValueError:  # includes binascii.Error
            self._bad += 1
        return None

    def finish(self, reason: str) -> CoreDump | None:
        """End the dump; None: there is none. ``reason``: why it ends before its last line."""
        data, self._data = self._data, None
        if data is None:
            return None
        return CoreDump(bytes(data), reason or self._check(bytes(data)))

    def _check(self, data: bytes) -> str:
        length = int.from_bytes(data[:4], "little")
        if self._bad:
            return f"{self._bad} lines are not base64"
        if length != len(data):
            return f"{len(data):,} bytes, but its header says {length:,}"
        if zlib.crc32(data[:-4]) == int.from_bytes(data[-4:], "little"):
            return ""
        if hashlib.sha256(data[:-32]).digest() == data[-32:]:
            return ""
        return "its checksum does not match"
