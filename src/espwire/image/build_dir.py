"""Find the build in a folder and make its `BuildPlan`.

Supports the trees of ESP-IDF (``flasher_args.json``, ``flash_args``), PlatformIO (``.pio/build/<environment>``) and
Arduino (``<sketch>.ino.bin`` and its companions), and a set of bootloader, partition table and application.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from espwire.blob import Blob
from espwire.chips.registry import load_chip
from espwire.errors import DataError, FileError, SafetyStop, UsageError
from espwire.files import INPUT_LIMIT, list_files, read_file
from espwire.image.build_file import (
    APP,
    BOOTLOADER,
    OTA_DATA,
    TABLE,
    BuildPlan,
    BuildRequest,
    Read,
    check_plan,
    find_app_partition,
    find_chips,
    find_image_chip,
    plan_file,
    unclear,
)
from espwire.image.flasher_args import (
    FlasherArgs,
    broken,
    parse_flash_args,
    parse_flasher_args,
    parse_json,
)
from espwire.image.ota import OTA_DATA_SIZE, OtaEntry, build_sector, compute_crc, find_ota_data
from espwire.image.partition_table import TABLE_OFFSET, Partition, PartitionTable, parse_table
from espwire.sizes import parse_number
from espwire.text import escape, shorten

IDF_JSON, IDF_ARGS = "flasher_args.json", ("flash_args", "flash_project_args")
BOOT_NAMES = ("bootloader.bin",)
TABLE_NAMES = ("partitions.bin", "partition-table.bin", "partition_table.bin")
OTA_NAMES = ("boot_app0.bin", "ota_data_initial.bin", "otadata.bin", "ota_data.bin")
DATA_NAMES = ("littlefs.bin", "spiffs.bin", "fatfs.bin", "srmodels.bin")
MERGED = ".merged.bin"
ESP_IDF, PLATFORMIO, ARDUINO, PARTS = "ESP-IDF", "PlatformIO", "Arduino", "set of parts"


@dataclass(frozen=True)
class Candidate:
    """A possible build. ``stem`` distinguishes sketches that share a folder."""

    kind: str
    folder: str
    stem: str = ""

    @property
    def label(self) -> str:
        """The name for messages."""
        where = [part for part in (self.folder, self.stem and f"{self.stem}.bin") if part]
        return f"{posixpath.join(*where) if where else '.'} ({self.kind})"


def find_candidates(files: Iterable[str]) -> tuple[Candidate, ...]:
    """The builds in a list of relative paths. Files inside the output folder of a build belong to that build.

    A set of files or a ``flash_args`` does not make an output folder: a project may contain one next to its builds.
    """
    folders: dict[str, set[str]] = {}
    for file in files:
        folder, name = posixpath.split(file)
        folders.setdefault(folder, set()).add(name)
    found: list[Candidate] = []
    for folder in sorted(folders, key=lambda name: (name.count("/") + bool(name), name)):
        if any(_is_inside(folder, other.folder) for other in found if _is_output(other, folders)):
            continue
        found += _classify(folder, folders[folder])
    return tuple(found)


def _is_inside(folder: str, outer: str) -> bool:
    return folder != outer and (not outer or folder.startswith(outer + "/"))


def _is_output(candidate: Candidate, folders: Mapping[str, set[str]]) -> bool:
    """Whether a build system created the folder and everything in it."""
    return candidate.kind in (PLATFORMIO, ARDUINO) or IDF_JSON in folders[candidate.folder]


def _classify(folder: str, names: set[str]) -> list[Candidate]:
    companions = names & {*BOOT_NAMES, *TABLE_NAMES}
    if "firmware.bin" in names and (companions or {"firmware.elf", "idedata.json"} & names):
        return [Candidate(PLATFORMIO, folder)]
    if IDF_JSON in names:
        return [Candidate(ESP_IDF, folder)]
    sketches = {
        name.removesuffix(".bin").removesuffix(".merged") for name in names if _is_sketch(name)
    }
    if sketches:
        return [Candidate(ARDUINO, folder, stem) for stem in sorted(sketches)]
    if names & set(IDF_ARGS):
        return [Candidate(ESP_IDF, folder)]
    if names & set(BOOT_NAMES) and names & set(TABLE_NAMES) and len(_find_apps(names)) == 1:
        return [Candidate(PARTS, folder)]
    return []


def _is_sketch(name: str) -> bool:
    return name.endswith((".ino.bin", f".ino{MERGED}"))


def _find_apps(names: Iterable[str]) -> list[str]:
    known = {*BOOT_NAMES, *TABLE_NAMES, *OTA_NAMES, *DATA_NAMES}
    return sorted(name for name in names if name.endswith(".bin") and name not in known)


def plan_folder(
    files: Iterable[str], read: Read, name: str, request: BuildRequest | None = None
) -> BuildPlan:
    """The plan of the only build in a folder.

    :param files: relative paths with ``/``
    :param read: returns a file's bytes by such a path
    :raises DataError: no build, several, an incomplete or inconsistent build
    """
    request, listing = request or BuildRequest(), sorted(files)
    found = find_candidates(listing)
    if len(found) > 1:
        raise unclear(
            f"{name} contains {len(found)} builds",
            (candidate.label for candidate in found),
            "Pass the folder of one of them.",
        )
    if not found:
        images = [
            file
            for file in listing
            if file.endswith((".bin", ".hex", ".uf2", ".elf", ".srec", ".s19"))
        ]
        text = f"{name} contains no build"
        if images:
            text = f"{name} is not a build folder of a known kind; it contains"
        raise unclear(text, images, "Pass the file, or use write-flash with address and file.")
    return plan_candidate(found[0], listing, read, name, request)


def plan_candidate(
    candidate: Candidate, files: Iterable[str], read: Read, name: str, request: BuildRequest
) -> BuildPlan:
    """As ``plan_folder``, for a chosen build."""
    here = {
        posixpath.basename(file) for file in files if posixpath.dirname(file) == candidate.folder
    }
    name = posixpath.join(name, candidate.folder) if candidate.folder else name
    if candidate.kind == ESP_IDF:
        file = next(name for name in (IDF_JSON, *IDF_ARGS) if name in here)
        return plan_flasher_args(posixpath.join(candidate.folder, file), read, name, request)
    by_role = _choose_files(candidate, here)
    app = by_role[APP]
    if app.endswith(MERGED):
        plan = plan_file(read(posixpath.join(candidate.folder, app)), app, request)
        return replace(plan, kind=candidate.kind, name=name)
    return _Assembly(candidate, here, read, name, request).plan(by_role)


def plan_flasher_args(path: str, read: Read, name: str, request: BuildRequest) -> BuildPlan:
    """The plan of a ``flasher_args.json`` or ``flash_args``; file names in it are relative to its folder.

    :raises DataError: it is broken, or names a file that does not exist
    """
    folder, base = posixpath.split(path)
    data = read(path)
    args: FlasherArgs = (parse_flasher_args if base.endswith(".json") else parse_flash_args)(
        data, base
    )
    blobs = []
    for entry in args.files:
        try:
            content = read(posixpath.join(folder, entry.path))
        except FileError as error:
            if error.code != "file-read":
                raise
            raise broken(
                base,
                f"{escape(entry.path)} for {entry.address:#x} does not exist",
                code="build-incomplete",
            ) from None
        role = {"partition-table": TABLE, "otadata": OTA_DATA}.get(entry.role, entry.role)
        blobs.append(
            Blob(entry.address, content, escape(entry.path), kind=role, encrypted=entry.encrypted)
        )
    marked = sum(blob.encrypted for blob in blobs)
    plan = BuildPlan(
        kind=ESP_IDF,
        name=name,
        blobs=tuple(blobs),
        chips=find_chips(blobs, name, stated=args.chip),
        settings=args.settings,
        before=args.before,
        after=args.after,
        stub=args.stub,
        notes=(
            f"{marked} files are marked as encrypted; they are written as plaintext unless --encrypt is used",
        )
        if marked
        else (),
    )
    return check_plan(plan, request)


def _choose_files(candidate: Candidate, names: set[str]) -> dict[str, str]:
    """Role → file name, of the files that exist."""
    stem = candidate.stem
    choices: dict[str, Sequence[str]] = {
        APP: ("firmware.bin",) if candidate.kind == PLATFORMIO else _find_apps(names),
        BOOTLOADER: BOOT_NAMES,
        TABLE: TABLE_NAMES,
        OTA_DATA: OTA_NAMES,
    }
    if candidate.kind == ARDUINO:
        choices |= {
            APP: (f"{stem}.bin", f"{stem}{MERGED}"),
            BOOTLOADER: (f"{stem}.bootloader.bin",),
            TABLE: (f"{stem}.partitions.bin",),
        }
    existing = {role: [name for name in choices[role] if name in names] for role in choices}
    return {role: files[0] for role, files in existing.items() if files}


class _Assembly:
    """Puts the files of a build that names no addresses where the partition table has them."""

    def __init__(
        self, candidate: Candidate, names: set[str], read: Read, name: str, request: BuildRequest
    ) -> None:
        self.candidate, self.names, self.read = candidate, names, read
        self.name, self.request = name, request
        self.files: dict[str, tuple[str, bytes]] = {}  # role → name and content
        self.notes: list[str] = []

    def plan(self, files: Mapping[str, str]) -> BuildPlan:
        """The plan for these files by role."""
        folder = self.candidate.folder
        self.files = {
            role: (name, self.read(posixpath.join(folder, name))) for role, name in files.items()
        }
        chips = [
            find_image_chip(self.files[role][1]) for role in (BOOTLOADER, APP) if role in self.files
        ]
        chip_id = next(filter(None, chips), "")
        if not chip_id:
            raise self._broken(
                f"{files[APP]} is not a firmware image (offset 0), and the folder has no bootloader"
            )
        chip = load_chip(chip_id)
        if not chip.image.extended_header:
            blobs = [self._blob(APP, 0)]
        else:
            blobs = self._place(chip.flash.bootloader_offset)
        if left := sorted(self.names & set(DATA_NAMES)):
            self.notes.append(
                f"{', '.join(left)} is left out: it contains data, not a program; use write-flash to write it"
            )
        plan = BuildPlan(
            kind=self.candidate.kind,
            name=self.name,
            blobs=tuple(sorted(blobs, key=lambda blob: blob.address)),
            chips=find_chips(blobs, self.name) or (chip_id,),
            notes=tuple(self.notes),
        )
        return check_plan(plan, self.request)

    def _blob(self, role: str, address: int) -> Blob:
        name, data = self.files[role]
        return Blob(address, data, name, kind=role)

    def _place(self, boot: int) -> list[Blob]:
        for role in (BOOTLOADER, TABLE):
            if role not in self.files:
                raise self._broken(
                    f"{self.files[APP][0]} has no {role.replace('-', ' ')} in the folder",
                    code="build-incomplete",
                )
        table_name, data = self.files[TABLE]
        table = parse_table(data, table_name)
        offsets, address = self._read_idedata()
        if address is None:
            row = find_app_partition(table)
            if row is None:
                raise self._broken(f"{table_name} has no partition for an application")
            address = row.offset
        blobs = [
            self._blob(BOOTLOADER, offsets.get("bootloader.bin", boot)),
            self._blob(TABLE, offsets.get(table_name, TABLE_OFFSET)),
            self._blob(APP, address),
        ]
        if (ota := find_ota_data(table)) is not None:
            blobs.append(self._ota_data(ota, _find_row(table, address)))
        return blobs

    def _ota_data(self, ota: Partition, app: Partition | None) -> Blob:
        """What selects the application: without it the chip could still boot an older one from the other slot."""
        if OTA_DATA in self.files:
            return self._blob(OTA_DATA, ota.offset)
        slot = None if app is None else app.ota_slot
        name = "OTA data" if app is None else f"OTA data (selects {app.label})"
        self.notes.append(
            f"the folder has no {OTA_NAMES[0]}: OTA data that selects the application is generated"
        )
        return Blob(ota.offset, build_ota_data(slot), name, kind=OTA_DATA)

    def _read_idedata(self) -> tuple[dict[str, int], int | None]:
        """Flash addresses from PlatformIO's idedata.json: file name → address; and the application's."""
        if self.candidate.kind != PLATFORMIO or "idedata.json" not in self.names:
            return {}, None
        data = self.read(posixpath.join(self.candidate.folder, "idedata.json"))
        extra = parse_json(data, "idedata.json", code="idedata").get("extra", {})
        images = extra.get("flash_images", []) if isinstance(extra, dict) else None
        if not isinstance(images, list) or not all(isinstance(image, dict) for image in images):
            raise _broken_idedata("extra.flash_images is not a list of images")
        offsets = {}
        for image in images:
            path = image.get("path")
            if not isinstance(path, str):
                raise _broken_idedata("an image in extra.flash_images has no path")
            offsets[posixpath.basename(path.replace("\\", "/"))] = _number(image.get("offset"))
        app = extra.get("application_offset")
        return offsets, None if app is None else _number(app)

    def _broken(self, reason: str, *, code: str = "build-broken") -> DataError:
        return DataError(
            f"{self.name}: {reason}",
            hint="Build again, or use write-flash with addresses and files.",
            code=code,
        )


def build_ota_data(slot: int | None) -> bytes:
    """8 KiB of OTA data that selects the slot; blank (the factory application) for None."""
    if slot is None:
        return b"\xff" * OTA_DATA_SIZE
    sequence = slot + 1
    return build_sector(OtaEntry(sequence, crc=compute_crc(sequence))).ljust(OTA_DATA_SIZE, b"\xff")


def _find_row(table: PartitionTable, address: int) -> Partition | None:
    return next((row for row in table.partitions if row.type == 0 and row.offset == address), None)


def _broken_idedata(reason: str) -> DataError:
    return broken("idedata.json", reason, code="idedata")


def _number(value: Any) -> int:
    try:
        if isinstance(value, str):
            return parse_number(value, "offset")
    except (UsageError, ValueError):
        pass
    raise _broken_idedata(f"{str(value)[:40]!r} is not a flash address")


ENDINGS = (
    ".bin",
    ".hex",
    ".uf2",
    ".elf",
    ".srec",
    ".s19",
    "flasher_args.json",
    "idedata.json",
    *IDF_ARGS,
)
_CMAKE, _ARDUINO = (
    ("CMakeCache.txt", "build.ninja", IDF_JSON),
    ("build.options.json", ".ino.bin", ".ino.elf"),
)
# large folders without files to flash → neighbours that identify them as part of a build, since a project or a checkout
# of ESP-IDF may have the same name
SKIPPED_FOLDERS: dict[str, tuple[str, ...]] = {
    "CMakeFiles": (),
    "managed_components": (),
    "node_modules": (),
    "libdeps": (),
    "esp-idf": _CMAKE,
    "core": _ARDUINO,
    "libraries": _ARDUINO,
    "deps": (".fingerprint",),
}
MAX_DEPTH, MAX_FILES = 9, 50_000
OUTSIDE = "outside-build"


def read_build(path: str | os.PathLike[str], request: BuildRequest | None = None) -> BuildPlan:
    """The plan of the build at ``path``: a folder, ``flasher_args.json``, ``flash_args``, or a single file.

    :raises FileError: a file cannot be read
    :raises DataError: no build, or an ambiguous, broken or inconsistent one; the message names file and reason
    :raises UsageError: it is for another chip than the request's
    :raises SafetyStop: code ``build-outside``: it names a file outside its folder
    """
    request = request or BuildRequest()
    text = os.fspath(path)
    name = text.rstrip("/\\") or text
    if os.path.isdir(text):
        files = list_files(
            text, endings=ENDINGS, skip=SKIPPED_FOLDERS, depth=MAX_DEPTH, most=MAX_FILES
        )
        return plan_folder(files, BuildFolder(text, request.consents), name, request)
    base = os.path.basename(text)
    folder = os.path.dirname(text)
    if base.endswith(".json") or base in IDF_ARGS:
        return plan_flasher_args(base, BuildFolder(folder, request.consents), name, request)
    data = read_file(text)
    if not data:
        raise DataError(f"{base} is empty", hint="Build again.", code="build-empty")
    return plan_file(data, base, request)


def find_elf_files(path: str) -> list[str]:
    """The ELF files of the applications of the builds in a folder, the newest first; for a file, those of its folder.

    :raises FileError: the folder cannot be read
    """
    folder = path if os.path.isdir(path) else os.path.dirname(path) or os.curdir
    files = list_files(
        folder, endings=(*ENDINGS, ".elf"), skip=SKIPPED_FOLDERS, depth=MAX_DEPTH, most=MAX_FILES
    )
    folders = {candidate.folder for candidate in find_candidates(files)}
    found = [
        os.path.join(folder, file)
        for file in files
        if file.endswith(".elf") and posixpath.dirname(file) in folders
    ]
    times = {name: os.stat(name).st_mtime for name in found if os.path.isfile(name)}
    return sorted(times, key=lambda name: -times[name])


class BuildFolder:
    """Reads the files of a build, which must be inside its folder.

    Paths are compared after resolving symbolic links and ``..``. All files together may have ``INPUT_LIMIT`` bytes,
    repeated files included.
    """

    def __init__(self, folder: str, consents: frozenset[str]) -> None:
        self._folder, self._consents = folder or os.curdir, consents
        self._inside = os.path.realpath(self._folder)
        self._left = INPUT_LIMIT

    def __call__(self, name: str) -> bytes:
        """The content of a file. After a list of files, only files in its folder may be read.

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
                f"the files of the build have more than {INPUT_LIMIT // 0x100000} MiB in total",
                hint="Check which files it names: no flash chip is that large.",
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
            hint=f"If that file should be flashed, repeat with --allow {OUTSIDE}.",
            code="build-outside",
            consents=(OUTSIDE,),
            file=real,
        )
