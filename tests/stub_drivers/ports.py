"""Ports of virtual chips that run our stub: one for each packed image and transport."""

from __future__ import annotations

from collections.abc import Iterator

from espwire.chips.model import Chip
from espwire.chips.registry import load_chip
from espwire.device.stub_image import load_stub, stub_chips


def stub_ports(options: str = "") -> Iterator[tuple[Chip, str]]:
    """Chip and port, such as ``virtual:esp32c3?kind=uart``; ``options`` follow, separated with ``&``.

    A chip whose old revisions have an image of their own has two ports over UART.
    """
    for chip in map(load_chip, stub_chips()):
        variants = ["kind=uart"]
        if chip.usb.serial_jtag:
            variants.append("kind=usb-jtag")
        image = load_stub(chip.id)
        if image.older is not None:
            variants.append(f"kind=uart&revision={image.older_revision // 100}.0")
        for variant in variants:
            yield chip, f"virtual:{chip.id}?{variant}{'&' if options else ''}{options}"
