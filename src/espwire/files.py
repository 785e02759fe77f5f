"""Reads input files whole, and writes output files whole or not at all. Knows no file format.

An output file is written under a random name beside its final place and renamed into it, so that an error, a full disk
or a signal leaves either the old file or none. What a name may stand for as an output:

=====================================  ================================================================
nothing yet                            a new file appears
a regular file                         it is replaced, permissions and owner stay; an error if write-protected
a symbolic link to a regular file      the link stays, its target is replaced
a symbolic link to nothing             an error, code ``dangling-link``
a pipe, a character device             written in place once the content is complete; see ``streams.py``
a folder, a name that ends in ``/``    an error
a block device, a socket               an error
=====================================  ================================================================

Advisory locks on open files, against a second user in this process or another one.

A lock ends with ``unlock``, or when the system closes the file, so a killed process leaves none behind.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import itertools
import os
import stat
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO

from espwire.errors import FileError, UsageError
from espwire.streams import (
    BINARY,
    NO_BLOCKING,
    StreamWriter,
    find_descriptor,
    is_stream,
    open_writer,
    read_most,
)

NO_ROOM = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})
INPUT_LIMIT = 256 * 0x100000  # twice the largest flash: anything above is surely the wrong file


def read_file(path: str | os.PathLike[str], *, limit: int = INPUT_LIMIT) -> bytes:
    """The whole file, at most ``limit`` bytes.

    :raises FileError: it cannot be read, or is larger
    """
    with _naming("read", path):
        data = read_most(path, limit + 1)
    if len(data) > limit:
        raise FileError(
            f"{os.fspath(path)} is larger than {limit // 0x100000} MiB",
            hint="Check that it is the right file.",
            code="file-too-large",
        )
    return data


def check_total_size(paths: Iterable[str | os.PathLike[str]], *, limit: int = INPUT_LIMIT) -> None:
    """Refuse files that together are larger than any flash, before one of them is read.

    A file that is named more than once counts each time, since each time it is data. What cannot be examined counts as
    empty: reading it fails with a better message, or is bounded by ``read_file``.

    :raises FileError: code ``files-too-large``
    """
    total = 0
    for count, path in enumerate(paths, 1):
        with contextlib.suppress(OSError, ValueError):
            total += os.stat(path).st_size
        if total > limit:
            raise FileError(
                f"the first {count} files hold {total:,} bytes together, more than {limit // 0x100000} MiB",
                hint="Check which files are named: no flash is that large.",
                code="files-too-large",
            )


def list_files(
    folder: str | os.PathLike[str],
    *,
    endings: tuple[str, ...],
    skip: Mapping[str, tuple[str, ...]],
    depth: int,
    most: int,
) -> tuple[str, ...]:
    """Paths below ``folder``, relative and with ``/``, of files whose names end in one of ``endings``.

    :param skip: name of a folder not to look into → endings of names, one of which must be in the same folder for that
        (none: in any case); hidden ones but ``.pio`` are not looked into either
    :param depth: how many folders deep
    :param most: how many entries to look at
    :raises FileError: it cannot be listed, or holds more than ``most`` entries
    """
    found: list[str] = []
    waiting, seen = [""], 0
    with _naming("list", folder):
        while waiting:
            below = waiting.pop()
            with os.scandir(os.path.join(folder, below)) as listing:
                entries = list(itertools.islice(listing, most + 1))
            seen += len(entries)
            names = [entry.name for entry in entries]
            for entry in entries:
                name = f"{below}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    hidden = entry.name.startswith(".") and entry.name != ".pio"
                    if (
                        not hidden
                        and name.count("/") < depth - 1
                        and not _is_skipped(entry.name, names, skip)
                    ):
                        waiting.append(f"{name}/")
                elif entry.name.endswith(endings):
                    found.append(name)
            if seen > most:
                raise FileError(
                    f"{os.fspath(folder)} holds more than {most} files",
                    hint="Name the folder of the build itself.",
                    code="folder-too-large",
                )
    return tuple(sorted(found))


def _is_skipped(name: str, beside: Iterable[str], skip: Mapping[str, tuple[str, ...]]) -> bool:
    marks = skip.get(name)
    return marks is not None and (not marks or any(other.endswith(marks) for other in beside))


class OutputFile:
    """What ``open_output`` gives: something to write bytes to."""

    def __init__(self, file: BinaryIO | _Held, path: str | os.PathLike[str]) -> None:
        self._file, self._path = file, path

    def write(self, data: bytes | bytearray) -> None:
        """Append ``data``.

        :raises FileError: the disk is full, or the like
        """
        with _naming("write", self._path):
            self._file.write(data)

    def flush(self) -> None:
        """Have the system take it all.

        :raises FileError: the disk is full, or the like
        """
        with _naming("write", self._path):
            self._file.flush()


class _Held:
    """The content for a pipe or device, which gets it when it is complete: nothing can be taken back there."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: bytes | bytearray) -> None:
        self._pieces.append(bytes(data))

    def flush(self) -> None:
        pass

    def deliver(self, stream: StreamWriter) -> None:
        for piece in self._pieces:
            stream.write(piece)


