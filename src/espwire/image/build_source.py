"""A path → what a build there wants in flash. Looks at the disk; pure functions judge what it finds."""

from __future__ import annotations

import os

from espwire.errors import DataError, FileError, SafetyStop
from espwire.escape import shorten
from espwire.files import INPUT_LIMIT, list_files, read_file
from espwire.image.build_file import plan_file
from espwire.image.build_folder import IDF_ARGS, IDF_JSON, plan_flasher_args, plan_folder
from espwire.image.build_plan import BuildPlan, BuildRequest

ENDINGS = (".bin", ".hex", ".uf2", ".elf", ".srec", ".s19", "flasher_args.json", "idedata.json", *IDF_ARGS)
_CMAKE, _ARDUINO = ("CMakeCache.txt", "build.ninja", IDF_JSON), ("build.options.json", ".ino.bin", ".ino.elf")
# big folders that hold nothing to flash → what is beside them in a build; a project or a checkout of ESP-IDF may have
# such a name, too
DULL: dict[str, tuple[str, ...]] = {
    "CMakeFiles": (),
    "managed_components": (),
    "node_modules": (),
    "libdeps": (),
    "esp-idf": _CMAKE,
    "core": _ARDUINO,
    "libraries": _ARDUINO,
    "deps": (".fingerprint",),
}
DEPTH, MOST = 9, 50_000
OUTSIDE = "outside-build"


def read_build(path: str | os.PathLike[str], request: BuildRequest | None = None) -> BuildPlan:
    """What the build at ``path`` wants in flash: a folder, ``flasher_args.json``, ``flash_args``, or one file.

    :raises FileError: something cannot be read
    :raises DataError: no build, an unclear, broken or inconsistent one; the message names file and reason
    :raises UsageError: it is for another chip than the request's
    :raises SafetyStop: code ``build-outside``: it names a file outside its folder
    """
    request = request or BuildRequest()
    text = os.fspath(path)
    name = text.rstrip("/\\") or text
    if os.path.isdir(text):
        files = list_files(text, endings=ENDINGS, skip=DULL, depth=DEPTH, most=MOST)
        return plan_folder(files, BuildFolder(text, request.consents), name, request)
    base = os.path.basename(text)
    folder = os.path.dirname(text)
    if base.endswith(".json") or base in IDF_ARGS:
        return plan_flasher_args(base, BuildFolder(folder, request.consents), name, request)
    data = read_file(text)
    if not data:
        raise DataError(f"{base} is empty", hint="Build again.", code="build-empty")
    return plan_file(data, base, request)


class BuildFolder:
    """Reads the files of a build, and no others: what a list of files names must lie in the folder of that list.

    Paths are compared after all symbolic links and ``..`` are followed. All files together have at most
    ``INPUT_LIMIT`` bytes, however often one of them is named.
    """

    def __init__(self, folder: str, consents: frozenset[str]) -> None:
        self._folder, self._consents = folder or os.curdir, consents
        self._inside = os.path.realpath(self._folder)
        self._left = INPUT_LIMIT

    def __call__(self, name: str) -> bytes:
        """The content of a file; a list of files narrows what may be read after it.

        :param name: relative to the folder, with ``/``; or absolute
        :raises SafetyStop: code ``build-outside``
        :raises FileError: it cannot be read; code ``files-too-large``
        """
        path = os.path.join(self._folder, *name.split("/")) if not os.path.isabs(name) else name
        if OUTSIDE not in self._consents:
            self._check_inside(path, name)
        if os.path.basename(name) in (IDF_JSON, *IDF_ARGS):
            self._inside = os.path.realpath(os.path.dirname(path) or os.curdir)
        try:
            data = read_file(path, limit=self._left)
        except FileError as error:
            if error.code != "file-too-large":
                raise
            raise FileError(
                f"the files of the build are larger than {INPUT_LIMIT // 0x100000} MiB together",
                hint="Check which files it names: no flash is that large.",
                code="files-too-large",
            ) from None
        self._left -= len(data)
        return data

    def _check_inside(self, path: str, name: str) -> None:
        real = os.path.normcase(os.path.realpath(path))
        folder = os.path.normcase(self._inside)
        if real == folder or real.startswith(folder.rstrip(os.sep) + os.sep):
            return
        raise SafetyStop(
            f"the build names a file outside its folder: {shorten(name, 200)}",
            hint=f"If that file is meant to be flashed, repeat with --allow {OUTSIDE}.",
            code="build-outside",
            consents=(OUTSIDE,),
            file=real,
        )
