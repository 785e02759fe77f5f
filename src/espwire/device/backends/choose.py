"""Chooses the `FlashBackend` for the loader that answers."""

from __future__ import annotations

from espwire.chips.model import Chip
from espwire.device.backends.base import FlashBackend
from espwire.device.backends.rom import RomBackend
from espwire.device.backends.stub import StubBackend
from espwire.device.backends.vendor_stub import VendorStubBackend
from espwire.device.loader import Loader


def choose_backend(loader: Loader, chip: Chip) -> FlashBackend:
    """The backend for the loader's dialect, as it is now: choose again after a stub was started."""
    if loader.dialect.capabilities is not None:
        return StubBackend(loader, chip)
    if loader.dialect.sync_value == 0:
        return VendorStubBackend(loader, chip)
    return RomBackend(loader, chip)
