"""Explains what passes by: a ROM's boot message, and noise that is the sign of another baud rate. Pure."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable

from espwire.chips.model import Chip
from espwire.chips.registry import chip_ids, load_chip
from espwire.monitor.text import STRANGE, Kind, Token
from espwire.protocol.boot_log import BootMessage, explain_strap, parse_boot, strap_pins

KEPT_LINES = 8  # a boot message has fewer
KEPT_SIGNS = 300  # of a line; none of a boot message is longer
NOISE_WINDOW = 96  # signs looked at together
NOISE_SHARE = (
    4  # one strange sign in so many is noise: text has next to none, a wrong rate every second one
)
_MODE_LINE = re.compile(r"\bboot(?: mode)?:")


class BootWatcher:
    """Is shown every token; says what a boot message means when the line with the boot mode is complete."""

    def __init__(self, chip: Chip | None = None) -> None:
        self._chip = chip
        self._lines: deque[str] = deque(maxlen=KEPT_LINES)
        self._line = ""

    def feed(self, token: Token) -> str | None:
        """An explanation, when there is one now."""
        if token.kind is Kind.TEXT:
            self._line = (self._line + token.text)[:KEPT_SIGNS]
        elif token.kind is Kind.NEWLINE or (token.kind is Kind.RETURN and self._line):
            line, self._line = self._line, ""
            self._lines.append(line)
            if _MODE_LINE.search(line):
                return self._explain()
        return None

    def clear(self) -> None:
        """The line was lost: what was said before belongs to nothing."""
        self._lines.clear()
        self._line = ""

    def _explain(self) -> str | None:
        message = parse_boot("\n".join(self._lines) + "\n")
        self._lines.clear()
        return None if message is None else explain_boot(message, self._chip)


def explain_boot(message: BootMessage, chip: Chip | None = None) -> str:
    """A boot message in words: ``boot:0x3 means download mode: GPIO0 was low at reset (power-on)``.

    :param chip: the chip, for a ROM that does not tell its name
    """
    if message.chip_id in chip_ids():
        chip = load_chip(message.chip_id)
    value = f"boot mode:({message.strap},…)" if message.old_form else f"boot:{message.strap:#x}"
    reason = (
        f"{message.reset_reason}: the supply is too low"
        if message.brown_out
        else message.reset_reason
    )
    boot_pin = (
        None
        if chip is None
        else next((pin for pin in strap_pins(chip.strapping) if pin.is_boot), None)
    )
    name = "the boot pin" if boot_pin is None else f"GPIO{boot_pin.gpio}"
    is_high = (
        None
        if boot_pin is None or boot_pin.bit is None
        else bool(message.strap >> boot_pin.bit & 1)
    )
    if message.download and is_high:
        said = f"download mode, asked for by software: {name} was high at reset"
    elif message.download:
        said = f"download mode: {name} was low at reset"
    elif "flash" in message.mode.lower():
        said = f"the program in flash starts: {name} was high at reset"
    else:
        said = f"another boot mode, {explain_strap(chip, message.strap)}"
    return f"{value} means {said} ({reason})"


class NoiseWatcher:
    """Notices text that is none; tells it once, and again only after text that is."""

    def __init__(self) -> None:
        self._signs = self._strange = 0
        self._told = False

    def feed(self, tokens: Iterable[Token]) -> bool:
        """Whether to tell now that this is noise."""
        for token in tokens:
            self._signs += len(token.text)
            self._strange += token.text.count(STRANGE)
        if self._signs < NOISE_WINDOW:
            return False
        noisy = self._strange * NOISE_SHARE > self._signs
        self._signs = self._strange = 0
        tell, self._told = noisy and not self._told, noisy
        return tell
