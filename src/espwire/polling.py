"""Waits until a file descriptor can be read or written, also one above 1023, which ``select`` cannot take."""

from __future__ import annotations

import sys

SELECT_LIMIT = 1024  # FD_SETSIZE of the usual systems; on Windows it limits the number of sockets, not their value


def wait_ready(descriptor: int, seconds: float, *, write: bool = False) -> bool:
    """Whether reading (or writing) would not block, after at most ``seconds``. An error or a hang-up counts as ready.

    :raises OSError, ValueError: the descriptor is closed
    """
    import select

    if sys.platform != "win32" and descriptor >= SELECT_LIMIT:
        poller = select.poll()
        poller.register(descriptor, select.POLLOUT if write else select.POLLIN)
        return bool(poller.poll(max(0.0, seconds) * 1000))
    read, written = ([], [descriptor]) if write else ([descriptor], [])
    # Windows reports a connection that failed as an exceptional condition only
    return any(select.select(read, written, written, max(0.0, seconds)))
