"""Every exception that espwire raises on purpose; nothing here decides what to do about one.

::

    ToolError                .code (stable id)  .hint  .exit_code
    ├─ UsageError            the caller's arguments                               2
    ├─ TransportError             the port: PortNotFound PortBusy PortDenied TransportLost  3
    ├─ ConnectError          NoReply WrongBootMode WrongChip (carries boot text)  4
    ├─ DeviceError           CommandFailed(command, code)  Unsupported(op)        5
    ├─ DataError             ImageError ElfError HexError KeyFileError TableError FileError  6
    ├─ VerifyError           the flash differs: ranges                            7
    ├─ SafetyStop            findings; names the consents that would allow it     8
    └─ Cancelled             the caller's token, or Ctrl-C                        130

``str(error)`` is one sentence. ``hint`` says what to try. ``code`` never changes once released.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, ClassVar


class ToolError(Exception):
    """Base of every deliberate failure. ``details`` carries the data for machine-readable output."""

    code: str = "error"
    exit_code: ClassVar[int] = 1
    hint: str = "Run again with --trace and report what you see."

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
    """The caller's arguments make no sense, alone or together."""

    code = "usage"
    exit_code = 2
    hint = "See --help for what this command takes."


class TransportError(ToolError):
    """The port, not the chip."""

    code = "link"
    exit_code = 3
    hint = "Check the cable and that no other program uses the port."


class PortNotFound(TransportError):
    """There is no such port (now)."""

    code = "port-not-found"
    hint = "Plug the board in, or name the port with --port."


class PortBusy(TransportError):
    """Another program holds the port."""

    code = "port-busy"
    hint = "Close the other program (serial monitor, IDE), then try again."


class PortDenied(TransportError):
    """The operating system refuses access to the port."""

    code = "port-denied"
    hint = "On Linux, add yourself to the port's group (often dialout or uucp) and log in again."


class TransportLost(TransportError):
    """The port was open and went away, or would not take bytes in time."""

    code = "link-lost"
    hint = "The cable, hub or board lost its connection: plug it in again and start over."


class ConnectError(ToolError):
    """The port works; no usable loader answered. ``boot_text`` holds what the chip said instead."""

    code = "connect"
    exit_code = 4
    hint = "Hold BOOT (GPIO0 low) while pressing RESET, then try again."

    def __init__(self, message: str, *, boot_text: str = "", **keywords: Any) -> None:
        super().__init__(message, **keywords)
        self.boot_text = boot_text
        if boot_text:
            self.details["boot_text"] = boot_text


class NoReply(ConnectError):
    """Nothing sensible came back in time."""

    code = "no-reply"


class WrongBootMode(ConnectError):
    """The chip started something else than its loader."""

    code = "wrong-boot-mode"


class WrongChip(ConnectError):
    """Another chip answered than the one asked for, or one that we do not know."""

    code = "wrong-chip"
    hint = "Leave --chip out to detect the chip, or name the right one."


class DeviceError(ToolError):
    """The chip answered, and it is bad news."""

    code = "device"
    exit_code = 5
    hint = "Reset the board and try again; if it repeats, try a lower --baud."


class CommandFailed(DeviceError):
    """The loader refused a command. ``command`` is the command's name, ``status`` the two status bytes."""

    code = "command-failed"

    def __init__(self, message: str, *, command: str, status: int, **keywords: Any) -> None:
        super().__init__(message, **keywords)
        self.command, self.status = command, status
        self.details |= {"command": command, "status": status}


class Unsupported(DeviceError):
    """This loader cannot do that. Raised before anything is sent."""

    code = "unsupported"
    hint = "This chip's ROM loader cannot do it."


class DataError(ToolError):
    """A file, an image or a table is not what it should be."""

    code = "data"
    exit_code = 6
    hint = "Check that it is the right file and that it is whole."


class ImageError(DataError):
    """Not a firmware image, or a broken one."""

    code = "image"


class ElfError(DataError):
    """Not a usable ELF file."""

    code = "elf"


class HexError(DataError):
    """Not a usable Intel HEX file."""

    code = "hex"
    hint = "Check that the file is whole Intel HEX."


class KeyFileError(DataError):
    """Not a usable key file."""

    code = "key-file"


class TableError(DataError):
    """Chip data or a partition table is inconsistent."""

    code = "table"


class FileError(DataError):
    """A file cannot be read or written."""

    code = "file"
    hint = "Check the path and its permissions."


class VerifyError(ToolError):
    """The flash does not hold what it should. ``ranges`` are half-open (start, end) flash addresses."""

    code = "verify"
    exit_code = 7
    hint = "Write again; if it repeats, lower --baud, and suspect the flash chip or its supply."

    def __init__(
        self, message: str, *, ranges: tuple[tuple[int, int], ...] = (), **keywords: Any
    ) -> None:
        super().__init__(message, **keywords)
        self.ranges = ranges
        self.details["ranges"] = [list(pair) for pair in ranges]


class SafetyStop(ToolError):
    """Doing this could brick the board. ``consents`` names what would allow it."""

    code = "safety"
    exit_code = 8
    hint = "If you are sure, repeat with --force."

    def __init__(self, message: str, *, consents: tuple[str, ...] = (), **keywords: Any) -> None:
        super().__init__(message, **keywords)
        self.consents = consents
        self.details["consents"] = list(consents)


class Cancelled(ToolError):
    """The caller stopped it."""

    code = "cancelled"
    exit_code = 130
    hint = (
        "Run the command again. If it was writing or erasing, the flash is incomplete until then."
    )


@contextmanager
def name_file(name: str) -> Iterator[None]:
    """Put the file's name in front of errors about its content."""
    try:
        yield
    except (ElfError, ImageError, UsageError) as error:
        raise type(error)(
            f"{name}: {error}", hint=error.hint, code=error.code, **error.details
        ) from None
