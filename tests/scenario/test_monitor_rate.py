"""`monitor --baud auto` with virtual chips: boot text at 74880 baud, the application at another rate."""

from __future__ import annotations

from typing import Any

import pytest

from espwire.monitor.console import FILE, Console
from espwire.monitor.keys import MonitorCommand
from espwire.monitor.loop import Monitor, MonitorOptions
from espwire.virtual.transport import open_virtual


class PaperScreen:
    """Keeps what it gets."""

    def __init__(self) -> None:
        self.text, self.notes = "", []

    def show(self, text: str) -> None:
        self.text += text

    def pass_on(self, data: bytes) -> None: ...

    def note(self, text: str, *, mid_line: bool, urgent: bool) -> None:
        self.notes.append(text)


class VirtualPort:
    def __init__(self, url: str) -> None:
        self.url = url
        self.transport: Any = None

    def open(self, *, baud: int = 0, cancel: object = None) -> Any:
        self.transport = open_virtual(self.url)
        self.transport.set_baud(baud)
        return self.transport


class Typist:
    """Resets the chip some times with the monitor's key, and quits."""

    def __init__(self, resets: int, polls: int = 60) -> None:
        self.typed = ([b"\x14r"] + [b""] * polls) * resets + [b"\x1d"]

    def read(self) -> bytes | None:
        return self.typed.pop(0)


@pytest.mark.parametrize(
    ("url", "name", "rate"),
    [
        ("virtual:esp8266?boot=app", "rst cause:", 74880),
        ("virtual:esp32c2?boot=app&crystal=26", "ESP-ROM:esp8684", 74880),
        ("virtual:esp32c2?boot=app&crystal=40", "ESP-ROM:esp8684", 115200),
        ("virtual:esp32c3?boot=app", "ESP-ROM:esp32c3", 115200),
    ],
)
def test_the_boot_text_is_found(url: str, name: str, rate: int) -> None:
    screen = PaperScreen()
    console = Console(screen, passes=FILE)
    monitor = Monitor(
        VirtualPort(url),  # type: ignore[arg-type]
        console,
        keyboard=Typist(3),
        options=MonitorOptions(find_rate=True),
    )
    assert monitor.run() is MonitorCommand.QUIT
    assert name in screen.text
    told = [note for note in screen.notes if note.startswith(f"{rate} baud")]
    assert len(told) == 1
    assert ("26 MHz crystal" in told[0]) == (rate == 74880)
