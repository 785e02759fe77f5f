"""ROM functions on the engines: they can only be called by the convention of the chip's ROM."""

from __future__ import annotations

import pytest
from tests.unit.virtual.soc.machines import Machine

from espwire.secure.flash_encryption import encrypt_esp32
from espwire.virtual.cpu.memory import CpuFault
from espwire.virtual.cpu.xtensa import PS, WINDOWED, WINDOWS_ON

RETURN = 0x40080004
KEY = bytes(range(32))
PLAIN = bytes(range(32, 64))
SOURCE = 0x3FFC0000


class Caller(Machine):
    """Calls ROM functions as an instruction does."""

    def call(self, name, *arguments, windowed=True, ps=WINDOWS_ON):
        engine = self.program.engine
        first, back = (10, 8) if windowed else (2, 0)
        engine.registers[first : first + len(arguments)] = arguments
        engine.registers[back] = RETURN
        engine.special[PS] = ps
        if windowed:
            engine.special[WINDOWED] = 1
        address = self.host.chip.chip.rom_addresses[name]
        engine.pc = address
        engine.hooks[address](engine)
        assert engine.pc == RETURN
        return engine.registers[first]


def test_functions_of_a_windowed_rom_are_not_called_without_windows():
    machine = Caller("esp32")
    with pytest.raises(CpuFault, match="another convention"):
        machine.call("ets_get_cpu_frequency", windowed=False)
    with pytest.raises(CpuFault, match="another convention"):
        machine.call("ets_get_cpu_frequency", ps=0x2F)
    assert machine.call("ets_get_cpu_frequency") == 40


def test_functions_of_the_esp8266_are_called_plainly():
    machine = Caller("esp8266")
    assert machine.call("ets_get_cpu_frequency", windowed=False) == 52


def encrypted(machine, address):
    """Flash contents after the ROM's function has encrypted and written PLAIN."""
    machine.host.chip.registers.ram.write(SOURCE, PLAIN)
    assert machine.call("esp_rom_spiflash_write_encrypted", address, SOURCE, 32) == 0
    return bytes(machine.host.chip.flash.contents[address : address + 32])


def test_the_rom_encrypts_only_while_that_is_switched_on():
    pytest.importorskip("cryptography")
    machine = Caller("esp32", f"&flash-key={KEY.hex()}&profile=fast")
    assert encrypted(machine, 0x1000) == PLAIN
    machine.call("esp_rom_spiflash_write_encrypted_enable")
    assert encrypted(machine, 0x2000) == encrypt_esp32(PLAIN, 0x2000, KEY)
    machine.call("esp_rom_spiflash_write_encrypted_disable")
    assert encrypted(machine, 0x3000) == PLAIN


@pytest.mark.parametrize(("address", "source", "size"), [(16, 0, 32), (32, 0, 16), (32, 2, 32)])
def test_the_rom_encrypts_whole_units_only(address, source, size):
    machine = Caller("esp32")
    assert machine.call("esp_rom_spiflash_write_encrypted", address, SOURCE + source, size) == 1
