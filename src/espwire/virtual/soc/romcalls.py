"""ROM functions that programs in RAM call: carried out at once, in the time that they take on the chip.

Arguments are passed as the processor's ABI does it: RISC-V in a0 to a7, Xtensa in a2 to a7, further ones on the stack.
The functions of Xtensa ROMs after the ESP8266's begin with ``entry``: they can only be called by ``call8`` and similar
(arguments in the caller's a10 and up), with register windows switched on.

``format_text`` makes the text of the ROM's ets_printf: integers, characters, strings and pointers. The ROM's printf has
fewer conversions than C's and no floating point; an unknown conversion is printed unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import count
from typing import NamedTuple

from espwire.protocol.opcodes import PAGE_PROGRAM, WRITE_ENABLE
from espwire.virtual.cpu.engine import Engine, Hook
from espwire.virtual.cpu.xtensa_windows import call_function
from espwire.virtual.programs.program import Services
from espwire.virtual.soc.clock import Clock
from espwire.virtual.soc.flash_port import FlashPort
from espwire.virtual.soc.idle import Activity
from espwire.virtual.soc.serial_ports import BIT_TIMES, USB_BAUD, Uart

ENCRYPTED_UNIT = 32
FAILED, POWER_ON = 1, 1
MASK = 0xFFFFFFFF


class Convention(NamedTuple):
    """A calling convention: registers of the first argument, the return address and the stack pointer; how many
    arguments are passed in registers; whether functions have windows of their own."""

    first: int
    back: int
    stack: int
    in_registers: int
    windows: bool = False


RISCV, CALL0 = Convention(10, 1, 2, 8), Convention(2, 0, 1, 6)
WINDOWED = CALL0._replace(windows=True)


class RomFunctions:
    """The functions, each with the first three arguments; the result is an int, or None for a void function."""

    def __init__(
        self,
        engine: Engine,
        services: Services,
        clock: Clock,
        uart: Uart,
        flash: FlashPort,
        activity: Activity,
        convention: Convention,
        reset: Callable[[], None],
    ) -> None:
        self._engine, self._services, self._clock = engine, services, clock
        self._uart, self._flash, self._activity = uart, flash, activity
        self._convention, self._reset_chip = convention, reset
        self._encrypting = False  # as the enable and disable functions have set it

    def make_hooks(self) -> dict[int, Hook]:
        """The functions by address, as far as the chip's data has their addresses."""
        addresses = self._services.chip.rom_addresses
        return {
            addresses[name]: self._hook(function)
            for name, function in FUNCTIONS.items()
            if addresses.get(name)
        }

    def attach(self, a: int, b: int, c: int) -> None:
        """spi_flash_attach."""
        self._services.registers.attached = True

    def ignore(self, a: int, b: int, c: int) -> int:
        """A function whose effect is not modelled."""
        return 0

    def transmit(self, a: int, b: int, c: int) -> int:
        """uart_tx_one_char."""
        self._uart.write_when_free(a)
        return 0

    def receive(self, a: int, b: int, c: int) -> int:
        """uart_rx_one_char: stores a byte at address ``a``; 1 if there is none."""
        if not self._uart.read_status() & 0xFF:
            return FAILED
        self._engine.memory.write(a, self._uart.read_fifo(), 1)
        return 0

    def flush(self, a: int, b: int, c: int) -> None:
        """uart_tx_flush."""
        self._uart.wait_until_sent()

    def reset_reason(self, a: int, b: int, c: int) -> int:
        """rtc_get_reset_reason."""
        return POWER_ON

    def delay(self, a: int, b: int, c: int) -> None:
        """ets_delay_us."""
        self._clock.wait_until(self._clock.now + a / 1e6)

    def cpu_frequency(self, a: int, b: int, c: int) -> int:
        """ets_get_cpu_frequency, in MHz."""
        return round(self._clock.hz / 1e6)

    def reset(self, a: int, b: int, c: int) -> None:
        """software_reset."""
        self._reset_chip()

    def enable_encryption(self, a: int, b: int, c: int) -> int:
        """esp_rom_spiflash_write_encrypted_enable."""
        self._encrypting = True
        return 0

    def disable_encryption(self, a: int, b: int, c: int) -> int:
        """esp_rom_spiflash_write_encrypted_disable."""
        self._encrypting = False
        return 0

    def write_encrypted(self, address: int, source: int, size: int) -> int:
        """Encrypts and programs units of 32 bytes. Without a key, or when disabled, data is written unchanged."""
        if address % ENCRYPTED_UNIT or size % ENCRYPTED_UNIT or source % 4:
            return FAILED
        clock, memory, flash = self._clock, self._engine.memory, self._services.flash
        encrypt = self._services.encrypt if self._encrypting else None
        for at in range(0, size, ENCRYPTED_UNIT):
            words = [memory.read(source + at + i, 4) for i in range(0, ENCRYPTED_UNIT, 4)]
            data = b"".join(word.to_bytes(4, "little") for word in words)
            if encrypt is not None:
                data = encrypt(data, address + at)
            transfer_s = (16 + 32 + 8 * ENCRYPTED_UNIT) / self._flash.hz
            clock.wait_until(max(flash.busy_until, clock.now + transfer_s))
            flash.execute(clock.now, WRITE_ENABLE)
            flash.execute(clock.now, PAGE_PROGRAM, address=address + at, data=data)
            clock.wait_until(flash.busy_until)
        return 0

    def print(self, template: int, b: int, c: int) -> int:
        """ets_printf, to the UART or the USB port; a line feed becomes carriage return and line feed."""
        memory = self._engine.memory
        text = format_text(template, self._arguments(), lambda address: memory.read(address, 1))
        self._write_text(text.replace(b"\r", b"").replace(b"\n", b"\r\n"))
        return len(text)

    def _arguments(self) -> Iterator[int]:
        registers, convention = self._engine.registers, self._convention
        yield from registers[convention.first + 1 : convention.first + convention.in_registers]
        for address in count(registers[convention.stack], 4):
            yield self._engine.memory.read(address, 4)

    def _write_text(self, text: bytes) -> None:
        """Send text and wait until it has room in the FIFO."""
        if self._services.usb:
            self._services.send(self._clock.now, text, USB_BAUD)
            self._clock.wait_until(self._clock.now + len(text) * BIT_TIMES / USB_BAUD)
        else:
            for byte in text:
                self._uart.write_when_free(byte)

    def _hook(self, function: Function) -> Hook:
        convention = self._convention

        def call(engine: Engine) -> None:
            self._activity.changed()
            registers, first = engine.registers, convention.first
            result = function(self, *registers[first : first + 3])
            if result is not None:
                registers[first] = result & MASK
            engine.pc = registers[convention.back]

        return partial(call_function, call) if convention.windows else call


