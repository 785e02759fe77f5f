"""Several parts → one file: raw with gaps filled, UF2, or Intel HEX. Pure: reads and writes no file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from espwire.errors import ImageError, UsageError
from espwire.image.header import HeaderSettings

if TYPE_CHECKING:
    from espwire.chips.model import Chip

Format = Literal["raw", "uf2", "hex"]
LIMIT = 256 * 0x100000  # twice the largest flash
TOP = 1 << 32
RECORD = 16  # bytes per line of Intel HEX


@dataclass(frozen=True)
class MergePart:
    """Bytes, their flash address, and a name for messages. ``chips``, ``one_of``: as ``Piece`` has them."""

    address: int
    data: bytes = field(repr=False)
    name: str = ""
    chips: tuple[str, ...] = ()
    one_of: str = ""

    @property
    def end(self) -> int:
        """One past the last address."""
        return self.address + len(self.data)


@dataclass(frozen=True, kw_only=True)
class MergeOptions:
    """How to merge. ``target_offset``: where in flash the file will go; ``pad_to_size``: the flash's size in bytes."""

    format: Format = "raw"
    target_offset: int = 0
    pad_to_size: int | None = None
    chunk_size: int | None = None
    md5: bool = True
    settings: HeaderSettings = field(default_factory=HeaderSettings)


@dataclass(frozen=True, kw_only=True)
class Merged:
    """The finished file, what went into it, and what the caller should be told."""

    format: Format
    data: bytes = field(repr=False)
    target_offset: int
    parts: tuple[MergePart, ...]
    warnings: tuple[str, ...] = ()


def merge_parts(
    parts: Iterable[MergePart], chip: Chip, options: MergeOptions | None = None
) -> Merged:
    """One file of all parts. The part at the chip's bootloader offset gets the flash settings.

    :raises UsageError: parts overlap or lie outside, the chip has no such flash setting or no UF2 family
    """
    options = options or MergeOptions()
    ordered = sorted(parts, key=lambda part: part.address)
    _check(ordered, chip.flash.sector_size, options)
    warnings: list[str] = []
    patched = tuple(_patch(part, chip, options.settings, warnings) for part in ordered)
    builders = {"raw": _build_raw, "uf2": _build_uf2, "hex": _build_hex}
    data = builders[options.format](patched, chip, options)
    return Merged(
        format=options.format,
        data=data,
        target_offset=options.target_offset,
        parts=patched,
        warnings=tuple(warnings),
    )


def find_merge_chip(parts: Iterable[MergePart]) -> Chip:
    """The chip that the whole images among ``parts`` are for.

    :raises UsageError: there is none, or they are for several, code ``merge-chip``
    """
    from espwire.chips.registry import find_by_image_id, load_chip
    from espwire.image.codec import parse

    found: set[str] = set()
    for part in parts:
        try:
            image = parse(part.data)
        except ImageError:
            continue
        name = find_by_image_id(image.chip_id) if image.checksum_valid else None
        if name is not None:
            found.add(name)
    if len(found) != 1:
        said = (
            f"the images are for {', '.join(sorted(found))}"
            if found
            else "no image among the files tells the chip"
        )
        raise UsageError(
            f"{said}: one chip is needed", hint="Name it with --chip.", code="merge-chip"
        )
    return load_chip(found.pop())


