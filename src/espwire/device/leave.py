"""Leaves the chip: by its lines, by its loader, by its watchdog, or as it is. Opens and closes nothing."""

from __future__ import annotations

from espwire.chips.model import Chip
from espwire.device.lines import FLOW_CONTROL_BRIDGES, SEQUENCES, After, is_usb_jtag, play
from espwire.device.loader import Loader
from espwire.errors import NoReply, Unsupported
from espwire.events import Note, Report, Resetting
from espwire.wire.commands import FlashBegin, FlashEnd, Op, RegWrite


def leave(loader: Loader, chip: Chip, after: After, report: Report) -> None:
    """Do what ``after`` says. On a link without lines a hard reset becomes a note to the user.

    :raises Unsupported: this chip has no such way
    """
    if after in ("no-reset", "no-reset-stub"):
        return
    if after == "soft-reset":
        soft_reset(loader, report)
    elif after == "watchdog-reset":
        watchdog_reset(loader, chip, report)
    elif loader.link.info.kind == "usb-otg" and chip.reset.after_otg.startswith("watchdog") and _can_fire(loader, chip):
        # on this port the lines only reach the loader again; the facts name the watchdog as the way out
        watchdog_reset(loader, chip, report)
    else:
        hard_reset(loader, chip, report)


def hard_reset(loader: Loader, chip: Chip, report: Report) -> None:
    """Pulse the enable pin."""
    info = loader.link.info
    if not info.can_reset:
        report(Note(text="this port cannot reset the chip: press its reset button to start the application"))
        return
    usb = is_usb_jtag(info) or info.kind == "usb-otg"
    flow_control = (info.vid, info.pid) in FLOW_CONTROL_BRIDGES
    name = "hard_usb" if usb else "hard_flow_control" if flow_control else "hard"
    bit = chip.reset.force_download
    if usb and chip.reset.clear_force_download_first and bit is not None and loader.supports(Op.WRITE_REG):
        loader.write_regs(RegWrite(bit.address, 0, 1 << bit.bit))
    report(Resetting(how=name, into="application"))
    play(loader.link, SEQUENCES[name])


def soft_reset(loader: Loader, report: Report) -> None:
    """Ask the loader to leave: a BEGIN of nothing, then END with 0."""
    fifth = 0 if loader.dialect.begin_words == 5 else None
    report(Resetting(how="soft", into="application"))
    loader.call(FlashBegin(0, 0, loader.dialect.flash_block, 0, fifth))
    try:
        loader.call(FlashEnd(0))
    except NoReply:
        return  # the chip may be gone before its answer is


def watchdog_reset(loader: Loader, chip: Chip, report: Report) -> None:
    """Let the RTC watchdog reset the chip.

    :raises Unsupported: no such watchdog, or registers are barred
    """
    reset = chip.reset
    if reset.watchdog is None or reset.watchdog_fire is None or not _can_fire(loader, chip):
        raise Unsupported(
            f"the {chip.name} cannot be reset by its watchdog" + (" now" if chip.reset.watchdog_reset else ""),
            hint="Use --after hard-reset, or press the reset button.",
            code="no-watchdog-reset",
        )
    report(Resetting(how="watchdog", into="application"))
    dog, fire = reset.watchdog, reset.watchdog_fire
    for address, value in (
        (dog.write_protect, dog.key),
        (dog.config1, fire.config1),
        (dog.config0, fire.config0),
        (dog.write_protect, 0),
    ):
        loader.write_regs(RegWrite(address, value))
    loader.link.sleep(fire.settle_s)


def _can_fire(loader: Loader, chip: Chip) -> bool:
    return chip.reset.watchdog_reset and loader.supports(Op.WRITE_REG)
