"""New flash settings in the header of a built image, SHA-256 and all. Changes two bytes, and the hash over them.

The caller decides that the image goes to the chip's bootloader offset: only that header is read by the boot ROM.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from espwire.errors import ImageError, UsageError
from espwire.image.codec import parse
from espwire.image.header import DETECT, KEEP, HeaderSettings, parse_size_name
from espwire.image.model import DIGEST_SIZE, HEADER, MAGIC

if TYPE_CHECKING:
    from espwire.chips.model import Chip

MODE_AT, SIZE_FREQUENCY_AT = 2, 3


def find_patch_obstacle(data: bytes, chip: Chip) -> str | None:
    """Why the header must be left alone, as the end of a sentence; None: it can be changed."""
    if len(data) < HEADER.size or data[0] != MAGIC:
        return "it is no bootable image"
    try:
        image = parse(data, chip)
    except ImageError as error:
        return f"{error}"
    if not image.intact:
        return "its checksum or SHA-256 is wrong"
    return None


def patch_header(
    data: bytes, chip: Chip, *, mode: str = KEEP, size: str = KEEP, frequency: str = KEEP
) -> bytes:
    """``data`` with other flash settings; unchanged where ``find_patch_obstacle`` finds a reason.

    :param size: any spelling of ``parse_size_name`` but ``detect``, which the caller must have resolved
    :raises UsageError: the chip has no such mode, size or frequency

    What follows the image is untouched. A SHA-256 is recomputed in place when the header says there is one.
    """
    import hashlib

    new_mode, new_size, new_frequency = find_codes(
        chip, HeaderSettings(mode=mode, size=size, frequency=frequency)
    )
    if new_mode is new_size is new_frequency is None or find_patch_obstacle(data, chip) is not None:
        return data
    out = bytearray(data)
    if new_mode is not None:
        out[MODE_AT] = new_mode
    if new_size is not None:
        out[SIZE_FREQUENCY_AT] = out[SIZE_FREQUENCY_AT] & 0x0F | new_size
    if new_frequency is not None:
        out[SIZE_FREQUENCY_AT] = out[SIZE_FREQUENCY_AT] & 0xF0 | new_frequency
    image = parse(bytes(out), chip)
    if image.digest is not None:
        end = len(out) - len(image.trailing) - DIGEST_SIZE
        out[end : end + DIGEST_SIZE] = hashlib.sha256(memoryview(out)[:end]).digest()
    return bytes(out)


def find_codes(chip: Chip, settings: HeaderSettings) -> tuple[int | None, int | None, int | None]:
    """The header's codes for mode, size and frequency on ``chip``; None: keep.

    :raises UsageError: the chip has no such mode, size or frequency, or the size is still to be detected
    """
    size = parse_size_name(settings.size)
    if size == DETECT:
        raise UsageError(
            "the flash size must be known before it is put into an image",
            hint="Name it, as in --flash-size 4MB.",
        )
    flash = chip.flash
    return (
        _find_code(flash.modes, settings.mode, "flash mode", chip),
        _find_code(flash.sizes, size, "flash size", chip),
        _find_code(flash.frequencies, settings.frequency, "flash frequency", chip),
    )


def _find_code(codes: Mapping[str, int], name: str, what: str, chip: Chip) -> int | None:
    if name == KEEP:
        return None
    # sizes are upper case in the data, modes and frequencies lower: compare without case
    code = next((value for known, value in codes.items() if known.lower() == name.lower()), None)
    if code is None:
        raise UsageError(
            f"the {chip.name} has no {what} {name!r}",
            hint=f"It has {', '.join(codes)}; keep leaves it as it is.",
            code=what.replace(" ", "-"),
        )
    return code
