"""Files of any format → pieces for the flash: raw binary, Intel HEX, S-record, UF2, and ELF, which is converted.

Pure: it is handed bytes and a name for messages. What a file is, is told by how it begins.
"""

from __future__ import annotations

from dataclasses import field
from typing import TYPE_CHECKING, Literal

from espwire.errors import DataError
from espwire.image.hexfile import is_hex, join_records, parse_hex
from espwire.image.naming import naming
from espwire.image.srecord import is_srecord, parse_srecord
from espwire.image.uf2 import is_uf2, parse_uf2
from espwire.values import dataclass

if TYPE_CHECKING:
    from espwire.chips.model import Chip
    from espwire.image.flash_settings import HeaderSettings

Format = Literal["raw", "hex", "srecord", "uf2", "elf"]


@dataclass(frozen=True)
class Piece:
    """Bytes, and the address that the file itself gives them; None: it gives none.

    ``note`` says in a sentence what was done to the file, if anything was; ``chips`` which chips it is for, if the
    file says so.
    """

    address: int | None
    data: bytes = field(repr=False)
    note: str = ""
    chips: tuple[str, ...] = ()


def find_format(data: bytes) -> Format:
    """What the file is. Anything that begins like nothing else is raw binary."""
    tests: tuple[tuple[Format, bool], ...] = (
        ("hex", is_hex(data)),
        ("elf", data[:1] == b"\x7f" and _is_elf(data)),
        ("uf2", is_uf2(data)),
        ("srecord", is_srecord(data)),
    )
    return next((name for name, fits in tests if fits), "raw")


def _is_elf(data: bytes) -> bool:
    from espwire.image.elf import is_elf  # a large module, that few files need

    return is_elf(data)


def read_input(
    data: bytes, name: str, *, chip: Chip | None = None, settings: HeaderSettings | None = None
) -> tuple[Piece, ...]:
    """The file's pieces: one without an address for raw binary and most ELFs, else by address.

    :param chip: whose format an ELF is converted to; None: the one chip that the ELF can be for
    :param settings: flash settings for the header that an ELF gets
    :raises HexError: broken Intel HEX or S-record; the message tells the line
    :raises ImageError: broken UF2; the message tells block and offset
    :raises ElfError: no usable ELF, or one that can be for several chips, which the message names
    :raises UsageError: ``settings`` do not exist on the chip
    """
    match find_format(data):
        case "hex":
            return tuple(Piece(part.address, part.data) for part in parse_hex(data, name))
        case "srecord":
            return tuple(Piece(part.address, part.data) for part in parse_srecord(data, name))
        case "uf2":
            return _read_uf2(data, name)
        case "elf":
            return _read_elf(data, name, chip, settings)
        case _:
            return (Piece(None, data),)


def _read_uf2(data: bytes, name: str) -> tuple[Piece, ...]:
    parsed = parse_uf2(data, name)
    chips: tuple[str, ...] = ()
    if parsed.family is not None:
        chips = find_by_family(parsed.family)
        if not chips:
            raise DataError(
                f"{name} is a UF2 file for the family {parsed.family:#010x} (offset 0x1c), which is no Espressif chip",
                hint="It was made for another maker's chip: build it for yours.",
                code="image-uf2-foreign",
            )
    return tuple(Piece(part.address, part.data, chips=chips) for part in join_records(parsed.parts, name))


def find_by_family(family: int) -> tuple[str, ...]:
    """Ids of the chips whose UF2 files carry this family id."""
    from espwire.chips.image_index import IMAGE_CHIPS

    return tuple(name for name, chip in IMAGE_CHIPS.items() if chip.image.uf2_family == family)


def _read_elf(data: bytes, name: str, chip: Chip | None, settings: HeaderSettings | None) -> tuple[Piece, ...]:
    from espwire.chips.lookup import load_image_chip
    from espwire.image.elf import parse_elf
    from espwire.image.elf2image import ElfOptions, choose_chip, convert_elf
    from espwire.image.flash_settings import DETECT, KEEP, HeaderSettings

    wanted = settings or HeaderSettings()
    size = KEEP if wanted.size == DETECT else wanted.size
    wanted = HeaderSettings(mode=wanted.mode, size=size, frequency=wanted.frequency)
    with naming(name):
        target = chip or load_image_chip(choose_chip(parse_elf(data)))
        files = convert_elf(data, target, ElfOptions(settings=wanted))
    note = f"{name} was converted to an image for {target.id}, {_describe(wanted)}"
    return tuple(Piece(file.address, file.data, note, (target.id,)) for file in files)


def _describe(settings: HeaderSettings) -> str:
    """What elf2image takes for the settings that are not given, in words."""
    mode = "qio" if settings.mode == "keep" else settings.mode
    size = "1MB" if settings.size == "keep" else settings.size
    rate = "the default frequency" if settings.frequency == "keep" else settings.frequency
    return f"flash mode {mode}, {rate}, size {size}"
