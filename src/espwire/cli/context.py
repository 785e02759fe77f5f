"""The context of a command: its board, with settings (``run_settings.py``) and output (``run_output.py``)."""

from __future__ import annotations

import os
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from espwire.cli.config import DEFAULT_BAUD
from espwire.cli.output import Output
from espwire.cli.ports import plain_name, split_ports
from espwire.cli.program import Program
from espwire.cli.run_output import RunOutput
from espwire.errors import (
    ConnectError,
    DeviceError,
    PortNotFound,
    ToolError,
    TransportError,
    TransportLost,
    WrongChip,
)
from espwire.transport.base import CancelToken
from espwire.transport.url import find_scheme

if TYPE_CHECKING:
    from espwire.cli.state import State
    from espwire.device.device import Device, StubSource
    from espwire.device.loader import OnPacket, Packet
    from espwire.events import Event
    from espwire.flash.journal import Journal
    from espwire.transport.place import HeldPlace
    from espwire.transport.ports import SystemPort

WAIT_BACK_S = 30.0  # in all, for a board that is lost in the middle of an operation
RETRY_PAUSE_S = 0.3
MOST_LOSSES = 3  # in one operation

Outcome = TypeVar("Outcome")


class Context(RunOutput):
    """Settings, output and board of one run.

    :param options: values of options by setting; parsing the command line adds to them
    :param connected: an open device to work on; it stays open
    :param leave_connected: apply ``--stub``, ``--baud`` and ``--after`` to ``connected`` as well
    :param board: the port of the only board to work on, whatever the command line names
    :param cancel: stops the command
    """

    def __init__(
        self,
        program: Program | None = None,
        *,
        output: Output | None = None,
        options: dict[str, Any] | None = None,
        connected: Device | None = None,
        leave_connected: bool = False,
        board: str = "",
        cancel: CancelToken | None = None,
    ) -> None:
        super().__init__(program, output, options)
        self.cancel = cancel or CancelToken()
        self.line: Sequence[str] = ()  # the command line, with the arguments of @files
        self.board = board
        if board:
            self.options |= {"port": board, "json": True}
        self.program_started = False  # the chip runs a program: do not reset it at the end
        self.packets: deque[Packet] | None = None
        self._connected, self._leave_connected = connected, leave_connected
        # the port of the last connection, if it is a system's
        self._target: SystemPort | None = None
        self._place: HeldPlace | None = None
        self._stepped_down = False

    @cached_property
    def state(self) -> State:
        """The cache of known adapters and boards; with ``--no-state`` an empty one that is not kept."""
        from espwire.cli import state

        def report(
            event: Event,
        ) -> None:  # self.report must not be created before the port is known
            self.report(event)

        path = None if self.options.get("no_state") else state.find_state_file()
        return state.State(path, report)

    def journal(self, device: Device) -> Journal | None:
        """Where a write keeps what an interruption would destroy; None: nothing can be kept, or with ``--no-state``.

        Virtual chips in this process have one only if their flash is a file.
        """
        import hashlib
        from urllib.parse import parse_qs, urlsplit

        from espwire.cli.state import find_state_file
        from espwire.flash.journal import Journal

        port, board = self.get("port"), device.mac
        if self.options.get("no_state") or not board:
            return None
        if self._is_virtual():
            files = parse_qs(urlsplit(port).query).get("flash")
            if not files:
                return None
            board += f" in {os.path.abspath(files[0])}"
        name = hashlib.sha256(board.encode()).hexdigest()[:16]
        return Journal(find_state_file().with_name("unfinished") / f"{name}.json", board)

    def uses_boards(self, several: bool) -> bool:
        """Whether the command line is for several boards, or for each that is plugged in.

        :param several: whether the command can work on several; if not, settings files are not read for that
        """
        if self.board:
            self.options["port"] = self.board
            return False
        if any(self.options.get(name) for name in ("all_boards", "watch", "place")):
            return True
        if not self.program.many_boards or self._connected is not None:
            return False
        port = self.get("port") if several else self.options.get("port")
        return port is not None and "," in port and len(split_ports(port)) > 1

    def name_file(self, path: str, device: Device | None = None) -> str:
        """``path`` with ``{port}`` replaced, and ``{mac}`` once the board is known."""
        if "{port}" in path:
            path = path.replace("{port}", plain_name(self.board or self.get("port") or "board"))
        return path if device is None else path.replace("{mac}", device.mac.replace(":", ""))

    def find_target(self) -> SystemPort | str:
        """The port that ``--port`` names, or the only connected board; a URL as it is. Opens nothing.

        :raises UsageError: several ports are possible, or a setting is invalid
        :raises PortNotFound: no port matches
        """
        from espwire.cli.ports import find_target

        if find_scheme(self.get("port") or "") == "labgrid":
            return self._hold_place().url
        target = find_target(
            self.get("port"),
            filters=self.get("port_filter"),
            any_port=self.get("any_port"),
            state=self.state,
        )
        if self.get("port") is None and not isinstance(target, str):
            self.options["port"] = target.identity.path
        return target

    def _hold_place(self) -> HeldPlace:
        """The place that ``--port`` names, acquired until the end of the run."""
        if self._place is None:
            from espwire.transport.place import HeldPlace

            self._place = HeldPlace(self.get("port"))
        return self._place

    @property
    def place_name(self) -> str:
        """The URL of the place that is held; empty: none is."""
        return self.get("port") if self._place is not None else ""

    def release_place(self) -> None:
        """Release the place of ``labgrid://PLACE``, if there is one."""
        place, self._place = self._place, None
        if place is not None:
            place.release()

    @contextmanager
    def device(
        self,
        *,
        bulk: bool = True,
        encrypt: bool = False,
        pins: str | tuple[int, ...] | None = None,
    ) -> Iterator[Device]:
        """The connected chip. At the end it is reset as ``--after`` demands; the port is closed in any case.

        :param bulk: the command benefits from a stub flasher: it moves data, or sends many requests
        :param encrypt: the chip will encrypt what is written
        :param pins: the flash connection of ``--spi-connection``
        :raises UsageError: several ports are possible
        :raises ToolError: the chip cannot be reached
        """
        stub = self._read_stub()
        device = self._connected
        if device is None:
            with self._connect() as device, self._prepare(device, stub, bulk, encrypt, pins):
                yield device
            return
        device.report = self.report
        if self._leave_connected:
            with self._prepare(device, stub, bulk, encrypt, pins):
                yield device
            return
        if pins is not None:
            device.use_flash_pins(pins)
        yield device

    def run_operation(self, operation: Callable[[Device], Outcome], **options: Any) -> Outcome:
        """Run ``operation`` on the connected chip, as within ``device``; if the board is lost meanwhile, wait for it,
        connect again, and run the operation again. An operation on flash continues where it was: it finds what is there.

        :param options: as for ``device``
        :raises PortNotFound: code ``port-not-back``
        :raises WrongChip: code ``wrong-board``: another board is at the port
        """
        mac, losses, silences, left = "", 0, 0, WAIT_BACK_S
        lost_at: float | None = None
        while True:
            try:
                with self.device(**options) as device:
                    if losses and device.mac != mac:
                        raise _build_wrong_board(device, mac)
                    if lost_at is not None:
                        left -= time.monotonic() - lost_at
                    mac, lost_at = device.mac, None
                    return operation(device)
            except WrongChip:
                raise
            except (TransportError, ConnectError, DeviceError) as error:
                if mac and self._step_down(error):
                    continue
                if lost_at is not None:  # it is not back yet
                    if time.monotonic() >= lost_at + left:
                        raise
                    self._find_again()
                    continue
                gone = isinstance(error, TransportLost) and error.code != "write-timeout"
                # after a reset, its boot text is unreadable at a high baud rate: the chip is silent
                silences += error.code == "no-reply"
                lost = gone or error.code in ("chip-reset", "no-reply")
                known = mac and self._may_wait()
                if not (lost and known) or silences > 1 or losses == MOST_LOSSES or left <= 0:
                    raise
                losses, lost_at = losses + 1, time.monotonic()
                self._report_loss(error)
                self.restart_progress()

    def _step_down(self, error: ToolError) -> bool:
        """If the line loses too much, take a rate that is safe, then the ROM loader. False: that is not the reason, or
        there is nothing else to try."""
        from espwire.device.baud import ROM_BAUD
        from espwire.events import Warned

        fresh = self._connected is None and self.get("before") != "no-reset"
        if not fresh or not self.program.tunes or self.get("no_stub"):
            return False
        bad = error.code == "line-bad"
        if bad and (self._may_tune() or self.get("baud") > ROM_BAUD):
            self.options["baud"], self._stepped_down = ROM_BAUD, True
            text = f"the line loses too much; continuing at {ROM_BAUD} baud"
        elif bad or (self._stepped_down and error.code == "no-reply"):
            self.options["no_stub"] = True
            text = "the line loses too much with the stub; continuing with the ROM loader"
        else:
            return False
        self.report(Warned(code="stepped-down", text=text))
        return True

    def _may_tune(self) -> bool:
        """Whether the rate is to be found by trials: none is stated."""
        return self.program.tunes and not self.is_set("baud") and "baud" not in self.defaults

    def _may_wait(self) -> bool:
        """Whether the port can come back: a virtual chip in this process cannot go away."""
        fresh = self.get("before") != "no-reset"  # a lost chip must be entered again
        return self._connected is None and self.program.waits and fresh and not self._is_virtual()

    def _is_virtual(self) -> bool:
        return find_scheme(self.get("port") or "") == "virtual"

    def _report_loss(self, error: ToolError) -> None:
        from espwire.events import Warned

        self.report(
            Warned(code="board-lost", text=f"{error}; waiting {WAIT_BACK_S:.0f} s for the board")
        )

    def _find_again(self) -> None:
        """Wait a moment. If the port has another name now, use that. The name that the user gave comes first."""
        target = self._target
        if target is None or os.path.exists(self.get("port") or ""):
            self.cancel.sleep(RETRY_PAUSE_S)
            return
        with suppress(PortNotFound):
            self.options["port"] = target.wait_back(RETRY_PAUSE_S).identity.path

    def _read_stub(self) -> StubSource:
        """The stub that the options ask for: True for espwire's own.

        :raises FileError, DataError: the file of ``--stub``
        """
        path = self.get("stub")
        if path is None or self.get("no_stub"):
            return not self.get("no_stub")
        from espwire.device.stub_image import parse_vendor_stub
        from espwire.files import read_file

        return parse_vendor_stub(read_file(path), os.path.basename(path))

    @contextmanager
    def _connect(self) -> Iterator[Device]:
        from espwire.device.baud import ROM_BAUD
        from espwire.device.connect import connect

        name = self.get("port")
        target = self.find_target()
        with connect(
            target,
            chip=self.chip,
            baud=min(self.get("baud"), ROM_BAUD),
            before=self.get("before"),
            settings=self.settings(),
            report=self.report,
            on_packet=self._observe_packets(),
            cancel=self.cancel,
            stub=False,  # _prepare starts one if the command benefits
            history=None if self._is_virtual() else self.state,
        ) as device:
            # only now: of a port that is away, the system lists no identity to find it by
            self._target = None if isinstance(target, str) else target
            if name is not None and not isinstance(target, str):
                _check_board(device, name, target)
            report_device = self.program.report_device
            if report_device is not None and not (self.json or self.quiet):
                report_device(device, self.report)
            yield device

    @contextmanager
    def _prepare(
        self,
        device: Device,
        stub: StubSource,
        bulk: bool,
        encrypt: bool,
        pins: str | tuple[int, ...] | None,
    ) -> Iterator[None]:
        """Apply the options to the chip, run the command in here, then reset the chip."""
        from espwire.device.reset import require_watchdog_reset

        after = self.get("after")
        if after == "watchdog-reset":
            require_watchdog_reset(device.loader, device.chip)  # before the work
        self._set_up(device, stub, bulk, encrypt, pins)
        yield
        tuner = device.loader.tuner
        self.stable_baud = tuner.stable_baud if tuner is not None else None
        how = device.leave("no-reset" if self.program_started else after)
        if not self.program_started and self.program.wording is None:
            self.ending = _describe_ending(how, after)

    def enter_again(
        self, device: Device, *, encrypt: bool = False, pins: str | tuple[int, ...] | None = None
    ) -> None:
        """Reset a chip whose application was started into its loader, and apply the options as at the beginning.

        ``device.reenter`` must not be None.
        """
        assert device.reenter is not None
        device.reenter()
        self.program_started = False
        self._set_up(device, self._read_stub(), True, encrypt, pins)

    def _set_up(
        self,
        device: Device,
        stub: StubSource,
        bulk: bool,
        encrypt: bool,
        pins: str | tuple[int, ...] | None,
    ) -> None:
        from espwire.device.connect import speed_up

        voltage = self.get("override_vddsdio")
        if voltage is not None:
            device.override_flash_voltage(voltage)
        if pins is not None:
            device.use_flash_pins(pins)
        speed_up(
            device,
            stub=self._choose_stub(device, stub, bulk, encrypt),
            baud=self._choose_baud(device, bulk),
            history=None if self._is_virtual() else self.state,
        )

    def _choose_stub(
        self, device: Device, stub: StubSource, bulk: bool, encrypt: bool
    ) -> StubSource:
        if self.get("stub_version") is not None:
            self.note("--stub-version has no effect: espwire has only one stub flasher")
        stays = self.get("after") == "no-reset-stub"
        if stays and stub is False:
            self.note("--after no-reset-stub: the ROM loader stays, because no stub is used")
        if stub is False or not (bulk or stays):
            return False
        if stub is not True:
            return stub
        own = device.chip.stub.own
        if (
            encrypt
            and device.chip.rom.encrypted_write
            and not (own is not None and own.can_encrypt)
        ):
            self.note("using the ROM loader: on this chip, only it can encrypt")
            return False
        why = device.find_stub_obstacle()
        if why and (stays or self.verbose or device.loader.dialect.sync_value):
            self.note(f"the ROM loader is used: {why}")
        return True

    def _choose_baud(self, device: Device, bulk: bool) -> int | Literal["auto"]:
        """The baud rate to work at; a quick query needs no more than a ROM that cannot change its rate has."""
        from espwire.protocol.dialect import BaudRule

        baud: int = self.get("baud")
        if self._may_tune():
            return "auto" if bulk else baud
        fixed = device.loader.dialect.baud is BaudRule.NONE
        return min(baud, DEFAULT_BAUD) if fixed and not bulk and not self.get("no_stub") else baud

    def _observe_packets(self) -> OnPacket:
        """Keep the last packets; with ``--trace``, print each as well."""
        from espwire.device.loader import PACKETS_KEPT

        packets: deque[Packet] = deque(maxlen=PACKETS_KEPT)
        self.packets = packets
        if not self.get("trace"):
            return packets.append
        from espwire.cli.trace import Tracer

        tracer = Tracer(self.output)

        def observe(packet: Packet) -> None:
            packets.append(packet)
            tracer(packet)

        return observe


def _describe_ending(how: str, after: str) -> str:
    if how:
        return "The application was started." if how == "soft" else "The board was reset."
    if after.startswith("no-reset"):
        return f"The board was not reset (--after {after})."
    return "The board was not reset: this port has no reset line."


def _check_board(device: Device, name: str, target: SystemPort) -> None:
    """Make sure that the adapter, found by a remembered MAC address, still has the same board.

    :raises WrongChip: code ``wrong-board``
    """
    from espwire.cli.ports import is_other_board

    if not is_other_board(name, target.identity, device.mac):
        return
    device.leave("hard-reset")
    raise _build_wrong_board(device, name)


def _build_wrong_board(device: Device, name: str) -> WrongChip:
    return WrongChip(
        f"the board at {device.transport.info.name} has the MAC address"
        f" {device.mac or 'hidden'}, not {name}",
        hint="Connect to each board once by the name of its port.",
        code="wrong-board",
        mac=device.mac,
    )
