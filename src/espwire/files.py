"""Reads input files, and writes output files completely or not at all.

An output file is written under a random name in the same folder and then renamed, so that an error, a full disk or a
signal leaves either the old file or none. The file at the output's path decides what happens:

=====================================  ================================================================
none                                   a new file is created
a regular file                         it is replaced, keeping permissions and owner; an error if write-protected
a private key, or a raw key            an error, code ``overwrite-key``; see ``key_content.py``
a symbolic link to a regular file      the link is kept, its target is replaced
a dangling symbolic link               an error, code ``dangling-link``
a pipe, a character device             written in place once the content is complete; see ``streams.py``
a folder, a name that ends in ``/``    an error
a block device, a socket               an error
=====================================  ================================================================

Advisory locks keep a virtual chip's flash file and the state file from being used twice. A lock ends with ``unlock``
or when the system closes the file, so a killed process leaves no lock.
"""

from __future__ import annotations

import atexit
import contextlib
import errno
import itertools
import os
import stat
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import BinaryIO

from espwire.errors import FileError, SafetyStop, UsageError
from espwire.key_content import FILE_LIMIT, may_be_key
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
INPUT_LIMIT = 256 * 0x100000  # twice the largest flash chip


def read_file(path: str | os.PathLike[str], *, limit: int = INPUT_LIMIT) -> bytes:
    """The contents of a file of at most ``limit`` bytes.

    :raises FileError: it cannot be read, or is larger
    """
    with naming_errors("read", path):
        data = read_most(path, limit + 1)
    if len(data) > limit:
        raise FileError(
            f"{os.fspath(path)} is larger than {_format_limit(limit)}",
            hint="Check that it is the right file.",
            code="file-too-large",
        )
    return data


def _format_limit(limit: int) -> str:
    return f"{limit // 0x100000} MiB" if limit >= 0x100000 else f"{limit // 0x400} KiB"


def check_total_size(paths: Iterable[str | os.PathLike[str]], *, limit: int = INPUT_LIMIT) -> None:
    """Refuse files that together are larger than any flash, before reading them.

    A file that is listed twice counts twice. A file whose size is unknown counts as empty: reading it fails with a better
    message, or is limited by ``read_file``.

    :raises FileError: code ``files-too-large``
    """
    total = 0
    for count, path in enumerate(paths, 1):
        with contextlib.suppress(OSError, ValueError):
            total += os.stat(path).st_size
        if total > limit:
            raise FileError(
                f"the first {count} files have {total:,} bytes, more than {limit // 0x100000} MiB",
                hint="Check the list of files: no flash is that large.",
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
    """Relative paths, with ``/``, of the files below ``folder`` whose names end in one of ``endings``.

    Hidden folders other than ``.pio`` are skipped.

    :param skip: names of further folders to skip, each if a sibling's name ends in one of the endings (none: always)
    :param depth: the number of folder levels
    :param most: the number of entries
    :raises FileError: the folder cannot be listed, or has more than ``most`` entries
    """
    files: list[str] = []
    waiting, seen = [""], 0
    with naming_errors("list", folder):
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
                    files.append(name)
            if seen > most:
                raise FileError(
                    f"{os.fspath(folder)} contains more than {most} files",
                    hint="Use the build folder itself.",
                    code="folder-too-large",
                )
    return tuple(sorted(files))


def _is_skipped(name: str, siblings: Iterable[str], skip: Mapping[str, tuple[str, ...]]) -> bool:
    marks = skip.get(name)
    return marks is not None and (not marks or any(other.endswith(marks) for other in siblings))


class OutputFile:
    """The file that ``open_output`` opens."""

    def __init__(self, file: BinaryIO | _Buffer, path: str | os.PathLike[str]) -> None:
        self._file, self._path = file, path

    def write(self, data: bytes | bytearray) -> int:
        """Append ``data``; returns its size.

        :raises FileError: for example, the disk is full
        """
        with naming_errors("write", self._path):
            self._file.write(data)
        return len(data)

    def flush(self) -> None:
        """Pass everything to the system.

        :raises FileError: for example, the disk is full
        """
        with naming_errors("write", self._path):
            self._file.flush()


class _Buffer:
    """Collects the content for a pipe or device until it is complete."""

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
    """Write all of the files or none.

    :raises FileError: one cannot be written
    """
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open_output(path, durable=False)) for path, _ in files]
        for file, (_, data) in zip(opened, files, strict=True):
            file.write(data)
        for file in opened:  # detects a full disk before the first file is renamed
            file.flush()


def write_file(
    path: str | os.PathLike[str], data: bytes, *, private: bool = False, replace_key: bool = False
) -> None:
    """Write ``data`` to ``path``, completely or not at all.

    :param private: only this user may read it
    :param replace_key: also replace a file that may be a key
    :raises FileError: it cannot be written
    :raises SafetyStop: code ``overwrite-key``
    """
    with open_output(path, durable=False, private=private, replace_key=replace_key) as file:
        file.write(data)


