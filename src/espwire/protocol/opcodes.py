"""Opcodes of the loader protocol (ROM loaders and the vendor's stub), and of SPI NOR flash chips."""

from enum import IntEnum


class Op(IntEnum):
    """Opcodes of the ROM loaders (below 0x80) and of the vendor's stub (from 0xD0)."""

    FLASH_BEGIN = 0x02
    FLASH_DATA = 0x03
    FLASH_END = 0x04
    MEM_BEGIN = 0x05
    MEM_END = 0x06
    MEM_DATA = 0x07
    SYNC = 0x08
    WRITE_REG = 0x09
    READ_REG = 0x0A
    SPI_SET_PARAMS = 0x0B
    CONFIGURE_SPI_PARAMS = 0x0B  # the classic protocol page's name for the same opcode
    SPI_ATTACH = 0x0D
    READ_FLASH_SLOW = 0x0E
    CHANGE_BAUDRATE = 0x0F
    FLASH_DEFL_BEGIN = 0x10
    FLASH_DEFL_DATA = 0x11
    FLASH_DEFL_END = 0x12
    SPI_FLASH_MD5 = 0x13
    GET_SECURITY_INFO = 0x14
    SDC_VERIF_BEGIN = 0x19
    SDC_VERIF_DATA = 0x1A
    SDC_VERIF_END = 0x1B
    SDC_GEN_BEGIN = 0x1C
    SDC_GEN_DATA = 0x1D
    SDC_GEN_END = 0x1E
    ERASE_FLASH = 0xD0
    ERASE_REGION = 0xD1
    READ_FLASH = 0xD2
    RUN_USER_CODE = 0xD3


# SPI NOR flash chips, as in their data sheets
PAGE_PROGRAM = 0x02
READ_STATUS = 0x05
WRITE_ENABLE = 0x06
ERASE_SECTOR = 0x20  # 4 KiB
READ_SFDP = 0x5A
ENABLE_RESET = 0x66
RESET = 0x99
READ_ID = 0x9F
RELEASE_POWER_DOWN = 0xAB
POWER_DOWN = 0xB9
ERASE_CHIP = 0xC7
ERASE_BLOCK = 0xD8  # 64 KiB
# the same with a four-byte address, for flash above 16 MB
WITH_LONG_ADDRESS = {PAGE_PROGRAM: 0x12, ERASE_SECTOR: 0x21, ERASE_BLOCK: 0xDC}
