"""The keyboard, key by key: raw on POSIX, by the console's functions on Windows. What it changes, it puts back."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, Protocol

from espwire.streams import wait_ready

CHUNK = 1024


class Keyboard(Protocol):
    """Where keys come from."""

    def read(self) -> bytes | None:
        """What was typed since, maybe nothing; None: there is no keyboard any more."""


@contextmanager
def open_keyboard(descriptor: int) -> Iterator[Keyboard]:
    """The keyboard of the terminal behind ``descriptor``; its settings are restored however the block ends."""
    if sys.platform == "win32":
        yield _ConsoleKeyboard()
    else:
        import termios

        before = termios.tcgetattr(descriptor)
        try:
            _set_keywise(descriptor)
            yield _TerminalKeyboard(descriptor)
        finally:
            with suppress(termios.error):  # the terminal is gone, and with it the need
                termios.tcsetattr(descriptor, termios.TCSANOW, before)


def is_foreground(descriptor: int) -> bool:
    """Whether keys typed there are ours: not so for a job in the background, which the system would stop."""
    if sys.platform != "win32":
        try:
            return os.tcgetpgrp(descriptor) == os.getpgrp()
        except OSError:
            return False
    else:
        return True


if sys.platform == "win32":
    # second half of a special key → what a terminal would send
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
        """Windows' console."""

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
        """Each key at once, none of them with a meaning to the system; output stays as it is."""
        import termios

        attributes: list[Any] = termios.tcgetattr(descriptor)  # a list of unlike things
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
        """A terminal of POSIX whose keys come one by one."""

        def __init__(self, descriptor: int) -> None:
            self._descriptor = descriptor

        def read(self) -> bytes | None:
            try:
                if not wait_ready(self._descriptor, 0):
                    return b""
                return os.read(self._descriptor, CHUNK) or None
            except OSError:
                return None
