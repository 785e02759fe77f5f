"""Key files on the command line: reading them, asking for passphrases, and outputs that never replace a key unasked."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING

from espwire.errors import KeyFileError, UsageError
from espwire.files import keep_inputs, write_file
from espwire.secure.key_files import protect_keys, read_key_file
from espwire.text import escape

if TYPE_CHECKING:
    from espwire.secure.keys import PrivateKey, PublicKey

PASSPHRASE_VARIABLE = "ESPWIRE_KEY_PASSPHRASE"
OVERWRITE = "overwrite-key"


def read_private_key(path: str) -> PrivateKey:
    """The private key in a file; requests the passphrase if it is encrypted.

    :raises KeyFileError, FileError: it is not a private key, or cannot be read
    """
    from espwire.secure.keys import parse_private_key

    name = escape(path)
    return parse_private_key(read_key_file(path), name, partial(read_passphrase, name))


def read_public_key(path: str) -> PublicKey:
    """The public key in a file, which may also hold the private key.

    :raises KeyFileError, FileError: it is not a key, or cannot be read
    """
    from espwire.secure.keys import parse_public_key

    name = escape(path)
    return parse_public_key(read_key_file(path), name, partial(read_passphrase, name))


def read_passphrase(name: str, *, repeat: bool = False) -> bytes:
    """The passphrase of a key, from the environment or the terminal.

    :param repeat: request it twice: it is a new one
    :raises KeyFileError: code ``key-passphrase``: neither has it
    """
    if (value := os.environ.get(PASSPHRASE_VARIABLE)) is not None:
        return _check_passphrase(value)
    if sys.stdin is None or not sys.stdin.isatty():
        raise KeyFileError(
            f"{name} needs a passphrase, and there is no terminal to request it",
            hint=f"Set the environment variable {PASSPHRASE_VARIABLE}.",
            code="key-passphrase",
        )
    try:
        value = getpass.getpass(f"Passphrase of {name}: ")
        again = getpass.getpass("The same passphrase again: ") if repeat else value
    except EOFError:
        value = again = ""
    if value != again:
        raise KeyFileError(
            "the two passphrases differ", hint="Enter the same one twice.", code="key-passphrase"
        )
    return _check_passphrase(value)


def _check_passphrase(value: str) -> bytes:
    if not value:
        raise KeyFileError(
            "the passphrase is empty",
            hint="Enter the passphrase of the key.",
            code="key-passphrase",
        )
    return os.fsencode(value)


def write_output(
    output: str, data: bytes, *, inputs: Iterable[str] = (), allow: frozenset[str]
) -> None:
    """Write a result that is not secret. It replaces neither an input nor a key.

    :raises UsageError: code ``output-is-input``
    :raises SafetyStop: code ``overwrite-key``
    """
    keep_inputs(output, inputs)
    protect_keys(output, data, allowed=OVERWRITE in allow)
    write_file(output, data)


def write_key(
    output: str, data: bytes, *, inputs: Iterable[str] = (), allow: frozenset[str]
) -> None:
    """Write a secret key, readable for this user only. It replaces no file.

    :raises UsageError: code ``output-is-input``
    :raises SafetyStop: code ``overwrite-key``
    """
    keep_inputs(output, inputs)
    protect_keys(output, data, new=True, allowed=OVERWRITE in allow)
    write_file(output, data, private=True)


def require_one_source(**sources: object) -> None:
    """:raises UsageError: not exactly one of these options was given"""
    given = [name for name, value in sources.items() if value]
    if len(given) != 1:
        names = " or ".join(f"--{name.replace('_', '-')}" for name in sources)
        raise UsageError(
            f"{'only one' if given else 'one'} of {names} is required", hint="Add one of them."
        )
