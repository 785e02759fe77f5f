"""Files of any format → pieces for the flash: raw binary, Intel HEX, S-record, UF2, and ELF, which is converted.

Pure: it is handed bytes and a name for messages. What a file is, is decided in read_any.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeVar

from espwire.errors import DataError, ElfError
from espwire.image.hex import join_records
from espwire.image.naming import naming
from espwire.image.read_any import AS_RAW, Content, FormatChoice, read_any
from espwire.image.uf2 import Uf2Family

if TYPE_CHECKING:
    from espwire.chips.model import Chip
    from espwire.image.header import HeaderSettings

PROGRAM_EXTENSIONS = ("elf", "axf", "out")  # of ELF files that linkers write; some write none


@dataclass(frozen=True)
class Piece:
    """Bytes, and the address that the file itself gives them; None: it gives none.

    ``note`` says in a sentence what was done to the file, if anything was; ``chips`` which chips it is for, if the
    file says so. ``one_of``: the file's name if it has pieces for several chips, of which one chip uses some.
    """

    address: int | None
    data: bytes = field(repr=False)
    note: str = ""
    chips: tuple[str, ...] = ()
    one_of: str = ""


class ForChips(Protocol):
    """What may be for some chips only: a piece, a part, a build's file."""

    @property
    def chips(self) -> tuple[str, ...]:
        """Ids of the chips it is for; empty: not stated."""

    @property
    def one_of(self) -> str:
        """The file's name if it has more for other chips."""


T = TypeVar("T", bound=ForChips)


def read_input(
    data: bytes,
    name: str,
    *,
    chip: Chip | None = None,
    settings: HeaderSettings | None = None,
    format: FormatChoice = "auto",
) -> tuple[Piece, ...]:
    """The file's pieces: one without an address for raw binary and most ELFs, else by address.

    :param chip: whose format an ELF is converted to, and whose blocks of a UF2 file are used; None: the one chip that
        the ELF can be for, and all blocks
    :param settings: flash settings for the header that an ELF gets
    :param format: what the file is, if not to be found out
    :raises HexError: broken Intel HEX or S-record; the message tells the line
    :raises ImageError: broken UF2; the message tells block and offset
    :raises DataError: UF2 without a block for ``chip``, or for any known chip
    :raises ElfError: no usable ELF, or one that can be for several chips, which the message names
    :raises UsageError: ``settings`` do not exist on the chip
    """
    return make_pieces(
        read_any(data, name, format),
        data,
        name,
        chip=chip,
        settings=settings,
        asked=format == "elf",
    )


def make_pieces(
    content: Content,
    data: bytes,
    name: str,
    *,
    chip: Chip | None = None,
    settings: HeaderSettings | None = None,
    asked: bool = False,
) -> tuple[Piece, ...]:
    """As ``read_input``, for a file that was read already.

    :param asked: the caller wants an ELF to be converted, whatever its name
    """
    match content.format:
        case "hex" | "srecord":
            return tuple(Piece(address, piece) for address, piece in content.parts)
        case "uf2":
            return choose_for_chip(
                _read_uf2(content.families, name), None if chip is None else chip.id
            )
        case "elf":
            return _read_elf(data, name, chip, settings, asked=asked)
        case _:
            return (Piece(None, data, content.note),)


def _read_uf2(families: tuple[Uf2Family, ...], name: str) -> tuple[Piece, ...]:
    """The pieces for all chips that are known."""
    from espwire.chips.registry import find_by_uf2_family

    chips = {
        entry.family: () if entry.family is None else find_by_uf2_family(entry.family)
        for entry in families
    }
    known = [entry for entry in families if entry.family is None or chips[entry.family]]
    if families and not known:
        listed = ", ".join(f"{entry.family:#010x}" for entry in families)
        word = "family" if len(families) == 1 else "families"
        raise DataError(
            f"{name} is a UF2 file for the {word} {listed} (offset 0x1c), which is not an Espressif chip",
            hint=f"It was made for another maker's chip: build it for yours. {AS_RAW}.",
            code="image-uf2-foreign",
        )
    one_of = name if len(families) > 1 else ""
    return tuple(
        Piece(part.address, part.data, chips=chips[entry.family], one_of=one_of)
        for entry in known
        for part in join_records(entry.parts, name)
    )


