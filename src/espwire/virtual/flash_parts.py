"""NOR flash parts as data: names, JEDEC ids, sizes, timing and SFDP tables. No behaviour, which is ``flash.py``.

Ids are the makers' public JEDEC ids (their data sheets, the lists of flashrom and Linux); makers and size codes agree
with ``chips/data/flash-ids.toml``. SFDP tables are built here after JESD216B from the size and the opcodes that
``NorFlash`` understands; they are not copies of a part's own table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from espwire.errors import UsageError
from espwire.sizes import KIB, MIB, format_size

XMC = 0x20
PAGE = 256
SFDP_BYTES = 256
_BASIC_TABLE_AT, _MAKER_TABLE_AT = 0x30, 0x80
_QUAD_ENABLE = {
    0xC2: 2,
    0x9D: 2,
    0xC8: 6,
}  # SFDP codes: status 1 bit 6; status 2 bit 1 by 31h; all others: 5


@dataclass(frozen=True, kw_only=True)
class FlashPart:
    """One flash chip. Size in bytes; ``jedec`` is maker, type, capacity as RDID sends them.

    ``sleepy``: an XMC part that comes up in the state that needs the wake-up steps (see ``NorFlash``).
    ``starts_in`` "continuous": an application left it in a continuous-read or QPI mode.
    An empty ``sfdp`` is a part without the command: zeros come back.
    """

    name: str
    jedec: bytes
    size: int
    sfdp: bytes
    sleepy: bool = False
    starts_in: Literal["spi", "continuous"] = "spi"

    @property
    def maker(self) -> int:
        """The JEDEC id of the maker."""
        return self.jedec[0]


@dataclass(frozen=True, kw_only=True)
class FlashTiming:
    """How long the part takes, in seconds. A program of n bytes takes ``program_base_s + n * program_byte_s``."""

    program_base_s: float
    program_byte_s: float
    erase_4k_s: float
    erase_32k_s: float
    erase_64k_s: float
    write_status_s: float
    reset_s: float = 30e-6
    wake_s: float = 20e-6
    ultra_wake_s: float = 2e-3

    @property
    def page_program_s(self) -> float:
        """A whole page of 256 bytes."""
        return self.program_base_s + PAGE * self.program_byte_s

    def erase_s(self, size: int) -> float:
        """An erase of this many bytes: 4, 32 or 64 KiB, or a whole chip, block by block."""
        if size <= 4 * KIB:
            return self.erase_4k_s
        return self.erase_32k_s if size <= 32 * KIB else self.erase_64k_s * (size // (64 * KIB))


# 32 bytes, 256 bytes, 4 KiB, 64 KiB: typ 110 µs 0.8 ms 45 ms 150 ms; fast 45 µs 0.25 ms 20 ms 60 ms (C6FH4-like);
# slow 150 µs 0.7 ms 60 ms 250 ms (XMC- and GD-like: slow in the short bursts that ROMs use)
PROFILES: Mapping[str, FlashTiming] = MappingProxyType(
    {
        "typ": FlashTiming(
            program_base_s=10e-6,
            program_byte_s=3.0859375e-6,
            erase_4k_s=0.045,
            erase_32k_s=0.12,
            erase_64k_s=0.15,
            write_status_s=0.01,
        ),
        "fast": FlashTiming(
            program_base_s=15.7e-6,
            program_byte_s=0.915e-6,
            erase_4k_s=0.02,
            erase_32k_s=0.04,
            erase_64k_s=0.06,
            write_status_s=0.005,
        ),
        "slow": FlashTiming(
            program_base_s=71.4e-6,
            program_byte_s=2.455e-6,
            erase_4k_s=0.06,
            erase_32k_s=0.18,
            erase_64k_s=0.25,
            write_status_s=0.015,
        ),
        "instant": FlashTiming(
            program_base_s=0.0,
            program_byte_s=0.0,
            erase_4k_s=0.0,
            erase_32k_s=0.0,
            erase_64k_s=0.0,
            write_status_s=0.0,
            reset_s=0.0,
            wake_s=0.0,
            ultra_wake_s=0.0,
        ),
    }
)


def build_sfdp(size: int, maker: int) -> bytes:
    """The SFDP area of a part: header, JEDEC basic table of 16 words, an empty table of the maker.

    The header of the maker's table lies at 0x10, so byte 0x10 is the maker's id; XMC parts are told by that.
    """
    area = bytearray(b"\xff" * SFDP_BYTES)
    area[0:8] = b"SFDP" + bytes((6, 1, 1, 0xFF))
    area[8:16] = bytes((0x00, 6, 1, 16)) + _BASIC_TABLE_AT.to_bytes(3, "little") + b"\xff"
    area[16:24] = bytes((maker, 0, 1, 4)) + _MAKER_TABLE_AT.to_bytes(3, "little") + b"\x01"
    words = _build_basic_table(size, maker)
    area[_BASIC_TABLE_AT : _BASIC_TABLE_AT + 64] = b"".join(
        word.to_bytes(4, "little") for word in words
    )
    return bytes(area)


def _build_basic_table(size: int, maker: int) -> tuple[int, ...]:
    large = size > 16 * MIB
    bits = size * 8
    return (
        0xFFF120E5
        | (
            large << 17
        ),  # 4 KiB erase by 20h, 64-byte writes, fast reads; 3 or 4 address bytes if large
        bits - 1 if bits <= 1 << 31 else 0x80000000 | (bits.bit_length() - 1),
        0x6B08EB44,  # quad I/O EBh, quad output 6Bh, with their dummy cycles
        0xBB423B08,  # dual I/O BBh, dual output 3Bh
        0xFFFFFFEE,  # no 2-2-2 or 4-4-4 mode
        0x0000FFFF,
        0x0000FFFF,
        0x520F200C,  # 4 KiB by 20h, 32 KiB by 52h
        0x0000D810,  # 64 KiB by D8h
        0x00A60236,  # typical erase times, as a W25Q states them
        0x00140080 | 0x02,  # pages of 2 ** 8 bytes
        0x80000000,  # no suspend and resume
        0x00000000,
        0xB9 << 23 | 0xAB << 15 | 1 << 2,  # power-down B9h, wake ABh, poll bit 0 of status 1
        _QUAD_ENABLE.get(maker, 5) << 20,
        (large << 24 | large << 14) | 1 << 12,  # 4-byte mode by B7h and E9h; reset by 66h 99h
    )


def _parts(maker: int, rows: Mapping[str, tuple[int, int, int]]) -> tuple[FlashPart, ...]:
    return tuple(
        FlashPart(
            name=name, jedec=bytes((maker, kind, code)), size=size, sfdp=build_sfdp(size, maker)
        )
        for name, (kind, code, size) in rows.items()
    )


def build_parts() -> Mapping[str, tuple[FlashPart, ...]]:
    """Every part of the table, by maker: ``winbond``, ``xmc``, ``gigadevice``, ``macronix``, ``issi``."""
    return MappingProxyType({maker: _parts(jedec, rows) for maker, (jedec, rows) in _TABLE.items()})


def find_part(size: int, maker: str = "winbond") -> FlashPart:
    """The part of this maker (any case) with this size in bytes.

    :raises UsageError: no such maker, or it has no part of that size here
    """
    entry = _TABLE.get(maker.lower())
    if entry is None:
        raise UsageError(
            f"there is no flash maker {maker!r}", hint=f"Known makers: {', '.join(_TABLE)}."
        )
    jedec, rows = entry
    for name, (_, _, size_of_row) in rows.items():
        if size_of_row == size:
            return _parts(jedec, {name: rows[name]})[0]
    sizes = ", ".join(format_size(row[2]) for row in rows.values())
    raise UsageError(
        f"{maker.lower()} has no part of {format_size(size)}", hint=f"Sizes with a part: {sizes}."
    )


_TABLE: Mapping[str, tuple[int, Mapping[str, tuple[int, int, int]]]] = {
    "winbond": (
        0xEF,
        {
            "W25Q20CL": (0x40, 0x12, 256 * KIB),
            "W25Q40CL": (0x40, 0x13, 512 * KIB),
            "W25Q80DV": (0x40, 0x14, 1 * MIB),
            "W25Q16JV": (0x40, 0x15, 2 * MIB),
            "W25Q32JV": (0x40, 0x16, 4 * MIB),
            "W25Q64JV": (0x40, 0x17, 8 * MIB),
            "W25Q128JV": (0x40, 0x18, 16 * MIB),
            "W25Q256JV": (0x40, 0x19, 32 * MIB),
            "W25Q512JV": (0x40, 0x20, 64 * MIB),
            "W25Q01JV": (0x40, 0x21, 128 * MIB),
        },
    ),
    "xmc": (
        XMC,
        {
            "XM25QH40B": (0x40, 0x13, 512 * KIB),
            "XM25QH80B": (0x40, 0x14, 1 * MIB),
            "XM25QH16C": (0x40, 0x15, 2 * MIB),
            "XM25QH32C": (0x40, 0x16, 4 * MIB),
            "XM25QH64C": (0x40, 0x17, 8 * MIB),
            "XM25QH128C": (0x40, 0x18, 16 * MIB),
            "XM25QH256C": (0x40, 0x19, 32 * MIB),
            "XM25QH512C": (0x40, 0x20, 64 * MIB),
        },
    ),
    "gigadevice": (
        0xC8,
        {
            "GD25Q20C": (0x40, 0x12, 256 * KIB),
            "GD25Q40C": (0x40, 0x13, 512 * KIB),
            "GD25Q80C": (0x40, 0x14, 1 * MIB),
            "GD25Q16C": (0x40, 0x15, 2 * MIB),
            "GD25Q32C": (0x40, 0x16, 4 * MIB),
            "GD25Q64C": (0x40, 0x17, 8 * MIB),
            "GD25Q128C": (0x40, 0x18, 16 * MIB),
            "GD25Q256D": (0x40, 0x19, 32 * MIB),
        },
    ),
    "macronix": (
        0xC2,
        {
            "MX25L2006E": (0x20, 0x12, 256 * KIB),
            "MX25L4006E": (0x20, 0x13, 512 * KIB),
            "MX25L8006E": (0x20, 0x14, 1 * MIB),
            "MX25L1606E": (0x20, 0x15, 2 * MIB),
            "MX25L3233F": (0x20, 0x16, 4 * MIB),
            "MX25L6433F": (0x20, 0x17, 8 * MIB),
            "MX25L12835F": (0x20, 0x18, 16 * MIB),
            "MX25L25645G": (0x20, 0x19, 32 * MIB),
            "MX25L51245G": (0x20, 0x1A, 64 * MIB),
            "MX66L1G45G": (0x20, 0x1B, 128 * MIB),
        },
    ),
    "issi": (
        0x9D,
        {
            "IS25LP016D": (0x60, 0x15, 2 * MIB),
            "IS25LP032D": (0x60, 0x16, 4 * MIB),
            "IS25LP064A": (0x60, 0x17, 8 * MIB),
            "IS25LP128": (0x60, 0x18, 16 * MIB),
            "IS25LP256D": (0x60, 0x19, 32 * MIB),
            "IS25LP512M": (0x60, 0x1A, 64 * MIB),
            "IS25LP01G": (0x60, 0x1B, 128 * MIB),
        },
    ),
}
