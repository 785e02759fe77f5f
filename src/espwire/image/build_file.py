"""One file → what goes where in flash: merged binary, HEX, S-record, UF2, ELF. Pure; folders are build_folder.py's."""

from __future__ import annotations

from espwire.chips.index import CHIPS, ChipEntry
from espwire.errors import DataError, ElfError
from espwire.image.build_plan import (
    APP,
    BOOTLOADER,
    USUAL_APP,
    BuildFile,
    BuildPlan,
    BuildRequest,
    check_plan,
    find_chips,
    find_image_chip,
)
from espwire.image.inputs import Piece, make_pieces
from espwire.image.read_any import Format, read_any

KINDS: dict[Format, str] = {
    "raw": "merged binary",
    "hex": "Intel HEX",
    "srecord": "S-record",
    "uf2": "UF2",
    "elf": "ELF",
}
TABLE_ADDRESS = 0x8000
TABLE_MAGIC = b"\xaa\x50"


def plan_file(data: bytes, name: str, request: BuildRequest | None = None) -> BuildPlan:
    """What one file wants in flash.

    :raises DataError: it is broken, or nothing tells where it goes (code ``build-unclear``)
    """
    request = request or BuildRequest()
    content = read_any(data, name, request.format)
    kind, asked = content.format, request.format == "elf"
    pieces = make_pieces(
        content, data, name, chip=request.chip, settings=request.settings, asked=asked
    )
    notes = tuple(dict.fromkeys(piece.note for piece in pieces if piece.note))
    chips: tuple[str, ...] = ()
    if kind == "raw":
        found = find_merged(data, request)
        address, chips = found or (_place_alone(data, name, request), ())
        files: tuple[BuildFile, ...] = (BuildFile(address, data, name),)
    elif kind == "elf" and pieces[0].address is None:
        address, notes = _place_elf(pieces[0], name, request, notes)
        files = (BuildFile(address, pieces[0].data, name, APP),)
    else:
        files = tuple(
            BuildFile(
                piece.address or 0,
                piece.data,
                _name_piece(piece, name, alone=len(pieces) == 1),
                chips=piece.chips,
                one_of=piece.one_of,
            )
            for piece in pieces
        )
    if not files:
        raise DataError(f"{name} holds no data", hint="Build again.", code="build-empty")
    chips = (
        chips
        or tuple(dict.fromkeys(chip for piece in pieces for chip in piece.chips))
        or find_chips(files, name)
    )
    return check_plan(
        BuildPlan(kind=KINDS[kind], place=name, files=files, chips=chips, notes=notes), request
    )


def _name_piece(piece: Piece, name: str, *, alone: bool) -> str:
    if alone:
        return name
    made_for = f" for {' or '.join(piece.chips)}" if piece.one_of and piece.chips else ""
    return f"{name}{made_for} at {piece.address or 0:#x}"


def find_merged(data: bytes, request: BuildRequest) -> tuple[int, tuple[str, ...]] | None:
    """Where a binary of several parts begins in flash, and its chip; None: it is none, or nothing tells.

    A partition table, which stands at 0x8000 unless the build was told otherwise, and the boot loader, whose place is
    the chip's, must both be where the same beginning puts them.
    """
    found = [
        (start, (chip.id,))
        for chip in CHIPS
        if request.chip is None or chip.id == request.chip.id
        if (start := _find_start(data, chip)) is not None
    ]
    return found[0] if len(found) == 1 else None


def _find_start(data: bytes, chip: ChipEntry) -> int | None:
    boot = chip.bootloader_offset
    if chip.image_chip_id is None:  # such chips boot from 0 and have no partition table
        return 0 if find_image_chip(data) == chip.id else None
    for start in dict.fromkeys((0, boot)):
        head = data[boot - start : TABLE_ADDRESS - start]
        there = data[TABLE_ADDRESS - start :][:2] == TABLE_MAGIC
        if there and find_image_chip(head.rstrip(b"\xff")) == chip.id:
            return start
    return None


def _place_alone(data: bytes, name: str, request: BuildRequest) -> int:
    """The address of a binary that is one part: as the caller says."""
    from espwire.chips.registry import load_chip

    if request.app_address is not None:
        return request.app_address
    chip_id = find_image_chip(data)
    if chip_id:
        boot = load_chip(chip_id).flash.bootloader_offset
        raise DataError(
            f"{name} is one image for {chip_id}, not a whole flash: {BOOTLOADER} ({boot:#x}) or {APP}"
            f" ({USUAL_APP:#x})?",
            hint="Name the build's folder; or say where it goes with --app-address, as --app-address 0x10000.",
            code="build-unclear",
            candidates=[f"{boot:#x}", f"{USUAL_APP:#x}"],
        )
    raise DataError(
        f"{name} is neither a merged binary nor an image: nothing at offset 0 or 0x1000 tells where it goes",
        hint="Give address and file to write-flash, or name the build's folder.",
        code="build-unclear",
        candidates=[],
    )


def _place_elf(
    piece: Piece, name: str, request: BuildRequest, notes: tuple[str, ...]
) -> tuple[int, tuple[str, ...]]:
    """An ELF tells no flash address. An application goes where applications go; a program for RAM nowhere."""
    from espwire.chips.registry import load_chip
    from espwire.image.codec import parse
    from espwire.image.elf import is_flash

    chip = load_chip(piece.chips[0])
    image = parse(piece.data, chip)
    mapped = any(segment.address and is_flash(chip, segment.address) for segment in image.segments)
    if not mapped and request.app_address is None:
        raise ElfError(
            f"{name} has nothing in mapped flash: it is a program for RAM, or a boot loader",
            hint="Start it with load-ram; or say where it goes with --app-address.",
            code="elf-not-for-flash",
        )
    address = USUAL_APP if request.app_address is None else request.app_address
    why = "the usual place of an application" if request.app_address is None else "as asked"
    alone = "boot loader and partition table must be in flash already"
    return address, (*notes, f"{name} goes to {address:#x}, {why}; {alone}")
