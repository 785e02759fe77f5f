"""The options for a flash encryption key on this computer, and the key that they name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from espwire.cli.inputs import TableSource, read_table_file
from espwire.cli.number_types import Number
from espwire.cli.options import combine
from espwire.errors import UsageError
from espwire.secure.key_files import read_key_file, require_raw_key
from espwire.text import escape

if TYPE_CHECKING:
    from espwire.cli.context import Context
    from espwire.flash.host_key import HostKey

key_options = combine(
    click.option(
        "--key",
        metavar="FILE",
        help="Flash encryption key of the chip, to encrypt or decrypt on this computer.",
    ),
    click.option(
        "--flash-crypt-conf",
        "crypt_config",
        type=Number(0, 0xF),
        metavar="N",
        help="With --key, on an ESP32: FLASH_CRYPT_CONFIG, 0 to 0xF, if it cannot be read.",
    ),
)
host_key_options = combine(
    key_options,
    click.option(
        "--all-encrypted",
        is_flag=True,
        help="With --key: everything is encrypted, not only what the partition table marks.",
    ),
)


def read_host_key(
    context: Context, choices: Mapping[str, Any], source: TableSource | None = None
) -> HostKey | None:
    """The key of ``--key``, and what the other options state about it; None: no such option.

    :param choices: the values of these options and of others, by name
    :param source: where the user says that the partition table is
    :raises UsageError: the options contradict each other
    :raises FileError, TableError: a file cannot be used
    """
    path, crypt_config = choices["key"], choices["crypt_config"]
    everything = choices.get("all_encrypted", False)
    if path is None:
        if everything or crypt_config is not None:
            option = "--all-encrypted" if everything else "--flash-crypt-conf"
            raise UsageError(f"{option} needs --key", hint="Add --key FILE.")
        return None
    for name in ("encrypt", "encrypt_files"):
        if choices.get(name):
            option = f"--{name.replace('_', '-')}"
            raise UsageError(f"--key and {option} exclude each other", hint="Use only one of them.")
    from espwire.flash.host_key import HostKey

    source = source or TableSource(None, HostKey.table_offset)
    table = None
    if source.file is not None:
        table = read_table_file(context, source.file, source.offset)
    return HostKey(
        key=require_raw_key(read_key_file(path), escape(path)),
        crypt_config=crypt_config,
        everything=everything,
        table=table,
        table_offset=source.offset,
    )
