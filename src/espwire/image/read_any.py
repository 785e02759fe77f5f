"""Recognise a file's format (raw binary, Intel HEX, S-record, UF2, ELF) and turn it into blobs for the flash.

A file is Intel HEX, S-record or UF2 only if all of it parses as such. If it does not, a file whose name has the
extension of such a format is damaged, which is an error; any other file is raw binary. An ELF file is recognised by its
magic number and converted to an image. The caller can name the format instead, or choose the rules of esptool, which
supports Intel HEX only.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from espwire.blob import Blob, choose_for_chip, require_one_chip
from espwire.chips.registry import find_by_uf2_family, load_chip
from espwire.errors import DataError, ElfError, HexError, ImageError, name_file
from espwire.image.header import DETECT, KEEP, HeaderSettings
from espwire.image.hex import is_hex, is_srecord, parse_hex, parse_srecord
from espwire.image.model import ELF_MAGIC
from espwire.image.uf2 import Families, is_uf2, parse_uf2

if TYPE_CHECKING:
    from espwire.chips.model import Chip

Format = Literal["raw", "hex", "srecord", "uf2", "elf"]
FormatChoice = Literal["auto", "esptool", "raw", "hex", "srecord", "uf2", "elf"]
EXTENSIONS: dict[str, Format] = {
    **dict.fromkeys(("hex", "ihex", "ihx", "ihe", "h86", "mcs"), "hex"),
    **dict.fromkeys(("srec", "sre", "s19", "s28", "s37", "mot", "mxt", "exo"), "srecord"),
    "uf2": "uf2",
    "elf": "elf",
}
PROGRAM_EXTENSIONS = ("", "elf", "axf", "out")  # of ELF files that linkers write
NAMES: dict[Format, str] = {
    "hex": "Intel HEX",
    "srecord": "S-record",
    "uf2": "UF2",
    "elf": "ELF",
    "raw": "raw binary",
}
# errors that say that not all of the file parses; others, such as two values for one byte, concern its content
NOT_WHOLE = frozenset(
    {
        *("hex-record", "hex-truncated", "srecord", "srecord-truncated"),
        *("image-uf2-size", "image-uf2-block", "image-uf2-md5"),
    }
)
AS_RAW = "To use the file as raw data, add --format raw"


@dataclass(frozen=True, kw_only=True)
class InputFile:
    """A file and its format.

    ``blobs``: by address, of Intel HEX and S-record; ``families``: the same for UF2. Raw binary and ELF have neither.
    ``note``: why the file is used as raw data although it begins like another format.
    """

    name: str
    data: bytes = field(repr=False)
    format: Format
    blobs: tuple[Blob, ...] = field(default=(), repr=False)
    families: Families = field(default_factory=dict, repr=False)
    note: str = ""

    @property
    def addressed(self) -> bool:
        """Whether the file itself gives addresses."""
        return self.format not in ("raw", "elf")


def read_any(data: bytes, name: str = "the file", choice: FormatChoice = "auto") -> InputFile:
    """The file with its format recognised.

    :param name: for messages, and for its extension
    :param choice: the format to use, ``auto`` to recognise it, ``esptool`` to recognise it by esptool's rules
    :raises HexError, ImageError, ElfError: the file does not have the format of ``choice`` or its extension, or is damaged
    """
    if choice == "esptool":
        return _read_as_esptool_does(data, name)
    if choice != "auto":
        return _read_as(choice, data, name)
    likely, named = _find_likely_format(data), find_named_format(name)
    note = ""
    if likely is not None:
        try:
            return _read_as(likely, data, name)
        except (HexError, ImageError) as error:
            if named is None and error.code not in NOT_WHOLE:
                raise _with_hint(error, f"{error.hint} {AS_RAW}.") from None
            if named == likely:
                raise _damaged(error, likely) from None
            if error.details.get("line") != 1:
                note = f"{error}; {name} is used as raw data, not as {NAMES[likely]}"
    if named is not None and named != likely:
        try:
            return _read_as(named, data, name)
        except (HexError, ImageError, ElfError) as error:
            raise _damaged(error, named) from None
    return InputFile(name=name, data=data, format="raw", note=note)


def find_named_format(name: str) -> Format | None:
    """The format of a file name's extension."""
    return EXTENSIONS.get(_extension(name))


def _extension(name: str) -> str:
    return name.lower().rpartition(".")[2] if "." in name else ""


def _find_likely_format(data: bytes) -> Format | None:
    """The format that the first bytes suggest."""
    if is_hex(data):
        return "hex"
    if is_srecord(data):
        return "srecord"
    if is_uf2(data):
        return "uf2"
    return "elf" if data.startswith(ELF_MAGIC) else None


def _read_as(format_: Format, data: bytes, name: str) -> InputFile:
    if format_ == "elf" and not data.startswith(ELF_MAGIC):
        text = f"{name} is not an ELF file: it does not begin with 7f 45 4c 46"
        raise ElfError(text, code="elf-magic")
    blobs: tuple[Blob, ...] = ()
    families: Families = {}
    if format_ == "hex":
        blobs = parse_hex(data, name)
    elif format_ == "srecord":
        blobs = parse_srecord(data, name)
    elif format_ == "uf2":
        families = parse_uf2(data, name)
    return InputFile(name=name, data=data, format=format_, blobs=blobs, families=families)


def _read_as_esptool_does(data: bytes, name: str) -> InputFile:
    """esptool 5.6 uses each file as Intel HEX that parses up to the end record or the end of the file."""
    if is_hex(data):
        try:
            blobs = parse_hex(data, name, whole=False)
        except HexError as error:
            if error.code not in NOT_WHOLE:
                raise
        else:
            return InputFile(name=name, data=data, format="hex", blobs=blobs)
    return InputFile(name=name, data=data, format="raw")


