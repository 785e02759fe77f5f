"""One connected chip: its identity, and the operations on it."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from types import TracebackType
from typing import Self

from espwire.chips.model import Chip
from espwire.device import baud as baud_rates
from espwire.device import flash_id, flash_registers, memory_access
from espwire.device.backends.base import FlashBackend
from espwire.device.backends.stub import choose_backend
from espwire.device.double_read import read_word
from espwire.device.flash_id import (
    Connection,
    FlashInfo,
    build_attach_word,
    find_pin_doubts,
    override_flash_voltage,
)
from espwire.device.flash_registers import FlashStatus, FlashStatusChange, Sfdp
from espwire.device.identity import Identity, estimate_crystal, format_mac, measured_mhz
from espwire.device.loader import Direction, Loader
from espwire.device.memory_access import MemWord, MemWrite
from espwire.device.reconnect import PortTracker
from espwire.device.reset import leave, run_application
from espwire.device.reset_sequences import After
from espwire.device.security import (
    SecurityInfo,
    ask_security,
    read_crypt_config,
    read_flash_key_valid,
    read_fuse_security,
)
from espwire.device.stub_image import StubImage
from espwire.device.stub_upload import (
    NO_OTG,
    StubLaunch,
    find_obstacle,
    find_own_port,
    launch_stub,
    open_stub,
)
from espwire.errors import DeviceError, Unsupported
from espwire.events import Note, Report, Warned, silent
from espwire.protocol.commands import Command
from espwire.protocol.dialect import BaudRule
from espwire.protocol.opcodes import Op
from espwire.sizes import Revision, extract
from espwire.transport.base import Transport

# "auto" or True: ours if the chip has one; False: none; path of a file in the vendor's format, or its content
StubSource = bool | str | os.PathLike[str] | StubImage


class Device:
    """A chip in its bootloader. A context manager that closes the port but does not reset the chip: see ``leave``.

    ``description`` is the product's name. In Secure Download Mode (``secure_download``) no register can be read:
    ``mac`` is empty, ``revision`` is v0.0 and ``revision_known`` False, ``features`` is empty.
    """

    def __init__(
        self,
        chip: Chip,
        loader: Loader,
        identity: Identity | None,
        security: SecurityInfo,
        report: Report = silent,
        tracker: PortTracker | None = None,
    ) -> None:
        self.chip, self.loader, self.report = chip, loader, report
        self.security, self._tracker = security, tracker or PortTracker(report=report)
        self.flash: FlashInfo | None = None
        self._stub_flash_id: int | None = (
            None  # the flash's, from the start of our stub; for the next attach_flash
        )
        self._connection: Connection | None = None
        self._attached: int | None = None  # the last word for SPI_ATTACH; None: as the eFuses say
        self.reenter: Callable[[], None] | None = (
            None  # resets the chip into its ROM loader, where that is possible
        )
        self._identity = identity
        self.stub_failed = False  # one was wanted, and the ROM had to stay
        self._ram_is_doubtful = False  # a stub did not start at once: its pieces may be anywhere
        self.divider: tuple[int, int] | None = (
            None  # of the UART, as it was read at a rate; None: not yet
        )
        self._crystal_implausible = False  # measured, and no crystal at all
        self.revision_known = identity is not None
        self.revision = identity.revision() if identity is not None else Revision(0)
        self.description = identity.description() if identity is not None else chip.name
        self.mac = format_mac(identity.mac()) if identity is not None else ""
        eui64 = identity.eui64() if identity is not None else None
        self.eui64 = format_mac(eui64) if eui64 is not None else None

    def __repr__(self) -> str:
        known = [str(self.revision)] * self.revision_known + [f"MAC {self.mac}"] * bool(self.mac)
        return f"<Device {' '.join([self.description, *known])} at {self.transport.info.name}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the port; a second time does nothing."""
        self.transport.close()

    @property
    def transport(self) -> Transport:
        """The transport under the loader."""
        return self.loader.transport

    @property
    def backend(self) -> FlashBackend:
        """Flash as the loader that is running reaches it: another one after a stub was started."""
        return choose_backend(self.loader, self.chip)

    @property
    def secure_download(self) -> bool:
        """Whether the chip is in Secure Download Mode."""
        return self.loader.secure

    @cached_property
    def features(self) -> tuple[str, ...]:
        """Radios, cores, embedded memory, as text. The first use may read registers."""
        return self._identity.features() if self._identity is not None else ()

    @cached_property
    def crystal_mhz(self) -> int | None:
        """The crystal in MHz; None: unknown (Secure Download Mode). The first use may read a register."""
        chip = self.chip
        if chip.crystal.method == "fixed":
            return chip.crystal.mhz[0]
        if self._identity is None:
            return None
        baud, divider = self.divider or (
            self.loader.baud,
            read_word(self.loader, chip.uart.clock_divider_address),
        )
        mhz, measured = estimate_crystal(chip, baud, divider), measured_mhz(chip, baud, divider)
        if self.has_rate and abs(measured - mhz) > chip.crystal.warn_if_off_by_mhz:
            text = f"the crystal measures {measured:.1f} MHz, which is not a usual value; assuming {mhz} MHz"
            self.report(Warned(code="crystal-odd", text=text))
            self._crystal_implausible = not baud_rates.is_plausible(measured)
        return mhz

    @property
    def has_rate(self) -> bool:
        """Whether the port's baud rate is that of the wire."""
        info = self.transport.info
        return info.can_change_baud and info.kind not in ("usb-jtag", "usb-otg", "tcp")

    @cached_property
    def flash_key_valid(self) -> bool | None:
        """Whether a flash encryption key is burned; None: unknown."""
        known = self._identity if self.security.known else None
        return (
            read_flash_key_valid(self.chip, known.registers, self.security)
            if known is not None
            else None
        )

    @cached_property
    def flash_crypt_config(self) -> int | None:
        """FLASH_CRYPT_CONFIG of the ESP32; None: no such field, or not readable."""
        return read_crypt_config(self.chip, self._identity) if self._identity is not None else None

    @cached_property
    def secure_version(self) -> int | None:
        """The anti-rollback version in the eFuses; None: not known, or the chip has none."""
        field, known = self.chip.security.secure_version, self._identity
        if field is None or known is None or self.secure_download:
            return None
        return extract(known.registers.word(field.address), field.shift, field.bits).bit_count()

    @cached_property
    def legacy_chip_id(self) -> int | None:
        """The chip id of the ESP8266; None on all other chips."""
        return self._identity.legacy_chip_id() if self._identity is not None else None

    def read_security_info(self) -> SecurityInfo:
        """Read the security information, also in Secure Download Mode.

        If a running stub lacks the command, eFuses are used, and ``flags`` and ``eco`` are None.

        :raises Unsupported: code ``no-security-info``: this ROM lacks the command; ``security`` is read from eFuses
        """
        if Op.GET_SECURITY_INFO not in self.loader.dialect.ops:
            if Op.GET_SECURITY_INFO in self.chip.rom.ops and self._identity is not None:
                self.security = read_fuse_security(
                    self.chip, self._identity.registers, self.security
                )
                return self.security
            raise Unsupported(
                f"the ROM bootloader of the {self.chip.name} does not support GET_SECURITY_INFO",
                hint="Use chip-info to show what the eFuses contain."
                if self.security.known
                else "This chip does not have security features.",
                code="no-security-info",
                secure_boot=self.security.secure_boot,
                flash_encryption=self.security.flash_encryption,
            )
        registers = self._identity.registers if self._identity is not None else None
        self.security = ask_security(self.loader, self.chip, registers, self.revision)
        return self.security

    def find_stub_obstacle(self, source: StubSource = True) -> str:
        """Why ``use_stub`` would not start a stub, as text; empty if it would."""
        source = True if source == "auto" else source
        if source is False or self.loader.dialect.sync_value == 0:
            return "one is already running" if source else "it is switched off"
        own = source is True
        return find_obstacle(
            self.chip,
            self.security,
            self.revision,
            secure=self.secure_download,
            own=own,
            over_otg=self.loader.transport.info.kind == "usb-otg",
        )

    def use_stub(self, source: StubSource = True, *, baud: int = 0, trial: bool = False) -> bool:
        """Start a stub flasher, which is faster and has more functions than the ROM bootloader, and use it.

        Returns whether a stub runs now. If it does not start, the ROM stays in use, with a warning ``stub-failed``.

        :param source: "auto" or True: ours, if this chip has one; a path: a file in the vendor's JSON format; an image
        :param baud: rate for the upload if only a stub can raise it; else the rate stays
        :param trial: give up when the first reply is missing, without a warning; the chip is then back in its ROM
        :raises FileError, DataError: the file cannot be used
        :raises ConnectError: code ``stub-failed``: the stub does not answer, and the chip cannot be reset
        """
        source = True if source == "auto" else source
        if self.find_stub_obstacle(source):
            return self.loader.dialect.sync_value == 0
        if self.chip.crystal.method != "fixed":
            _ = self.crystal_mhz  # derived from a register that a stub changes
        port = find_own_port(self.loader, self.chip, self.revision)
        if port == "usb-otg" and source is True:
            self.report(Note(text=f"the ROM loader is used: {NO_OTG}"))
            return False
        self.flash = None
        launch = StubLaunch(
            image=open_stub(source, self.chip, self.revision),
            attach=self._plan_attach(),
            reenter=self.reenter,
            baud=baud if self.has_rate else 0,
            over_usb=port == "usb-jtag",
            trial=trial,
        )
        started = launch_stub(self.loader, self.chip, launch, self.report)
        self._stub_flash_id = started.flash_id if started is not None else None
        self.stub_failed = started is None
        self._ram_is_doubtful |= started is None or started.retried
        return started is not None

    def attach_flash(self, *, size: int | None = None) -> FlashInfo:
        """Make the flash chip ready: power, connection, reset, JEDEC ID, and its size sent to the loader.

        :param size: in bytes, overrides the size in the id
        :raises DeviceError: codes ``no-flash``, ``nand-flash``: there is no NOR flash chip
        """
        loader, chip = self.loader, self.chip
        if self._identity is None:
            if chip.flash_power_on is not None:
                text = "some revisions of this chip need registers written to power the flash chip, which is not possible in this mode"
                self.report(Warned(code="flash-power", text=text))
            self._attach()
            self.flash = FlashInfo(jedec=None, size=size)
        else:
            # one flipped bit in these requests can leave it without power
            for _ in range(loader.settings.retry.flash_id_attempts):
                flash_id.power_on(loader, chip, self._identity.registers, self.revision)
                self._attach()
                jedec, self._stub_flash_id = (
                    flash_id.read_flash_id(self.backend.spi, self._stub_flash_id),
                    None,
                )
                if not flash_id.is_silent(jedec):
                    break
            flash_id.check_flash_answers(jedec)
            self.flash = flash_id.describe_flash(jedec, size)
            if doubt := flash_id.find_type_doubt(chip, self._identity.registers, jedec):
                self.report(Warned(code="flash-type", text=doubt))
        if self.flash.size is None:
            self.flash = self._assume_size(self.flash)
        flash_id.set_params(loader, self.flash.size or chip.flash.default_size)
        return self.flash

    def use_flash_pins(self, connection: Connection) -> None:
        """Override the flash pins from eFuses: ``"SPI"``, ``"HSPI"``, or the GPIOs of CLK, Q, D, HD, CS.

        :raises UsageError: code ``spi-connection``: this chip does not support that
        """
        build_attach_word(self.chip, connection)
        for text in find_pin_doubts(self.chip, connection):
            self.report(Warned(code="spi-connection", text=text))
        self._connection, self.flash, self._stub_flash_id = connection, None, None

    def override_flash_voltage(self, voltage: str) -> None:
        """Set the ESP32's regulator for the flash to ``1.8V``, ``1.9V`` or ``OFF``, until the next reset.

        :raises UsageError: code ``flash-voltage``: this chip has no such regulator, or not this voltage
        :raises Unsupported: code ``secure-download-mode``
        """
        override_flash_voltage(self.loader, self.chip, voltage)
        self._stub_flash_id = None
        self.report(Note(text=f"the flash supply is set to {voltage} until the next reset"))

    def flash_md5(self, address: int, size: int) -> bytes:
        """The MD5 of flash contents, 16 bytes, computed by the chip.

        :raises Unsupported: the loader cannot
        """
        return self.backend.digests(address, size, size)[0]

    def read_flash(self, address: int, size: int) -> Iterator[bytes]:
        """Flash contents in order and checked, in pieces as the loader brings them.

        :raises Unsupported: the loader cannot read
        """
        return self.backend.read(address, size)

    def read_mem(self, address: int) -> MemWord:
        """The 32-bit word at ``address``, a multiple of 4; ``espwire.dump_mem`` reads more.

        :raises UsageError: codes ``unaligned``, ``memory-range``
        :raises Unsupported: code ``secure-download-mode``
        :raises DeviceError: code ``memory-access``: there is nothing at that address; ``ram-overwritten``: as ``check_ram``
        """
        self.check_ram(address, 4)
        return memory_access.read_mem(self.loader, address)

    def check_ram(self, address: int, size: int) -> None:
        """Check that no failed start of a stub can have overwritten this memory: its upload may have gone anywhere in RAM.

        :raises DeviceError: code ``ram-overwritten``
        """
        banks = [region for region in self.chip.memory.map if region.name.endswith("RAM")]
        hit = any(bank.start < address + size and address < bank.end for bank in banks)
        if hit and self._ram_is_doubtful:
            raise DeviceError(
                "the stub did not start at the first attempt, which may have overwritten this memory",
                hint="Repeat with --no-stub.",
                code="ram-overwritten",
            )

    def write_mem(self, address: int, value: int, mask: int = 0xFFFFFFFF) -> MemWrite:
        """Write the bits of ``mask`` of the word at ``address``. Sent once, and not read back.

        :raises UsageError, Unsupported, DeviceError: as ``read_mem``
        """
        return memory_access.write_mem(self.loader, address, value, mask)

    def read_flash_status(self, count: int = 1) -> FlashStatus:
        """The first ``count`` status registers (1 to 3) of the flash chip. Attaches it first, which resets it.

        :raises UsageError: code ``status-bytes``
        :raises Unsupported: code ``secure-download-mode``
        """
        flash_registers.check_status(count)
        self._prepare_flash()
        return flash_registers.read_status(self.backend.spi, count)

    def write_flash_status(
        self,
        value: int,
        count: int = 1,
        *,
        non_volatile: bool = False,
        consents: Collection[str] = (),
    ) -> FlashStatusChange:
        """Write the first ``count`` status registers, register 1 in the low byte, and read them back.

        :param non_volatile: keep the bits without power; else they last until the next reset of the flash chip
        :param consents: ``status-lock``: also set bits that may lock the flash chip permanently
        :raises UsageError, Unsupported: as ``read_flash_status``
        :raises SafetyStop: code ``status-lock``
        :raises VerifyError: code ``status-not-taken``
        """
        flash_registers.check_status(count, value)
        self._prepare_flash()
        return flash_registers.write_status(
            self.backend.spi,
            value,
            count,
            now=self.transport.now,
            non_volatile=non_volatile,
            consents=consents,
        )

    def read_flash_sfdp(self, address: int, size: int) -> bytes:
        """1 to 4 bytes of the flash chip's SFDP area.

        :raises UsageError: code ``sfdp-range``
        :raises Unsupported: code ``secure-download-mode``
        """
        flash_registers.check_sfdp_range(address, size)
        self._prepare_flash()
        return flash_registers.read_sfdp(self.backend.spi, address, size)

    def decode_flash_sfdp(self) -> Sfdp:
        """The flash chip's decoded SFDP tables: size, page, erase commands, quad enable.

        :raises Unsupported: code ``secure-download-mode``
        :raises DeviceError: code ``no-sfdp``
        """
        self._prepare_flash()
        return flash_registers.read_whole_sfdp(self.backend.spi)

    def tune_line(self, direction: Direction, size: int) -> None:
        """Before a transfer of ``size`` bytes on the line: with ``baud="auto"``, look for a faster rate if that pays."""
        if self.loader.tuner is not None:
            self.loader.tuner.tune(direction, size)

    def change_baud(self, baud: int, *, proofs: Sequence[float] = baud_rates.PROOFS_S) -> None:
        """Change chip and port to ``baud``. A port without a rate (TCP, native USB) stays as it is.

        :param proofs: seconds to wait for each reply to SYNC at the new rate
        :raises Unsupported: this loader cannot
        :raises DeviceError, ConnectError: codes ``clock-measurement``, ``baud-change``
        """
        if baud == self.loader.baud:
            return
        if not self.has_rate:
            self.report(Note(text="this port has no baud rate to change"))
            return
        registers = self._identity.registers if self._identity is not None else None
        needs_crystal = self.loader.dialect.baud in (
            BaudRule.ASSUMES_40_MHZ,
            BaudRule.MISTAKEN_CRYSTAL,
        )
        crystal = self.crystal_mhz if needs_crystal else None
        if needs_crystal and self._crystal_implausible:
            raise DeviceError(
                "the crystal frequency of the chip cannot be measured, and the baud rate depends on it",
                hint="Omit --baud.",
                code="clock-measurement",
            )
        baud_rates.change_baud(self.loader, self.chip, registers, baud, crystal, proofs=proofs)

    def leave(self, after: After = "hard-reset") -> str:
        """Leave the chip as ``after`` demands. The port stays open; ``transport`` is a new one if the reset took it away.

        Returns what reset the chip: ``"hard"``, ``"soft"`` or ``"watchdog"``; empty: it was not reset.

        :raises Unsupported: this chip cannot be reset in this way
        :raises ConnectError: code ``baud-change``: a loader that was to stay is lost on the way back to 115200 baud
        """
        if after == "no-reset" and self.loader.dialect.sync_value == 0 and self.reenter is not None:
            self.reenter()  # the next program expects a ROM; ``no-reset-stub`` leaves the stub running
        stays = after in ("no-reset", "no-reset-stub") and self.loader.baud > baud_rates.ROM_BAUD
        if stays and self.has_rate and self.loader.dialect.baud is not BaudRule.NONE:
            self.change_baud(baud_rates.ROM_BAUD)  # the next program starts at this rate
        if after == "soft-reset" and self.flash is None:
            self._attach()  # a soft reset is a flash command
        return leave(self.loader, self.chip, after, self.report, self._tracker)

    def run(self) -> None:
        """Have the loader start the application, without a reset.

        :raises CommandFailed: the loader refused
        """
        if self.flash is None:
            self._attach()
        run_application(self.loader, self.report, self._tracker)

    def reset(self) -> None:
        """Start the application by the port's lines."""
        self.leave("hard-reset")

    def start_application(self, baud: int = baud_rates.ROM_BAUD) -> bytes:
        """Start the application, and listen to it: ``transport`` returns its output from now on. ``reenter`` ends that.

        Returns output that was received meanwhile.

        :param baud: rate of the application's output
        :raises Unsupported, CommandFailed: as ``leave`` and ``run``
        """
        if self.has_rate and self.loader.baud > baud_rates.ROM_BAUD:
            self.change_baud(baud_rates.ROM_BAUD)  # most applications print at this rate
        self._tracker.output = b""
        if self.transport.info.can_reset:
            self.leave("hard-reset")
        else:
            self.run()
        self.loader.dialect, self.flash = self.chip.rom, None
        self.transport.set_baud(baud)
        return self._tracker.output

    def _attach(self) -> None:
        attached, request = self._attached, self._plan_attach()
        if request is None:
            flash_id.attach_by_registers(self.loader, self.chip)
        elif not self.loader.dialect.sealed or attached != self._attached:
            self.loader.call(request, repeatable=True)  # before our stub's start, the ROM does it

    def _plan_attach(self) -> Command | None:
        self._attached = (
            None if self._connection is None else build_attach_word(self.chip, self._connection)
        )
        return flash_id.plan_attach(self.loader.dialect, self.chip, self._identity, self._attached)

    def _prepare_flash(self) -> None:
        """Prepare a command to the flash chip itself: registers must be accessible, and the flash chip attached.

        :raises Unsupported: before anything is sent
        """
        self.loader.require(Op.READ_REG)
        if self.flash is None:
            self.attach_flash()

    def _assume_size(self, flash: FlashInfo) -> FlashInfo:
        size = self.chip.flash.default_size
        reason = (
            "not readable in Secure Download Mode"
            if flash.jedec is None
            else f"JEDEC ID {flash.jedec:#08x}"
        )
        text = f"unknown flash size ({reason}): assuming {size >> 20} MB; set it with --flash-size"
        self.report(Warned(code="flash-size-unknown", text=text))
        return replace(flash, size=size, assumed=True)
