"""Decodes a log that was saved earlier: adds lines that begin with ``---`` below those that they explain. Sans-I/O."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from espwire.monitor.boot import REFUSAL_KEYS, RefusalWatcher
from espwire.monitor.crash import KEYS, CrashDecoder

if TYPE_CHECKING:
    from espwire.symbols.symbol_set import SymbolSet

# a line without any of these has nothing to decode
SEARCHED = tuple(key.encode() for key in (*KEYS, *REFUSAL_KEYS))
LONGEST_LINE = 0x10000  # bytes; a longer line is passed on without being decoded
# what espwire, idf.py, PlatformIO, the Arduino IDE, ESPHome, tio, minicom and ts put in front of lines
_TIME = re.compile(
    r"\[?(?:\d{4}-\d\d-\d\d[ T]|[A-Z][a-z]{2} [ \d]\d )?\d\d:\d\d:\d\d(?:[.,]\d{1,9})?"
    r"(?:Z|[+-]\d\d:?\d\d)?\]?(?: -?>(?= ))? ?"
)
_COLOUR = re.compile(r"\x1b\[[0-9;]*m")


class LogDecoder:
    """Takes bytes in chunks of any size, and returns them with the added lines. Nothing of the log is changed.

    Most chunks of a log have nothing to decode. A quick search for literal text finds those, and they are not split.
    Parameters: see ``CrashDecoder``.
    """

    def __init__(self, symbols: SymbolSet | None, *, no_symbols: str = "") -> None:
        self._crash = CrashDecoder(symbols, no_symbols=no_symbols)
        self._refusals = RefusalWatcher()
        self._rest = b""
        self._in_long_line = False
        self.added = 0

    @property
    def only_unresolved(self) -> bool:
        """Whether there were addresses, and the ELF files have none of them."""
        return bool(self._crash.unresolved and not self._crash.resolved)

    def feed(self, data: bytes) -> bytes:
        """Return complete lines, with what they mean."""
        data = self._rest + data
        end = data.rfind(b"\n") + 1
        data, self._rest = data[:end], data[end:]
        decoded = self._decode(data)
        if len(self._rest) > LONGEST_LINE:
            self._crash.clear()
            decoded, self._rest, self._in_long_line = decoded + self._rest, b"", True
        return decoded

    def finish(self) -> bytes:
        """Return the rest at the end of the log."""
        rest, self._rest = self._rest, b""
        ends = rest.endswith(b"\n") or not rest
        decoded = self._decode(rest)
        notes = self._notes(self._crash.finish())
        return decoded + (notes if ends or not notes else b"\n" + notes)

    def _decode(self, data: bytes) -> bytes:
        if not self._crash.busy and not any(key in data for key in SEARCHED):
            if data:
                self._in_long_line = False
            return data
        parts: list[bytes] = []
        for line in _split(data):
            parts.append(line)
            if self._in_long_line:
                self._in_long_line = False
                continue
            if not (self._crash.busy or any(key in line for key in SEARCHED)):
                continue
            text = _COLOUR.sub("", line.decode("utf-8", "replace")).rstrip("\r\n")
            time = _TIME.match(text)
            text = text[time.end() :] if time else text
            if text.startswith("--- "):  # added by a monitor
                continue
            refusal = self._refusals.feed(text)
            texts = [] if refusal is None else [refusal]
            texts += self._crash.feed(text)
            notes = self._notes(texts)
            parts.append(notes if line.endswith(b"\n") or not notes else b"\n" + notes)
        return b"".join(parts)

    def _notes(self, texts: list[str]) -> bytes:
        self.added += len(texts)
        return b"".join(b"--- " + text.encode("utf-8", "replace") + b"\n" for text in texts)


def _split(data: bytes) -> list[bytes]:
    """Lines with their ends."""
    lines = [line + b"\n" for line in data.split(b"\n")]
    last = lines.pop()[:-1]
    return [*lines, last] if last else lines
