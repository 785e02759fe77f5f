"""Reads zip archives whose content is not trusted: a damaged one gives one kind of error, a large one is refused."""

from __future__ import annotations

import zipfile
import zlib
from typing import BinaryIO

MOST_UNPACKED = 256 * 1024 * 1024  # bytes of all files in an archive
MOST_FILES = 20_000
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)


class BadArchive(Exception):
    """An archive that cannot be unpacked. Its text is the reason."""


def read_archive(source: BinaryIO) -> dict[str, bytes]:
    """The files in an archive by their names; of several with one name, the last.

    :raises BadArchive: it is damaged, encrypted or too large
    :raises OSError: the file cannot be read
    """
    try:
        with zipfile.ZipFile(source) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
            if not entries:
                raise BadArchive("it contains no files")
            size = sum(entry.file_size for entry in entries)
            if size > MOST_UNPACKED or len(entries) > MOST_FILES:
                raise BadArchive("it is too large")
            return {entry.filename: _read_entry(archive, entry) for entry in entries}
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise BadArchive(str(error) or "it is incomplete") from None
    except (NotImplementedError, RuntimeError) as error:  # RuntimeError: it is encrypted
        raise BadArchive(str(error)) from None
    except ValueError:  # of a wrong position, or a name that is not text
        raise BadArchive("it is damaged") from None


def _read_entry(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> bytes:
    if entry.compress_type not in METHODS:
        raise NotImplementedError(f"{entry.filename} is compressed by an unknown method")
    with archive.open(entry) as file:  # its stated size may be wrong: never read more
        return file.read(entry.file_size)
