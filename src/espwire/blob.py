"""`Blob`: bytes with the flash address they belong to and a name for messages.

Every input becomes blobs: a raw file is one, an Intel HEX file one per contiguous range. Merging, splitting, builds and
flash plans all use them.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from espwire.errors import DataError, UsageError
from espwire.files import read_file


class BinaryFile(Protocol):
    """A file object, such as ``open(path, "rb")`` or ``io.BytesIO``."""

    def read(self) -> bytes:
        """The rest of the file."""


Source = bytes | bytearray | memoryview | str | os.PathLike[str] | BinaryFile


@dataclass(frozen=True, init=False, repr=False)
class Blob:
    """Bytes for a flash address.

    ``data`` and ``previous`` may be passed as bytes, as a path or as an open binary file, which are read at once;
    ``name`` defaults to the file's. Two blobs are equal if they put the same bytes at the same address for the same
    chips.

    ``fixed``: the file itself gives the address (Intel HEX, S-record, UF2); of others it is the caller's choice.
    ``kind``: what it is, such as ``app`` or ``bootloader``, where known. ``encrypted``: the chip encrypts it while
    writing. ``previous``: what the flash is believed to hold there; only differences are then written.
    ``chips``: ids of the chips that the file is for, where it names them. ``one_of``: the file's name if it has blobs
    for several chips, of which each chip uses only some. ``note``: how the file was converted, as a sentence.
    """

    address: int
    data: bytes
    name: str = field(default="", compare=False)
    encrypted: bool = False
    previous: bytes | None = None
    kind: str = ""
    chips: tuple[str, ...] = ()
    one_of: str = ""
    note: str = field(default="", compare=False)
    fixed: bool = field(default=False, compare=False)

    def __init__(
        self,
        address: int,
        data: Source,
        name: str = "",
        encrypted: bool = False,
        previous: Source | None = None,
        *,
        kind: str = "",
        chips: tuple[str, ...] = (),
        one_of: str = "",
        note: str = "",
        fixed: bool = False,
    ) -> None:
        """Read ``data`` and ``previous``.

        :raises UsageError: code ``part``: an argument has the wrong type
        :raises FileError: a file cannot be read
        """
        if isinstance(address, bool) or not isinstance(address, int):
            raise _wrong_type("the address must be an integer", address, "For example: 0x10000.")
        if not isinstance(name, str):
            raise _wrong_type("the name must be a string", name, "Leave it out.")
        content, file_name = read_source(data, "data")
        values = {
            "address": address,
            "data": content,
            "name": name or file_name,
            "encrypted": encrypted,
            "previous": None if previous is None else read_source(previous, "previous")[0],
            "kind": kind,
            "chips": chips,
            "one_of": one_of,
            "note": note,
            "fixed": fixed,
        }
        for key, value in values.items():
            object.__setattr__(self, key, value)

    def __repr__(self) -> str:
        name = f", {self.name!r}" if self.name else ""
        return f"<Blob {self.address:#x}, {len(self.data):,} bytes{name}>"

    @property
    def end(self) -> int:
        """One past the last address."""
        return self.address + len(self.data)

    @property
    def label(self) -> str:
        """The name for messages."""
        return self.name or f"the data for {self.address:#x}"


def read_source(source: Source, what: str) -> tuple[bytes, str]:
    """The bytes, and the file's name if there is one.

    :param what: the argument's name, for messages
    :raises UsageError: code ``part``: it is none of these
    :raises FileError: the file cannot be read
    """
    if isinstance(source, bytes):
        return source, ""
    if isinstance(source, bytearray | memoryview):
        return bytes(source), ""
    if isinstance(source, str | os.PathLike):
        return read_file(source), os.path.basename(os.fspath(source))
    if callable(getattr(source, "read", None)):
        data, name = source.read(), getattr(source, "name", "")
        if isinstance(data, bytes):
            return data, os.path.basename(name) if isinstance(name, str) else ""
        raise _wrong_type(f"{what} must be a binary file", data, "Open it with mode 'rb'.")
    raise _wrong_type(
        f"{what} must be bytes, a path or a binary file",
        source,
        "Pass the data, the path of its file, or the opened file.",
    )


def _wrong_type(text: str, value: object, hint: str) -> UsageError:
    return UsageError(f"{text}, got {type(value).__name__}", hint=hint, code="part")


def choose_for_chip(blobs: Iterable[Blob], chip: str | None) -> tuple[Blob, ...]:
    """Leave out what files for several chips hold for chips other than ``chip``; None: keep everything.

    :raises DataError: such a file holds nothing for ``chip``, code ``image-uf2-family``
    """
    blobs = tuple(blobs)
    if chip is None:
        return blobs
    chosen = tuple(blob for blob in blobs if not blob.one_of or chip in blob.chips)
    for name in sorted({blob.one_of for blob in blobs} - {blob.one_of for blob in chosen}):
        chips = dict.fromkeys(chip for blob in blobs if blob.one_of == name for chip in blob.chips)
        raise DataError(
            f"{name} is a UF2 file for {' and '.join(chips)}, not for {chip}",
            hint="Build a UF2 file for this chip.",
            code="image-uf2-family",
        )
    return chosen


def require_one_chip(blobs: Iterable[Blob]) -> None:
    """Reject a file for several chips where only one can be meant.

    :raises DataError: code ``image-uf2-family``
    """
    blobs = [blob for blob in blobs if blob.one_of]
    chips = dict.fromkeys(chip for blob in blobs for chip in blob.chips)
    if len(chips) > 1:
        raise DataError(
            f"{blobs[0].one_of} is a UF2 file for several chips: {', '.join(chips)}",
            hint="Select the chip with --chip.",
            code="image-uf2-family",
        )
