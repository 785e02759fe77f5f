"""What is in a key file, before a cryptographic library parses it: labels, raw keys, and the cost of its passphrase.

A key file is at most 64 KiB, a key in it 8 KiB. The limits keep a malicious file from using minutes of CPU time: the
check of an RSA key of 100,000 bits, or a passphrase that is hashed a billion times.
"""

from __future__ import annotations

import base64
import binascii
from typing import NamedTuple

from espwire.errors import FileError, KeyFileError, SafetyStop
from espwire.files import read_file
from espwire.key_content import (
    FILE_LIMIT,
    KEY_LIMIT,
    PRIVATE_LABELS,
    RAW_KEY_SIZES,
    SEQUENCE,
    is_private_der,
    may_be_key,
    split_pem,
    walk,
)

MAX_HASHES = (
    10_000_000  # rounds that derive a key from a passphrase; the usual number is below 1,000,000
)
MAX_SCRYPT = 1 << 20  # N × r: 128 MiB
MAX_DEPTH = 16  # of nested DER values
SCRYPT = bytes.fromhex("2b06010401da47040b")  # its object identifier
PUBLIC_LABELS = ("PUBLIC KEY", "RSA PUBLIC KEY")
RAW_POINT = 64  # bytes of a public key of secure boot version 1
_INTEGER, _IDENTIFIER = 0x02, 0x06


class FoundKey(NamedTuple):
    """``data``: the PEM text of one key, or the whole DER file."""

    data: bytes
    pem: bool
    private: bool


def read_key_file(path: str) -> bytes:
    """The content of a key file.

    :raises FileError: it cannot be read, or has more than 64 KiB
    """
    return read_file(path, limit=FILE_LIMIT)


def find_key(data: bytes, name: str) -> FoundKey:
    """The first key in a PEM file, which may also hold parameters and certificates; or the DER file itself.

    :raises KeyFileError: code ``not-a-key``, ``key-damaged``
    """
    labels = []
    for label, text in split_pem(data):
        if label in PRIVATE_LABELS or label in PUBLIC_LABELS:
            if len(text) > KEY_LIMIT:
                raise KeyFileError(
                    f"the key in {name} has more than {KEY_LIMIT:,} bytes",
                    hint="Check that it is the right file and that it is complete.",
                    code="key-damaged",
                )
            return FoundKey(text, pem=True, private=label in PRIVATE_LABELS)
        labels.append(label)
    if data[:1] == bytes([SEQUENCE]) and len(data) <= KEY_LIMIT and not _is_raw_key(data):
        return FoundKey(data, pem=False, private=is_private_der(data))
    raise KeyFileError(
        f"{name} does not contain a key" + (f", but {labels[0][:40]!r}" if labels else ""),
        hint="A signing key is a PEM or DER file; `espwire secure generate-signing-key` creates one.",
        code="not-a-key",
    )


def require_raw_key(data: bytes, name: str) -> bytes:
    """``data``, unless it is a file with a signing key; its size is not checked.

    :raises KeyFileError: code ``key-size``
    """
    labels = (label for label, _ in split_pem(data))
    if any(label in PRIVATE_LABELS or label in PUBLIC_LABELS for label in labels):
        raise KeyFileError(
            f"{name} is a signing key, not a flash encryption key",
            hint="Use the binary key file that was burned into the chip.",
            code="key-size",
        )
    return data


def _is_raw_key(data: bytes) -> bool:
    """Whether a file has the size of a raw key, and is not a DER value from its first to its last byte."""
    values = [content for level, _, content in walk(data, depth=1) if level == 0]
    return len(data) in RAW_KEY_SIZES and (not values or len(values[0]) != len(data) - 2)


def read_raw_point(data: bytes) -> tuple[int, int] | None:
    """x and y of a raw public key of secure boot version 1; None if the file is something else."""
    if len(data) != RAW_POINT or data.startswith(b"-----"):
        return None
    return int.from_bytes(data[:32], "big"), int.from_bytes(data[32:], "big")


def check_cost(data: bytes, name: str, *, pem: bool) -> None:
    """Check that decrypting a key takes neither minutes nor gigabytes.

    :raises KeyFileError: code ``key-cost``
    """
    if pem:
        if b"Proc-Type" in data:  # the traditional form hashes once
            return
        lines = [line for line in data.splitlines()[1:-1] if b":" not in line and line.strip()]
        try:
            data = base64.b64decode(b"".join(lines))
        except (binascii.Error, ValueError):
            return  # parsing it fails at once
    numbers, scrypt = [], False
    for _, kind, content in walk(data, depth=MAX_DEPTH):
        if kind == _INTEGER:
            numbers.append(int.from_bytes(content, "big"))
        scrypt = scrypt or (kind == _IDENTIFIER and content == SCRYPT)
    product = 1
    for number in numbers[:3]:
        product *= max(number, 1)
    if (product > MAX_SCRYPT) if scrypt else any(number > MAX_HASHES for number in numbers):
        raise KeyFileError(
            f"decrypting {name} would take too long: its passphrase is hashed too many times",
            hint="Encrypt the key again with fewer iterations.",
            code="key-cost",
        )


def protect_keys(output: str, data: bytes, *, new: bool = False, allowed: bool = False) -> None:
    """Refuse an output that would replace a key file.

    A file counts as one if it is a private key or has the size of a raw key, unless it has the same content.

    :param new: refuse every existing file: a key is to be written
    :param allowed: the user consents to replacing it
    :raises SafetyStop: code ``overwrite-key``
    """
    import os
    import stat

    try:
        found = os.stat(output)
    except (OSError, ValueError):
        return  # new, or reported when it is written
    if allowed or not stat.S_ISREG(found.st_mode) or found.st_size > FILE_LIMIT:
        return
    try:
        old = read_key_file(output)
    except FileError:
        return
    is_key = len(old) in RAW_KEY_SIZES or may_be_key(old)
    if old and old != data and (new or is_key):
        raise SafetyStop(
            f"{output} exists and " + ("may be a key" if is_key else "would be replaced by a key"),
            hint="Choose another output file, or repeat the command with --allow overwrite-key.",
            code="overwrite-key",
            consents=("overwrite-key",),
        )
