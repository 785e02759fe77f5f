"""Why a serial port does not open: turns the system's error into one that names the cause and the next step.

pyserial reports some causes only in the text of its exceptions; this module is the only one that reads those texts. On
Linux, ``/proc`` shows which process has the port open.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from espwire.errors import PortBusy, PortDenied, PortNotFound, TransportError

POSIX = os.name == "posix"
GONE = (errno.ENOENT, errno.ENXIO, errno.ENODEV)
BUSY = (errno.EBUSY, errno.EAGAIN, errno.EWOULDBLOCK)
DENIED = (errno.EACCES, errno.EPERM)
NO_TERMINAL = (errno.ENOTTY, errno.EISDIR, errno.EINVAL)
FILE_KINDS = {
    stat.S_IFREG: "a regular file",
    stat.S_IFDIR: "a directory",
    stat.S_IFBLK: "a block device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}
# pyserial: "Could not configure port: (25, '…')"; Windows: "could not open port 'COM3': OSError(22, '…', None, 121)"
_INNER_NUMBER = re.compile(r"\((\d+), ")
_WINDOWS_CODE = re.compile(r", None, (\d+)\)")
# Windows: device not functioning, timed out, unreachable, not connected
DEVICE_FAILURES = frozenset({"31", "121", "433", "1167"})
PROC = Path("/proc")
NAME_LIMIT = 64


@contextlib.contextmanager
def naming_pyserial() -> Iterator[None]:
    """Turn a failing import of pyserial into an error with the repair.

    pyserial and pyserial-labgrid have the same files, so that uninstalling either of them breaks the other; the package
    ``serial`` of another project has the same name.

    :raises TransportError: code ``pyserial-broken``
    """
    try:
        yield
    except (ImportError, AttributeError) as error:
        raise TransportError(
            f"the installation of pyserial is damaged: {error}",
            hint="Repair it with `pip install --force-reinstall --no-deps pyserial`"
            " (pyserial-labgrid, if you use labgrid).",
            code="pyserial-broken",
        ) from None


def open_error(name: str, error: OSError, *, posix: bool = POSIX) -> TransportError:
    """The error to raise when the system cannot open the port ``name``.

    Codes: ``port-not-found``, ``port-busy`` (details ``pid`` and ``process`` where known), ``port-denied``
    (detail ``group``), ``not-a-serial-port``, ``cannot-open``.
    """
    text, number = str(error), error.errno
    if number is None and (inner := _INNER_NUMBER.search(text)) and posix:
        number = int(inner[1])
    # Windows reports "access denied" for a port that another program has open
    if number in BUSY or "exclusively lock" in text or (not posix and "PermissionError" in text):
        return _busy(name)
    if number in DENIED:
        return _denied(name)
    if (kind := _find_other_kind(name, number if posix else None)) is not None:
        return PortNotFound(
            f"{name} is {kind}, not a serial port",
            hint="Use a serial port such as /dev/ttyUSB0 or COM3; `espwire ports` lists them.",
            code="not-a-serial-port",
        )
    if number in GONE or "FileNotFoundError" in text:
        return PortNotFound(f"port {name} not found")
    windows_code = _WINDOWS_CODE.search(text)
    broken = number == errno.EIO or (windows_code and windows_code[1] in DEVICE_FAILURES)
    hint = (
        "Unplug the board and plug it in again, or check its driver."
        if broken
        else "Check that it is a serial port."
    )
    return PortNotFound(f"cannot open {name}: {text}", code="cannot-open", hint=hint)


def _busy(name: str) -> PortBusy:
    holder = find_holder(name)
    if holder is None:
        return PortBusy(f"{name} is in use by another program")
    details: dict[str, Any] = {"pid": holder.pid, "process": holder.name}
    if holder.pid == os.getpid():
        return PortBusy(
            f"{name} is already open in this program",
            hint="Close it before opening it again.",
            **details,
        )
    program = holder.name or "another program"
    return PortBusy(
        f"{name} is in use by {program} (process {holder.pid})",
        hint=f"Close {holder.name or f'process {holder.pid}'}, or choose another port with -p.",
        **details,
    )


def _denied(name: str) -> PortDenied:
    message = f"no permission to open {name}"
    try:
        status = os.stat(name)
    except OSError:
        return PortDenied(message)
    mode, group = stat.filemode(status.st_mode), _group_name(status.st_gid)
    details: dict[str, Any] = {"mode": mode}
    if not group:
        return PortDenied(message, **details)
    details["group"] = group
    if status.st_mode & (stat.S_IRGRP | stat.S_IWGRP) != stat.S_IRGRP | stat.S_IWGRP:
        hint = f"Its permissions ({mode}) exclude its group, too. On Linux, change them with a udev rule."
        return PortDenied(message, hint=hint, **details)
    hint = (
        f"You were added to the group {group} after you logged in: log in again."
        if _is_member(group)
        else f"Join the group {group} (on Linux: sudo usermod -aG {group} $USER), then log in again."
    )
    return PortDenied(f"{message}: it belongs to the group {group}", hint=hint, **details)


def _group_name(gid: int) -> str:
    """The group's name, or its number; empty on Windows."""
    if sys.platform != "win32":
        import grp

        try:
            return grp.getgrgid(gid).gr_name
        except KeyError:
            return str(gid)
    else:
        return ""


