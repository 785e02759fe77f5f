"""The names for ``--allow``, each of which overrides one safety check."""

from __future__ import annotations

from collections.abc import Iterable

from espwire.errors import UsageError

# name → what it allows; docs and the error for an unknown name list them
CONSENTS: dict[str, str] = {
    "secure-boot-area": "write or erase the boot loader's area of a chip with secure boot version 1",
    "key-manager-area": "write or erase where the key manager keeps its data",
    "past-flash-end": "write or erase past the end of the flash",
    "beyond-16mb": "go beyond 16 MB with a loader of 24 address bits",
    "plaintext": "write plain data to a chip that reads only encrypted flash",
    "no-flash-key": "have the chip encrypt although its eFuses hold no usable key for it",
    "encrypting-disabled": "have the chip encrypt although its eFuses disable encrypting downloads",
    "wrong-chip-image": "write a boot image for another chip",
    "wrong-revision": "write a boot image for another chip revision",
    "damaged-image": "write a damaged boot image",
    "wrong-offset": "write or merge a bootloader or a merged file to an address where the chip does not start it",
    "not-an-image": "write something that is not an image to where the chip boots from",
    "unsigned-image": "write an unsigned image to a chip with secure boot enabled",
    "erase-secured": "erase flash of a chip with secure boot or flash encryption on",
    "rom-ram": "load a program over the RAM that the ROM uses itself",
    "outside-build": "read and flash a file that a build names outside its own folder",
    "unverified": "write or erase although nothing can be verified, after the stub did not start",
    "status-lock": "set bits of the flash's status that may lock it for ever",
}


def check_consents(names: Iterable[str]) -> frozenset[str]:
    """``names`` as a set.

    :raises UsageError: code ``unknown-consent``: a name is not in ``CONSENTS``; the hint lists them
    """
    consents = frozenset(names)
    unknown = sorted(consents - CONSENTS.keys())
    if unknown:
        raise UsageError(
            f"unknown consent: {unknown[0]!r}",
            hint=f"Consents: {', '.join(CONSENTS)}.",
            code="unknown-consent",
        )
    return consents
