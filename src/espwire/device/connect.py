"""From a port to a Device: reset into the loader, sync, find out which chip it is. Writes nothing to flash."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeGuard, cast

from espwire.chips.model import Chip
from espwire.chips.registry import chip_ids, find_by_image_id, find_by_magic, load_chip, parse_chip_id
from espwire.device.device import Device, StubSource
from espwire.device.enter import Entrance, reach_loader
from espwire.device.identity import Identity, Registers, format_revision
from espwire.device.leave import reset_by_lines
from espwire.device.lines import Before, Sequence, is_usb_jtag
from espwire.device.loader import MAGIC_ADDRESS, Loader, Trace
from espwire.device.memory import Memory, memory_key
from espwire.device.packets import PacketRing
from espwire.device.reopen import OPEN_PAUSE_S, Follower, open_port
from espwire.device.security import LONG_FORM, SHORT_FORM, SecurityReply, parse_security_reply, read_security
from espwire.device.spi import write_group
from espwire.device.stub import join_stub, take_dialect
from espwire.device.words import read_known
from espwire.errors import CommandFailed, ConnectError, DeviceError, LinkError, NoReply, Unsupported, WrongChip
from espwire.events import ChipFound, Note, Opened, Report, Warned, silent
from espwire.link.base import CancelToken, Link
from espwire.settings import Settings
from espwire.wire.commands import GetSecurityInfo, Op, ReadReg, RegWrite
from espwire.wire.dialect import BaudRule, Dialect, EraseRule, Md5Form

if TYPE_CHECKING:
    from espwire.link.ports import Port

ROM_BAUD = 115200
RESETTING = ("default-reset", "usb-reset")
BORROW_PATIENCE_S = 0.5
RETIRED_CHIP_IDS = {
    4: "ESP32-S3 beta 2",
    6: "ESP32-S3 beta 3",
    7: "ESP32-C6 beta",
    10: "ESP32-H2 beta 1",
    14: "ESP32-H2 beta 2",
    17: "ESP32-C5 beta 3",
}
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
    stub: StubSource = False,
) -> Device:
    """Open the port, bring the chip into its loader, identify it.

    A port, or the path of one, is followed when a reset takes it away: native USB comes back under another name.

    :param port: a port as ``link.url.open_link`` takes it, a Port, or a link that is open; the device closes each
    :param chip: refuse any other chip
    :param baud: rate to work at; where loader or port cannot change, a note says so
    :param trace: called after each round trip with command, reply or error, and seconds
    :param memory: which reset sequence worked last; changes the order of attempts only
    :param reset: the way into the loader, in place of the port's own: steps, a name, or text for ``parse_sequence``
    :param stub: also start one: ours (True), or that of a vendor's JSON file; see ``Device.use_stub``
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


def detect(loader: Loader, named: Chip | None = None) -> tuple[Chip, SecurityReply | None]:
    """Which chip answers, and its security information where it has any. Sets the loader's dialect and mode.

    Order of questions: protocol.toml [detect].

    :raises WrongChip: an unknown chip, a retired sample, or another one than ``named``
    """
    ask_first = named is None or named.identity.security_info_bytes > 0
    reply = _read_security_reply(loader) if ask_first else None
    chip_id = reply.chip_id if reply is not None else None
    if reply is not None and chip_id:
        found = _chip_by_id(chip_id)
    elif reply is not None and reply.secure_download:
        found = _chip_with_short_form(reply)
    else:
        found = _chip_by_magic(loader, reply)
    if named is not None and found.id != named.id:
        raise WrongChip(f"this is an {found.name}, not an {named.name}", found=found.id, wanted=named.id)
    loader.dialect = found.rom
    loader.secure = reply is not None and reply.secure_download and bool(found.rom.secure_ops)
    return found, reply


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
    chip, reply = detect(loader, named)
    identity = None
    if borrowed:
        join_stub(loader, chip, uploaded=False)
    if not loader.secure:
        if is_usb_jtag(loader.link.info) and not borrowed:
            disable_watchdogs(loader, chip)
        identity = Identity(chip, Registers(loader.read_reg) if borrowed else read_known(loader, chip, reply))
    revision = identity.revision() if identity is not None else 0
    security = read_security(chip, identity.registers if identity is not None else None, reply, revision)
    device = Device(chip, loader, identity, security, report, follower)
    shown = format_revision(device.revision) if device.revision_known else ""
    report(ChipFound(chip=chip.name, description=device.description, revision=shown, mac=device.mac))
    if loader.secure:
        report(Note(text="the chip is in Secure Download Mode: it can be written, but not read or verified"))
    return device


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

    :raises ConnectError: code ``stub-running``: it answers SYNC and nothing else
    """
    try:
        loader.call(ReadReg(MAGIC_ADDRESS), timeout=BORROW_PATIENCE_S)  # before much time is spent on it
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


def _read_security_reply(loader: Loader) -> SecurityReply | None:
    """The answer to GET_SECURITY_INFO in whichever length; None from a ROM that does not have it."""
    try:
        reply = loader.ask(GetSecurityInfo())
        for size in (LONG_FORM, SHORT_FORM):
            if len(reply.body) >= size + 2:
                return parse_security_reply(loader.judge(reply, size).body)
    except (CommandFailed, NoReply):
        pass
    return None


def _chip_by_id(chip_id: int) -> Chip:
    name = find_by_image_id(chip_id)
    if name is not None:
        return load_chip(name)
    if chip_id in RETIRED_CHIP_IDS:
        raise WrongChip(
            f"this is an {RETIRED_CHIP_IDS[chip_id]} (chip id {chip_id}), a sample that is no longer supported",
            hint="Use the last version of the vendor's tool that knew it.",
            code="retired-chip",
            chip_id=chip_id,
        )
    raise _unknown_chip(f"chip id {chip_id}")


def _chip_with_short_form(reply: SecurityReply) -> Chip:
    """In Secure Download Mode no magic can be read; the short form alone tells the one chip that has it."""
    if reply.chip_id is None:
        return _only_chip(lambda chip: chip.identity.security_info_bytes == SHORT_FORM, "the 12-byte security info")
    raise _unknown_chip(f"chip id {reply.chip_id}")


def _chip_by_magic(loader: Loader, reply: SecurityReply | None) -> Chip:
    try:
        magic = loader.read_reg(MAGIC_ADDRESS)
    except CommandFailed:
        if reply is not None:
            return _chip_with_short_form(reply)
        raise
    name = find_by_magic(magic)
    if name is not None:
        return load_chip(name)
    # rare ways: words that only older tools went by, and another place that tells; then nobody knows
    chips = [load_chip(name) for name in chip_ids()]
    old = [chip for chip in chips if magic in chip.identity.legacy_magic_values]
    if len(old) == 1:
        return old[0]
    for chip in old or chips:
        other = chip.identity.alternate_detect
        if other is not None and loader.read_reg(other.address) & other.mask == other.value:
            return chip
    raise _unknown_chip(f"magic {magic:#010x}")


def _only_chip(fits: Callable[[Chip], bool], what: str) -> Chip:
    found = [chip for name in chip_ids() if fits(chip := load_chip(name))]
    if len(found) != 1:
        raise _unknown_chip(what)
    return found[0]


def _unknown_chip(what: str) -> WrongChip:
    return WrongChip(
        f"this chip is not known ({what})",
        hint="A newer espwire may know it; name the chip with --chip only if you are sure.",
        code="unknown-chip",
        what=what,
    )
