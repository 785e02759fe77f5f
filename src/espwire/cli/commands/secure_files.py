"""`secure encrypt-flash-data`, `decrypt-flash-data`: flash encryption of files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import click

from espwire.cli.inputs import load_chip_option
from espwire.cli.number_types import FlashAddress, Number
from espwire.cli.options import allow_option, chip_option, combine
from espwire.cli.secure_inputs import write_output
from espwire.errors import KeyFileError, Unsupported, UsageError
from espwire.files import read_file
from espwire.secure.key_files import read_key_file, require_raw_key
from espwire.text import escape

if TYPE_CHECKING:
    from espwire.cli.context import Context

Scheme = Literal["xts", "esp32"]
encryption_options = combine(
    click.option("-k", "--keyfile", metavar="FILE", required=True, help="Flash encryption key."),
    click.option("-o", "--output", metavar="FILE", required=True, help="Output file."),
    click.option(
        "-a",
        "--address",
        type=FlashAddress(0),
        required=True,
        metavar="ADDRESS",
        help="Flash address of the data: the result is only right there.",
    ),
    chip_option,
    click.option("-x", "--aes-xts", is_flag=True, help="XTS-AES: all chips except the ESP32."),
    click.option(
        "--flash-crypt-conf",
        type=Number(0, 0xF),
        metavar="N",
        help="ESP32: the eFuse FLASH_CRYPT_CONFIG, 0 to 0xF. Default: 0xF.",
    ),
    allow_option,
)


@click.command()
@click.argument("file", metavar="FILE")
@encryption_options
@click.pass_obj
def encrypt_flash_data(context: Context, /, **options: Any) -> None:
    """The scheme follows --chip. Without it, -x selects XTS-AES; a key of 192 bits is for the ESP32, and one of 128 or 512
    bits for XTS-AES. Address and size are multiples of 16."""
    _process(context, "encrypt", **options)


@click.command()
@click.argument("file", metavar="FILE")
@encryption_options
@click.pass_obj
def decrypt_flash_data(context: Context, /, **options: Any) -> None:
    """The options are those of encrypt-flash-data."""
    _process(context, "decrypt", **options)


def _process(
    context: Context,
    verb: Literal["encrypt", "decrypt"],
    *,
    file: str,
    keyfile: str,
    output: str,
    address: int,
    aes_xts: bool,
    flash_crypt_conf: int | None,
    allow: frozenset[str],
) -> None:
    from espwire.secure import flash_encryption as cipher

    key = require_raw_key(read_key_file(keyfile), escape(keyfile))
    scheme = _choose_scheme(context, len(key), aes_xts)
    if context.program.strict:
        _check_options(context, scheme, key, flash_crypt_conf)
    data = read_file(file)
    if not data and context.program.strict:
        raise UsageError(
            f"{escape(file)} is empty: there is nothing to {verb}", hint="Check the file."
        )
    if scheme == "xts":
        run = cipher.encrypt_xts if verb == "encrypt" else cipher.decrypt_xts
        result = run(data, address, key)
    else:
        run_esp32 = cipher.encrypt_esp32 if verb == "encrypt" else cipher.decrypt_esp32
        config = cipher.USUAL_CRYPT_CONFIG if flash_crypt_conf is None else flash_crypt_conf
        result = run_esp32(data, address, key, config)
    write_output(output, result, inputs=[file, keyfile], allow=allow)
    name = "XTS-AES" if scheme == "xts" else "the ESP32's scheme"
    text = (
        f"{len(result):,} bytes of {escape(file)} {verb}ed with {name} for address {address:#x}, "
        f"written to {escape(output)}."
    )
    details = {"file": file, "output": output, "scheme": scheme}
    context.result(
        f"secure {verb}-flash-data", text, details | {"address": address, "bytes": len(result)}
    )


def _check_options(
    context: Context, scheme: Scheme, key: bytes, flash_crypt_conf: int | None
) -> None:
    """Check the key against the chip of --chip, and --flash-crypt-conf against the scheme.

    :raises UsageError: code ``crypt-config``
    :raises KeyFileError: code ``key-size``
    """
    from espwire.flash.host_key import find_key_sizes

    if flash_crypt_conf is not None and scheme == "xts":
        raise UsageError(
            "--flash-crypt-conf has no effect: XTS-AES does not use FLASH_CRYPT_CONFIG",
            hint="Leave out --flash-crypt-conf.",
            code="crypt-config",
        )
    chip = load_chip_option(context)
    sizes = () if chip is None else find_key_sizes(chip, frozenset())
    if chip is not None and len(key) not in sizes:
        bits = " or ".join(str(8 * size) for size in sizes)
        raise KeyFileError(
            f"the key has {8 * len(key)} bits; {chip.name} uses {bits} bits",
            hint="Use the complete binary key file that was burned into the chip.",
            code="key-size",
        )


def _choose_scheme(context: Context, key_bytes: int, aes_xts: bool) -> Scheme:
    """The scheme of the chip, of the option, or of the length of the key.

    :raises UsageError: code ``encryption-scheme``
    :raises Unsupported: the chip has no flash encryption
    """
    from espwire.secure.flash_encryption import ESP32_KEY_BYTES, XTS_KEY_BYTES, find_scheme

    chip = load_chip_option(context)
    if chip is not None:
        scheme = find_scheme(chip)
        if scheme is None:
            raise Unsupported(
                f"{chip.name} has no flash encryption", hint="Check --chip.", code="no-encryption"
            )
        if aes_xts and scheme != "xts":
            raise UsageError(
                f"{chip.name} does not encrypt with XTS-AES",
                hint="Leave out --aes-xts.",
                code="encryption-scheme",
            )
        return scheme
    if aes_xts:
        return "xts"
    if key_bytes not in ESP32_KEY_BYTES and key_bytes in XTS_KEY_BYTES and context.program.strict:
        return "xts"
    if key_bytes in XTS_KEY_BYTES and context.program.strict:
        raise UsageError(
            f"a key of {8 * key_bytes} bits may be for an ESP32 or for another chip",
            hint="Add --chip, for example --chip esp32c3.",
            code="encryption-scheme",
        )
    return "esp32"
