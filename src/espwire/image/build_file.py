"""What a build puts in flash: `BuildPlan`, the checks on it, and the plan for a single file.

build_dir.py makes the plan of a folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import TYPE_CHECKING

from espwire.blob import Blob
from espwire.chips.index import CHIPS, ChipEntry
from espwire.chips.registry import find_by_image_id, load_chip
from espwire.errors import DataError, ElfError, ImageError, TableError, UsageError
from espwire.image.codec import is_image, parse
from espwire.image.header import HeaderSettings
from espwire.image.model import ROW_MAGIC
from espwire.image.partition_table import (
    TABLE_OFFSET,
    Partition,
    PartitionTable,
    parse_table,
)
from espwire.image.read_any import Format, FormatChoice, make_blobs, read_any

if TYPE_CHECKING:
    from espwire.chips.model import Chip

Read = Callable[[str], bytes]
USUAL_APP = 0x10000  # the default of Arduino, PlatformIO and ESP-IDF for an application
APP, BOOTLOADER, TABLE, OTA_DATA = "app", "bootloader", "partition-table", "ota-data"
KINDS: dict[Format, str] = {
    "raw": "merged binary",
    "hex": "Intel HEX",
    "srecord": "S-record",
    "uf2": "UF2",
    "elf": "ELF",
}


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """What goes where. ``chips``: ids of the chips it is for; empty: not known.

    ``before`` and ``after`` are reset modes that the build specifies, or empty; ``notes`` explain decisions.
    """

    kind: str
    name: str
    blobs: tuple[Blob, ...]
    chips: tuple[str, ...] = ()
    settings: HeaderSettings = field(default_factory=HeaderSettings)
    before: str = ""
    after: str = ""
    stub: bool = True
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes in all blobs."""
        return sum(len(blob.data) for blob in self.blobs)

    def describe(self) -> tuple[str, ...]:
        """One line per blob for people."""
        return tuple(
            f"{blob.address:#010x}  {len(blob.data):>9,} bytes  {blob.name}" for blob in self.blobs
        )


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """Options for planning a build.

    ``settings``: for the header of a converted ELF; ``app_address``: of an application without a build;
    ``format``: of a single file, if it is not to be recognised; ``consents``: overridden checks (``outside-build``).
    """

    chip: Chip | None = None
    settings: HeaderSettings = field(default_factory=HeaderSettings)
    app_address: int | None = None
    format: FormatChoice = "auto"
    consents: frozenset[str] = frozenset()


def find_image_chip(data: bytes) -> str:
    """The id of the chip that an image is for; empty: not an intact image, or for an unknown chip."""
    if not is_image(data):
        return ""
    try:
        image = parse(data)
    except ImageError:
        return ""
    if image.extended is None and not image.checksum_valid:
        return ""
    return find_by_image_id(image.chip_id) or ""


def find_chips(blobs: Iterable[Blob], name: str, *, stated: str = "") -> tuple[str, ...]:
    """The only chip that all images among ``blobs`` are for.

    :param stated: the chip that the build names
    :raises DataError: code ``build-mixed``
    """
    chips = {"the build": stated} if stated else {}
    for blob in blobs:
        if blob.kind in (APP, BOOTLOADER, "") and (chip := find_image_chip(blob.data)):
            chips[blob.name] = chip
    if len(set(chips.values())) > 1:
        text = ", ".join(f"{name} is for {chip}" for name, chip in chips.items())
        raise DataError(
            f"{name} holds files for several chips: {text}",
            hint="Build again from scratch for one chip.",
            code="build-mixed",
        )
    return tuple(dict.fromkeys(chips.values()))


def check_plan(plan: BuildPlan, request: BuildRequest) -> BuildPlan:
    """The plan, if it is consistent.

    :raises DataError: codes ``build-empty``, ``build-overlap``, ``build-oversize``
    :raises UsageError: code ``build-chip``: it is for another chip than the request's
    """
    if request.chip is not None and plan.chips and request.chip.id not in plan.chips:
        raise UsageError(
            f"{plan.name} is a build for {' or '.join(plan.chips)}, not for {request.chip.id}",
            hint="Pass the folder of the right build, or leave --chip out.",
            code="build-chip",
        )
    blobs = sorted(plan.blobs, key=lambda blob: blob.address)
    if empty := next((blob.name for blob in blobs if not blob.data), ""):
        raise DataError(
            f"{plan.name}: {empty} is empty",
            hint="The build did not finish: build again.",
            code="build-empty",
        )
    for first, second in _find_neighbours(blobs):
        if first.end > second.address:
            raise DataError(
                f"{plan.name}: {first.name} ends at {first.end:#x} and overlaps {second.name} at"
                f" {second.address:#x}",
                hint="The build is inconsistent: check its partition table, and build again.",
                code="build-overlap",
            )
    table = find_table(blobs)
    for blob in blobs if table is not None else ():
        _check_room(blob, table, plan.name)
    return plan


def _find_neighbours(blobs: Iterable[Blob]) -> Iterator[tuple[Blob, Blob]]:
    """Blobs that follow each other in flash: those for all chips, and those for each chip of a file for several."""
    blobs = tuple(blobs)
    for chips in dict.fromkeys(blob.chips if blob.one_of else () for blob in blobs):
        yield from pairwise(blob for blob in blobs if not blob.one_of or blob.chips == chips)


def find_table(blobs: Iterable[Blob]) -> PartitionTable | None:
    """The partition table among ``blobs``, if it can be parsed."""
    for blob in blobs:
        if blob.data[:2] == ROW_MAGIC:
            try:
                return parse_table(blob.data, blob.name)
            except TableError:
                return None
    return None


