"""One connected chip: who it is and what can be asked of it. Plans nothing, writes no files."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator
from functools import cached_property
from types import TracebackType
from typing import Self

from espwire.chips.model import Chip
from espwire.device import baud as baud_rates
from espwire.device import flash_id, flash_registers, memory_access, sfdp, transfer
from espwire.device.double_read import read_word
from espwire.device.flash_id import (
    Connection,
    FlashInfo,
    build_attach_word,
    find_pin_doubts,
    override_flash_voltage,
)
from espwire.device.flash_registers import FlashStatus, FlashStatusChange
from espwire.device.identity import Identity, estimate_crystal, format_mac, measured_mhz
from espwire.device.loader import Loader
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
from espwire.device.sfdp import Sfdp
from espwire.device.streams import read_stream
from espwire.device.stub_image import StubImage
from espwire.device.stub_upload import StubLaunch, climb, find_obstacle, find_over_usb, open_stub
from espwire.errors import DeviceError, Unsupported
from espwire.events import Note, Report, Warned, silent
from espwire.protocol.commands import Command
from espwire.protocol.dialect import BaudRule
from espwire.protocol.opcodes import Op
from espwire.protocol.stub import StubOp
from espwire.sizes import Revision
from espwire.transport.base import Transport

# "auto" or True: ours where there is one; False: none; a path of a vendor's file; what was made of one
StubSource = bool | str | os.PathLike[str] | StubImage


class Device:
    """A chip in its loader. A context manager that closes the link; it does not reset the chip: see ``leave``.

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
        self.security, self._follower = security, tracker or PortTracker(report=report)
        self.flash: FlashInfo | None = None
        self._early_id: int | None = (
            None  # the flash's, from the start of our stub; for the next attach_flash
        )
        self._connection: Connection | None = None
        self._attached: int | None = None  # the last word for SPI_ATTACH; None: as the eFuses say
        self.reenter: Callable[[], None] | None = (
            None  # resets the chip into its ROM loader, where that is possible
        )
        self._identity = identity
        self.stub_failed = False  # one was wanted, and the ROM had to stay
        self.divider: tuple[int, int] | None = (
            None  # of the UART, as it was read at a rate; None: not yet
        )
        self._crystal_odd = False  # measured, and no crystal at all
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
        """The link under the loader."""
        return self.loader.transport

    @property
    def secure_download(self) -> bool:
        """Whether the chip is in Secure Download Mode."""
        return self.loader.secure

    @cached_property
    def features(self) -> tuple[str, ...]:
        """Radios, cores, what is embedded: for people. May read a register or two the first time."""
        return self._identity.features() if self._identity is not None else ()

    @cached_property
    def crystal_mhz(self) -> int | None:
        """The crystal in MHz; None where it cannot be told (Secure Download Mode). May read a register."""
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
        if self._has_rate and abs(measured - mhz) > chip.crystal.warn_if_off_by_mhz:
            text = f"the crystal seems to be one of {measured:.1f} MHz, which no board has; taking it for {mhz} MHz"
            self.report(Warned(code="crystal-odd", text=text))
            self._crystal_odd = not baud_rates.is_plausible(measured)
        return mhz

    @property
    def _has_rate(self) -> bool:
        info = self.transport.info
        return info.can_change_baud and info.kind not in ("usb-jtag", "usb-otg", "tcp")

    @cached_property
    def flash_key_valid(self) -> bool | None:
        """Whether a flash encryption key is burned; None where that cannot be told."""
        known = self._identity if self.security.known else None
        return (
            read_flash_key_valid(self.chip, known.registers, self.security)
            if known is not None
            else None
        )

    @cached_property
    def flash_crypt_config(self) -> int | None:
        """The ESP32's FLASH_CRYPT_CONFIG; None where there is none or it cannot be read."""
        return read_crypt_config(self.chip, self._identity) if self._identity is not None else None

    @cached_property
    def legacy_chip_id(self) -> int | None:
        """The ESP8266's chip id; None on all later chips, which have none."""
        return self._identity.legacy_chip_id() if self._identity is not None else None

    def read_security_info(self) -> SecurityInfo:
        """Ask the loader for its security information, also in Secure Download Mode.

        A running stub may lack the command: then eFuses tell all but ``flags`` and ``eco``, which are None.

        :raises Unsupported: code ``no-security-info``: this ROM has no such command; ``security`` holds what eFuses say
        """
        if Op.GET_SECURITY_INFO not in self.loader.dialect.ops:
            if Op.GET_SECURITY_INFO in self.chip.rom.ops and self._identity is not None:
                self.security = read_fuse_security(
                    self.chip, self._identity.registers, self.security
                )
                return self.security
            raise Unsupported(
                f"the {self.chip.name}'s loader has no GET_SECURITY_INFO",
                hint="chip-info shows what its eFuses tell."
                if self.security.known
                else "It has no security features.",
                code="no-security-info",
                secure_boot=self.security.secure_boot,
                flash_encryption=self.security.flash_encryption,
            )
        registers = self._identity.registers if self._identity is not None else None
        self.security = ask_security(self.loader, self.chip, registers, self.revision)
        return self.security

    def find_stub_obstacle(self, source: StubSource = True) -> str:
        """Why ``use_stub`` would do nothing, in words; empty where it would start one."""
        source = True if source == "auto" else source
        if source is False or self.loader.dialect.sync_value == 0:
            return "one is running already" if source else "none is wanted"
        own = source is True
        return find_obstacle(
            self.chip, self.security, self.revision, secure=self.secure_download, own=own
        )

    def use_stub(self, source: StubSource = True, *, baud: int = 0) -> bool:
        """Start a stub on the chip, faster than its ROM loader and able to do more; this device then speaks with it.

        Returns whether one runs now. Where one does not start, the ROM stays, with a warning ``stub-failed``.

        :param source: "auto" or True: ours, if there is one for this chip; a path: the vendor's JSON format; an image
        :param baud: have this rate before the upload, where only a stub can raise it; else the rate stays
        :raises FileError, DataError: the file
        :raises ConnectError: code ``stub-failed``: it was started, does not answer, and nothing can reset it away
        """
        source = True if source == "auto" else source
        if self.find_stub_obstacle(source):
            return self.loader.dialect.sync_value == 0
        if self.chip.crystal.method != "fixed":
            _ = self.crystal_mhz  # measured by a register that a stub changes
        self.flash = None
        ascent = StubLaunch(
            image=open_stub(source, self.chip),
            attach=self._plan_attach(),  # by the ROM, which knows the pins; a stub finds it so, or does it itself
            reenter=self.reenter,
            baud=baud if self._has_rate else 0,
            over_usb=find_over_usb(self.loader, self.chip, self.revision),
        )
        started = climb(self.loader, self.chip, ascent, self.report)
        self._early_id = started.flash_id if started is not None else None
        self.stub_failed = started is None
        return started is not None

    def attach_flash(self, *, size: int | None = None) -> FlashInfo:
        """Make the flash ready: power, attach, reset out of the application's mode, id, size told to the loader.

        :param size: bytes, if the caller knows better than the id
        :raises DeviceError: codes ``no-flash``, ``nand-flash``: there is nothing that could be read or written
        """
        loader, chip = self.loader, self.chip
        if self._identity is None:
            if chip.flash_power_on is not None:
                text = "some revisions of this chip switch the flash's power by registers, which cannot be done now"
                self.report(Warned(code="flash-power", text=text))
            self._attach()
            self.flash = FlashInfo(jedec=None, size=size)
        else:
            # one flipped bit in what switches it on, and it is silent
            for _ in range(loader.settings.retry.flash_id_attempts):
                flash_id.power_on(loader, chip, self._identity.registers, self.revision)
                self._attach()
                jedec, self._early_id = flash_id.read_flash_id(loader, chip, self._early_id), None
                if not flash_id.is_silent(jedec):
                    break
            flash_id.check_flash_answers(jedec)
            self.flash = flash_id.describe_flash(jedec, size)
        if self.flash.size is None:
            self.flash = self._assume_size(self.flash)
        flash_id.set_params(loader, self.flash.size or chip.default_flash_size)
        return self.flash

    def use_flash_pins(self, connection: Connection) -> None:
        """Where the flash is, if not where the eFuses say: ``"SPI"``, ``"HSPI"``, or the GPIOs of CLK, Q, D, HD, CS.

        For all that touches the flash from now on.

        :raises UsageError: code ``spi-connection``: this chip cannot have its flash there
        """
        build_attach_word(self.chip, connection)
        for text in find_pin_doubts(self.chip, connection):
            self.report(Warned(code="spi-connection", text=text))
        self._connection, self.flash, self._early_id = connection, None, None

    def override_flash_voltage(self, voltage: str) -> None:
        """Have the ESP32's regulator give the flash ``1.8V`` or ``1.9V``, or nothing (``OFF``), until the next reset.

        :raises UsageError: code ``flash-voltage``: this chip has no such regulator, or not this voltage
        :raises Unsupported: code ``secure-download-mode``
        """
        override_flash_voltage(self.loader, self.chip, voltage)
        self._early_id = None
        self.report(Note(text=f"the flash's supply is set to {voltage} until the next reset"))

    def flash_md5(self, address: int, size: int) -> bytes:
        """The MD5 of flash contents, 16 bytes, computed by the chip.

        :raises Unsupported: the loader cannot
        """
        return transfer.flash_md5(self.loader, address, size)

    def read_flash(self, address: int, size: int) -> Iterator[bytes]:
        """Flash contents in pieces as they come.

        :raises Unsupported: at once, where the loader cannot read
        """
        if self.loader.supports(StubOp.READ_OPEN):
            return read_stream(self.loader, address, size)
        if self.loader.supports(Op.READ_FLASH):
            return transfer.read_packets(self.loader, address, size)
        self.loader.require(Op.READ_FLASH_SLOW)
        return transfer.read_slow(self.loader, address, size)

    def read_mem(self, address: int) -> MemWord:
        """The 32-bit word at ``address``, a multiple of 4; ``espwire.dump_mem`` reads more.

        :raises UsageError: codes ``unaligned``, ``memory-range``
        :raises Unsupported: code ``secure-download-mode``
        :raises DeviceError: code ``memory-access``: there is nothing at that address
        """
        return memory_access.read_mem(self.loader, address)

    def write_mem(self, address: int, value: int, mask: int = 0xFFFFFFFF) -> MemWrite:
        """Write the bits of ``mask`` of the word at ``address``; never repeated, never read back.

        :raises UsageError, Unsupported, DeviceError: as ``read_mem``
        """
        return memory_access.write_mem(self.loader, address, value, mask)

    def read_flash_status(self, count: int = 1) -> FlashStatus:
        """The flash part's first ``count`` status registers (1 to 3). Attaches the flash, which resets the part.

        :raises UsageError: code ``status-bytes``
        :raises Unsupported: code ``secure-download-mode``
        """
        flash_registers.check_status(count)
        self._reach_part()
        return flash_registers.read_status(self.loader, self.chip, count)

    def write_flash_status(
        self,
        value: int,
        count: int = 1,
        *,
        non_volatile: bool = False,
        consents: Collection[str] = (),
    ) -> FlashStatusChange:
        """Write the first ``count`` status registers, register 1 in the low byte, and read them back.

        :param non_volatile: to last without power; else until the part's next reset
        :param consents: ``status-lock``: also set bits that lock the part, perhaps for ever
        :raises UsageError, Unsupported: as ``read_flash_status``
        :raises SafetyStop: code ``status-lock``
        :raises VerifyError: code ``status-not-taken``
        """
        flash_registers.check_status(count, value)
        self._reach_part()
        return flash_registers.write_status(
            self.loader, self.chip, value, count, non_volatile=non_volatile, consents=consents
        )

    def read_flash_sfdp(self, address: int, size: int) -> bytes:
        """1 to 4 bytes of what the flash part tells of itself (SFDP), as they are.

        :raises UsageError: code ``sfdp-range``
        :raises Unsupported: code ``secure-download-mode``
        """
        sfdp.check_sfdp_range(address, size)
        self._reach_part()
        return sfdp.read_sfdp(self.loader, self.chip, address, size)

    def decode_flash_sfdp(self) -> Sfdp:
        """What the flash part tells of itself: size, page, erase commands, quad enable.

        :raises Unsupported: code ``secure-download-mode``
        :raises DeviceError: code ``no-sfdp``
        """
        self._reach_part()
        return sfdp.read_whole_sfdp(self.loader, self.chip)

    def change_baud(self, baud: int) -> None:
        """Bring chip and port to ``baud``. A port without a rate (TCP, native USB) stays as it is.

        :raises Unsupported: this loader cannot
        :raises DeviceError, ConnectError: codes ``clock-measurement``, ``baud-change``
        """
        if baud == self.loader.baud:
            return
        if not self._has_rate:
            self.report(Note(text="this port has no baud rate to change"))
            return
        registers = self._identity.registers if self._identity is not None else None
        needs_crystal = self.loader.dialect.baud in (
            BaudRule.ASSUMES_40_MHZ,
            BaudRule.MISTAKEN_CRYSTAL,
        )
        crystal = self.crystal_mhz if needs_crystal else None
        if needs_crystal and self._crystal_odd:
            raise DeviceError(
                "the chip's crystal cannot be measured, and its baud rate hangs on it",
                hint="Leave --baud at the rate the chip answers at.",
                code="clock-measurement",
            )
        baud_rates.change_baud(self.loader, self.chip, registers, baud, crystal)

    def leave(self, after: After = "hard-reset") -> str:
        """Leave the chip as asked; the link stays open. If the reset takes the port away, ``link`` is a new one.

        Returns what reset the chip: ``"hard"``, ``"soft"`` or ``"watchdog"``; empty: it was not reset.

        :raises Unsupported: this chip has no such way
        :raises ConnectError: code ``baud-change``: a loader that was to stay is lost on the way back to 115200 baud
        """
        if after == "no-reset" and self.loader.dialect.sync_value == 0 and self.reenter is not None:
            self.reenter()  # who comes next expects a ROM; ``no-reset-stub`` leaves the stub there
        stays = after in ("no-reset", "no-reset-stub") and self.loader.baud > baud_rates.ROM_BAUD
        if stays and self._has_rate and self.loader.dialect.baud is not BaudRule.NONE:
            self.change_baud(baud_rates.ROM_BAUD)  # whoever comes next asks at this rate
        if after == "soft-reset" and self.flash is None:
            self._attach()  # the loader leaves by a flash command
        return leave(self.loader, self.chip, after, self.report, self._follower)

    def run(self) -> None:
        """Have the loader start the application; no line is moved, and the loader is gone.

        :raises CommandFailed: it refused
        """
        if self.flash is None:
            self._attach()
        run_application(self.loader, self.report, self._follower)

    def reset(self) -> None:
        """Start the application by the lines."""
        self.leave("hard-reset")

    def _attach(self) -> None:
        attached, request = self._attached, self._plan_attach()
        if request is None:
            flash_id.attach_by_registers(self.loader, self.chip)
        elif (
            self.loader.dialect.capabilities is None or attached != self._attached
        ):  # else the ROM has done it
            self.loader.call(request, repeatable=True)

    def _plan_attach(self) -> Command | None:
        self._attached = (
            None if self._connection is None else build_attach_word(self.chip, self._connection)
        )
        return flash_id.plan_attach(self.loader.dialect, self.chip, self._identity, self._attached)

    def _reach_part(self) -> None:
        """For commands that speak to the flash part itself: it is attached, and registers are open.

        :raises Unsupported: before anything is sent
        """
        self.loader.require(Op.READ_REG)
        if self.flash is None:
            self.attach_flash()

    def _assume_size(self, flash: FlashInfo) -> FlashInfo:
        size = self.chip.default_flash_size
        why = (
            "in Secure Download Mode it cannot be read"
            if flash.jedec is None
            else f"its id is {flash.jedec:#08x}"
        )
        text = f"the flash size is not known ({why}): assuming {size >> 20} MB; give it with --flash-size"
        self.report(Warned(code="flash-size-unknown", text=text))
        return FlashInfo(
            jedec=flash.jedec,
            manufacturer=flash.manufacturer,
            device=flash.device,
            size=size,
            maker_name=flash.maker_name,
            assumed=True,
        )
