"""What is remembered from one session to the next: which reset worked, which chip was where. Keeps nothing itself.

What is remembered may change the order of attempts and so their speed, never what comes of them.
"""

from __future__ import annotations

from typing import Protocol

from espwire.transport.base import TransportInfo


class Memory(Protocol):
    """A notebook. Losing it costs time only, so writing to it must not fail loudly."""

    def best_sequence(self, key: str) -> str | None:
        """The name of the reset sequence that worked last at this adapter."""

    def note_sequence(self, key: str, name: str) -> None:
        """This sequence worked at this adapter."""

    def note_device(self, mac: str, key: str) -> None:
        """The chip with this MAC was seen at this adapter."""


def memory_key(info: TransportInfo) -> str:
    """Who an adapter is: ids and serial number, or its path; in the form of ``PortIdentity.key``."""
    return info.name if info.vid is None else f"{info.vid:04X}:{info.pid or 0:04X}:{info.serial}"
