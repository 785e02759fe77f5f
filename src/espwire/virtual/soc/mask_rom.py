"""Images of mask ROMs, and what it takes to run one: ``chips/data/mask-roms.toml``.

espwire contains no ROM image. ``rom=FILE`` names one; without a file, it is searched in the folder ``ESPWIRE_ROMS``.
"""

# no `from __future__ import annotations`: load_table reads the types of the fields

import hashlib
import os
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path

from espwire.chips.model import BitAt, BitPart, Chip, RamBank
from espwire.chips.tables import load_table, parse_toml, read_data_file
from espwire.errors import DataError, UsageError
from espwire.files import read_file
from espwire.record import Record
from espwire.virtual.soc.rom_elf import is_elf, make_rom_image

FOLDER_VARIABLE = "ESPWIRE_ROMS"
DATA_FILE = "mask-roms.toml"
LARGEST = 4 << 20


class RomImage(Record):
    """A known image: the name in its boot message, its size in bytes, its SHA-256 in hex.

    ``options``: of a virtual chip that has this ROM, such as ``&revision=1.0``, where it is not the usual one.
    ``elf``: SHA-256 of the ELF file that the image is made from, where no dump is known.
    """

    name: str
    size: int
    sha256: str
    options: str = ""
    elf: str = ""


class RomPart(Record):
    """Where a piece of an image is in the address space. ``code`` False: only data."""

    start: int
    offset: int
    size: int
    code: bool = True


class RomInterrupts(Record):
    """How the interrupt of UART 0 reaches the CPU: source number ``uart``.

    ``matrix``: registers that map each source to one of the CPU's lines; None: the sources are the lines.
    ``priorities``: base of the registers that enable lines and give them priorities; ``clic``: base of the CLIC.
    """

    uart: int
    matrix: int | None = None
    priorities: int | None = None
    clic: int | None = None


class RomUart(Record):
    """What a ROM uses of UART 0 besides FIFO, status and divider: offsets of its registers, and bits in them.

    ``pulse``: length of the shortest low pulse, and behind it of the shortest high pulse; ``edges``: number of edges;
    ``autobaud``: the bit that starts their measurement; ``fifo_reset``: the bit of CONF0 that empties the receive FIFO;
    ``threshold_bits``: of the FIFO's threshold in CONF1. ``others``: further addresses of the same UART.
    ``correction``: what the ROM adds to the length of a pulse.
    """

    autobaud: BitAt
    pulse: int = 0x28
    correction: int = 0
    edges: int = 0x30
    fifo_reset: int = 17
    threshold_bits: int = 7
    others: tuple[int, ...] = ()


class RomWord(Record):
    """A register, and some of its bits."""

    address: int
    bits: int


class MaskRom(Record):
    """How a chip's ROM runs. ``entry``: reset vector; ``reset_cause``: where it finds the number of the reset reason;
    ``crystal``: where stubs find the crystal's frequency in MHz.

    ``words``: bits that read as 1 whatever is written, because the ROM, or a stub, waits for them or chooses by them.
    ``commands``: bits that clear themselves soon. ``processor_id``: of the Xtensa core on which it starts.
    ``strap``: value of the strapping register in download mode. ``ram``: memory besides that in the chip's data.
    ``unaligned``: the core loads and stores at any address.
    """

    images: tuple[RomImage, ...]
    parts: tuple[RomPart, ...]
    entry: int
    interrupts: RomInterrupts
    uart: RomUart
    strap: RomWord
    reset_cause: BitPart | None = None
    crystal: BitPart | None = None
    words: tuple[RomWord, ...] = ()
    commands: tuple[RomWord, ...] = ()
    processor_id: int = 0
    ram: tuple[RamBank, ...] = ()
    unaligned: bool = False


class LoadedRom(Record):
    """A ROM and an image of it. ``name``: what the image is, empty if unknown."""

    facts: MaskRom
    image: bytes
    name: str


@cache
def load_mask_roms() -> Mapping[str, MaskRom]:
    """The facts by chip id.

    :raises TableError: the data file is broken
    """
    tables = parse_toml(read_data_file(DATA_FILE), DATA_FILE)
    return {
        chip: load_table(MaskRom, table, f"{DATA_FILE}: {chip}") for chip, table in tables.items()
    }


