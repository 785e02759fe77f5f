"""The monitor: passes bytes between port, screen and keyboard, and waits for a device that was disconnected."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from espwire.device.reset_sequences import (
    SEQUENCES,
    Sequence,
    find_sequence,
    is_usb_jtag,
    needs_flow_control,
    play,
    sequence_names,
)
from espwire.errors import PortNotFound, TransportError, TransportLost
from espwire.monitor.console import Console
from espwire.monitor.keys import HELP, Keys, MonitorCommand, Send
from espwire.monitor.lines import parse_filter
from espwire.monitor.rate import BOOT_RATE, RateFinder
from espwire.monitor.terminal import Keyboard
from espwire.transport.base import CancelToken, Transport, TransportInfo
from espwire.transport.ports import Port

POLL_S = 0.02  # the longest delay of a key
SCAN_S = 0.2  # one scan for a disconnected device
SOON_S = 5.0  # a device that is lost so soon after coming back, without data, fails again and again
FAILED_OPENS = 15  # then the user sees why the device cannot be opened
SLICE = 64  # bytes written before the next read
WRITE_LIMIT_S = 2.0
DRAIN_S, QUIET_S = 0.5, 0.03  # at the end: at most so long, and the silence that ends it
USB_KINDS = frozenset({"usb-jtag", "usb-otg"})  # ports that are part of the chip
# filters that a key selects in turn, after the user's own
NEXT_FILTERS = ("*:I", "*:W", "*:E")
# commands that end a run
ENDS = frozenset(
    {MonitorCommand.QUIT, MonitorCommand.INTERRUPT, MonitorCommand.FLASH, MonitorCommand.GDB}
)


@dataclass(frozen=True, kw_only=True)
class MonitorOptions:
    """Options of a run.

    :param baud: baud rate
    :param find_rate: find the baud rate from what arrives, beginning with ``baud``
    :param can_flash: the caller can flash again
    :param can_debug: the caller can start GDB
    :param reset: reset into the application at the start
    :param dtr: assert DTR while the port is open
    :param eol: bytes that Enter sends
    :param shows_keys: name the monitor's keys at the start
    :param waits: a port that is not there at the start is waited for
    """

    baud: int = 115200
    find_rate: bool = False
    can_flash: bool = False
    can_debug: bool = False
    reset: bool = False
    dtr: bool = False
    eol: bytes = b"\r"
    shows_keys: bool = True
    waits: bool = False


class Monitor:
    """One run of the monitor. When ``run`` ends, for whatever reason, the port is closed.

    :param release: restores the terminal; called before the port is closed, which may take long
    """

    def __init__(
        self,
        port: Port,
        console: Console,
        *,
        keyboard: Keyboard | None = None,
        options: MonitorOptions | None = None,
        cancel: CancelToken | None = None,
        pause: Callable[[float], None] = time.sleep,
        release: Callable[[], None] = lambda: None,
    ) -> None:
        self._port, self._console, self._keyboard = port, console, keyboard
        self._options = options or MonitorOptions()
        self._keys = Keys(eol=self._options.eol)
        self._cancel, self._pause = cancel or CancelToken(), pause
        self._release = release
        self._transport: Transport | None = None
        self._rates = RateFinder(self._options.baud) if self._options.find_rate else None
        self._rate_note = ""
        self._back_at: float | None = (
            None  # when the device came back, if it has sent nothing since
        )
        self._failures = 0  # losses soon after coming back
        self._first_filter = console.gate.filter

    def run(self) -> MonitorCommand:
        """Run until a key ends it; return one of ``ENDS``.

        :raises TransportError: the port cannot be opened at the start
        """
        try:
            ended, reset = self._start(), self._options.reset
            while ended is None:
                try:
                    if reset:
                        reset = False
                        self._reset(MonitorCommand.RESET)
                    ended = self._pass_bytes()
                except TransportLost as error:
                    ended = self._wait_back(error)
            with suppress(TransportError):
                self._drain()
            return ended
        finally:
            self._release()
            self._close()
            self._console.cut()

    def _start(self) -> MonitorCommand | None:
        """Open the port; a command: a key ended the monitor while the port was not there."""
        try:
            self._open()
        except PortNotFound as error:
            if not self._options.waits:
                raise
            return self._wait_back(error)
        self._note(self._greeting())
        return None

    def _drain(self) -> None:
        """Read on until the chip is quiet: a CP2102N that is closed while it receives may not receive any more."""
        transport = self._transport
        if transport is None or transport.info.kind != "uart":
            return
        end = transport.now() + DRAIN_S
        while transport.now() < end and (data := transport.read(QUIET_S)):
            self._console.feed(data)

    def _open(self) -> None:
        rate = self._options.baud if self._rates is None else self._rates.rate
        self._transport = self._port.open(baud=rate, cancel=self._cancel)
        if self._options.dtr:
            self._transport.set_lines(dtr=True)
        detects = self._transport.info.can_change_baud and self._rates is None
        self._console.baud = self._options.baud if detects else None

    def _close(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def _greeting(self) -> str:
        assert self._transport is not None
        info = self._transport.info
        found = "" if self._rates is None else "; the rate is adapted to what arrives"
        rate = f" at {self._options.baud} baud{found}" if info.can_change_baud else ""
        keys = "Ctrl-] quits, Ctrl-T Ctrl-H shows the keys"
        if self._keyboard is None:
            keys = "keys are not read, Ctrl-C quits"
        return f"{info.name}{rate}" + (f"; {keys}" if self._options.shows_keys else "")

    def _pass_bytes(self) -> MonitorCommand | None:
        assert self._transport is not None
        while True:
            data = self._transport.read(POLL_S)
            if data:
                self._back_at, self._failures = None, 0
                self._console.feed(data)
                self._follow_rate(data)
            else:
                self._console.idle()
            ended = self._handle_keys()
            if ended is not None:
                return ended

    def _follow_rate(self, data: bytes) -> None:
        """Change to another baud rate if the data show that this one is wrong."""
        rates, transport = self._rates, self._transport
        if rates is None or transport is None or not transport.info.can_change_baud:
            return
        rate = rates.feed(data)
        while rate is not None:
            try:
                transport.set_baud(rate)
                transport.discard_input()  # it was received at the old rate
                break
            except TransportLost:
                raise
            except TransportError:  # the adapter does not have this rate
                rate = rates.reject()
        if rates.failed:
            text = "unreadable at every common baud rate: give the right one with --baud"
        elif not rates.confirmed:
            return
        else:
            text = f"{rates.confirmed} baud"
            if rates.confirmed == BOOT_RATE:
                text += " (an ESP8266 or ESP32-C2 with a 26 MHz crystal)"
        if text != self._rate_note:
            self._rate_note = text
            self._note(text)

    def _wait_back(self, error: TransportError) -> MonitorCommand | None:
        """Wait until the device is back (None), or a key ends the monitor."""
        own = self._transport is not None and self._transport.info.kind in USB_KINDS
        self._count_failure()
        self._close()
        self._console.cut()
        sleeps = " (the chip may have been reset, or its application may sleep)" if own else ""
        again = ", again and again; this is not repeated" if self._failures else ""
        if self._failures < 2:
            text = f"{error}{sleeps}; waiting for it to come back{again}"
            self._console.note(text, urgent=True, log=True)
        failed = 0
        while True:
            ended = self._handle_keys()
            if ended is not None:
                return ended
            try:
                self._port = self._port.wait_back(SCAN_S, cancel=self._cancel)
            except PortNotFound:
                continue
            try:
                self._open()
            except TransportError as failure:
                self._close()
                failed = 0 if isinstance(failure, PortNotFound) else failed + 1
                if failed == FAILED_OPENS:
                    self._console.note(f"{failure}: {failure.hint}", urgent=True)
                self._pause(SCAN_S)
                continue
            assert self._transport is not None
            self._back_at = self._transport.now()
            if self._failures:
                self._pause(SCAN_S)
            else:
                self._console.note(f"{self._transport.info.name} is back", urgent=True, log=True)
            return None

    def _count_failure(self) -> None:
        transport, back_at = self._transport, self._back_at
        if transport is not None and back_at is not None and transport.now() - back_at < SOON_S:
            self._failures += 1
        else:
            self._failures = 0

    def _handle_keys(self) -> MonitorCommand | None:
        if self._keyboard is None:
            return None
        typed = self._keyboard.read()
        if typed is None:
            return MonitorCommand.QUIT  # the terminal was closed
        for action in self._keys.feed(typed):
            match action:
                case Send():
                    self._send(action.data)
                case MonitorCommand.QUIT | MonitorCommand.INTERRUPT:
                    return action
                case MonitorCommand.FLASH | MonitorCommand.GDB:
                    if self._may_leave(action):
                        return action
                case MonitorCommand.PAUSE:
                    self._note(self._console.toggle_pause())
                case MonitorCommand.FILTER:
                    self._next_filter()
                case MonitorCommand.RESET | MonitorCommand.LOADER:
                    self._reset(action)
                case MonitorCommand.LOG:
                    self._toggle_log()
                case MonitorCommand.HELP:
                    self._note(HELP)
                case MonitorCommand.UNKNOWN:
                    self._note("unknown key after Ctrl-T; Ctrl-T Ctrl-H shows the keys")
        return None

    def _send(self, data: bytes) -> None:
        transport = self._transport
        if transport is None:
            return  # disconnected
        for start in range(0, len(data), SLICE):
            try:
                transport.write(data[start : start + SLICE], transport.now() + WRITE_LIMIT_S)
            except TransportLost as error:
                if error.code != "write-timeout":
                    raise
                self._note("the port accepts no data: your input was dropped")
                return
            received = transport.read(0)
            if received:
                self._console.feed(received)

    def _reset(self, into: MonitorCommand) -> None:
        transport = self._transport
        if transport is None:
            self._note("the port is disconnected: cannot reset the chip")
        elif not transport.info.can_reset:
            self._note("this port cannot reset the chip: press its reset button")
        else:
            self._note(into.value)
            rate = None if self._rates is None else self._rates.expect_boot()
            if rate is not None and transport.info.can_change_baud:
                transport.set_baud(rate)
            play(
                transport,
                application_steps(transport.info)
                if into is MonitorCommand.RESET
                else loader_steps(transport.info),
            )
            if self._options.dtr:
                transport.set_lines(dtr=True)

    def _may_leave(self, action: MonitorCommand) -> bool:
        if self._transport is None:
            self._note("the port is disconnected: wait until it is back")
            return False
        flash = action is MonitorCommand.FLASH
        if self._options.can_flash if flash else self._options.can_debug:
            return True
        self._note(
            "no build here: start the monitor in a project, or with `espwire flash --monitor`"
            if flash
            else "no GDB for this port: it must be a serial port or a socket"
        )
        return False

    def _next_filter(self) -> None:
        gate = self._console.gate
        choices = [self._first_filter, *map(parse_filter, NEXT_FILTERS)]
        at = [str(choice) for choice in choices].index(str(gate.filter))
        gate.filter = choices[(at + 1) % len(choices)]
        self._note(f"log lines: {gate.filter or 'all'}")

    def _toggle_log(self) -> None:
        log = self._console.log
        if log is None:
            self._note("no log file: start the monitor with --log FILE")
        else:
            self._note(f"log {log.name}: {'on' if log.toggle() else 'off'}")

    def _note(self, text: str) -> None:
        self._console.note(text)


def application_steps(info: TransportInfo) -> Sequence:
    """The reset sequence that starts the application."""
    if is_usb_jtag(info) or info.kind == "usb-otg":
        return SEQUENCES["hard_usb"]
    return SEQUENCES["hard_flow_control" if needs_flow_control(info) else "hard"]


def loader_steps(info: TransportInfo) -> Sequence:
    """The reset sequence into the loader that connecting tries first."""
    return find_sequence(sequence_names(info, "default-reset")[0], info)
