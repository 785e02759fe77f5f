"""Fields of image headers and descriptors for display: a value that is unset or invalid is named as such.

Each field has two forms: text for people (``not set``, ``invalid (…)``), and a value for programs (None for both).
Revisions are ``major * 100 + minor``; ESP-IDF's bootloader ignores a maximum of 0 or 0xFFFF.
"""

from __future__ import annotations

from espwire.chips.index import NAMES
from espwire.chips.registry import find_by_image_id
from espwire.image.model import ANY_REVISION, WP_PIN_DISABLED
from espwire.sizes import Revision

NOT_SET = "not set"
MAX_REVISION = 9999
NO_CHIP_ID = 0xFFFF
MAX_PIN = 63


def format_invalid(value: int) -> str:
    """``invalid (0xa20)``."""
    return f"invalid ({value:#x})"


def known_revision(value: int) -> int | None:
    """The revision; None: it cannot be one."""
    return value if 0 <= value <= MAX_REVISION else None


def known_maximum(value: int) -> int | None:
    """The highest revision; None: there is no limit, or it cannot be one."""
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
    """A text of a descriptor."""
    return text.strip() or NOT_SET


def known_digest(digest: bytes) -> bytes | None:
    """A digest; None: the field was never written."""
    return digest if digest.strip(b"\0") and digest.strip(b"\xff") else None


def format_digest(digest: bytes) -> str:
    """A digest in hexadecimal."""
    known = known_digest(digest)
    return NOT_SET if known is None else known.hex()


def known_chip_id(value: int | None) -> int | None:
    """An image's chip id; None: no known chip has it."""
    return None if value is None or find_by_image_id(value) is None else value


def format_chip_id(value: int) -> str:
    """``5 (ESP32-C3)``."""
    name = find_by_image_id(value)
    if name is not None:
        return f"{value} ({NAMES[name]})"
    return NOT_SET if value in (NO_CHIP_ID, 0xFFFFFFFF) else f"invalid ({value})"


def format_setting(name: str | None, code: int, *, known: bool) -> str:
    """A flash setting of the header by name.

    :param known: whether the chip is known, whose codes these are
    """
    return name or (format_invalid(code) if known else f"unknown (code {code:#x})")


def format_wp_pin(value: int) -> str:
    """The write-protect pin."""
    if value == WP_PIN_DISABLED:
        return "not used"
    return str(value) if value <= MAX_PIN else format_invalid(value)
