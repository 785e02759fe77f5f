"""The monitor's loop: carries bytes between port, screen and keyboard; follows a device that goes and comes back."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Protocol

from espwire.device.lines import (
    SEQUENCES,
    Sequence,
    find_sequence,
    is_usb_jtag,
    needs_flow_control,
    play,
    sequence_names,
)
from espwire.errors import LinkError, LinkLost, PortNotFound
from espwire.link.base import CancelToken, Link, LinkInfo
from espwire.monitor.console import Console
from espwire.monitor.keys import HELP, Do, Keys, Send
from espwire.monitor.terminal import Keyboard
from espwire.values import dataclass

POLL_S = 0.02  # a key waits no longer than that
LOOK_S = 0.2  # one look for a device that went
PATIENCE = 15  # looks: then what keeps it from being opened is told
SLICE = 64  # bytes written between two looks at what comes
WRITE_LIMIT_S = 2.0


class Port(Protocol):
    """What the monitor needs of a port."""

    def open(self, *, baud: int = ..., cancel: CancelToken | None = ...) -> Link:
        """Open it. LinkError."""

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
        self._link: Link | None = None

    def run(self) -> Do:
        """Carry until a key ends it: ``Do.QUIT`` or ``Do.INTERRUPT``.

        :raises LinkError: the port cannot be opened at the start
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
                except LinkLost as error:
                    ended = self._follow(error)
                if ended is not None:
                    return ended
        finally:
            self._close()
            self._console.cut()

    def _open(self) -> None:
        self._link = self._port.open(baud=self._wishes.baud, cancel=self._cancel)
        if self._wishes.dtr:
            self._link.set_lines(dtr=True)
        self._console.baud = self._wishes.baud if self._link.info.can_change_baud else None

    def _close(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.close()

    def _greeting(self) -> str:
        assert self._link is not None
        info = self._link.info
        rate = f" at {self._wishes.baud} baud" if info.can_change_baud else ""
        return f"{info.name}{rate}" + ("" if self._keyboard is None else "; Ctrl-] quits, Ctrl-T Ctrl-H tells the keys")

    def _carry(self) -> Do | None:
        assert self._link is not None
        while True:
            data = self._link.read(POLL_S)
            if data:
                self._console.feed(data)
            ended = self._obey()
            if ended is not None:
                return ended

    def _follow(self, error: LinkLost) -> Do | None:
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
            except LinkError as failure:
                self._close()
                failures = 0 if isinstance(failure, PortNotFound) else failures + 1
                if failures == PATIENCE:
                    self._console.note(f"{failure}: {failure.hint}", urgent=True)
                self._pause(LOOK_S)
                continue
            assert self._link is not None
            self._console.note(f"{self._link.info.name} is back", urgent=True, log=True)
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
        link = self._link
        if link is None:
            return  # nobody is there to hear it
        for start in range(0, len(data), SLICE):
            try:
                link.write(data[start : start + SLICE], link.now() + WRITE_LIMIT_S)
            except LinkLost as error:
                if error.code != "write-timeout":
                    raise
                self._note("the port takes no bytes: what you typed is dropped")
                return
            said = link.read(0)
            if said:
                self._console.feed(said)

    def _reset(self, into: Do) -> None:
        link = self._link
        if link is None:
            self._note("the port is gone: nothing to reset")
        elif not link.info.can_reset:
            self._note("this port cannot reset the chip: press its reset button")
        else:
            self._note(into.value)
            play(link, application_steps(link.info) if into is Do.RESET else loader_steps(link.info))
            if self._wishes.dtr:
                link.set_lines(dtr=True)

    def _toggle_log(self) -> None:
        log = self._console.log
        if log is None:
            self._note("there is no log file: start with --log FILE")
        else:
            self._note(f"log {log.name}: {'on' if log.toggle() else 'off'}")

    def _note(self, text: str) -> None:
        self._console.note(text)


def application_steps(info: LinkInfo) -> Sequence:
    """How to start the application behind this port."""
    if is_usb_jtag(info) or info.kind == "usb-otg":
        return SEQUENCES["hard_usb"]
    return SEQUENCES["hard_flow_control" if needs_flow_control(info) else "hard"]


def loader_steps(info: LinkInfo) -> Sequence:
    """How to get into the loader behind this port: what is tried first when connecting."""
    return find_sequence(sequence_names(info, "default-reset")[0], info)
