"""A listing of a folder → what a build there wants in flash. Pure: files are read by the function that is handed in.

Knows the trees of ESP-IDF (``flasher_args.json``, ``flash_args``), PlatformIO (``.pio/build/<environment>``), Arduino
(``<sketch>.ino.bin`` and its companions), and a mere set of boot loader, partition table and application.

A path → what a build there wants in flash. Looks at the disk; pure functions judge what it finds.
"""

from __future__ import annotations

import os
import posixpath
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from espwire.errors import DataError, FileError, SafetyStop
from espwire.files import INPUT_LIMIT, list_files, read_file
from espwire.image.build_file import plan_file
from espwire.image.build_plan import (
    APP,
    BOOTLOADER,
    OTA_DATA,
    TABLE,
    BuildFile,
    BuildPlan,
    BuildRequest,
    Read,
    check_plan,
    find_app_partition,
    find_chips,
    find_image_chip,
    unclear,
)
from espwire.image.flasher_args import (
    FlasherArgs,
    broken,
    parse_flash_args,
    parse_flasher_args,
    parse_json,
)
from espwire.text import escape, shorten

if TYPE_CHECKING:
    from espwire.image.partition_table import Partition, PartitionTable


IDF_JSON, IDF_ARGS = "flasher_args.json", ("flash_args", "flash_project_args")
BOOT_NAMES = ("bootloader.bin",)
TABLE_NAMES = ("partitions.bin", "partition-table.bin", "partition_table.bin")
OTA_NAMES = ("boot_app0.bin", "ota_data_initial.bin", "otadata.bin", "ota_data.bin")
DATA_NAMES = ("littlefs.bin", "spiffs.bin", "fatfs.bin", "srmodels.bin")
TABLE_ADDRESS = 0x8000
MERGED = ".merged.bin"
ESP_IDF, PLATFORMIO, ARDUINO, PARTS = "ESP-IDF", "PlatformIO", "Arduino", "set of parts"


@dataclass(frozen=True)
class Candidate:
    """A build that was found. ``stem`` tells sketches apart that share a folder."""

    kind: str
    folder: str
    stem: str = ""

    @property
    def label(self) -> str:
        """What to call it in messages."""
        where = [part for part in (self.folder, self.stem and f"{self.stem}.bin") if part]
        return f"{posixpath.join(*where) if where else '.'} ({self.kind})"


