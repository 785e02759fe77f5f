"""The output of ``esptool.py image-info``, with the labels that scripts search for.

The labels are those of esptool 5; tests/peers/test_image_info_peer.py compares the lines with its output.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from espwire.cli.output import printable
from espwire.image.model import WP_PIN_DISABLED
from espwire.sizes import Revision


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
    from espwire.chips.index import NAMES

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
    from espwire.chips.index import NAMES
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
