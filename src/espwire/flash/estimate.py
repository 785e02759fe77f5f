"""How long things take on a link and a flash: the plan's estimate. Pure arithmetic; nothing waits for these numbers."""

from __future__ import annotations

from dataclasses import dataclass

from espwire.protocol.commands import HEADER
from espwire.protocol.dialect import Dialect
from espwire.sizes import align_up

BITS_PER_BYTE = 10  # start, eight, stop
FRAME_ENDS, DATA_HEADER, SLIP_END, SLIP_ESCAPE = 2, 16, 0xC0, 0xDB
OPEN_BODY, POSITION = 24, 4  # of our stub's streams
PAGE, SECTOR, BLOCK = 0x100, 0x1000, 0x10000


@dataclass(frozen=True, kw_only=True)
class TransportCost:
    """Rates. ``baud`` 0: a link without one (TCP, USB). The flash times are typical data-sheet values."""

    baud: int = 115200
    latency_s: float = 0.002
    program_page_s: float = 0.0008
    erase_sector_s: float = 0.045
    erase_block_s: float = 0.15
    md5_per_mb_s: float = 0.3

    def on_wire(self, size: int) -> float:
        """Seconds for ``size`` bytes."""
        return size * BITS_PER_BYTE / self.baud if self.baud else 0.0


def count_blocks(size: int, dialect: Dialect) -> int:
    """Data commands for a payload of ``size`` bytes."""
    return -(-size // dialect.flash_block)


def count_wire_bytes(payload: bytes, dialect: Dialect, *, packed: bool) -> int:
    """Bytes that the host sends to transfer a payload: frames, escapes and the opening command.

    :param packed: compressed blocks go as they are, plain ones are filled up to the loader's block size
    """
    if dialect.capabilities is not None:
        head = FRAME_ENDS + HEADER.size + OPEN_BODY
        return head + _count_stream_bytes(payload, dialect.capabilities.frame_payload)
    fill = 0 if packed else -len(payload) % dialect.flash_block
    frames = count_blocks(len(payload), dialect) * (FRAME_ENDS + HEADER.size + DATA_HEADER)
    begin = FRAME_ENDS + HEADER.size + 4 * dialect.begin_words
    return (
        begin + frames + len(payload) + fill + payload.count(SLIP_END) + payload.count(SLIP_ESCAPE)
    )


def _count_stream_bytes(payload: bytes, size: int) -> int:
    """Bytes of a stream's frames, escapes included; WRITE_OPEN is not among them."""
    frames = -(-len(payload) // size) * (FRAME_ENDS + HEADER.size + POSITION)
    return frames + len(payload) + payload.count(SLIP_END) + payload.count(SLIP_ESCAPE)


def estimate_erase(address: int, size: int, cost: TransportCost) -> float:
    """Seconds to erase: 64 KiB blocks where they are aligned, sectors elsewhere."""
    end = address + size
    first, last = align_up(address, BLOCK), end - end % BLOCK
    if first >= last:
        return -(-size // SECTOR) * cost.erase_sector_s
    sectors = (first - address + end - last + SECTOR - 1) // SECTOR
    return (last - first) // BLOCK * cost.erase_block_s + sectors * cost.erase_sector_s


def estimate_write(
    span: range, payload: int, wire_bytes: int, dialect: Dialect, cost: TransportCost
) -> float:
    """Seconds to erase and write ``span``, sent as ``payload`` bytes: a ROM answers a block when it is in flash.

    Our stub receives meanwhile: the slower of wire and flash decides.
    """
    if dialect.capabilities is not None:
        in_flash = len(span) / PAGE * cost.program_page_s + estimate_erase(
            span.start, len(span), cost
        )
        return max(cost.on_wire(wire_bytes), in_flash) + 2 * cost.latency_s
    blocks = count_blocks(payload, dialect)
    replies = (blocks + 1) * (FRAME_ENDS + HEADER.size + dialect.status_bytes)
    programming = len(span) / PAGE * cost.program_page_s
    waits = (blocks + 1) * cost.latency_s
    return (
        cost.on_wire(wire_bytes + replies)
        + waits
        + programming
        + estimate_erase(span.start, len(span), cost)
    )
