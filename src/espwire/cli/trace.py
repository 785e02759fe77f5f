"""Prints packets with their times (``--trace``), and saves the last ones to a file after a failure."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from espwire.errors import FileError, ToolError
from espwire.protocol.commands import Command, Reply, Request
from espwire.protocol.stub import name_op

if TYPE_CHECKING:
    from espwire.cli.output import Output
    from espwire.device.loader import Packet
SHOWN_BYTES = 16
SHOWN_ITEMS = 8  # of a tuple
KEPT_FILES = 20  # of failed runs; the oldest is deleted


class Tracer:
    """A callback for ``connect(on_packet=…)`` that prints each packet.

    A line has: seconds since the start on this host's clock, milliseconds since the previous packet on the
    transport's clock (simulated for a virtual chip), ``>`` to the chip or ``<`` from it, name and fields.
    """

    def __init__(self, output: Output) -> None:
        self._output, self._began = output, time.monotonic()
        self._last: float | None = None

    def __call__(self, packet: Packet) -> None:
        since = time.monotonic() - self._began
        passed = 0.0 if self._last is None else packet.time - self._last
        self._last = packet.time
        self._output.error_line(
            f"{since:9.4f} s {passed * 1000:9.2f} ms  {describe_content(packet)}"
        )


def write_failure(folder: Path, packets: Iterable[Packet], error: ToolError) -> Path | None:
    """Save the packets before a failure to a new file in ``folder``; None if that fails."""
    from espwire._version import __version__
    from espwire.files import make_private_folder, write_file

    moment = f"{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() // 1000 % 1_000_000:06d}"
    head = [
        f"espwire {__version__}, {time.strftime('%Y-%m-%d %H:%M:%S %z')}",
        f"error: {error} [{error.code}]",
        "",
    ]
    path = folder / f"espwire-trace-{moment}.txt"
    text = "\n".join([*head, *map(describe_packet, packets), ""])
    try:
        make_private_folder(folder)
        # register values and data may be confidential
        write_file(path, text.encode("utf-8", "backslashreplace"), private=True)
        for old in sorted(folder.glob("espwire-trace-*.txt"))[:-KEPT_FILES]:
            old.unlink(missing_ok=True)
    except (FileError, OSError):
        return path if path.exists() else None
    return path


def describe_packet(packet: Packet) -> str:
    """``  12.3456 s  > READ_REG address=0x40001000``."""
    return f"{packet.time:10.4f} s  {describe_content(packet)}"


def describe_content(packet: Packet) -> str:
    """``> READ_REG address=0x40001000``, or ``<`` with a reply."""
    content = packet.content
    if isinstance(content, bytes):
        command = packet.command
        return f"> {_describe(content) if command is None else describe_command(command)}"
    return f"< {name_op(content.op)} {describe_reply(content)}"


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
        more = f"… ({len(data):,} bytes)" if len(data) > SHOWN_BYTES else ""
        return (data[:SHOWN_BYTES].hex() or "-") + more
    if isinstance(value, int):
        return f"{value:#x}" if value > 9 else str(value)
    if isinstance(value, tuple):
        more = f", … ({len(value)})" if len(value) > SHOWN_ITEMS else ""
        return "[" + ", ".join(map(_describe, value[:SHOWN_ITEMS])) + more + "]"
    if isinstance(value, Request):
        return f"({name_op(value.op)} {_describe(value.body)})"
    inner = " ".join(f"{f.name}={_describe(getattr(value, f.name))}" for f in fields(value))  # type: ignore[arg-type]
    return f"({inner})"
