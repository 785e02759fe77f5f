"""Small programs in machine code that a chip's RAM takes: they say ``hi`` and then echo what their port brings."""

from __future__ import annotations

import struct

from espwire.chips.registry import load_chip

# l32r a2, [0]; l32r a3, [4]; movi a4, 'h'; s32i.n a4, a3, 0; movi a4, 'i'; s32i.n a4, a3, 0;
# 1: l32i.n a4, a2, 28; extui a4, a4, 0, 8; beqz a4, 1b; l32i.n a5, a2, 0; s32i.n a5, a3, 0; j 1b
XTENSA_ECHO = bytes.fromhex(
    "21feff 31feff 42a068 4903 42a069 4903 4872 404074 1674ff 5802 5903 06fcff 00"
)
# lui a2, UART; li a4, 'h'; sw a4, 0(a2); li a4, 'i'; sw a4, 0(a2);
# 1: lw a4, 28(a2); andi a4, a4, 255; beqz a4, 1b; lw a5, 0(a2); sw a5, 0(a2); j 1b
RISCV_ECHO = bytes.fromhex("13078006 18c2 13079006 18c2 584e 1377f70f 6ddf 1c42 1cc2 d5bf")
# lui a2, USB; li a4, 'h'; sw a4, 0(a2); li a4, 'i'; sw a4, 0(a2); li a4, 1; sw a4, 4(a2);
# 1: lw a4, 4(a2); andi a4, a4, 4; beqz a4, 1b; lw a5, 0(a2); sw a5, 0(a2); li a4, 1; sw a4, 4(a2); j 1b
RISCV_USB_ECHO = bytes.fromhex(
    "13078006 18c2 13079006 18c2 0547 58c2 5842 118b 75df 1c42 1cc2 0547 58c2 cdbf"
)
LUI_A2 = 0x637
# l32r a2, USB; movi a4, 'h'; s32i.n a4, a2, 0; movi a4, 'i'; s32i.n a4, a2, 0; movi.n a4, 1; s32i.n a4, a2, 4;
# 1: l32i.n a4, a2, 4; bbci a4, 2, 1b; l32i.n a5, a2, 0; s32i.n a5, a2, 0; movi.n a4, 1; s32i.n a4, a2, 4; j 1b
XTENSA_USB_ECHO = bytes.fromhex(
    "21ffff 42a068 4902 42a069 4902 0c14 4912 4812 2764fa 5802 5902 0c14 4912 c6fbff 000000"
)
FREE_RAM = {
    "esp8266": 0x40100008,
    "esp32": 0x40080008,
    "esp32s2": 0x40020008,
    "esp32s3": 0x40370008,
    "esp32c2": 0x403A8000,
    "esp32c3": 0x403A8000,
    "esp32c5": 0x40830000,
    "esp32c6": 0x40830000,
    "esp32c61": 0x40830000,
    "esp32h2": 0x40830000,
    "esp32h21": 0x40830000,
    "esp32h4": 0x40820000,
    "esp32p4": 0x4FF80000,
    "esp32s31": 0x2F040000,
}  # that our stub leaves alone


def echo(chip_id: str, entry: int, *, over_usb: bool = False) -> tuple[int, bytes]:
    """The program for ``entry``: where it goes and what. Address and content are words."""
    chip = load_chip(chip_id)
    uart = chip.uart.clock_divider_address - 0x14
    port = chip.peripherals["usb_serial_jtag"] if over_usb else uart
    if chip.cpu.architecture == "riscv":
        code = struct.pack("<I", port | LUI_A2) + (RISCV_USB_ECHO if over_usb else RISCV_ECHO)
        return entry, code.ljust(-(-len(code) // 4) * 4, b"\0")
    if over_usb:
        return entry - 8, struct.pack("<II", 0, port) + XTENSA_USB_ECHO
    own = chip.stub.own
    transmit = own.uart_transmit if own is not None and own.uart_transmit is not None else uart
    return entry - 8, struct.pack("<II", uart, transmit) + XTENSA_ECHO
