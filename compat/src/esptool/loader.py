"""A connected chip as esptool's scripts hold it. What is not here is reached by ``device``, an ``espwire.Device``."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self, cast

from esptool._running import report
from esptool.logger import log
from esptool.util import FatalError, translated
from espwire.device.connect import connect
from espwire.device.device import Device
from espwire.device.lines import After, Before
from espwire.settings import Settings

DEFAULT_CONNECT_ATTEMPTS = 7


class ESPLoader:
    """A chip in its ROM loader. A context manager that closes the port; it does not reset the chip."""

    CHIP_NAME = "Espressif device"
    IS_STUB = False
    ESP_ROM_BAUD = 115200
    FLASH_SECTOR_SIZE = 0x1000
    CHIP: str | None = None  # espwire's name of the only chip that this class is for

    def __init__(self, port: str = "/dev/ttyUSB0", baud: int = ESP_ROM_BAUD, trace_enabled: bool = False) -> None:
        self.port, self.baud, self.trace_enabled = port, baud, trace_enabled
        self._device: Device | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def device(self) -> Device:
        """The chip, as espwire's library has it.

        :raises FatalError: ``connect()`` has not been called
        """
        if self._device is None:
            raise FatalError("not connected: call connect() first")
        return self._device

    @translated
    def connect(self, mode: str = "default-reset", attempts: int = DEFAULT_CONNECT_ATTEMPTS) -> None:
        """Open the port, reset the chip into its loader, see which chip it is.

        :param attempts: 0 or less: no end
        :raises FatalError: nothing answers, or another chip
        """
        import sys

        settings = Settings(connect_attempts=attempts if attempts > 0 else sys.maxsize)
        before = cast(Before, mode.replace("_", "-"))
        self._device = connect(
            self.port, chip=self.CHIP, baud=self.baud, before=before, settings=settings, report=report
        )
        self.CHIP_NAME = self._device.chip.name

    def close(self) -> None:
        """Close the port; a second time does nothing."""
        if self._device is not None:
            self._device.close()

    def run_stub(self) -> Self:
        """Start espwire's stub, where there is one for this chip; else the ROM loader stays, and a warning says why."""
        if why := self.device.find_stub_obstacle():
            log.warning(f"no stub: {why}; going on with the ROM loader")
        else:
            self.device.use_stub()
        return self

    def get_chip_description(self) -> str:
        """The product's name and revision."""
        from espwire.device.identity import format_revision

        device = self.device
        if not device.revision_known:
            return device.description
        return f"{device.description} (revision {format_revision(device.revision)})"

    @translated
    def get_chip_features(self) -> list[str]:
        """Radios, cores, what is embedded."""
        return list(self.device.features)

    @translated
    def get_crystal_freq(self) -> int:
        """The crystal in MHz.

        :raises FatalError: it cannot be told in Secure Download Mode
        """
        found = self.device.crystal_mhz
        if found is None:
            raise FatalError("the crystal's frequency cannot be told in Secure Download Mode")
        return found

    def read_mac(self, mac_type: str = "BASE_MAC") -> tuple[int, ...]:
        """The base MAC's bytes; ``EUI64`` where the chip has one."""
        text = self.device.mac if mac_type == "BASE_MAC" else self.device.eui64
        return tuple(bytes.fromhex((text or "").replace(":", "")))

    @translated
    def read_reg(self, addr: int) -> int:
        """One word of memory."""
        return self.device.read_mem(addr).value

    @translated
    def write_reg(self, addr: int, value: int, mask: int = 0xFFFFFFFF) -> None:
        """Some bits of one word of memory."""
        self.device.write_mem(addr, value, mask)

    @translated
    def flash_id(self) -> int:
        """The flash part's id, maker in the low byte."""
        from espwire.device.flash_id import read_flash_id

        if self.device.flash is None:
            self.device.attach_flash()
        return read_flash_id(self.device.loader, self.device.chip)

    @translated
    def change_baud(self, baud: int) -> None:
        """Bring chip and port to ``baud``."""
        self.device.change_baud(baud)

    @translated
    def reset(self, mode: str) -> None:
        """Leave the chip as asked: ``hard-reset``, ``soft-reset``, ``no-reset``, ``watchdog-reset``."""
        self.device.leave(cast(After, mode.replace("_", "-")))

    def hard_reset(self) -> None:
        """Start the application by the port's lines."""
        self.reset("hard-reset")


def open_loader(
    ports: Sequence[str], chip: str | None, baud: int, before: str, attempts: int, kind: type[ESPLoader] = ESPLoader
) -> ESPLoader:
    """The first of ``ports`` at which a chip answers.

    :raises FatalError: at none of them
    """
    last: FatalError | None = None
    for port in ports:
        esp = kind(port, baud)
        esp.CHIP = chip
        try:
            esp.connect(before, attempts)
            return esp
        except FatalError as error:
            last = error
    raise last or FatalError("no serial port with a board was found; name one")
