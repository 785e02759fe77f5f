"""Recognizes private keys by their content, without a cryptographic library: PEM, DER, and raw keys."""

from __future__ import annotations

from collections.abc import Iterator

FILE_LIMIT, KEY_LIMIT = 0x10000, 0x2000  # bytes
PRIVATE_LABELS = ("RSA PRIVATE KEY", "EC PRIVATE KEY", "PRIVATE KEY", "ENCRYPTED PRIVATE KEY")
PEM_MARK, PEM_SEARCH = b"PRIVATE KEY-----", 0x1000
RAW_KEY_SIZES = (16, 24, 32, 64)  # of keys for flash encryption and secure boot version 1
SEQUENCE, INTEGER = 0x30, 0x02


def may_be_key(data: bytes) -> bool:
    """Whether the content of a file may be a private key, or a raw key: a key's size, and at least half of the bytes differ.

    Of a file larger than any key file, such as firmware with the texts of a PEM parser, only the start counts.
    """
    if PEM_MARK in (data if len(data) <= FILE_LIMIT else data[:PEM_SEARCH]):
        return True
    if len(data) in RAW_KEY_SIZES and 2 * len(set(data)) >= len(data):
        return True
    return data[:1] == bytes([SEQUENCE]) and len(data) <= KEY_LIMIT and is_private_der(data)


def split_pem(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Label and text of each part of a PEM file. Parts without an end are skipped."""
    begin, dashes, at = b"-----BEGIN ", b"-----", 0
    while (start := data.find(begin, at)) >= 0:
        at = start + len(begin)
        label_end = data.find(dashes, at, at + 64)
        if label_end < 0:
            continue
        label = data[at:label_end]
        final = dashes + b"END " + label + dashes
        end = data.find(final, label_end, label_end + FILE_LIMIT)
        if end < 0:
            return
        at = end + len(final)
        yield label.decode("ascii", "replace"), data[start:at] + b"\n"


def is_private_der(data: bytes) -> bool:
    """Private keys begin with a version or, if encrypted, with an algorithm and a string; public ones have a bit string."""
    parts = list(walk(data, depth=2))
    kinds = [kind for level, kind, _ in parts if level == 1]
    return (kinds[:1] == [INTEGER] and kinds != [INTEGER] * 2) or 0x04 in kinds


def walk(data: bytes, *, depth: int, level: int = 0) -> Iterator[tuple[int, int, bytes]]:
    """Level, tag and content of each DER value, containers before their content. Ends at the first invalid length."""
    at = 0
    while at + 2 <= len(data):
        kind, size, at = data[at], data[at + 1], at + 2
        if size & 0x80:
            count = size & 0x7F
            size, at = int.from_bytes(data[at : at + count], "big"), at + count
        if at + size > len(data):
            return
        content = data[at : at + size]
        yield level, kind, content
        if kind & 0x20 and level + 1 < depth:
            yield from walk(content, depth=depth, level=level + 1)
        at += size
