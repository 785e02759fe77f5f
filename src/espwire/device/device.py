"""One connected chip: who it is and what can be asked of it. Plans nothing, writes no files."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from types import TracebackType
from typing import Self

from espwire.chips.model import Chip
from espwire.device import baud as baud_rates
from espwire.device import flash_id, transfer
from espwire.device.flash_id import FlashInfo
from espwire.device.identity import Identity, estimate_crystal, format_mac, measured_mhz
from espwire.device.leave import leave
from espwire.device.lines import After
from espwire.device.loader import Loader
from espwire.device.reopen import Follower
from espwire.device.security import SecurityInfo, read_flash_key_valid
from espwire.errors import DeviceError, Unsupported
from espwire.events import Note, Report, Warned, silent
from espwire.link.base import Link
from espwire.wire.commands import Op
from espwire.wire.dialect import BaudRule


class Device:
    """A chip in its loader. A context manager that closes the link; it does not reset the chip: see ``leave``.

    ``description`` is the product's name. In Secure Download Mode (``secure_download``) no register can be read:
    ``mac`` is empty, ``revision`` is 0 and ``revision_known`` False, ``features`` is empty.
    """

    def __init__(
        self,
        chip: Chip,
        loader: Loader,
        identity: Identity | None,
        security: SecurityInfo,
        report: Report = silent,
        follower: Follower | None = None,
    ) -> None:
        self.chip, self.loader, self.report = chip, loader, report
        self._follower = follower or Follower(report=report)
        self.security = security
        self.flash: FlashInfo | None = None
        self._identity = identity
        self._crystal_odd = False  # measured, and no crystal at all
        self.revision_known = identity is not None
        self.revision = identity.revision() if identity is not None else 0
        self.description = identity.description() if identity is not None else chip.name
        self.mac = format_mac(identity.mac()) if identity is not None else ""
        eui64 = identity.eui64() if identity is not None else None
        self.eui64 = format_mac(eui64) if eui64 is not None else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the port; a second time does nothing."""
        self.link.close()

    @property
    def link(self) -> Link:
        """The link under the loader."""
        return self.loader.link

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
        divider = self.loader.read_reg(chip.uart.clock_divider_address)
        mhz = estimate_crystal(chip, self.loader.baud, divider)
        measured = measured_mhz(chip, self.loader.baud, divider)
        if self._has_rate and abs(measured - mhz) > chip.crystal.warn_if_off_by_mhz:
            text = f"the crystal seems to be one of {measured:.1f} MHz, which no board has; taking it for {mhz} MHz"
            self.report(Warned(code="crystal-odd", text=text))
            self._crystal_odd = not baud_rates.is_plausible(measured)
        return mhz

    @property
    def _has_rate(self) -> bool:
        info = self.link.info
        return info.can_change_baud and info.kind not in ("usb-jtag", "usb-otg", "tcp")

    @cached_property
    def flash_key_valid(self) -> bool | None:
        """Whether a flash encryption key is burned; None where that cannot be told."""
        if self._identity is None or not self.security.known:
            return None
        return read_flash_key_valid(self.chip, self._identity.registers, self.security)

    def attach_flash(self, *, size: int | None = None) -> FlashInfo:
        """Make the flash ready: power, attach, reset out of the application's mode, id, size told to the loader.

        :param size: bytes, if the caller knows better than the id
        """
        loader, chip = self.loader, self.chip
        if self._identity is None:
            if chip.flash_power_on is not None:
                text = "some revisions of this chip switch the flash's power by registers, which cannot be done now"
                self.report(Warned(code="flash-power", text=text))
            flash_id.attach(loader, chip, None)
            self.flash = FlashInfo(jedec=None, size=size)
        else:
            flash_id.power_on(loader, chip, self._identity.registers, self.revision)
            flash_id.attach(loader, chip, self._identity)
            self.flash = flash_id.describe_flash(flash_id.read_flash_id(loader, chip), size)
        if self.flash.size is None:
            self.flash = self._assume_size(self.flash)
        flash_id.set_params(loader, self.flash.size or chip.default_flash_size)
        return self.flash

    def flash_md5(self, address: int, size: int) -> bytes:
        """The MD5 of flash contents, 16 bytes, computed by the chip.

        :raises Unsupported: the loader cannot
        """
        return transfer.flash_md5(self.loader, address, size)

    def read_flash(self, address: int, size: int) -> Iterator[bytes]:
        """Flash contents in pieces as they come.

        :raises Unsupported: at once, where the loader cannot read
        """
        if not self.loader.supports(Op.READ_FLASH_SLOW):
            raise self._cannot_read()
        return transfer.read_slow(self.loader, address, size)

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
        needs_crystal = self.loader.dialect.baud in (BaudRule.ASSUMES_40_MHZ, BaudRule.MISTAKEN_CRYSTAL)
        crystal = self.crystal_mhz if needs_crystal else None
        if needs_crystal and self._crystal_odd:
            raise DeviceError(
                "the chip's crystal cannot be measured, and its baud rate hangs on it",
                hint="Leave --baud at the rate the chip answers at.",
                code="clock-measurement",
            )
        baud_rates.change_baud(self.loader, self.chip, registers, baud, crystal)

    def leave(self, after: After = "hard-reset") -> None:
        """Leave the chip as asked; the link stays open. If the reset takes the port away, ``link`` is a new one.

        :raises Unsupported: this chip has no such way
        """
        if after == "soft-reset" and self.flash is None:
            flash_id.attach(self.loader, self.chip, self._identity)  # the loader leaves by a flash command
        leave(self.loader, self.chip, after, self.report, self._follower)

    def reset(self) -> None:
        """Start the application by the lines."""
        self.leave("hard-reset")

    def _assume_size(self, flash: FlashInfo) -> FlashInfo:
        size = self.chip.default_flash_size
        why = "in Secure Download Mode it cannot be read" if flash.jedec is None else f"its id is {flash.jedec:#08x}"
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

    def _cannot_read(self) -> Unsupported:
        if self.secure_download:
            return Unsupported(
                "in Secure Download Mode the flash cannot be read",
                hint="This mode was burned into the chip; nothing reads it back.",
                code="secure-download-mode",
            )
        return Unsupported(
            f"the {self.chip.name}'s {self.loader.dialect.name} loader cannot read flash",
            hint="A stub of our own will bring it, in a later version; until then read through the ROM loader.",
        )
