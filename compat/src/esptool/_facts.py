"""The constants that esptool's chip classes have, read from espwire's chip data when they are first needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from espwire.chips.model import Chip
from espwire.chips.registry import load_chip
from espwire.protocol.opcodes import Op


class ChipFact:
    """A class attribute whose value comes from the data of the class's chip; ``default`` where no chip is named."""

    def __init__(self, read: Callable[[Chip], Any], default: Any = None) -> None:
        self._read, self._default = read, default

    def __get__(self, instance: object, owner: type[ChipFacts]) -> Any:
        return self._default if owner.CHIP is None else self._read(load_chip(owner.CHIP))


class BlockSize(ChipFact):
    """Bytes of one block of flash data: what the running loader takes; of a class, what its ROM takes."""

    def __get__(self, instance: object, owner: type[ChipFacts]) -> Any:
        device = getattr(instance, "_device", None)
        return (
            super().__get__(instance, owner)
            if device is None
            else device.loader.dialect.flash_block
        )


def _map_memory(chip: Chip) -> list[list[Any]]:
    return [[region.start, region.end, region.name] for region in chip.memory.map]


class ChipFacts:
    """Constants of one chip. They are attributes of the class, as in ``CHIP_DEFS["esp32"].BOOTLOADER_FLASH_OFFSET``."""

    CHIP: ClassVar[str | None] = None  # espwire's id of the chip; None: any chip

    CHIP_NAME = ChipFact(lambda chip: chip.name, "Espressif device")
    IMAGE_CHIP_ID = ChipFact(lambda chip: chip.identity.image_chip_id)
    MAGIC_VALUE = ChipFact(
        lambda chip: chip.identity.magic_values[0] if chip.identity.detect == "magic" else None
    )
    USES_MAGIC_VALUE = ChipFact(lambda chip: chip.identity.detect == "magic", True)
    SECURITY_INFO_SUPPORTED = ChipFact(lambda chip: chip.identity.security_info_bytes > 0, False)
    UF2_FAMILY_ID = ChipFact(lambda chip: chip.image.uf2_family or 0, 0)

    BOOTLOADER_FLASH_OFFSET = ChipFact(lambda chip: chip.flash.bootloader_offset, 0)
    FLASH_SIZES = ChipFact(lambda chip: dict(chip.flash.sizes), {})
    FLASH_FREQUENCY = ChipFact(lambda chip: dict(chip.flash.frequencies), {})
    FLASH_ENCRYPTED_WRITE_ALIGN = ChipFact(lambda chip: chip.flash.encrypted_write_align or 16, 16)
    FLASH_32BIT_ADDR_SUPPORTED = ChipFact(lambda chip: chip.flash.address_32bit, False)
    FLASH_SECTOR_SIZE = 0x1000
    FLASH_WRITE_SIZE = BlockSize(lambda chip: chip.rom.flash_block, 0x400)
    ESP_RAM_BLOCK = ChipFact(lambda chip: chip.rom.ram_block, 0x1800)

    MEMORY_MAP = ChipFact(_map_memory, [])
    IROM_MAP_START = ChipFact(lambda chip: chip.mapped_flash.irom_start)
    IROM_MAP_END = ChipFact(lambda chip: chip.mapped_flash.irom_end)
    DROM_MAP_START = ChipFact(lambda chip: chip.mapped_flash.drom_start)
    DROM_MAP_END = ChipFact(lambda chip: chip.mapped_flash.drom_end)

    SPI_REG_BASE = ChipFact(lambda chip: chip.spi.base)
    SPI_USR_OFFS = ChipFact(lambda chip: chip.spi.user_offset)
    SPI_USR1_OFFS = ChipFact(lambda chip: chip.spi.user1_offset)
    SPI_USR2_OFFS = ChipFact(lambda chip: chip.spi.user2_offset)
    SPI_MOSI_DLEN_OFFS = ChipFact(lambda chip: chip.spi.mosi_length_offset)
    SPI_MISO_DLEN_OFFS = ChipFact(lambda chip: chip.spi.miso_length_offset)
    SPI_W0_OFFS = ChipFact(lambda chip: chip.spi.data_offset)
    SPI_ADDR_REG_MSB = ChipFact(lambda chip: chip.spi.address_msb_aligned, True)
    CUSTOM_SPI_FLASH_PINS_SUPPORTED = ChipFact(lambda chip: chip.spi.custom_pins, False)

    UART_CLKDIV_REG = ChipFact(lambda chip: chip.uart.clock_divider_address)
    UART_CLKDIV_MASK = ChipFact(lambda chip: chip.uart.clock_divider_mask, 0xFFFFF)
    UART_DATE_REG_ADDR = ChipFact(lambda chip: chip.uart.date_address, 0x60000078)
    USB_OTG_SUPPORTED = ChipFact(lambda chip: chip.usb.otg, False)
    USB_SERIAL_JTAG_SUPPORTED = ChipFact(lambda chip: chip.usb.serial_jtag, False)
    WATCHDOG_RESET_SUPPORTED = ChipFact(lambda chip: chip.reset.watchdog_reset, False)

    DEFAULT_PORT = "/dev/ttyUSB0"
    ESP_ROM_BAUD = 115200
    ESP_IMAGE_MAGIC = 0xE9
    ESP_CHECKSUM_MAGIC = 0xEF
    ROM_INVALID_RECV_MSG = 0x05
    CHIP_DETECT_MAGIC_REG_ADDR = 0x40001000
    ESPRESSIF_VID = 0x303A
    USB_JTAG_SERIAL_PID = 0x1001
    ESP_CMDS: ClassVar[dict[str, int]] = {op.name: int(op) for op in Op}
