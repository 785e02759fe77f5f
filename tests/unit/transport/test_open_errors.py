"""Errors of pyserial on three systems when a port does not open, and the exception for each."""

from __future__ import annotations

import errno

import pytest

from espwire.transport.open_errors import open_error

WINDOWS = "could not open port 'COM3': {}"


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (OSError(errno.ENOENT, "No such file or directory"), "port-not-found"),
        (OSError(errno.ENXIO, "Device not configured"), "port-not-found"),
        (OSError(errno.EBUSY, "Resource busy"), "port-busy"),
        (
            OSError(
                errno.EAGAIN, "Could not exclusively lock port: Resource temporarily unavailable"
            ),
            "port-busy",
        ),
        (OSError("Could not exclusively lock port /dev/x: [Errno 11]"), "port-busy"),
        (OSError(errno.EACCES, "Permission denied"), "port-denied"),
        (OSError(errno.EPERM, "Operation not permitted"), "port-denied"),
        (OSError("Could not configure port: (5, 'Input/output error')"), "cannot-open"),
        (OSError(errno.EMFILE, "Too many open files"), "cannot-open"),
    ],
)
def test_linux_and_macos(error, code):
    failure = open_error("/dev/does-not-exist", error, posix=True)
    assert failure.code == code
    assert failure.hint.endswith(".")
    assert failure.exit_code == 3


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (
            "FileNotFoundError(2, 'The system cannot find the file specified.', None, 2)",
            "port-not-found",
        ),
        ("PermissionError(13, 'Access is denied.', None, 5)", "port-busy"),
        (
            "OSError(22, 'A device attached to the system is not functioning.', None, 31)",
            "cannot-open",
        ),
        ("OSError(22, 'The semaphore timeout period has expired.', None, 121)", "cannot-open"),
        ("OSError(22, 'The parameter is incorrect.', None, 87)", "cannot-open"),
    ],
)
def test_windows(text, code):
    failure = open_error("COM3", OSError(WINDOWS.format(text)), posix=False)
    assert failure.code == code
    assert ("Unplug" in failure.hint) is (", 31)" in text or ", 121)" in text)
