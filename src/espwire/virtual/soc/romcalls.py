"""Functions of the ROM that programs in RAM call, carried out at once and in the time that they take.

How a caller passes its arguments is the processor's: RISC-V in a0 to a7, the ESP8266's ROM in a2 to a7 (call0), more
of them on the stack. The functions of later Xtensa ROMs begin with ``entry``: they take ``callx8`` only (arguments in
a10), and only with windows switched on.

The text that the ROM's ets_printf makes: integers, characters, strings and pointers. Pure.

The ROM's own printf knows fewer forms than C's and no floating point; an unknown one is printed as it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import count
from typing import TYPE_CHECKING, NamedTuple

from espwire.protocol.spi_flash import PAGE_PROGRAM, WRITE_ENABLE
from espwire.virtual.cpu.engine import Engine, Hook
from espwire.virtual.cpu.memory import CpuFault
from espwire.virtual.cpu.xtensa import PS, WINDOWED, WINDOWS_ON

if TYPE_CHECKING:
    from espwire.virtual.soc.program import EngineProgram


ENCRYPTED_UNIT = 32
FAILED, POWER_ON = 1, 1
MASK = 0xFFFFFFFF


class Convention(NamedTuple):
    """The registers of a function's first argument, of the address to go back to, and of the stack; how many arguments
    come in registers."""

    first: int
    back: int
    stack: int
    in_registers: int


RISCV, CALL0, WINDOWED_CALL = (
    Convention(10, 1, 2, 8),
    Convention(2, 0, 1, 6),
    Convention(10, 8, 1, 6),
)
Function = Callable[["EngineProgram", int, int, int], int | None]


def _attach(program: EngineProgram, a: int, b: int, c: int) -> None:
    program.services.registers.attached = True


def _nothing(program: EngineProgram, a: int, b: int, c: int) -> int:
    return 0


def _transmit(program: EngineProgram, a: int, b: int, c: int) -> int:
    program.uart.write_when_free(a)
    return 0


def _receive(program: EngineProgram, a: int, b: int, c: int) -> int:
    """One byte to where ``a`` points; 1 where none is there."""
    if not program.uart.read_status() & 0xFF:
        return FAILED
    program.engine.memory.write(a, program.uart.read_fifo(), 1)
    return 0


def _flush(program: EngineProgram, a: int, b: int, c: int) -> None:
    program.uart.wait_until_sent()


def _reset_reason(program: EngineProgram, a: int, b: int, c: int) -> int:
    return POWER_ON


def _delay(program: EngineProgram, a: int, b: int, c: int) -> None:
    program.clock.wait_until(program.clock.now + a / 1e6)


def _cpu_frequency(program: EngineProgram, a: int, b: int, c: int) -> int:
    return round(program.clock.hz / 1e6)


def _reset(program: EngineProgram, a: int, b: int, c: int) -> None:
    program.reset()


def _encrypt(program: EngineProgram, a: int, b: int, c: int) -> int:
    program.encrypting = True
    return 0


def _no_encrypt(program: EngineProgram, a: int, b: int, c: int) -> int:
    program.encrypting = False
    return 0


def _write_encrypted(program: EngineProgram, address: int, source: int, size: int) -> int:
    """In units of 32 bytes, each enciphered and programmed. Without a key, or switched off, data passes as it is."""
    if address % ENCRYPTED_UNIT or size % ENCRYPTED_UNIT or source % 4:
        return FAILED
    services, clock, memory = program.services, program.clock, program.engine.memory
    for at in range(0, size, ENCRYPTED_UNIT):
        words = [memory.read(source + at + i, 4) for i in range(0, ENCRYPTED_UNIT, 4)]
        data = b"".join(word.to_bytes(4, "little") for word in words)
        if services.encrypt is not None and program.encrypting:
            data = services.encrypt(address + at, data)
        flash = services.flash
        clock.wait_until(
            max(flash.busy_until, clock.now + (16 + 32 + 8 * ENCRYPTED_UNIT) / program.flash.hz)
        )
        flash.execute(clock.now, WRITE_ENABLE)
        flash.execute(clock.now, PAGE_PROGRAM, address=address + at, data=data)
        clock.wait_until(flash.busy_until)
    return 0


FUNCTIONS: Mapping[str, Function] = {
    "SelectSpiFunction": _nothing,
    "spi_flash_attach": _attach,
    "esp_rom_spiflash_attach": _attach,
    "uart_tx_one_char": _transmit,
    "uart_tx_one_char2": _transmit,
    "uart_rx_one_char": _receive,
    "uart_tx_flush": _flush,
    "uart_tx_wait_idle": _flush,
    "ets_install_putc1": _nothing,
    "ets_install_uart_printf": _nothing,
    "rtc_get_reset_reason": _reset_reason,
    "ets_delay_us": _delay,
    "ets_get_cpu_frequency": _cpu_frequency,
    "ets_update_cpu_frequency": _nothing,
    "software_reset": _reset,
    "esp_rom_spiflash_write_encrypted_enable": _encrypt,
    "esp_rom_spiflash_write_encrypted_disable": _no_encrypt,
    "esp_rom_spiflash_write_encrypted": _write_encrypted,
}


def make_hooks(
    program: EngineProgram, addresses: Mapping[str, int], convention: Convention
) -> dict[int, Hook]:
    """Address → what is done there, for the functions whose addresses are known."""
    known = {name: addresses[name] for name in FUNCTIONS if addresses.get(name)}
    hooks = {
        address: _hook(program, FUNCTIONS[name], convention) for name, address in known.items()
    }
    if printf := addresses.get("ets_printf"):
        hooks[printf] = _hook(program, partial(_print, convention), convention)
    return hooks


def _print(convention: Convention, program: EngineProgram, template: int, b: int, c: int) -> int:
    """ets_printf, to the UART or the USB port, a line feed as carriage return and line feed."""
    engine, memory = program.engine, program.engine.memory

    def arguments() -> Iterator[int]:
        yield from engine.registers[
            convention.first + 1 : convention.first + convention.in_registers
        ]
        for address in count(engine.registers[convention.stack], 4):
            yield memory.read(address, 4)

    text = format_text(template, arguments(), lambda address: memory.read(address, 1))
    program.write_text(text.replace(b"\r", b"").replace(b"\n", b"\r\n"))
    return len(text)


def _hook(program: EngineProgram, function: Function, convention: Convention) -> Hook:
    def call(engine: Engine) -> None:
        windowed = bool(engine.special.pop(WINDOWED, 0))
        if windowed is not (convention is WINDOWED_CALL) or (
            windowed and not engine.special.get(PS, 0) & WINDOWS_ON
        ):
            raise CpuFault(
                "illegal instruction: a call of the ROM by another convention than its own",
                engine.pc,
            )
        program.activity.changed()
        registers, first = engine.registers, convention.first
        result = function(program, *registers[first : first + 3])
        if result is not None:
            registers[first] = result & MASK
        engine.pc = registers[convention.back]

    return call


LONGEST = 4096  # of one text, whatever a program asks for
FLAGS = b"-0+ #"


def format_text(template: int, arguments: Iterator[int], read_byte: Callable[[int], int]) -> bytes:
    """Fill in the template.

    :param template: its address; it ends with a zero byte
    :param arguments: the words that follow it
    :param read_byte: gives the byte at an address
    """
    text, out, at = _read_string(template, read_byte), bytearray(), 0
    while (mark := text.find(b"%", at)) >= 0 and len(out) < LONGEST:
        out += text[at:mark]
        form = _Form(text, mark + 1)
        out += form.fill(arguments, read_byte)
        at = form.end
    return bytes(out + text[at:])[:LONGEST]


class _Form:
    """One conversion: ``%-08lx``."""

    def __init__(self, text: bytes, at: int) -> None:
        start = at
        while text[at : at + 1] and text[at] in FLAGS:
            at += 1
        self._flags = text[start:at]
        self._width, at = _read_number(text, at)
        self._digits: int | None = None
        if text[at : at + 1] == b".":
            self._digits, at = _read_number(text, at + 1)
        long = 0
        while text[at : at + 1] in (b"l", b"h", b"z"):
            long += text[at] == ord("l")
            at += 1
        self._words = 2 if long > 1 else 1
        self._kind = text[at : at + 1]
        self.end = at + 1 if self._kind else at
        self._whole = b"%" + text[start : self.end]

    def fill(self, arguments: Iterator[int], read_byte: Callable[[int], int]) -> bytes:
        """The text for the next argument."""
        kind = self._kind
        if kind == b"%":
            return b"%"
        if kind == b"c":
            return self._pad(bytes((next(arguments) & 0xFF,)))
        if kind == b"s":
            address = next(arguments)
            text = _read_string(address, read_byte) if address else b"(null)"
            return self._pad(text if self._digits is None else text[: self._digits])
        if kind and kind in b"diuxXpo":
            value = sum(next(arguments) << 32 * i for i in range(self._words))
            return self._number(value)
        return self._whole

    def _number(self, value: int) -> bytes:
        bits = 32 * self._words
        sign = b""
        if self._kind in b"di" and value >> (bits - 1):
            value, sign = (1 << bits) - value, b"-"
        elif self._kind in b"di" and b"+" in self._flags:
            sign = b"+"
        base = {b"x": "x", b"X": "X", b"p": "x", b"o": "o"}.get(self._kind, "d")
        digits = format(value, base).encode().rjust(min(self._digits or 0, LONGEST), b"0")
        if self._kind == b"p" or (b"#" in self._flags and self._kind in b"xX"):
            sign = b"0x"
        if b"0" in self._flags and b"-" not in self._flags and self._digits is None:
            digits = digits.rjust(self._width - len(sign), b"0")
        return self._pad(sign + digits)

    def _pad(self, text: bytes) -> bytes:
        return text.ljust(self._width) if b"-" in self._flags else text.rjust(self._width)


def _read_number(text: bytes, at: int) -> tuple[int, int]:
    end = at
    while text[end : end + 1].isdigit():
        end += 1
    return min(int(text[at:end][:5] or b"0"), LONGEST), end


def _read_string(address: int, read_byte: Callable[[int], int]) -> bytes:
    out = bytearray()
    while len(out) < LONGEST and (byte := read_byte(address + len(out) & 0xFFFFFFFF)):
        out.append(byte)
    return bytes(out)
