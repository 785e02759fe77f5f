"""Debug certificates of the ESP32-S31: the four commands of `espwire secure` whose names contain `sdc`."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import click

from espwire.cli.number_types import Number
from espwire.cli.options import allow_option
from espwire.cli.secure_inputs import (
    hsm_options,
    open_hsm,
    read_private_key,
    read_public_key,
    require_one_source,
    write_output,
)
from espwire.errors import UsageError
from espwire.files import read_file
from espwire.text import escape

if TYPE_CHECKING:
    from espwire.cli.context import Context
    from espwire.secure.debug_certificate import ChipInfo
    from espwire.secure.keys import Signer

SMALL = 0x1000  # bytes of a file with settings


@click.command()
@click.option("-k", "--keyfile", metavar="FILE", help="Private key, ECDSA P-256.")
@hsm_options
@click.option("--pub-key", metavar="FILE", help="Check that the security module's key is this one.")
@click.option(
    "-o", "--output", metavar="FILE", default="sdc_cert.bin", help="Default: sdc_cert.bin."
)
@click.option("--enable-jtag", is_flag=True, help="Open JTAG.")
@click.option("--enable-download-reuse", is_flag=True, help="Open download mode again.")
@click.option("--enable-force-spi-boot", is_flag=True, help="Let download mode boot from flash.")
@click.option(
    "--usc", metavar="FILE", help="JSON file with these settings, instead of the options."
)
@click.option(
    "--chip-info", metavar="FILE", help="Information that was read from the chip: 64 bytes."
)
@click.option(
    "--mac", metavar="MAC", help="MAC address of the chip, or a .bin or .hex file with it."
)
@click.option(
    "--sdc-session-counter",
    type=Number(0),
    default=0,
    metavar="N",
    help="The chip's session counter: 0 (default), 1, 3 or 7.",
)
@allow_option
@click.pass_obj
def generate_certificate(
    context: Context,
    /,
    keyfile: str | None,
    hsm: bool,
    hsm_config: str | None,
    pub_key: str | None,
    output: str,
    allow: frozenset[str],
    **choices: Any,
) -> None:
    """A certificate opens the debug interfaces of one locked ESP32-S31 for one session. The chip is named by --chip-info, or by
    --mac and the session counter."""
    from espwire.secure.debug_certificate import FEATURES, build_certificate, parse_features

    require_one_source(keyfile=keyfile, hsm=hsm)
    if choices["usc"] is not None:
        text = read_file(choices["usc"], limit=SMALL * 16).decode("utf-8", "replace")
        features = parse_features(text, escape(choices["usc"]))
    else:
        features = frozenset(name for name in FEATURES if choices[name])
    if not features and context.program.strict:
        raise UsageError(
            "the certificate would open nothing",
            hint="Add --enable-jtag, --enable-download-reuse or --enable-force-spi-boot.",
        )
    chip = _read_chip_info(
        context, choices["chip_info"], choices["mac"], choices["sdc_session_counter"]
    )
    with ExitStack() as stack:
        signer: Signer
        if keyfile is not None:
            signer = read_private_key(keyfile)
        else:
            signer = stack.enter_context(open_hsm(hsm_config))
            if pub_key is not None and read_public_key(pub_key) != signer.public:
                raise UsageError(
                    f"the security module's key does not belong to {escape(pub_key)}",
                    hint="Check label and --pub-key.",
                    code="hsm-label",
                )
        certificate = build_certificate(signer, chip, features)
    inputs = [keyfile] if keyfile is not None else []
    write_output(output, certificate, inputs=inputs, allow=allow)
    names = ", ".join(name for name in FEATURES if name in features) or "nothing"
    text = f"Debug certificate of {len(certificate)} bytes written to {escape(output)}: {names}."
    data = {"output": output, "bytes": len(certificate), "features": sorted(features)}
    context.result("secure generate-sdc-certificate", text, data)


def _read_chip_info(context: Context, path: str | None, mac: str | None, counter: int) -> ChipInfo:
    from espwire.secure.debug_certificate import build_chip_info, parse_chip_info

    if path is None:
        require_one_source(chip_info=path, mac=mac)
    else:
        if mac is not None:
            context.warn("mac-ignored", "--mac is ignored: --chip-info names the chip")
        return parse_chip_info(read_file(path, limit=SMALL), escape(path))
    mac = mac or ""
    if mac.lower().endswith(".bin"):
        return build_chip_info(read_file(mac, limit=SMALL), counter)
    if mac.lower().endswith(".hex"):
        mac = os.fsdecode(read_file(mac, limit=SMALL)).strip()
    try:
        raw = bytes.fromhex(mac.replace(":", "").replace("-", ""))
    except ValueError:
        raise UsageError(
            f"{mac[:40]!r} is not a MAC address",
            hint="Enter it as 12 hexadecimal digits, with or without separators.",
            code="mac",
        ) from None
    return build_chip_info(raw, counter)


@click.command()
@click.option("-k", "--keyfile", metavar="FILE", help="Private key, ECDSA P-256.")
@click.option("--pub-key", metavar="FILE", help="Public key.")
@hsm_options
@click.option(
    "-o",
    "--output",
    metavar="FILE",
    default="sdc_pub_key_digest.bin",
    help="Default: sdc_pub_key_digest.bin.",
)
@allow_option
@click.pass_obj
def digest_public_key(
    context: Context,
    keyfile: str | None,
    pub_key: str | None,
    hsm: bool,
    hsm_config: str | None,
    output: str,
    allow: frozenset[str],
) -> None:
    """The digest of 32 bytes is burned into a key block of an ESP32-S31 with the purpose SDC_KEY_DIGEST."""
    from espwire.secure.debug_certificate import digest_key

    require_one_source(keyfile=keyfile, pub_key=pub_key, hsm=hsm)
    if hsm:
        with open_hsm(hsm_config, private=False) as signer:
            public = signer.public
    else:
        public = read_public_key(keyfile or pub_key or "")
    digest = digest_key(public)
    inputs = [path for path in (keyfile, pub_key) if path is not None]
    write_output(output, digest, inputs=inputs, allow=allow)
    text = f"Digest of the debug key written to {escape(output)}: {digest.hex()}"
    context.result("secure digest-sdc-public-key", text, {"output": output, "digest": digest.hex()})


@click.command()
@click.option(
    "-o", "--output", metavar="FILE", default="chip_info.bin", help="Default: chip_info.bin."
)
@allow_option
@click.pass_obj
def read_chip_info(context: Context, output: str, allow: frozenset[str]) -> None:
    """The output has 64 bytes, for `secure generate-sdc-certificate --chip-info`. The ROM's loader is used, without a stub."""
    from espwire.device.debug_access import DIGEST_BYTES, read_debug_info

    with context.device(bulk=False) as device:
        info = read_debug_info(device.loader)
    write_output(output, info, allow=allow)
    digest = info[:DIGEST_BYTES].hex()
    text = f"Chip information {digest} written to {escape(output)}."
    data = {"output": output, "digest": digest, "bytes": len(info)}
    context.result("secure read-sdc-chip-info", text, data)


@click.command()
@click.argument("file", metavar="FILE")
@click.pass_obj
def verify_certificate(context: Context, file: str) -> None:
    """Presents a debug certificate. If the chip accepts it, the chip opens what the certificate enables, and is not reset at the end,
    unless --after is given. The ROM's loader is used, without a stub."""
    from espwire.device.debug_access import present_certificate
    from espwire.secure.debug_certificate import check_certificate

    certificate, name = read_file(file, limit=SMALL), escape(file)
    check_certificate(certificate, name)
    context.defaults.setdefault("after", "no-reset")
    with context.device(bulk=False) as device:
        present_certificate(device.loader, certificate, name)
    text = f"The chip accepted {name}."
    context.result("secure verify-sdc-certificate", text, {"file": file, "accepted": True})
