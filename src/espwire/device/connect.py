"""From a port to a Device: reset into the loader, sync, find out which chip it is. Writes nothing to flash."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeGuard, cast

from espwire.chips.model import Chip
from espwire.chips.registry import load_chip, parse_chip_id
from espwire.device.baud import ROM_BAUD
from espwire.device.detect import detect_surely
from espwire.device.device import Device, StubSource
from espwire.device.double_read import build_difference
from espwire.device.enter import Entrance, reach_loader
from espwire.device.identity import Identity, Registers
from espwire.device.leave import find_hard_reset, reset_by_lines
from espwire.device.lines import Before, Sequence, is_usb_jtag
from espwire.device.loader import MAGIC_ADDRESS, Loader, Trace
from espwire.device.memory import Memory, memory_key
from espwire.device.packets import PacketRing
from espwire.device.reopen import OPEN_PAUSE_S, Follower, open_port
from espwire.device.security import LONG_FORM, SecurityReply, read_security
from espwire.device.spi import write_group
from espwire.device.stub import join_stub, take_dialect
from espwire.device.stub_commands import ask_capabilities, is_of_another_protocol
from espwire.device.words import open_registers, read_first_words
from espwire.errors import CommandFailed, ConnectError, DeviceError, LinkError, NoReply, Unsupported
from espwire.events import ChipFound, Note, Opened, Report, Warned, silent
from espwire.link.base import CancelToken, Link
from espwire.settings import Settings
from espwire.wire.commands import Op, ReadReg, RegWrite
from espwire.wire.dialect import BaudRule, Dialect, EraseRule, Md5Form

if TYPE_CHECKING:
    from espwire.link.ports import Port

RESETTING = ("default-reset", "usb-reset")
BORROW_PATIENCE_S = 0.5
DETECTIONS = 3
# what every ROM has in common, before it is known which one it is
ANY_ROM = Dialect(
    name="ROM",
    ops=frozenset({Op.SYNC, Op.READ_REG, Op.GET_SECURITY_INFO}),
    secure_ops=frozenset({Op.SYNC, Op.GET_SECURITY_INFO}),
    status_bytes=2,
    begin_words=4,
    flash_block=0x400,
    ram_block=0x1800,
    attach_bytes=0,
    slow_read=0,
    md5=Md5Form.NONE,
    baud=BaudRule.NONE,
    secure_baud=False,
    erase=EraseRule.TRUE_SIZE,
    security_info_bytes=LONG_FORM,
    encrypted_write=False,
    sync_value=0x20120707,
)


def connect(
    port: str | Port | Link,
    *,
    chip: str | None = None,
    baud: int = ROM_BAUD,
    before: Before = "default-reset",
    settings: Settings | None = None,
    cancel: CancelToken | None = None,
    report: Report = silent,
    trace: Trace | None = None,
    memory: Memory | None = None,
    reset: Sequence | str | None = None,
    packets: PacketRing | None = None,
    stub: StubSource = "auto",
) -> Device:
    """Open the port, bring the chip into its loader, identify it.

    A port, or the path of one, is followed when a reset takes it away: native USB comes back under another name.

    :param port: a port as ``link.url.open_link`` takes it, a Port, or a link that is open; the device closes each
    :param chip: refuse any other chip
    :param baud: rate to work at; where loader or port cannot change, a note says so
    :param trace: called after each round trip with command, reply or error, and seconds
    :param memory: which reset sequence worked last; changes the order of attempts only
    :param reset: the way into the loader, in place of the port's own: steps, a name, or text for ``parse_sequence``
    :param stub: which stub flasher to start: ours where there is one for the chip (``"auto"``, ``True``), none
        (``False``), or that of a vendor's JSON file; see ``Device.use_stub``
    :param packets: keeps the last 200 packets of this conversation, to be looked at if it fails, here or later
    :raises LinkError: the port
    :raises UsageError: code ``reset-sequence``
    :raises ConnectError: NoReply, WrongBootMode, WrongChip, or another with the code of its cause
    """
    named = None if chip is None else load_chip(parse_chip_id(chip))
    settings = settings or Settings()
    slow = min(baud, ROM_BAUD)
    link, follower = _open(port, slow, settings, cancel, report)
    loader = Loader(link, ANY_ROM, settings)
    try:
        report(Opened(port=link.info.name, baud=slow))
        find_hard_reset(
            link.info, settings.custom_hard_reset_sequence
        )  # one that makes no sense fails now, not at last
        loader.baud, loader.on_trip = slow, trace
        if packets is not None:
            loader.packets = packets
        entrance = Entrance(before=before, reset=reset, named=named, memory=memory, follower=follower, report=report)
        borrowed = reach_loader(loader, entrance)
        identify = _borrow if borrowed else _identify
        device = identify(loader, named, follower, report)
        if memory is not None and device.mac:
            memory.note_device(device.mac, memory_key(loader.link.info))
        if loader.link.info.can_reset and before in RESETTING and not borrowed:
            device.reenter = partial(_reenter, device, entrance, slow)
        speed_up(device, stub=stub, baud=baud)
    except BaseException:
        if isinstance(port, str) or _is_port(port):
            loader.link.close()
        raise
    return device


def reset(
    port: str | Port | Link,
    *,
    settings: Settings | None = None,
    cancel: CancelToken | None = None,
    report: Report = silent,
) -> str:
    """Start the application by the port's lines and nothing else: not a byte is sent. The port is closed again.

    Returns the name of the sequence.

    :param port: as for ``connect``; an open link stays open
    :raises LinkError: the port
    :raises Unsupported: code ``cannot-reset``: it has no lines
    :raises UsageError: code ``reset-sequence``: the custom sequence makes no sense
    """
    settings = settings or Settings()
    link, _ = _open(port, ROM_BAUD, settings, cancel, report)
    try:
        report(Opened(port=link.info.name, baud=ROM_BAUD))
        return reset_by_lines(link, report, settings.custom_hard_reset_sequence)
    finally:
        if isinstance(port, str) or _is_port(port):
            link.close()


def disable_watchdogs(loader: Loader, chip: Chip) -> None:
    """Keep the chip's own watchdogs quiet: over USB-Serial/JTAG they stay on in the loader and would reset it."""
    dog, super_dog = chip.reset.watchdog, chip.reset.super_watchdog
    if not chip.reset.disable_watchdogs_when or dog is None or super_dog is None:
        return
    feed = 1 << super_dog.auto_feed_bit
    write_group(
        loader,
        chip,
        (
            RegWrite(dog.write_protect, dog.key),
            RegWrite(dog.config0, 0),
            RegWrite(dog.write_protect, 0),
            RegWrite(super_dog.write_protect, super_dog.key),
            RegWrite(super_dog.config, feed, feed),
            RegWrite(super_dog.write_protect, 0),
        ),
    )


