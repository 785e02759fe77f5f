"""SFDP: what a flash part tells of itself (JESD216). Reads raw bytes; decodes the basic table; sets up nothing.

Layout: ``chips/data/flash-ids.toml`` [sfdp].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from espwire.chips.model import Chip
from espwire.device.flash_id import flash_facts
from espwire.device.loader import Loader
from espwire.device.spi import run_spi_command
from espwire.errors import DeviceError, UsageError
from espwire.protocol.opcodes import Op
from espwire.sizes import extract

MAX_PIECE = 4
ADDRESS_END = 1 << 24
HEADER_SIZE = PARAMETER_SIZE = 8
MOST_TABLES = 16  # a part may claim 256; none has more than a few
MOST_EXPONENT = 62

ReadSfdp = Callable[[int, int], bytes]


@dataclass(frozen=True, kw_only=True)
class EraseType:
    """One erase command: bytes, and the opcode for it."""

    size: int
    opcode: int


@dataclass(frozen=True, kw_only=True)
class SfdpTable:
    """One table: its id (0xFF00: the basic one), revision, place in the SFDP area and length in 32-bit words."""

    id: int
    major: int
    minor: int
    address: int
    words: int


@dataclass(frozen=True, kw_only=True)
class Sfdp:
    """The decoded area. None: an old or odd table that does not tell. ``size`` and ``page_size`` in bytes."""

    major: int
    minor: int
    tables: tuple[SfdpTable, ...]
    size: int | None = None
    page_size: int | None = None
    address_bytes: str | None = None
    erase_4k_opcode: int | None = None
    erase_types: tuple[EraseType, ...] = ()
    quad_enable: int | None = None
    quad_enable_text: str | None = None
    basic_words: tuple[int, ...] = ()


def read_sfdp(loader: Loader, chip: Chip, address: int, size: int) -> bytes:
    """``size`` bytes of the SFDP area, as they are. The flash is attached.

    :raises UsageError: code ``sfdp-range``: not 1 to 4 bytes of a 24-bit address space
    :raises Unsupported: code ``secure-download-mode``, before anything is sent
    """
    check_sfdp_range(address, size)
    loader.require(Op.READ_REG)
    facts = flash_facts()["sfdp"]
    word = run_spi_command(
        loader,
        chip,
        facts["opcode"],
        read_bits=8 * size,
        address=address,
        address_bits=facts["address_bits"],
        dummy_cycles=facts["dummy_cycles"],
    )
    return word.to_bytes(size, "little")


def check_sfdp_range(address: int, size: int) -> None:
    """Refuse what one read cannot bring.

    :raises UsageError: code ``sfdp-range``
    """
    if not 1 <= size <= MAX_PIECE or not 0 <= address <= ADDRESS_END - size:
        raise UsageError(
            f"{size} bytes at {address:#x} cannot be read from the SFDP area",
            hint=f"Give an address below {ADDRESS_END:#x} and 1 to {MAX_PIECE} bytes.",
            code="sfdp-range",
        )


def read_whole_sfdp(loader: Loader, chip: Chip) -> Sfdp:
    """Header, table of contents and basic table, decoded.

    :raises Unsupported: code ``secure-download-mode``
    :raises DeviceError: code ``no-sfdp``: the part has no such area
    """

    def read(address: int, size: int) -> bytes:
        pieces = range(address, address + size, MAX_PIECE)
        return b"".join(
            read_sfdp(loader, chip, at, min(MAX_PIECE, address + size - at)) for at in pieces
        )

    return decode_sfdp(read)


def decode_sfdp(read: ReadSfdp) -> Sfdp:
    """Decode what ``read(address, size)`` brings; asks for no more than is needed.

    :raises DeviceError: code ``no-sfdp``
    """
    facts = flash_facts()["sfdp"]
    head = read(0, HEADER_SIZE)
    if int.from_bytes(head[:4], "little") != facts["signature"]:
        raise DeviceError(
            f"this flash has no SFDP area: it begins with {head[:4].hex(' ')}",
            hint="Older parts have none: look into the data sheet of the part that flash-id names.",
            code="no-sfdp",
        )
    start, count = facts["first_parameter_header_at"], min(head[6] + 1, MOST_TABLES)
    tables = tuple(
        _parse_table(read(start + PARAMETER_SIZE * at, PARAMETER_SIZE)) for at in range(count)
    )
    basic = [table for table in tables if table.id == facts["basic_table_id"] and table.words]
    if not basic:
        return Sfdp(major=head[5], minor=head[4], tables=tables)
    newest = max(basic, key=lambda table: (table.major, table.minor))
    needed = min(newest.words, max(row["dword"] for row in facts["basic_table"]))
    needed = min(needed, (ADDRESS_END - newest.address) // 4)
    data = read(newest.address, 4 * needed) if needed else b""
    words = tuple(int.from_bytes(data[at : at + 4], "little") for at in range(0, len(data), 4))
    return _decode_basic(words, head[5], head[4], tables)


def _parse_table(data: bytes) -> SfdpTable:
    return SfdpTable(
        id=data[7] << 8 | data[0],
        major=data[2],
        minor=data[1],
        address=int.from_bytes(data[4:7], "little"),
        words=data[3],
    )


def _decode_basic(
    words: tuple[int, ...], major: int, minor: int, tables: tuple[SfdpTable, ...]
) -> Sfdp:
    facts = flash_facts()["sfdp"]
    rows = {row["name"]: row for row in facts["basic_table"]}

    def field(name: str) -> int | None:
        row = rows[name]
        if row["dword"] > len(words):
            return None
        high, low = map(int, row["bits"].split(".."))
        return extract(words[row["dword"] - 1], low, high - low + 1)

    values: dict[str, Any] = rows["address_bytes"]["values"]
    address_code, page, quad = field("address_bytes"), field("page_size_log2"), field("quad_enable")
    has_4k = field("erase_4k_support") == 1
    return Sfdp(
        major=major,
        minor=minor,
        tables=tables,
        size=_find_size(field("density")),
        page_size=None if page is None else 1 << page,
        address_bytes=None if address_code is None else values.get(str(address_code)),
        erase_4k_opcode=field("erase_4k_opcode") if has_4k else None,
        erase_types=_find_erase_types(field),
        quad_enable=quad,
        quad_enable_text=None
        if quad is None
        else facts["quad_enable_values"].get(str(quad), "reserved"),
        basic_words=words,
    )


def _find_size(density: int | None) -> int | None:
    """Bytes; the rule is ``density_rule`` of the facts."""
    if density is None:
        return None
    if not density >> 31:
        return (density + 1) // 8
    exponent = density & 0x7FFFFFFF
    return (1 << exponent) // 8 if exponent <= MOST_EXPONENT else None


def _find_erase_types(field: Callable[[str], int | None]) -> tuple[EraseType, ...]:
    """The erase types that exist, smallest first; types 3 and 4 stand in one word, laid out as 1 and 2."""
    pairs = [(field(f"erase{n}_size_log2"), field(f"erase{n}_opcode")) for n in (1, 2)]
    both = field("erase3_and_4")
    if both is not None:
        pairs += [(extract(both, at, 8), extract(both, at + 8, 8)) for at in (0, 16)]
    found = [
        EraseType(size=1 << log, opcode=op)
        for log, op in pairs
        if log and op is not None and log <= MOST_EXPONENT
    ]
    return tuple(sorted(found, key=lambda kind: kind.size))
