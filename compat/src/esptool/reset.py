"""Reset sequences for programs that have a port but no chip: ``HardReset(port)()``."""

from __future__ import annotations

from typing import Any

from esptool._port import PyserialTransport, TransportPort
from esptool.util import translated
from espwire.device.reset_sequences import find_or_parse, play
from espwire.transport.base import Transport

DEFAULT_RESET_DELAY = 0.05


class ResetStrategy:
    """A reset sequence; call the object to run it.

    :param port: an open pyserial object
    :param reset_delay: seconds for which the boot pin is held low
    :param flow_control: the bridge stops sending while DTR is released
    """

    sequence = ""

    def __init__(
        self, port: Any, reset_delay: float = DEFAULT_RESET_DELAY, flow_control: bool = False
    ) -> None:
        self.port, self.reset_delay, self.flow_control = port, reset_delay, flow_control

    def __call__(self) -> None:
        """Run the sequence.

        :raises FatalError: the port was disconnected, or a custom sequence is invalid
        """
        self.reset()

    @translated
    def reset(self) -> None:
        """Play the sequence on the port's lines."""
        transport: Transport = (
            self.port.transport
            if isinstance(self.port, TransportPort)
            else PyserialTransport(self.port)
        )
        steps = find_or_parse(self.sequence, transport.info, self.reset_delay)
        if self.flow_control and steps[-1].dtr is False:
            steps = steps[:-1]
        play(transport, steps)


class ClassicReset(ResetStrategy):
    """Into the loader, changing one line after the other."""

    sequence = "classic"


class UnixTightReset(ResetStrategy):
    """Into the loader, changing both lines at once where the system supports it."""

    sequence = "tight"


class USBJTAGSerialReset(ResetStrategy):
    """Into the loader, by the chip's USB-Serial/JTAG."""

    sequence = "usb_jtag"


class HardReset(ResetStrategy):
    """Into the application.

    :param uses_usb: by the chip's built-in USB, which needs more time
    """

    def __init__(self, port: Any, uses_usb: bool = False, flow_control: bool = False) -> None:
        super().__init__(port)
        kind = "hard_usb" if uses_usb else "hard_flow_control" if flow_control else "hard"
        self.sequence = kind


class CustomReset(ResetStrategy):
    """A sequence such as ``D0|R1|W0.1|D1|R0|W0.05|D0``."""

    def __init__(self, port: Any, seq_str: str) -> None:
        super().__init__(port)
        self.sequence = seq_str
