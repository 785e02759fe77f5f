"""Counts the commands that esptool sends before the data of a write: the table in esptool_model.py.

    python bench/esptool_commands.py /path/to/esptool [CHIP…]

Each chip is virtual, with the imitation of esptool's stub, behind a TCP relay that counts packets. Prints a line per chip.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

from espwire.device.stub_image import stub_chips
from espwire.protocol import slip
from espwire.protocol.opcodes import Op

SIZE, BAUD = 0x8000, "921600"
HELLO = b"OHAI"


class Relay:
    """Passes bytes between esptool and a chip; ``commands`` are the opcodes sent, None where the stub has started."""

    def __init__(self, chip: tuple[str, int]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._chip = chip
        self.commands: list[int | None] = []
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def port(self) -> str:
        return f"socket://127.0.0.1:{self._listener.getsockname()[1]}"

    def _serve(self) -> None:
        host, _ = self._listener.accept()
        chip = socket.create_connection(self._chip)
        threading.Thread(target=self._pass_on, args=(chip, host, False), daemon=True).start()
        self._pass_on(host, chip, True)

    def _pass_on(self, source: socket.socket, target: socket.socket, from_host: bool) -> None:
        decoder = slip.Decoder()
        while data := source.recv(4096):
            for frame in decoder.feed(data):
                if from_host:
                    self.commands.append(frame[1])
                elif frame == HELLO:
                    self.commands.append(None)
            target.sendall(data)
        target.close()


def count(esptool: str, chip: str, folder: Path) -> tuple[int, int, int]:
    """Commands to the ROM, to the stub before the data, and after it."""
    serve = [sys.executable, "-m", "espwire", "virtual", "serve", chip, "--tcp", "127.0.0.1:0"]
    file = folder / "data.bin"
    file.write_bytes(bytes(range(256)) * (SIZE // 256))
    with subprocess.Popen(
        [*serve, "--profile", "instant"], stdout=subprocess.PIPE, text=True
    ) as served:
        assert served.stdout is not None
        host, port = served.stdout.readline().split("//")[-1].strip().split(":")
        relay = Relay((host, int(port)))
        reset = ["--before", "no-reset", "--after", "no-reset"]
        command = [esptool, "--chip", "auto", *reset, "-p", relay.port, "-b", BAUD]
        subprocess.run(
            [*command, "write-flash", "0x10000", str(file)], check=True, stdout=subprocess.DEVNULL
        )
        served.terminate()
    start = relay.commands.index(None)
    begin = relay.commands.index(Op.FLASH_DEFL_BEGIN)
    data = relay.commands.count(Op.FLASH_DEFL_DATA)
    return start, begin - start - 1, len(relay.commands) - begin - 1 - data


def main(esptool: str, chips: list[str]) -> None:
    """Print the counts of each chip with a stub."""
    with tempfile.TemporaryDirectory() as folder:
        for chip in chips or stub_chips():
            rom, stub, after = count(esptool, chip, Path(folder))
            print(f"{chip:<10} ROM {rom:3}   stub before the data {stub:3}   after it {after:3}")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
