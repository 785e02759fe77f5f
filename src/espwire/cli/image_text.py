"""The result of ``image-info``: lines for people and data for programs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from espwire.chips.index import NAMES
from espwire.image.header import (
    format_chip_id,
    format_digest,
    format_revisions,
    format_setting,
    format_text,
    format_wp_pin,
    known_chip_id,
    known_digest,
    known_maximum,
    known_revision,
)
from espwire.sizes import Revision
from espwire.text import escape

if TYPE_CHECKING:
    from espwire.image.descriptors import AppDescriptor, BootDescriptor
    from espwire.image.inspect import FileInfo, ImageInfo, Item
    from espwire.image.model import ExtendedHeader
    from espwire.image.signature import Signature

WIDTH = 20


def draw_file(file: FileInfo) -> str:
    """The contents of a file as lines."""
    kinds = {
        "image": "single image",
        "merged": "merged file or dump",
        "hex": "Intel HEX",
        "srecord": "S-record",
        "uf2": "UF2",
    }
    lines = [
        _row("File", file.name),
        _row("Size", f"{file.size:,} bytes"),
        _row("Format", kinds[file.format]),
    ]
    for item in file.items:
        lines += ["", *_draw_item(item, alone=file.format == "image")]
    return "\n".join(lines)


def _row(name: str, value: object) -> str:
    return f"{name + ':':<{WIDTH}} {escape(str(value))}"


def _draw_item(item: Item, *, alone: bool) -> Iterator[str]:
    kind = item.kind.replace("-", " ").capitalize()
    name = f" {item.name}" if item.name else ""
    if item.info is not None and item.info.chip is not None:
        kind += f" for {NAMES[item.info.chip]}"
    yield kind + name if alone else f"{kind}{name} at {item.offset:#x}, {item.size:,} bytes"
    if item.info is not None:
        yield from (f"  {line}" for line in draw_image(item.info))
    if item.table is not None:
        for row in item.table.partitions:
            line = f"  {row.label:<16} {row.type_name:<5} {row.subtype_name:<9} {row.offset:#010x} {row.size:#10x}"
            yield f"{line}  ! {row.flaw}" if row.flaw else line
    if item.kind == "encrypted":
        yield "  Neither blank nor an image; its high entropy suggests encrypted data."
    for problem in item.problems:
        yield f"  problem: {problem}"


def draw_image(info: ImageInfo) -> Iterator[str]:
    """The lines about an image."""
    image, known = info.image, info.chip is not None
    yield _row("Image version", image.version)
    yield _row("Entry", f"{image.entry:#010x}")
    yield _row("Flash mode", format_setting(info.flash_mode, image.mode_code, known=known))
    yield _row("Flash size", format_setting(info.flash_size, image.size_code >> 4, known=known))
    yield _row(
        "Flash frequency", format_setting(info.flash_frequency, image.frequency_code, known=known)
    )
    yield from _draw_extended(info)
    yield ""
    yield "Segment  Length    Load address  File offset  Memory"
    for number, segment in enumerate(info.segments):
        memory = ", ".join(segment.memory) + (
            " (after the checksum, not loaded by the ROM)" if segment.hidden else ""
        )
        line = f"{number:>7}  {segment.size:#08x}  {segment.address:#010x}    {segment.offset:#010x}   {memory}"
        yield line.rstrip()
    yield ""
    yield from _draw_sums(info)
    for signature in info.signatures:
        yield _row("Signature", _draw_signature(signature))
    if info.app is not None:
        yield from _draw_app(info.app)
    if info.bootloader is not None:
        yield from _draw_bootloader(info.bootloader)
    for warning in info.warnings:
        yield f"note: {warning}"
    for problem in info.problems:
        yield f"problem: {problem}"


def _draw_extended(info: ImageInfo) -> Iterator[str]:
    header = info.image.extended
    if header is None:
        return
    yield _row("Chip id", format_chip_id(header.chip_id))
    yield _row("Chip revisions", format_revisions(header.min_revision, header.max_revision))
    yield _row("Legacy minimum", header.min_revision_legacy)
    yield _row("WP pin", format_wp_pin(header.wp_pin))
    clk_q, d_cs, hd_wp = header.drive
    drives = {
        "clk": clk_q & 15,
        "q": clk_q >> 4,
        "d": d_cs & 15,
        "cs": d_cs >> 4,
        "hd": hd_wp & 15,
        "wp": hd_wp >> 4,
    }
    yield _row("Pin drive", ", ".join(f"{pin} {drive}" for pin, drive in drives.items()))


def _draw_sums(info: ImageInfo) -> Iterator[str]:
    image = info.image
    checksum = f"{image.checksum or 0:#04x}"
    wrong = (
        "" if info.actual_checksum is None else f"invalid, should be {info.actual_checksum:#04x}"
    )
    yield _row("Checksum", f"{checksum} ({wrong or 'valid'})")
    if image.digest is not None:
        yield _row(
            "SHA-256", f"{image.digest.hex()} ({'valid' if image.digest_valid else 'invalid'})"
        )
    elif image.extended is not None:
        yield _row("SHA-256", "not appended")
    if image.crc is not None:
        value = int.from_bytes(image.crc, "little")
        yield _row("CRC-32", f"{value:#010x} ({'valid' if image.crc_valid else 'invalid'})")


def _draw_signature(signature: Signature) -> str:
    if signature.version == 1:
        return f"Secure Boot 1, {signature.scheme}, at {signature.offset:#x}"
    crc = "valid CRC" if signature.crc_valid else "invalid CRC"
    match = "for this image" if signature.digest_valid else "for another image"
    key = (signature.key_digest or b"").hex()
    block = f"block {signature.block} at {signature.offset:#x}"
    return f"Secure Boot 2, {block}, {signature.scheme}, {crc}, {match}, key digest {key}"


def _draw_app(app: AppDescriptor) -> Iterator[str]:
    yield _row("Project", format_text(app.project))
    yield _row("Version", format_text(app.version))
    yield _row("Built", format_text(f"{app.date} {app.time}"))
    yield _row("ESP-IDF", format_text(app.idf_version))
    yield _row("ELF SHA-256", format_digest(app.elf_sha256))
    revisions = format_revisions(app.min_efuse_block_revision, app.max_efuse_block_revision)
    yield _row("eFuse block", f"revisions {revisions}")
    if app.mmu_page_size is not None:
        yield _row("MMU page", f"{app.mmu_page_size >> 10} KiB")
    yield _row("Secure version", app.secure_version)


def _draw_bootloader(boot: BootDescriptor) -> Iterator[str]:
    yield _row("Bootloader version", boot.version)
    yield _row("Built", format_text(boot.date_time))
    yield _row("ESP-IDF", format_text(boot.idf_version))


def file_data(file: FileInfo) -> dict[str, Any]:
    """The contents of a file for programs."""
    return {
        "file": file.name,
        "size": file.size,
        "format": file.format,
        "intact": file.intact,
        "problems": list(file.problems),
        "items": [_item_data(item) for item in file.items],
    }


def _item_data(item: Item) -> dict[str, Any]:
    table = item.table
    rows = ("name", "type", "subtype", "offset", "size", "flags")
    return {
        "kind": item.kind,
        "offset": item.offset,
        "size": item.size,
        "name": item.name,
        "intact": item.intact,
        "image": image_data(item.info) if item.info else None,
        "partitions": [
            {name: getattr(row, name) for name in rows}
            | {"name": row.label, "flaw": row.flaw or None}
            for row in table.partitions
        ]
        if table
        else None,
    }


def image_data(info: ImageInfo) -> dict[str, Any]:
    """An image for programs; bytes in hexadecimal."""
    image, header = info.image, info.image.extended
    return {
        "chip": info.chip,
        "version": image.version,
        "entry": image.entry,
        "flash_mode": info.flash_mode,
        "flash_size": info.flash_size,
        "flash_frequency": info.flash_frequency,
        "extended_header": _header_data(header) if header else None,
        "segments": [_plain(segment) for segment in info.segments],
        "checksum": image.checksum,
        "checksum_valid": image.checksum_valid,
        "sha256": image.digest.hex() if image.digest else None,
        "sha256_valid": image.digest_valid,
        "crc32": int.from_bytes(image.crc, "little") if image.crc else None,
        "crc32_valid": image.crc_valid,
        "app_descriptor": _app_data(info.app) if info.app else None,
        "bootloader_descriptor": _texts_or_null(_plain(info.bootloader))
        if info.bootloader
        else None,
        "signatures": [_plain(signature) for signature in info.signatures],
        "warnings": list(info.warnings),
        "problems": list(info.problems),
    }


def _revision_text(revision: int | None) -> str | None:
    return None if revision is None else str(Revision(revision))


def _header_data(header: ExtendedHeader) -> dict[str, Any]:
    """The extended header; None for fields that are not set or invalid, whose stored values are in ``raw``."""
    return _plain(header) | {
        "chip_id": known_chip_id(header.chip_id),
        "min_revision": _revision_text(known_revision(header.min_revision)),
        "max_revision": _revision_text(known_maximum(header.max_revision)),
        "raw": {
            name: getattr(header, name) for name in ("chip_id", "min_revision", "max_revision")
        },
    }


def _app_data(app: AppDescriptor) -> dict[str, Any]:
    """The application descriptor; None for fields that are not set or invalid."""
    digest = known_digest(app.elf_sha256)
    return _texts_or_null(_plain(app)) | {
        "elf_sha256": None if digest is None else digest.hex(),
        "min_efuse_block_revision": _revision_text(known_revision(app.min_efuse_block_revision)),
        "max_efuse_block_revision": _revision_text(known_maximum(app.max_efuse_block_revision)),
    }


def _texts_or_null(values: dict[str, Any]) -> dict[str, Any]:
    return {name: None if value == "" else value for name, value in values.items()}


def _plain(value: Any) -> dict[str, Any]:
    """A flat named tuple as JSON."""
    return {name: v.hex() if isinstance(v, bytes) else v for name, v in value._asdict().items()}
