"""Which loader a command works with: our stub as a rule, a vendor's file, or the ROM. Decides, starts nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from espwire.events import Note
from espwire.protocol.dialect import BaudRule

if TYPE_CHECKING:
    from espwire.cli.session import Session
    from espwire.device.device import Device, StubSource

ROM_BAUD = 115200


def choose_stub(session: Session, device: Device, bulk: bool, encrypt: bool) -> StubSource:
    """What ``Device.use_stub`` shall be asked for.

    :param bulk: the command gains by a stub; others are done before one is uploaded
    :param encrypt: the chip shall encrypt what is written
    """
    if session.stub_version is not None:
        session.report(
            Note(text="there is one stub only, espwire's own: --stub-version changes nothing")
        )
    if session.no_stub or not (bulk or session.after == "no-reset-stub"):
        return False
    if session.stub_image is not None:
        return session.stub_image
    own = device.chip.stub.own
    if encrypt and device.chip.rom.encrypted_write and not (own is not None and own.can_encrypt):
        session.report(
            Note(text="no stub is used: on this chip it is the ROM loader that encrypts")
        )
        return False
    why = device.find_stub_obstacle()
    if why and session.verbose:
        session.report(Note(text=f"no stub is used: {why}"))
    return True


def choose_baud(session: Session, device: Device, bulk: bool) -> int:
    """The rate to work at: a quick question does not need more than a ROM can that cannot change its rate."""
    if not bulk and not session.no_stub and device.loader.dialect.baud is BaudRule.NONE:
        return min(session.baud, ROM_BAUD)
    return session.baud
