"""How one loader speaks, a ROM or a stub, as data. The numbers come from ``chips/data``; nothing is decided here."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from typing import TYPE_CHECKING

from espwire.protocol.opcodes import Op

if TYPE_CHECKING:
    from espwire.protocol.stub import Capabilities

SECURE_DOWNLOAD_OPS = frozenset(
    {
        Op.SYNC,
        Op.SPI_ATTACH,
        Op.SPI_SET_PARAMS,
        Op.CHANGE_BAUDRATE,
        Op.FLASH_BEGIN,
        Op.FLASH_DATA,
        Op.FLASH_END,
        Op.GET_SECURITY_INFO,
    }
)


class Md5Form(Enum):
    """How SPI_FLASH_MD5 answers."""

    HEX = "hex32"
    RAW = "raw16"
    NONE = "none"


class BaudRule(Enum):
    """Which number CHANGE_BAUDRATE must carry so that the chip ends at the wanted rate."""

    NONE = "none"  # the loader cannot change its rate
    PLAIN = "plain"
    ESP32_CALIBRATION = "esp32-calibration"  # scaled by the ROM's own measurement of its clock
    ASSUMES_40_MHZ = "assumes-40"  # the ROM divides as if the crystal had 40 MHz
    MISTAKEN_CRYSTAL = "mistaken-crystal"  # the ROM may be set for the other of 40 and 48 MHz


class EraseRule(Enum):
    """What FLASH_BEGIN's first word means."""

    TRUE_SIZE = "true-size"
    ESP8266_HEAD_BUG = "rom_head_sector_bug"  # the ROM erases the head sectors twice


@dataclass(frozen=True, kw_only=True)
class Dialect:
    """One loader's ways. Sizes in bytes.

    ``secure_ops`` is the subset that survives Secure Download Mode (empty: the chip has no such mode).
    ``exact_deflate_size``: FLASH_DEFL_BEGIN takes the bytes that really come, not whole blocks.
    ``requests_ahead``: how many short requests it takes before it has answered the first.
    ``attach_bytes`` 0 means that FLASH_BEGIN attaches by itself. ``slow_read`` 0 means no READ_FLASH_SLOW.
    ``capabilities``: what our own stub told of itself; None for all other loaders. ``sealed``: every request and every
    answer carries a CRC-32 (``wire.stub.seal``), and an answer without one does not count: so our stub speaks.
    """

    name: str
    ops: frozenset[IntEnum]
    secure_ops: frozenset[IntEnum]
    status_bytes: int
    begin_words: int
    flash_block: int
    ram_block: int
    attach_bytes: int
    slow_read: int
    md5: Md5Form
    baud: BaudRule
    secure_baud: bool
    erase: EraseRule
    security_info_bytes: int
    encrypted_write: bool
    sync_value: int
    exact_deflate_size: bool = False
    requests_ahead: int = 1
    capabilities: Capabilities | None = None
    sealed: bool = False

    @property
    def can_inflate(self) -> bool:
        """Whether the loader takes zlib data."""
        return Op.FLASH_DEFL_BEGIN in self.ops