def find_app_partition(table: PartitionTable) -> Partition | None:
    """Where the application goes: the app partition at 0x10000, else the factory partition, else the first."""
    apps = [row for row in table.partitions if row.type == 0]
    usual = [row for row in apps if row.offset == USUAL_APP]
    factory = [row for row in apps if row.subtype == 0]
    return next(iter((*usual, *factory, *apps)), None)


def _check_room(blob: Blob, table: PartitionTable | None, name: str) -> None:
    for row in table.partitions if table is not None else ():
        if row.offset == blob.address and blob.end > row.end:
            raise DataError(
                f"{name}: {blob.name} has {len(blob.data):#x} bytes, but partition '{row.label}' at"
                f" {row.offset:#x} has only {row.size:#x}",
                hint="Make the program smaller or the partition larger.",
                code="build-oversize",
            )


def unclear(message: str, candidates: Iterable[str], hint: str) -> DataError:
    """The error for an ambiguous build; it lists the candidates."""
    names = tuple(candidates)
    listed = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return DataError(
        f"{message}: {listed}" if names else message,
        hint=hint,
        code="build-unclear",
        candidates=list(names),
    )


def plan_file(data: bytes, name: str, request: BuildRequest | None = None) -> BuildPlan:
    """The plan for a single file.

    :raises DataError: it is broken, or its flash address is unknown (code ``build-unclear``)
    """
    request = request or BuildRequest()
    file = read_any(data, name, request.format)
    blobs = make_blobs(
        file, chip=request.chip, settings=request.settings, convert=request.format == "elf"
    )
    if not blobs:
        raise DataError(f"{name} contains no data", hint="Build again.", code="build-empty")
    notes = tuple(dict.fromkeys(blob.note for blob in blobs if blob.note))
    chips = tuple(dict.fromkeys(chip for blob in blobs for chip in blob.chips))
    if file.format == "raw":
        address, chips = find_merged(data, request) or (_choose_address(data, name, request), ())
        blobs = (Blob(address, data, name),)
    elif file.format == "elf" and not blobs[0].fixed:
        address, note = _choose_elf_address(blobs[0], request)
        blobs, notes = (replace(blobs[0], address=address, kind=APP),), (*notes, note)
    if len(blobs) > 1:
        blobs = tuple(replace(blob, name=_name_blob(blob)) for blob in blobs)
    plan = BuildPlan(
        kind=KINDS[file.format],
        name=name,
        blobs=blobs,
        chips=chips or find_chips(blobs, name),
        notes=notes,
    )
    return check_plan(plan, request)


def _name_blob(blob: Blob) -> str:
    made_for = f" for {' or '.join(blob.chips)}" if blob.one_of and blob.chips else ""
    return f"{blob.name}{made_for} at {blob.address:#x}"


def find_merged(data: bytes, request: BuildRequest) -> tuple[int, tuple[str, ...]] | None:
    """The flash address of a merged binary, and its chip; None: it is not a merged binary, or ambiguous.

    The partition table (at 0x8000 by default) and the bootloader (at the chip's offset) must both be where the same
    start address puts them.
    """
    starts = [
        (start, (chip.id,))
        for chip in CHIPS
        if request.chip is None or chip.id == request.chip.id
        if (start := _find_start(data, chip)) is not None
    ]
    return starts[0] if len(starts) == 1 else None


def _find_start(data: bytes, chip: ChipEntry) -> int | None:
    boot = chip.bootloader_offset
    if chip.image_chip_id is None:  # such chips boot from 0 and have no partition table
        return 0 if find_image_chip(data) == chip.id else None
    for start in dict.fromkeys((0, boot)):
        head = data[boot - start : TABLE_OFFSET - start]
        has_table = data[TABLE_OFFSET - start :][:2] == ROW_MAGIC
        if has_table and find_image_chip(head.rstrip(b"\xff")) == chip.id:
            return start
    return None


def _choose_address(data: bytes, name: str, request: BuildRequest) -> int:
    """The address of a binary that is not a merged one: from the request."""
    if request.app_address is not None:
        return request.app_address
    chip_id = find_image_chip(data)
    if chip_id:
        boot = load_chip(chip_id).flash.bootloader_offset
        raise DataError(
            f"{name} is a single image for {chip_id}, not a whole flash: {BOOTLOADER} ({boot:#x}) or {APP}"
            f" ({USUAL_APP:#x})?",
            hint="Pass the build folder, or set the address, for example --app-address 0x10000.",
            code="build-unclear",
            candidates=[f"{boot:#x}", f"{USUAL_APP:#x}"],
        )
    from espwire.image.scan import describe_kind

    raise DataError(
        f"the flash address of {name} is unknown: it is {describe_kind(data)},"
        " neither a merged binary nor an image",
        hint="Use write-flash with its address, or pass the build folder.",
        code="build-unclear",
        candidates=[],
    )


def _choose_elf_address(blob: Blob, request: BuildRequest) -> tuple[int, str]:
    """Flash address and a note for an image that was converted from an ELF, which must be an application.

    :raises ElfError: it uses no mapped flash, so it is a program for RAM or a bootloader
    """
    chip = load_chip(blob.chips[0])
    image = parse(blob.data, chip)
    mapped = any(
        segment.address and chip.mapped_flash.holds(segment.address) for segment in image.segments
    )
    if not mapped and request.app_address is None:
        raise ElfError(
            f"{blob.name} uses no mapped flash: it is a program for RAM or a bootloader",
            hint="Start it with load-ram, or set its flash address with --app-address.",
            code="elf-not-for-flash",
        )
    address = USUAL_APP if request.app_address is None else request.app_address
    why = "the default for applications" if request.app_address is None else "as requested"
    return address, (
        f"{blob.name} is written to {address:#x}, {why}; bootloader and partition table must already be in flash"
    )