def write_files(files: Sequence[tuple[str | os.PathLike[str], bytes]]) -> None:
    """Write several files that belong together: all of them or none.

    :raises FileError: one cannot be written
    """
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open_output(path, durable=False)) for path, _ in files]
        for file, (_, data) in zip(opened, files, strict=True):
            file.write(data)
        for (
            file
        ) in opened:  # a full disk shows here at the latest, before the first one gets its name
            file.flush()


def write_file(path: str | os.PathLike[str], data: bytes, *, private: bool = False) -> None:
    """Write ``data`` to ``path``, whole or not at all.

    :param private: nobody but this user may read it
    :raises FileError: it cannot be written
    """
    with open_output(path, durable=False, private=private) as file:
        file.write(data)


@contextlib.contextmanager
def open_output(
    path: str | os.PathLike[str], *, durable: bool = True, private: bool = False
) -> Iterator[OutputFile]:
    """A file to write to; it gets its name when the block ends well and vanishes when it does not.

    :param durable: it must be on the disk before it gets its name, so that a power cut leaves no empty file: for what
        came from a device, not for what can be made again
    :param private: nobody but this user may read it
    :raises FileError: it cannot be written; errors of the block itself pass as they are
    """
    with contextlib.ExitStack() as stack:
        with _naming("write", path):
            target, found = _find_target(path)
            if target is None:
                stream, held = stack.enter_context(contextlib.closing(open_writer(path))), _Held()
            else:
                if found is not None:
                    _hold_old(target, stack)
                place = stack.enter_context(unfinished(target))
                file = stack.enter_context(
                    _closing(_create(place, private=private or found is not None))
                )
        if target is None:
            yield OutputFile(held, path)
            with _naming("write", path):
                held.deliver(stream)
        else:
            yield OutputFile(file, path)
            with _naming("write", path):
                _finish(file, durable=durable, like=None if private else found)
                os.replace(place, target)


def _find_target(path: str | os.PathLike[str]) -> tuple[str | None, os.stat_result | None]:
    """The file to replace, links followed, and what is there now. No name: a pipe or device, to write in place.

    :raises FileError, OSError, ValueError: nothing can be written there
    """
    name = os.fspath(path)
    if os.path.basename(name) in ("", os.curdir, os.pardir):
        raise _cannot_write(name, "it names a folder, not a file", "Add the name of a file.")
    target = _follow_links(name)
    try:
        found = os.stat(name)
    except FileNotFoundError:
        return target, None
    if stat.S_ISDIR(found.st_mode):
        raise _cannot_write(name, "it is a folder", "Add the name of a file.")
    if is_stream(found.st_mode) or find_descriptor(name) is not None:
        return None, found
    if not stat.S_ISREG(found.st_mode):
        raise _cannot_write(
            name, "it is neither a file, nor a pipe, nor a character device", "Name a file."
        )
    if not os.access(target, os.W_OK):
        raise _cannot_write(
            name, "it is write-protected", "Change its permissions, or name another file."
        )
    return target, found


def _cannot_write(name: str, reason: str, hint: str) -> FileError:
    return FileError(f"cannot write {name!r}: {reason}", hint=hint, code="file-write")


def _follow_links(name: str) -> str:
    """The place that a path leads to.

    :raises FileError: code ``dangling-link``
    """
    if os.path.islink(name) and not os.path.exists(name):
        raise FileError(
            f"cannot write {name!r}: it is a symbolic link to {os.readlink(name)!r}, which does not exist",
            hint="Remove the link, or give the name of the file itself.",
            code="dangling-link",
        )
    return os.path.realpath(name)


def _hold_old(target: str, stack: contextlib.ExitStack) -> None:
    """Keep the old file as it is until it is replaced: no virtual chip may use it as its flash meanwhile.

    :raises FileError: code ``file-locked``
    """
    if os.name == "nt":  # there the system itself refuses to replace a file that is open
        return
    try:
        descriptor = os.open(target, os.O_RDONLY | NO_BLOCKING | BINARY)
    except OSError:  # it may be written, but not read
        return
    stack.callback(os.close, descriptor)
    if not lock(descriptor, shared=True):
        raise FileError(
            f"{target} is in use, as the flash of a virtual chip",
            hint="Stop that virtual chip, or write to another file.",
            code="file-locked",
        )


def _create(place: str, *, private: bool) -> BinaryIO:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | BINARY
    return os.fdopen(os.open(place, flags, 0o600 if private else 0o666), "wb")


@contextlib.contextmanager
def _closing(file: BinaryIO) -> Iterator[BinaryIO]:
    try:
        yield file
    finally:
        with contextlib.suppress(
            OSError
        ):  # closing again, or flushing to a full disk: the error is on its way
            file.close()


