"""Stub flashers as data: our own, which are part of the package, and files in the vendor's JSON format.

``tools/make_stub.py`` packs ours into ``stubs/``: an index, and the compressed segments for each chip.
"""

from __future__ import annotations

import base64
import json
import struct
import tomllib
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import Any

from espwire.chips.registry import parse_chip_id
from espwire.errors import DataError, Unsupported

OPTIONS, FIRST_BATCH = (
    struct.Struct("<IIII"),
    128,
)  # flags, rate, flash clock, size of the batch that follows
LEAVE_CLOCK, TALK_USB = 1, 2  # in the first word of the options
INDEX = "index.toml"
REBUILD = "Rebuild the stubs with `make stub`."
VENDOR_HINT = "Use a stub in Espressif's JSON format: entry, text, text_start, data, data_start."


@dataclass(frozen=True, kw_only=True)
class StubOptions:
    """Options of our stub, written into its data before the upload.

    ``baud``: the rate of the line, which the stub keeps when it raises its clock; 0: unknown, then it does not change
    the clock, as with ``leave_clock``. ``over_usb``: use the chip's USB-Serial/JTAG. ``spi_clock``: value for the clock
    register of the SPI controller; 0: unchanged. ``batch``: body of a BATCH, at most ``FIRST_BATCH`` bytes, which the
    stub answers right after its greeting.
    """

    baud: int = 0
    leave_clock: bool = False
    over_usb: bool = False
    spi_clock: int = 0
    batch: bytes = field(default=b"", repr=False)

    def build(self) -> bytes:
        """Their bytes in the stub's data."""
        if len(self.batch) > FIRST_BATCH:
            raise ValueError(f"a first batch of {len(self.batch)} bytes")
        flags = (LEAVE_CLOCK if self.leave_clock else 0) | (TALK_USB if self.over_usb else 0)
        return OPTIONS.pack(flags, self.baud, self.spi_clock, len(self.batch)) + self.batch


def parse_stub_options(data: bytes) -> StubOptions:
    """The options at the start of ``data``."""
    flags, baud, spi_clock, size = OPTIONS.unpack_from(data)
    return StubOptions(
        baud=baud,
        leave_clock=bool(flags & LEAVE_CLOCK),
        over_usb=bool(flags & TALK_USB),
        spi_clock=spi_clock,
        batch=data[OPTIONS.size : OPTIONS.size + min(size, FIRST_BATCH)],
    )


@dataclass(frozen=True)
class StubImage:
    """A stub: ``segments`` are (address, content). ``options_address``: of the options of our stub, see
    ``with_options``. ``build``: id that CAPABILITIES reports; ``compiler``: version; both empty for other stubs.
    ``first``: a small first stage that loads this one at a higher rate, if the ROM cannot change its rate.
    ``older``: the same stub at other addresses, for chips up to ``older_revision``. ``constants``: their address, in the
    second segment, up to its end; our own stubs only.
    """

    entry: int
    segments: tuple[tuple[int, bytes], ...]
    options_address: int | None = None
    build: bytes = b""
    compiler: str = ""
    first: StubImage | None = None
    older: StubImage | None = None
    older_revision: int = 0
    constants: int = 0

    def for_revision(self, revision: int) -> StubImage:
        """The stub for a chip of this revision."""
        return self.older if self.older is not None and revision <= self.older_revision else self

    @property
    def size(self) -> int:
        """Bytes to upload."""
        return sum(len(content) for _, content in self.segments)

    @property
    def code_crc(self) -> int:
        """CRC-32 of our stub's code, which is its first segment, and of its constants."""
        (_, code), (address, data) = self.segments
        return zlib.crc32(data[self.constants - address :], zlib.crc32(code))

    def with_options(self, options: StubOptions) -> StubImage:
        """The same stub with these options; unchanged if it does not have options."""
        if self.options_address is None:
            return self
        return replace(
            self, segments=tuple(_patched(self.segments, self.options_address, options.build()))
        )


def _patched(
    segments: tuple[tuple[int, bytes], ...], where: int, words: bytes
) -> Iterator[tuple[int, bytes]]:
    for address, content in segments:
        at = where - address
        if 0 <= at <= len(content) - len(words):
            yield address, content[:at] + words + content[at + len(words) :]
        else:
            yield address, content


