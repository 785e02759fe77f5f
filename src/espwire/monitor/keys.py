"""The monitor's keys: splits keyboard input into commands for the monitor and bytes for the chip."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

QUIT, INTERRUPT, MENU = 0x1D, 0x03, 0x14  # Ctrl-] Ctrl-C Ctrl-T
EOL = {"cr": b"\r", "lf": b"\n", "crlf": b"\r\n"}


class MonitorCommand(Enum):
    """A command for the monitor. Values are shown to the user."""

    QUIT = "quit"
    INTERRUPT = "interrupt"
    RESET = "reset into the application"
    LOADER = "reset into the loader"
    LOG = "log on or off"
    PAUSE = "output on the screen on or off"
    FILTER = "next filter"
    FLASH = "flash again"
    GDB = "hand over to GDB"
    HELP = "help"
    UNKNOWN = "unknown key"


@dataclass(frozen=True)
class Send:
    """Bytes for the chip."""

    data: bytes


Action = MonitorCommand | Send

# after the menu key, with or without Ctrl
MENU_KEYS = {
    "r": MonitorCommand.RESET,
    "p": MonitorCommand.LOADER,
    "l": MonitorCommand.LOG,
    "y": MonitorCommand.PAUSE,
    "v": MonitorCommand.FILTER,
    "f": MonitorCommand.FLASH,
    "g": MonitorCommand.GDB,
    "h": MonitorCommand.HELP,
    "?": MonitorCommand.HELP,
    "x": MonitorCommand.QUIT,
    "q": MonitorCommand.QUIT,
}
HELP = """\
keys:
  Ctrl-]         quit                        Ctrl-C         quit, exit code 130
  Ctrl-T Ctrl-R  reset into the application  Ctrl-T Ctrl-P  reset into the loader
  Ctrl-T Ctrl-Y  pause the output, resume    Ctrl-T Ctrl-V  fewer log levels, all
  Ctrl-T Ctrl-F  flash the build again       Ctrl-T Ctrl-G  start GDB
  Ctrl-T Ctrl-L  log file off, on            Ctrl-T Ctrl-H  this list
  Ctrl-T Ctrl-T  send Ctrl-T                 Ctrl-T Ctrl-]  send Ctrl-]
  Ctrl-T Ctrl-C  send Ctrl-C                 all other keys are sent to the chip"""


class Keys:
    """Splits input into actions. The menu key and the key after it may arrive in separate chunks.

    :param eol: bytes that Enter sends
    """

    def __init__(self, *, eol: bytes = b"\r") -> None:
        self._eol = eol
        self.in_menu = False

    def feed(self, data: bytes) -> list[Action]:
        """Return the actions, in order."""
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

    def _take(self, key: int, rest: bytearray) -> MonitorCommand | None:
        if self.in_menu:
            self.in_menu = False
            if key in (MENU, QUIT, INTERRUPT):
                rest.append(key)
                return None
            # terminals send Ctrl-H or 0x7f for backspace
            letter = chr(key + 0x60) if key < 0x20 else "h" if key == 0x7F else chr(key).lower()
            return MENU_KEYS.get(letter, MonitorCommand.UNKNOWN)
        if key == MENU:
            self.in_menu = True
        elif key == QUIT:
            return MonitorCommand.QUIT
        elif key == INTERRUPT:
            return MonitorCommand.INTERRUPT
        else:
            rest += self._eol if key == 0x0D else bytes([key])
        return None
