"""What images need to know of a chip, without loading its whole data: names, header codes, memory map. Decides nothing.

``ImageChip`` has the fields of ``Chip`` that images use, under the same names; generated from the same data.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from espwire.chips.index import CHIPS
from espwire.errors import UsageError

if TYPE_CHECKING:
    from espwire.chips.model import Chip

    AnyChip: TypeAlias = "Chip | ImageChip"


class RegionFacts(NamedTuple):
    """See ``Region``."""

    name: str
    start: int
    end: int


class MemoryFacts(NamedTuple):
    """See ``Memory``."""

    map: tuple[RegionFacts, ...]


class FlashFacts(NamedTuple):
    """See ``Flash``."""

    bootloader_offset: int
    sector_size: int
    modes: dict[str, int]
    sizes: dict[str, int]
    frequencies: dict[str, int]
    default_frequency: str


class FormatFacts(NamedTuple):
    """See ``ImageFormat``."""

    format: str
    uf2_family: int | None
    mmu_page_sizes: tuple[int, ...]
    default_mmu_page_size: int | None
    page_tail: int
    secure_boot_v1: bool


class CpuFacts(NamedTuple):
    """See ``Cpu``."""

    architecture: str
    elf_machine: int


class MappedFacts(NamedTuple):
    """See ``MappedFlash``."""

    irom_start: int
    irom_end: int
    drom_start: int | None
    drom_end: int | None


class IdentityFacts(NamedTuple):
    """See ``Identity``."""

    image_chip_id: int | None


class ImageChip(NamedTuple):
    """See ``Chip``."""

    id: str
    name: str
    flash: FlashFacts
    image: FormatFacts
    memory: MemoryFacts
    mapped_flash: MappedFacts
    cpu: CpuFacts
    identity: IdentityFacts
    default_flash_size: int


def find_by_image_id(image_chip_id: int) -> str | None:
    """The id of the chip whose images carry this chip id (the ESP32's is 0)."""
    return next(
        (name for name, entry in CHIPS.items() if entry.image_chip_id == image_chip_id), None
    )


def parse_chip_id(name: str) -> str:
    """The id for any spelling: case and hyphens do not count.

    :raises UsageError: no such chip

    >>> parse_chip_id("ESP32-C3")
    'esp32c3'
    """
    wanted = name.lower().replace("-", "").replace("_", "")
    if wanted not in CHIPS:
        raise UsageError(f"there is no chip {name!r}", hint=f"Known chips: {', '.join(CHIPS)}.")
    return wanted


def load_image_chip(name: str) -> ImageChip:
    """What images need to know of the chip, any spelling of its name.

    :raises UsageError: no such chip
    """
    from espwire.chips.image_index import IMAGE_CHIPS

    return IMAGE_CHIPS[parse_chip_id(name)]
