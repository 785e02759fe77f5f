"""mpflash's esptool backend: CHIP PORT FILE. Only waiting for MicroPython to answer is left out."""

import sys
from pathlib import Path

from mpflash.flash.builtins.esp import flash_esp
from mpflash.mpremoteboard import MPRemoteBoard


class Board(MPRemoteBoard):
    def wait_for_restart(self, timeout=10):
        return True


chip, port, file = sys.argv[1:]
board = Board(port)
board.port, board.board, board.cpu = (
    "esp8266" if chip == "esp8266" else "esp32",
    "GENERIC",
    chip.upper(),
)
sys.exit(flash_esp(board, Path(file), retry_on_error=False) is None)
