"""Where the images of mask ROMs are: the project has none of them."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from espwire.virtual.soc.mask_rom import FOLDER_VARIABLE, RomImage, load_mask_roms

BESIDE = Path(__file__).parents[2] / "shared" / "roms"


def find_rom_folder(named: str | None = None) -> Path:
    """The folder that was named, that of ESPWIRE_ROMS, or the one beside the project; it may be missing."""
    return Path(named or os.environ.get(FOLDER_VARIABLE) or BESIDE)


def find_known_roms(folder: Path | None = None) -> Iterator[tuple[str, RomImage, str]]:
    """Chip, image and port of each known ROM whose image is in the folder."""
    files = {
        hashlib.sha256(path.read_bytes()).hexdigest(): path
        for path in (folder or find_rom_folder()).glob("*.bin")
    }
    for chip, facts in load_mask_roms().items():
        for image in facts.images:
            path = files.get(image.sha256)
            if path is not None:
                options = f"size=4MB&profile=instant&rom={path}{image.options}"
                yield chip, image, f"virtual:{chip}?{options}"
