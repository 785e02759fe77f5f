"""`secure sign-data`, `verify-signature`, `signature-info`, `digest-secure-bootloader`: secure boot."""

from __future__ import annotations

import os
import secrets
from collections.abc import Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from espwire.cli.options import allow_option
from espwire.cli.secure_inputs import (
    hsm_options,
    open_hsm,
    read_private_key,
    read_public_key,
    require_one_source,
    write_output,
)
from espwire.cli.signed_images import check_file_only, read_device_images, source_options
from espwire.errors import ImageError, UsageError
from espwire.files import keep_inputs, read_file
from espwire.image.model import ROW_MAGIC
from espwire.secure.key_files import read_key_file
from espwire.text import escape

if TYPE_CHECKING:
    from espwire.cli.context import Context
    from espwire.flash.signed import StoredImage
    from espwire.secure.keys import PublicKey, Signer
    from espwire.secure.secure_boot import Block

version_option = click.option(
    "-v", "--version", type=click.Choice(("1", "2")), required=True, help="Version of secure boot."
)
skip_padding_option = click.option(
    "--skip-padding",
    is_flag=True,
    help="Version 2: do not pad the file to whole sectors; the chip boots no such image.",
)


@click.command()
@click.argument("file", metavar="FILE")
@version_option
@click.option(
    "-k", "--keyfile", multiple=True, metavar="FILE", help="Private key; up to three for version 2."
)
@click.option(
    "-o", "--output", metavar="FILE", help="Output file. Default: the signed file itself."
)
@click.option(
    "-a",
    "--append-signatures",
    is_flag=True,
    help="Add signatures to those in the file. Not for ESP32 and ESP32-C2.",
)
@hsm_options
@click.option(
    "--pub-key", multiple=True, metavar="FILE", help="Public key of a signature made elsewhere."
)
@click.option("--signature", multiple=True, metavar="FILE", help="The signature made elsewhere.")
@skip_padding_option
@allow_option
@click.pass_obj
def sign_data(
    context: Context,
    file: str,
    version: str,
    keyfile: tuple[str, ...],
    output: str | None,
    append_signatures: bool,
    hsm: bool,
    hsm_config: str | None,
    pub_key: tuple[str, ...],
    signature: tuple[str, ...],
    skip_padding: bool,
    allow: frozenset[str],
) -> None:
    """FILE is a bootloader or an application; it is signed in place unless --output is given. A signature made elsewhere, for
    example by a signing service, is checked and added."""
    require_one_source(keyfile=keyfile, hsm=hsm, signature=signature)
    output = file if output is None else output
    keep_inputs(output, [*keyfile, *pub_key, *signature])
    data = read_file(file)
    if version == "2" and data.startswith(ROW_MAGIC):
        text = "this is a partition table, which secure boot version 2 does not check: only bootloaders and applications are signed"
        context.warn("table-signed", text)
    with ExitStack() as stack:
        signers: list[Signer]
        if hsm:
            signers = [stack.enter_context(open_hsm(hsm_config))]
        elif signature:
            signers = _read_signatures(pub_key, signature)
        else:
            signers = [read_private_key(path) for path in keyfile]
        sign = _sign_v1 if version == "1" else _sign_v2
        text, details = sign(data, signers, output, allow, append_signatures, skip_padding)
    context.result(
        "secure sign-data",
        f"{escape(file)}: {text}, written to {escape(output)}.",
        {"file": file, "output": output, "version": int(version)} | details,
    )


def _sign_v1(
    data: bytes,
    signers: Sequence[Signer],
    output: str,
    allow: frozenset[str],
    append: bool,
    skip_padding: bool,
) -> tuple[str, dict[str, int]]:
    from espwire.secure import secure_boot_v1

    if len(signers) != 1 or append or skip_padding:
        raise UsageError(
            "secure boot version 1 has one signature, and no padding",
            hint="Use one key, and neither --append-signatures nor --skip-padding.",
            code="too-many-signatures",
        )
    write_output(output, secure_boot_v1.sign(data, signers[0]), allow=allow)
    return f"{len(data):,} bytes signed", {"bytes": len(data), "padding": 0, "signatures": 1}


def _sign_v2(
    data: bytes,
    signers: Sequence[Signer],
    output: str,
    allow: frozenset[str],
    append: bool,
    skip_padding: bool,
) -> tuple[str, dict[str, int]]:
    from espwire.secure.secure_boot import sign

    signed = sign(data, signers, append=append, pad=not skip_padding)
    write_output(output, signed.data, allow=allow)
    count = f"{signed.blocks} signature{'s' if signed.blocks > 1 else ''}"
    padding = f" of which {signed.padding:,} are padding" if signed.padding else ""
    return (
        f"{signed.image_bytes:,} bytes signed{padding and ',' + padding}; {count} in the file",
        {"bytes": signed.image_bytes, "padding": signed.padding, "signatures": signed.blocks},
    )


