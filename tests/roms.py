"""Where the images of mask ROMs are: the project has none of them."""

from __future__ import annotations

import os
from pathlib import Path

from espwire.virtual.soc.mask_rom import FOLDER_VARIABLE

BESIDE = Path(__file__).parents[2] / "shared" / "roms"


def find_rom_folder(named: str | None = None) -> Path:
    """The folder that was named, that of ESPWIRE_ROMS, or the one beside the project; it may be missing."""
    return Path(named or os.environ.get(FOLDER_VARIABLE) or BESIDE)
