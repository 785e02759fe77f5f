"""A stub that an earlier client left running, also in the middle of a frame: recognised, and reset away or told.

The stub here is only its receiver, as the field notes tell of the vendor's: each END swaps "in a frame" and "between
frames", so a frame that was cut off leaves its idea of start and end upside down.
"""

from __future__ import annotations

import pytest

from espwire.device.connect import connect
from espwire.errors import ConnectError
from espwire.events import Note
from espwire.link.base import LinkInfo
from espwire.virtual.link import open_virtual
from espwire.wire import slip
from espwire.wire.commands import Op, Reply, Sync

END = 0xC0


class StubLink:
    """A virtual chip in whose RAM a stub runs until the chip is reset; ``inside``: a frame was begun and never ended."""

    def __init__(self, inside: bool, *, can_reset: bool = True):
        self.link = open_virtual("virtual:esp32?boot=app")
        if not can_reset:
            self.link.info = LinkInfo(name="stub", kind="tcp", can_reset=False, can_change_baud=False)
        self.inside, self.frame = inside, bytearray(b"\x00\x03\x10" * inside)
        self.answers = b""
        self.boots = self.link.chip.boots

    def __getattr__(self, name):
        return getattr(self.link, name)

    @property
    def running(self):
        return self.link.chip.boots == self.boots

    def write(self, data, deadline):
        if not self.running:
            self.link.write(data, deadline)
            return
        for byte in data:
            if byte != END:
                self.frame += bytes([byte]) if self.inside else b""
                continue
            if self.inside and bytes(self.frame) == Sync().packet():
                self.answers += slip.encode(Reply(Op.SYNC, 0, bytes(2)).packet()) * 8
            self.inside = not self.inside
            self.frame.clear()

    def read(self, timeout):
        if not self.running:
            self.answers = b""
            return self.link.read(timeout)
        if self.answers:
            data, self.answers = self.answers, b""
            return data
        self.link.sleep(timeout)
        return b""


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("before", ["default-reset", "no-reset"])
def test_with_lines_the_chip_is_reset_into_its_rom(inside, before):
    link, events = StubLink(inside), []
    device = connect(link, before=before, report=events.append)
    assert device.attach_flash().size == 0x400000
    assert any("stub" in event.text for event in events if isinstance(event, Note)) is (before == "no-reset")


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("before", ["default-reset", "no-reset"])
def test_without_lines_it_is_told(inside, before):
    link = StubLink(inside, can_reset=False)
    with pytest.raises(ConnectError) as caught:
        connect(link, before=before)
    assert caught.value.code == "stub-running"
    assert "RESET" in caught.value.hint
    assert link.now() < 1.0


@pytest.mark.parametrize("inside", [False, True])
def test_lines_that_reach_nothing_leave_the_stub_running_and_that_is_told(inside):
    link = StubLink(inside)
    link.set_lines = lambda *, dtr=None, rts=None: None
    with pytest.raises(ConnectError) as caught:
        connect(link)
    assert caught.value.code == "stub-running"
