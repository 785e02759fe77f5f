"""The flash part's status registers, up to three: read, and written with the write enable that was asked for.

Volatile bits last until the part's next reset, and each new connection resets it (66h, 99h). What the bits mean is
the maker's. Opcodes: ``chips/data/flash-ids.toml`` [commands].
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from espwire.chips.model import Chip
from espwire.device.consents import check_consents
from espwire.device.flash_id import flash_facts
from espwire.device.loader import Loader
from espwire.device.spi import SpiCommand, run_spi_command, run_spi_commands
from espwire.errors import DeviceError, SafetyStop, UsageError, VerifyError
from espwire.protocol.opcodes import Op

REGISTERS = 3
BUSY = 0x01
BUSY_S = (
    2.0  # a write takes 15 ms at most on common parts, and some tenths of a second on slow ones
)
# bits that a write is not for: BUSY and WEL; SUS; the address mode that is in use now
WRITABLE = (0xFC, 0x7F, 0xFE)
# SRP and SRL protect the registers themselves, LB1 to LB3 burn the security pages; as on W25Q and most that follow it
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
    """What a write did. ``disturbed``: register 2 before and after, if a write of register 1 alone changed it."""

    before: FlashStatus
    after: FlashStatus
    non_volatile: bool
    disturbed: tuple[int, int] | None = None


def read_status(loader: Loader, chip: Chip, count: int = 1) -> FlashStatus:
    """The first ``count`` registers. The flash is attached.

    :raises UsageError: code ``status-bytes``: not 1, 2 or 3
    :raises Unsupported: code ``secure-download-mode``, before anything is sent
    """
    check_status(count)
    loader.require(Op.READ_REG)
    values = (_read(loader, chip, number) for number in range(count))
    return FlashStatus(value=int.from_bytes(bytes(values), "little"), bytes=count)


def write_status(
    loader: Loader,
    chip: Chip,
    value: int,
    count: int = 1,
    *,
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
    :raises Unsupported: code ``secure-download-mode``, before anything is sent
    :raises DeviceError: code ``flash-busy``: the part does not finish
    :raises VerifyError: code ``status-not-taken``: what was read back differs
    """
    check_status(count, value)
    allowed = check_consents(consents)
    loader.require(Op.WRITE_REG)
    before = read_status(loader, chip, count)
    if non_volatile and LOCK_CONSENT not in allowed:
        _stop_if_locking(value, before.value)
    neighbour = _read(loader, chip, 1) if count == 1 else None
    wanted = value.to_bytes(count, "little")
    _write(loader, chip, 0, wanted[:2], non_volatile=non_volatile)
    for number in range(count):
        if not _holds(number, wanted[number], _read(loader, chip, number)):
            _write(loader, chip, number, wanted[number : number + 1], non_volatile=non_volatile)
    after = read_status(loader, chip, count)
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
    if neighbour is not None and (now := _read(loader, chip, 1)) != neighbour:
        disturbed = (neighbour, now)
    return FlashStatusChange(
        before=before, after=after, non_volatile=non_volatile, disturbed=disturbed
    )


def check_status(count: int, value: int = 0) -> None:
    """Refuse what is no set of registers, or no value for it.

    :raises UsageError: code ``status-bytes``
    """
    if not 1 <= count <= REGISTERS:
        raise UsageError(
            f"a flash has no {count} status registers to choose",
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
    """Bits that were clear and, once set to last, may never be cleared again."""
    locking = value & ~before & LOCKS
    if locking:
        raise SafetyStop(
            f"{locking:#x} locks the flash's status registers or its security pages, on many parts for ever",
            hint=f"Look into the part's data sheet; if you are sure, repeat with --allow {LOCK_CONSENT}.",
            code="status-lock",
            consents=(LOCK_CONSENT,),
        )


def _holds(number: int, wanted: int, got: int) -> bool:
    return not (wanted ^ got) & WRITABLE[number]


def _read(loader: Loader, chip: Chip, number: int) -> int:
    opcode: int = flash_facts()["commands"][f"read_status{number + 1}"]
    return run_spi_command(loader, chip, opcode, read_bits=8)


def _write(loader: Loader, chip: Chip, number: int, data: bytes, *, non_volatile: bool) -> None:
    """One write, and its end."""
    opcodes = flash_facts()["commands"]
    enable = opcodes["write_enable" if non_volatile else "write_enable_volatile"]
    write = SpiCommand(opcode=opcodes[f"write_status{number + 1}"], data=data)
    run_spi_commands(loader, chip, (SpiCommand(opcode=enable), write))
    deadline = loader.transport.now() + BUSY_S
    while _read(loader, chip, 0) & BUSY:
        if loader.transport.now() > deadline:
            raise DeviceError(
                f"the flash is still busy {BUSY_S:g} s after a write of its status",
                hint="Power the board off and on, then read the status again; suspect the flash's wiring.",
                code="flash-busy",
            )
