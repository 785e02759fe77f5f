"""The three flash settings of an image header, and every spelling of a flash size. Changes no image: patch_header.py does."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from espwire.errors import UsageError
from espwire.sizes import parse_flash_size

if TYPE_CHECKING:
    from espwire.chips.model import Chip

KEEP, DETECT = "keep", "detect"
_BYTES = r"([0-9]{1,4})(KB|MB)(-c[12])?"
_MEGABITS = r"([0-9]{1,4})m(-c[12])?"


@dataclass(frozen=True, kw_only=True)
class HeaderSettings:
    """What to put into header bytes 2 and 3: names, ``keep``, and for the size ``detect`` (the flash's own size)."""

    mode: str = KEEP
    size: str = KEEP
    frequency: str = KEEP

    @property
    def keep_all(self) -> bool:
        """Whether nothing is to be changed."""
        return (self.mode, self.size, self.frequency) == (KEEP, KEEP, KEEP)


def parse_size_name(text: str) -> str:
    """The name that chip data use, for any spelling: ``4MB``, ``2MB-c1``; and the classic megabits ``32m``, ``16m-c1``.

    ``keep`` and ``detect`` pass as they are.

    :raises UsageError: no such spelling

    >>> parse_size_name("32m-c2"), parse_size_name("4m"), parse_size_name("16mb")
    ('4MB-c2', '512KB', '16MB')
    """
    if text.lower() in (KEEP, DETECT):
        return text.lower()
    if match := re.fullmatch(_BYTES, text, re.IGNORECASE):
        return f"{int(match[1])}{match[2].upper()}{(match[3] or '').lower()}"
    match = re.fullmatch(_MEGABITS, text)
    kilobytes = int(match[1]) * 128 if match else 0
    if match is None or not kilobytes:
        raise UsageError(
            f"flash size {text!r} is not a size",
            hint="Write 512KB, 4MB, 2MB-c1, keep or detect; megabits as 32m also do.",
            code="flash-size",
        )
    size = f"{kilobytes // 1024}MB" if kilobytes % 1024 == 0 else f"{kilobytes}KB"
    return size + (match[2] or "")


def parse_size(text: str) -> int:
    """Bytes of a flash size in any spelling.

    :raises UsageError: no size
    """
    return parse_flash_size(parse_size_name(text))


def find_size_name(chip: Chip, size: int) -> str | None:
    """The name under which an image header for ``chip`` can hold ``size`` bytes of flash; None: it cannot."""
    return next(
        (name for name in chip.flash.sizes if "-" not in name and parse_flash_size(name) == size),
        None,
    )


def find_header_size(chip: Chip, code: int) -> int | None:
    """Bytes of flash that a header's size code stands for on ``chip``; None: no such code."""
    return next(
        (parse_flash_size(name) for name, value in chip.flash.sizes.items() if value == code), None
    )
