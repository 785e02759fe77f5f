"""Reads the keyboard key by key: a raw terminal on POSIX, the console on Windows. Restores the terminal's settings."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from espwire.streams import wait_ready

CHUNK = 1024


class Keyboard(Protocol):
    """A source of keys."""

    def read(self) -> bytes | None:
        """Return the input since the last call, perhaps empty; None: the keyboard is gone."""


@contextmanager
def open_keyboard(descriptor: int) -> Iterator[Keyboard]:
    """The keyboard of the terminal ``descriptor``; its settings are restored when the block ends.

    Keys that were pressed before are discarded.
    """
    if sys.platform == "win32":
        keyboard = _ConsoleKeyboard()
        keyboard.read()
        yield keyboard
    else:
        import termios

        before = termios.tcgetattr(descriptor)
        try:
            _set_keywise(descriptor)
            termios.tcflush(
                descriptor, termios.TCIFLUSH
            )  # keys that were meant for what ran before
            yield _TerminalKeyboard(descriptor)
        finally:
            with suppress(termios.error):  # the terminal was closed
                termios.tcsetattr(descriptor, termios.TCSANOW, before)


def is_foreground(descriptor: int) -> bool:
    """Whether this process may read keys: the system stops a background job that tries."""
    if sys.platform != "win32":
        try:
            return os.tcgetpgrp(descriptor) == os.getpgrp()
        except OSError:
            return False
    else:
        return True


if sys.platform == "win32":
    # second half of a special key → end of a terminal's escape sequence
    _SPECIAL = {
        "H": "A",
        "P": "B",
        "M": "C",
        "K": "D",
        "G": "H",
        "O": "F",
        "S": "3~",
        "R": "2~",
        "I": "5~",
        "Q": "6~",
    }

    class _ConsoleKeyboard:
        """The console of Windows."""

        def read(self) -> bytes | None:
            import msvcrt

            typed = ""
            while msvcrt.kbhit() and len(typed) < CHUNK:
                sign = msvcrt.getwch()
                if sign in "\x00\xe0":
                    final = _SPECIAL.get(msvcrt.getwch())
                    sign = f"\x1b[{final}" if final else ""
                typed += sign
            return typed.encode("utf-8", "replace")

else:

    def _set_keywise(descriptor: int) -> None:
        """Deliver each key immediately and without special meaning; output stays unchanged."""
        import termios

        attributes: list[Any] = termios.tcgetattr(descriptor)
        attributes[0] &= ~(
            termios.BRKINT
            | termios.ICRNL
            | termios.INLCR
            | termios.IGNCR
            | termios.ISTRIP
            | termios.IXON
        )
        attributes[3] &= ~(
            termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN
        )
        attributes[6][termios.VMIN], attributes[6][termios.VTIME] = 1, 0
        termios.tcsetattr(descriptor, termios.TCSANOW, attributes)

    class _TerminalKeyboard:
        """A POSIX terminal that delivers single keys."""

        def __init__(self, descriptor: int) -> None:
            self._descriptor = descriptor

        def read(self) -> bytes | None:
            try:
                if not wait_ready(self._descriptor, 0):
                    return b""
                return os.read(self._descriptor, CHUNK) or None
            except OSError:
                return None