def _finish(file: BinaryIO, *, durable: bool, like: os.stat_result | None) -> None:
    """Everything is in the file, with the permissions of the one that it replaces."""
    file.flush()
    if like is not None and sys.platform != "win32":
        new = os.fstat(file.fileno())
        if (new.st_uid, new.st_gid) != (like.st_uid, like.st_gid):
            with contextlib.suppress(OSError):  # giving a file away takes privileges
                os.fchown(file.fileno(), like.st_uid, like.st_gid)
        os.fchmod(file.fileno(), stat.S_IMODE(like.st_mode))
    if durable:
        os.fsync(file.fileno())
    file.close()


_unfinished: dict[str, int] = {}  # name → process that writes it


@contextlib.contextmanager
def unfinished(target: str | os.PathLike[str]) -> Iterator[str]:
    """A random name beside ``target``; what has that name when the block ends is removed.

    A signal can interrupt the removal, too. Then it is done when the process exits.
    """
    folder, name = os.path.split(os.fspath(target))
    place = os.path.join(folder, f".{name[:50]}.{os.urandom(8).hex()}.part")
    _unfinished[place] = os.getpid()
    try:
        yield place
    finally:
        _remove(place)
        _unfinished.pop(place, None)


def _remove(place: str) -> None:
    """What is left of something unfinished: a file, a folder of files, or nothing where it got its name."""
    with contextlib.suppress(OSError, ValueError):
        if not os.path.isdir(place):
            os.unlink(place)
            return
        for name in os.listdir(place):
            os.unlink(os.path.join(place, name))
        os.rmdir(place)


@atexit.register
def _remove_all() -> None:
    for place, process in list(_unfinished.items()):
        if process == os.getpid():  # not in a child that was forked meanwhile
            _remove(place)


def keep_inputs(output: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]]) -> None:
    """Refuse an output that would take the place of what it is made of.

    :raises UsageError: code ``output-is-input``
    """
    with _naming("write", output):
        target = os.path.realpath(output)
        clash = any(
            "\0" not in os.fspath(path) and os.path.realpath(path) == target for path in inputs
        )
    if clash:
        raise UsageError(
            f"{os.fspath(output)} is one of the files that are read: it would be overwritten",
            hint="Name another file to write.",
            code="output-is-input",
        )


def write_folder(path: str | os.PathLike[str], files: Mapping[str, bytes]) -> None:
    """A new folder with ``files`` in it, whole or not at all. An empty one may be there already.

    :raises FileError: it cannot be written, or holds something, code ``folder-not-empty``
    """
    with _naming("write", path), contextlib.ExitStack() as stack:
        name = os.fspath(path)
        target = _follow_links(name.rstrip("/" if os.sep == "/" else "/\\") or name[:1])
        if os.path.exists(target) and not os.path.isdir(target):
            raise _cannot_write(os.fspath(path), "it is a file, not a folder", "Name a new folder.")
        old = os.stat(target) if os.path.exists(target) else None
        if old is not None and os.listdir(target):
            raise FileError(
                f"{os.fspath(path)} is there already, and not empty",
                hint="Name a folder that does not exist yet, or empty it first.",
                code="folder-not-empty",
            )
        _make_parents(os.path.dirname(target), stack)
        place = stack.enter_context(unfinished(target))
        os.mkdir(place)
        for name, data in files.items():
            with _create(os.path.join(place, name), private=False) as file:
                file.write(data)
        if old is not None:
            os.chmod(place, stat.S_IMODE(old.st_mode))
            if os.name == "nt":  # elsewhere an empty folder is replaced in one step
                os.rmdir(target)
        os.replace(place, target)


def _make_parents(folder: str, stack: contextlib.ExitStack) -> None:
    """The folders above an output. Those that were missing vanish again if they are empty in the end."""
    missing = []
    while folder and not os.path.isdir(folder):
        missing.append(folder)
        folder = os.path.dirname(folder)
    for each in reversed(missing):
        stack.callback(_remove_empty, each)
        os.mkdir(each)


def _remove_empty(folder: str) -> None:
    with contextlib.suppress(OSError):
        os.rmdir(folder)


def make_private_folder(path: str | os.PathLike[str]) -> None:
    """The folder and those above it, as far as they are missing, for this user alone.

    :raises OSError: it cannot be made
    """
    folder = os.path.abspath(os.fspath(path))
    if not os.path.isdir(folder):
        make_private_folder(os.path.dirname(folder))
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)


@contextlib.contextmanager
def _naming(what: str, path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns the system's errors into ones that name the file."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte in it
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        full = isinstance(error, OSError) and error.errno in NO_ROOM
        raise FileError(
            f"cannot {what} {os.fspath(path)!r}: {reason}",
            hint="Make room, or write to another disk." if full else None,
            code=f"file-{what}",
        ) from None


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
