"""Connects to a chip: opens the port, enters the bootloader, identifies the chip and starts a stub."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Literal, TypeGuard, cast

from espwire.chips.model import Chip
from espwire.chips.registry import load_chip, parse_chip_id
from espwire.device.backends.stub_commands import ask_capabilities, is_of_another_protocol
from espwire.device.baud import ROM_BAUD
from espwire.device.detect import detect_surely, open_registers, read_first_registers
from espwire.device.device import Device, StubSource
from espwire.device.double_read import ask_in_pipeline, build_difference
from espwire.device.enter_bootloader import (
    ConnectHistory,
    EntryOptions,
    adapter_key,
    enter_bootloader,
)
from espwire.device.identity import Identity, Registers
from espwire.device.line_tuner import (
    RATES,
    UPLOAD_BAUD,
    USUAL_RATE,
    LineTuner,
    RateMemory,
    can_tune,
)
from espwire.device.loader import MAGIC_ADDRESS, Attempts, Direction, Loader, OnPacket
from espwire.device.reconnect import OPEN_PAUSE_S, PortTracker, open_port
from espwire.device.reset import find_hard_reset, reset_by_lines
from espwire.device.reset_sequences import Before, Sequence, is_usb_jtag
from espwire.device.security import LONG_FORM, SecurityReply, read_security
from espwire.device.spi import write_group
from espwire.device.stub_upload import join_stub
from espwire.errors import (
    CommandFailed,
    ConnectError,
    DeviceError,
    NoReply,
    TransportError,
    Unsupported,
)
from espwire.events import ChipFound, Note, Opened, Report, Warned, silent
from espwire.protocol.commands import ReadReg, RegWrite
from espwire.protocol.dialect import BaudRule, Dialect, EraseRule, Md5Form
from espwire.protocol.opcodes import Op
from espwire.settings import Settings
from espwire.transport.base import CancelToken, Transport
from espwire.transport.url import find_scheme

if TYPE_CHECKING:
    from espwire.transport.ports import Port

RESETTING = ("default-reset", "usb-reset")
RUNNING_STUB_TIMEOUT_S = 0.5
FEW_PROOFS_S = (0.05, 0.1)  # as ``baud.PROOFS_S``, where a reset is the better way back
PROOFS = 8  # replies that must be equal
# what all ROMs have in common, for use until the chip is known
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
    port: str | Port | Transport,
    *,
    chip: str | None = None,
    baud: int | Literal["auto"] = ROM_BAUD,
    before: Before = "default-reset",
    settings: Settings | None = None,
    cancel: CancelToken | None = None,
    report: Report = silent,
    history: ConnectHistory | None = None,
    reset: Sequence | str | None = None,
    on_packet: OnPacket | None = None,
    stub: StubSource = "auto",
) -> Device:
    """Open the port, bring the chip into its bootloader, identify it and start a stub.

    Native USB may come back under another name after a reset; the device is then reopened there.

    :param port: a name or URL for ``transport.url.open_transport``, a Port, or an open transport; the device closes it
    :param chip: expected chip; any other is an error
    :param baud: rate to work at; if loader or port cannot change their rate, a note reports that. Our stub goes on at a
        lower rate if too much is lost. ``"auto"``: long transfers look for the fastest reliable rate (``line_tuner.py``)
    :param history: which reset sequence worked last; changes the order of attempts only
    :param reset: the sequence into the loader, in place of the port's own: steps, a name, or text for ``parse_sequence``
    :param stub: which stub flasher to start: ours if the chip has one (``"auto"``, ``True``), none (``False``), or the
        one in a file of the vendor's JSON format; see ``Device.use_stub``
    :param on_packet: called with each packet sent or received; does not change what is sent
    :raises TransportError: the port cannot be opened or used
    :raises UsageError: code ``reset-sequence``
    :raises ConnectError: NoReply, WrongBootMode, WrongChip, or another with the code of its cause
    """
    expected = None if chip is None else load_chip(parse_chip_id(chip))
    settings = settings or Settings()
    slow = ROM_BAUD if baud == "auto" else min(baud, ROM_BAUD)
    transport, tracker = _open(port, slow, settings, cancel, report)
    loader = Loader(transport, ANY_ROM, settings)
    try:
        report(Opened(port=transport.info.name, baud=slow))
        if transport.info.warning:
            report(Warned(code="port", text=transport.info.warning))
        find_hard_reset(
            transport.info, settings.custom_hard_reset_sequence
        )  # report an invalid sequence now, not after the work
        loader.baud, loader.on_packet = slow, on_packet
        options = EntryOptions(
            before=before,
            reset=reset,
            expected=expected,
            history=history,
            tracker=tracker,
            report=report,
        )
        stub_runs = enter_bootloader(loader, options)
        identify = _use_running_stub if stub_runs else _identify
        device = identify(loader, expected, tracker, report)
        if history is not None and device.mac:
            history.note_device(device.mac, adapter_key(loader.transport.info))
        if loader.transport.info.can_reset and before in RESETTING and not stub_runs:
            device.reenter = partial(_reenter, device, options, slow)
        speed_up(device, stub=stub, baud=baud, history=history)
    except BaseException:
        if isinstance(port, str) or _is_port(port):
            loader.transport.close()
        raise
    return device


def reset(
    port: str | Port | Transport,
    *,
    settings: Settings | None = None,
    cancel: CancelToken | None = None,
    report: Report = silent,
) -> str:
    """Start the application by the port's lines alone; nothing is sent. Returns the name of the sequence.

    :param port: as for ``connect``; an open transport stays open
    :raises TransportError: the port cannot be opened or used
    :raises Unsupported: code ``cannot-reset``: the port has no lines
    :raises UsageError: code ``reset-sequence``: the custom sequence is invalid
    """
    settings = settings or Settings()
    transport, _ = _open(port, ROM_BAUD, settings, cancel, report)
    try:
        report(Opened(port=transport.info.name, baud=ROM_BAUD))
        return reset_by_lines(transport, report, settings.custom_hard_reset_sequence)
    finally:
        if isinstance(port, str) or _is_port(port):
            transport.close()


def disable_watchdogs(loader: Loader, chip: Chip) -> None:
    """Switch off the watchdogs that stay on in download mode over USB-Serial/JTAG and would reset the chip."""
    dog, super_dog = chip.reset.watchdog, chip.reset.super_watchdog
    if not chip.reset.disable_watchdogs_over_usb or dog is None or super_dog is None:
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
    port: str | Port | Transport,
    baud: int,
    settings: Settings,
    cancel: CancelToken | None,
    report: Report,
) -> tuple[Transport, PortTracker]:
    """The open transport and the tracker of its port."""
    if isinstance(port, str) and find_scheme(port) == "webserial":
        from espwire.transport.webserial_port import WebSerialPort

        port = WebSerialPort(port)
    if isinstance(port, str):
        if find_scheme(port) == "virtual" or "://" in port:
            transport = _open_url(port, baud, settings.retry.open_attempts, cancel)
            return transport, PortTracker(report=report)
        from espwire.transport.ports import find_port

        port = find_port(port)
    if _is_port(port):
        found, transport = open_port(port, baud, settings.retry.open_attempts, cancel)
        return transport, PortTracker(found, baud=baud, cancel=cancel, report=report)
    transport = cast("Transport", port)
    transport.set_baud(baud)  # whatever it was opened at
    return transport, PortTracker(report=report)


def _open_url(url: str, baud: int, limit: int, cancel: CancelToken | None) -> Transport:
    from espwire.transport.url import open_transport

    attempts = Attempts(limit)
    while True:
        try:
            return open_transport(url, baud=baud, cancel=cancel)
        except TransportError as error:
            attempts.failed(error)
        if cancel is not None:
            cancel.check()
        time.sleep(OPEN_PAUSE_S)


def _is_port(port: Port | Transport) -> TypeGuard[Port]:
    return hasattr(port, "wait_back")


def _identify(
    loader: Loader,
    expected: Chip | None,
    tracker: PortTracker,
    report: Report,
    *,
    stub_runs: bool = False,
) -> Device:
    registers: Registers | None
    if stub_runs:
        chip, reply = _detect_twice(loader, expected)
        join_stub(loader, chip, uploaded=False)
        registers, divider = open_registers(loader), None
    else:
        chip, reply, registers, divider = _detect_and_read(loader, expected)
    identity = Identity(chip, registers) if registers is not None else None
    revision = identity.revision() if identity is not None else 0
    security = read_security(
        chip, identity.registers if identity is not None else None, reply, revision
    )
    device = Device(chip, loader, identity, security, report, tracker)
    if divider is not None:
        device.divider = (loader.baud, divider)
    shown = str(device.revision) if device.revision_known else ""
    report(
        ChipFound(chip=chip.name, description=device.description, revision=shown, mac=device.mac)
    )
    if loader.secure:
        report(
            Note(
                text="the chip is in Secure Download Mode: it can be written, but not read or verified"
            )
        )
    return device


def _detect_and_read(
    loader: Loader, expected: Chip | None
) -> tuple[Chip, SecurityReply | None, Registers | None, int | None]:
    """The chip and its first registers; repeated if the chip then answers like another one.

    :raises WrongChip: as ``detect``
    :raises DeviceError: code ``answers-differ``
    """
    attempts = Attempts(loader.settings.retry.detect_attempts)
    while True:
        chip, reply = detect_surely(loader, expected)
        if is_usb_jtag(loader.transport.info) and not loader.secure:
            disable_watchdogs(loader, chip)
        try:
            return chip, reply, *read_first_registers(loader, chip, reply)
        except DeviceError as error:
            if error.code != "answers-differ":
                raise
            attempts.failed(error)
        loader.dialect = ANY_ROM
        loader.secure = False


def _detect_twice(loader: Loader, expected: Chip | None) -> tuple[Chip, SecurityReply | None]:
    """The chip that two detections in a row find.

    :raises WrongChip: as ``detect``
    :raises DeviceError: code ``answers-differ``
    """
    dialect, found = loader.dialect, detect_surely(loader, expected)
    attempts = loader.settings.retry.detect_attempts
    for _ in range(attempts):
        loader.dialect, loader.secure = dialect, False
        before, found = found, detect_surely(loader, expected)
        if found == before:
            return found
    raise build_difference("chip detection", attempts + 1)


def _reenter(device: Device, options: EntryOptions, baud: int) -> None:
    """Reset the chip, whatever runs on it, and use its ROM bootloader as at the beginning."""
    loader, chip = device.loader, device.chip
    loader.transport.set_baud(baud)
    loader.baud, loader.tuner = baud, None
    loader.dialect = chip.rom
    device.flash = None
    if enter_bootloader(loader, replace(options, report=silent)):
        raise ConnectError(
            "a stub is running, and resetting the chip does not stop it",
            code="stub-running",
            hint="Reset the board by hand.",
        )
    if is_usb_jtag(loader.transport.info):
        disable_watchdogs(loader, chip)


def speed_up(
    device: Device,
    *,
    stub: StubSource,
    baud: int | Literal["auto"],
    history: ConnectHistory | None = None,
) -> None:
    """Start a stub if possible, and raise the rate to ``baud``.

    The rate is changed before the upload, which otherwise takes long: by the ROM if it can, else by a first stage. The
    vendor's stubs change clocks on some chips and start at 115200 baud there, so they are uploaded before.

    :raises FileError, DataError, ConnectError: as ``Device.use_stub`` and ``Device.change_baud``
    """
    loader = device.loader
    memory = _find_memory(device, history)
    rates = _list_upload_rates(device, stub, memory) if baud == "auto" else (baud,)
    upload = rates[-1]
    raise_baud = _try_baud if baud == "auto" else _raise_baud
    if not device.find_stub_obstacle(stub):
        ours = stub is True or stub == "auto"
        for rate in rates:
            if ours and rate > loader.baud and loader.dialect.baud is not BaudRule.NONE:
                raise_baud(device, rate)
            trial = rate != upload
            if trial and loader.baud != rate:
                continue
            if device.use_stub(stub, baud=rate, trial=trial):
                break
    tunes = device.has_rate and can_tune(loader)
    if upload > loader.baud and not (tunes and baud == "auto"):
        raise_baud(device, upload)
    if tunes:
        loader.tuner = LineTuner(
            loader,
            device.report,
            most=RATES[-1] if baud == "auto" else loader.baud,
            probes=baud == "auto",
            memory=memory,
        )


def _list_upload_rates(device: Device, stub: StubSource, memory: RateMemory) -> tuple[int, ...]:
    """Rates above the first one only where a reset undoes them, and where the chip can prove what was written.

    For our stub, whose code is checked after the upload, it is the one that was stable last on this line, up to
    ``USUAL_RATE``; if none is known, that is tried first.
    """
    uploads = not device.find_stub_obstacle(stub)
    proves = device.backend.limits.can_verify or uploads
    safe = device.reenter is not None and not device.secure_download
    if not (device.has_rate and safe and proves):
        return (ROM_BAUD,)
    if not uploads or stub not in (True, "auto"):
        return (UPLOAD_BAUD,)
    stable = memory.find_rate("write")
    rate = min(stable, USUAL_RATE) if stable in RATES else None
    likely = rate or USUAL_RATE
    if likely > UPLOAD_BAUD and device.loader.dialect.requests_ahead > 1:
        return likely, UPLOAD_BAUD
    return (rate or UPLOAD_BAUD,)


def _try_baud(device: Device, baud: int) -> None:
    """Change the rate, and back by a reset if the chip does not answer reliably."""
    loader = device.loader
    if loader.dialect.baud is BaudRule.NONE:
        return
    try:
        device.change_baud(baud, proofs=FEW_PROOFS_S)
        replies = ask_in_pipeline(loader, [ReadReg(MAGIC_ADDRESS)] * PROOFS)
        if replies and len({reply.value for reply in replies}) == 1:
            return
    except (ConnectError, DeviceError):
        pass
    if device.reenter is not None:
        device.reenter()


def _find_memory(device: Device, history: ConnectHistory | None) -> RateMemory:
    """The rates of earlier sessions; empty if the adapter cannot be recognised."""
    from espwire.transport.ports import names_one_port

    info = device.loader.transport.info
    if history is None or not device.mac or not names_one_port(info.serial):
        return RateMemory()
    return _BoardRates(history, f"{adapter_key(info)} {device.mac}")


class _BoardRates(RateMemory):
    """The part of the history about one adapter and one chip."""

    def __init__(self, history: ConnectHistory, key: str) -> None:
        self._history, self._key = history, key

    def find_rate(self, direction: Direction) -> int | None:
        return self._history.find_rate(f"{self._key} {direction}")

    def note_rate(self, direction: Direction, rate: int) -> None:
        self._history.note_rate(f"{self._key} {direction}", rate)


def _use_running_stub(
    loader: Loader, expected: Chip | None, tracker: PortTracker, report: Report
) -> Device:
    """Connect through a stub that is running already.

    :raises ConnectError: code ``stub-running``: it answers only SYNC, or belongs to another version of espwire
    """
    ours = ask_capabilities(loader) is not None
    loader.dialect = loader.dialect.replace(sealed=ours)
    try:
        loader.call(ReadReg(MAGIC_ADDRESS), timeout=RUNNING_STUB_TIMEOUT_S)  # fail early
        if not ours and is_of_another_protocol(loader):
            raise ConnectError(
                "a stub of another version of espwire is running on the chip, and this port cannot reset it",
                hint="Reset the board into its ROM bootloader (hold BOOT, press RESET), then try again.",
                code="stub-running",
            )
        device = _identify(loader, expected, tracker, report, stub_runs=True)
    except (NoReply, CommandFailed):
        raise ConnectError(
            "a stub from an earlier session is running on the chip but does not answer, and this port cannot reset it",
            hint="Reset the board into its ROM bootloader (hold BOOT, press RESET), then try again.",
            code="stub-running",
        ) from None
    why = "" if device.loader.dialect.sealed else ": this port cannot reset the chip"
    report(Note(text=f"using the stub that an earlier session left running{why}"))
    return device


def _raise_baud(device: Device, baud: int) -> None:
    """Change the rate; if loader or clock do not allow it, warn and keep the present rate."""
    try:
        device.change_baud(baud)
    except DeviceError as error:
        if not isinstance(error, Unsupported) and error.code != "clock-measurement":
            raise
        text = f"{error}: staying at {device.loader.baud} baud"
        device.report(Warned(code=error.code, text=text))
