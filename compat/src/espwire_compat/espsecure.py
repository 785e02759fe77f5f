"""The program ``espsecure.py``: the commands of `espwire secure` with espsecure's exit codes and lines.

Scripts and build systems search for some of espsecure's lines. ``RESULTS`` has these; all other text is espwire's own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

TYPE_CHECKING = False
if TYPE_CHECKING:
    from espwire.cli.program import Program
    from espwire.errors import ToolError
    from espwire.events import Event, Progress

EXIT_USAGE = 2
# by version of secure boot
NOT_VERIFIED = {
    1: "Signature is not valid.",
    2: "Signature could not be verified with the provided key.",
}
NAMES = {
    "rsa3072": "RSA 3072",
    "ecdsa192": "ECDSA NIST192p",
    "ecdsa256": "ECDSA NIST256p",
    "ecdsa384": "ECDSA NIST384p",
}


def main(arguments: Sequence[str], name: str = "espsecure.py") -> int:
    """Run one command line; the exit code: 0, 1 or 2. Without arguments it prints help and fails, as espsecure does."""
    from espwire.cli import main as espwire
    from espwire.cli.context import Context

    code = espwire.main(arguments, Context(build_program(name)))
    return code if arguments else EXIT_USAGE


def build_program(name: str) -> Program:
    """What depends on the name ``espsecure.py`` or ``espsecure``."""
    from espwire.cli.esptool.program import describe_version, find_exit_code
    from espwire.cli.program import Program
    from espwire.cli.render import Wording

    return Program(
        name=name,
        group="secure",
        version_text=describe_version(),
        error_word=_choose_word,
        exit_code=find_exit_code,
        wording=Wording(describe=describe_event, count=describe_progress, steps=1),
        strict=False,
    )


def _choose_word(error: ToolError) -> str:
    from espwire.cli.esptool.program import choose_word

    if error.code == "signature-invalid" and "version" in error.details:
        return f"A fatal error occurred: {NOT_VERIFIED[error.details['version']]}"
    return choose_word(error)


def describe_event(event: Event, verbose: bool) -> str | None:
    """The event with espsecure's lines; where it has none, in espwire's own words."""
    from espwire.cli.render import describe
    from espwire.events import Result

    if isinstance(event, Result) and event.command in RESULTS:
        return RESULTS[event.command](event.data)
    return describe(event, verbose=verbose)


def describe_progress(event: Progress) -> str:
    """The commands report no progress."""
    return ""


def _describe_signed(data: dict[str, Any]) -> str:
    lines = []
    if data["padding"]:
        lines.append(
            f"Padding data contents by {data['padding']} bytes so signature sector aligns at sector boundary."
        )
    if data["version"] == 2 and data["bytes"] % 4096:
        lines.append("Skipping sector padding. Data contents are not sector aligned.")
    text = f'Signed {data["bytes"]} bytes of data from "{data["file"]}".'
    if data["version"] == 2:
        text += f" Signature sector now has {data['signatures']} signature blocks."
    return "\n".join([*lines, text])


def _describe_verified(data: dict[str, Any]) -> str:
    if data["version"] == 1:
        return "Signature is valid."
    kind = _shorten(data["scheme"])
    return (
        f"Signature block {data['block']} is valid ({kind}).\n"
        f"Signature block {data['block']} verification successful using the supplied key ({kind})."
    )


def _describe_blocks(data: dict[str, Any]) -> str:
    lines = []
    for block in data["blocks"]:
        number = block["block"]
        if block["state"] == "valid":
            digest = bytes.fromhex(block["key_digest"]).hex(" ")
            lines.append(f"Signature block {number} is valid ({_shorten(block['scheme'])}).")
            lines.append(f"Public key digest for block {number}: {digest}")
        else:
            state = "absent/invalid" if block["state"] == "absent" else block["state"]
            lines.append(f"Signature block {number} {state}.")
    return "\n".join(lines)


def _shorten(scheme: str) -> str:
    return "RSA" if scheme.startswith("rsa") else "ECDSA"


def _describe_digest_key(data: dict[str, Any]) -> str:
    cut = " (truncated to 192 bits)" if data["bits"] == 192 else ""
    return f'SHA-256 digest of private key "{data["key"]}"{cut} written to "{data["output"]}".'


RESULTS: dict[str, Callable[[dict[str, Any]], str]] = {
    "secure generate-signing-key": lambda data: (
        f'{NAMES[data["scheme"]]} private key in PEM format written to "{data["output"]}".'
    ),
    "secure generate-flash-encryption-key": lambda data: (
        f'Writing {data["bits"]} random bits to key file "{data["output"]}".'
    ),
    "secure extract-public-key": lambda data: (
        f'"{data["key"]}" public key extracted to "{data["output"]}".'
    ),
    "secure digest-sbv2-public-key": lambda data: (
        f'Writing the public key digest of "{data["key"]}" to "{data["output"]}".'
    ),
    "secure digest-private-key": _describe_digest_key,
    "secure sign-data": _describe_signed,
    "secure verify-signature": _describe_verified,
    "secure signature-info": _describe_blocks,
    "secure generate-sdc-certificate": lambda data: (
        f'SDC certificate generated successfully: "{data["output"]}"\nCertificate size: {data["bytes"]} bytes'
    ),
    "secure digest-sdc-public-key": lambda data: (
        f'SDC public key digest generated successfully: "{data["output"]}"\nDigest size: 32 bytes'
    ),
}
"""The lines for the results of these commands."""
