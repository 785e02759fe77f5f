"""Writes a part through our stub: one stream, begun again where the flash is sure when it breaks. Verifies nothing."""

from __future__ import annotations

from espwire.compress import deflate_zlib
from espwire.device.loader import Loader
from espwire.device.streams import WriteTransfer
from espwire.device.transfer import WORD, Attempts, OnBlock, refuse_encryption
from espwire.errors import CommandFailed, NoReply
from espwire.protocol.stub import Codec
from espwire.sizes import SECTOR, align_down, align_up

CHUNK = 0x2000  # of the stream; progress comes as often at least


def write_streamed(
    loader: Loader,
    offset: int,
    data: bytes,
    *,
    on_block: OnBlock,
    encrypted: bool = False,
    packed: bytes | None = None,
) -> None:
    """Erase and write ``data`` at ``offset`` (a sector's start), as ``packed`` where that is given.

    :param on_block: called with about so many bytes of ``data`` as have come, with all of them once they are in flash;
        it may go back after a repetition
    :param packed: the zlib form of ``data``, whose size is then a multiple of 4
    :raises NoReply, CommandFailed: ``settings.retry.block_attempts`` tries at one place failed
    """
    refuse_encryption(loader, encrypted=encrypted)
    padded = bytes(data).ljust(align_up(len(data), WORD), b"\xff")
    attempts, start = Attempts(loader.settings), 0
    while True:
        rest = padded[start:] if start else padded
        stream = rest
        if packed is not None:
            stream = deflate_zlib(rest) if start else packed
        codec = Codec.RAW if packed is None else Codec.ZLIB
        transfer: WriteTransfer | None = None
        try:
            place = (offset + start, len(rest), len(stream), codec)
            with WriteTransfer(
                loader, *place, encrypted=encrypted, first=stream[:CHUNK]
            ) as transfer:
                for at in range(0, len(stream), CHUNK):
                    transfer.send(stream[at : at + CHUNK] if at else b"")
                    come = transfer.received * len(rest) // len(stream)
                    on_block(min(start + max(come, transfer.in_flash), len(data) - 1))
                transfer.finish()
            on_block(len(data))
        except (NoReply, CommandFailed) as error:
            sure = start + (transfer.in_flash if transfer is not None else 0)
            attempts.count(sure, error)
            start = align_down(sure, SECTOR)
            on_block(min(start, len(data)))
        else:
            return
