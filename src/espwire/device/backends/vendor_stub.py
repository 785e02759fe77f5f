"""The vendor's stub as `FlashBackend`: the ROM's block commands with larger blocks, a range erase and a fast read.

It acknowledges a block before it is in flash, so only an MD5 afterwards proves a write. Its requests and replies carry
no checksum. Source: ``chips/data`` protocol.toml [stub].
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from espwire.device.backends.base import Progress, count_restart, ignore, limit_restarts
from espwire.device.backends.rom import RomBackend
from espwire.device.loader import Loader
from espwire.errors import CommandFailed, DeviceError, NoReply
from espwire.protocol.commands import EraseRegion, ReadFlash

ERASE_STEP = 0x100000  # seconds of work at most, so that no timeout is too short
PACKET, PACKETS_IN_FLIGHT, DIGEST_BYTES = 0x1000, 64, 16


class VendorStubBackend(RomBackend):
    """Flash through the vendor's stub."""

    def erase(self, start: int, size: int, *, progress: Progress = ignore) -> None:
        """By ERASE_REGION: its BEGIN alone does nothing, it erases as data comes."""
        erase_by_region(self.loader, start, size, progress)

    def _read_once(self, start: int, size: int) -> Iterator[bytes]:
        """By READ_FLASH, in packets that are never sent again.

        :raises NoReply: a packet is missing
        :raises DeviceError: code ``bad-reply``: the stub's MD5 of all packets is different
        """
        loader, received = self.loader, 0
        timing, digest = loader.settings.timing, hashlib.md5(usedforsecurity=False)
        loader.call(ReadFlash(start, size, PACKET, PACKETS_IN_FLIGHT))
        while True:
            frame = loader.receive_frame(timing.default)
            expected = min(PACKET, size - received) or DIGEST_BYTES
            if frame is None or len(frame) != expected:
                raise NoReply("a packet of flash data is missing", command="READ_FLASH")
            if received == size:
                break
            received += len(frame)
            digest.update(frame)
            loader.send(received.to_bytes(4, "little"))
            yield frame
        loader.end_pipeline()
        if frame != digest.digest():
            raise DeviceError("the data read differs from the stub's MD5", code="bad-reply")


def erase_by_region(loader: Loader, start: int, size: int, progress: Progress) -> None:
    """Erase by ERASE_REGION, up to a megabyte per request."""
    timing, done = loader.settings.timing, 0
    while done < size:
        piece = size
        if size > ERASE_STEP:
            piece = min(ERASE_STEP - (start + done) % ERASE_STEP, size - done)
        seconds = timing.scaled(timing.erase_per_mb, piece)
        attempts = limit_restarts(loader.settings.retry)
        while True:
            try:
                loader.call(EraseRegion(start + done, piece), timeout=seconds)
                break
            except (NoReply, CommandFailed) as error:
                count_restart(attempts, error, 0)
        done += piece
        progress(done)
