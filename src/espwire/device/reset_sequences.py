"""Reset sequences of DTR and RTS, as data and as text, and how to play them.

``enter_bootloader`` and ``reset`` choose the sequence.

True asserts a line, which pulls the pin behind it low: DTR drives the boot pin, RTS the enable pin.
Source: ``chips/data/protocol.toml`` [reset]; a test holds the two together.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable
from typing import Literal, NamedTuple

from espwire.errors import Cancelled, TransportError, UsageError
from espwire.transport.base import SequencePlayer, Transport, TransportInfo

Before = Literal["default-reset", "usb-reset", "no-reset", "no-reset-no-sync"]
After = Literal["hard-reset", "soft-reset", "no-reset", "no-reset-stub", "watchdog-reset"]

USB_JTAG = (0x303A, 0x1001)
FLOW_CONTROL_BRIDGES = frozenset({(0x10C4, 0xEA64)})
RESET_DELAY_S = (
    0.05  # the boot pin is held so long after the reset, EXTRA_S longer in the long sequences
)
EXTRA_S = 0.5
# low level at the enable pin: chips need microseconds, a large capacitor a few milliseconds (``minimum_enable_low_s`` of
# the source is 5 ms); a network may shorten it
SHORT_LOW_S, REMOTE_LOW_S, LONG_LOW_S = 0.02, 0.05, 0.1
LONGEST_WAIT_S = 60.0
CUSTOM = "custom"


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


def _classic(hold: float, low: float) -> Sequence:
    return (_dtr(False), _rts(True), _wait(low), _dtr(True), _rts(False), _wait(hold), _dtr(False))


def _tight(hold: float, low: float) -> Sequence:
    head = (Step(False, False), Step(True, True), Step(False, True), _wait(low), Step(True, False))
    return (*head, _wait(hold), Step(False, False), _dtr(False))


SEQUENCES: dict[str, Sequence] = {
    "classic": _classic(RESET_DELAY_S, SHORT_LOW_S),
    "classic_long": _classic(RESET_DELAY_S + EXTRA_S, LONG_LOW_S),
    "tight": _tight(RESET_DELAY_S, SHORT_LOW_S),
    "tight_long": _tight(RESET_DELAY_S + EXTRA_S, LONG_LOW_S),
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


def is_usb_jtag(info: TransportInfo) -> bool:
    """Whether the port is a chip's own USB-Serial/JTAG, whose lines are wired inside the chip."""
    return info.kind == "usb-jtag" or (info.vid, info.pid) == USB_JTAG


def needs_flow_control(info: TransportInfo) -> bool:
    """Whether the bridge stops sending when DTR is released: the last release of DTR is left out."""
    return (info.vid, info.pid) in FLOW_CONTROL_BRIDGES


def sequence_names(info: TransportInfo, before: Before) -> tuple[str, ...]:
    """The sequences to try in turn; empty if the port has no lines or ``before`` forbids a reset."""
    if before in ("no-reset", "no-reset-no-sync") or not info.can_reset:
        return ()
    if before == "usb-reset" or is_usb_jtag(info):
        return ("usb_jtag",)
    order = TRY_ORDER_POSIX if os.name == "posix" else TRY_ORDER_OTHER
    # the lines of an OTG port are interpreted by software, and it is not certain which sequence it understands
    return (*order, "usb_jtag") if info.kind == "usb-otg" else order


def find_shortest_low(info: TransportInfo) -> float:
    """Seconds of low level at the enable pin that the first sequences of this port use."""
    return REMOTE_LOW_S if info.remote else SHORT_LOW_S


def find_sequence(name: str, info: TransportInfo, reset_delay: float = RESET_DELAY_S) -> Sequence:
    """The steps of a sequence for this port: some bridges must not get the last release of DTR.

    :param reset_delay: seconds for which the boot pin is held; half a second more in the long sequences
    """
    make = {"classic": _classic, "tight": _tight}.get(name.removesuffix("_long"))
    if make is None:
        return SEQUENCES[name]
    long = name.endswith("_long")
    low = LONG_LOW_S if long else find_shortest_low(info)
    steps = make(reset_delay + (EXTRA_S if long else 0.0), low)
    return steps[:-1] if needs_flow_control(info) else steps


