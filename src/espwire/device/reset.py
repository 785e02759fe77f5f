"""Resets the chip from the loader into its application: by control lines, by a command, or by the watchdog."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from espwire.chips.model import Chip, Watchdog, WatchdogFire
from espwire.device.double_read import read_word
from espwire.device.loader import Loader
from espwire.device.reconnect import PortTracker, is_native_usb
from espwire.device.reset_sequences import (
    SEQUENCES,
    After,
    Sequence,
    Step,
    find_or_parse,
    needs_flow_control,
    play,
    release,
)
from espwire.errors import DeviceError, NoReply, TransportLost, Unsupported
from espwire.events import Note, Report, Resetting
from espwire.protocol.commands import FlashBegin, FlashEnd, RegWrite
from espwire.protocol.stub import StubReset
from espwire.transport.base import Transport, TransportInfo


def leave(
    loader: Loader, chip: Chip, after: After, report: Report, tracker: PortTracker | None = None
) -> str:
    """Leave the chip as ``after`` demands. On a transport without lines, a hard reset becomes a note to the user.

    Returns ``"hard"``, ``"soft"`` or ``"watchdog"``; empty: the chip was not reset.

    If the port disappears with the reset, ``tracker`` waits for it. A port that stays away is only a warning, because
    the work is done.

    :raises Unsupported: this chip cannot be reset in this way
    :raises UsageError: code ``reset-sequence``: the custom sequence makes no sense
    """
    if after in ("no-reset", "no-reset-stub"):
        if loader.dialect.sealed:
            unseal_stub(loader)
        return ""
    way = ""
    with _following(loader, report, tracker):
        if after == "soft-reset":
            way = "soft"
            soft_reset(loader, report)
        elif after == "watchdog-reset" or _needs_watchdog(loader, chip):
            way = "watchdog"
            watchdog_reset(loader, chip, report)
        else:
            way = "hard" if loader.transport.info.can_reset else ""
            hard_reset(loader, chip, report, tracker.reset_low if tracker is not None else None)
    return way


def unseal_stub(loader: Loader) -> None:
    """Have our stub accept requests without a CRC, so that the vendor's tools can use it. A request with one ends that."""
    sealed = loader.dialect
    loader.dialect = sealed.replace(sealed=False)
    try:
        loader.sync()
    except NoReply:
        return  # the next tool sends a SYNC of its own
    finally:
        loader.dialect = sealed


@contextmanager
def _following(loader: Loader, report: Report, tracker: PortTracker | None) -> Iterator[None]:
    """Reset the chip inside this context; if a native USB port disappears with it, wait for the port."""
    native = is_native_usb(loader.transport.info)
    lost: TransportLost | None = None
    try:
        yield
    except TransportLost as error:
        if not native:
            raise
        lost = error
    if native:
        (tracker or PortTracker(report=report)).settle(loader, lost)


def hard_reset(loader: Loader, chip: Chip, report: Report, low: float | None = None) -> None:
    """Pulse the enable pin, or play ``settings.custom_hard_reset_sequence``.

    :param low: as for ``find_hard_reset``
    """
    info = loader.transport.info
    if not info.can_reset:
        report(
            Note(
                text="this port cannot reset the chip: press its reset button to start the application"
            )
        )
        return
    name, steps = find_hard_reset(info, loader.settings.custom_hard_reset_sequence, low)
    bit = chip.reset.force_download
    usb = is_native_usb(info)
    if usb and chip.reset.clear_force_download_first and bit is not None and not loader.secure:
        loader.write_regs(RegWrite(bit.address, 0, 1 << bit.bit))
    report(Resetting(how=name, into="application"))
    if not needs_flow_control(info):
        release(
            loader.transport
        )  # a DTR that another program left asserted would start the bootloader again
    play(loader.transport, steps)


def reset_by_lines(transport: Transport, report: Report, custom: str | None = None) -> str:
    """Pulse the enable pin, whatever runs on the chip. Returns the name of the sequence.

    :raises Unsupported: code ``cannot-reset``: this port has no lines
    :raises UsageError: code ``reset-sequence``
    """
    info = transport.info
    if not info.can_reset:
        raise Unsupported(
            "this port cannot reset the chip",
            hint="Press the board's reset button.",
            code="cannot-reset",
        )
    name, steps = find_hard_reset(info, custom)
    report(Resetting(how=name, into="application"))
    try:
        if not needs_flow_control(info):
            release(transport)
        play(transport, steps)
    except TransportLost:
        if not is_native_usb(info):
            raise
    return name


