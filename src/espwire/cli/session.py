"""What one run of the program knows: global options, where output goes, the device. Every command is handed it."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from espwire._version import __version__
from espwire.cli.output import Output, printable
from espwire.errors import (
    ConnectError,
    DeviceError,
    ToolError,
    TransportError,
    Unsupported,
    VerifyError,
)

if TYPE_CHECKING:
    from espwire.cli.config import Loaded
    from espwire.cli.given import Given
    from espwire.cli.render import Renderer, Wording
    from espwire.cli.state import State
    from espwire.device.device import Device
    from espwire.device.loader import OnPacket, Packet
    from espwire.device.stub_image import StubImage
    from espwire.events import Error, Event, Report
    from espwire.image.read_any import FormatChoice
    from espwire.settings import Settings
    from espwire.transport.ports import SystemPort

DEFAULT_BAUD = 115200
BOOT_TEXT_LINES = 12
LONGEST_MESSAGE = 2000  # characters of an error or a hint
EXIT_BUG = 70


@dataclass(frozen=True)
class Program:
    """Under which name this runs, and what hangs on the name: words, exit codes, what is told when a chip is found."""

    name: str = "espwire"
    version_text: str = f"espwire {__version__}"
    error_word: Callable[[ToolError], str] = lambda error: "error"
    exit_code: Callable[[ToolError], int] = lambda error: error.exit_code
    open_wording: Callable[[], Wording] | None = None  # None: our own
    tell_device: Callable[[Device, Report], None] | None = None
    strict: bool = True  # False: take ambiguous numbers and files as esptool does
    consents: frozenset[str] = (
        frozenset()
    )  # given without being asked for: their findings are warnings


@dataclass(eq=False, repr=False)
class Session:
    """Global options under the names of cli/options.py, filled while the command line is parsed."""

    chip: str | None = None
    port: str | None = None
    port_filter: tuple[str, ...] = ()
    any_port: bool = False
    no_state: bool = False
    baud: int = DEFAULT_BAUD
    before: str = "default-reset"
    after: str = "hard-reset"
    no_stub: bool = False
    stub: str | None = None  # a file in the vendor's format, in place of ours
    stub_image: StubImage | None = None  # what that file holds
    stub_version: int | None = None
    connect_attempts: int | None = None
    spi_connection: str | tuple[int, ...] | None = None
    override_vddsdio: str | None = None
    partitions: str | None = None  # a file with the table that names are looked up in
    partition_table_offset: int = 0x8000
    input_format: FormatChoice = "auto"  # of the files that are read
    trace: bool = False
    verbose: bool = False
    quiet: bool = False
    json: bool = False
    progress: bool = True
    runs: bool = False  # the command has started a program: the chip is not reset at the end
    config: str | None = None
    given: set[str] = field(default_factory=set)  # what the command line gave
    reads_settings: bool = True  # whether files and environment count
    output: Output = field(default_factory=Output)
    program: Program = field(default_factory=Program)
    connected: Device | None = None  # a device that a calling program holds already; it stays open
    leave_connected: bool = (
        False  # whether stub, baud rate and ``--after`` apply to it, too; else it stays as it is
    )
    _renderer: Renderer | None = None
    _report: Report | None = None
    _state: State | None = None
    _values: dict[str, Given] | None = None
    _told: Loaded | None = None
    _packets: deque[Packet] | None = None
    _ending: str = ""  # how the board was left, until that is printed

    @property
    def peer_format(self) -> FormatChoice:
        """``input_format``, for commands that esptool has too: under its name its rules count."""
        return (
            "esptool"
            if self.input_format == "auto" and not self.program.strict
            else self.input_format
        )

    def guess(self, words: Sequence[str]) -> None:
        """How to answer a command line that is too broken to be parsed."""
        self.json = self.json or "--json" in words
        self.trace = self.trace or "--trace" in words  # -t is something else to merge-bin

    @property
    def report(self) -> Report:
        """Takes events, stamps them and has them drawn."""
        from espwire.cli.render import open_renderer
        from espwire.events import Reporter, Thinned

        if self._report is None:
            self._renderer = open_renderer(
                self.output,
                as_json=self.json,
                quiet=self.quiet,
                verbose=self.verbose,
                progress=self.progress,
                wording=self.program.open_wording()
                if self.program.open_wording is not None
                else None,
            )
            stamped = Reporter(sink=self._renderer, device=self.port or "")
            self._report = Thinned(stamped, progress=self.progress) if self.json else stamped
        return self._report

    def result(self, command: str, text: str, data: dict[str, Any]) -> None:
        """Report what a command found out."""
        from espwire.events import Result

        self.report(Result(command=command, text=text, data=data))

    def finish(self, command: str, text: str, data: dict[str, Any]) -> None:
        """Report what a command has done, and how it left the board: the last line of its output."""
        ending, self._ending = self._ending, ""
        self.result(command, f"{text} {ending}".rstrip(), data)

    def report_version(self) -> None:
        """Report which espwire this is, under which name it runs."""
        self.result("version", self.program.version_text, {"version": __version__})

    @property
    def values(self) -> Mapping[str, Given]:
        """What files and environment give, read once; options are not among it.

        :raises UsageError: a file or a variable makes no sense
        """
        if self._values is None:
            self._values = {}
            if self.reads_settings:
                from espwire.cli.config import read_files
                from espwire.cli.environment import read_environment

                self._told = read_files(os.environ, self.config)
                self._values = self._told.values | read_environment(os.environ)
        return self._values

    def configure(self) -> None:
        """Take from files and environment what the command line did not give, and tell what was wrong with them.

        :raises UsageError: a file or a variable makes no sense
        """
        for name in {
            "chip",
            "port",
            "baud",
            "before",
            "after",
            "no_stub",
            "stub",
            "stub_version",
        } & self.values.keys() - self.given:
            setattr(self, name, self.values[name].value)
            self.given.add(name)
        loaded, self._told = self._told, None
        if loaded is not None:
            from espwire.events import Note, Warned

            for path in loaded.files if self.verbose else ():
                self.report(Note(text=f"read settings from {path}"))
            for code, text in loaded.warnings:
                self.report(Warned(code=code, text=text))

    def settings(self) -> Settings:
        """The library's settings as options, environment and files want them."""
        from espwire.cli.given import Given, build_settings

        values = dict(self.values)
        if self.connect_attempts is not None:
            attempts = self.connect_attempts if self.connect_attempts > 0 else sys.maxsize
            values["connect_attempts"] = Given(attempts, "--connect-attempts")
        return build_settings(values)

    @property
    def state(self) -> State:
        """What was learnt in earlier runs; with ``--no-state`` nothing, and nothing is kept."""
        from espwire.cli.state import State, find_state_file

        if self._state is None:
            self._state = State(None if self.no_state else find_state_file(), self._tell)
        return self._state

    def _tell(self, event: Event) -> None:
        """As ``report``, which is made when it is first used: by then the port is known, which labels the events."""
        self.report(event)

    def target(self) -> SystemPort | str:
        """The port that ``--port`` names, or the one board that is plugged in; a URL as it is. Opens nothing.

        :raises UsageError: several ports could be meant, or a setting makes no sense
        :raises PortNotFound: there is none
        """
        from espwire.cli.ports import find_target

        self.configure()
        return find_target(
            self.port, filters=self.port_filter, any_port=self.any_port, state=self.state
        )

    @contextmanager
    def device(self, *, bulk: bool = True, encrypt: bool = False) -> Iterator[Device]:
        """The connected chip; at the end it is reset as ``--after`` says, and the port closed in any case.

        :param bulk: the command gains by a stub: it moves data, or asks much
        :param encrypt: the command has the chip encrypt what it writes
        :raises UsageError: several ports could be meant
        :raises ToolError: it cannot be reached
        """
        from espwire.cli.preconditions import check_inputs, read_stub_file
        from espwire.device.baud import ROM_BAUD
        from espwire.device.connect import connect

        self.configure()
        self.stub_image = read_stub_file(self)
        if self.connected is not None:
            self.connected.report = self.report
            if self.leave_connected:
                with self._prepared(self.connected, bulk=bulk, encrypt=encrypt):
                    yield self.connected
                return
            if self.spi_connection is not None:
                self.connected.use_flash_pins(self.spi_connection)
            yield self.connected
            return
        target = self.target()
        check_inputs([] if self.partitions is None else [self.partitions])
        if self.port is None and not isinstance(target, str):
            self.port = target.identity.path
        with connect(
            target,
            chip=self.chip,
            baud=min(self.baud, ROM_BAUD),
            before=self.before,  # type: ignore[arg-type]  # one of BEFORE: click has checked
            settings=self.settings(),
            report=self.report,
            on_packet=self._observe_packets(),
            stub=False,  # started below, if the command gains by one
            history=None
            if isinstance(target, str) and target.lower().startswith("virtual:")
            else self.state,
        ) as device:
            self._check_board(device, target)
            if self.program.tell_device is not None and not (self.json or self.quiet):
                self.program.tell_device(device, self.report)
            with self._prepared(device, bulk=bulk, encrypt=encrypt):
                yield device

    @contextmanager
    def _prepared(self, device: Device, *, bulk: bool, encrypt: bool) -> Iterator[None]:
        """Apply the options to the chip, run the command in here, and then reset the chip as ``--after`` says."""
        from espwire.cli.stub_choice import choose_baud, choose_stub
        from espwire.device.connect import speed_up
        from espwire.device.reset import check_after

        check_after(device.loader, device.chip, self.after)
        if self.override_vddsdio is not None:
            device.override_flash_voltage(self.override_vddsdio)
        if self.spi_connection is not None:
            device.use_flash_pins(self.spi_connection)
        speed_up(
            device,
            stub=choose_stub(self, device, bulk, encrypt),
            baud=choose_baud(self, device, bulk),
        )
        yield
        self._note_ending(device.leave("no-reset" if self.runs else self.after))  # type: ignore[arg-type]

    def _note_ending(self, way: str) -> None:
        """Keep a sentence on how the board was left. Under another name than ours, its own words say so."""
        if self.runs or self.program.open_wording is not None:
            return
        if way:
            self._ending = (
                "The application was started." if way == "soft" else "The board was reset."
            )
        elif self.after.startswith("no-reset"):
            self._ending = f"The board was not reset (--after {self.after})."
        else:
            self._ending = "The board was not reset: this port has no reset line."

    def _check_board(self, device: Device, target: SystemPort | str) -> None:
        """A MAC that was remembered led to an adapter: see that the board behind it is still the same.

        :raises WrongChip: code ``wrong-board``
        """
        from espwire.cli.ports import is_other_board
        from espwire.errors import WrongChip

        if isinstance(target, str) or not is_other_board(
            self.port or "", target.identity, device.mac
        ):
            return
        device.leave("hard-reset")
        raise WrongChip(
            f"the board at {target.identity.path} is another one: its MAC is {device.mac or 'hidden'}, not {self.port}",
            hint="Another board hangs on that adapter now: connect to each by the name of its port once.",
            code="wrong-board",
            mac=device.mac,
        )

    def _observe_packets(self) -> OnPacket:
        """Keep the last packets for a failure report; with ``--trace``, print each as well."""
        from espwire.device.loader import PACKETS_KEPT

        packets: deque[Packet] = deque(maxlen=PACKETS_KEPT)
        self._packets = packets
        if not self.trace:
            return packets.append
        from espwire.cli.trace import Tracer

        tracer = Tracer(self.output)

        def observe(packet: Packet) -> None:
            packets.append(packet)
            tracer(packet)

        return observe

    def close(self) -> None:
        """The work is done: print how the board was left, if that is not printed yet, and end the drawing.

        :raises FileError: standard output took not all of it
        """
        ending, self._ending = self._ending, ""
        if ending and not self.json:
            from espwire.events import Note

            self.report(Note(text=ending))
        self.stop_drawing()
        self.output.finish()

    def stop_drawing(self) -> None:
        """Take a bar away, if there is one."""
        if self._renderer is not None:
            self._renderer.close()

    def fail(self, error: ToolError) -> int:
        """Tell a deliberate failure: what, what to try, its id. The exit code to end with."""
        self.stop_drawing()
        kept = self._keep_packets(error)
        exit_code = self.program.exit_code(error)
        if self.json:
            details = {"trace_file": kept} if kept else {}
            self.report(replace(error_event(error, details), exit_code=exit_code))
            return exit_code
        if isinstance(error, ConnectError) and error.boot_text.strip():
            self.output.error_line("the chip said:")
            for line in error.boot_text.strip().splitlines()[-BOOT_TEXT_LINES:]:
                self.output.error_line(f"  | {printable(line)}")
        word = self.program.error_word(error)
        self.output.error_line(f"{word}: {printable(str(error), LONGEST_MESSAGE)} [{error.code}]")
        self.output.error_line(f"hint: {printable(error.hint, LONGEST_MESSAGE)}")
        if kept:
            self.output.error_line(f"trace: {printable(kept)} holds the last packets")
        return exit_code

    def _keep_packets(self, error: ToolError) -> str:
        """Write the last packets before a failure of port or chip to a file; its name, or nothing."""
        packets, self._packets = self._packets, None
        told = isinstance(error, TOLD_BY_PACKETS) and not isinstance(error, Unsupported)
        if not packets or self.no_state or not told:
            return ""
        from espwire.cli.state import find_state_file
        from espwire.cli.trace import write_failure

        path = write_failure(find_state_file().parent, packets, error)
        return "" if path is None else str(path)

    def fail_with_bug(self, error: Exception) -> int:
        """Tell a failure that nobody thought of."""
        if self.trace:
            import traceback

            for line in "".join(traceback.format_exception(error)).splitlines():
                self.output.error_line(line)
        text = " ".join(str(error).split())
        return self.fail(Bug(f"{type(error).__name__}: {text}; this is a bug in espwire"))


class Bug(ToolError):
    """An exception that no part of the program meant to raise."""

    code = "bug"
    exit_code = EXIT_BUG
    hint = "Run again with --trace, and report what it prints."


TOLD_BY_PACKETS = (TransportError, ConnectError, DeviceError, VerifyError, Bug)


def error_event(error: ToolError, more: dict[str, Any]) -> Error:
    """A deliberate failure as the last event of a run; ``more`` joins its details."""
    from espwire.events import Error

    details = error.details | more
    return Error(
        code=error.code,
        message=str(error),
        hint=error.hint,
        exit_code=error.exit_code,
        details=details,
    )
