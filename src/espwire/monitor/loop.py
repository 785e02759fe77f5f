"""The monitor's loop: carries bytes between port, screen and keyboard; follows a device that goes and comes back.

A port by its name alone, for what has no identity of its own: URLs, pseudo-terminals. Comes back by that name.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

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
from espwire.monitor.keys import HELP, Do, Keys, Send
from espwire.monitor.terminal import Keyboard
from espwire.transport.base import CancelToken, Transport, TransportInfo
from espwire.transport.url import open_transport

POLL_S = 0.02  # a key waits no longer than that
LOOK_S = 0.2  # one look for a device that went
PATIENCE = 15  # looks: then what keeps it from being opened is told
SLICE = 64  # bytes written between two looks at what comes
WRITE_LIMIT_S = 2.0


class Port(Protocol):
    """What the monitor needs of a port."""

    def open(self, *, baud: int = ..., cancel: CancelToken | None = ...) -> Transport:
        """Open it. TransportError."""

    def wait_back(self, seconds: float, *, cancel: CancelToken | None = ...) -> Port:
        """The same device again, perhaps under another name. PortNotFound."""


@dataclass(frozen=True, kw_only=True)
class Wishes:
    """What is asked of a run.

    :param baud: the rate
    :param reset: reset into the application at the start
    :param dtr: assert DTR while the port is open
    :param eol: what Enter sends
    """

    baud: int = 115200
    reset: bool = False
    dtr: bool = False
    eol: bytes = b"\r"


class Monitor:
    """One run. ``run`` returns when a key asks for it; errors and the system's Ctrl-C pass, the port closed."""

    def __init__(
        self,
        port: Port,
        console: Console,
        *,
        keyboard: Keyboard | None = None,
        wishes: Wishes | None = None,
        cancel: CancelToken | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._port, self._console, self._keyboard = port, console, keyboard
        self._wishes = wishes or Wishes()
        self._keys = Keys(eol=self._wishes.eol)
        self._cancel, self._pause = cancel or CancelToken(), pause
        self._transport: Transport | None = None

    def run(self) -> Do:
        """Carry until a key ends it: ``Do.QUIT`` or ``Do.INTERRUPT``.

        :raises TransportError: the port cannot be opened at the start
        """
        try:
            self._open()
            self._note(self._greeting())
            reset = self._wishes.reset
            while True:
                try:
                    if reset:
                        reset = False
                        self._reset(Do.RESET)
                    ended = self._carry()
                except TransportLost as error:
                    ended = self._follow(error)
                if ended is not None:
                    return ended
        finally:
            self._close()
            self._console.cut()

    def _open(self) -> None:
        self._transport = self._port.open(baud=self._wishes.baud, cancel=self._cancel)
        if self._wishes.dtr:
            self._transport.set_lines(dtr=True)
        self._console.baud = self._wishes.baud if self._transport.info.can_change_baud else None

    def _close(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            transport.close()

    def _greeting(self) -> str:
        assert self._transport is not None
        info = self._transport.info
        rate = f" at {self._wishes.baud} baud" if info.can_change_baud else ""
        return f"{info.name}{rate}" + (
            "" if self._keyboard is None else "; Ctrl-] quits, Ctrl-T Ctrl-H tells the keys"
        )

    def _carry(self) -> Do | None:
        assert self._transport is not None
        while True:
            data = self._transport.read(POLL_S)
            if data:
                self._console.feed(data)
            ended = self._obey()
            if ended is not None:
                return ended

    def _follow(self, error: TransportLost) -> Do | None:
        """Wait for the device; a key may end that, None: it is back."""
        self._close()
        self._console.cut()
        self._console.note(f"{error}; waiting for it to come back", urgent=True, log=True)
        failures = 0
        while True:
            ended = self._obey()
            if ended is not None:
                return ended
            try:
                self._port = self._port.wait_back(LOOK_S, cancel=self._cancel)
            except PortNotFound:
                continue
            try:
                self._open()
            except TransportError as failure:
                self._close()
                failures = 0 if isinstance(failure, PortNotFound) else failures + 1
                if failures == PATIENCE:
                    self._console.note(f"{failure}: {failure.hint}", urgent=True)
                self._pause(LOOK_S)
                continue
            assert self._transport is not None
            self._console.note(f"{self._transport.info.name} is back", urgent=True, log=True)
            return None

    def _obey(self) -> Do | None:
        if self._keyboard is None:
            return None
        typed = self._keyboard.read()
        if typed is None:
            return Do.QUIT  # the terminal is gone
        for action in self._keys.feed(typed):
            match action:
                case Send():
                    self._send(action.data)
                case Do.QUIT | Do.INTERRUPT:
                    return action
                case Do.RESET | Do.LOADER:
                    self._reset(action)
                case Do.LOG:
                    self._toggle_log()
                case Do.HELP:
                    self._note(HELP)
                case Do.UNKNOWN:
                    self._note("Ctrl-T has no such key; Ctrl-T Ctrl-H tells them")
        return None

    def _send(self, data: bytes) -> None:
        transport = self._transport
        if transport is None:
            return  # nobody is there to hear it
        for start in range(0, len(data), SLICE):
            try:
                transport.write(data[start : start + SLICE], transport.now() + WRITE_LIMIT_S)
            except TransportLost as error:
                if error.code != "write-timeout":
                    raise
                self._note("the port takes no bytes: what you typed is dropped")
                return
            said = transport.read(0)
            if said:
                self._console.feed(said)

    def _reset(self, into: Do) -> None:
        transport = self._transport
        if transport is None:
            self._note("the port is gone: nothing to reset")
        elif not transport.info.can_reset:
            self._note("this port cannot reset the chip: press its reset button")
        else:
            self._note(into.value)
            play(
                transport,
                application_steps(transport.info)
                if into is Do.RESET
                else loader_steps(transport.info),
            )
            if self._wishes.dtr:
                transport.set_lines(dtr=True)

    def _toggle_log(self) -> None:
        log = self._console.log
        if log is None:
            self._note("there is no log file: start with --log FILE")
        else:
            self._note(f"log {log.name}: {'on' if log.toggle() else 'off'}")

    def _note(self, text: str) -> None:
        self._console.note(text)


def application_steps(info: TransportInfo) -> Sequence:
    """How to start the application behind this port."""
    if is_usb_jtag(info) or info.kind == "usb-otg":
        return SEQUENCES["hard_usb"]
    return SEQUENCES["hard_flow_control" if needs_flow_control(info) else "hard"]


def loader_steps(info: TransportInfo) -> Sequence:
    """How to get into the loader behind this port: what is tried first when connecting."""
    return find_sequence(sequence_names(info, "default-reset")[0], info)


POLL_S = 0.05


class NamedPort:
    """Opens ``name``; after a loss, waits until something has that name again."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._is_path = (
            os.name == "posix" and "://" not in name and not name.lower().startswith("virtual:")
        )

    def open(self, *, baud: int = 115200, cancel: CancelToken | None = None) -> Transport:
        """Open it.

        :raises TransportError: it cannot be opened
        """
        return open_transport(self.name, baud=baud, cancel=cancel)

    def wait_back(self, seconds: float, *, cancel: CancelToken | None = None) -> NamedPort:
        """Wait until there is something to open; for what cannot be looked at, at once.

        :raises PortNotFound: there is nothing after ``seconds``
        """
        end = time.monotonic() + seconds
        while self._is_path and not os.path.exists(self.name):
            if cancel is not None:
                cancel.check()
            if time.monotonic() >= end:
                raise PortNotFound(f"there is no port {self.name}")
            time.sleep(POLL_S)
        return self
