"""What a chip says beside its answers: boot messages, panics, noise. Tells when it says that it started anew."""

from __future__ import annotations

import re

from espwire.errors import DeviceError
from espwire.protocol.commands import HEADER, REPLY

TEXT_LIMIT = 0x10000
# what ROMs print when they start or fall over; nothing else in a download session looks like it
RESET_TEXT = re.compile(
    rb"rst:0x[0-9a-fA-F]|rst cause:\d|Guru Meditation|ESP-ROM:esp32|ets [A-Z][a-z]{2} [ \d]\d \d{4}"
)
_UNPRINTABLE = re.compile(r"[^\t\n\r\x20-\x7e]")


def find_text(tail: bytes) -> bytes:
    """What came after the last END, unless it looks like the head of a reply, whose payload is no text."""
    if not tail or tail[0] != REPLY:
        return tail
    if len(tail) < HEADER.size:
        return b""
    size: int = HEADER.unpack_from(tail)[2]
    return (
        b"" if len(tail) <= HEADER.size + 2 * size + 2 else tail
    )  # escapes double a reply at most


class Overheard:
    """Text of one conversation. ``watching``: whether a boot banner is bad news by now.

    ``parts`` holds every byte that came while no loader answered yet, one per ``start_part`` and one since.
    """

    def __init__(self) -> None:
        self.watching = False
        self.parts = [bytearray()]
        self._text = bytearray()

    def show(self, unfinished: bytes) -> str:
        """The text, at most 64 KiB and what is not finished yet; printable characters only."""
        return _UNPRINTABLE.sub("", (bytes(self._text) + unfinished).decode("latin-1"))

    def hear(self, data: bytes) -> None:
        """Keep raw bytes, while nobody watches."""
        if not self.watching:
            part = self.parts[-1]
            part += data[: TEXT_LIMIT - len(part)]

    def start_part(self, last: bytes) -> None:
        """A reset follows; ``last`` came before it."""
        part = self.parts[-1]
        part += last[: TEXT_LIMIT - len(part)]
        self.parts.append(bytearray())
        self._text.clear()
        self.watching = False

    def keep(self, run: bytes) -> None:
        """Take a frame that is no answer.

        :raises DeviceError: as ``watch``
        """
        self._text += run
        if len(self._text) > TEXT_LIMIT:
            del self._text[: len(self._text) - TEXT_LIMIT]
        self.watch(run, kept=True)

    def watch(self, run: bytes, *, kept: bool = False) -> None:
        """Raise if ``run`` says that the chip started anew.

        :raises DeviceError: code ``chip-reset``
        """
        if self.watching and RESET_TEXT.search(run):
            raise DeviceError(
                "the chip has reset in the middle of the work",
                hint="Check the supply (a brown-out does this) and the reset wiring, then start over.",
                code="chip-reset",
                text=self.show(b"" if kept else run)[-1024:],
            )