def find_candidates(files: Iterable[str]) -> tuple[Candidate, ...]:
    """The builds in a listing of relative paths; what lies inside the output folder of a build belongs to that.

    A set of parts or a list of files is not such a folder: a project may keep one beside its builds.
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
    """Whether a build system made the folder and all that is in it."""
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
    """What the one build in a folder wants in flash.

    :param files: relative paths with ``/``
    :param read: gives a file's bytes by such a path
    :raises DataError: no build, several, an incomplete or inconsistent one
    """
    request, listing = request or BuildRequest(), sorted(files)
    found = find_candidates(listing)
    if len(found) > 1:
        raise unclear(
            f"{name} holds {len(found)} builds",
            (one.label for one in found),
            "Name one of them instead of the folder.",
        )
    if not found:
        images = [
            file
            for file in listing
            if file.endswith((".bin", ".hex", ".uf2", ".elf", ".srec", ".s19"))
        ]
        what = (
            f"{name} is no build folder that is known; it holds"
            if images
            else f"{name} holds no build"
        )
        raise unclear(what, images, "Name the file, or give address and file to write-flash.")
    return plan_candidate(found[0], listing, read, name, request)


def plan_candidate(
    candidate: Candidate, files: Iterable[str], read: Read, name: str, request: BuildRequest
) -> BuildPlan:
    """As ``plan_folder``, for a build that is chosen already."""
    here = {
        posixpath.basename(file) for file in files if posixpath.dirname(file) == candidate.folder
    }
    place = posixpath.join(name, candidate.folder) if candidate.folder else name
    if candidate.kind == ESP_IDF:
        file = next(one for one in (IDF_JSON, *IDF_ARGS) if one in here)
        return plan_flasher_args(posixpath.join(candidate.folder, file), read, place, request)
    parts = _choose_parts(candidate, here)
    if parts[APP].endswith(MERGED):
        plan = plan_file(read(posixpath.join(candidate.folder, parts[APP])), parts[APP], request)
        return replace(plan, kind=candidate.kind, place=place)
    return _Assembly(candidate, here, read, place, request).plan(parts)


def plan_flasher_args(path: str, read: Read, place: str, request: BuildRequest) -> BuildPlan:
    """What a ``flasher_args.json`` or ``flash_args`` wants in flash; file names in it are relative to its folder.

    :raises DataError: it is broken, or names a file that is not there
    """
    folder, base = posixpath.split(path)
    data = read(path)
    args: FlasherArgs = (parse_flasher_args if base.endswith(".json") else parse_flash_args)(
        data, base
    )
    files = []
    for entry in args.files:
        try:
            content = read(posixpath.join(folder, entry.path))
        except FileError as error:
            if error.code != "file-read":
                raise
            raise broken(
                base,
                f"{escape(entry.path)} for {entry.address:#x} is not there",
                code="build-incomplete",
            ) from None
        role = {"partition-table": TABLE, "otadata": OTA_DATA}.get(entry.role, entry.role)
        files.append(BuildFile(entry.address, content, escape(entry.path), role, entry.encrypted))
    marked = sum(file.encrypted for file in files)
    plan = BuildPlan(
        kind=ESP_IDF,
        place=place,
        files=tuple(files),
        chips=find_chips(files, place, stated=args.chip),
        settings=args.settings,
        before=args.before,
        after=args.after,
        stub=args.stub,
        notes=(
            f"{marked} files are marked as encrypted; they are written as they are unless --encrypt is given",
        )
        if marked
        else (),
    )
    return check_plan(plan, request)


def _choose_parts(candidate: Candidate, names: set[str]) -> dict[str, str]:
    """Role → file name, of what is there."""
    if candidate.kind == ARDUINO:
        stem = candidate.stem
        wanted = {
            APP: (f"{stem}.bin", f"{stem}{MERGED}"),
            BOOTLOADER: (f"{stem}.bootloader.bin",),
            TABLE: (f"{stem}.partitions.bin",),
        }
    else:
        app = ("firmware.bin",) if candidate.kind == PLATFORMIO else tuple(_find_apps(names))
        wanted = {APP: app, BOOTLOADER: BOOT_NAMES, TABLE: TABLE_NAMES}
    wanted[OTA_DATA] = OTA_NAMES
    found = {
        role: next((one for one in choices if one in names), "") for role, choices in wanted.items()
    }
    return {role: file for role, file in found.items() if file}


class _Assembly:
    """Puts parts where the partition table says."""

    def __init__(
        self, candidate: Candidate, names: set[str], read: Read, place: str, request: BuildRequest
    ) -> None:
        self.candidate, self.names, self.read, self.place, self.request = (
            candidate,
            names,
            read,
            place,
            request,
        )
        self.notes: list[str] = []

    def plan(self, parts: Mapping[str, str]) -> BuildPlan:
        from espwire.chips.registry import load_chip

        data = {
            role: self.read(posixpath.join(self.candidate.folder, file))
            for role, file in parts.items()
        }
        chips = [find_image_chip(data[role]) for role in (BOOTLOADER, APP) if role in data]
        chip_id = next((chip for chip in chips if chip), "")
        if not chip_id:
            raise self._broken(
                f"{parts[APP]} is no firmware image (offset 0), nor is there a boot loader beside it"
            )
        chip = load_chip(chip_id)
        if not chip.image.extended_header:
            files = [BuildFile(0, data[APP], parts[APP], APP)]
        else:
            files = self._place(parts, data, chip.flash.bootloader_offset)
        left = sorted(self.names & set(DATA_NAMES))
        if left:
            self.notes.append(
                f"{', '.join(left)} is left out: it is data, not program (write-flash writes it)"
            )
        plan = BuildPlan(
            kind=self.candidate.kind,
            place=self.place,
            files=tuple(sorted(files, key=lambda file: file.address)),
            chips=find_chips(files, self.place) or (chip_id,),
            notes=tuple(self.notes),
        )
        return check_plan(plan, self.request)

    def _place(
        self, parts: Mapping[str, str], data: Mapping[str, bytes], boot: int
    ) -> list[BuildFile]:
        from espwire.image.ota import find_ota_data
        from espwire.image.partition_table import parse_table

        for role in (BOOTLOADER, TABLE):
            if role not in parts:
                raise self._broken(
                    f"{parts[APP]} is there, but no {role.replace('-', ' ')}",
                    code="build-incomplete",
                )
        table = parse_table(data[TABLE], parts[TABLE])
        extra, app_address = self._read_idedata()
        row = find_app_partition(table)
        if row is None and app_address is None:
            raise self._broken(f"{parts[TABLE]} has no partition for an application")
        address = app_address if app_address is not None or row is None else row.offset
        files = [
            BuildFile(
                extra.get("bootloader.bin", boot), data[BOOTLOADER], parts[BOOTLOADER], BOOTLOADER
            ),
            BuildFile(extra.get(parts[TABLE], TABLE_ADDRESS), data[TABLE], parts[TABLE], TABLE),
            BuildFile(address or 0, data[APP], parts[APP], APP),
        ]
        ota = find_ota_data(table)
        if ota is not None:
            files.append(self._ota_data(parts, data, ota, _find_row(table, address or 0)))
        return files

    def _ota_data(
        self,
        parts: Mapping[str, str],
        data: Mapping[str, bytes],
        ota: Partition,
        app: Partition | None,
    ) -> BuildFile:
        """What selects the application: without it the chip could go on starting an older one from the other slot."""
        if OTA_DATA in parts:
            return BuildFile(ota.offset, data[OTA_DATA], parts[OTA_DATA], OTA_DATA)
        slot = None if app is None else app.ota_slot
        name = "OTA data" if app is None else f"OTA data (selects {app.label})"
        self.notes.append(
            f"no {OTA_NAMES[0]} in the folder: the OTA data that selects the application are made here"
        )
        return BuildFile(ota.offset, build_ota_data(slot), name, OTA_DATA)

    def _read_idedata(self) -> tuple[dict[str, int], int | None]:
        """PlatformIO's own record of flash addresses: file name → address; and the application's."""
        if self.candidate.kind != PLATFORMIO or "idedata.json" not in self.names:
            return {}, None
        code = "idedata"
        table = parse_json(
            self.read(posixpath.join(self.candidate.folder, "idedata.json")),
            "idedata.json",
            code=code,
        )
        extra = table.get("extra", {})
        images = extra.get("flash_images", []) if isinstance(extra, dict) else None
        if not isinstance(images, list) or not all(isinstance(one, dict) for one in images):
            raise broken("idedata.json", "extra.flash_images is no list of images", code=code)
        found = {}
        for image in images:
            path = image.get("path")
            if not isinstance(path, str):
                raise broken(
                    "idedata.json", "an image in extra.flash_images has no path", code=code
                )
            found[posixpath.basename(path.replace("\\", "/"))] = _number(image.get("offset"), code)
        app = extra.get("application_offset")
        return found, None if app is None else _number(app, code)

    def _broken(self, reason: str, *, code: str = "build-broken") -> DataError:
        return DataError(
            f"{self.place}: {reason}",
            hint="Build again, or give address and file to write-flash.",
            code=code,
        )


def build_ota_data(slot: int | None) -> bytes:
    """8 KiB of OTA data: an entry that selects that slot; blank without a slot: the factory application."""
    from espwire.image.ota import OTA_DATA_SIZE, OtaEntry, build_sector, compute_crc

    if slot is None:
        return b"\xff" * OTA_DATA_SIZE
    sequence = slot + 1
    return build_sector(OtaEntry(sequence, crc=compute_crc(sequence))).ljust(OTA_DATA_SIZE, b"\xff")


def _find_row(table: PartitionTable, address: int) -> Partition | None:
    return next((row for row in table.partitions if row.type == 0 and row.offset == address), None)


def _number(value: Any, code: str) -> int:
    from espwire.errors import UsageError
    from espwire.sizes import parse_number

    try:
        if isinstance(value, str):
            return parse_number(value, "offset")
    except (UsageError, ValueError):
        pass
    raise broken("idedata.json", f"{str(value)[:40]!r} is no flash address", code=code)


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
