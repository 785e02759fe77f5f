"""What a build wants in flash, as a value: files with addresses, the chip, header settings; and what is wrong with it.

How such a plan is made of a folder is build_folder.py's, of one file build_file.py's. Writes nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from espwire.errors import DataError, ImageError, TableError, UsageError
from espwire.image.codec import is_image, parse
from espwire.image.header import HeaderSettings
from espwire.image.read_any import FormatChoice

if TYPE_CHECKING:
    from espwire.chips.model import Chip
    from espwire.image.partition_table import Partition, PartitionTable

Read = Callable[[str], bytes]
USUAL_APP = (
    0x10000  # where Arduino, PlatformIO and ESP-IDF put an application unless told otherwise
)
APP, BOOTLOADER, TABLE, OTA_DATA = "app", "bootloader", "partition-table", "ota-data"


@dataclass(frozen=True)
class BuildFile:
    """One file's bytes and their flash address. ``encrypted``: the build wants the chip to encrypt it.

    ``chips``, ``one_of``: of a file with parts for several chips, as ``Piece`` has them.
    """

    address: int
    data: bytes = field(repr=False)
    name: str
    role: str = ""
    encrypted: bool = False
    chips: tuple[str, ...] = ()
    one_of: str = ""

    @property
    def end(self) -> int:
        """One past the last address."""
        return self.address + len(self.data)


@dataclass(frozen=True, kw_only=True)
class BuildPlan:
    """What goes where. ``chips``: ids of the chips it is for; empty: nothing says.

    ``before`` and ``after`` are reset modes that the build asks for, or empty; ``notes`` say what was decided.
    """

    kind: str
    place: str
    files: tuple[BuildFile, ...]
    chips: tuple[str, ...] = ()
    settings: HeaderSettings = field(default_factory=HeaderSettings)
    before: str = ""
    after: str = ""
    stub: bool = True
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> int:
        """Bytes in all files."""
        return sum(len(file.data) for file in self.files)

    def describe(self) -> tuple[str, ...]:
        """One line per file for people."""
        return tuple(
            f"{file.address:#010x}  {len(file.data):>9,} bytes  {file.name}" for file in self.files
        )


@dataclass(frozen=True, kw_only=True)
class BuildRequest:
    """What the caller knows or wants: the chip, flash settings for the header of a converted ELF, the address of an
    application that stands alone. ``format``: what a single file is, if not to be found out. ``consents`` allow by name
    what is otherwise refused (``outside-build``)."""

    chip: Chip | None = None
    settings: HeaderSettings = field(default_factory=HeaderSettings)
    app_address: int | None = None
    format: FormatChoice = "auto"
    consents: frozenset[str] = frozenset()


def find_image_chip(data: bytes) -> str:
    """The id of the chip that an image is for; empty: it is no sound image, or for a chip nobody knows."""
    from espwire.chips.registry import find_by_image_id

    if not is_image(data):
        return ""
    try:
        image = parse(data)
    except ImageError:
        return ""
    if image.extended is None and not image.checksum_valid:
        return ""
    return find_by_image_id(image.chip_id) or ""


def find_chips(files: Iterable[BuildFile], place: str, *, stated: str = "") -> tuple[str, ...]:
    """The one chip that all images among ``files`` are for.

    :param stated: the chip that the build names
    :raises DataError: code ``build-mixed``
    """
    said = {"the build": stated} if stated else {}
    for file in files:
        if file.role in (APP, BOOTLOADER, "") and (chip := find_image_chip(file.data)):
            said[file.name] = chip
    if len(set(said.values())) > 1:
        text = ", ".join(f"{name} is for {chip}" for name, chip in said.items())
        raise DataError(
            f"{place} holds files for several chips: {text}",
            hint="Build again from scratch for one chip.",
            code="build-mixed",
        )
    return tuple(dict.fromkeys(said.values()))


def check_plan(plan: BuildPlan, request: BuildRequest) -> BuildPlan:
    """The plan, if nothing is wrong with it.

    :raises DataError: codes ``build-empty``, ``build-overlap``, ``build-oversize``
    :raises UsageError: code ``build-chip``: it is for another chip than the caller's
    """
    if request.chip is not None and plan.chips and request.chip.id not in plan.chips:
        raise UsageError(
            f"{plan.place} is a build for {' or '.join(plan.chips)}, not for {request.chip.id}",
            hint="Name the right folder, or leave --chip out.",
            code="build-chip",
        )
    files = sorted(plan.files, key=lambda file: file.address)
    if empty := next((file.name for file in files if not file.data), ""):
        raise DataError(
            f"{plan.place}: {empty} is empty",
            hint="The build did not end well: build again.",
            code="build-empty",
        )
    for one, other in _find_neighbours(files):
        if one.end > other.address:
            raise DataError(
                f"{plan.place}: {one.name} ends at {one.end:#x}, past {other.address:#x} where {other.name} begins",
                hint="The build is inconsistent: check its partition table, and build again.",
                code="build-overlap",
            )
    table = find_table(files)
    for file in files if table is not None else ():
        _check_room(file, table, plan.place)
    return plan


def _find_neighbours(files: Iterable[BuildFile]) -> Iterator[tuple[BuildFile, BuildFile]]:
    """Files that follow each other in flash: those for all chips, and those for each chip of a file for several."""
    files = tuple(files)
    for chips in dict.fromkeys(file.chips if file.one_of else () for file in files):
        yield from pairwise(file for file in files if not file.one_of or file.chips == chips)


def find_table(files: Iterable[BuildFile]) -> PartitionTable | None:
    """The partition table among ``files``, if one is there and sound enough to be read."""
    from espwire.image.partition_table import parse_table

    for file in files:
        if file.data[:2] == b"\xaa\x50":
            try:
                return parse_table(file.data, file.name)
            except TableError:
                return None
    return None


def find_app_partition(table: PartitionTable) -> Partition | None:
    """Where the application goes: the app partition at 0x10000, else the factory one, else the first."""
    apps = [row for row in table.partitions if row.type == 0]
    usual = [row for row in apps if row.offset == USUAL_APP]
    factory = [row for row in apps if row.subtype == 0]
    return next(iter((*usual, *factory, *apps)), None)


def _check_room(file: BuildFile, table: PartitionTable | None, place: str) -> None:
    for row in table.partitions if table is not None else ():
        if row.offset == file.address and file.end > row.end:
            raise DataError(
                f"{place}: {file.name} has {len(file.data):#x} bytes, the partition '{row.label}' at {row.offset:#x}"
                f" has {row.size:#x}",
                hint="Make the program smaller or the partition larger.",
                code="build-oversize",
            )


def unclear(message: str, candidates: Iterable[str], hint: str) -> DataError:
    """It is not clear what goes where: the error lists what it could be."""
    names = tuple(candidates)
    listed = ", ".join(names[:12]) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
    return DataError(
        f"{message}: {listed}" if names else message,
        hint=hint,
        code="build-unclear",
        candidates=list(names),
    )