def _check(parts: Sequence[MergePart], sector: int, options: MergeOptions) -> None:
    if not parts:
        raise UsageError(
            "there is nothing to merge", hint="Give pairs: an address, then the file for it."
        )
    if parts[0].address < options.target_offset:
        raise UsageError(
            f"{parts[0].name} at {parts[0].address:#x} lies before the target offset {options.target_offset:#x}",
            hint="Leave --target-offset out, or give the lowest address.",
            code="merge-before-target",
        )
    for before, after in pairwise(parts):
        if after.address < -(-before.end // sector) * sector:
            raise UsageError(
                f"{before.name} ({before.address:#x} to {before.end:#x}) and {after.name} at {after.address:#x} "
                "overlap: they share a flash sector",
                hint=f"Move one of them: a sector of {sector:#x} bytes is erased whole.",
                code="merge-overlap",
            )
    last = max(parts, key=lambda part: part.end)
    if last.end > TOP or (options.format == "raw" and last.end - options.target_offset > LIMIT):
        raise UsageError(
            f"{last.name} at {last.address:#x} lies beyond any flash",
            hint="Check the address; give --target-offset or --format hex where only the address is high.",
            code="merge-size",
        )


def _patch(part: MergePart, chip: Chip, settings: HeaderSettings, warnings: list[str]) -> MergePart:
    """The part with the flash settings in its header, if it is a whole image for the boot loader's place."""
    if part.address != chip.flash.bootloader_offset or settings.keep_all or not part.data:
        return part
    from espwire.image.patch_header import find_patch_obstacle, patch_header

    if obstacle := find_patch_obstacle(part.data, chip):
        warnings.append(f"the header of {part.name} is left as it is: {obstacle}")
        return part
    data = patch_header(
        part.data, chip, mode=settings.mode, size=settings.size, frequency=settings.frequency
    )
    return replace(part, data=data)


def _build_raw(parts: Sequence[MergePart], chip: Chip, options: MergeOptions) -> bytes:
    pieces, at = [], options.target_offset
    for part in parts:
        pieces += [b"\xff" * (part.address - at), part.data]
        at = part.end
    if options.pad_to_size is not None:
        pieces.append(b"\xff" * (options.pad_to_size - at))
    return b"".join(pieces)  # the only copy


def _build_uf2(parts: Sequence[MergePart], chip: Chip, options: MergeOptions) -> bytes:
    from espwire.image.uf2 import build_uf2

    if chip.image.uf2_family is None:
        raise UsageError(
            f"the {chip.name} has no UF2 family id",
            hint="Merge to --format hex or raw.",
            code="merge-uf2-family",
        )
    pairs = [(part.address, part.data) for part in parts]
    return build_uf2(pairs, chip.image.uf2_family, chunk_size=options.chunk_size, md5=options.md5)


def _build_hex(parts: Sequence[MergePart], chip: Chip, options: MergeOptions) -> bytes:
    return build_hex([(part.address, part.data) for part in parts])


def build_hex(parts: Sequence[tuple[int, bytes]]) -> bytes:
    """Intel HEX of ``parts``, which must be in order: 16 bytes a line, gaps left out, bases above 64 KiB only."""
    lines: list[bytes] = []
    end = max((address + len(data) for address, data in parts if data), default=0)
    base = 0 if end <= 0x10000 else None  # no base yet
    for address, piece in _records(parts):
        if base != address >> 16:
            base = address >> 16
            lines.append(_record(0, 4, base.to_bytes(2, "big")))
        lines.append(_record(address & 0xFFFF, 0, piece))
    lines.append(_record(0, 1, b""))
    return b"".join(lines)


def _records(parts: Sequence[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Pieces of at most 16 bytes; none goes over a 64 KiB boundary or a gap."""
    for address, data in _join_touching(parts):
        at = 0
        while at < len(data):
            here = address + at
            size = min(RECORD, 0x10000 - (here & 0xFFFF))
            yield here, data[at : at + size]
            at += size


def _join_touching(parts: Sequence[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    start, row = 0, bytearray()
    for address, data in parts:
        if row and address != start + len(row):
            yield start, bytes(row)
            row = bytearray()
        if not row:
            start = address
        row += data
    if row:
        yield start, bytes(row)


def _record(address: int, kind: int, data: bytes) -> bytes:
    body = bytes((len(data), address >> 8, address & 0xFF, kind)) + data
    return b":%b%02X\n" % (body.hex().upper().encode(), -sum(body) & 0xFF)
