"""Small programs in machine code that a chip's RAM takes: they say ``hi`` and then echo what their port brings."""

from __future__ import annotations

import struct

# l32r a2, [0]; l32r a3, [4]; movi a4, 'h'; s32i.n a4, a3, 0; movi a4, 'i'; s32i.n a4, a3, 0;
# 1: l32i.n a4, a2, 28; extui a4, a4, 0, 8; beqz a4, 1b; l32i.n a5, a2, 0; s32i.n a5, a3, 0; j 1b
XTENSA_ECHO = bytes.fromhex(
    "21feff 31feff 42a068 4903 42a069 4903 4872 404074 1674ff 5802 5903 06fcff 00"
)
# lui a2, 0x60000; li a4, 'h'; sw a4, 0(a2); li a4, 'i'; sw a4, 0(a2);
# 1: lw a4, 28(a2); andi a4, a4, 255; beqz a4, 1b; lw a5, 0(a2); sw a5, 0(a2); j 1b
RISCV_ECHO = bytes.fromhex("37060060 13078006 18c2 13079006 18c2 584e 1377f70f 6ddf 1c42 1cc2 d5bf")
# lui a2, 0x60043; li a4, 'h'; sw a4, 0(a2); li a4, 'i'; sw a4, 0(a2); li a4, 1; sw a4, 4(a2);
# 1: lw a4, 4(a2); andi a4, a4, 4; beqz a4, 1b; lw a5, 0(a2); sw a5, 0(a2); li a4, 1; sw a4, 4(a2); j 1b
RISCV_USB_ECHO = bytes.fromhex(
    "37360460 13078006 18c2 13079006 18c2 0547 58c2 5842 118b 75df 1c42 1cc2 0547 58c2 cdbf"
)
FREE_RAM = {
    "esp8266": 0x40100008,
    "esp32": 0x40080008,
    "esp32c3": 0x403A8000,
}  # that our stub leaves alone


def echo(chip: str, entry: int, *, over_usb: bool = False) -> tuple[int, bytes]:
    """The program for ``entry``: where it goes and what. Address and content are words."""
    if chip == "esp32c3":
        code = RISCV_USB_ECHO if over_usb else RISCV_ECHO
        return entry, code.ljust(-(-len(code) // 4) * 4, b"\0")
    uart = 0x60000000 if chip == "esp8266" else 0x3FF40000
    return entry - 8, struct.pack("<II", uart, 0x60000000) + XTENSA_ECHO
