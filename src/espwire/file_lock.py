"""Advisory locks on open files, against a second user in this process or another one.

A lock ends with ``unlock``, or when the system closes the file, so a killed process leaves none behind.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys

HELD = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES})
LOCKED_BYTE = 0x7FFFFFF0  # on Windows a lock also keeps others from reading: this byte is past the end of any flash


def lock(descriptor: int, *, shared: bool = False) -> bool:
    """Take the lock without waiting. False: somebody else has it. A file system without locks grants every lock.

    :param shared: together with others that share it
    """
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno not in HELD
        return True
    else:  # noqa: RET505  the other platform's branch, told apart by the type checker
        return _lock_byte(descriptor, unlocking=False)


def unlock(descriptor: int) -> None:
    """Release the lock, also for copies of the descriptor."""
    if sys.platform != "win32":
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    else:
        _lock_byte(descriptor, unlocking=True)


if sys.platform == "win32":

    def _lock_byte(descriptor: int, *, unlocking: bool) -> bool:
        import msvcrt

        position = os.lseek(descriptor, 0, os.SEEK_CUR)
        try:
            os.lseek(descriptor, LOCKED_BYTE, os.SEEK_SET)
            msvcrt.locking(descriptor, msvcrt.LK_UNLCK if unlocking else msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        finally:
            os.lseek(descriptor, position, os.SEEK_SET)
        return True
