"""Differences between loaders (ROM bootloaders and stubs), as data. The numbers come from ``chips/data``."""

from __future__ import annotations

from enum import Enum, IntEnum
from typing import TYPE_CHECKING

from espwire.protocol.opcodes import Op
from espwire.record import Record

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
        # esptool sends them in this mode, too; no chip was available
        Op.SDC_VERIF_BEGIN,
        Op.SDC_VERIF_DATA,
        Op.SDC_VERIF_END,
        Op.SDC_GEN_BEGIN,
        Op.SDC_GEN_DATA,
        Op.SDC_GEN_END,
    }
)


class Md5Form(Enum):
    """Result of SPI_FLASH_MD5."""

    HEX = "hex32"
    RAW = "raw16"
    NONE = "none"


class BaudRule(Enum):
    """Which number CHANGE_BAUDRATE needs."""

    NONE = "none"  # the loader cannot change its rate
    PLAIN = "plain"
    ESP32_CALIBRATION = "esp32-calibration"  # scaled by the clock that the ROM measured
    ASSUMES_40_MHZ = "assumes-40"  # the ROM assumes a 40 MHz crystal
    MISTAKEN_CRYSTAL = (
        "mistaken-crystal"  # the ROM may assume 40 MHz instead of 48, or 48 instead of 40
    )


class EraseRule(Enum):
    """Meaning of the first word of FLASH_BEGIN."""

    TRUE_SIZE = "true-size"
    ESP8266_HEAD_BUG = "rom_head_sector_bug"  # the ROM erases the head sectors twice


class Dialect(Record):
    """Properties of one loader. Sizes in bytes.

    ``secure_ops``: commands that work in Secure Download Mode (empty: the chip does not have this mode).
    ``exact_deflate_size``: FLASH_DEFL_BEGIN takes the exact size, not whole blocks.
    ``deflate_fills_window``: after the last block of compressed data, the whole window of the decoder is programmed, 32 KiB,
    and what it holds behind the data damages the flash there.
    ``flash_end_restarts``: FLASH_END with 0 restarts the chip; otherwise it only leaves the loader, as with 1.
    ``requests_ahead``: how many short requests it buffers, including the one that it works on.
    ``write_groups``: whether it carries out several groups of one WRITE_REG; None: not tried yet (``spi.write_group``).
    ``attach_bytes`` 0: FLASH_BEGIN attaches the flash chip. ``slow_read`` 0: no READ_FLASH_SLOW.
    ``capabilities``: of our own stub; None for all other loaders. ``sealed``: requests and replies carry a CRC-32
    (``protocol.stub.seal``), and a reply without a valid one is dropped: our stub.
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
    deflate_fills_window: bool = False
    flash_end_restarts: bool = True
    write_groups: bool | None = None
    capabilities: Capabilities | None = None
    sealed: bool = False

    @property
    def can_inflate(self) -> bool:
        """Whether zlib data can be sent to the loader without damage."""
        return Op.FLASH_DEFL_BEGIN in self.ops and not self.deflate_fills_window