@contextlib.contextmanager
def open_output(
    path: str | os.PathLike[str],
    *,
    durable: bool = True,
    private: bool = False,
    replace_key: bool = False,
) -> Iterator[OutputFile]:
    """Open an output file. It gets its name when the block ends, and is removed if the block raises.

    :param durable: write it to the disk before renaming it, so that a power failure leaves no empty file: for data from a
        device, not for data that can be generated again
    :param private: only this user may read it
    :param replace_key: also replace a file that may be a key
    :raises FileError: it cannot be written; the block's own exceptions pass unchanged
    :raises SafetyStop: code ``overwrite-key``
    """
    with contextlib.ExitStack() as stack:
        with naming_errors("write", path):
            target, found = _find_target(path)
            if target is not None and found is not None and not replace_key:
                keep_key(target)
            if target is None:
                stream, buffer = (
                    stack.enter_context(contextlib.closing(open_writer(path))),
                    _Buffer(),
                )
            else:
                if found is not None:
                    _hold_old(target, stack)
                place = stack.enter_context(unfinished(target))
                file = stack.enter_context(
                    _closing(_create(place, private=private or found is not None))
                )
        if target is None:
            yield OutputFile(buffer, path)
            with naming_errors("write", path):
                buffer.deliver(stream)
        else:
            yield OutputFile(file, path)
            with naming_errors("write", path):
                _finish(file, durable=durable, like=None if private else found)
                os.replace(place, target)


def is_replaced(path: str | os.PathLike[str]) -> bool:
    """Whether an output file of this name is a regular file that appears when it is complete."""
    return find_descriptor(path) is None and (os.path.isfile(path) or not os.path.lexists(path))


def _find_target(path: str | os.PathLike[str]) -> tuple[str | None, os.stat_result | None]:
    """The real path of the output and the status of the existing file. No path: a pipe or device, written in place.

    :raises FileError, OSError, ValueError: it cannot be written
    """
    name = os.fspath(path)
    if os.path.basename(name) in ("", os.curdir, os.pardir):
        raise _cannot_write(name, "it is the name of a folder", "Add the name of a file.")
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
            name, "it is not a file, pipe or character device", "Choose another file."
        )
    if not os.access(target, os.W_OK):
        raise _cannot_write(
            name, "it is write-protected", "Change its permissions, or choose another file."
        )
    return target, found


def keep_key(path: str | os.PathLike[str]) -> None:
    """:raises SafetyStop: code ``overwrite-key``: the file may be a key; see ``key_content.py``"""
    with contextlib.suppress(OSError), open(path, "rb") as file:
        if may_be_key(file.read(FILE_LIMIT + 1)):
            raise SafetyStop(
                f"{os.fspath(path)} may be a key; it would be overwritten",
                hint="Choose another output file.",
                code="overwrite-key",
                consents=("overwrite-key",),
            )


def _cannot_write(name: str, reason: str, hint: str) -> FileError:
    return FileError(f"cannot write {name!r}: {reason}", hint=hint, code="file-write")


def _follow_links(name: str) -> str:
    """The real path.

    :raises FileError: code ``dangling-link``
    """
    if os.path.islink(name) and not os.path.exists(name):
        raise FileError(
            f"cannot write {name!r}: it is a symbolic link to {os.readlink(name)!r}, which does not exist",
            hint="Remove the link, or choose another file.",
            code="dangling-link",
        )
    return os.path.realpath(name)


