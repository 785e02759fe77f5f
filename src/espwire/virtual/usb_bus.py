"""A simulated USB bus: virtual chips that appear, leave and change their paths, on one clock.

A chip with native USB leaves the bus at each reset and returns a moment later under another path, as real chips do under
Linux; behind a UART bridge the path stays. A transport whose device has left raises TransportLost permanently.
"""

from __future__ import annotations

import dataclasses
import random
from dataclasses import dataclass, field

from espwire.errors import PortBusy, PortNotFound, TransportLost
from espwire.transport.base import CancelToken
from espwire.transport.ports import PortIdentity, find_same, not_back
from espwire.virtual.build import build_chip
from espwire.virtual.chip import VirtualChip
from espwire.virtual.config import VirtualOptions, parse_options
from espwire.virtual.transport import VirtualTransport

BRIDGE = (0x10C4, 0xEA60)
POLL_S = 0.05  # between two enumerations, and until a transport notices that its device has left
NUMBERS = 8  # paths of a kind that the system assigns
DRIVERS = {"uart": "USB", "usb-jtag": "ACM", "usb-otg": "ACM"}
PRODUCTS = {
    "uart": "CP2102N USB to UART Bridge Controller",
    "usb-jtag": "USB JTAG/serial debug unit",
    "usb-otg": "USB OTG loader",
}


@dataclass(eq=False)
class BusDevice:
    """A device. ``path`` is empty while it is away; ``back_at`` is when it returns, None: it does not."""

    chip: VirtualChip
    identity: PortIdentity
    path: str
    back_at: float | None = None
    plugged: int = 0  # counts enumerations: a transport belongs to one
    boots: int = 0
    transport: BusTransport | None = None
    lines: tuple[bool, bool] = (False, False)  # DTR and RTS as the host last set them
    paths: list[str] = field(default_factory=list)
    renamed: bool = False  # when it returns

    @property
    def native(self) -> bool:
        """Whether the chip itself is the USB device."""
        return self.chip.options.kind != "uart"


