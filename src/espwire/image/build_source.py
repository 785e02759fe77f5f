"""A path → what a build there wants in flash. Looks at the disk; pure functions judge what it finds."""

from __future__ import annotations

import os
from functools import partial

from espwire.errors import DataError
from espwire.files import list_files, read_file
from espwire.image.build_file import plan_file
from espwire.image.build_folder import IDF_ARGS, plan_flasher_args, plan_folder
from espwire.image.build_plan import BuildPlan, BuildRequest

ENDINGS = (".bin", ".hex", ".uf2", ".elf", ".srec", ".s19", "flasher_args.json", "idedata.json", *IDF_ARGS)
# big folders inside builds that hold nothing to flash
DULL = frozenset(
    {"CMakeFiles", "esp-idf", "managed_components", "node_modules", "libdeps", "core", "libraries", "deps"}
)
DEPTH, MOST = 4, 50_000


def read_build(path: str | os.PathLike[str], request: BuildRequest | None = None) -> BuildPlan:
    """What the build at ``path`` wants in flash: a folder, ``flasher_args.json``, ``flash_args``, or one file.

    :raises FileError: something cannot be read
    :raises DataError: no build, an unclear, broken or inconsistent one; the message names file and reason
    :raises UsageError: it is for another chip than the request's
    """
    request = request or BuildRequest()
    text = os.fspath(path)
    name = text.rstrip("/\\") or text
    if os.path.isdir(text):
        files = list_files(text, endings=ENDINGS, skip=DULL, depth=DEPTH, most=MOST)
        return plan_folder(files, partial(_read, text), name, request)
    base = os.path.basename(text)
    folder = os.path.dirname(text)
    if base.endswith(".json") or base in IDF_ARGS:
        return plan_flasher_args(base, partial(_read, folder), name, request)
    data = read_file(text)
    if not data:
        raise DataError(f"{base} is empty", hint="Build again.", code="build-empty")
    return plan_file(data, base, request)


def _read(folder: str, name: str) -> bytes:
    return read_file(os.path.join(folder, *name.split("/")) if not os.path.isabs(name) else name)