def find_hard_reset(
    info: TransportInfo, custom: str | None = None, low: float | None = None
) -> tuple[str, Sequence]:
    """Name and steps of the reset into the application for this port.

    :param low: seconds of low level at the enable pin that are known to reset this board; None: not known
    :raises UsageError: code ``reset-sequence``
    """
    if custom:
        return "custom", find_or_parse(custom, info)
    if is_native_usb(info):
        return "hard_usb", SEQUENCES["hard_usb"]
    if not needs_flow_control(info):
        return "hard", SEQUENCES["hard"] if low is None else (
            Step(rts=True),
            Step(wait=low),
            Step(rts=False),
        )
    steps = SEQUENCES["hard_flow_control"]
    # release DTR now where closing the port would pulse it
    return "hard_flow_control", steps if os.name == "posix" else (*steps, steps[0])


def run_application(loader: Loader, report: Report, tracker: PortTracker | None = None) -> None:
    """Start the application without a reset: a FLASH_BEGIN of 0 bytes, then FLASH_END with 1.

    If the port disappears, ``tracker`` waits for it, as in ``leave``.
    """
    with _following(loader, report, tracker):
        _end(loader, report, how="run", stay=1)


def soft_reset(loader: Loader, report: Report) -> None:
    """Have the loader reset the chip: a FLASH_BEGIN of 0 bytes, then FLASH_END with 0."""
    _end(loader, report, how="soft", stay=0)


def _end(loader: Loader, report: Report, *, how: str, stay: int) -> None:
    fifth = 0 if loader.dialect.begin_words == 5 else None
    report(Resetting(how=how, into="application"))
    if loader.dialect.sealed:
        try:
            loader.call(StubReset())
        except NoReply:
            _reset_again(loader)
        return
    loader.call(FlashBegin(0, 0, loader.dialect.flash_block, 0, fifth))
    try:
        loader.call(FlashEnd(stay))
    except NoReply:
        return  # the chip may reset before its reply is sent


def _reset_again(loader: Loader) -> None:
    """After a RESET without a reply: if the stub still answers, the request was lost, so send it again."""
    try:
        if loader.sync(1) == 0:
            loader.call(StubReset())
    except NoReply:
        return  # the chip has reset


def watchdog_reset(loader: Loader, chip: Chip, report: Report) -> None:
    """Let the RTC watchdog reset the chip.

    :raises Unsupported: this chip has no such watchdog, or its registers cannot be written
    """
    dog, fire = require_watchdog_reset(loader, chip)
    report(Resetting(how="watchdog", into="application"))
    loader.write_regs(RegWrite(dog.write_protect, dog.key))
    loader.write_regs(RegWrite(dog.config1, fire.config1))
    try:
        loader.write_regs(RegWrite(dog.config0, fire.config0))
        loader.write_regs(RegWrite(dog.write_protect, 0))
    except (DeviceError, NoReply) as error:
        if isinstance(error, DeviceError) and error.code != "chip-reset":
            raise
        # on a slow transport, the chip resets (about 15 ms after config0) before it answers the last write
    loader.transport.sleep(fire.settle_s)


def require_watchdog_reset(loader: Loader, chip: Chip) -> tuple[Watchdog, WatchdogFire]:
    """The chip's RTC watchdog and what to write to it.

    :raises Unsupported: code ``no-watchdog-reset``
    """
    reset = chip.reset
    if reset.watchdog is None or reset.watchdog_fire is None or not _can_fire(loader, chip):
        raise Unsupported(
            f"the {chip.name} cannot be reset by its watchdog"
            + (" now" if chip.reset.watchdog_reset else ""),
            hint="Use --after hard-reset, or press the reset button.",
            code="no-watchdog-reset",
        )
    return reset.watchdog, reset.watchdog_fire


def _needs_watchdog(loader: Loader, chip: Chip) -> bool:
    """Whether over this port a reset by the lines would start the bootloader again, so that the watchdog is needed.

    If the rule has a condition, it is this: the boot pin was low at the last reset, and software did not force download
    mode.
    """
    rule, pin, flag = chip.reset.otg_reset, chip.strapping, chip.reset.force_download
    if loader.transport.info.kind != "usb-otg" or not rule or not _can_fire(loader, chip):
        return False
    if rule != "watchdog-if-strapped" or pin.address is None or flag is None:
        return True
    by_pin = not read_word(loader, pin.address) >> pin.bits["boot"] & 1
    return by_pin and not read_word(loader, flag.address) >> flag.bit & 1


def _can_fire(loader: Loader, chip: Chip) -> bool:
    return chip.reset.watchdog_reset and not loader.secure