def _damaged(error: DataError, format_: Format) -> DataError:
    """The error for a file that does not have the format of its extension."""
    hint = f"Its extension is that of {NAMES[format_]}: build or download it again. {AS_RAW}."
    return _with_hint(error, hint)


def _with_hint(error: DataError, hint: str) -> DataError:
    return type(error)(f"{error}", hint=hint, code=error.code, **error.details)


def read_input(
    data: bytes,
    name: str,
    address: int = 0,
    *,
    chip: Chip | None = None,
    settings: HeaderSettings | None = None,
    format: FormatChoice = "auto",
) -> tuple[Blob, ...]:
    """The file's blobs: one for raw binary and most ELFs, else one per address range.

    :param address: where a file goes that gives no address itself
    :param chip: whose image format an ELF is converted to, and whose blocks of a UF2 file are used; None: the only chip
        that the ELF can be for, and all blocks
    :param settings: flash settings for the header that an ELF gets
    :param format: the file's format if it is not to be recognised
    :raises HexError: broken Intel HEX or S-record; the message names the line
    :raises ImageError: broken UF2; the message names block and offset
    :raises DataError: UF2 without a block for ``chip``, or for any known chip
    :raises ElfError: not a usable ELF, or for several chips, which the message names
    :raises UsageError: the chip does not support ``settings``
    """
    file = read_any(data, name, format)
    return make_blobs(file, address, chip=chip, settings=settings, convert=format == "elf")


def check_not_empty(blobs: tuple[Blob, ...], name: str) -> None:
    """:raises DataError: code ``image-empty``: the file ``name`` has no blobs"""
    if not blobs:
        raise DataError(
            f"{name} contains no data",
            hint="Check that the build succeeded.",
            code="image-empty",
        )


def make_blobs(
    file: InputFile,
    address: int = 0,
    *,
    chip: Chip | None = None,
    settings: HeaderSettings | None = None,
    convert: bool = False,
) -> tuple[Blob, ...]:
    """As ``read_input``, for a file whose format is known.

    :param convert: convert an ELF whatever its extension
    """
    if file.format == "uf2":
        return choose_for_chip(_read_uf2(file), None if chip is None else chip.id)
    if file.format == "elf":
        try:
            return _convert_elf(file, address, chip, settings, convert=convert)
        except ElfError as error:
            raise _with_hint(error, f"{error.hint} {AS_RAW}.") from None
    if file.addressed:
        return file.blobs
    return (Blob(address, file.data, file.name, note=file.note),)


def find_blobs(file: InputFile, chip: str | None) -> tuple[Blob, ...]:
    """The blobs for one chip of a file that gives addresses.

    :raises DataError: UF2 for other chips, or for several chips while ``chip`` is None
    """
    if len(file.families) > 1:
        blobs = choose_for_chip(_read_uf2(file), chip)
        require_one_chip(blobs)
        return blobs
    return file.blobs or next(iter(file.families.values()), ())


def _read_uf2(file: InputFile) -> tuple[Blob, ...]:
    """The blobs for all known chips."""
    chips = {
        family: () if family is None else find_by_uf2_family(family) for family in file.families
    }
    known = [family for family in chips if family is None or chips[family]]
    if chips and not known:
        listed = ", ".join(f"{family:#010x}" for family in chips)
        word = "family" if len(chips) == 1 else "families"
        raise DataError(
            f"{file.name} is a UF2 file for the {word} {listed} (offset 0x1c), which is not an Espressif chip",
            hint=f"Build the firmware for your chip. {AS_RAW}.",
            code="image-uf2-foreign",
        )
    one_of = file.name if len(chips) > 1 else ""
    return tuple(
        replace(blob, chips=chips[family], one_of=one_of)
        for family in known
        for blob in file.families[family]
    )


def _convert_elf(
    file: InputFile,
    address: int,
    chip: Chip | None,
    settings: HeaderSettings | None,
    *,
    convert: bool,
) -> tuple[Blob, ...]:
    # few files are ELF
    from espwire.image.elf import is_program, parse_elf
    from espwire.image.elf2image import ElfOptions, choose_chip, convert_elf

    settings = settings or HeaderSettings()
    if settings.size == DETECT:
        settings = replace(settings, size=KEEP)
    with name_file(file.name):
        elf = parse_elf(file.data)
        if not is_program(file.data):
            raise ElfError(
                "this ELF file is not a program for a known chip, but a shared library or object file (offset 0x10)",
                hint="Pass the .elf file that the linker wrote.",
                code="elf-type",
            )
        target = chip or load_chip(choose_chip(elf))
        if not convert and _extension(file.name) not in PROGRAM_EXTENSIONS:
            raise ElfError(
                f"this is an ELF program for {target.id}, but its extension is that of another format",
                hint="To convert it to an image, add --format elf.",
                code="elf-unclear",
            )
        images = convert_elf(file.data, target, ElfOptions(settings=settings))
    mode = "qio" if settings.mode == KEEP else settings.mode
    size = "1MB" if settings.size == KEEP else settings.size
    rate = "the default frequency" if settings.frequency == KEEP else settings.frequency
    note = f"{file.name} was converted to an image for {target.id}, flash mode {mode}, {rate}, size {size}"
    return tuple(
        Blob(
            image.address if image.fixed else address,
            image.data,
            file.name,
            chips=(target.id,),
            note=note,
            fixed=image.fixed,
        )
        for image in images
    )
