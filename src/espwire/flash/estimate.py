"""Estimates how long a plan takes, from rates of the line and data-sheet times of flash chips, and chooses how data is compressed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from espwire.device.backends.base import FlashLimits
from espwire.protocol.commands import HEADER
from espwire.protocol.stub import LZMA_CODECS, Codec
from espwire.sizes import SECTOR, align_up

BITS_PER_BYTE = 10  # start, eight, stop
FRAME_ENDS, SLIP_END, SLIP_ESCAPE = 2, 0xC0, 0xDB
PAGE, BLOCK = 0x100, 0x10000
SHARPNESS = 8  # line and flash that need the same time take 9 % more together
GAIN = 0.995  # of the time: less is not worth the uncertainty
USB_BAUD = 8_000_000  # what the chip's own USB port amounts to
# of our stub, per byte: CPU cycles between two program operations and for the MD5 that it reads back, seconds of the
# flash chip's bus; the share of the CPU time for which the flash chip waits, if the CPU is always busy
PROGRAM_CYCLES, HASH_CYCLES, BUS_S, LATE = 6, 39, 0.25e-6, 1 / 6


class Cycles(NamedTuple):
    """CPU cycles of our stub: per byte in flash, and per byte received. Sums of the model's costs (stub_write.py)."""

    in_flash: int
    received: int


RAW_CYCLES, ZLIB_CYCLES, LZMA_CYCLES = Cycles(46, 75), Cycles(116, 245), Cycles(140, 675)


class Candidate(NamedTuple):
    """A way to send a piece: bytes of the stream, and all that the host sends."""

    payload: int
    wire_bytes: int


@dataclass(frozen=True, kw_only=True)
class TransportCost:
    """Rates. ``baud`` 0: unknown, as over TCP. The flash times are typical data-sheet values."""

    baud: int = 115200
    latency_s: float = 0.002
    program_page_s: float = 0.0008
    erase_sector_s: float = 0.045
    erase_block_s: float = 0.15
    md5_per_mb_s: float = 0.3

    def on_wire(self, size: int) -> float:
        """Seconds for ``size`` bytes."""
        return size * BITS_PER_BYTE / self.baud if self.baud else 0.0


def count_wire_bytes(payload: bytes, limits: FlashLimits, *, packed: bool) -> int:
    """Bytes that the host sends to transfer a payload: frames, escapes and the opening request.

    :param packed: compressed; a loader with blocks has the last one of other payloads filled up
    """
    frames = -(-len(payload) // limits.frame_payload)
    fill = 0 if packed or limits.receives_ahead else -len(payload) % limits.frame_payload
    escapes = payload.count(SLIP_END) + payload.count(SLIP_ESCAPE)
    opening = FRAME_ENDS + HEADER.size + limits.open_size
    heads = frames * (FRAME_ENDS + HEADER.size + limits.frame_head)
    return opening + heads + len(payload) + fill + escapes


def estimate_erase(address: int, size: int, cost: TransportCost, *, by_rom: bool = False) -> float:
    """Seconds to erase: 64 KiB blocks where they are aligned, sectors elsewhere.

    ``by_rom``: a ROM always erases the first block sector by sector, and the last one, too (SPIEraseArea in the ROMs).
    """
    if by_rom:
        sectors = -(-size // SECTOR)
        head = min(BLOCK - address % BLOCK, size) // SECTOR
        blocks = max(0, sectors - head - 1) * SECTOR // BLOCK
        left = sectors - blocks * BLOCK // SECTOR
        return blocks * cost.erase_block_s + left * cost.erase_sector_s
    end = address + size
    first, last = align_up(address, BLOCK), end - end % BLOCK
    if first >= last:
        return -(-size // SECTOR) * cost.erase_sector_s
    sectors = (first - address + end - last + SECTOR - 1) // SECTOR
    return (last - first) // BLOCK * cost.erase_block_s + sectors * cost.erase_sector_s


def estimate_write(
    span: range,
    payload: int,
    wire_bytes: int,
    limits: FlashLimits,
    cost: TransportCost,
    codec: Codec = Codec.RAW,
    *,
    verified: bool = False,
) -> float:
    """Seconds to erase and write ``span``, sent as ``payload`` bytes; ``verified``: and to read it back by our stub.

    A loader that receives ahead takes as long as the slowest of line, flash and CPU; others answer a block when it is
    in flash. Our stub reads back while the flash waits for the line.
    """
    in_flash = len(span) / PAGE * cost.program_page_s
    in_flash += estimate_erase(span.start, len(span), cost, by_rom=limits.erases_at_begin)
    if limits.receives_ahead:
        line_s, cpu_s = cost.on_wire(wire_bytes), 0.0
        if limits.cpu_hz:
            cycles = _find_cycles(codec)
            cpu_s = (len(span) * cycles.in_flash + payload * cycles.received) / limits.cpu_hz
            busy = cpu_s / max(line_s, in_flash, cpu_s)
            between = PROGRAM_CYCLES + HASH_CYCLES * verified
            in_flash += len(span) * (between / limits.cpu_hz + BUS_S) + LATE * busy**3 * cpu_s
        together = max(line_s, in_flash) if codec == Codec.RAW else _together(line_s, in_flash)
        return max(together, cpu_s) + 2 * cost.latency_s
    requests = -(-payload // limits.frame_payload) + 1
    replies = requests * (FRAME_ENDS + limits.reply_size)
    return cost.on_wire(wire_bytes + replies) + requests * cost.latency_s + in_flash


def _together(line_s: float, in_flash: float) -> float:
    """The longer one, or more if they are alike: where data compresses well the line waits for the flash, elsewhere the
    flash for the line."""
    return float((line_s**SHARPNESS + in_flash**SHARPNESS) ** (1 / SHARPNESS))


def _find_cycles(codec: Codec) -> Cycles:
    if codec in LZMA_CODECS:
        return LZMA_CYCLES
    return ZLIB_CYCLES if codec == Codec.ZLIB else RAW_CYCLES


def choose_codec(
    span: range,
    candidates: Mapping[Codec, Candidate],
    limits: FlashLimits,
    cost: TransportCost,
) -> Codec:
    """The fastest one: deflate unless another one is clearly faster; without deflate, raw."""
    default = Codec.ZLIB if Codec.ZLIB in candidates else Codec.RAW
    seconds = {
        codec: estimate_write(span, payload, wire_bytes, limits, cost, codec, verified=True)
        for codec, (payload, wire_bytes) in candidates.items()
    }
    best = min(seconds, key=seconds.__getitem__)
    return best if seconds[best] < GAIN * seconds[default] else default
