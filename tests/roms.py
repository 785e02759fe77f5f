"""Where the images of mask ROMs are: the project has none of them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from espwire.virtual.soc.mask_rom import FOLDER_VARIABLE, RomImage, find_images, load_mask_roms

BESIDE = Path(__file__).parents[2] / "shared" / "roms"


def find_rom_folder(named: str | None = None) -> Path:
    """The folder that was named, that of ESPWIRE_ROMS, or the one beside the project; it may be missing."""
    return Path(named or os.environ.get(FOLDER_VARIABLE) or BESIDE)


def find_known_roms(folder: Path | None = None) -> Iterator[tuple[str, RomImage, str]]:
    """Chip, image and port of each known ROM whose image is in the folder."""
    folder = folder or find_rom_folder()
    known = [(chip, image) for chip, facts in load_mask_roms().items() for image in facts.images]
    found = find_images(folder, [image for _, image in known]) if folder.is_dir() else {}
    for chip, image in known:
        if image.sha256 in found:
            options = f"size=4MB&profile=instant&rom={found[image.sha256][0]}{image.options}"
            yield chip, image, f"virtual:{chip}?{options}"


def find_ports(chip: str) -> list[str]:
    """Ports of chips with each known ROM of the kind ``chip``; skips the test if there is none."""
    ports = [port for known, _, port in find_known_roms() if known == chip]
    if not ports:
        pytest.skip(f"there is no image of the ROM of {chip}")
    return ports
