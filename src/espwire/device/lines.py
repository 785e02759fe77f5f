"""DTR and RTS sequences as data, and how to play one. Which one to play is decided in connect and leave.

True asserts a line, which pulls the pin behind it low: DTR drives the boot pin, RTS the enable pin.
Source: ``chips/data/protocol.toml`` [reset]; a test holds the two together.
"""

from __future__ import annotations

import os
from typing import Literal, NamedTuple

from espwire.link.base import Link, LinkInfo

Before = Literal["default-reset", "usb-reset", "no-reset", "no-reset-no-sync"]
After = Literal["hard-reset", "soft-reset", "no-reset", "no-reset-stub", "watchdog-reset"]

USB_JTAG = (0x303A, 0x1001)
FLOW_CONTROL_BRIDGES = frozenset({(0x10C4, 0xEA64)})


class Step(NamedTuple):
    """Set lines (both at once if both are given), or wait ``wait`` seconds."""

    dtr: bool | None = None
    rts: bool | None = None
    wait: float = 0.0


Sequence = tuple[Step, ...]


def _dtr(on: bool) -> Step:
    return Step(dtr=on)


def _rts(on: bool) -> Step:
    return Step(rts=on)


def _wait(seconds: float) -> Step:
    return Step(wait=seconds)


def _classic(hold: float) -> Sequence:
    return (_dtr(False), _rts(True), _wait(0.1), _dtr(True), _rts(False), _wait(hold), _dtr(False))


def _tight(hold: float) -> Sequence:
    head = (Step(False, False), Step(True, True), Step(False, True), _wait(0.1), Step(True, False))
    return (*head, _wait(hold), Step(False, False), _dtr(False))


SEQUENCES: dict[str, Sequence] = {
    "classic": _classic(0.05),
    "classic_long": _classic(0.55),
    "tight": _tight(0.05),
    "tight_long": _tight(0.55),
    "usb_jtag": (
        *(_rts(False), _dtr(False), _wait(0.1)),
        *(_dtr(True), _rts(False), _wait(0.1)),
        *(_rts(True), _dtr(False), _rts(True), _wait(0.1)),
        *(_dtr(False), _rts(False)),
    ),
    "hard": (_rts(True), _wait(0.1), _rts(False)),
    "hard_usb": (_rts(True), _wait(0.2), _rts(False), _wait(0.2)),
    "hard_flow_control": (_dtr(False), _rts(True), _wait(0.1), _dtr(True), _wait(0.1), _rts(False)),
}
# seconds of 0.05 suit most boards; a large capacitor on the enable pin needs the long ones
TRY_ORDER_POSIX = ("tight", "tight_long", "classic", "classic_long")
TRY_ORDER_OTHER = ("classic", "classic_long")


def is_usb_jtag(info: LinkInfo) -> bool:
    """Whether the port is a chip's own USB-Serial/JTAG, whose lines are wired inside the chip."""
    return info.kind == "usb-jtag" or (info.vid, info.pid) == USB_JTAG


def sequence_names(info: LinkInfo, before: Before) -> tuple[str, ...]:
    """The sequences into the loader to try in turn; empty where there is nothing to reset with or nothing is wanted."""
    if before in ("no-reset", "no-reset-no-sync") or not info.can_reset:
        return ()
    if before == "usb-reset" or is_usb_jtag(info):
        return ("usb_jtag",)
    order = TRY_ORDER_POSIX if os.name == "posix" else TRY_ORDER_OTHER
    # what stands behind the lines of an OTG port is software: which of the two ways it knows is not certain
    return (*order, "usb_jtag") if info.kind == "usb-otg" else order


def find_sequence(name: str, info: LinkInfo) -> Sequence:
    """The steps of a sequence for this port: some bridges must not get the last release of DTR."""
    steps = SEQUENCES[name]
    if (info.vid, info.pid) in FLOW_CONTROL_BRIDGES and name in (*TRY_ORDER_POSIX, *TRY_ORDER_OTHER):
        return steps[:-1]
    return steps


def play(link: Link, steps: Sequence) -> None:
    """Do the steps on the link's clock."""
    for step in steps:
        if step.wait:
            link.sleep(step.wait)
        else:
            link.set_lines(dtr=step.dtr, rts=step.rts)