def _hold_old(target: str, stack: contextlib.ExitStack) -> None:
    """Lock the old file until it is replaced, so that no virtual chip uses it as its flash.

    :raises FileError: code ``file-locked``
    """
    if os.name == "nt":  # Windows refuses to replace an open file
        return
    try:
        descriptor = os.open(target, os.O_RDONLY | NO_BLOCKING | BINARY)
    except OSError:  # writable, but not readable
        return
    stack.callback(os.close, descriptor)
    if not lock(descriptor, shared=True):
        raise FileError(
            f"{target} is in use as the flash of a virtual chip",
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
        with contextlib.suppress(OSError):  # of a full disk: raised before
            file.close()


def _finish(file: BinaryIO, *, durable: bool, like: os.stat_result | None) -> None:
    """Flush and close the file, with owner and permissions of the file that it replaces."""
    file.flush()
    if like is not None and sys.platform != "win32":
        new = os.fstat(file.fileno())
        if (new.st_uid, new.st_gid) != (like.st_uid, like.st_gid):
            with contextlib.suppress(OSError):  # needs privileges
                os.fchown(file.fileno(), like.st_uid, like.st_gid)
        os.fchmod(file.fileno(), stat.S_IMODE(like.st_mode))
    if durable:
        os.fsync(file.fileno())
    file.close()


_unfinished: dict[str, int] = {}  # temporary name → process that writes it


@contextlib.contextmanager
def unfinished(target: str | os.PathLike[str]) -> Iterator[str]:
    """A random name in the folder of ``target``; a file or folder of that name is removed when the block ends.

    If a signal interrupts the removal, it is repeated when the process exits.
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
    """Remove a temporary file or folder, unless it was renamed."""
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
        if process == os.getpid():  # not in a forked child
            _remove(place)


def keep_inputs(output: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]]) -> None:
    """Refuse an output that would overwrite one of the inputs.

    :raises UsageError: code ``output-is-input``
    """
    with naming_errors("write", output):
        target = os.path.realpath(output)
        clash = any(
            "\0" not in os.fspath(path) and os.path.realpath(path) == target for path in inputs
        )
    if clash:
        raise UsageError(
            f"{os.fspath(output)} is also an input; it would be overwritten",
            hint="Choose another output file.",
            code="output-is-input",
        )


def write_folder(path: str | os.PathLike[str], files: Mapping[str, bytes]) -> None:
    """Create a folder with ``files``, completely or not at all. It may already exist, if it is empty.

    :raises FileError: it cannot be written, or is not empty (code ``folder-not-empty``)
    """
    with naming_errors("write", path), contextlib.ExitStack() as stack:
        name = os.fspath(path)
        target = _follow_links(name.rstrip("/" if os.sep == "/" else "/\\") or name[:1])
        if os.path.exists(target) and not os.path.isdir(target):
            raise _cannot_write(
                os.fspath(path), "it is a file, not a folder", "Choose a new folder."
            )
        old = os.stat(target) if os.path.exists(target) else None
        if old is not None and os.listdir(target):
            raise FileError(
                f"{os.fspath(path)} exists and is not empty",
                hint="Choose a new folder, or empty this one.",
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
            if os.name == "nt":  # other systems replace an empty folder
                os.rmdir(target)
        os.replace(place, target)


def _make_parents(folder: str, stack: contextlib.ExitStack) -> None:
    """Create the missing folders above an output; remove those that are empty in the end."""
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
    """Create a folder and its missing parents, accessible only to this user.

    :raises OSError: it cannot be created
    """
    folder = os.path.abspath(os.fspath(path))
    if not os.path.isdir(folder):
        make_private_folder(os.path.dirname(folder))
        with contextlib.suppress(FileExistsError):
            os.mkdir(folder, 0o700)


@contextlib.contextmanager
def naming_errors(what: str, path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn the system's errors into ``FileError``."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte in it
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        hint = None
        if isinstance(error, IsADirectoryError):
            hint = "Pass a file. To flash a build folder, use `espwire flash`."
        elif isinstance(error, OSError) and error.errno in NO_ROOM:
            hint = "Free disk space, or write to another disk."
        raise FileError(
            f"cannot {what} {os.fspath(path)!r}: {reason}",
            hint=hint,
            code=f"file-{what}",
        ) from None


LOCK_TAKEN = frozenset({errno.EWOULDBLOCK, errno.EAGAIN, errno.EACCES})
LOCK_STEP_S = 0.01  # between two attempts
LOCK_WAIT_S = 10.0
LOCKED_BYTE = 0x7FFFFFF0  # beyond the end of any flash: on Windows, a locked byte cannot be read


def lock(descriptor: int, *, shared: bool = False) -> bool:
    """Take the lock without waiting. False: it is taken. File systems without locks grant every lock.

    :param shared: allow other shared locks
    """
    if sys.platform != "win32":
        import fcntl

        try:
            fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | fcntl.LOCK_NB)
        except OSError as error:
            return error.errno not in LOCK_TAKEN
        return True
    else:  # noqa: RET505  a separate branch for the type checker
        return _lock_byte(descriptor, unlocking=False)


def wait_for_lock(descriptor: int, seconds: float) -> bool:
    """As ``lock``, after a wait of up to ``seconds``."""
    limit = time.monotonic() + seconds
    while not lock(descriptor):
        if time.monotonic() >= limit:
            return False
        time.sleep(LOCK_STEP_S)
    return True


@contextlib.contextmanager
def locked_file(path: str | os.PathLike[str], seconds: float = LOCK_WAIT_S) -> Iterator[None]:
    """Exclude other programs that use this function, to read and replace a file.

    The lock is on a second file next to it, which is removed afterwards.

    :raises FileError: the second file cannot be written; code ``file-locked``: the lock is taken for ``seconds``
    """
    with naming_errors("write", path):
        folder, name = os.path.split(os.path.realpath(path))
        place = os.path.join(folder, f".{name[:50]}.lock")
        descriptor = _open_lock(place, time.monotonic() + seconds)
    if descriptor is None:
        raise FileError(
            f"{os.fspath(path)} is in use by another program",
            hint="Wait until it has ended.",
            code="file-locked",
        )
    try:
        yield
    finally:
        if os.name == "nt":  # an open file cannot be removed
            os.close(descriptor)
        with contextlib.suppress(OSError):
            os.unlink(place)
        if os.name != "nt":
            os.close(descriptor)


def _open_lock(place: str, limit: float) -> int | None:
    """A descriptor with the lock on the file ``place``; None: it is taken until the time ``limit``.

    :raises OSError: it cannot be opened
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | NO_BLOCKING | BINARY
    while True:
        descriptor = os.open(place, flags, 0o600)
        if not wait_for_lock(descriptor, limit - time.monotonic()):
            os.close(descriptor)
            return None
        with contextlib.suppress(OSError):  # the program that had the lock has removed the file
            if os.path.samestat(os.fstat(descriptor), os.stat(place)):
                return descriptor
        os.close(descriptor)


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
