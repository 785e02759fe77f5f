"""Files named on the command line → parts for the flash. Reads files; plans and writes nothing."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from espwire.flash.plan import Part
    from espwire.image.flash_settings import HeaderSettings


def read_pairs(pairs: Iterable[tuple[int, str]]) -> list[Part]:
    """The parts of ``(address, file)`` pairs; the addresses inside an Intel HEX file win over the typed one.

    :raises FileError: a file cannot be read
    :raises HexError: a file begins as Intel HEX does and is none
    """
    from espwire.flash.plan import Part
    from espwire.image.hexfile import read_parts

    parts = []
    for address, path in pairs:
        name = os.path.basename(path)
        pieces = read_parts(path)
        for piece in pieces:
            at = address if piece.address is None else piece.address
            label = f"{name} at {at:#x}" if len(pieces) > 1 else name
            parts.append(Part(at, piece.data, label))
    return parts


def header_settings(flash_mode: str, flash_freq: str, flash_size: str) -> HeaderSettings:
    """The three options as one value.

    :raises UsageError: the size is spelled in no known way
    """
    from espwire.image.flash_settings import HeaderSettings, parse_size_name

    return HeaderSettings(mode=flash_mode, frequency=flash_freq, size=parse_size_name(flash_size))
