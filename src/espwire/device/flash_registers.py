"""The flash chip's own registers and tables: up to three status registers, and SFDP (JESD216).

Volatile status bits last until the next reset of the flash chip, and each new connection resets it (66h, 99h). The
meaning of the bits depends on the maker. Opcodes and layout: ``chips/data/flash-ids.toml`` [commands], [sfdp].
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from espwire.device.flash_id import flash_facts
from espwire.device.spi import RunSpi, SpiCommand
from espwire.errors import DeviceError, SafetyStop, UsageError, VerifyError, check_consents
from espwire.sizes import extract

REGISTERS = 3
BUSY = 0x01
BUSY_S = 2.0  # a write takes up to 15 ms on common parts, some tenths of a second on slow ones
# without BUSY and WEL; SUS; the current address mode, which writes do not change
WRITABLE = (0xFC, 0x7F, 0xFE)
# SRP and SRL protect the registers, LB1 to LB3 lock the security pages; as on W25Q and compatible parts
LOCK_CONSENT = "status-lock"
LOCKS = 0x80 | (0x01 | 0x38) << 8


@dataclass(frozen=True, kw_only=True)
class FlashStatus:
    """``bytes`` status registers as one number: register 1 in bits 7..0, 2 in 15..8, 3 in 23..16."""

    value: int
    bytes: int

    @property
    def registers(self) -> tuple[int, ...]:
        """The single registers, number 1 first."""
        return tuple(self.value.to_bytes(self.bytes, "little"))


@dataclass(frozen=True, kw_only=True)
class FlashStatusChange:
    """Result of a write. ``disturbed``: register 2 before and after, if a write of register 1 changed it."""

    before: FlashStatus
    after: FlashStatus
    non_volatile: bool
    disturbed: tuple[int, int] | None = None


def read_status(spi: RunSpi, count: int = 1) -> FlashStatus:
    """The first ``count`` registers. The flash is attached.

    :raises UsageError: code ``status-bytes``: not 1, 2 or 3
    """
    check_status(count)
    values = (_read(spi, number) for number in range(count))
    return FlashStatus(value=int.from_bytes(bytes(values), "little"), bytes=count)


def write_status(
    spi: RunSpi,
    value: int,
    count: int = 1,
    *,
    now: Callable[[], float],
    non_volatile: bool = False,
    consents: Collection[str] = (),
) -> FlashStatusChange:
    """Write the first ``count`` registers and read them back.

    Two registers go in one write first, as older parts want it; a register that does not hold its value then is
    written by its own opcode.

    :param non_volatile: to last without power (write enable 06h); else until the part's next reset (50h)
    :param consents: ``status-lock``: also set bits that lock registers or security pages, perhaps for ever
    :raises UsageError: code ``status-bytes``: not 1, 2 or 3, or the value has more bits; ``unknown-consent``
    :raises SafetyStop: code ``status-lock``, before anything is written
    :raises DeviceError: code ``flash-busy``: the part does not finish
    :raises VerifyError: code ``status-not-taken``: what was read back differs
    """
    check_status(count, value)
    allowed = check_consents(consents)
    before = read_status(spi, count)
    if non_volatile and LOCK_CONSENT not in allowed:
        _stop_if_locking(value, before.value)
    neighbour = _read(spi, 1) if count == 1 else None
    wanted = value.to_bytes(count, "little")
    _write(spi, 0, wanted[:2], now, non_volatile=non_volatile)
    for number in range(count):
        if not _holds(number, wanted[number], _read(spi, number)):
            _write(spi, number, wanted[number : number + 1], now, non_volatile=non_volatile)
    after = read_status(spi, count)
    if any(
        not _holds(at, want, got)
        for at, (want, got) in enumerate(zip(wanted, after.registers, strict=True))
    ):
        raise VerifyError(
            f"the flash status is {after.value:#0{2 + 2 * count}x} after writing {value:#0{2 + 2 * count}x}",
            hint="The flash chip may lack these bits, or its registers may be locked (SRP bits, WP pin).",
            code="status-not-taken",
            before=before.value,
            after=after.value,
            wanted=value,
        )
    disturbed = None
    if neighbour is not None and (current := _read(spi, 1)) != neighbour:
        disturbed = (neighbour, current)
    return FlashStatusChange(
        before=before, after=after, non_volatile=non_volatile, disturbed=disturbed
    )


def check_status(count: int, value: int = 0) -> None:
    """Check number of registers and value.

    :raises UsageError: code ``status-bytes``
    """
    if not 1 <= count <= REGISTERS:
        raise UsageError(
            f"invalid number of status registers: {count}",
            hint="Use 1, 2 or 3.",
            code="status-bytes",
        )
    if not 0 <= value < 1 << 8 * count:
        raise UsageError(
            f"{value:#x} does not fit into {count} status byte{'s' if count > 1 else ''}",
            hint="Use a smaller value, or more --bytes.",
            code="status-bytes",
        )


def _stop_if_locking(value: int, before: int) -> None:
    """Stop before setting non-volatile bits that may lock the registers permanently."""
    locking = value & ~before & LOCKS
    if locking:
        raise SafetyStop(
            f"{locking:#x} locks the status registers or the security pages of the flash chip, on many parts permanently",
            hint=f"Check the data sheet of the flash chip; to write it anyway, use --allow {LOCK_CONSENT}.",
            code="status-lock",
            consents=(LOCK_CONSENT,),
        )


def _holds(number: int, wanted: int, got: int) -> bool:
    return not (wanted ^ got) & WRITABLE[number]


def _read(spi: RunSpi, number: int) -> int:
    opcode: int = flash_facts()["commands"][f"read_status{number + 1}"]
    return spi((SpiCommand(opcode=opcode, read_bits=8),))


def _write(
    spi: RunSpi, number: int, data: bytes, now: Callable[[], float], *, non_volatile: bool
) -> None:
    """Write, and wait until the flash chip is ready."""
    opcodes = flash_facts()["commands"]
    enable = opcodes["write_enable" if non_volatile else "write_enable_volatile"]
    write = SpiCommand(opcode=opcodes[f"write_status{number + 1}"], data=data)
    spi((SpiCommand(opcode=enable), write))
    deadline = now() + BUSY_S
    while _read(spi, 0) & BUSY:
        if now() > deadline:
            raise DeviceError(
                f"the flash chip is still busy {BUSY_S:g} s after its status was written",
                hint="Power-cycle the board, then read the status again; check the wiring of the flash chip.",
                code="flash-busy",
            )


MAX_PIECE = 4
ADDRESS_END = 1 << 24
HEADER_SIZE = PARAMETER_SIZE = 8
MOST_TABLES = 16  # the header allows 256; real flash chips have a few
MOST_EXPONENT = 62

ReadSfdp = Callable[[int, int], bytes]


@dataclass(frozen=True, kw_only=True)
class EraseType:
    """One erase command: size in bytes, and its opcode."""

    size: int
    opcode: int


@dataclass(frozen=True, kw_only=True)
class SfdpTable:
    """One table: id (0xFF00: the basic table), revision, address in the SFDP area and length in 32-bit words."""

    id: int
    major: int
    minor: int
    address: int
    words: int


@dataclass(frozen=True, kw_only=True)
class Sfdp:
    """The decoded SFDP area. None: not in this flash chip's table. ``size`` and ``page_size`` in bytes."""

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


