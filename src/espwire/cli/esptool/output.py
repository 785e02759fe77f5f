"""Events in the words that IDEs and scripts search for in esptool's output. All other text is espwire's own.

docs/guide/scripts-and-ides.md lists these words and their users; tests/scenario/test_esptool_program.py checks them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from espwire.chips.index import NAMES
from espwire.cli.output import printable
from espwire.cli.render import VERBS, Wording, describe
from espwire.events import (
    ChipFound,
    Event,
    Finished,
    Note,
    Opened,
    Progress,
    Report,
    Resetting,
    Result,
    StubStarted,
)
from espwire.image.model import WP_PIN_DISABLED
from espwire.sizes import Revision, format_size
from espwire.text import escape

if TYPE_CHECKING:
    from espwire.device.device import Device

BY_RTS = frozenset({"hard", "hard_usb", "hard_flow_control"})


def describe_event(event: Event, verbose: bool) -> str | None:
    """The event with esptool's words; where it has none, in espwire's own."""
    match event:
        case Opened():
            return f"Serial port {event.port}:\nConnecting..."
        case ChipFound():
            return "\n".join(_describe_chip(event))
        case StubStarted():
            return "Uploading stub...\nRunning stub...\nStub running...\nStub flasher running."
        case Finished(task="write", address=int(address)):
            return f"Wrote {event.size} bytes at {address:#010x} in {event.seconds:.1f} seconds."
        case Finished(task="read", address=int(address)):
            took = f"{event.seconds:.1f} seconds"
            return (
                f"Read {event.size} bytes from {address:#010x} in {took} to '{escape(event.name)}'."
            )
        case Finished(task="erase", name="the whole flash"):
            return f"{describe(event, verbose=verbose)}\nFlash memory erased successfully."
        case Finished(task="verify"):
            return "Hash of data verified."
        case Result(command="flash-id"):
            size = None if event.data.get("assumed") else event.data.get("size")
            return f"{event.text}\nDetected flash size: {format_size(size) if size else 'Unknown'}"
        case Result(command="image-info"):
            lines = describe_first_image(event.data)
            return lines if len(event.data["items"]) == 1 else f"{lines}\n\n{event.text}"
        case Result(command=str(command), data=dict(data)) if command in RESULTS:
            return f"{event.text}\n{RESULTS[command](data)}".rstrip()
        case Result(command="verify-flash", data={"equal": True}):
            return f"Verification successful (digest matched).\n{event.text}"
        case Result(command="erase-flash", data={"erased": True}):
            return "Chip erase completed successfully.\nFlash memory erased successfully."
        case Result(command="erase-region", data={"erased": True}):
            return "Erase completed successfully.\nFlash memory region erased successfully."
        case Resetting(into="application"):
            way = (
                "Hard resetting via RTS pin..."
                if event.how in BY_RTS
                else f"Starting the application ({event.how})."
            )
            way = "Hard resetting with a watchdog..." if event.how == "watchdog" else way
            return f"Leaving...\n{way}"
    return describe(event, verbose=verbose)


def _describe_chip(event: ChipFound) -> list[str]:
    """The chip as in versions 1 to 4 (``Chip is``) and 5 (``Chip type:``), and its MAC address."""
    chip = (
        f"{event.description} (revision {event.revision})" if event.revision else event.description
    )
    lines = [
        f"Detecting chip type... {event.chip}",
        f"Chip is {chip}",
        f"{'Chip type:':<19} {chip}",
    ]
    return [*lines, f"MAC: {event.mac}"] if event.mac else lines


def _describe_status(data: dict[str, Any]) -> str:
    return f"{data['value']:#0{2 + 2 * data['bytes']}x}"


def _describe_sfdp(data: dict[str, Any]) -> str:
    """The raw bytes; nothing for the decoded table."""
    if "data" not in data:
        return ""
    octets = " ".join(f"{octet:#04x}" for octet in bytes.fromhex(data["data"]))
    return f"SFDP[{data['address']}..{data['address'] + data['size'] - 1}]: {octets}"


def _describe_security(data: dict[str, Any]) -> str:
    """The states; key purposes by name, as ``data`` does not have their numbers."""
    lines = [
        f"Secure Boot: {'Enabled' if data['secure_boot'] else 'Disabled'}",
        f"Flash Encryption: {'Enabled' if data['flash_encryption'] else 'Disabled'}",
        f"SPI Boot Crypt Count (SPI_BOOT_CRYPT_CNT): {data['flash_crypt_count'] or 0:#x}",
    ]
    if data["key_purposes"]:
        lines.append(f"Key Purposes: {', '.join(data['key_purposes'])}")
    if data["chip_id"] is not None:
        lines.append(f"Chip ID: {data['chip_id']}")
    if data["eco"] is not None:
        lines.append(f"API Version: {data['eco']}")
    return "\n".join(lines)


RESULTS: dict[str, Callable[[dict[str, Any]], str]] = {
    "dump-mem": lambda data: (
        f"Dumped {data['size']} bytes from {data['address']:#x} to '{escape(data['file'])}'."
    ),
    "elf2image": lambda data: f"Successfully created {NAMES[data['chip']]} image.",
    "get-security-info": _describe_security,
    "merge-bin": lambda data: f"Wrote {data['bytes']:#x} bytes to file '{escape(data['output'])}'.",
    "read-flash-sfdp": _describe_sfdp,
    "read-flash-status": lambda data: f"Flash memory status: {_describe_status(data)}",
    "write-flash-status": lambda data: (
        f"Initial flash memory status: {_describe_status(data['before'])}\n"
        f"After flash memory status:   {_describe_status(data['after'])}"
    ),
}
"""Lines with esptool's labels, added to espwire's text for the results of these commands."""


def count(event: Progress) -> str:
    """A percentage in parentheses, after the flash address or the number of bytes."""
    percent = event.done * 100 // event.total
    if event.task == "write" and event.address is not None:
        return f"Writing at {event.address + event.done:#010x}... ({percent} %)"
    if event.task == "read":
        return f"{event.done} ({percent} %)"
    return f"{VERBS.get(event.task, event.task)} {escape(event.name)}... ({percent} %)"


def report_device(device: Device, report: Report) -> None:
    """Report features and crystal, which esptool prints for every chip, unless the chip hides them."""
    if device.features:
        report(Note(text=f"Features: {', '.join(device.features)}"))
    if device.crystal_mhz is not None:
        for label in ("Crystal is ", "Crystal frequency: "):
            report(Note(text=f"{label}{device.crystal_mhz}MHz"))


def describe_first_image(data: dict[str, Any]) -> str:
    """Lines about the first image in the file, which is the only one that esptool reads.

    :param data: of the result of ``image-info``
    """
    lines = [f"Image size: {data['size']} bytes"]
    image = next((item["image"] for item in data["items"] if item["image"] is not None), None)
    if image is not None:
        lines += map(printable, _describe_image(image))
    return "\n".join(lines)


def _describe_image(image: dict[str, Any]) -> Iterator[str]:

    segments = image["segments"]
    name = NAMES[image["chip"]] if image["chip"] else "unknown"
    yield f"Detected image type: {name}"
    yield from _describe_title(f"{name} Image Header")
    yield f"Image version: {image['version'] if image['extended_header'] is None else 1}"  # as esptool counts
    yield f"Entry point: {image['entry']:#010x}"
    yield f"Segments: {len(segments)}"
    for label, key in (
        ("Flash size", "flash_size"),
        ("Flash freq", "flash_frequency"),
        ("Flash mode", "flash_mode"),
    ):
        value = str(image[key] or "unknown")
        yield f"{label}: {value.upper() if key == 'flash_mode' else value}"
    yield from _describe_header(name, image["extended_header"])
    yield from _describe_title("Segments Information")
    for number, segment in enumerate(segments):
        memory = ", ".join(segment["memory"])
        columns = (
            f"0x{segment['size']:05x}  0x{segment['address']:08x}  0x{segment['offset'] - 8:08x}"
        )
        yield f"{number:>7}  {columns}  {memory}".rstrip()
    yield from _describe_title(f"{name} Image Footer")
    checksum = image["checksum"]
    if checksum is not None:
        yield f"Checksum: {checksum:#04x} ({_verdict(image['checksum_valid'])})"
    if image["sha256"] is not None:
        yield f"Validation hash: {image['sha256']} ({_verdict(image['sha256_valid'])})"
    yield from _describe_app(image["app_descriptor"])
    yield from _describe_bootloader(image["bootloader_descriptor"])


def _describe_title(text: str) -> Iterator[str]:
    yield ""
    yield text
    yield "=" * len(text)


def _verdict(valid: bool) -> str:
    return "valid" if valid else "invalid"


def _describe_header(name: str, header: dict[str, Any] | None) -> Iterator[str]:
    if header is None:
        return
    from espwire.chips.registry import find_by_image_id

    yield from _describe_title(f"{name} Extended Image Header")
    wp_pin = header["wp_pin"]
    yield f"WP pin: {wp_pin:#x}{' (disabled)' if wp_pin == WP_PIN_DISABLED else ''}"
    strengths = [
        nibble for byte in bytes.fromhex(header["drive"]) for nibble in (byte & 15, byte >> 4)
    ]
    pairs = zip(("clk", "q", "d", "cs0", "hd", "wp"), strengths, strict=True)
    yield f"Flash pins drive settings: {', '.join(f'{pin}_drv: {strength:#x}' for pin, strength in pairs)}"
    raw = header["raw"]  # esptool prints what is stored, set or not
    chip = find_by_image_id(raw["chip_id"])
    yield f"Chip ID: {raw['chip_id']} ({NAMES[chip] if chip else 'Unknown ID'})"
    legacy = f"(legacy min_rev = {header['min_revision_legacy']})"
    yield f"Minimal chip revision: {Revision(raw['min_revision'])}, {legacy}"
    yield f"Maximal chip revision: {Revision(raw['max_revision'])}"


def _describe_app(app: dict[str, Any] | None) -> Iterator[str]:
    if app is None:
        return
    yield from _describe_title("Application Information")
    app = {name: "" if value is None else value for name, value in app.items()}
    yield f"Project name: {app['project']}"
    yield f"App version: {app['version']}"
    yield f"Compile time: {app['date']} {app['time']}"
    yield f"ELF file SHA256: {app['elf_sha256'] or '0' * 64}"
    yield f"ESP-IDF: {app['idf_version']}"
    yield f"Secure version: {app['secure_version']}"


def _describe_bootloader(bootloader: dict[str, Any] | None) -> Iterator[str]:
    if bootloader is None:
        return
    yield from _describe_title("Bootloader Information")
    yield f"Bootloader version: {bootloader['version']}"
    yield f"ESP-IDF: {bootloader['idf_version'] or ''}"
    yield f"Compile time: {bootloader['date_time'] or ''}"


ESPTOOL = Wording(describe=describe_event, count=count, steps=100, per_task=True, reset_last=True)