class VirtualBus:
    """The bus. ``now`` is its clock, which open transports and ``sleep`` move; ``devices`` are all that were added.

    :param seed: for new paths and for the times that devices stay away
    :param rename: False: a device returns under its old path
    :param away: seconds until a device returns, minimum and maximum
    """

    def __init__(
        self, *, seed: int = 0, rename: bool = True, away: tuple[float, float] = (0.05, 0.6)
    ) -> None:
        self.now = 0.0
        self.rename, self.away = rename, away
        self.devices: list[BusDevice] = []
        self._random = random.Random(seed)

    def add(
        self,
        chip: VirtualChip | VirtualOptions | str,
        *,
        serial: str | None = None,
        location: str | None = None,
        ids: tuple[int, int] | None = None,
    ) -> VirtualPort:
        """Plug a chip in; a string is a URL's options, such as ``esp32c3?kind=usb-jtag``.

        :param serial: instead of the chip's MAC address (native USB) or the bridge's serial number
        :param ids: VID and PID, instead of the chip's or, for a bridge, a CP2102N's
        """
        if not isinstance(chip, VirtualChip):
            chip = build_chip(parse_options(chip) if isinstance(chip, str) else chip)
        kind, usb = chip.options.kind, chip.chip.usb
        if ids is None:
            pid = usb.serial_jtag_product_id if kind == "usb-jtag" else usb.otg_product_id
            ids = BRIDGE if kind == "uart" else (usb.vendor_id or 0, pid or 0)
        number = len(self.devices)
        mac = ":".join(f"{byte:02X}" for byte in chip.config.mac)
        identity = PortIdentity(
            path="",
            vid=ids[0],
            pid=ids[1],
            serial=serial if serial is not None else f"B0{number:06d}" if kind == "uart" else mac,
            location=location if location is not None else f"1-{number + 1}",
            description=PRODUCTS[kind],
            manufacturer="Silicon Labs" if kind == "uart" else "Espressif",
        )
        device = BusDevice(chip, identity, "", boots=chip.boots)
        self.now = max(self.now, chip.now)
        self.devices.append(device)
        self._appear(device)
        return VirtualPort(self, device.identity)

    def enumerate(self) -> tuple[PortIdentity, ...]:
        """The devices on the bus: a ``transport.ports.Lister``."""
        self.advance()
        return tuple(device.identity for device in self.devices if device.path)

    def find(self, path: str) -> BusDevice | None:
        """The device at a path."""
        self.advance()
        return next((device for device in self.devices if device.path == path), None)

    def lose(
        self,
        path: str,
        *,
        back_after: float | None = None,
        power: bool = False,
        renamed: bool = False,
    ) -> None:
        """Remove the device at ``path`` for ``back_after`` seconds; None: until ``plug``.

        :param power: the cable is pulled, so the chip loses its supply
        :param renamed: it returns under another path, also behind a bridge
        """
        device = self._at(path)
        device.renamed = renamed
        if power:
            device.chip.power_loss(self.now)
            device.boots = device.chip.boots
        self._vanish(device, None if back_after is None else self.now + back_after)

    def plug(self, device: BusDevice) -> None:
        """Return a device that was removed."""
        if not device.path:
            self._appear(device)

    def sleep(self, seconds: float) -> None:
        """Advance the clock."""
        self.advance(self.now + seconds)

    def open_path(
        self, path: str, baud: int = 115200, cancel: CancelToken | None = None
    ) -> BusTransport:
        """A transport to whatever is at ``path`` now: a ``transport.ports.Opener``.

        :raises PortNotFound, PortBusy: no device is there, or it is already open
        """
        device = self._at(path)
        if device.transport is not None and device.transport.alive:
            raise PortBusy(f"{path} is in use by another program")
        device.transport = BusTransport(self, device, baud, cancel)
        return device.transport

    def advance(self, t: float | None = None) -> None:
        """Do everything that is due up to ``t``, or up to now: chips run, reset, leave and return."""
        end = self.now if t is None else max(t, self.now)
        while True:
            due = min((d.back_at for d in self.devices if d.back_at is not None), default=end)
            self.now = max(self.now, min(due, end))
            for device in self.devices:
                self._run(device)
            if due >= end and not any(
                d.back_at is not None and d.back_at <= self.now for d in self.devices
            ):
                return

    def _run(self, device: BusDevice) -> None:
        """Advance a device to now."""
        chip = device.chip
        is_open = device.transport is not None and device.transport.alive
        if not is_open and chip.now < self.now:
            chip.run_until(self.now)  # what the chip sends is lost
        if device.boots != chip.boots:
            device.boots = chip.boots
            if device.native and (
                device.path or device.back_at is not None
            ):  # not one that was unplugged
                self._vanish(device, self.now + self._random.uniform(*self.away))
        if device.back_at is not None and device.back_at <= self.now:
            self._appear(device)

    def _at(self, path: str) -> BusDevice:
        device = self.find(path)
        if device is None:
            raise PortNotFound(f"port {path} not found", path=path)
        return device

    def _vanish(self, device: BusDevice, back_at: float | None) -> None:
        device.path, device.back_at = "", back_at

    def _appear(self, device: BusDevice) -> None:
        stem = f"/dev/tty{DRIVERS[device.chip.options.kind]}"
        taken = {other.path for other in self.devices}
        before = device.paths[-1] if device.paths else ""
        free = [
            path for n in range(NUMBERS + len(self.devices)) if (path := f"{stem}{n}") not in taken
        ]
        renamed = device.renamed or (self.rename and device.native)
        device.renamed = False
        if before and before not in taken and not renamed:
            path = before
        elif before:
            path = self._random.choice([path for path in free if path != before][:NUMBERS])
        else:
            path = free[0]
        device.path, device.back_at = path, None
        device.plugged += 1
        device.paths.append(path)
        device.identity = dataclasses.replace(device.identity, path=path)
        if device.native and any(device.lines):
            device.lines = (False, False)  # until a host sets them again
            device.chip.set_lines(max(self.now, device.chip.now), dtr=False, rts=False)


