"""Selects what runs a program in the virtual chip's RAM, by the ``stub`` option of the chip.

``twin``: our stub by its Python model, the vendor's stub by its imitation, everything else on the CPU engine.
``engine``: everything instruction by instruction. ``vendor``: as ``twin``, but any program that is not ours is taken
for the vendor's stub. ``off``: nothing runs.

Importing this module loads the models and the engine, which takes a noticeable time.
"""

from __future__ import annotations

from espwire.virtual.programs import stub_model, vendor_stub
from espwire.virtual.programs.program import Program, Services
from espwire.virtual.registers import find_soc
from espwire.virtual.soc.program import EngineProgram

ENTRY_INSTRUCTION = 0x36  # first byte of Xtensa's ``entry``


def find_program(services: Services, entry: int) -> Program | None:
    """Start the program at ``entry``; None if nothing here can run it."""
    if services.mode == "off":
        return None
    if services.mode != "engine":
        model = stub_model.start_program(services, entry)
        program = model or vendor_stub.start_program(services, entry)
        if program is not None:
            return program
    if find_soc(services.chip) is None or _is_windowed(services, entry):
        return None
    return EngineProgram(services, entry)


def _is_windowed(services: Services, entry: int) -> bool:
    """Whether the program begins with ``entry``, as functions of the windowed ABI do."""
    cpu = services.chip.cpu
    first = services.registers.ram.read(entry, 1)[0]
    return cpu.architecture == "xtensa" and cpu.isa != "lx106" and first == ENTRY_INSTRUCTION
