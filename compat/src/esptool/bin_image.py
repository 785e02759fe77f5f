"""Firmware images as scripts look at them: ``LoadFirmwareImage``. esptool's classes that build images are not here."""

from __future__ import annotations

from esptool.util import ImageSource, read_source, translated
from espwire.chips.registry import load_chip, parse_chip_id
from espwire.image.codec import parse
from espwire.image.model import Image, Segment


class ImageSegment:
    """A piece of an image: ``addr`` is where it is loaded, ``file_offs`` where it was in the file."""

    def __init__(self, addr: int, data: bytes, file_offs: int | None = None) -> None:
        self.addr, self.data, self.file_offs = addr, data, file_offs


class FirmwareImage:
    """A parsed image under esptool's attribute names; ``image`` is espwire's."""

    def __init__(self, image: Image) -> None:
        self.image = image
        self.entrypoint = image.entry
        self.flash_mode, self.flash_size_freq = image.mode_code, image.size_frequency
        self.version = image.version
        self.segments = [_view(segment) for segment in image.segments]
        self.checksum = image.checksum
        self.append_digest = image.extended is not None and image.extended.hash_appended
        self.stored_digest = image.digest
        # of an intact image both are equal; of a damaged one the digest that would be right is not kept
        self.calc_digest = image.digest if image.digest_valid else None
        if image.extended is not None:
            self.chip_id = image.extended.chip_id
            self.min_rev = image.extended.min_revision_legacy
            self.min_rev_full, self.max_rev_full = (
                image.extended.min_revision,
                image.extended.max_revision,
            )


@translated
def LoadFirmwareImage(chip: str, image_data: ImageSource) -> FirmwareImage:
    """The image in a file.

    :param chip: whose format to expect: ``esp8266``, or any later one's
    :raises FatalError: it is no image, or a broken one
    """
    return FirmwareImage(parse(read_source(image_data), load_chip(parse_chip_id(chip))))


def _view(segment: Segment) -> ImageSegment:
    return ImageSegment(segment.address, segment.data, segment.offset)