class VirtualPort:
    """A Port on a virtual bus: a device as it was last enumerated."""

    def __init__(self, bus: VirtualBus, identity: PortIdentity) -> None:
        self.bus, self.identity = bus, identity

    def open(self, *, baud: int = 115200, cancel: CancelToken | None = None) -> BusTransport:
        """Open whatever device is at the path now, as with real ports.

        :raises PortNotFound, PortBusy: no device is there, or it is already open
        """
        return self.bus.open_path(self.identity.path, baud, cancel)

    def wait_back(self, seconds: float, *, cancel: CancelToken | None = None) -> VirtualPort:
        """Wait for the same device, by the rule for real ports, in simulated time.

        :raises PortNotFound: not within ``seconds``
        """
        end = self.bus.now + seconds
        while True:
            if cancel is not None:
                cancel.check()
            identity = find_same(self.identity, self.bus.enumerate())
            if identity is not None:
                return VirtualPort(self.bus, identity)
            if self.bus.now >= end:
                raise not_back(self.identity, seconds)
            self.bus.sleep(POLL_S)


class BusTransport(VirtualTransport):
    """A Transport to one enumeration of a device; when the device has left, every call raises TransportLost."""

    def __init__(
        self, bus: VirtualBus, device: BusDevice, baud: int, cancel: CancelToken | None
    ) -> None:
        self._bus, self._device, self._plugged = bus, device, device.plugged
        super().__init__(
            device.chip, name=device.path, cancel=cancel, start=max(bus.now, device.chip.now)
        )
        identity = device.identity
        self.info = dataclasses.replace(
            self.info,
            kind="uart" if device.chip.options.kind == "uart" else self.info.kind,
            vid=identity.vid,
            pid=identity.pid,
            serial=identity.serial,
        )
        super().set_baud(baud)

    @property
    def alive(self) -> bool:
        """Whether the transport is open and the device has not left since."""
        return self._open and bool(self._device.path) and self._device.plugged == self._plugged

    def read(self, timeout: float) -> bytes:
        """Received bytes; empty at the timeout. Checks every 0.05 s that the device is there."""
        end = self.now() + timeout
        while True:
            data = super().read(min(POLL_S, max(0.0, end - self.now())))
            self._follow()
            if data:
                return data
            self._check()
            if self.now() >= end:
                return b""

    def drain(self) -> None:
        """Wait until everything has been sent."""
        super().drain()
        self._follow()

    def discard_input(self) -> None:
        """Discard received bytes."""
        self._check()
        super().discard_input()
        self._follow()

    def set_baud(self, baud: int) -> None:
        """Change the host's baud rate; no effect on native USB."""
        self._check()
        super().set_baud(baud)

    def set_lines(self, *, dtr: bool | None = None, rts: bool | None = None) -> None:
        """Set modem lines; a reset that they cause takes a native device off the bus."""
        self._check(cancel=False)  # after a cancellation the lines must still be released
        before = self._device.lines
        self._device.lines = (before[0] if dtr is None else dtr, before[1] if rts is None else rts)
        super().set_lines(dtr=dtr, rts=rts)
        self._follow()

    def now(self) -> float:
        """The bus's clock, in seconds."""
        return max(self._bus.now, self._now) if self.alive else self._bus.now

    def sleep(self, seconds: float) -> None:
        """Let time pass, even if the device has left. Cancelled."""
        self._cancel.check()
        if self.alive:
            super().sleep(seconds)
            self._follow()
        else:
            self._bus.sleep(seconds)

    def close(self) -> None:
        """Close; the chip keeps running. May be called again."""
        self._open = False

    def _follow(self) -> None:
        """Advance the bus to the transport's time."""
        self._bus.advance(self._now)

    def _check(self, *, cancel: bool = True) -> None:
        if cancel:
            self._cancel.check()
        if self.alive and self._now < self._bus.now:
            self._advance(self._bus.now)  # another transport or the bus has moved the clock
            self._bus.advance()
        if not self.alive:
            raise TransportLost(f"{self.info.name} is {'gone' if self._open else 'closed'}")
