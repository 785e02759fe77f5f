"""A screen that remembers, for the tests of the monitor."""

from __future__ import annotations

import pytest


class PaperScreen:
    """Keeps the chip's words and ours in the order they came; ours in <angle brackets>."""

    def __init__(self) -> None:
        self.text = ""
        self.raw = b""
        self.notes: list[str] = []
        self.urgent: list[str] = []

    def show(self, text: str) -> None:
        self.text += text

    def pass_on(self, data: bytes) -> None:
        self.raw += data

    def note(self, text: str, *, mid_line: bool, urgent: bool) -> None:
        self.text += "\n" * mid_line + f"<{text}>\n"
        self.notes.append(text)
        if urgent:
            self.urgent.append(text)


@pytest.fixture
def screen() -> PaperScreen:
    return PaperScreen()
