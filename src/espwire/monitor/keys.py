"""From bytes of a keyboard to what they ask for. Knows the keys and nothing of terminals or ports."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

QUIT, INTERRUPT, MENU = 0x1D, 0x03, 0x14  # Ctrl-] Ctrl-C Ctrl-T
EOL = {"cr": b"\r", "lf": b"\n", "crlf": b"\r\n"}


class Do(Enum):
    """What the monitor itself is asked for."""

    QUIT = "quit"
    INTERRUPT = "interrupt"
    RESET = "reset into the application"
    LOADER = "reset into the loader"
    LOG = "log on or off"
    HELP = "help"
    UNKNOWN = "no such key"


@dataclass(frozen=True)
class Send:
    """Bytes for the chip."""

    data: bytes


Action = Do | Send

# after the menu key, with or without Ctrl
MENU_KEYS = {
    "r": Do.RESET,
    "p": Do.LOADER,
    "l": Do.LOG,
    "h": Do.HELP,
    "?": Do.HELP,
    "x": Do.QUIT,
    "q": Do.QUIT,
}
HELP = """\
keys:
  Ctrl-]         quit                        Ctrl-C         quit, exit code 130
  Ctrl-T Ctrl-R  reset into the application  Ctrl-T Ctrl-P  reset into the loader
  Ctrl-T Ctrl-L  log file off, on            Ctrl-T Ctrl-H  this list
  Ctrl-T Ctrl-T  send Ctrl-T                 Ctrl-T Ctrl-]  send Ctrl-]
  Ctrl-T Ctrl-C  send Ctrl-C                 anything else goes to the chip"""


class Keys:
    """Splits what is typed into actions; the menu key and the one after it may come apart.

    :param eol: what the Enter key sends
    """

    def __init__(self, *, eol: bytes = b"\r") -> None:
        self._eol = eol
        self.in_menu = False

    def feed(self, data: bytes) -> list[Action]:
        """The actions in the order they were typed."""
        actions: list[Action] = []
        rest = bytearray()
        for key in data:
            action = self._take(key, rest)
            if action is not None:
                if rest:
                    actions.append(Send(bytes(rest)))
                    rest.clear()
                actions.append(action)
        if rest:
            actions.append(Send(bytes(rest)))
        return actions

    def _take(self, key: int, rest: bytearray) -> Do | None:
        if self.in_menu:
            self.in_menu = False
            if key in (MENU, QUIT, INTERRUPT):
                rest.append(key)
                return None
            # Ctrl-H is what some terminals send for backspace, and 0x7f what the others do
            letter = chr(key + 0x60) if key < 0x20 else "h" if key == 0x7F else chr(key).lower()
            return MENU_KEYS.get(letter, Do.UNKNOWN)
        if key == MENU:
            self.in_menu = True
        elif key == QUIT:
            return Do.QUIT
        elif key == INTERRUPT:
            return Do.INTERRUPT
        else:
            rest += self._eol if key == 0x0D else bytes([key])
        return None
