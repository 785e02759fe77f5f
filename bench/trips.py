"""Round trips before the first data byte of a write, per chip, with the request of each. esptool needs 81 to 95."""

from __future__ import annotations

from espwire.blob import Blob
from espwire.chips.registry import chip_ids
from espwire.device.connect import connect
from espwire.device.loader import Packet
from espwire.flash.write import write_flash
from espwire.protocol.commands import Command, FlashData, FlashDeflData, ReadReg, WriteReg
from espwire.virtual.transport import open_virtual


def describe(command: Command) -> str:
    """One word or two for a request."""
    match command:
        case ReadReg(address):
            return f"read {address:#x}"
        case WriteReg(writes):
            return f"write {len(writes)} registers"
        case _:
            return type(command).__name__


def count(name: str) -> list[str]:
    """The requests that a chip gets before its first data block."""
    asked: list[str] = []

    def note(packet: Packet) -> None:
        command = packet.command
        if command is not None:
            asked.append(
                "data" if isinstance(command, FlashData | FlashDeflData) else describe(command)
            )

    with connect(open_virtual(f"virtual:{name}?size=4MB"), on_packet=note, stub=False) as device:
        device.attach_flash()
        write_flash(
            device, [Blob(0x10000, bytes(range(256)) * 32)]
        )  # the ESP8266's ROM erases two sectors
    return asked[: asked.index("data")]


def main() -> None:
    """Print a line per chip."""
    for name in chip_ids():
        asked = count(name)
        print(f"trips before data, {name:<10} {len(asked):3}   goal <= 20   {', '.join(asked)}")


if __name__ == "__main__":
    main()
