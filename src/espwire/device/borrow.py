"""How to speak to a stub that an earlier client left running: identify, write, erase, verify. Uploads none itself.

The vendor's stub answers SYNC with value 0 and status with two bytes; it acknowledges a block before it is in flash, so
only an MD5 afterwards proves a write. Source: ``chips/data`` protocol.toml [stub]. Reading by stream is not used here.
"""

from __future__ import annotations

from dataclasses import replace

from espwire.wire.commands import Op
from espwire.wire.dialect import BaudRule, Dialect, EraseRule, Md5Form

STUB_OPS = frozenset(
    {
        Op.SYNC,
        Op.READ_REG,
        Op.WRITE_REG,
        Op.MEM_BEGIN,
        Op.MEM_DATA,
        Op.MEM_END,
        Op.SPI_ATTACH,
        Op.SPI_SET_PARAMS,
        Op.FLASH_BEGIN,
        Op.FLASH_DATA,
        Op.FLASH_DEFL_BEGIN,
        Op.FLASH_DEFL_DATA,
        Op.SPI_FLASH_MD5,
        Op.ERASE_REGION,
    }
)
STUB_BLOCK = 0x4000


def stub_dialect(rom: Dialect) -> Dialect:
    """The vendor's stub on a chip whose ROM speaks ``rom``. Its baud rate is left as it is."""
    info = frozenset({Op.GET_SECURITY_INFO}) & rom.ops
    return replace(
        rom,
        name="stub",
        ops=STUB_OPS | info,
        secure_ops=frozenset(),
        status_bytes=2,
        flash_block=STUB_BLOCK,
        attach_bytes=4,
        slow_read=0,
        md5=Md5Form.RAW,
        baud=BaudRule.NONE,
        erase=EraseRule.TRUE_SIZE,
        exact_deflate_size=True,
        sync_value=0,
    )