Function = Callable[[RomFunctions, int, int, int], int | None]
FUNCTIONS: Mapping[str, Function] = {
    "SelectSpiFunction": RomFunctions.ignore,
    "spi_flash_attach": RomFunctions.attach,
    "esp_rom_spiflash_attach": RomFunctions.attach,
    "uart_tx_one_char": RomFunctions.transmit,
    "uart_tx_one_char2": RomFunctions.transmit,
    "uart_rx_one_char": RomFunctions.receive,
    "uart_tx_flush": RomFunctions.flush,
    "uart_tx_wait_idle": RomFunctions.flush,
    "ets_install_putc1": RomFunctions.ignore,
    "ets_install_uart_printf": RomFunctions.ignore,
    "ets_printf": RomFunctions.print,
    "rtc_get_reset_reason": RomFunctions.reset_reason,
    "ets_delay_us": RomFunctions.delay,
    "ets_get_cpu_frequency": RomFunctions.cpu_frequency,
    "ets_update_cpu_frequency": RomFunctions.ignore,
    "software_reset": RomFunctions.reset,
    "Cache_WriteBack_All": RomFunctions.ignore,
    "Cache_Invalidate_All": RomFunctions.ignore,
    "esp_rom_spiflash_write_encrypted_enable": RomFunctions.enable_encryption,
    "esp_rom_spiflash_write_encrypted_disable": RomFunctions.disable_encryption,
    "esp_rom_spiflash_write_encrypted": RomFunctions.write_encrypted,
}


LONGEST = 4096  # of one text, even if a program requests more
# flags, width, precision, size, kind: ``%-08.3lx``
CONVERSION = re.compile(rb"%([-0+ #]*)([0-9]*)(?:\.([0-9]*))?([lhz]*)(.?)", re.DOTALL)


def format_text(template: int, arguments: Iterator[int], read_byte: Callable[[int], int]) -> bytes:
    """Format the template.

    :param template: address of the zero-terminated template
    :param arguments: the 32-bit arguments
    :param read_byte: returns the byte at an address
    """
    text, out, at = _read_string(template, read_byte), bytearray(), 0
    while (match := CONVERSION.search(text, at)) and len(out) < LONGEST:
        out += text[at : match.start()] + _convert(match, arguments, read_byte)
        at = match.end()
    return bytes(out + text[at:])[:LONGEST]


def _convert(
    match: re.Match[bytes], arguments: Iterator[int], read_byte: Callable[[int], int]
) -> bytes:
    """The text of one conversion for the next argument."""
    flags, kind = match[1], match[5]
    width = _parse_limited(match[2])
    digits = None if match[3] is None else _parse_limited(match[3])
    if kind == b"%":
        return b"%"
    if kind == b"c":
        text = bytes((next(arguments) & 0xFF,))
    elif kind == b"s":
        address = next(arguments)
        text = (_read_string(address, read_byte) if address else b"(null)")[:digits]
    elif kind and kind in b"diuxXpo":
        words = 2 if match[4].count(b"l") > 1 else 1
        value = sum(next(arguments) << 32 * i for i in range(words))
        text = _format_number(value, 32 * words, kind, flags, width, digits)
    else:
        return match[0]
    return text.ljust(width) if b"-" in flags else text.rjust(width)


def _format_number(
    value: int, bits: int, kind: bytes, flags: bytes, width: int, digits: int | None
) -> bytes:
    sign = b""
    if kind in b"di" and value >> (bits - 1):
        value, sign = (1 << bits) - value, b"-"
    elif kind in b"di" and b"+" in flags:
        sign = b"+"
    base = {b"x": "x", b"X": "X", b"p": "x", b"o": "o"}.get(kind, "d")
    text = format(value, base).encode().rjust(digits or 0, b"0")
    if kind == b"p" or (b"#" in flags and kind in b"xX"):
        sign = b"0x"
    if b"0" in flags and b"-" not in flags and digits is None:
        text = text.rjust(width - len(sign), b"0")
    return sign + text


def _parse_limited(digits: bytes) -> int:
    return min(int(digits[:5] or b"0"), LONGEST)


def _read_string(address: int, read_byte: Callable[[int], int]) -> bytes:
    out = bytearray()
    while len(out) < LONGEST and (byte := read_byte(address + len(out) & 0xFFFFFFFF)):
        out.append(byte)
    return bytes(out)
