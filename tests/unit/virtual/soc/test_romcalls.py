"""ROM functions on the engines: they can only be called by the convention of the chip's ROM."""

from __future__ import annotations

import pytest
from tests.unit.virtual.soc.machines import Machine

from espwire.secure.flash_encryption import encrypt_esp32
from espwire.virtual.cpu.memory import CpuFault
from espwire.virtual.cpu.xtensa_word import INCREMENT, PS, WINDOWS_ON

RETURN = 0x40080004
KEY = bytes(range(32))
PLAIN = bytes(range(32, 64))
SOURCE = 0x3FFC0000


class Caller(Machine):
    """Calls ROM functions as an instruction does."""

    def call(self, name, *arguments, windows=2, ps=WINDOWS_ON):
        """``windows``: 1 to 3 as ``call4`` to ``call12`` do, 0 as ``call0``."""
        engine = self.program.engine
        back = 4 * windows
        engine.registers[back + 2 : back + 2 + len(arguments)] = arguments
        engine.registers[back] = RETURN & 0x3FFFFFFF | windows << 30 if windows else RETURN
        engine.special[PS] = ps | windows << INCREMENT
        address = self.host.chip.chip.rom_addresses[name]
        engine.pc = address
        engine.hooks[address](engine)
        assert engine.pc == RETURN
        return engine.registers[back + 2]


def test_functions_of_a_windowed_rom_are_not_called_without_windows():
    machine = Caller("esp32")
    with pytest.raises(CpuFault, match="called without"):
        machine.call("ets_get_cpu_frequency", windows=0)
    with pytest.raises(CpuFault, match="without register windows"):
        machine.call("ets_get_cpu_frequency", ps=0x2F)
    for windows in (1, 2, 3):
        assert machine.call("ets_get_cpu_frequency", windows=windows) == 40


def test_functions_of_the_esp8266_are_called_plainly():
    machine = Caller("esp8266")
    assert machine.call("ets_get_cpu_frequency", windows=0) == 52


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
