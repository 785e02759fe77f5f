"""Reads and writes the status registers of the flash chip: up to three, volatile or non-volatile.

Volatile bits last until the next reset of the flash chip, and each new connection resets it (66h, 99h). The meaning of
the bits depends on the manufacturer. Opcodes: ``chips/data/flash-ids.toml`` [commands].
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from espwire.device.consents import check_consents
from espwire.device.flash_id import flash_facts
from espwire.device.spi import RunSpi, SpiCommand
from espwire.errors import DeviceError, SafetyStop, UsageError, VerifyError

REGISTERS = 3
BUSY = 0x01
BUSY_S = (
    2.0  # a write takes up to 15 ms on common flash chips, some tenths of a second on slow ones
)
# without read-only bits: BUSY and WEL; SUS; the current address mode
WRITABLE = (0xFC, 0x7F, 0xFE)
# SRP and SRL protect the registers themselves, LB1 to LB3 burn the security pages; as on W25Q and most others
LOCK_CONSENT = "status-lock"
LOCKS = 0x80 | (0x01 | 0x38) << 8


@dataclass(frozen=True, kw_only=True)
class FlashStatus:
    """``bytes`` status registers as one number: register 1 in bits 7..0, 2 in 15..8, 3 in 23..16."""

    value: int
    bytes: int

    @property
    def registers(self) -> tuple[int, ...]:
        """The registers one by one, number 1 first."""
        return tuple(self.value.to_bytes(self.bytes, "little"))


@dataclass(frozen=True, kw_only=True)
class FlashStatusChange:
    """The effect of a write. ``disturbed``: register 2 before and after, if a write of register 1 alone changed it."""

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
            f"the flash's status is {after.value:#0{2 + 2 * count}x}, not {value:#0{2 + 2 * count}x} as written",
            hint="The part may not have these bits, or its registers may be locked (SRP bits, WP pin).",
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
    """Refuse a wrong number of registers, or a value that does not fit them.

    :raises UsageError: code ``status-bytes``
    """
    if not 1 <= count <= REGISTERS:
        raise UsageError(
            f"a flash chip has 1 to 3 status registers, not {count}",
            hint="Give 1, 2 or 3.",
            code="status-bytes",
        )
    if not 0 <= value < 1 << 8 * count:
        raise UsageError(
            f"{value:#x} does not fit into {count} status byte{'s' if count > 1 else ''}",
            hint="Give a smaller value, or more --bytes.",
            code="status-bytes",
        )


def _stop_if_locking(value: int, before: int) -> None:
    """Stop if a non-volatile write sets bits that may never be cleared again."""
    locking = value & ~before & LOCKS
    if locking:
        raise SafetyStop(
            f"{locking:#x} locks the flash's status registers or its security pages, on many flash chips permanently",
            hint=f"Check the flash chip's data sheet; if you are sure, repeat with --allow {LOCK_CONSENT}.",
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
    """Write one or two registers and wait until that is done."""
    opcodes = flash_facts()["commands"]
    enable = opcodes["write_enable" if non_volatile else "write_enable_volatile"]
    write = SpiCommand(opcode=opcodes[f"write_status{number + 1}"], data=data)
    spi((SpiCommand(opcode=enable), write))
    deadline = now() + BUSY_S
    while _read(spi, 0) & BUSY:
        if now() > deadline:
            raise DeviceError(
                f"the flash chip is still busy {BUSY_S:g} s after a write of its status registers",
                hint="Power the board off and on, then read the status again; suspect the flash's wiring.",
                code="flash-busy",
            )
