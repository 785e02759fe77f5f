"""The monitor: passes bytes between port, screen and keyboard, and waits for a device that was disconnected."""

from __future__ import annotations

import time
from collections.abc import Callable
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
from espwire.monitor.terminal import Keyboard
from espwire.transport.base import CancelToken, Transport, TransportInfo
from espwire.transport.ports import Port

POLL_S = 0.02  # the longest delay of a key
SCAN_S = 0.2  # one scan for a disconnected device
FAILED_OPENS = 15  # then the user sees why the device cannot be opened
SLICE = 64  # bytes written before the next read
WRITE_LIMIT_S = 2.0


@dataclass(frozen=True, kw_only=True)
class MonitorOptions:
    """Options of a run.

    :param baud: baud rate
    :param reset: reset into the application at the start
    :param dtr: assert DTR while the port is open
    :param eol: bytes that Enter sends
    :param shows_keys: name the monitor's keys at the start
    """

    baud: int = 115200
    reset: bool = False
    dtr: bool = False
    eol: bytes = b"\r"
    shows_keys: bool = True


class Monitor:
    """One run of the monitor. When ``run`` ends, for whatever reason, the port is closed."""

    def __init__(
        self,
        port: Port,
        console: Console,
        *,
        keyboard: Keyboard | None = None,
        options: MonitorOptions | None = None,
        cancel: CancelToken | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._port, self._console, self._keyboard = port, console, keyboard
        self._options = options or MonitorOptions()
        self._keys = Keys(eol=self._options.eol)
        self._cancel, self._pause = cancel or CancelToken(), pause
        self._transport: Transport | None = None

    def run(self) -> MonitorCommand:
        """Run until a key ends it; return ``QUIT`` or ``INTERRUPT``.

        :raises TransportError: the port cannot be opened at the start
        """
        try:
            self._open()
            self._note(self._greeting())
            reset = self._options.reset
            while True:
                try:
                    if reset:
                        reset = False
                        self._reset(MonitorCommand.RESET)
                    ended = self._pass_bytes()
                except TransportLost as error:
                    ended = self._wait_back(error)
                if ended is not None:
                    return ended
        finally:
            self._close()
            self._console.cut()

    def _open(self) -> None:
        self._transport = self._port.open(baud=self._options.baud, cancel=self._cancel)
        if self._options.dtr:
            self._transport.set_lines(dtr=True)
        self._console.baud = self._options.baud if self._transport.info.can_change_baud else None

    def _close(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def _greeting(self) -> str:
        assert self._transport is not None
        info = self._transport.info
        rate = f" at {self._options.baud} baud" if info.can_change_baud else ""
        keys = self._keyboard is not None and self._options.shows_keys
        return f"{info.name}{rate}" + (
            "; Ctrl-] quits, Ctrl-T Ctrl-H shows the keys" if keys else ""
        )

    def _pass_bytes(self) -> MonitorCommand | None:
        assert self._transport is not None
        while True:
            data = self._transport.read(POLL_S)
            if data:
                self._console.feed(data)
            ended = self._handle_keys()
            if ended is not None:
                return ended

    def _wait_back(self, error: TransportLost) -> MonitorCommand | None:
        """Wait until the device is back (None), or a key ends the monitor."""
        self._close()
        self._console.cut()
        self._console.note(f"{error}; waiting for it to come back", urgent=True, log=True)
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
            self._console.note(f"{self._transport.info.name} is back", urgent=True, log=True)
            return None

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
            play(
                transport,
                application_steps(transport.info)
                if into is MonitorCommand.RESET
                else loader_steps(transport.info),
            )
            if self._options.dtr:
                transport.set_lines(dtr=True)

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
