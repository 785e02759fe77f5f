"""The output of an application for tests: wait for a line, and send to it. Used by pytest_plugin.py and labgrid.py."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from espwire.errors import DeviceError
from espwire.jobs.wait import WaitFor, wait_for_line

if TYPE_CHECKING:
    from espwire.transport.base import Transport

WRITE_S = 10.0
DEFAULT_S = 10.0


class Console:
    """The output that arrives at an open port.

    :param received: output that was received before
    """

    def __init__(self, transport: Transport, received: bytes = b"") -> None:
        self.transport = transport
        self._received = received

    def expect(
        self, pattern: str | re.Pattern[str], *, timeout: float = DEFAULT_S, fail: str = ""
    ) -> re.Match[str]:
        """Wait for a line in which ``pattern``, a regular expression, is found. Lines before it are discarded.

        A line without an end, such as a prompt, is examined after 0.2 s of silence. Colours are removed.

        :param timeout: in seconds, on the transport's clock
        :param fail: a line in which this is found ends the wait
        :raises DeviceError: codes ``no-line``, ``fail-line``
        """
        __tracebackhide__ = True  # pytest shows the test's line, not this function
        wanted = re.compile(pattern)
        ends = re.compile(fail) if fail else None
        try:
            line, self._received = wait_for_line(
                self.transport, WaitFor(wanted, ends, timeout), self._received
            )
        except DeviceError as error:
            self._received = b""
            raise error.with_traceback(None) from None
        found = wanted.search(line)
        assert found is not None
        return found

    def write(self, data: bytes | str) -> None:
        """Send data; text as UTF-8.

        :raises TransportLost: the port does not take it within 10 s
        """
        raw = data.encode() if isinstance(data, str) else data
        self.transport.write(raw, self.transport.now() + WRITE_S)

    def write_line(self, text: str) -> None:
        """Send a line, ended by a line feed."""
        self.write(text + "\n")

    def read(self, seconds: float) -> bytes:
        """Everything that arrives within this time."""
        data, self._received = self._received, b""
        end = self.transport.now() + seconds
        while (left := end - self.transport.now()) > 0:
            data += self.transport.read(left)
        return data
