"""A whole chip made of software, as a Machine: loader, boot, registers, flash, watchdogs, faults. No port, no clock.

What runs is decided by :class:`State`; bytes that come while the loader is busy wait in the receive path and are lost
when that is full. Work of the loader is a generator, so a reset, a watchdog or a loss of power can cut it short.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

from espwire.chips.model import Chip
from espwire.protocol.commands import Sync
from espwire.protocol.dialect import BaudRule
from espwire.protocol.opcodes import Op
from espwire.sizes import extract
from espwire.virtual.board import CIRCUITS, Front
from espwire.virtual.boot import (
    BOOT_S,
    FAULT_CAUSES,
    Reason,
    find_boot_text,
    find_fault,
    panic_text,
    read_straps,
    refusal_text,
)
from espwire.virtual.efuses import (
    ChipConfig,
    find_divider,
    find_rom_clock,
    fuse_registers,
    security_info,
)
from espwire.virtual.faults import FIFO_BYTES, Faults
from espwire.virtual.programs.runner import ProgramRunner
from espwire.virtual.registers import Registers
from espwire.virtual.rom import Rom, RomFlash, RomReceiver, Work
from espwire.virtual.scheduler import EventQueue
from espwire.virtual.spi import SpiController

if TYPE_CHECKING:
    from espwire.virtual.boot import Straps
    from espwire.virtual.config import VirtualOptions
    from espwire.virtual.nor_flash import NorFlash
    from espwire.virtual.programs.registry import Ending, Program

RECEIVE_BYTES = (
    FIFO_BYTES + 0x2000
)  # FIFO and the buffer that the ROM's interrupt fills; a RAM block must fit in
MAX_AUTOBAUD = 3_000_000
SYNC_MARK = Sync().body()[:4]
IMAGE_MAGIC = 0xE9
APP_LOG_S = 1.0
POWER_UP_S = 0.05


class State(Enum):
    """What the chip is doing."""

    RESET = "held in reset"
    BOOTING = "booting"
    LOADER = "in the loader"
    APP = "running the application"
    INTERPRETER = "in the ROM's interpreter"
    PROGRAM = "running a program in RAM"
    GONE = "running something silent, or crashed"


class VirtualChip:
    """One chip. ``flash``, ``registers``, ``rom`` and ``faults`` are open to tests; ``overruns`` counts lost bytes."""

    def __init__(
        self,
        chip: Chip,
        config: ChipConfig,
        flash: NorFlash,
        options: VirtualOptions,
        faults: Faults,
    ) -> None:
        self.chip, self.config, self.flash, self.faults, self.options = (
            chip,
            config,
            flash,
            faults,
            options,
        )
        self.spi = SpiController(chip, flash)
        words = fuse_registers(chip, config)
        self.registers = Registers(
            chip, words=words, spi=self.spi, flash=flash, revision=config.revision
        )
        self.rom = Rom(
            chip, self.registers, RomFlash(flash, long_addresses=chip.flash.address_32bit), self
        )
        self.rom.security_info = security_info(chip, config)
        self.rom.secure_download = config.secure_download
        self.text = find_boot_text(chip)
        self.overruns = 0
        self.boots = 0
        self.note: Callable[[str], None] = lambda text: (
            None
        )  # for whoever runs the chip, not for its client
        self._agenda = EventQueue()
        self.front = Front(
            CIRCUITS[options.circuit or ("transistor" if options.kind == "uart" else "usb-jtag")](),
            self._agenda,
            rc=options.rc,
            hold=self._hold,
            start=lambda: self._restart(Reason.POWER_ON),
            usb_reset=lambda: self._restart(Reason.USB),
        )
        self._watched: float | None = None
        self._out: list[tuple[float, bytes]] = []
        self._sent_until = 0.0
        self.slot = ProgramRunner(self, self._agenda, self._end)
        self._clear()
        self._enter(State.LOADER if options.boot == "download" else State.APP)

    # --- what a Machine is ---

    @property
    def baud(self) -> int | None:
        """The rate of the UART; None: the loader will measure the next SYNC."""
        return self._baud if self.program is None else self.program.baud

    @property
    def program(self) -> Program | None:
        """The program in RAM that runs instead of the loader."""
        return self.slot.program

    @property
    def text_baud(self) -> int:
        """The rate of text before anything was measured: the ESP8266 divides for 40 MHz, whatever is fitted."""
        slow = self.chip.uart.boot_log_baud_26mhz
        return (
            slow if slow is not None and self.config.crystal_mhz == 26 else self.chip.uart.rom_baud
        )

    @property
    def now(self) -> float:
        """The chip's time."""
        return self._agenda.now

    @property
    def busy(self) -> bool:
        """Whether the loader or a stub works on a request, or the chip is on its way to the loader."""
        program = self.program
        works = program.busy if program is not None else self._work is not None
        return works or self.state is State.BOOTING or bool(self._out)

    @property
    def runs_freely(self) -> bool:
        """Whether a program runs that may send without being asked."""
        return self.program is not None and self.program.runs_freely

    def receive(self, t: float, data: bytes, rate: int | None = None) -> None:
        """``data`` has arrived completely at ``t``; while a program runs, its first bit arrives, at ``rate``."""
        self.advance(t)
        if self.program is not None:
            self.program.receive(t, data, rate or self.program.baud)
        elif self.state is State.INTERPRETER:
            self.send(data.replace(b"\0", b"").replace(b"\n", b"\r\nHow?\r\n>"))
        elif self.state is State.BOOTING or self._work is not None:
            limit = RECEIVE_BYTES if self._work is not None else FIFO_BYTES
            room = max(0, limit - len(self._backlog))
            self._backlog += data[:room]
            self.overruns += max(0, len(data) - room)
        elif self.state is State.LOADER:
            self._feed(data)

    def lines(self, t: float, *, dtr: bool, rts: bool) -> None:
        """The host's modem lines are so from ``t`` on; True means asserted."""
        self.advance(t)
        self.front.lines(dtr=dtr, rts=rts)

    def press(self, t: float, *, boot: bool | None = None, reset: bool | None = None) -> None:
        """Somebody's finger at ``t``: True presses a button, False lets it go, None leaves it."""
        self.advance(t)
        self.front.buttons(boot=boot, reset=reset)

    def autobaud(self, rate: int) -> None:
        """A SYNC comes at ``rate``: what the loader will measure. Rates above 3 Mbaud it does not follow."""
        if rate <= MAX_AUTOBAUD:
            self._heard_rate = rate

    def run_until(self, t: float) -> list[tuple[float, bytes]]:
        """Do all that is due up to ``t``; what was sent, and when its first byte left."""
        self.advance(t)
        out, self._out = self._out, []
        return out

    def next_event(self) -> float | None:
        """When something is due next; None: nothing until bytes or lines come."""
        if self._out:
            return self._out[0][0]
        return self.slot.next_event()

    def advance(self, t: float) -> None:
        """Let the clock reach ``t``."""
        self.slot.advance(t)
        if self.program is not None:  # it may have started a watchdog
            self._watch()

    def power_loss(self, t: float) -> None:
        """The supply fails at ``t`` and comes back: RAM is lost, the flash is left in the middle of what it did."""
        self.advance(t)
        self.flash.power_loss(t)
        self.registers.ram.clear()
        self._restart(Reason.POWER_ON, wait=POWER_UP_S)

    def reset(self, t: float) -> None:
        """A watchdog resets the chip at ``t``."""
        self.advance(t)
        self._restart(Reason.WATCHDOG)

    # --- what the loader can do to the chip (rom.Board) ---

    def send(self, data: bytes, t: float | None = None) -> None:
        """Put bytes into the transmitter, now or for ``t``: a program's, which has its own rate and transmitter."""
        self._out.append((self.now if t is None else t, data))
        sent = max(self.now, self._sent_until) + self.sending_time(len(data))
        self._sent_until = sent if t is None else self._sent_until

    def sending_time(self, size: int) -> float:
        """Seconds that ``size`` bytes take to leave."""
        return size * 10 / (self._baud or self.text_baud)

    def change_baud(self, number: int) -> None:
        """Run the UART as CHANGE_BAUDRATE's number asks, by the clock that is really there.

        The ROM divides the clock that it believes in: its own measurement on the ESP32, a fixed or strapped crystal on
        others. A number or a measurement of 0 leaves a dead UART.
        """
        crystal = self.config.crystal_mhz * 1e6
        believed = crystal
        if self.chip.rom.baud is BaudRule.ESP32_CALIBRATION:
            believed = find_rom_clock(self.chip, self.config) or 0.0
        elif self.chip.rom.baud is BaudRule.ASSUMES_40_MHZ:
            believed = 40e6
        elif self.chip.crystal.rom_setting is not None:
            at = self.chip.crystal.rom_setting
            word = self.registers.read(self.now, at.address) or 0
            believed = extract(word, at.shift, at.bits) * 1e6 or crystal
        self._set_baud(round(number * crystal / believed) if believed else 0)

    def restart(self) -> None:
        """Software reset."""
        self._restart(Reason.SOFTWARE)

    def run(self, entry: int | None, uploads: tuple[tuple[int, int], ...] = ()) -> None:
        """Leave the loader for a program in RAM, or for what is in flash; ``uploads``: what lies in RAM where."""
        if entry is not None:
            self._start_program(entry, uploads)
        elif self.has_app:
            self._enter(State.APP)
        else:
            self.send(self.text.program_end.encode())
            if self.text.interpreter:
                self._enter(State.INTERPRETER)
            else:
                self.crash("Instruction access fault", 0)

    def crash(self, fault: str, address: int) -> None:
        """A bus fault: the loader is gone. RISC-V ROMs print a panic text, the others say nothing."""
        if self.chip.cpu.architecture == "riscv":
            self.send(panic_text(fault, address, FAULT_CAUSES[fault]))
        self._enter(State.GONE)

    def hang(self) -> None:
        """An endless loop: the loader is gone, without a word."""
        self._enter(State.GONE)

    # --- inside ---

    @property
    def has_app(self) -> bool:
        """Whether the flash holds the start of an image where the ROM looks for one."""
        start = self.chip.flash.bootloader_offset
        return start < self.flash.part.size and self.flash.contents[start] == IMAGE_MAGIC

    def _clear(self) -> None:
        self.slot.clear()
        self._work: Work | None = None
        self._backlog = bytearray()
        self._frames: deque[bytes] = deque()
        self._receiver = RomReceiver()
        self._baud: int | None = None
        self._heard_rate = self.chip.uart.rom_baud
        self.registers.divider = self.config.divider or find_divider(
            self.chip, self.config.crystal_mhz, self.chip.uart.rom_baud
        )

    def _start_program(self, entry: int, uploads: tuple[tuple[int, int], ...]) -> None:
        received = bytes(self._backlog)
        self._backlog.clear()
        if self.slot.start(
            entry, uploads, self._baud or self.text_baud, self._sent_until, received
        ):
            self.state, self._work = State.PROGRAM, None
        else:
            self._refuse(entry)

    def _refuse(self, entry: int) -> None:
        """Print that nothing here can run the program: what a real chip would do is not known."""
        if self.options.stub != "off":
            text = refusal_text(self.chip, entry)
            self.send(text)
            self.note(text.decode().strip())
        self._enter(State.GONE)

    def _end(self, ended: Ending) -> None:
        """The program does not go on."""
        if ended.how in ("crash", "refused"):
            self._baud = self.baud
        if ended.how == "refused":
            self._refuse(ended.address)
        elif ended.how == "crash":
            self.crash(find_fault(ended.fault), ended.address)
        else:
            self._restart(Reason.SOFTWARE if ended.how == "reset" else Reason.WATCHDOG)

    def _set_baud(self, rate: int) -> None:
        self._baud = rate
        if rate and self.config.divider is None:
            self.registers.divider = find_divider(self.chip, self.config.crystal_mhz, rate)

    def _hold(self) -> None:
        self._clear_all()
        self.state = State.RESET

    def _clear_all(self) -> None:
        self._clear()
        self.rom.restart()
        self.registers.restart()
        self.spi.reset()
        self.registers.watchdogs.restart(self.now, running=False)

    def _restart(self, reason: Reason, *, wait: float = 0.0) -> None:
        """From reset to the first instruction of the ROM; the straps are sampled now."""
        force = self.chip.reset.force_download
        word = self.registers.read(self.now, force.address) if force is not None else None
        forced = (
            force is not None
            and word is not None
            and bool(word >> force.bit & 1)
            and reason is Reason.SOFTWARE
        )
        held = not self.front.driven and self.options.boot == "download"
        straps = read_straps(
            self.chip, self.text, boot_low=held or self.front.boot_low, pins=self.options.pins
        )
        if forced:
            straps = straps._replace(mode="download")
        self._clear_all()
        self.state = State.BOOTING
        self.boots = boot = self.boots + 1
        self._agenda.at(
            self.now + wait + BOOT_S,
            lambda: self._boot(reason, straps) if boot == self.boots else None,
        )

    def _boot(self, reason: Reason, straps: Straps) -> None:
        if self.state is not State.BOOTING:
            return
        if self.chip.strapping.address is not None:
            self.registers.words[self.chip.strapping.address] = straps.value
        if straps.mode == "download":
            self.send(self.text.download(reason, self.options.strap or straps.value))
            self._enter(State.LOADER)
            self._drain()
            return
        app = straps.mode == "app"
        self.send(
            self.text.app(reason, straps.value) if app else self.text.wrong(reason, straps.value)
        )
        self._backlog.clear()
        self._enter(State.APP if app else State.GONE)

    def _enter(self, state: State) -> None:
        self.state = state
        self.slot.clear()
        self._work = None
        watched = (
            state is State.LOADER
            and self.options.kind == "usb-jtag"
            and not self.config.secure_download
        )
        self.registers.watchdogs.restart(self.now, running=watched)
        self._watch()
        if state is State.APP:
            boot = self.boots
            self._agenda.at(self.now + APP_LOG_S, lambda: self._log(boot))

    def _log(self, boot: int) -> None:
        """The application's own log, or the ROM's complaint when there is none."""
        if self.state is not State.APP or boot != self.boots:
            return
        start = self.chip.flash.bootloader_offset
        head = bytes(self.flash.contents[start : start + 4])
        said = (
            f"I ({self.now * 1000:.0f}) app: running"
            if self.has_app
            else f"invalid header: 0x{head[::-1].hex()}"
        )
        self.send(said.encode() + b"\r\n")
        self._agenda.at(self.now + APP_LOG_S, lambda: self._log(boot))

    def _watch(self) -> None:
        """Have the watchdogs' deadline looked at when it comes."""
        due = self.registers.watchdogs.deadline
        if due is not None and due != self._watched:
            self._watched = due
            self._agenda.at(due, self._bite)

    def _bite(self) -> None:
        dogs = self.registers.watchdogs
        due, self._watched = dogs.deadline, None
        if due is None or due > self.now:
            self._watch()
        else:
            self._restart(Reason.WATCHDOG if dogs.rtc_is_next else Reason.SUPER_WATCHDOG)

    def _feed(self, data: bytes) -> None:
        self._frames.extend(self._receiver.feed(data))
        self._next()

    def _drain(self) -> None:
        """Take what waited in the receive path."""
        if self._backlog and self._work is None and self.state is State.LOADER:
            data = bytes(self._backlog)
            self._backlog.clear()
            self._feed(data)

    def _next(self) -> None:
        while self._frames and self._work is None and self.state is State.LOADER:
            frame = self._frames.popleft()
            if self._baud is None:
                if frame[1:2] != bytes((Op.SYNC,)) or SYNC_MARK not in frame:
                    continue
                self._set_baud(self._heard_rate)
            fault = self.faults.command(self.now)
            if fault is not None:
                kind, wait = fault
                hit = self.power_loss if kind == "power" else self.reset
                self._agenda.at(self.now + wait, lambda hit=hit: hit(self.now))  # type: ignore[misc]
            self._work = work = self.rom.handle(self.now, frame)
            self._go_on(work, start=True)

    def _go_on(self, work: Work, *, start: bool = False) -> None:
        if self._work is not work:
            return  # cut short by a reset
        try:
            due = next(work) if start else work.send(self.now)
            while due <= self.now and self._work is work:
                due = work.send(self.now)
        except StopIteration:
            if self._work is work:
                self._work = None
            self._watch()
            if not start:
                self._next()
                self._drain()
            return
        if self._work is work:
            self._agenda.at(due, lambda: self._go_on(work))