def _is_member(group: str) -> bool:
    """Whether the system lists the user in the group; the running session may be older."""
    if sys.platform != "win32":
        import grp
        import pwd

        try:
            return pwd.getpwuid(os.geteuid()).pw_name in grp.getgrnam(group).gr_mem
        except KeyError:
            return False
    else:
        return False


def _find_other_kind(name: str, number: int | None) -> str | None:
    """What the path is, if it cannot be a serial port; None: it can be one, or does not exist."""
    try:
        kind = stat.S_IFMT(os.stat(name).st_mode)
    except (OSError, ValueError):
        return None
    if kind in FILE_KINDS:
        return FILE_KINDS[kind]
    return "a device of another kind" if number in NO_TERMINAL else None


@dataclass(frozen=True)
class Holder:
    """A process that has a port open. ``name`` is empty if the process has just ended."""

    pid: int
    name: str


def find_holder(path: str, *, proc: Path = PROC) -> Holder | None:
    """The process with the lowest number that has the port open; None: no process, or another user's."""
    return find_holders([path], proc=proc).get(path)


def find_holders(paths: Iterable[str], *, proc: Path = PROC) -> dict[str, Holder]:
    """The same for many ports, with one scan of all processes."""
    by_target: dict[str, list[str]] = {}
    for path in paths:
        by_target.setdefault(os.path.realpath(path), []).append(path)
    holders: dict[str, Holder] = {}
    for pid in _list_processes(proc) if by_target else ():
        for target in _list_open_files(proc / str(pid)):
            for path in by_target.get(target, ()):
                if path not in holders:
                    holders[path] = Holder(pid, _read_name(proc / str(pid)))
    return holders


def _list_processes(proc: Path) -> list[int]:
    with contextlib.suppress(OSError):  # not Linux, or /proc is not mounted
        return sorted(int(entry) for entry in os.listdir(proc) if entry.isdecimal())
    return []


def _list_open_files(process: Path) -> Iterator[str]:
    with contextlib.suppress(OSError):  # another user's process, or it has ended
        for entry in os.listdir(process / "fd"):
            with contextlib.suppress(OSError):
                yield os.readlink(process / "fd" / entry)


def _read_name(process: Path) -> str:
    with contextlib.suppress(OSError):
        text = (process / "comm").read_text("utf-8", "replace").strip()
        return "".join(sign for sign in text if sign.isprintable())[:NAME_LIMIT]
    return ""