def parse_sequence(text: str) -> Sequence:
    """Steps joined by ``|``: ``D0``/``D1`` DTR, ``R0``/``R1`` RTS, ``U1,0`` both at once, ``W0.1`` wait in seconds.

    1 asserts a line, which pulls its pin low.

    :raises UsageError: code ``reset-sequence``; names the step and where it stands
    """
    steps: list[Step] = []
    at = 0
    for part in text.split("|"):
        step = _parse_step(part.strip().upper())
        if step is None:
            raise UsageError(
                f"step {len(steps) + 1} of the reset sequence, {part.strip()!r} at character {at + 1}, is invalid",
                hint="Join D0, D1, R0, R1, U1,0 (DTR, RTS) and W0.1 (seconds, up to 60) with |.",
                code="reset-sequence",
                position=at,
            )
        steps.append(step)
        at += len(part) + 1
    return tuple(steps)


def build_text(steps: Sequence) -> str:
    """The text that ``parse_sequence`` turns into these steps.

    >>> build_text((Step(dtr=True, rts=False), Step(wait=0.05), Step(dtr=False)))
    'U1,0|W0.05|D0'
    """
    return "|".join(map(_build_word, steps))


def _build_word(step: Step) -> str:
    if step.dtr is not None and step.rts is not None:
        return f"U{step.dtr:d},{step.rts:d}"
    if step.dtr is not None:
        return f"D{step.dtr:d}"
    return f"W{step.wait:g}" if step.rts is None else f"R{step.rts:d}"


def find_or_parse(text: str, info: TransportInfo, reset_delay: float = RESET_DELAY_S) -> Sequence:
    """A sequence by its name or in the small language.

    :raises UsageError: code ``reset-sequence``
    """
    name = text.strip().lower().replace("-", "_")
    return find_sequence(name, info, reset_delay) if name in SEQUENCES else parse_sequence(text)


def find_reset_low(steps: Sequence) -> float:
    """Seconds for which the steps pull the enable pin, the last time; 0.0 if never."""
    low, pulled = 0.0, False
    for step in steps:
        if step.rts and not pulled:
            low = 0.0
        pulled = pulled if step.rts is None else step.rts
        low += step.wait if pulled else 0.0
    return low


def find_hold(steps: Sequence) -> int | None:
    """Index of the wait during which the boot pin is held after the last release of the enable pin; None: no such wait."""
    found, dtr, rts, was_reset = None, False, False, False
    for at, step in enumerate(steps):
        dtr = dtr if step.dtr is None else step.dtr
        rts = rts if step.rts is None else step.rts
        was_reset = was_reset or rts
        if rts:
            found = None
        elif step.wait and dtr and was_reset:
            found = at
    return found


def play(
    transport: Transport, steps: Sequence, hold: Callable[[float], object] | None = None
) -> None:
    """Play the steps. If this is interrupted, the lines are released.

    :param hold: replaces the wait that ``find_hold`` finds: called with its seconds, may return earlier; not used where
        the other end of a network plays the sequence
    """
    held = find_hold(steps) if hold is not None else None
    try:
        if isinstance(transport, SequencePlayer):
            transport.play_sequence(build_text(steps), sum(step.wait for step in steps))
            return
        for at, step in enumerate(steps):
            if step.wait and hold is not None and at == held:
                hold(step.wait)
            elif step.wait:
                transport.sleep(step.wait)
            elif step.dtr is not None or step.rts is not None:
                transport.set_lines(dtr=step.dtr, rts=step.rts)
    except BaseException:
        release(transport)
        raise


def release(transport: Transport) -> None:
    """Release both lines, so that the chip is neither held in reset nor starts its bootloader next time. Never fails."""
    with contextlib.suppress(TransportError, Cancelled):
        transport.set_lines(dtr=None if needs_flow_control(transport.info) else False, rts=False)


def _parse_step(word: str) -> Step | None:
    kind, value = word[:1], word[1:].strip()
    levels = {"0": False, "1": True}
    if kind in ("D", "R") and value in levels:
        return _dtr(levels[value]) if kind == "D" else _rts(levels[value])
    if kind == "U":
        dtr, comma, rts = (piece.strip() for piece in value.partition(","))
        return Step(levels[dtr], levels[rts]) if comma and dtr in levels and rts in levels else None
    if kind == "W":
        with contextlib.suppress(ValueError):
            seconds = float(value)
            return (
                _wait(seconds)
                if math.isfinite(seconds) and 0 <= seconds <= LONGEST_WAIT_S
                else None
            )
    return None
