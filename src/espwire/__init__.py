"""espwire: talk to the ROM bootloader of Espressif chips. Public names load on first use."""

from espwire._version import __version__

__all__ = ["__version__"]