def _read_signatures(keys: Sequence[str], signatures: Sequence[str]) -> list[Signer]:
    from espwire.secure.verify import Precomputed, parse_signature

    if len(keys) != len(signatures):
        raise UsageError(
            f"{len(signatures)} signatures need as many public keys, not {len(keys)}",
            hint="Give --pub-key for each --signature, in the same order.",
        )
    signers: list[Signer] = []
    for key, path in zip(keys, signatures, strict=True):
        public = read_public_key(key)
        signature = parse_signature(read_key_file(path), public, escape(path))
        signers.append(Precomputed(public, signature))
    return signers


@click.command()
@source_options
@version_option
@hsm_options
@click.option("-k", "--keyfile", metavar="FILE", help="The public key, or the private one.")
@skip_padding_option
@click.pass_obj
def verify_signature(
    context: Context,
    /,
    file: str | None,
    version: str,
    hsm: bool,
    hsm_config: str | None,
    keyfile: str | None,
    **choices: Any,
) -> None:
    """Fails unless one of the signatures in FILE was made by the key and is valid. Without FILE, the images in the device's flash are
    checked: the bootloader (version 2 only) and all applications, or those of --at. Each of them must be signed by the key."""
    require_one_source(keyfile=keyfile, hsm=hsm)
    data = None
    if file is not None:
        check_file_only(choices)
        data = read_file(file)
    if keyfile is None:
        with open_hsm(hsm_config, private=False) as signer:
            public = signer.public
    else:
        public = read_public_key(keyfile)
    details = {"version": int(version), "scheme": public.scheme.name}
    if file is None or data is None:
        images = read_device_images(context, choices, bootloader=version == "2")
        _verify_images(context, images, version, public, details)
        return
    if version == "2" and not choices["skip_padding"]:
        from espwire.secure.secure_boot import check_alignment

        check_alignment(data)
    name = escape(file)
    block = _verify(data, name, version, public)
    text = f"{name}: {_describe_verified(version, block)}"
    context.result("secure verify-signature", text, {"file": file} | details | {"block": block})


def _describe_verified(version: str, block: int) -> str:
    if version == "1":
        return "the signature is valid."
    return f"signature block {block} is valid for this key."


def _verify(data: bytes, name: str, version: str, public: PublicKey) -> int:
    """The number of the block that is valid and by the key.

    :raises ImageError: codes ``signature-invalid``, ``not-signed``
    """
    if version == "1":
        from espwire.secure import secure_boot_v1

        if not secure_boot_v1.verify(data, public):
            raise _not_verified(name, 1)
        return 0
    from espwire.secure.secure_boot import read_blocks

    blocks = read_blocks(data)
    block = next((b for b in blocks if b.state == "valid" and b.public == public), None)
    if block is None:
        raise _not_verified(name, 2, blocks, public)
    return block.number


def _verify_images(
    context: Context,
    images: Sequence[StoredImage],
    version: str,
    public: PublicKey,
    details: dict[str, Any],
) -> None:
    """:raises ImageError: an image is not signed by the key, or there is none"""
    if not images:
        raise ImageError(
            "the flash holds no image to verify",
            hint="Name its address with --at.",
            code="not-signed",
        )
    lines, rows, failed = [], [], list[ImageError]()
    for image in images:
        name = f"{image.name} at {image.address:#x}"
        try:
            block = _verify(
                image.version_1 if version == "1" else image.signed, name, version, public
            )
        except ImageError as error:
            failed.append(error)
            continue
        lines.append(f"{name}: {_describe_verified(version, block)}")
        rows.append({"name": image.name, "address": image.address, "block": block})
    if failed:
        raise ImageError(
            "; ".join(map(str, failed)), hint=failed[0].hint, code=failed[0].code, verified=rows
        )
    context.result("secure verify-signature", "\n".join(lines), details | {"images": rows})


def _not_verified(
    name: str, version: int, blocks: Sequence[Block] = (), public: PublicKey | None = None
) -> ImageError:
    own = [block for block in blocks if block.public == public and public is not None]
    if own:
        reason = f"signature block {own[0].number} is by this key, but {_describe(own[0])}"
    elif blocks:
        states = "; ".join(f"block {block.number}: {_describe(block)}" for block in blocks)
        reason = f"no signature is by this key ({states})"
    else:
        reason = "its signature is not valid for this key"
    return ImageError(
        f"{name}: {reason}",
        hint="Check the key and that the file was not changed after signing.",
        code="signature-invalid",
        version=version,
    )