def _open(
    port: str | Port | Link, baud: int, settings: Settings, cancel: CancelToken | None, report: Report
) -> tuple[Link, Follower]:
    """The link, and what follows its port; a string that is no path of a serial port is opened as it is."""
    if isinstance(port, str):
        if port.startswith("virtual:") or "://" in port:
            link = _open_url(port, baud, settings.open_attempts, cancel)
            return link, Follower(report=report)
        from espwire.link.ports import find_port

        port = find_port(port)
    if _is_port(port):
        found, link = open_port(port, baud, settings.open_attempts, cancel)
        return link, Follower(found, baud=baud, cancel=cancel, report=report)
    link = cast("Link", port)
    link.set_baud(baud)  # whatever it was opened at
    return link, Follower(report=report)


def _open_url(url: str, baud: int, attempts: int, cancel: CancelToken | None) -> Link:
    from espwire.link.url import open_link

    done = 0
    while True:
        done += 1
        try:
            return open_link(url, baud=baud, cancel=cancel)
        except LinkError:
            if done == attempts:
                raise
        if cancel is not None:
            cancel.check()
        time.sleep(OPEN_PAUSE_S)


def _is_port(port: Port | Link) -> TypeGuard[Port]:
    return hasattr(port, "wait_back")


def _identify(
    loader: Loader, named: Chip | None, follower: Follower, report: Report, *, borrowed: bool = False
) -> Device:
    registers: Registers | None
    if borrowed:
        chip, reply = _detect_twice(loader, named)
        join_stub(loader, chip, uploaded=False)
        registers, divider = open_registers(loader), None
    else:
        chip, reply, registers, divider = _detect_and_read(loader, named)
    identity = Identity(chip, registers) if registers is not None else None
    revision = identity.revision() if identity is not None else 0
    security = read_security(chip, identity.registers if identity is not None else None, reply, revision)
    device = Device(chip, loader, identity, security, report, follower)
    if divider is not None:
        device.divider = (loader.baud, divider)
    shown = str(device.revision) if device.revision_known else ""
    report(ChipFound(chip=chip.name, description=device.description, revision=shown, mac=device.mac))
    if loader.secure:
        report(Note(text="the chip is in Secure Download Mode: it can be written, but not read or verified"))
    return device


