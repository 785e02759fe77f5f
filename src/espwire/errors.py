"""The exceptions that espwire raises deliberately.

::

    ToolError                .code (stable id)  .hint  .exit_code
    ├─ UsageError            invalid arguments                                              2
    ├─ TransportError        the port: PortNotFound PortBusy PortDenied TransportLost       3
    ├─ ConnectError          no loader: NoReply WrongBootMode WrongChip (with boot text)    4
    ├─ DeviceError           the loader reports a failure: CommandFailed Unsupported        5
    ├─ DataError             ImageError ElfError HexError KeyFileError TableError FileError 6
    ├─ VerifyError           flash contents differ, in ``ranges``                           7
    ├─ SafetyStop            a safety check failed; ``consents`` override it                8
    └─ Cancelled             by the caller's token, or Ctrl-C                               130

``str(error)`` is one sentence: what failed, with the value. ``hint`` is what to do next. Codes of released versions
never change.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ClassVar


class ToolError(Exception):
    """Base class. ``details`` holds the data for machine-readable output."""

    code: str = "error"
    exit_code: ClassVar[int] = 1
    # of a failed write to flash: the address up to which everything is written
    written_until: int | None = None
    hint: str = "Run the command again with --trace, and report its output."

    def __init__(
        self, message: str, *, hint: str | None = None, code: str | None = None, **details: Any
    ) -> None:
        super().__init__(message)
        if hint is not None:
            self.hint = hint
        if code is not None:
            self.code = code
        self.details = details


class UsageError(ToolError):
    """Invalid arguments, or an invalid combination of them."""

    code = "usage"
    exit_code = 2
    hint = "Run the command with --help to see its options."


class TransportError(ToolError):
    """The port failed, not the chip."""

    code = "link"
    exit_code = 3
    hint = "Check the cable and that no other program uses the port."


class PortNotFound(TransportError):
    """The port does not exist."""

    code = "port-not-found"
    hint = "Run `espwire ports` to see what is connected."


class PortBusy(TransportError):
    """The port is in use."""

    code = "port-busy"
    hint = "Close the other program (serial monitor, IDE), or choose another port with -p."


class PortDenied(TransportError):
    """The user lacks permission to open the port."""

    code = "port-denied"
    hint = "On Linux, add yourself to the port's group (often dialout or uucp) and log in again."


class TransportLost(TransportError):
    """An open port disappeared, or did not accept data in time."""

    code = "link-lost"
    hint = "Check the cable and the hub, plug the board in again, and repeat the command."


class ConnectError(ToolError):
    """The port works, but no usable loader answered. ``boot_text`` is what the chip printed instead."""

    code = "connect"
    exit_code = 4
    hint = "Hold BOOT (GPIO0 low) while pressing RESET, then try again."

    def __init__(self, message: str, *, boot_text: str = "", **keywords: Any) -> None:
        super().__init__(message, **keywords)
        self.boot_text = boot_text
        if boot_text:
            self.details["boot_text"] = boot_text


class NoReply(ConnectError):
    """No valid reply arrived in time."""

    code = "no-reply"


class WrongBootMode(ConnectError):
    """The chip did not start its loader."""

    code = "wrong-boot-mode"


class WrongChip(ConnectError):
    """The chip is not the expected one, or is unknown."""

    code = "wrong-chip"
    hint = "Omit --chip to detect the chip."


class DeviceError(ToolError):
    """The chip reported a failure."""

    code = "device"
    exit_code = 5
    hint = "Reset the board and try again; if the error persists, check cable and supply."


class CommandFailed(DeviceError):
    """The loader rejected a command. ``command`` is its name, ``status`` the two status bytes."""

    code = "command-failed"

    def __init__(self, message: str, *, command: str, status: int, **keywords: Any) -> None:
        super().__init__(message, **keywords)
        self.command, self.status = command, status
        self.details |= {"command": command, "status": status}


class Unsupported(DeviceError):
    """The loader does not support the operation. Raised before anything is sent."""

    code = "unsupported"
    hint = "The chip's ROM loader does not support it."


class DataError(ToolError):
    """A file, image or table is invalid."""

    code = "data"
    exit_code = 6
    hint = "Check that it is the right file and that it is complete."


class ImageError(DataError):
    """Not a valid firmware image."""

    code = "image"


class ElfError(DataError):
    """Not a valid ELF file."""

    code = "elf"


class HexError(DataError):
    """Not a valid Intel HEX file."""

    code = "hex"
    hint = "Check that the file is complete Intel HEX."


class KeyFileError(DataError):
    """Not a valid key file."""

    code = "key-file"


class TableError(DataError):
    """Invalid chip data, or an invalid partition table."""

    code = "table"


class FileError(DataError):
    """A file cannot be read or written."""

    code = "file"
    hint = "Check the path and its permissions."


class VerifyError(ToolError):
    """Flash contents differ from what was written. ``ranges`` are half-open (start, end) flash addresses."""

    code = "verify"
    exit_code = 7
    hint = "Write again; if the error persists, check the cable, the flash chip and its supply."

    def __init__(
        self, message: str, *, ranges: tuple[tuple[int, int], ...] = (), **keywords: Any
    ) -> None:
        super().__init__(message, **keywords)
        self.ranges = ranges
        self.details["ranges"] = [list(pair) for pair in ranges]


class SafetyStop(ToolError):
    """A safety check failed: the operation could brick the board. ``consents`` names the overrides."""

    code = "safety"
    exit_code = 8
    hint = "If you are sure, repeat the command with --force."

    def __init__(self, message: str, *, consents: tuple[str, ...] = (), **keywords: Any) -> None:
        super().__init__(message, **keywords)
        self.consents = consents
        self.details["consents"] = list(consents)


class Cancelled(ToolError):
    """The caller stopped the operation."""

    code = "cancelled"
    exit_code = 130
    hint = "Run the command again: if it was writing or erasing, the flash is incomplete."


@contextmanager
def name_file(name: str) -> Iterator[None]:
    """Put the file's name in front of errors about its content."""
    try:
        yield
    except (ElfError, ImageError, UsageError) as error:
        raise type(error)(
            f"{name}: {error}", hint=error.hint, code=error.code, **error.details
        ) from None