def read_sfdp(spi: RunSpi, address: int, size: int) -> bytes:
    """``size`` bytes of the SFDP area. The flash chip must be attached.

    :raises UsageError: code ``sfdp-range``: not 1 to 4 bytes of a 24-bit address space
    """
    check_sfdp_range(address, size)
    facts = flash_facts()["sfdp"]
    command = SpiCommand(
        opcode=facts["opcode"],
        read_bits=8 * size,
        address=address,
        address_bits=facts["address_bits"],
        dummy_cycles=facts["dummy_cycles"],
    )
    return spi((command,)).to_bytes(size, "little")


def check_sfdp_range(address: int, size: int) -> None:
    """Check the range of one read.

    :raises UsageError: code ``sfdp-range``
    """
    if not 1 <= size <= MAX_PIECE or not 0 <= address <= ADDRESS_END - size:
        raise UsageError(
            f"{size} bytes at {address:#x} cannot be read from the SFDP area",
            hint=f"Use an address below {ADDRESS_END:#x} and 1 to {MAX_PIECE} bytes.",
            code="sfdp-range",
        )


def read_whole_sfdp(spi: RunSpi) -> Sfdp:
    """Header, table of contents and basic table, decoded.

    :raises DeviceError: code ``no-sfdp``: the flash chip does not have an SFDP area
    """

    def read(address: int, size: int) -> bytes:
        pieces = range(address, address + size, MAX_PIECE)
        return b"".join(read_sfdp(spi, at, min(MAX_PIECE, address + size - at)) for at in pieces)

    return decode_sfdp(read)


def decode_sfdp(read: ReadSfdp) -> Sfdp:
    """Decode the SFDP area; ``read(address, size)`` is called only for what is needed.

    :raises DeviceError: code ``no-sfdp``
    """
    facts = flash_facts()["sfdp"]
    head = read(0, HEADER_SIZE)
    if int.from_bytes(head[:4], "little") != facts["signature"]:
        raise DeviceError(
            f"this flash chip does not have an SFDP area: it begins with {head[:4].hex(' ')}",
            hint="Old flash chips do not have one: use the data sheet. flash-id shows the part.",
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
    """The available erase types, smallest first; types 3 and 4 share one word, laid out as 1 and 2."""
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
