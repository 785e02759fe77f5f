"""Keys on the command line: key files, passphrases, security modules, and outputs that never replace a key without consent."""

from __future__ import annotations

import getpass
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING

import click

from espwire.cli.options import combine
from espwire.errors import KeyFileError, UsageError
from espwire.files import keep_inputs, write_file
from espwire.secure.key_files import protect_keys, read_key_file
from espwire.text import escape

if TYPE_CHECKING:
    from espwire.secure.hsm import HsmSigner
    from espwire.secure.keys import PrivateKey, PublicKey

PASSPHRASE_VARIABLE, PIN_VARIABLE = "ESPWIRE_KEY_PASSPHRASE", "ESPWIRE_HSM_PIN"
OVERWRITE = "overwrite-key"
hsm_options = combine(
    click.option("--hsm", is_flag=True, help="Use the key in a security module (PKCS#11)."),
    click.option(
        "--hsm-config", metavar="FILE", help="The security module's settings, an INI file."
    ),
)


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


@contextmanager
def open_hsm(path: str | None, *, private: bool = True) -> Iterator[HsmSigner]:
    """The key in a security module, as long as the block lasts.

    :param path: the file of ``--hsm-config``
    :param private: find the private key, not only the public one
    :raises UsageError, Unsupported: it cannot be used
    """
    from espwire.secure.hsm import open_signer, parse_config

    if path is None:
        raise UsageError("--hsm needs --hsm-config", hint="Add --hsm-config FILE.")
    text = read_key_file(path).decode("utf-8", "replace")
    config = parse_config(text, escape(path))

    def ask_pin() -> str:
        return os.fsdecode(_read_secret(PIN_VARIABLE, f"the token of {escape(path)}", "PIN"))

    with open_signer(config, ask_pin, private=private) as signer:
        yield signer


def read_passphrase(name: str, *, repeat: bool = False) -> bytes:
    """The passphrase of a key, from the environment or the terminal.

    :param repeat: request it twice: it is a new one
    :raises KeyFileError: code ``key-passphrase``: neither has it
    """
    return _read_secret(PASSPHRASE_VARIABLE, name, "passphrase", repeat=repeat)


def _read_secret(variable: str, name: str, kind: str, *, repeat: bool = False) -> bytes:
    if value := os.environ.get(variable):
        return _check_secret(value, kind)
    if sys.stdin is None or not sys.stdin.isatty():
        raise KeyFileError(
            f"{name} needs a {kind}, and there is no terminal to request it",
            hint=f"Set the environment variable {variable}.",
            code="key-passphrase",
        )
    try:
        value = getpass.getpass(f"{kind.capitalize() if kind.islower() else kind} of {name}: ")
        again = getpass.getpass(f"The same {kind} again: ") if repeat else value
    except EOFError:
        value = again = ""
    if value != again:
        raise KeyFileError(
            f"the two {kind}s differ", hint="Enter the same one twice.", code="key-passphrase"
        )
    return _check_secret(value, kind)


def _check_secret(value: str, kind: str) -> bytes:
    if not value:
        raise KeyFileError(f"the {kind} is empty", hint=f"Enter the {kind}.", code="key-passphrase")
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
    write_file(output, data, replace_key=True)


def write_key(
    output: str, data: bytes, *, inputs: Iterable[str] = (), allow: frozenset[str]
) -> None:
    """Write a secret key, readable for this user only. It replaces no file.

    :raises UsageError: code ``output-is-input``
    :raises SafetyStop: code ``overwrite-key``
    """
    keep_inputs(output, inputs)
    protect_keys(output, data, new=True, allowed=OVERWRITE in allow)
    write_file(output, data, private=True, replace_key=True)


def require_one_source(**sources: object) -> None:
    """:raises UsageError: not exactly one of these options was given"""
    given = [name for name, value in sources.items() if value]
    if len(given) != 1:
        names = " or ".join(f"--{name.replace('_', '-')}" for name in sources)
        raise UsageError(
            f"{'only one' if given else 'one'} of {names} is required", hint="Add one of them."
        )
