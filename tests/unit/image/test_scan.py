"""Bytes that are not an image are named."""

import gzip
import io
import itertools
import zipfile

import pytest

from espwire.image.scan import describe_kind


def archive() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("firmware.bin", b"data")
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"<!DOCTYPE html>\n<html>", "an HTML page"),
        (b"\xef\xbb\xbf\n  <HTML lang=en>", "an HTML page"),
        (b"<?xml version='1.0'?>", "an XML file"),
        (b'{"message": "Not Found"}', "a JSON file"),
        (b"Not Found\n", "a text file"),
        ("Fehler: größer".encode(), "a text file"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer, not the file itself"),
        (archive(), "a ZIP archive"),
        (gzip.compress(b"x" * 100), "gzip-compressed data"),
        (b"\x89PNG\r\n\x1a\n" + bytes(20), "a PNG image"),
        (b"\x7fELF\x01\x01\x01", "an ELF file"),
        (b"\xaa\x50\x01\x02", "a partition table"),
        (b"\xff" * 100, "blank (all 0xff)"),
        (bytes(100), "all zeros"),
        (b"\x00\x01\x02\x03", "data that begins with 00 01 02 03"),
    ],
    ids=itertools.count(),  # archives hold the time, and workers must agree on names
)
def test_it_is_named(data: bytes, kind: str) -> None:
    assert describe_kind(data) == kind