def _describe(block: Block) -> str:
    kind = f" ({block.public.scheme.title})" if block.public is not None else ""
    return {
        "absent": "absent",
        "damaged": "damaged",
        "other data": f"made for other data{kind}",
        "invalid": f"the signature does not fit its key{kind}",
        "valid": f"valid{kind}",
    }[block.state]


@click.command()
@source_options
@skip_padding_option
@click.pass_obj
def signature_info(context: Context, /, file: str | None, **choices: Any) -> None:
    """Shows all three blocks of the signature sector: scheme, state, and the digest that must be in the chip's eFuses. Without FILE,
    those in the device's flash are shown. Which key is trusted is not checked: use verify-signature."""
    if file is None:
        _show_images(context, read_device_images(context, choices))
        return
    from espwire.secure.secure_boot import check_alignment, read_blocks

    check_file_only(choices)
    data = read_file(file)
    if not choices["skip_padding"]:
        check_alignment(data)
    blocks = read_blocks(data)
    lines, rows = _describe_blocks(blocks)
    if not any(block.present for block in blocks):
        raise ImageError(
            f"{escape(file)} has no signature of version 2",
            hint="Check that it is the signed file.",
            code="not-signed",
        )
    context.result("secure signature-info", "\n".join(lines), {"file": file, "blocks": rows})


def _show_images(context: Context, images: Sequence[StoredImage]) -> None:
    """:raises ImageError: code ``not-signed``: none of them is"""
    from espwire.secure.secure_boot import read_blocks

    found, lines, rows = False, list[str](), list[dict[str, Any]]()
    for image in images:
        blocks = read_blocks(image.signed)
        signed = any(block.present for block in blocks)
        shown, details = _describe_blocks(blocks)
        lines.append(f"{image.name} at {image.address:#x}:{'' if signed else ' not signed'}")
        lines += [f"  {line}" for line in shown] if signed else []
        rows.append({"name": image.name, "address": image.address, "blocks": details})
        found = found or signed
    if not found:
        raise ImageError(
            "no image in flash has a signature of version 2",
            hint="Write signed images, or name an address with --at.",
            code="not-signed",
        )
    context.result("secure signature-info", "\n".join(lines), {"images": rows})


def _describe_blocks(blocks: Sequence[Block]) -> tuple[list[str], list[dict[str, Any]]]:
    """The blocks for people and for programs."""
    lines, rows = [], []
    for block in blocks:
        digest = block.public.digest().hex() if block.public is not None else None
        lines.append(f"Signature block {block.number}: {_describe(block)}")
        lines += [f"  public key digest {digest}"] if digest else []
        scheme = block.public.scheme.name if block.public is not None else None
        rows.append(
            {"block": block.number, "state": block.state, "scheme": scheme, "key_digest": digest}
        )
    return lines, rows


@click.command()
@click.argument("image", metavar="IMAGE")
@click.option(
    "-k", "--keyfile", metavar="FILE", required=True, help="The key of digest-private-key."
)
@click.option(
    "-o", "--output", metavar="FILE", help="Output file. Default: IMAGE-digest-0x0000.bin."
)
@click.option("--iv", metavar="FILE", help="128 bytes, for tests only. Default: random.")
@allow_option
@click.pass_obj
def digest_secure_bootloader(
    context: Context,
    image: str,
    keyfile: str,
    output: str | None,
    iv: str | None,
    allow: frozenset[str],
) -> None:
    """For secure boot version 1 with a reflashable bootloader: the output holds IV, digest and bootloader, and is written to flash
    address 0x0."""
    from espwire.image.signature import IV_BYTES
    from espwire.secure.secure_boot_v1 import digest_bootloader

    output = output or f"{os.path.splitext(image)[0]}-digest-0x0000.bin"
    key = read_key_file(keyfile)
    if iv is not None:
        context.warn("fixed-iv", "--iv is for tests only: a fixed IV weakens the digest")
    salt = secrets.token_bytes(IV_BYTES) if iv is None else read_key_file(iv)
    result = digest_bootloader(read_file(image), key, salt)
    inputs = [image, keyfile] + ([] if iv is None else [iv])
    write_output(output, result, inputs=inputs, allow=allow)
    text = f"Bootloader with digest written to {escape(output)}. Write it to flash address 0x0."
    data = {"image": image, "output": output, "bytes": len(result), "address": 0}
    context.result("secure digest-secure-bootloader", text, data)
