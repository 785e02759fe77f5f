"""Decides what a file is: raw binary, Intel HEX, S-record, UF2 or ELF. The one place that does; all readers call it.

A file is Intel HEX, S-record or UF2 only if all of it parses as such. If it does not, a file whose name ends in the
extension of such a format is damaged, which is an error; any other file is raw binary. An ELF file is recognized by its
magic number. The caller can name the format instead, or choose the rules of esptool, which knows Intel HEX only.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from espwire.errors import DataError, ElfError, HexError, ImageError
from espwire.image.hex import is_hex, is_srecord, parse_hex, parse_srecord
from espwire.image.uf2 import Uf2Family, is_uf2, parse_uf2

Format = Literal["raw", "hex", "srecord", "uf2", "elf"]
FormatChoice = Literal["auto", "esptool", "raw", "hex", "srecord", "uf2", "elf"]
EXTENSIONS: dict[str, Format] = {
    **dict.fromkeys(("hex", "ihex", "ihx", "ihe", "h86", "mcs"), "hex"),
    **dict.fromkeys(("srec", "sre", "s19", "s28", "s37", "mot", "mxt", "exo"), "srecord"),
    "uf2": "uf2",
    "elf": "elf",
}
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


@dataclass(frozen=True)
class Content:
    """A file's format and what it holds.

    ``parts``: bytes by address, of Intel HEX and S-record; ``families``: of UF2. Raw binary and ELF have neither.
    ``note``: why the file is used as raw data although it begins like another format.
    """

    format: Format
    parts: tuple[tuple[int, bytes], ...] = field(default=(), repr=False)
    families: tuple[Uf2Family, ...] = ()
    note: str = ""


def read_any(data: bytes, name: str = "the file", choice: FormatChoice = "auto") -> Content:
    """What the file is, and what it holds.

    :param name: for messages, and for its extension
    :param choice: the format to use, ``auto`` to find it out, ``esptool`` to find it out by esptool's rules
    :raises HexError, ImageError, ElfError: the file is not what ``choice`` or its extension say, or damaged
    """
    if choice == "esptool":
        return _read_as_esptool_does(data, name)
    if choice != "auto":
        return _read_as(choice, data, name)
    begins, named = _find_beginning(data), find_named_format(name)
    note = ""
    if begins is not None:
        try:
            return _read_as(begins, data, name)
        except (HexError, ImageError) as error:
            if named is None and error.code not in NOT_WHOLE:
                raise _with_hint(error) from None
            if named == begins:
                raise _damaged(error, begins) from None
            if error.details.get("line") != 1:
                note = f"{error}; {name} is used as raw data, not as {NAMES[begins]}"
    if named is not None and named != begins:
        try:
            return _read_as(named, data, name)
        except (HexError, ImageError, ElfError) as error:
            raise _damaged(error, named) from None
    return Content("raw", note=note)


def find_named_format(name: str) -> Format | None:
    """The format that a file name's extension stands for."""
    return EXTENSIONS.get(name.lower().rpartition(".")[2]) if "." in name else None


def _find_beginning(data: bytes) -> Format | None:
    """The format that the file begins like."""
    if is_hex(data):
        return "hex"
    if is_srecord(data):
        return "srecord"
    if is_uf2(data):
        return "uf2"
    return "elf" if data[:4] == b"\x7fELF" else None


def _read_as(format_: Format, data: bytes, name: str) -> Content:
    match format_:
        case "hex":
            return Content(
                "hex", tuple((part.address or 0, part.data) for part in parse_hex(data, name))
            )
        case "srecord":
            return Content(
                "srecord",
                tuple((part.address or 0, part.data) for part in parse_srecord(data, name)),
            )
        case "uf2":
            return Content("uf2", families=parse_uf2(data, name).families)
        case "elf" if data[:4] != b"\x7fELF":
            raise ElfError(
                f"{name} is not an ELF file: it does not begin with 7f 45 4c 46", code="elf-magic"
            )
        case _:
            return Content(format_)


def _read_as_esptool_does(data: bytes, name: str) -> Content:
    """esptool 5.6 uses each file as Intel HEX that parses up to the end record or the end of the file."""
    if is_hex(data):
        try:
            parts = parse_hex(data, name, whole=False)
        except HexError as error:
            if error.code not in NOT_WHOLE:
                raise
        else:
            return Content("hex", tuple((part.address or 0, part.data) for part in parts))
    return Content("raw")


def _damaged(error: DataError, format_: Format) -> DataError:
    """The error for a file that is not what its extension says."""
    hint = f"The file is named as {NAMES[format_]}: build or download it again. {AS_RAW}."
    return type(error)(f"{error}", hint=hint, code=error.code, **error.details)


def _with_hint(error: DataError) -> DataError:
    return type(error)(f"{error}", hint=f"{error.hint} {AS_RAW}.", code=error.code, **error.details)
