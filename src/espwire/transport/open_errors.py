"""From what the system says when a port does not open to the error that names the cause: who holds it, which group.

Opens nothing. pyserial tells some causes only in the text of its exception; those texts are read here and nowhere else.

Which process holds a port, where the system tells (Linux: /proc). Opens no port and stops nobody.
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
KINDS = {
    stat.S_IFREG: "a regular file",
    stat.S_IFDIR: "a directory",
    stat.S_IFBLK: "a block device",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
}
# pyserial: "Could not configure port: (25, '…')"; Windows: "could not open port 'COM3': OSError(22, '…', None, 121)"
_INNER_NUMBER = re.compile(r"\((\d+), ")
_WINDOWS_CODE = re.compile(r", None, (\d+)\)")
DEVICE_FAILS = frozenset(
    {"31", "121", "433", "1167"}
)  # not functioning, no answer in time, not there, not connected


def open_error(name: str, error: OSError, *, posix: bool = POSIX) -> TransportError:
    """The TransportError for what the system said when the port was opened.

    Codes: ``port-not-found``, ``port-busy`` (details ``pid`` and ``process`` where the system tells), ``port-denied``
    (details ``group``), ``not-a-serial-port``, ``cannot-open``.
    """
    text, number = str(error), error.errno
    if number is None and (inner := _INNER_NUMBER.search(text)) and posix:
        number = int(inner[1])
    # Windows says "access denied" for a port that another program holds
    if number in BUSY or "exclusively lock" in text or (not posix and "PermissionError" in text):
        return _busy(name)
    if number in DENIED:
        return _denied(name)
    if (what := _no_serial_port(name, number if posix else None)) is not None:
        return PortNotFound(
            f"{name} is {what}, not a serial port",
            hint="Name a serial port, such as /dev/ttyUSB0 or COM3; `espwire ports` lists them.",
            code="not-a-serial-port",
        )
    if number in GONE or "FileNotFoundError" in text:
        return PortNotFound(f"there is no port {name}")
    said = _WINDOWS_CODE.search(text)
    broken = number == errno.EIO or (said is not None and said[1] in DEVICE_FAILS)
    hint = (
        "Unplug the board and plug it in again; then look at its driver."
        if broken
        else "Is it a serial port?"
    )
    return PortNotFound(f"{name} cannot be opened: {text}", code="cannot-open", hint=hint)


def _busy(name: str) -> PortBusy:
    holder = find_holder(name)
    if holder is None:
        return PortBusy(f"another program uses {name}")
    details: dict[str, Any] = {"pid": holder.pid, "process": holder.name}
    if holder.pid == os.getpid():
        return PortBusy(
            f"this program has {name} open already",
            hint="Close it first: one port, one user.",
            **details,
        )
    who = f"{holder.name or 'a program'} (process {holder.pid})"
    return PortBusy(f"{who} uses {name}", hint=f"Close {who}, then try again.", **details)


def _denied(name: str) -> PortDenied:
    message = f"the system does not let you open {name}"
    try:
        status = os.stat(name)
    except OSError:
        return PortDenied(message)
    shown, group = stat.filemode(status.st_mode), _group_name(status.st_gid)
    details: dict[str, Any] = {"mode": shown}
    if not group:
        return PortDenied(message, **details)
    details["group"] = group
    if status.st_mode & (stat.S_IRGRP | stat.S_IWGRP) != stat.S_IRGRP | stat.S_IWGRP:
        hint = f"Its permissions ({shown}) keep its group out, too: correct them, on Linux by a udev rule."
        return PortDenied(message, hint=hint, **details)
    if _is_member(group):
        hint = f"You were added to the group {group}: log in again to make it count."
    else:
        hint = (
            f"Join its group {group} (on Linux: sudo usermod -aG {group} $USER), then log in again."
        )
    return PortDenied(f"{message}: it belongs to the group {group}", hint=hint, **details)


def _group_name(gid: int) -> str:
    """The group's name; empty where groups have none."""
    if sys.platform != "win32":
        import grp

        try:
            return grp.getgrgid(gid).gr_name
        except KeyError:
            return str(gid)
    else:
        return ""


def _is_member(group: str) -> bool:
    """Whether the user is in the group by the system's records; this session may be older than them."""
    if sys.platform != "win32":
        import grp
        import pwd

        try:
            return pwd.getpwuid(os.geteuid()).pw_name in grp.getgrnam(group).gr_mem
        except KeyError:
            return False
    else:
        return False


def _no_serial_port(name: str, number: int | None) -> str | None:
    """What there is under the name, if it can be no serial port; None: it can, or nothing is there."""
    try:
        kind = stat.S_IFMT(os.stat(name).st_mode)
    except (OSError, ValueError):
        return None
    if kind in KINDS:
        return KINDS[kind]
    return "a device of another kind" if number in NO_TERMINAL else None


PROC = Path("/proc")
NAME_LIMIT = 64


@dataclass(frozen=True)
class Holder:
    """A process that has the port open. ``name`` is what the system calls it; empty if it has just gone."""

    pid: int
    name: str


def find_holder(path: str, *, proc: Path = PROC) -> Holder | None:
    """The first process (lowest number) that has the port open; None: nobody, or one that we may not look into."""
    return find_holders([path], proc=proc).get(path)


def find_holders(paths: Iterable[str], *, proc: Path = PROC) -> dict[str, Holder]:
    """The same for many ports in one look at all processes. Processes of other users stay unseen."""
    wanted: dict[str, list[str]] = {}
    for path in paths:
        wanted.setdefault(os.path.realpath(path), []).append(path)
    found: dict[str, Holder] = {}
    for pid in _processes(proc) if wanted else ():
        for target in _open_files(proc / str(pid)):
            for path in wanted.get(target, ()):
                if path not in found:
                    found[path] = Holder(pid, _name(proc / str(pid)))
    return found


def _processes(proc: Path) -> list[int]:
    with contextlib.suppress(OSError):
        return sorted(int(entry) for entry in os.listdir(proc) if entry.isdecimal())
    return []  # not Linux, or no /proc here


def _open_files(process: Path) -> Iterator[str]:
    with contextlib.suppress(OSError):  # not ours to see, or gone
        for entry in os.listdir(process / "fd"):
            with contextlib.suppress(OSError):
                yield os.readlink(process / "fd" / entry)


def _name(process: Path) -> str:
    with contextlib.suppress(OSError):
        text = (process / "comm").read_text("utf-8", "replace").strip()
        return "".join(sign for sign in text if sign.isprintable())[:NAME_LIMIT]
    return ""
