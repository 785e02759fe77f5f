"""``ESPLoader``, the connected chip of esptool's scripts. ``device`` is the ``espwire.Device`` behind it."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, cast

from esptool._flash import DEFAULT_TIMEOUT, FlashCommands
from esptool._running import report
from esptool.logger import log
from esptool.util import FatalError, NotSupportedError, translated
from espwire.device.connect import connect
from espwire.device.detect import open_registers
from espwire.device.device import Device
from espwire.device.identity import Identity
from espwire.device.reset_sequences import After, Before
from espwire.device.spi import write_group
from espwire.protocol.commands import HEADER, REQUEST, RegWrite, Reply
from espwire.protocol.opcodes import Op
from espwire.settings import RetryPolicy, Settings
from espwire.transport.base import Transport

if TYPE_CHECKING:
    from esptool._port import TransportPort

DEFAULT_PORT, ESP_ROM_BAUD = FlashCommands.DEFAULT_PORT, FlashCommands.ESP_ROM_BAUD
DEFAULT_CONNECT_ATTEMPTS = 7
DEFAULT_OPEN_PORT_ATTEMPTS = 1


class ESPLoader(FlashCommands):
    """A chip in its loader. A context manager that closes the port; it does not reset the chip."""

    IS_STUB = False
    USES_RFC2217 = False

    def __init__(
        self,
        port: Any = FlashCommands.DEFAULT_PORT,
        baud: int = FlashCommands.ESP_ROM_BAUD,
        trace_enabled: bool = False,
    ) -> None:
        """Remember the port, which ``connect`` opens.

        :param port: a name, or an open pyserial object
        :param trace_enabled: no effect; use ``esptool --trace``
        """
        self._client_port = None if isinstance(port, str) else port
        self.port: str = port if isinstance(port, str) else str(port.port)
        self.baud, self.trace_enabled = baud, trace_enabled
        self.cache: dict[str, Any] = {
            "flash_id": None,
            "chip_id": None,
            "uart_no": None,
            "usb_pid": None,
        }
        self._device: Device | None = None
        self._serial: TransportPort | None = None
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @classmethod
    def _continue(cls, other: ESPLoader) -> Self:
        """Take over the chip of ``other`` as an object of this class; ``other`` must not be used afterwards."""
        esp = cls(
            other.port if other._client_port is None else other._client_port,
            other.baud,
            other.trace_enabled,
        )
        esp._device, esp.IS_STUB = other._device, other.IS_STUB
        return esp

    @property
    def device(self) -> Device:
        """The chip as an object of espwire's library.

        :raises FatalError: ``connect()`` has not been called
        """
        if self._device is None:
            raise FatalError("not connected: call connect() first")
        return self._device

    @property
    def _port(self) -> Any:
        """The port as a pyserial object; before ``connect()`` the constructor's, if any."""
        if self._device is None:
            return self._client_port
        loader = self._device.loader
        if self._serial is None:
            from esptool._port import TransportPort

            self._serial = TransportPort(self.port, loader.transport, loader.baud)
        elif self._serial.transport is not loader.transport:  # built-in USB has a new path
            self._serial.take(loader.transport, loader.baud)
        return self._serial

    @_port.setter
    def _port(self, value: Any) -> None:
        """Clients set None after they have closed the port."""
        self._client_port = value

    @property
    def serial_port(self) -> str:
        """The port's name."""
        return self.port

    @translated
    def connect(
        self,
        mode: str = "default-reset",
        attempts: int = DEFAULT_CONNECT_ATTEMPTS,
        detecting: bool = False,
        warnings: bool = True,
        *,
        open_attempts: int = DEFAULT_OPEN_PORT_ATTEMPTS,
    ) -> None:
        """Open the port unless it is open, reset the chip into its loader, and identify it.

        :param attempts: 0 or less: no limit
        :param detecting, warnings: no effect
        :param open_attempts: attempts to open the port; 0 or less: no limit
        :raises FatalError: no reply, or another chip
        """
        import sys

        retry = RetryPolicy(
            connect_attempts=attempts if attempts > 0 else sys.maxsize,
            open_attempts=max(open_attempts, 0),
        )
        before = cast(Before, mode.replace("_", "-"))
        self._device = connect(
            self._find_transport() or self.port,
            chip=self.CHIP,
            baud=self.baud,
            before=before,
            settings=Settings(retry=retry),
            report=report,
            stub=False,
        )
        self._closed = False
        self.refresh()

    def refresh(self) -> None:
        """Adopt changes of ``device`` by others: the running stub, the port's name and baud rate."""
        loader = self.device.loader
        self.IS_STUB = loader.dialect.sync_value == 0
        port = self._serial
        if port is not None and (port.is_open or port.transport is not loader.transport):
            port.take(loader.transport, loader.baud)

    def _find_transport(self) -> Transport | None:
        """The open transport of an earlier ``connect`` or of the client's pyserial object."""
        if self._closed:
            return None
        if self._serial is not None:
            return self._serial.transport if self._serial.is_open else None
        if self._device is not None:
            return self._device.transport
        if self._client_port is None:
            return None
        from esptool._port import PyserialTransport, TransportPort

        return (
            self._client_port.transport
            if isinstance(self._client_port, TransportPort)
            else PyserialTransport(self._client_port)
        )

    def close(self) -> None:
        """Close the port; closing it again has no effect."""
        self._closed = True
        if self._serial is not None:
            self._serial.close()
        elif self._device is not None:
            self._device.close()

    @staticmethod
    def detect_chip(port: str = DEFAULT_PORT, baud: int = ESP_ROM_BAUD, **more: Any) -> ESPLoader:
        """``cmds.detect_chip``, where esptool 3 had it."""
        from esptool import cmds

        return cmds.detect_chip(port, baud, **more)

    def run_stub(self, stub: object = None) -> Self:
        """Start espwire's stub if there is one for this chip; else warn and keep the ROM loader.

        :param stub: no effect; espwire selects the stub
        """
        device = self.device
        if self.IS_STUB:
            return self
        if why := device.find_stub_obstacle():
            log.warning(f"no stub: {why}; continuing with the ROM loader")
        else:
            self.IS_STUB = device.use_stub()
        return self

    @property
    def secure_download_mode(self) -> bool:
        """Whether the chip is in Secure Download Mode."""
        return self.device.secure_download

    @property
    def stub_is_disabled(self) -> bool:
        """Whether this chip cannot run a stub now."""
        return not self.IS_STUB and bool(self.device.find_stub_obstacle())

    @property
    def sync_stub_detected(self) -> bool:
        """Whether a stub answers."""
        return self.IS_STUB

    def get_chip_description(self) -> str:
        """The product's name and revision."""
        device = self.device
        if not device.revision_known:
            return device.description
        return f"{device.description} (revision {device.revision})"

    @translated
    def get_chip_features(self) -> list[str]:
        """Radios, cores and embedded memory."""
        return list(self.device.features)

    @translated
    def get_crystal_freq(self) -> int:
        """The crystal in MHz.

        :raises FatalError: unknown in Secure Download Mode
        """
        found = self.device.crystal_mhz
        if found is None:
            raise FatalError("the crystal frequency is unknown in Secure Download Mode")
        return found

    def get_chip_revision(self) -> int:
        """The revision: major times 100 plus minor."""
        return self.device.revision

    def get_major_chip_version(self) -> int:
        """The revision's major number."""
        return self.device.revision // 100

    def get_minor_chip_version(self) -> int:
        """The revision's minor number."""
        return self.device.revision % 100

    @translated
    def get_pkg_version(self) -> int:
        """The number of the package."""
        return Identity(self.device.chip, open_registers(self.device.loader)).value("package")

    def get_chip_id(self) -> int | None:
        """The number that image headers have for this chip."""
        return self.device.chip.identity.image_chip_id

    def chip_id(self) -> int:
        """The ESP8266's chip id.

        :raises NotSupportedError: another chip
        """
        found = self.device.legacy_chip_id
        if found is None:
            raise NotSupportedError(
                f"the {self.device.chip.name} has no chip id; its MAC address identifies it"
            )
        return found

    def read_mac(self, mac_type: str = "BASE_MAC") -> tuple[int, ...]:
        """The base MAC's bytes; ``EUI64`` where the chip has one."""
        text = self.device.mac if mac_type == "BASE_MAC" else self.device.eui64
        return tuple(bytes.fromhex((text or "").replace(":", "")))

    @translated
    def get_security_info(self, cache: bool = True) -> dict[str, Any]:
        """Flags, key purposes and so on, as the loader reports them."""
        info = self.device.read_security_info()
        return {
            "flags": info.flags,
            "flash_crypt_cnt": info.flash_crypt_count,
            "key_purposes": info.key_purposes,
            "chip_id": info.chip_id,
            "api_version": info.eco,
        }

    def get_secure_boot_enabled(self) -> bool:
        """Whether secure boot is on."""
        return self.device.security.secure_boot

    def get_flash_encryption_enabled(self) -> bool:
        """Whether flash encryption is on."""
        return self.device.security.flash_encryption

    def get_encrypted_download_disabled(self) -> bool:
        """Whether encrypted writes are disabled in download mode."""
        return bool(self.device.security.manual_encrypt_disabled)

    def is_flash_encryption_key_valid(self) -> bool:
        """Whether a flash encryption key is burned."""
        return bool(self.device.flash_key_valid)

    def uses_usb_otg(self) -> bool:
        """Whether the port is the chip's USB-OTG."""
        return self.device.transport.info.kind == "usb-otg"

    def uses_usb_jtag_serial(self) -> bool:
        """Whether the port is the chip's USB-Serial/JTAG."""
        return self.device.transport.info.kind == "usb-jtag"

    def get_memory_region(self, name: str) -> tuple[int, int] | None:
        """Start and end of the first region of this name, or None."""
        regions = ((start, end) for start, end, other in self.MEMORY_MAP if other == name)
        return next(regions, None)

    @translated
    def read_reg(self, addr: int, timeout: float = DEFAULT_TIMEOUT) -> int:
        """Read a 32-bit word of memory."""
        return self.device.read_mem(addr).value

    @translated
    def write_reg(
        self,
        addr: int,
        value: int,
        mask: int = 0xFFFFFFFF,
        delay_us: int = 0,
        delay_after_us: int = 0,
    ) -> None:
        """Write some bits of a 32-bit word of memory.

        :param delay_us, delay_after_us: microseconds that the chip waits before and after
        """
        if not delay_us and not delay_after_us:
            self.device.write_mem(addr, value, mask)
            return
        writes = [RegWrite(addr, value, mask, delay_us)]
        if delay_after_us:  # a write of no bits carries the delay
            writes.append(RegWrite(self.device.chip.uart.date_address, 0, 0, delay_after_us))
        self.device.loader.require(Op.WRITE_REG)
        write_group(self.device.loader, self.device.chip, writes)

    def update_reg(self, addr: int, mask: int, new_val: int) -> None:
        """Put ``new_val`` into the bits of ``mask``, the lowest of which is its bit 0."""
        shift = (mask & -mask).bit_length() - 1
        self.write_reg(addr, new_val << shift & mask, mask)

    @translated
    def command(
        self,
        op: int | None = None,
        data: bytes = b"",
        chk: int = 0,
        wait_response: bool = True,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> tuple[int, bytes] | None:
        """Send a request; return value and body of the reply, status included; None without ``wait_response``."""
        reply = self._exchange(op, data, chk, timeout) if wait_response else None
        if not wait_response and op is not None:
            self.device.loader.send(HEADER.pack(REQUEST, op, len(data), chk) + bytes(data))
        return (reply.value, reply.body) if reply is not None else None

    @translated
    def check_command(
        self,
        op_description: str,
        op: int | None = None,
        data: bytes = b"",
        chk: int = 0,
        resp_data_len: int = 0,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> int | bytes:
        """Send a request and check the status; return ``resp_data_len`` bytes, or the value if it is 0.

        :raises FatalError: the loader rejected it
        """
        reply = self.device.loader.check_status(
            self._exchange(op, data, chk, timeout), resp_data_len
        )
        return reply.body if resp_data_len else reply.value

    def _exchange(self, op: int | None, data: bytes, chk: int, timeout: float) -> Reply:
        if op not in list(Op):
            raise NotSupportedError(f"unknown command {op}")
        packet = HEADER.pack(REQUEST, op, len(data), chk) + bytes(data)
        return self.device.loader.exchange(Op(op), packet, timeout)

    @translated
    def sync(self) -> None:
        """Synchronise with the loader."""
        self.device.loader.sync()

    def flush_input(self) -> None:
        """Discard received bytes."""
        self._port.reset_input_buffer()

    def get_baud(self) -> int:
        """The baud rate."""
        return self.device.loader.baud

    @translated
    def change_baud(self, baud: int) -> None:
        """Change the baud rate of chip and port."""
        log.print(f"Changing baud rate to {baud}")
        self.device.change_baud(baud)
        self.refresh()

    @translated
    def reset(self, mode: str) -> None:
        """Leave the chip as asked: ``hard-reset``, ``soft-reset``, ``no-reset``, ``watchdog-reset``."""
        self.device.leave(cast(After, mode.replace("_", "-")))

    def hard_reset(self, uses_usb: bool = False) -> None:
        """Start the application by the port's lines. ``uses_usb``: without effect, the port's kind is known."""
        self.reset("hard-reset")

    def soft_reset(self, stay_in_bootloader: bool) -> None:
        """Have the loader start the application, or, to stay, go back to the ROM loader."""
        self.reset("no-reset" if stay_in_bootloader else "soft-reset")

    def watchdog_reset(self) -> None:
        """Start the application by the chip's watchdog."""
        self.reset("watchdog-reset")

    @translated
    def run(self, reboot: bool = False) -> None:
        """Have the loader start the application."""
        self.device.run()

    @translated
    def override_vddsdio(self, new_voltage: str) -> None:
        """Set the ESP32's flash voltage until the next reset."""
        self.device.override_flash_voltage(new_voltage)

    def trace(self, message: str, newline: bool = False) -> None:
        """Without effect: ``esptool --trace`` traces."""


class StubFlasher:
    """esptool's description of a stub file. espwire brings its own stub: this only takes note of the arguments."""

    def __init__(self, *arguments: object, **more: object) -> None:
        self.arguments = arguments


def find_class(chip: str) -> type[ESPLoader]:
    """The class for a chip, by espwire's id."""
    from esptool.targets import CHIP_DEFS

    return CHIP_DEFS[chip]


def open_loader(
    ports: Sequence[Any],
    chip: str | None,
    baud: int,
    before: str,
    attempts: int,
    open_attempts: int = DEFAULT_OPEN_PORT_ATTEMPTS,
) -> ESPLoader:
    """The first of ``ports`` at which a chip answers, as an object of that chip's class.

    :param chip: espwire's id of the only chip to accept; None: any
    :raises FatalError: at none of them
    """
    last: FatalError | None = None
    for port in ports:
        esp: ESPLoader = (ESPLoader if chip is None else find_class(chip))(port, baud)
        try:
            esp.connect(before, attempts, open_attempts=open_attempts)
        except FatalError as error:
            last = error
            continue
        return esp if chip is not None else find_class(esp.device.chip.id)._continue(esp)
    raise last or FatalError("no serial port with a board was found; name one")