def stub_chips(folder: Traversable | None = None) -> tuple[str, ...]:
    """Ids of the chips for which we have a stub."""
    return tuple(_read_index(folder or _packed()))


def load_stub(chip: str, folder: Traversable | None = None) -> StubImage:
    """Our stub for this chip, from the package or a folder written by ``tools/make_stub.py``.

    :raises Unsupported: we do not have one for this chip
    :raises DataError: the files are damaged
    """
    place = folder or _packed()
    chip_id = parse_chip_id(chip)
    row = _read_index(place).get(chip_id)
    if row is None:
        raise Unsupported(
            f"no stub is available for {chip_id}", hint="Use the ROM loader with --no-stub."
        )
    file = f"{chip_id}.z"
    try:
        content = zlib.decompress(place.joinpath(file).read_bytes())
        image = _cut_image(row, content, int(row["options"]))
        whole = image.size
        if "first" in row:
            image = replace(image, first=_cut_image(row["first"], content[whole:], None))
            whole += image.first.size if image.first is not None else 0
        if "older" in row:
            other = row["older"]
            older = _cut_image(other, content[whole:], int(other["options"]))
            image = replace(image, older=older, older_revision=int(other["max_revision"]))
            whole += older.size
    except (OSError, zlib.error, KeyError, TypeError, ValueError) as error:
        raise DataError(f"the stub file {file} is damaged: {error}", hint=REBUILD) from None
    if len(content) != whole or len(image.build) != 8 or image.build not in content:
        raise DataError(f"the stub file {file} does not match its index", hint=REBUILD)
    return image


def _cut_image(row: dict[str, Any], content: bytes, options: int | None) -> StubImage:
    """The image that begins at the start of ``content``."""
    segments, at = [], 0
    for segment in row["segments"]:
        segments.append((int(segment["address"]), content[at : at + int(segment["size"])]))
        at += int(segment["size"])
    build = bytes.fromhex(row["build"])
    constants = int(row.get("constants", 0))
    return StubImage(
        int(row["entry"]),
        tuple(segments),
        options,
        build,
        str(row["compiler"]),
        constants=constants,
    )


def parse_vendor_stub(data: bytes, name: str) -> StubImage:
    """A stub in the vendor's JSON format; ``name`` is for errors.

    :raises DataError: invalid format
    """
    try:
        table = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} is not JSON: {error}", hint=VENDOR_HINT) from None
    if not isinstance(table, dict):
        raise DataError(f"{name} is not a JSON object", hint=VENDOR_HINT)
    parts = ("text", "data") if "data" in table or "data_start" in table else ("text",)
    segments = tuple(
        (_number(table, f"{part}_start", name), _content(table, part, name)) for part in parts
    )
    entry = _number(table, "entry", name)
    if not any(address <= entry < address + len(content) for address, content in segments):
        raise DataError(
            f"{name}: the entry address {entry:#x} is outside its segments", hint=VENDOR_HINT
        )
    return StubImage(entry, tuple((address, content) for address, content in segments if content))


def _number(table: dict[str, Any], key: str, name: str) -> int:
    value = table.get(key)
    if type(value) is not int or not 0 <= value < 1 << 32:
        raise DataError(f"{name}: {key} must be an address, got {_short(value)}", hint=VENDOR_HINT)
    return value


def _content(table: dict[str, Any], key: str, name: str) -> bytes:
    try:
        content = base64.b64decode(table.get(key, 0), validate=True)
    except (TypeError, ValueError):
        raise DataError(
            f"{name}: {key} must be base64, got {_short(table.get(key))}", hint=VENDOR_HINT
        ) from None
    if table[f"{key}_start"] + len(content) > 1 << 32:
        raise DataError(f"{name}: {key} exceeds the 32-bit address space", hint=VENDOR_HINT)
    return content + bytes(-len(content) % 4)


def _short(value: object) -> str:
    if isinstance(value, list | dict):
        return "an array" if isinstance(value, list) else "an object"
    text = "missing" if value is None else repr(value)
    return text if len(text) <= 40 else f"{text[:40]}…"


def _packed() -> Traversable:
    return files("espwire.device").joinpath("stubs")


def _read_index(folder: Traversable) -> dict[str, Any]:
    try:
        return tomllib.loads(folder.joinpath(INDEX).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"the index of the stubs cannot be read: {error}", hint=REBUILD) from None
