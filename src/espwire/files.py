"""Reading input files and writing output files whole or not at all. Knows no format; the only file I/O of the library.

An output file is written beside its final place and renamed into it, so that an error, a full disk or Ctrl-C leaves
either the old file or none.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, BinaryIO

from espwire.errors import FileError, UsageError

if TYPE_CHECKING:
    from pathlib import Path  # costs 4 ms: only the function that makes folders loads it

INPUT_LIMIT = 256 * 0x100000  # twice the largest flash: anything above is surely the wrong file


def read_file(path: str | os.PathLike[str], *, limit: int = INPUT_LIMIT) -> bytes:
    """The whole file, at most ``limit`` bytes.

    :raises FileError: it cannot be read, or is larger
    """
    with _naming("read", path), open(path, "rb") as file:
        data = file.read(limit + 1)
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
    folder: str | os.PathLike[str], *, endings: tuple[str, ...], skip: Container[str], depth: int, most: int
) -> tuple[str, ...]:
    """Paths below ``folder``, relative and with ``/``, of files whose names end in one of ``endings``.

    :param skip: names of folders not to look into; hidden ones but ``.pio`` are not looked into either
    :param depth: how many folders deep
    :param most: how many entries to look at
    :raises FileError: it cannot be listed, or holds more than ``most`` entries
    """
    found: list[str] = []
    waiting, seen = [""], 0
    with _naming("list", folder):
        while waiting:
            below = waiting.pop()
            for entry in os.scandir(os.path.join(folder, below)):
                seen += 1
                name = f"{below}{entry.name}"
                if entry.is_dir(follow_symlinks=False):
                    hidden = entry.name.startswith(".") and entry.name != ".pio"
                    if entry.name not in skip and not hidden and name.count("/") < depth - 1:
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


class OutputFile:
    """What ``open_output`` gives: something to write bytes to."""

    def __init__(self, file: BinaryIO, path: str | os.PathLike[str]) -> None:
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


def write_files(files: Sequence[tuple[str | os.PathLike[str], bytes]]) -> None:
    """Write several files that belong together: all of them or none.

    :raises FileError: one cannot be written
    """
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(open_output(path, durable=False)) for path, _ in files]
        for file, (_, data) in zip(opened, files, strict=True):
            file.write(data)
        for file in opened:  # a full disk shows here at the latest, before the first one gets its name
            file.flush()


def write_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Write ``data`` to ``path``, whole or not at all.

    :raises FileError: it cannot be written
    """
    with open_output(path, durable=False) as file:
        file.write(data)


@contextlib.contextmanager
def open_output(path: str | os.PathLike[str], *, durable: bool = True) -> Iterator[OutputFile]:
    """A file to write to; it gets its name when the block ends well and vanishes when it does not.

    A device or a pipe (``/dev/stdout``) is written to directly: it cannot be renamed.

    :param durable: it must be on the disk before it gets its name, so that a power cut leaves no empty file: for what
        came from a device, not for what can be made again

    :raises FileError: it cannot be written; errors of the block itself pass as they are
    """
    with _naming("write", path):
        target = os.path.realpath(path)  # a symbolic link stays, what it points to is replaced
        if os.path.isdir(target):
            raise IsADirectoryError("it is a directory")
        special = os.path.exists(target) and not os.path.isfile(target)
        place = target if special else _name_unfinished(target)
        file = open(place, "wb" if special else "xb")  # noqa: SIM115  closed below, whatever happens
    try:
        yield OutputFile(file, path)
        with _naming("write", path):
            _finish(file, place, target, durable=durable)
    finally:
        with contextlib.suppress(OSError):  # closing again, or flushing to a full disk: the error is on its way
            file.close()
        if not special:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(place)


def keep_inputs(output: str | os.PathLike[str], inputs: Iterable[str | os.PathLike[str]]) -> None:
    """Refuse an output that would take the place of what it is made of.

    :raises UsageError: code ``output-is-input``
    """
    with _naming("write", output):
        target = os.path.realpath(output)
        clash = any("\0" not in os.fspath(path) and os.path.realpath(path) == target for path in inputs)
    if clash:
        raise UsageError(
            f"{os.fspath(output)} is one of the files that are read: it would be overwritten",
            hint="Name another file to write.",
            code="output-is-input",
        )


def _name_unfinished(target: str) -> str:
    """A name beside ``target`` that nobody has."""
    folder, name = os.path.split(target)
    return os.path.join(folder, f".{name[:200]}.{os.urandom(4).hex()}.part")


def write_folder(path: str | os.PathLike[str], files: Mapping[str, bytes]) -> None:
    """A new folder with ``files`` in it, whole or not at all. An empty one may be there already.

    :raises FileError: it cannot be written, or holds something, code ``folder-not-empty``
    """
    from pathlib import Path

    with _naming("write", path):
        target = Path(os.path.realpath(path))
        if target.exists() and (not target.is_dir() or any(target.iterdir())):
            raise FileError(
                f"{os.fspath(path)} is there already, and not empty",
                hint="Name a folder that does not exist yet, or empty it first.",
                code="folder-not-empty",
            )
        place = Path(_name_unfinished(os.fspath(target)))
        try:
            place.mkdir(parents=True)
            for name, data in files.items():
                (place / name).write_bytes(data)
            if target.exists():
                target.rmdir()
            os.replace(place, target)
        finally:
            _remove_folder(place)


def _remove_folder(place: Path) -> None:
    """What is left of a folder that was not finished; nothing, where it was renamed."""
    with contextlib.suppress(OSError):
        for path in place.iterdir():
            path.unlink()
        place.rmdir()


def _finish(file: BinaryIO, place: str, target: str, *, durable: bool) -> None:
    file.flush()
    if durable and place != target:
        os.fsync(file.fileno())
    file.close()
    if place != target:
        with contextlib.suppress(FileNotFoundError):
            os.chmod(place, os.stat(target).st_mode & 0o7777)
        os.replace(place, target)


@contextlib.contextmanager
def _naming(what: str, path: str | os.PathLike[str]) -> Iterator[None]:
    """Turns the system's errors into ones that name the file."""
    try:
        yield
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte in it
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise FileError(f"cannot {what} {os.fspath(path)!r}: {reason}", code=f"file-{what}") from None
