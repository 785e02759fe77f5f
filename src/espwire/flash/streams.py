"""Streams to and from flash that the caller feeds or drains: for data that is made, or used, as it goes.

They need our stub. No guard looks at what is written, and nothing is verified: write.py does both.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from espwire.device.streams import ReadTransfer, WriteTransfer
from espwire.protocol.stub import Codec

if TYPE_CHECKING:
    from espwire.device.device import Device


def open_write(
    device: Device,
    address: int,
    size: int,
    *,
    stream_size: int | None = None,
    encrypted: bool = False,
    erase: bool = True,
) -> WriteTransfer:
    """Open a write of ``size`` bytes at ``address``, the start of a sector; ``send`` pieces of it, then ``finish``.

    :param stream_size: what is sent is one zlib stream of so many bytes; None: the bytes themselves
    :param encrypted: by the chip's key, where the stub can
    :param erase: the sectors of the range; False: they are known to be blank
    :raises Unsupported: no stub of ours runs: see ``Device.use_stub``
    :raises CommandFailed: the stub refuses
    """
    _make_ready(device)
    codec = Codec.RAW if stream_size is None else Codec.ZLIB
    announced = size if stream_size is None else stream_size
    return WriteTransfer(
        device.loader, address, size, announced, codec, encrypted=encrypted, erase=erase
    )


def open_read(device: Device, address: int, size: int) -> ReadTransfer:
    """Open a read of ``size`` bytes at ``address``: iterate over it for pieces, in order and checked.

    :raises Unsupported, CommandFailed: as ``open_write``
    """
    _make_ready(device)
    return ReadTransfer(device.loader, address, size)


def _make_ready(device: Device) -> None:
    if device.flash is None:
        device.attach_flash()
