"""`secure generate-…`, `extract-public-key`, `digest-…`: keys for secure boot and flash encryption."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from espwire.cli.number_types import Number
from espwire.cli.options import allow_option
from espwire.cli.secure_inputs import (
    read_passphrase,
    read_private_key,
    read_public_key,
    write_key,
    write_output,
)
from espwire.errors import UsageError
from espwire.text import escape

if TYPE_CHECKING:
    from espwire.cli.context import Context

SCHEMES = ("rsa3072", "ecdsa192", "ecdsa256", "ecdsa384")
version_option = click.option(
    "-v",
    "--version",
    type=click.Choice(("1", "2")),
    default="1",
    help="Version of secure boot. Default: 1.",
)
key_option = click.option(
    "-k", "--keyfile", metavar="FILE", required=True, help="Key file: PEM or DER."
)
output_option = click.option("-o", "--output", metavar="FILE", required=True, help="Output file.")


@click.command()
@click.argument("keyfile", metavar="KEYFILE")
@version_option
@click.option(
    "-s",
    "--scheme",
    type=click.Choice(SCHEMES),
    help="Kind of key. Default: ecdsa256 for version 1, rsa3072 for version 2.",
)
@click.option("--pkcs8", is_flag=True, help="Write PKCS#8 instead of the traditional PEM form.")
@click.option(
    "--passphrase",
    is_flag=True,
    help="Encrypt the key. The passphrase is read from ESPWIRE_KEY_PASSPHRASE or the terminal.",
)
@allow_option
@click.pass_obj
def generate_signing_key(
    context: Context,
    keyfile: str,
    version: str,
    scheme: str | None,
    pkcs8: bool,
    passphrase: bool,
    allow: frozenset[str],
) -> None:
    """The key is written as PEM, readable for you only. Whoever has it can sign firmware for your chips, and without it
    you cannot: keep a copy in a safe place."""
    from espwire.secure.keys import SCHEMES, generate_key

    scheme = scheme or ("ecdsa256" if version == "1" else "rsa3072")
    if version == "1" and scheme != "ecdsa256":
        raise UsageError(
            f"secure boot version 1 has no keys for {SCHEMES[scheme].title}",
            hint="Use --scheme ecdsa256, or --version 2.",
            code="key-scheme",
        )
    secret = read_passphrase(escape(keyfile), repeat=True) if passphrase else None
    key = generate_key(SCHEMES[scheme])
    write_key(keyfile, key.pem(secret, pkcs8=pkcs8), allow=allow)
    digest = key.public.digest().hex()
    title = key.public.scheme.title
    lines = [f"Private key for {title} written to {escape(keyfile)}."]
    if version == "2":
        lines.append(f"Digest of its public key: {digest}")
    data = {"output": keyfile, "scheme": scheme, "encrypted": passphrase}
    context.result("secure generate-signing-key", "\n".join(lines), data | {"digest": digest})


@click.command()
@click.argument("keyfile", metavar="KEYFILE")
@click.option(
    "-l",
    "--keylen",
    type=Number(0),
    default=256,
    metavar="BITS",
    help="128, 192, 256 (default) or 512 bits. 192 is for an ESP32 with 3/4 coding, 512 for XTS-AES-256.",
)
@allow_option
@click.pass_obj
def generate_flash_encryption_key(
    context: Context, keyfile: str, keylen: int, allow: frozenset[str]
) -> None:
    """The key is random bytes, readable for you only. With a key that is known to the host, firmware can be encrypted before
    it is written; a chip can also generate its own."""
    from espwire.secure.flash_encryption import generate_key

    write_key(keyfile, generate_key(keylen), allow=allow)
    text = f"Flash encryption key of {keylen} bits written to {escape(keyfile)}."
    context.result(
        "secure generate-flash-encryption-key", text, {"output": keyfile, "bits": keylen}
    )


@click.command()
@click.argument("output", metavar="OUTPUT")
@version_option
@key_option
@allow_option
@click.pass_obj
def extract_public_key(
    context: Context, output: str, version: str, keyfile: str, allow: frozenset[str]
) -> None:
    """Version 1: OUTPUT is the 64 raw bytes that a bootloader is built with. Version 2: PEM, for verify-signature."""
    from espwire.secure.keys import P256, require_scheme

    key = read_public_key(keyfile)
    if version == "1":
        require_scheme(key.scheme, P256, escape(keyfile))
    write_output(output, key.raw() if version == "1" else key.pem(), inputs=[keyfile], allow=allow)
    text = f"Public key of {escape(keyfile)} written to {escape(output)}."
    data = {"key": keyfile, "output": output, "scheme": key.scheme.name}
    context.result("secure extract-public-key", text, data)


@click.command()
@key_option
@output_option
@allow_option
@click.pass_obj
def digest_public_key(context: Context, keyfile: str, output: str, allow: frozenset[str]) -> None:
    """The digest of 32 bytes is what the eFuses of secure boot version 2 store. The ESP32-C2 stores the first 16 bytes."""
    key = read_public_key(keyfile)
    digest = key.digest()
    write_output(output, digest, inputs=[keyfile], allow=allow)
    text = (
        f"Digest of the public key of {escape(keyfile)} written to {escape(output)}: {digest.hex()}"
    )
    data = {"key": keyfile, "output": output, "scheme": key.scheme.name, "digest": digest.hex()}
    context.result("secure digest-sbv2-public-key", text, data)


@click.command()
@click.argument("output", metavar="OUTPUT")
@key_option
@click.option(
    "-l",
    "--keylen",
    type=Number(0),
    default=256,
    metavar="BITS",
    help="256 (default), or 192 for a chip with 3/4 coding.",
)
@allow_option
@click.pass_obj
def digest_private_key(
    context: Context, output: str, keyfile: str, keylen: int, allow: frozenset[str]
) -> None:
    """For secure boot version 1 with a reflashable bootloader: OUTPUT is the secret key that is burned into BLOCK2, and that
    digest-secure-bootloader needs. It is as secret as the signing key."""
    from espwire.secure.secure_boot_v1 import build_digest_key

    key = build_digest_key(read_private_key(keyfile), keylen)
    write_key(output, key, inputs=[keyfile], allow=allow)
    text = f"Secure boot key of {keylen} bits, from {escape(keyfile)}, written to {escape(output)}."
    data = {"key": keyfile, "output": output, "bits": keylen}
    context.result("secure digest-private-key", text, data)