# values for ``--allow``: name → what it allows, as the documentation lists it
CONSENTS: dict[str, str] = {
    "secure-boot-area": "write or erase the boot loader's area of a chip with secure boot version 1",
    "key-manager-area": "write or erase where the key manager keeps its data",
    "past-flash-end": "write or erase past the end of the flash",
    "beyond-16mb": "go beyond 16 MB with a loader of 24 address bits",
    "plaintext": "write plain data to a chip that reads only encrypted flash",
    "no-flash-key": "have the chip encrypt although its eFuses hold no usable key for it",
    "encrypting-disabled": "have the chip encrypt although its eFuses disable encrypting downloads",
    "encrypting-unreliable": "have a chip encrypt whose revision is reported to do that wrongly",
    "encryption-off": "write what a key file encrypts to a chip whose flash encryption is off",
    "unproven-key": "write with a key file that the bootloader in flash does not prove to be the chip's",
    "wrong-chip-image": "write a boot image for another chip",
    "wrong-revision": "write a boot image for another chip revision",
    "damaged-image": "write a damaged boot image",
    "wrong-offset": "write or merge a bootloader or a merged file to an address where the chip does not start it",
    "not-an-image": "write something that is not an image to where the chip boots from",
    "unsigned-image": "write an unsigned image to a chip with secure boot enabled",
    "untrusted-key": "write an image that is signed by keys which the chip's eFuses do not trust",
    "revoked-key": "write an image that is signed by revoked keys only",
    "bootloader-size": "write a signed bootloader that is too large for the ROM, or reaches the partition table",
    "erase-secured": "erase flash of a chip with secure boot or flash encryption on",
    "rom-ram": "load a program over the RAM that the ROM uses itself",
    "outside-build": "read and flash a file that a build names outside its own folder",
    "write-protected": "write although the flash chip protects some of its sectors",
    "neighbours": "erase what shares a sector with a file where it cannot be read and kept",
    "unverified": "write or erase although nothing can be verified, after the stub did not start",
    "other-chip": "restore the backup of another board",
    "overwrite-key": "replace a file that may be a key",
    "efuse-no-digest": "burn that secure boot is on without a usable digest of a key",
    "efuse-last-digest": "revoke all digests of keys",
    "efuse-no-flash-key": "burn that flash encryption is on without a key",
    "efuse-hidden-digest": "hide the digest of a secure boot key",
    "efuse-hidden-empty": "hide a key block that holds no key",
    "efuse-coding-scheme": "change the coding scheme of blocks that hold data",
    "efuse-other-digest": "enable secure boot while the chip trusts a key that is not given",
    "efuse-same-purpose": "burn two key blocks with the same purpose",
    "efuse-mixed-flash-keys": "burn flash encryption keys of 128 and of 256 bits",
    "efuse-key-slot": "burn a purpose that the last key block cannot have",
    "efuse-open-key": "lock RD_DIS while software can read a secret key",
    "efuse-own-port": "burn eFuses that switch off the port in use",
    "efuse-flash-voltage": "fix another flash voltage than the one at which the flash answers",
    "efuse-key-halves": "burn a key over the half of a block that is for a digest, with secure boot",
    "efuse-usb-boot": "burn the two eFuses that together keep the chip from starting",
    "efuse-no-flash-power": "enable Secure Download Mode where that leaves the flash without power",
    "efuse-digest-scheme": "burn the digest of a key whose signatures the chip cannot check",
    "efuse-unproven": "take a key block that cannot be read back for one that holds the given key",
    "aggressive-revoke": "have one image with a wrong signature revoke its key for ever",
    "status-lock": "set bits of the flash's status that may lock it for ever",
}


def check_consents(names: Iterable[str]) -> frozenset[str]:
    """``names`` as a set.

    :raises UsageError: code ``unknown-consent``; the hint names a similar consent, or lists all
    """
    consents = frozenset(names)
    unknown = sorted(consents - CONSENTS.keys())
    if unknown:
        from difflib import get_close_matches

        close = get_close_matches(unknown[0], CONSENTS, 1)
        raise UsageError(
            f"unknown consent {unknown[0]!r}",
            hint=f"Did you mean {close[0]}?" if close else f"Consents: {', '.join(CONSENTS)}.",
            code="unknown-consent",
        )
    return consents
