"""The first stage of our stub, imitated: RAM and the rate, then whatever it was told to start. Mirrors ``first.c``.

It takes the stub over a faster wire where the ROM cannot change its rate. On the engine that takes a second of ours.
"""

from __future__ import annotations

from espwire.device.stub_image import load_stub, stub_chips
from espwire.protocol.commands import HEADER
from espwire.protocol.opcodes import Op
from espwire.protocol.replies import BAD_LENGTH, UNKNOWN_COMMAND
from espwire.virtual.programs.cpu_model import CpuModel, RamCommands, Ring, Steps, lies_in_ram
from espwire.virtual.programs.cycle_costs import PACES
from espwire.virtual.programs.registry import Services
from espwire.virtual.programs.stub_model import QUEUE, RING_BYTES, find_rom_hz

# as the engine counts them
START_CYCLES = 75_000  # it clears 36 KiB
RAM_BYTE_CYCLES = 84
LAST_BYTE_CYCLES = 250_000  # to wait for a last byte to leave
LENGTHS: dict[int, int] = {Op.SYNC: 36, Op.MEM_BEGIN: 16, Op.MEM_END: 8, Op.CHANGE_BAUDRATE: 8}


def start_program(services: Services, entry: int) -> FirstStage | None:
    """It, if that is what lies in RAM and starts at ``entry``; else None."""
    chip = services.chip
    image = load_stub(chip.id).first if chip.id in stub_chips() else None
    if image is None or entry != image.entry or chip.id not in PACES:
        return None
    return FirstStage(services) if lies_in_ram(services, image.segments) else None


class FirstStage(CpuModel):
    """One run of it."""

    def __init__(self, services: Services) -> None:
        pace, ring = PACES[services.chip.id], Ring(RING_BYTES, QUEUE)
        self._pace = pace
        hz = int(find_rom_hz(services))
        super().__init__(
            services, hz=hz, receive_cycles=pace.receive_byte, send_cycles=pace.send_byte, ring=ring
        )
        self.last_byte_s = LAST_BYTE_CYCLES / hz
        self.ram = RamCommands(self, RAM_BYTE_CYCLES, self._no_flash)

    def main(self) -> Steps:
        """Say hello, serve for ever."""
        self.owe(START_CYCLES)
        yield from self.serve(self._pace.command, self._handle)

    def _handle(self, frame: bytes) -> Steps:
        op, size = frame[1], len(frame) - HEADER.size
        if frame[0]:
            return  # no request
        if size != int.from_bytes(frame[2:4], "little") or LENGTHS.get(op, size) != size:
            yield from self.reply(op, status=BAD_LENGTH)
        elif op == Op.SYNC:
            yield from self.answer_sync(frame, op)
        elif op == Op.CHANGE_BAUDRATE:
            yield from self.change_baud(frame, op)
        elif op == Op.MEM_BEGIN:
            yield from self.ram.begin(frame)
        elif op == Op.MEM_DATA:
            yield from self.ram.data(frame)
        elif op == Op.MEM_END:
            yield from self.ram.end(frame)
        else:
            yield from self.reply(op, status=UNKNOWN_COMMAND)

    def _no_flash(self) -> Steps:
        yield from self.settle()
