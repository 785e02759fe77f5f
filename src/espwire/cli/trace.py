"""``--trace``: each request and its answer, with times, on standard error. Formats only when asked for."""

from __future__ import annotations

import time
from dataclasses import fields
from typing import TYPE_CHECKING

from espwire.errors import ToolError

if TYPE_CHECKING:
    from espwire.cli.output import Output
    from espwire.wire.commands import Command, Reply

SHOWN_BYTES = 16


class Tracer:
    """Called by the loader after each round trip.

    A line holds: seconds since the first packet on this host's clock, the trip's milliseconds on the link's clock
    (simulated for a virtual chip), the command with its fields, and the answer or what went wrong.
    """

    def __init__(self, output: Output) -> None:
        self.output = output
        self._began = time.monotonic()

    def __call__(self, command: Command, outcome: Reply | ToolError, seconds: float) -> None:
        """Print one round trip."""
        since = time.monotonic() - self._began
        answer = f"! {outcome}" if isinstance(outcome, ToolError) else describe_reply(outcome)
        self.output.error_line(f"{since:9.4f} s {seconds * 1000:9.2f} ms  {describe_command(command)} -> {answer}")


def describe_command(command: Command) -> str:
    """``READ_REG address=0x40001000``."""
    words = [command.op.name]
    for f in fields(command):
        value = getattr(command, f.name)
        if value is not None:
            words.append(f"{f.name}={_describe(value)}")
    return " ".join(words)


def describe_reply(reply: Reply) -> str:
    """``value=0x00f01d83 body=00000000``."""
    return f"value={reply.value:#010x} body={_describe(reply.body)}"


def _describe(value: object) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        data = bytes(value)
        more = f"… ({len(data)} bytes)" if len(data) > SHOWN_BYTES else ""
        return (data[:SHOWN_BYTES].hex() or "-") + more
    if isinstance(value, int):
        return f"{value:#x}" if value > 9 else str(value)
    if isinstance(value, tuple):
        return "[" + ", ".join(map(_describe, value)) + "]"
    inner = " ".join(f"{f.name}={_describe(getattr(value, f.name))}" for f in fields(value))  # type: ignore[arg-type]
    return f"({inner})"