def choose_for_chip(pieces: Iterable[T], chip: str | None) -> tuple[T, ...]:
    """Without what files for several chips hold for others than ``chip``; None: nothing is left out.

    :raises DataError: such a file holds nothing for ``chip``, code ``image-uf2-family``
    """
    pieces = tuple(pieces)
    if chip is None:
        return pieces
    chosen = tuple(piece for piece in pieces if not piece.one_of or chip in piece.chips)
    missing = {piece.one_of for piece in pieces} - {piece.one_of for piece in chosen}
    for name in sorted(missing):
        listed = dict.fromkeys(
            chip for piece in pieces if piece.one_of == name for chip in piece.chips
        )
        raise DataError(
            f"{name} is a UF2 file for {' and '.join(listed)}, not for {chip}",
            hint="Build a UF2 file for this chip.",
            code="image-uf2-family",
        )
    return chosen


def require_one_chip(pieces: Iterable[ForChips]) -> None:
    """Refuse a file for several chips where it must be known which one is meant.

    :raises DataError: code ``image-uf2-family``
    """
    pieces = [piece for piece in pieces if piece.one_of]
    listed = dict.fromkeys(chip for piece in pieces for chip in piece.chips)
    if len(listed) > 1:
        raise DataError(
            f"{pieces[0].one_of} is a UF2 file for several chips: {', '.join(listed)}",
            hint="Name the chip with --chip.",
            code="image-uf2-family",
        )


def find_address_parts(
    content: Content, name: str, chip: str | None
) -> tuple[tuple[int, bytes], ...]:
    """What Intel HEX, S-record or UF2 holds for one chip, by address, as the file has it.

    :raises DataError: UF2 for other chips, or for several of which none is named
    """
    if content.format != "uf2":
        return content.parts
    if len(content.families) > 1:
        pieces = choose_for_chip(_read_uf2(content.families, name), chip)
        require_one_chip(pieces)
        return tuple((piece.address or 0, piece.data) for piece in pieces)
    return tuple(part for entry in content.families for part in entry.parts)


def _read_elf(
    data: bytes, name: str, chip: Chip | None, settings: HeaderSettings | None, *, asked: bool
) -> tuple[Piece, ...]:
    try:
        return _convert_elf(data, name, chip, settings, asked=asked)
    except ElfError as error:
        hint = f"{error.hint} {AS_RAW}."
        raise ElfError(f"{error}", hint=hint, code=error.code, **error.details) from None


def _convert_elf(
    data: bytes, name: str, chip: Chip | None, settings: HeaderSettings | None, *, asked: bool
) -> tuple[Piece, ...]:
    from espwire.chips.registry import load_chip
    from espwire.image.elf import is_program, parse_elf
    from espwire.image.elf2image import ElfOptions, choose_chip, convert_elf
    from espwire.image.header import DETECT, KEEP, HeaderSettings

    wanted = settings or HeaderSettings()
    size = KEEP if wanted.size == DETECT else wanted.size
    wanted = HeaderSettings(mode=wanted.mode, size=size, frequency=wanted.frequency)
    with naming(name):
        elf = parse_elf(data)
        if not is_program(data):
            raise ElfError(
                "this ELF file is not a program for a known chip, but a shared library or object file (offset 0x10)",
                hint="Give the .elf file that the linker made.",
                code="elf-type",
            )
        target = chip or load_chip(choose_chip(elf))
        if not asked and not _is_named_as_program(name):
            raise ElfError(
                f"this is an ELF program for {target.id}, but its extension is of another kind of file",
                hint="To convert it to an image, add --format elf.",
                code="elf-unclear",
            )
        files = convert_elf(data, target, ElfOptions(settings=wanted))
    note = f"{name} was converted to an image for {target.id}, {_describe(wanted)}"
    return tuple(Piece(file.address, file.data, note, (target.id,)) for file in files)


def _is_named_as_program(name: str) -> bool:
    """Whether the name is one that linkers give to programs: with their extensions, or without any."""
    extension = name.lower().rpartition(".")[2] if "." in name else ""
    return not extension or extension in PROGRAM_EXTENSIONS


def _describe(settings: HeaderSettings) -> str:
    """What elf2image takes for the settings that are not given, in words."""
    mode = "qio" if settings.mode == "keep" else settings.mode
    size = "1MB" if settings.size == "keep" else settings.size
    rate = "the default frequency" if settings.frequency == "keep" else settings.frequency
    return f"flash mode {mode}, {rate}, size {size}"