def _detect_and_read(
    loader: Loader, named: Chip | None
) -> tuple[Chip, SecurityReply | None, Registers | None, int | None]:
    """The chip and its first words; begun again where the chip then answers as another one does.

    :raises WrongChip: as ``detect``
    :raises DeviceError: code ``answers-differ``
    """
    for left in reversed(range(DETECTIONS)):
        chip, reply = detect_surely(loader, named)
        if is_usb_jtag(loader.link.info) and not loader.secure:
            disable_watchdogs(loader, chip)
        try:
            return chip, reply, *read_first_words(loader, chip, reply)
        except DeviceError as error:
            if error.code != "answers-differ" or not left:
                raise
        take_dialect(loader, ANY_ROM)
        loader.secure = False
    raise AssertionError("the last attempt returns or raises")


def _detect_twice(loader: Loader, named: Chip | None) -> tuple[Chip, SecurityReply | None]:
    """The chip, as two answers in a row have it.

    :raises WrongChip: as ``detect``
    :raises DeviceError: code ``answers-differ``
    """
    dialect, found = loader.dialect, detect_surely(loader, named)
    for _ in range(DETECTIONS):
        loader.dialect, loader.secure = dialect, False
        before, found = found, detect_surely(loader, named)
        if found == before:
            return found
    raise build_difference("chip detection", DETECTIONS + 1)


def _reenter(device: Device, entrance: Entrance, baud: int) -> None:
    """Reset the chip, whatever runs on it, and have its ROM loader as at the beginning."""
    loader, chip = device.loader, device.chip
    loader.link.set_baud(baud)
    loader.baud = baud
    take_dialect(loader, chip.rom)
    device.flash = None
    if reach_loader(loader, replace(entrance, report=silent)):
        raise ConnectError("a stub is running that no reset ends", code="stub-running", hint="Reset the board by hand.")
    if is_usb_jtag(loader.link.info):
        disable_watchdogs(loader, chip)


def speed_up(device: Device, *, stub: StubSource, baud: int) -> None:
    """Start a stub where one can be used, and work at ``baud`` from now on, where that is more.

    The rate is changed before the upload, which is a part of the wait: by the ROM where it can, or by a first stage.

    :raises FileError, DataError, ConnectError: as ``Device.use_stub`` and ``Device.change_baud``
    """
    if not device.find_stub_obstacle(stub):
        if baud > device.loader.baud and device.loader.dialect.baud is not BaudRule.NONE:
            _raise_baud(device, baud, device.report)
        device.use_stub(stub, baud=baud)
    if baud > device.loader.baud:
        _raise_baud(device, baud, device.report)


def _borrow(loader: Loader, named: Chip | None, follower: Follower, report: Report) -> Device:
    """The chip through a stub that is running already; what it cannot do, the dialect does not have.

    :raises ConnectError: code ``stub-running``: it answers SYNC and nothing else, or is of another version of espwire
    """
    ours = ask_capabilities(loader) is not None
    loader.dialect = replace(loader.dialect, sealed=ours)
    try:
        loader.call(ReadReg(MAGIC_ADDRESS), timeout=BORROW_PATIENCE_S)  # before much time is spent on it
        if not ours and is_of_another_protocol(loader):
            raise ConnectError(
                "a stub that another version of espwire left is running on the chip, and this port cannot reset it",
                hint="Reset the board into its ROM loader (hold BOOT, press RESET), then try again.",
                code="stub-running",
            )
        device = _identify(loader, named, follower, report, borrowed=True)
    except (NoReply, CommandFailed):
        raise ConnectError(
            "a stub of an earlier session is running on the chip, does not answer, and this port cannot reset it",
            hint="Reset the board into its ROM loader (hold BOOT, press RESET), then try again.",
            code="stub-running",
        ) from None
    why = "" if device.loader.dialect.capabilities is not None else " as it is: this port cannot reset the chip"
    report(Note(text=f"a stub of an earlier session is running, and is used{why}"))
    return device


def _raise_baud(device: Device, baud: int, report: Report) -> None:
    """Change the rate; where loader or clock do not allow it, say so and go on at the rate that works."""
    try:
        device.change_baud(baud)
    except DeviceError as error:
        if not isinstance(error, Unsupported) and error.code != "clock-measurement":
            raise
        report(Warned(code=error.code, text=f"{error}: staying at {device.loader.baud} baud"))
