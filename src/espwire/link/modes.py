"""What a serial port can do beyond pyserial's settings: tell its true rate, answer at once, be ours alone.

Every function is for an open port and does nothing where system or driver have no such thing.
"""

from __future__ import annotations

import contextlib
import struct
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import serial

TERMIOS2 = struct.Struct("=4I20x2I")  # flags of input, output, control, local; line and signs; rates in and out
TCGETS2 = 0x802C542A  # Linux on x86, ARM and RISC-V; where it is another number, the call fails and says nothing
UNLOCKED = ("/dev/pts/", "/dev/ttys")  # pseudo terminals: TIOCEXCL would outlive a client that was killed


def read_baud(fd: int) -> int | None:
    """The rate that the driver really set, which may be another one than asked for; None if it does not tell."""
    if sys.platform == "linux":
        import fcntl

        try:
            told: int = TERMIOS2.unpack(fcntl.ioctl(fd, TCGETS2, bytes(TERMIOS2.size)))[5]
        except OSError:
            return None
        return told or None
    else:  # noqa: RET505  the other platforms' branch, told apart by the type checker
        return None


def set_low_latency(port: serial.Serial) -> None:
    """Ask the driver to hand over each byte at once, where it has such a mode (FTDI waits 16 ms without)."""
    switch = getattr(port, "set_low_latency_mode", None)
    if switch is not None:
        with contextlib.suppress(OSError, ValueError, NotImplementedError):
            switch(True)


def keep_others_out(fd: int, name: str) -> None:
    """Let no program open the port again while it is ours, also those that look at no lock."""
    if sys.platform != "win32":
        import fcntl
        import os
        import termios

        if not os.path.realpath(name).startswith(UNLOCKED):
            with contextlib.suppress(OSError):
                fcntl.ioctl(fd, termios.TIOCEXCL)


def let_others_in(fd: int) -> None:
    """Undo ``keep_others_out`` before closing: another handle of ours, in a child say, could keep it up."""
    if sys.platform != "win32" and fd >= 0:
        import fcntl
        import termios

        with contextlib.suppress(OSError):
            fcntl.ioctl(fd, termios.TIOCNXCL)
