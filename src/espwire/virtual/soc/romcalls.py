"""Functions of the ROM that programs in RAM call, carried out at once and in the time that they take.

How a caller passes its arguments is the processor's: call0 code of Xtensa in a2, ``callx8`` in a10, RISC-V in a0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from espwire.virtual.cpu.engine import Engine, Hook
from espwire.virtual.cpu.xtensa import WINDOWED

if TYPE_CHECKING:
    from espwire.virtual.soc.program import EngineProgram

WRITE_ENABLE, PROGRAM = 0x06, 0x02
ENCRYPTED_UNIT = 32
FAILED = 1
MASK = 0xFFFFFFFF

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


def _delay(program: EngineProgram, a: int, b: int, c: int) -> None:
    program.clock.wait_until(program.clock.now + a / 1e6)


def _cpu_frequency(program: EngineProgram, a: int, b: int, c: int) -> int:
    return round(program.clock.hz / 1e6)


def _reset(program: EngineProgram, a: int, b: int, c: int) -> None:
    program.reset()


def _write_encrypted(program: EngineProgram, address: int, source: int, size: int) -> int:
    """In units of 32 bytes, each enciphered and programmed. Without a key the chip's engine lets data pass."""
    if address % ENCRYPTED_UNIT or size % ENCRYPTED_UNIT or source % 4:
        return FAILED
    services, clock, memory = program.services, program.clock, program.engine.memory
    for at in range(0, size, ENCRYPTED_UNIT):
        words = [memory.read(source + at + i, 4) for i in range(0, ENCRYPTED_UNIT, 4)]
        data = b"".join(word.to_bytes(4, "little") for word in words)
        if services.encrypt is not None:
            data = services.encrypt(address + at, data)
        flash = services.flash
        clock.wait_until(max(flash.busy_until, clock.now + (16 + 32 + 8 * ENCRYPTED_UNIT) / program.flash.hz))
        flash.execute(clock.now, WRITE_ENABLE)
        flash.execute(clock.now, PROGRAM, address=address + at, data=data)
        clock.wait_until(flash.busy_until)
    return 0


FUNCTIONS: Mapping[str, Function] = {
    "SelectSpiFunction": _nothing,
    "spi_flash_attach": _attach,
    "esp_rom_spiflash_attach": _attach,
    "uart_tx_one_char": _transmit,
    "uart_tx_one_char2": _transmit,
    "uart_rx_one_char": _receive,
    "ets_delay_us": _delay,
    "ets_get_cpu_frequency": _cpu_frequency,
    "ets_update_cpu_frequency": _nothing,
    "software_reset": _reset,
    "esp_rom_spiflash_write_encrypted_enable": _nothing,
    "esp_rom_spiflash_write_encrypted_disable": _nothing,
    "esp_rom_spiflash_write_encrypted": _write_encrypted,
}


def make_hooks(program: EngineProgram, addresses: Mapping[str, int], *, riscv: bool) -> dict[int, Hook]:
    """Address → what is done there, for the functions whose addresses are known."""
    known = {name: addresses[name] for name in FUNCTIONS if addresses.get(name)}
    return {address: _hook(program, FUNCTIONS[name], riscv=riscv) for name, address in known.items()}


def _hook(program: EngineProgram, function: Function, *, riscv: bool) -> Hook:
    def call(engine: Engine) -> None:
        windowed = not riscv and bool(engine.special.pop(WINDOWED, 0))
        first, back = (10, 1) if riscv else (10, 8) if windowed else (2, 0)
        program.activity.changed()
        registers = engine.registers
        result = function(program, *registers[first : first + 3])
        if result is not None:
            registers[first] = result & MASK
        engine.pc = registers[back]

    return call
