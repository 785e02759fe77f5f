"""Fields of image headers: the flash settings, their names and codes, and how fields are displayed.

Displayed fields have two forms: text for people (``not set``, ``invalid (…)``), and a value for programs, None for both.
Revisions are ``major * 100 + minor``; ESP-IDF's bootloader ignores a maximum of 0 or 0xFFFF.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from espwire.chips.index import NAMES
from espwire.chips.registry import find_by_image_id
from espwire.errors import UsageError
from espwire.image.model import ANY_REVISION, WP_PIN_DISABLED
from espwire.sizes import Revision, parse_flash_size

if TYPE_CHECKING:
    from espwire.chips.model import Chip

NOT_SET = "not set"
MAX_REVISION = 9999
NO_CHIP_ID = 0xFFFF
MAX_PIN = 63
KEEP, DETECT = "keep", "detect"
_BYTES = r"([0-9]{1,4})(KB|MB)(-c[12])?"
_MEGABITS = r"([0-9]{1,4})m(-c[12])?"


@dataclass(frozen=True, kw_only=True)
class HeaderSettings:
    """The settings in header bytes 2 and 3: names, ``keep``, and for the size ``detect`` (the size of the flash chip)."""

    mode: str = KEEP
    size: str = KEEP
    frequency: str = KEEP

    @property
    def keep_all(self) -> bool:
        """Whether all settings stay unchanged."""
        return (self.mode, self.size, self.frequency) == (KEEP, KEEP, KEEP)


def parse_size_name(text: str) -> str:
    """The name in the chip data for any spelling: ``4MB``, ``2MB-c1``; and the classic megabits ``32m``, ``16m-c1``.

    ``keep`` and ``detect`` stay unchanged.

    :raises UsageError: not a flash size

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
            f"{text!r} is not a flash size",
            hint="Use 512KB, 4MB, 2MB-c1, keep or detect; megabits such as 32m also work.",
            code="flash-size",
        )
    size = f"{kilobytes // 1024}MB" if kilobytes % 1024 == 0 else f"{kilobytes}KB"
    return size + (match[2] or "")


def parse_size(text: str) -> int:
    """Bytes of a flash size in any spelling.

    :raises UsageError: not a flash size
    """
    return parse_flash_size(parse_size_name(text))


def find_size_name(chip: Chip, size: int) -> str | None:
    """The name of the size code for ``size`` bytes of flash in an image header for ``chip``; None: it has no such code."""
    return next(
        (name for name in chip.flash.sizes if "-" not in name and parse_flash_size(name) == size),
        None,
    )


def find_header_size(chip: Chip, code: int) -> int | None:
    """Bytes of flash that a size code in a header means on ``chip``; None: no such code."""
    return next(
        (parse_flash_size(name) for name, value in chip.flash.sizes.items() if value == code), None
    )


def find_codes(
    chip: Chip,
    settings: HeaderSettings,
    *,
    sizes: Mapping[str, int] | None = None,
    error_code: str = "",
) -> tuple[int | None, int | None, int | None]:
    """The header's codes for mode, size and frequency on ``chip``; None for ``keep``.

    :param sizes: size codes, if the image format has other ones than the chip usually has
    :param error_code: of the error; default: ``flash-mode``, ``flash-size`` or ``flash-frequency``
    :raises UsageError: the chip does not support a setting, or the size is still ``detect``
    """
    size = parse_size_name(settings.size)
    if size == DETECT:
        raise UsageError(
            "the flash size must be known before it is written to an image header",
            hint="Set it, for example --flash-size 4MB.",
        )
    fields = (
        (chip.flash.modes, settings.mode, "flash mode"),
        (chip.flash.sizes if sizes is None else sizes, size, "flash size"),
        (chip.flash.frequencies, settings.frequency, "flash frequency"),
    )
    found: list[int | None] = []
    for known, name, what in fields:
        # sizes are upper case in the data, modes and frequencies lower case
        code = next((code for key, code in known.items() if key.lower() == name.lower()), None)
        if code is None and name != KEEP:
            raise UsageError(
                f"the {chip.name} has no {what} {name!r}",
                hint=f"It has {', '.join(known)}; keep leaves the header unchanged.",
                code=error_code or what.replace(" ", "-"),
            )
        found.append(code)
    return found[0], found[1], found[2]


def format_invalid(value: int) -> str:
    """``invalid (0xa20)``."""
    return f"invalid ({value:#x})"


def known_revision(value: int) -> int | None:
    """The revision; None: the value is invalid."""
    return value if 0 <= value <= MAX_REVISION else None


def known_maximum(value: int) -> int | None:
    """The highest revision; None: no limit, or the value is invalid."""
    return known_revision(value) or None


def format_revision(value: int) -> str:
    """``v1.3`` for 103."""
    return format_invalid(value) if known_revision(value) is None else str(Revision(value))


def format_revisions(least: int, most: int) -> str:
    """A range of revisions, and whether its maximum is set."""
    start = format_revision(least)
    if most in (0, ANY_REVISION):
        return f"{start} or later (maximum {NOT_SET})"
    return f"{start} to {format_revision(most)}"


def format_text(text: str) -> str:
    """A text field of a descriptor."""
    return text.strip() or NOT_SET


def known_digest(digest: bytes) -> bytes | None:
    """A digest; None: the field was never written."""
    return digest if digest.strip(b"\0") and digest.strip(b"\xff") else None


def format_digest(digest: bytes) -> str:
    """A digest in hexadecimal."""
    known = known_digest(digest)
    return NOT_SET if known is None else known.hex()


def known_chip_id(value: int | None) -> int | None:
    """The chip id of an image; None: no known chip has it."""
    return None if value is None or find_by_image_id(value) is None else value


def format_chip_id(value: int) -> str:
    """``5 (ESP32-C3)``."""
    name = find_by_image_id(value)
    if name is not None:
        return f"{value} ({NAMES[name]})"
    return NOT_SET if value in (NO_CHIP_ID, 0xFFFFFFFF) else f"invalid ({value})"


def format_setting(name: str | None, code: int, *, known: bool) -> str:
    """A flash setting of the header by name.

    :param known: whether the chip, and so the meaning of its codes, is known
    """
    return name or (format_invalid(code) if known else f"unknown (code {code:#x})")


def format_wp_pin(value: int) -> str:
    """The write-protect pin."""
    if value == WP_PIN_DISABLED:
        return "not used"
    return str(value) if value <= MAX_PIN else format_invalid(value)
