"""The last packets of a conversation, kept to explain a failure with. Decodes only when asked, and writes no file."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from espwire.protocol.commands import Command, Reply, parse_command, parse_request
from espwire.protocol.stub import STUB_COMMANDS

KEPT = 200


@dataclass(frozen=True)
class Packet:
    """One request (its bytes before SLIP) or the reply to it. ``time`` in seconds on the link's clock."""

    time: float
    content: bytes | Reply

    def __repr__(self) -> str:
        if isinstance(self.content, bytes):
            return f"<Packet {self.time:.4f} s, request, {len(self.content)} bytes>"
        return f"<Packet {self.time:.4f} s, reply {self.content.op:#04x}, {len(self.content.body)} bytes>"

    @property
    def command(self) -> Command | None:
        """The request by name and fields; None for a reply, and where the vocabulary does not know it."""
        request = parse_request(self.content) if isinstance(self.content, bytes) else None
        if request is None:
            return None
        ours = STUB_COMMANDS.get(request.op)
        return parse_command(request) if ours is None else ours.parse(request.body)


class PacketLog:
    """The last ``KEPT`` packets, requests and replies alike, the oldest first when iterated over.

    ``add`` is the deque's own method and takes what ``Packet`` is made of: this is in the way of every packet.
    """

    __slots__ = ("_rows", "add")

    def __init__(self) -> None:
        self._rows: deque[tuple[float, bytes | Reply]] = deque(maxlen=KEPT)
        self.add = self._rows.append

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Packet]:
        return (Packet(time, content) for time, content in tuple(self._rows))
