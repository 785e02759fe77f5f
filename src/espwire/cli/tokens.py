"""What IDEs and scripts look for in esptool's output, as events have it. Nothing but those words is esptool's.

docs/guide/scripts-and-ides.md lists them and who looks for them; tests/scenario/test_esptool_program.py holds them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from espwire.cli.render import VERBS, Wording, describe
from espwire.escape import escape
from espwire.events import ChipFound, Event, Finished, Note, Opened, Progress, Report, Resetting, Result, StubStarted

if TYPE_CHECKING:
    from espwire.device.device import Device

BY_RTS = frozenset({"hard", "hard_usb", "hard_flow_control"})


def tell(event: Event, verbose: bool) -> str | None:
    """The event in words that hold the tokens; where there is none, in ours."""
    match event:
        case Opened():
            return f"Serial port {event.port}:\nConnecting..."
        case ChipFound():
            return "\n".join(_describe_chip(event))
        case StubStarted():
            return "Uploading stub...\nRunning stub...\nStub running...\nStub flasher running."
        case Finished(task="write", address=int(address)):
            return f"Wrote {event.size} bytes at {address:#010x} in {event.seconds:.1f} seconds."
        case Finished(task="verify"):
            return "Hash of data verified."
        case Result(command="flash-id"):
            size = None if event.data.get("assumed") else event.data.get("size")
            return f"{event.text}\nDetected flash size: {_format_size(size) if size else 'Unknown'}"
        case Result(command="image-info"):
            from espwire.cli.esptool_image import describe_first_image

            lines = describe_first_image(event.data)
            return lines if len(event.data["items"]) == 1 else f"{lines}\n\n{event.text}"
        case Result(command="verify-flash", data={"equal": True}):
            return f"Verification successful (digest matched).\n{event.text}"
        case Result(command="erase-flash", data={"erased": True}):
            return "Chip erase completed successfully.\nFlash memory erased successfully."
        case Result(command="erase-region", data={"erased": True}):
            return "Erase completed successfully.\nFlash memory region erased successfully."
        case Resetting(into="application"):
            way = "Hard resetting via RTS pin..." if event.how in BY_RTS else f"Starting the application ({event.how})."
            return f"Leaving...\n{way}"
    return describe(event, verbose=verbose)


def _describe_chip(event: ChipFound) -> list[str]:
    """The chip as versions 1 to 4 (``Chip is``) and 5 (``Chip type:``) had it, and its MAC."""
    chip = f"{event.description} (revision {event.revision})" if event.revision else event.description
    lines = [f"Chip is {chip}", f"Chip type: {chip}"]
    return [*lines, f"MAC: {event.mac}"] if event.mac else lines


def count(event: Progress) -> str:
    """A percentage in brackets, after the place in flash or the number of bytes."""
    percent = event.done * 100 // event.total
    if event.task == "write" and event.address is not None:
        return f"Writing at {event.address + event.done:#010x}... ({percent} %)"
    if event.task == "read":
        return f"{event.done} ({percent} %)"
    return f"{VERBS.get(event.task, event.task)} {escape(event.name)}... ({percent} %)"


def _format_size(size: int) -> str:
    from espwire.bits import format_size

    return format_size(size)


def tell_device(device: Device, report: Report) -> None:
    """Features and crystal, which esptool tells with every chip; nothing where the chip hides them."""
    if device.features:
        report(Note(text=f"Features: {', '.join(device.features)}"))
    if device.crystal_mhz is not None:
        for words in ("Crystal is ", "Crystal frequency: "):
            report(Note(text=f"{words}{device.crystal_mhz}MHz"))


ESPTOOL = Wording(tell, count, steps=100, reset_last=True)
