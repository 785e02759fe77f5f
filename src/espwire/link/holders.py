"""Which process holds a port, where the system tells (Linux: /proc). Opens no port and stops nobody."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from espwire.values import dataclass

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
