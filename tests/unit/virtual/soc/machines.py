"""A virtual chip whose program waits forever, so that a test can access registers in its place, at its pace."""

from __future__ import annotations

from tests.unit.virtual.soc.raw_host import RawHost

CHIPS = ["esp8266", "esp32", "esp32c3"]
ENTRY = {"esp8266": 0x40100000, "esp32": 0x40080000, "esp32c3": 0x40380000}
FOR_EVER = {"xtensa": bytes.fromhex("06ffff00"), "riscv": bytes.fromhex("01a00000")}  # 1: j 1b


class Machine:
    """``host`` is the other end of the wire; ``program`` runs on the engine."""

    def __init__(self, chip: str, options: str = "", *, attach: bool = True) -> None:
        self.host = RawHost(f"virtual:{chip}?stub=engine{options}", attach=attach)
        entry = ENTRY[chip]
        self.host.run(entry, (entry, FOR_EVER[self.host.chip.chip.cpu.architecture]))
        self.wait(0.01)
        self.program = self.host.program
        if attach:
            self.host.chip.registers.attached = (
                True  # as the ESP8266's program does it by the ROM's function
            )

    def load(self, address: int, size: int = 4) -> int:
        """Load a word, as an instruction does."""
        return self.program.engine.memory.read(address, size)

    def store(self, address: int, value: int, size: int = 4) -> None:
        self.program.engine.memory.write(address, value, size)

    def wait(self, seconds: float) -> None:
        """Let time pass at both ends."""
        self.host.text(seconds)
