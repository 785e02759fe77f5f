"""A whole virtual chip: ROM loader, boot, registers, flash, watchdogs, faults, on its own event queue.

``State`` is what the chip is doing. Bytes that arrive while the loader is busy wait in the receive path and are lost
when that is full. ``scheduler.py`` describes how time passes.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import TYPE_CHECKING

from espwire.chips.model import Chip
from espwire.protocol.commands import Sync
from espwire.protocol.dialect import BaudRule
from espwire.protocol.opcodes import Op
from espwire.sizes import extract
from espwire.virtual.board import CIRCUITS, Board
from espwire.virtual.boot import (
    BOOT_S,
    FAULT_CAUSES,
    Reason,
    Straps,
    find_boot_text,
    find_fault,
    panic_text,
    read_straps,
    refusal_text,
    rom_crash_text,
)
from espwire.virtual.config import VirtualOptions
from espwire.virtual.efuses import (
    DEFAULT_FLASH_KEY,
    ChipConfig,
    find_divider,
    find_rom_clock,
    fuse_registers,
    security_info,
)
from espwire.virtual.faults import FIFO_BYTES, Faults
from espwire.virtual.fuse_file import (
    build_store,
    find_controller,
    find_flash_key,
    is_encrypting,
    is_set,
    open_words,
    read_words,
)
from espwire.virtual.nor_flash import NorFlash
from espwire.virtual.programs.program import Ending, Program, Services
from espwire.virtual.programs.runner import ProgramRunner
from espwire.virtual.registers import LazyFuses, Registers
from espwire.virtual.rom import Rom, RomFlash, RomReceiver, Work
from espwire.virtual.scheduler import EventQueue
from espwire.virtual.soc.mask_rom import LoadedRom
from espwire.virtual.spi import SpiController

if TYPE_CHECKING:
    from espwire.efuse.store import VirtualStore
    from espwire.virtual.fuse_controller import FuseController
    from espwire.virtual.secure_start import Start

RECEIVE_BYTES = (
    FIFO_BYTES + 0x2000
)  # FIFO and the buffer of the ROM's interrupt; a RAM block must fit
MAX_AUTOBAUD = 3_000_000
SYNC_MARK = Sync().body()[:4]
IMAGE_MAGIC = 0xE9
APP_LOG_S = 1.0
POWER_UP_S = 0.05
UNKNOWN_ROM = "this image of the {}'s ROM is unknown: what follows may be true of this image only"


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
    """One chip. ``flash``, ``registers``, ``rom`` and ``faults`` are for tests; ``overruns`` counts lost bytes.

    ``mask_rom``: the chip's own ROM, which runs in download mode instead of ``rom``, the model of it.
    ``fuses``: its eFuses; None: as ``config`` describes them.
    """

    def __init__(
        self,
        chip: Chip,
        config: ChipConfig,
        flash: NorFlash,
        options: VirtualOptions,
        faults: Faults,
        mask_rom: LoadedRom | None = None,
        fuses: VirtualStore | None = None,
    ) -> None:
        self.mask_rom = mask_rom
        self.chip, self.config, self.flash, self.faults, self.options = (
            chip,
            config,
            flash,
            faults,
            options,
        )
        self.spi = SpiController(chip, flash)
        self.registers = Registers(
            chip,
            words=fuse_registers(chip, config) | (read_words(fuses) if fuses is not None else {}),
            spi=self.spi,
            flash=flash,
            revision=config.revision,
        )
        self.fuses = fuses
        self.on_fuses: Callable[[], None] = lambda: None  # the eFuses were loaded
        self.registers.fuses = LazyFuses(find_controller(chip), self._build_fuses)
        self.rom = Rom(chip, self.registers, RomFlash(flash), self)
        self.rom.security_info = security_info(chip, config)
        self.rom.secure_download = config.secure_download
        self.rom.mac_digest = hashlib.sha256((config.mac or b"")[::-1]).digest()
        self.text = find_boot_text(chip)
        self.overruns = 0
        self._is_proven = False  # the firmware was checked when it started
        self.boots = 0
        self.note: Callable[[str], None] = lambda text: None  # for the user who runs the chip
        self._queue = EventQueue()
        usual = "transistor" if options.kind == "uart" else "usb-jtag"
        self.board = Board(
            CIRCUITS[options.circuit or usual],
            self._queue,
            rc=options.rc,
            hold=self._hold,
            start=lambda: self._restart(Reason.POWER_ON),
            usb_reset=lambda: self._restart(Reason.USB),
        )
        self._watched: float | None = None  # the watchdog deadline in the queue
        self._out: list[tuple[float, bytes]] = []
        self._sent_until = 0.0
        services = Services(
            chip=chip,
            config=config,
            flash=flash,
            spi=self.spi,
            registers=self.registers,
            mode=options.stub,
            usb=options.kind != "uart",
            send=lambda t, data, baud: self.send(data, t),
            lost=self._count_lost,
        )
        self.runner = ProgramRunner(services, self._queue, self._on_program_end)
        self._clear()
        if mask_rom is not None and options.boot == "download":
            self._start_rom(mask_rom, Reason.POWER_ON)
        elif options.boot == "download":
            self._enter(State.LOADER)
        else:
            self._start_app()

    @property
    def warning(self) -> str:
        """What a user should know about this chip."""
        rom = self.mask_rom
        return "" if rom is None or rom.name else UNKNOWN_ROM.format(self.chip.name)

    # --- for the wire ---

    @property
    def baud(self) -> int | None:
        """Baud rate of the UART; None while the loader waits to measure it from the next SYNC."""
        return self._baud if self.program is None else self.program.baud

    @property
    def program(self) -> Program | None:
        """The program in RAM that runs instead of the loader."""
        return self.runner.program

    @property
    def text_baud(self) -> int:
        """Baud rate of text before anything was measured: the ESP8266 divides for 40 MHz, whatever its crystal."""
        slow = self.chip.uart.boot_log_baud_26mhz
        return (
            slow if slow is not None and self.config.crystal_mhz == 26 else self.chip.uart.rom_baud
        )

    @property
    def now(self) -> float:
        """The chip's time."""
        return self._queue.now

    @property
    def busy(self) -> bool:
        """Whether the loader or a stub is working on a request, or the chip is booting."""
        program = self.program
        working = program.busy if program is not None else self._work is not None
        return working or self.state is State.BOOTING or bool(self._out)

    @property
    def runs_freely(self) -> bool:
        """Whether a program is running that may send without a request."""
        return self.program is not None and self.program.runs_freely

    def receive(self, t: float, data: bytes, rate: int | None = None) -> None:
        """``data`` has arrived completely at ``t``; if a program is running, its first bit arrives at ``t``, at ``rate``."""
        self.advance(t)
        if self.program is not None:
            self.program.receive(t, data, rate or self.program.baud or self.text_baud)
        elif self.state is State.INTERPRETER:
            self.send(data.replace(b"\0", b"").replace(b"\n", b"\r\nHow?\r\n>"))
        elif self.state is State.BOOTING or self._work is not None:
            limit = RECEIVE_BYTES if self._work is not None else FIFO_BYTES
            room = max(0, limit - len(self._backlog))
            self._backlog += data[:room]
            self.overruns += max(0, len(data) - room)
        elif self.state is State.LOADER:
            self._feed(data)

    def set_lines(self, t: float, *, dtr: bool, rts: bool) -> None:
        """The host sets its modem lines at ``t``; True means asserted."""
        self.advance(t)
        self.board.set_lines(dtr=dtr, rts=rts)

    def press(self, t: float, *, boot: bool | None = None, reset: bool | None = None) -> None:
        """Press (True) or release (False) buttons at ``t``; None leaves a button."""
        self.advance(t)
        self.board.set_buttons(boot=boot, reset=reset)

    def autobaud(self, rate: int) -> None:
        """A SYNC arrives at ``rate``, which the loader will measure. It cannot measure more than 3 Mbaud."""
        if rate <= MAX_AUTOBAUD:
            self._measured_rate = rate

    def run_until(self, t: float) -> list[tuple[float, bytes]]:
        """Do everything that is due up to ``t``; returns what was sent, and when its first byte left."""
        self.advance(t)
        out, self._out = self._out, []
        return out

    def next_event(self) -> float | None:
        """When something is due next; None: nothing until bytes arrive or lines change."""
        if self._out:
            return self._out[0][0]
        return self.runner.next_event()

    def advance(self, t: float) -> None:
        """Let the clock reach ``t``."""
        self.runner.advance(t)
        if self.program is not None:  # it may have started a watchdog
            self._watch()

    def power_loss(self, t: float) -> None:
        """The supply fails at ``t`` and returns: RAM is lost, and a running flash operation is cut short."""
        self.advance(t)
        self.flash.power_loss(t)
        self.registers.ram.clear()
        self._restart(Reason.POWER_ON, wait=POWER_UP_S)

    def reset(self, t: float) -> None:
        """A watchdog resets the chip at ``t``."""
        self.advance(t)
        self._restart(Reason.WATCHDOG)

    # --- for the ROM loader (rom.LoaderHost) ---

    def send(self, data: bytes, t: float | None = None) -> None:
        """Transmit bytes now, or at ``t`` if a program sends, which has its own baud rate and transmitter."""
        self._out.append((self.now if t is None else t, data))
        sent = max(self.now, self._sent_until) + self.sending_time(len(data))
        self._sent_until = sent if t is None else self._sent_until

    def sending_time(self, size: int) -> float:
        """Seconds that ``size`` bytes take to send."""
        return size * 10 / (self._baud or self.text_baud)

    def change_baud(self, number: int) -> None:
        """Set the baud rate by CHANGE_BAUDRATE's number.

        The ROM divides the clock that it assumes: its own measurement on the ESP32, a fixed or strapped crystal on
        others. The result depends on the real clock. A number or measurement of 0 stops the UART.
        """
        crystal = self.config.crystal_mhz * 1e6
        assumed = crystal
        if self.chip.rom.baud is BaudRule.ESP32_CALIBRATION:
            assumed = find_rom_clock(self.chip, self.config) or 0.0
        elif self.chip.rom.baud is BaudRule.ASSUMES_40_MHZ:
            assumed = 40e6
        elif self.chip.crystal.rom_setting is not None:
            at = self.chip.crystal.rom_setting
            word = self.registers.read(self.now, at.address) or 0
            assumed = extract(word, at.shift, at.bits) * 1e6 or crystal
        self._set_baud(round(number * crystal / assumed) if assumed else 0)

    def restart(self) -> None:
        """Software reset."""
        self._restart(Reason.SOFTWARE)

    def run(self, entry: int | None, uploads: tuple[tuple[int, int], ...] = ()) -> None:
        """Start a program in RAM, or (None) the one in flash; ``uploads``: address and size of each upload to RAM."""
        if entry is not None:
            self._start_program(entry, uploads)
        elif self._is_guarded() or self.has_app:
            self._start_app()
        else:
            self.send(self.text.program_end.encode())
            if self.text.interpreter:
                self._enter(State.INTERPRETER)
            else:
                self.crash("Instruction access fault", 0)

    def crash(self, fault: str, address: int) -> None:
        """End the loader by a bus fault. RISC-V ROMs print a panic message, the others nothing."""
        if self.chip.cpu.architecture == "riscv":
            self.send(panic_text(fault, address, FAULT_CAUSES[fault]))
        self._enter(State.GONE)

    def hang(self) -> None:
        """End the loader in an endless loop."""
        self._enter(State.GONE)

    # --- inside ---

    @property
    def has_app(self) -> bool:
        """Whether an image begins where the ROM looks for one."""
        start = self.chip.flash.bootloader_offset
        return start < self.flash.part.size and self.flash.contents[start] == IMAGE_MAGIC

    def _is_guarded(self) -> bool:
        """Whether secure boot or flash encryption is on, and the chip's eFuse tables are known."""
        security, read = self.chip.security, open_words(self.registers.words)
        at = (security.secure_boot, security.secure_boot_v1, security.secure_boot_v2)
        on = any(is_set(bit, read) for bit in at) or is_encrypting(self.chip, read)
        return on and bool(find_controller(self.chip))

    def _start_guarded(self) -> Start:
        """Decrypt and check what is in flash."""
        from espwire.virtual.secure_start import FlashView, build_decrypt, start

        store = self.fuses or build_store(self.chip, self.registers.words)
        key = find_flash_key(store)
        if not key and self.config.has_flash_key:
            key = self.config.flash_key or DEFAULT_FLASH_KEY
        contents = self.flash.contents
        view = FlashView(
            lambda address, size: bytes(contents[address : address + size]),
            build_decrypt(store, key),
            self.flash.part.size,
        )
        return start(self.text, store, view)

    def _build_fuses(self) -> FuseController:
        """The eFuse controller, at the first write to it."""
        from espwire.virtual.fuse_controller import FuseController

        if self.fuses is None:
            self.fuses = build_store(self.chip, self.registers.words)
        return FuseController(
            self.fuses,
            self.registers.words,
            mhz=self.config.crystal_mhz,
            seed=self.options.seed,
            on_load=self._on_fuses_loaded,
            on_burn=self._on_burn,
        )

    def _on_fuses_loaded(self) -> None:
        at = self.chip.security.secure_download
        self.rom.secure_download |= is_set(at, open_words(self.registers.words))
        self.on_fuses()

    def _on_burn(self, t: float, seconds: float) -> None:
        """A burn of eFuses starts at ``t``, which takes ``seconds``."""
        wait = self.faults.burn(t, seconds)
        if wait is not None:
            self._queue.at(max(t, self.now) + wait, lambda: self.power_loss(self.now))

    def _clear(self) -> None:
        self.runner.clear()
        self._work: Work | None = None
        self._backlog = bytearray()
        self._frames: deque[bytes] = deque()
        self._receiver = RomReceiver()
        self._baud: int | None = None
        self._measured_rate = self.chip.uart.rom_baud
        self.registers.divider = self.config.divider or find_divider(
            self.chip, self.config.crystal_mhz, self.chip.uart.rom_baud
        )

    def _start_program(self, entry: int, uploads: tuple[tuple[int, int], ...]) -> None:
        received = bytes(self._backlog)
        self._backlog.clear()
        if self.runner.start(
            entry,
            uploads=uploads,
            baud=self._baud or self.text_baud,
            sent_until=self._sent_until,
            received=received,
        ):
            self.state, self._work = State.PROGRAM, None
        else:
            self._refuse(entry)

    def _start_rom(self, rom: LoadedRom, reason: Reason) -> None:
        self.runner.start_rom(rom, reason=self.text.number(reason), baud=self.text_baud)
        self.state = State.PROGRAM

    def _refuse(self, entry: int) -> None:
        """Report that the program cannot be run here. What a real chip would do is unknown."""
        if self.options.stub != "off":
            self._stop(refusal_text(self.chip, entry))
        self._enter(State.GONE)

    def _stop(self, text: bytes) -> None:
        """Report why nothing runs any more."""
        self.send(text)
        self.note(text.decode().strip())
        self._enter(State.GONE)

    def _count_lost(self, count: int) -> None:
        self.overruns += count

    def _on_program_end(self, ended: Ending) -> None:
        if ended.how in ("crash", "refused"):
            self._baud = self.baud
        if ended.how == "refused":
            self._refuse(ended.address)
        elif ended.how == "crash" and self.mask_rom is not None:
            self._stop(rom_crash_text(ended.fault, ended.address, ended.pc))
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
        if self.registers.fuses is not None:
            self.registers.fuses.restart(self.now)
        self.spi.reset()
        self.registers.watchdogs.restart(self.now, running=False)

    def _restart(self, reason: Reason, *, wait: float = 0.0) -> None:
        """Reset the chip; the straps are sampled now."""
        force = self.chip.reset.force_download
        word = self.registers.read(self.now, force.address) if force is not None else None
        forced = (
            force is not None
            and word is not None
            and bool(word >> force.bit & 1)
            and reason is Reason.SOFTWARE
        )
        start_in_loader = not self.board.driven and self.options.boot == "download"
        straps = read_straps(
            self.chip,
            self.text,
            boot_low=start_in_loader or self.board.boot_low,
            pins=self.options.pins,
        )
        if forced:
            straps = straps._replace(mode="download")
        self._clear_all()
        self.state = State.BOOTING
        self.boots += 1
        self._after(wait + BOOT_S, lambda: self._boot(reason, straps))

    def _after(self, seconds: float, action: Callable[[], None]) -> None:
        """Do ``action`` in ``seconds``, unless the chip is reset before."""
        boot = self.boots
        self._queue.at(self.now + seconds, lambda: action() if boot == self.boots else None)

    def _boot(self, reason: Reason, straps: Straps) -> None:
        if self.state is not State.BOOTING:
            return
        if self.chip.strapping.address is not None:
            self.registers.words[self.chip.strapping.address] = straps.value
        if straps.mode == "download":
            if self.mask_rom is not None:
                self._start_rom(self.mask_rom, reason)
                return
            self.send(self.text.download(reason, self.options.strap or straps.value))
            self._enter(State.LOADER)
            self._drain()
            return
        app = straps.mode == "app"
        self.send(
            self.text.app(reason, straps.value) if app else self.text.wrong(reason, straps.value)
        )
        self._backlog.clear()
        if app:
            self._start_app()
        else:
            self._enter(State.GONE)

    def _start_app(self) -> None:
        """Start what is in flash. With secure boot or flash encryption, it is decrypted and checked first."""
        self._is_proven = False
        if not self._is_guarded():
            self._enter(State.APP)
            return
        result = self._start_guarded()
        self.send(result.text.encode())
        self._is_proven = result.app is not None
        self._enter(State.APP if result.app is not None else State.GONE)
        if result.app is None:
            self._after(APP_LOG_S, lambda: self._restart(Reason.WATCHDOG))

    def _enter(self, state: State) -> None:
        self.state = state
        self.runner.clear()
        self._work = None
        watched = (
            state is State.LOADER
            and self.options.kind == "usb-jtag"
            and not self.config.secure_download
        )
        self.registers.watchdogs.restart(self.now, running=watched)
        self._watch()
        if state is State.APP:
            self._after(APP_LOG_S, self._log)

    def _log(self) -> None:
        """The application's log, or the ROM's error message if there is no application."""
        if self.state is not State.APP:
            return
        start = self.chip.flash.bootloader_offset
        head = bytes(self.flash.contents[start : start + 4])
        text = (
            f"I ({self.now * 1000:.0f}) app: running"
            if self._is_proven or self.has_app
            else f"invalid header: 0x{head[::-1].hex()}"
        )
        self.send(text.encode() + b"\r\n")
        self._after(APP_LOG_S, self._log)

    def _watch(self) -> None:
        """Schedule the watchdogs' deadline."""
        due = self.registers.watchdogs.deadline
        if due is not None and due != self._watched:
            self._watched = due
            self._queue.at(due, self._on_watchdog)

    def _on_watchdog(self) -> None:
        watchdogs = self.registers.watchdogs
        due, self._watched = watchdogs.deadline, None
        if due is None or due > self.now:
            self._watch()
        else:
            self._restart(Reason.WATCHDOG if watchdogs.rtc_is_next else Reason.SUPER_WATCHDOG)

    def _feed(self, data: bytes) -> None:
        self._frames.extend(self._receiver.feed(data))
        self._next()

    def _drain(self) -> None:
        """Process what waited in the receive path."""
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
                self._set_baud(self._measured_rate)
            fault = self.faults.command(self.now)
            if fault is not None:
                kind, wait = fault
                hit = self.power_loss if kind == "power" else self.reset
                self._queue.at(self.now + wait, lambda hit=hit: hit(self.now))  # type: ignore[misc]
            self._work = work = self.rom.handle(self.now, frame)
            self._continue(work, start=True)

    def _continue(self, work: Work, *, start: bool = False) -> None:
        if self._work is not work:
            return  # ended by a reset
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
            self._queue.at(due, lambda: self._continue(work))