def load_rom(chip: Chip, path: Path | None) -> LoadedRom:
    """The image in the file ``path``, or a known one in the folder that ESPWIRE_ROMS names.

    :raises UsageError: this chip's ROM does not run here, or no image was found
    :raises DataError: the file cannot be read, or is not an image of this chip's ROM
    """
    facts = load_mask_roms().get(chip.id)
    if facts is None:
        known = ", ".join(load_mask_roms())
        raise UsageError(
            f"the ROM of {chip.name} cannot be run",
            hint=f"Remove rom=, or use one of {known}.",
            code="rom-unknown-chip",
        )
    if path is None:
        return _find_rom(chip, facts)
    image = _convert(facts, read_file(path, limit=LARGEST))
    return LoadedRom(facts=facts, image=image, name=_identify(chip, facts, path, image))


def _convert(facts: MaskRom, data: bytes) -> bytes:
    """A file's image of a ROM: that of a known ELF file, else the file itself."""
    if not is_elf(data):
        return data
    known = {image.elf for image in facts.images}
    part = facts.parts[0]
    is_known = hashlib.sha256(data).hexdigest() in known
    return make_rom_image(data, part.start, part.size) if is_known else data


def _identify(chip: Chip, facts: MaskRom, path: Path, image: bytes) -> str:
    """The name of a known image; empty for an unknown one that has the right size."""
    digest = hashlib.sha256(image).hexdigest()
    name = next((known.name for known in facts.images if known.sha256 == digest), "")
    size = max(part.offset + part.size for part in facts.parts)
    owner = _find_owner(digest)
    if owner not in ("", chip.id):
        raise DataError(
            f"{path} is the ROM of {owner}, not of {chip.id}",
            hint=f"Use virtual:{owner}, or an image for {chip.id}.",
            code="rom-wrong-chip",
        )
    if not name and len(image) < size:
        raise DataError(
            f"{path} has {len(image):,} bytes; an image of the {chip.name}'s ROM has {size:,}",
            hint="Use the whole ROM, as dump-mem reads it from a chip.",
            code="rom-truncated",
        )
    return name


def _find_owner(digest: str) -> str:
    return next(
        (
            chip
            for chip, facts in load_mask_roms().items()
            if any(known.sha256 == digest for known in facts.images)
        ),
        "",
    )


def find_images(folder: Path, known: Iterable[RomImage]) -> dict[str, tuple[Path, bytes]]:
    """Files in a folder that may be one of the ``known`` images, by the image's SHA-256.

    Only files of their sizes are read, and ELF files if there are images that are made from them.

    :raises OSError: the folder cannot be read
    :raises FileError: a file cannot be read
    """
    images = list(known)
    sizes = {image.size for image in images}
    elf_files = {image.elf: image.sha256 for image in images if image.elf}
    found = {}
    for path in sorted(folder.iterdir()):
        is_elf_file = bool(elf_files) and path.suffix == ".elf"
        size = path.stat().st_size
        if path.is_file() and (size in sizes or (is_elf_file and size <= LARGEST)):
            data = read_file(path, limit=LARGEST)
            digest = hashlib.sha256(data).hexdigest()
            found[elf_files.get(digest, digest)] = (path, data)
    return found


def _find_rom(chip: Chip, facts: MaskRom) -> LoadedRom:
    """The first known image of the chip's ROM in the folder ESPWIRE_ROMS."""
    folder = os.environ.get(FOLDER_VARIABLE, "")
    if not folder:
        raise UsageError(
            f"no image of the {chip.name}'s ROM was named",
            hint=f"Write rom=FILE, or set {FOLDER_VARIABLE} to a folder of ROM images.",
            code="rom-not-found",
        )
    try:
        found = find_images(Path(folder), facts.images)
    except OSError as error:
        raise UsageError(
            f"cannot read the folder {folder}: {error.strerror}",
            hint=f"Set {FOLDER_VARIABLE} to a folder of ROM images.",
            code="rom-not-found",
        ) from None
    for known in facts.images:
        if known.sha256 in found:
            image = _convert(facts, found[known.sha256][1])
            return LoadedRom(facts=facts, image=image, name=known.name)
    raise UsageError(
        f"{folder} has no known image of the {chip.name}'s ROM",
        hint="Write rom=FILE to use any image. Known are: "
        + ", ".join(f"{known.name} ({known.sha256[:12]}…)" for known in facts.images),
        code="rom-not-found",
    )
