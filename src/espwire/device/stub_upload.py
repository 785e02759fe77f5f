"""Starts a stub flasher: a program that is uploaded into RAM and replaces the ROM bootloader until the next reset.

One attempt to start a stub is:

1. Load its segments with MEM_BEGIN and MEM_DATA, each MEM_BEGIN behind the request before it if the ROM buffers requests.
   Our stub finds its options in its own data (``StubOptions``): baud rate, clocks, and a first batch of requests.
2. Send MEM_END with the entry address. The stub greets with ``OHAI`` instead of a reply; if that is lost, the value in a
   reply to SYNC shows whether the ROM (not 0) or a stub (0) answers.
3. Our stub answers the first batch unasked: its capabilities and the JEDEC ID of the flash chip. Without that reply,
   CAPABILITIES is requested by itself. The loader then speaks the stub's dialect (``own_dialect``, ``vendor_dialect``).

The attempts differ, and after each failure the chip is reset into its ROM (``_plan_attempts``):

=============  ==========================================================================================
in two stages  only if the ROM cannot change the baud rate (ESP8266): a stub of 1 KB is loaded at the old
               rate, changes it, and loads the rest
as usual
clock as is    the stub does not raise the CPU clock, which also keeps the baud rate as the ROM set it
=============  ==========================================================================================

If none works, the ROM bootloader stays in use, with a warning. If the chip cannot be reset, there is no way back to the
ROM after a failed start, and that is an error.

The stub's source is in ``stub/``, its packed form in device/stub_image.py, its commands are in protocol/stub.py. The
vendor's stub, which an earlier program may have left running, answers SYNC with 0 and sends two status bytes. It confirms
a block before it is in flash, so only an MD5 afterwards proves a write. Source: ``chips/data`` protocol.toml [stub].
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Literal

from espwire.device.backends.stub_commands import (
    ask_capabilities,
    parse_spi_reply,
    plan_first_batch,
    plan_spi_batch,
    take_first_batch,
)
from espwire.device.baud import change_baud
from espwire.device.double_read import read_word
from espwire.device.flash_id import RESET_AND_READ_ID, is_silent
from espwire.device.loader import BITS_PER_BYTE
from espwire.device.memory_access import find_ram_block
from espwire.device.reset_sequences import is_usb_jtag
from espwire.device.stub_image import (
    StubImage,
    StubOptions,
    load_stub,
    parse_vendor_stub,
    stub_chips,
)
from espwire.errors import CommandFailed, ConnectError, DataError, DeviceError, NoReply
from espwire.events import Note, Report, StubStarted, Warned
from espwire.files import read_file
from espwire.protocol.commands import Command, MemBegin, MemData, MemEnd, SpiAttach
from espwire.protocol.dialect import BaudRule, Dialect, EraseRule, Md5Form
from espwire.protocol.opcodes import Op
from espwire.protocol.stub import HELLO, Batch, Capabilities, Feature, StubOp, seal_frame
from espwire.sizes import align_up

if TYPE_CHECKING:
    from espwire.chips.model import Chip
    from espwire.device.loader import Loader
    from espwire.device.security import SecurityInfo


SMALLER_BLOCKS = (0x400, 0x200, 0x100)  # for RAM, after the ROM refused a larger one
HELLO_SECONDS = 1.5
TRIAL_REPLY_S = 0.3  # for the reply to a block, where the upload is a trial of the rate
FIRST_STAGE_OPS = frozenset({Op.SYNC, Op.MEM_BEGIN, Op.MEM_DATA, Op.MEM_END, Op.CHANGE_BAUDRATE})
FIRST_STAGE_BLOCK = 0x4000
NO_OTG = "the stub does not work over USB-OTG"
VENDOR_OPS = frozenset(
    {Op.FLASH_END, Op.FLASH_DEFL_END, Op.CHANGE_BAUDRATE, Op.ERASE_FLASH, Op.READ_FLASH}
)
OPS_OF_FEATURES: dict[Feature, set[IntEnum]] = {
    Feature.WRITE: {StubOp.WRITE_OPEN, StubOp.WRITE_DATA},
    Feature.READ: {StubOp.READ_OPEN, StubOp.READ_ACK},
    Feature.HASH: {StubOp.HASH},
    Feature.SPI: {StubOp.SPI},
    Feature.BATCH: {StubOp.BATCH},
    Feature.RESET: {StubOp.RESET},
    Feature.SECURITY_INFO: {Op.GET_SECURITY_INFO},
}


@dataclass(frozen=True)
class RunningStub:
    """A stub runs. ``flash_id``: the JEDEC ID that the flash chip gave after its reset; None: not read yet.

    ``retried``: an attempt to start it failed before.
    """

    flash_id: int | None
    retried: bool = False


def find_obstacle(
    chip: Chip,
    security: SecurityInfo,
    revision: int,
    *,
    secure: bool,
    own: bool = True,
    over_otg: bool = False,
) -> str:
    """Why no stub can be used on this chip, as text; empty if there is no reason.

    :param secure: Secure Download Mode
    :param own: one of our stubs, which not every chip has
    :param over_otg: the port is the chip's USB-OTG
    """
    if secure:
        return "nothing can be uploaded in Secure Download Mode"
    rule = chip.stub.unusable_when
    harmless = {"secure boot enabled": not security.secure_boot, "revision 0": revision > 0}
    if rule and not harmless[rule]:
        return f"no stub runs on the {chip.name} with {rule}"
    if own and chip.id not in stub_chips():
        return f"espwire has no stub for the {chip.name}"
    return NO_OTG if own and over_otg else ""


def open_stub(
    source: str | os.PathLike[str] | StubImage | bool, chip: Chip, revision: int
) -> StubImage:
    """The stub in a file of the vendor's JSON format, an image unchanged, or, for True, ours for this chip.

    :raises FileError, DataError: the file cannot be used; code ``stub-wrong-chip``: it is for another chip
    """
    if isinstance(source, bool):
        return load_stub(chip.id).for_revision(revision)
    image = source
    if not isinstance(image, StubImage):
        image = parse_vendor_stub(read_file(image), os.path.basename(os.fspath(image)))
    for address, content in image.segments:
        if not chip.memory.may_be_ram(address, address + len(content)):
            raise DataError(
                f"the stub of --stub is not for this chip: it loads {len(content):,} bytes to {address:#x}, which is not RAM of the {chip.name}",
                hint=f"Use the file for the {chip.name}, or omit --stub.",
                code="stub-wrong-chip",
            )
    return image


@dataclass(frozen=True, kw_only=True)
class StubLaunch:
    """A stub, and how to start it.

    ``attach``: request to the ROM that connects the flash chip; None: the stub does it. ``reenter``: resets the chip
    into its ROM bootloader; None: this port cannot do that, or must not. ``baud``: rate for the upload, by a first stage
    if the ROM cannot change it; 0: unchanged. ``over_usb``: the ROM uses the chip's USB-Serial/JTAG. ``trial``: give up when
    the first reply is missing, without a warning.
    """

    image: StubImage
    attach: Command | None
    reenter: Callable[[], None] | None
    baud: int
    over_usb: bool
    trial: bool = False


def launch_stub(
    loader: Loader, chip: Chip, launch: StubLaunch, report: Report
) -> RunningStub | None:
    """Start the stub. None: it does not start, the ROM bootloader is back, and a warning has been reported.

    :raises ConnectError: code ``stub-failed``: the stub does not answer, and the chip cannot be reset
    """
    began, image = loader.transport.now(), launch.image
    failure: Exception | None = None
    two_stages = (
        launch.baud > loader.baud
        and loader.dialect.baud is BaudRule.NONE
        and launch.reenter is not None
    )
    attempts = _plan_attempts(image, two_stages=two_stages)[: 1 if launch.trial else None]
    for number, (first, leave_clock) in enumerate(attempts, 1):
        try:
            if first is not None:
                start_first_stage(loader, chip, first, launch.baud, attach=launch.attach)
            configured = image.with_options(
                _plan_options(loader, chip, launch, leave_clock=leave_clock)
            )
            attach = launch.attach if first is None else None
            jedec = start_stub(loader, chip, configured, attach=attach, trial=launch.trial)
            _check_code(loader, image)
            if jedec is not None and is_silent(jedec) and number < len(attempts):
                # one flipped bit of its entry address lets it begin behind its own set-up of the flash
                raise DeviceError("it finds no flash chip", code="no-flash")
        except (ConnectError, DeviceError) as error:
            failure = error
            _fall_back(loader, chip, launch.reenter, error)
            if first is not None:
                report(
                    Note(
                        text=f"the stub did not start in two stages ({error}): uploading it at {loader.baud} baud"
                    )
                )
            continue
        capabilities = loader.dialect.capabilities
        if capabilities is not None and leave_clock:
            slow = replace(capabilities, cpu_hz=0)  # not the announced one
            loader.dialect = loader.dialect.replace(capabilities=slow)
        build = capabilities.build.hex() if capabilities is not None else ""
        name, seconds = loader.dialect.name, loader.transport.now() - began
        report(StubStarted(stub=name, build=build, size=image.size, seconds=round(seconds, 3)))
        return RunningStub(jedec, retried=failure is not None)
    if launch.trial:
        return None
    text = f"the stub did not start ({failure}): using the ROM bootloader, which is slower and has fewer functions"
    report(Warned(code="stub-failed", text=text))
    return None


def _check_code(loader: Loader, image: StubImage) -> None:
    """Refuse a stub of ours whose code arrived damaged: the ROM's checksum of a block misses two equal flips.

    :raises DeviceError: code ``stub-damaged``
    """
    capabilities = loader.dialect.capabilities
    if capabilities is not None and capabilities.code_crc != image.code_crc:
        raise DeviceError("its code was damaged on the line", code="stub-damaged")


def _plan_attempts(image: StubImage, *, two_stages: bool) -> list[tuple[StubImage | None, bool]]:
    """The attempts: first stage, if any, and whether the stub leaves the clock unchanged."""
    attempts: list[tuple[StubImage | None, bool]] = [(None, False)]
    if image.options_address is not None:
        attempts.append((None, True))
    return [(image.first, False), *attempts] if two_stages and image.first is not None else attempts


def _plan_options(
    loader: Loader, chip: Chip, launch: StubLaunch, *, leave_clock: bool
) -> StubOptions:
    own, attach = chip.stub.own, launch.attach
    spi_clock = 0
    if own is not None and not leave_clock:
        routed = isinstance(attach, SpiAttach) and attach.pins != 0
        spi_clock = own.spi_clocks.routed if routed else own.spi_clocks.direct
    return StubOptions(
        baud=loader.baud if loader.transport.info.can_change_baud or launch.over_usb else 0,
        leave_clock=leave_clock,
        over_usb=launch.over_usb,
        spi_clock=spi_clock,
        batch=_first_batch(chip).body(),
    )


def find_own_port(loader: Loader, chip: Chip, revision: int) -> Literal["", "usb-jtag", "usb-otg"]:
    """Which of the chip's own USB ports the ROM uses; empty: its UART.

    The port shows that, or a variable of the ROM, if the port is remote or has no USB ids, such as a pseudo-terminal.
    """
    info, variable = loader.transport.info, chip.usb.console_variable
    place = variable.find_address(revision) if variable is not None else None
    unknown = info.remote or (info.kind == "uart" and info.vid is None)
    if not unknown or variable is None or place is None:
        return "usb-jtag" if is_usb_jtag(info) else "usb-otg" if info.kind == "usb-otg" else ""
    value = read_word(loader, place & ~3) >> place % 4 * 8 & variable.mask
    jtag = variable.find_serial_jtag(revision)
    if jtag is not None and value == jtag[1]:
        return "usb-jtag"
    return "usb-otg" if value == variable.otg_value else ""


def _fall_back(
    loader: Loader, chip: Chip, reenter: Callable[[], None] | None, error: Exception
) -> None:
    """Return to the ROM bootloader after a stub did not start.

    :raises ConnectError: code ``stub-failed``
    """
    loader.dialect = chip.rom
    if reenter is not None:
        reenter()
        return
    try:
        if loader.sync() == 0:
            raise NoReply("the running stub lacks commands")
    except NoReply:
        raise ConnectError(
            f"the stub was started but does not answer ({error}), and the chip cannot be reset: the port has no reset line, or --before no-reset forbids it",
            hint="Leave out --before no-reset, or reset the board into its ROM bootloader (hold BOOT, press RESET) and add --no-stub.",
            code="stub-failed",
        ) from error


def start_first_stage(
    loader: Loader, chip: Chip, image: StubImage, baud: int, *, attach: Command | None = None
) -> None:
    """Upload and start the first stage, which will load the stub itself, and change the rate to ``baud``.

    :raises ConnectError, DeviceError: it does not start, or does not answer at this rate
    """
    upload(loader, chip, image, attach=attach)
    loader.dialect = first_stage_dialect(chip.rom)
    change_baud(loader, chip, None, baud, None)


def start_stub(
    loader: Loader,
    chip: Chip,
    image: StubImage,
    *,
    attach: Command | None = None,
    trial: bool = False,
) -> int | None:
    """Upload and start a stub; the loader then speaks its dialect. Returns ``RunningStub.flash_id``.

    :param trial: as in ``StubLaunch``
    :raises Unsupported, CommandFailed, NoReply: the ROM does not accept it, or it does not answer
    """
    upload(loader, chip, image, attach=attach, trial=trial)
    loader.dialect = loader.dialect.replace(sealed=bool(image.build))
    found = take_first_batch(loader, _first_batch(chip)) if image.build else None
    if found is not None:
        loader.dialect = own_dialect(chip.rom, found[0])
        loader.secure = False
        return parse_spi_reply(found[1][-1], RESET_AND_READ_ID[-1]) if found[1] else None
    join_stub(loader, chip)
    if image.build and not loader.dialect.sealed:
        raise NoReply("the running program is not espwire's stub")
    return None


def _first_batch(chip: Chip) -> Batch:
    """The requests that our stub answers at once; without the JEDEC ID where the flash needs its power switched on first."""
    return plan_first_batch(
        plan_spi_batch(chip.spi, RESET_AND_READ_ID) if chip.flash_power_on is None else ()
    )


def upload(
    loader: Loader,
    chip: Chip,
    image: StubImage,
    *,
    attach: Command | None = None,
    trial: bool = False,
) -> None:
    """Load a program into RAM, start it and wait for its greeting.

    :param attach: request to be sent before
    :raises Unsupported, CommandFailed, NoReply: as ``start_stub``
    """
    steps = [find_ram_block(loader, chip)]
    steps += [step for step in SMALLER_BLOCKS if step < steps[0]]
    segments = [
        (address, content.ljust(align_up(len(content), 4), b"\0"))
        for address, content in image.segments
    ]
    patience = TRIAL_REPLY_S + loader.round_trip if trial else loader.settings.timing.default
    done = _load_ahead(loader, segments, steps[0], attach, patience)
    if trial and not done:
        raise NoReply("a block of the stub was not confirmed")
    if attach is not None and not done:
        loader.call(attach, repeatable=True)
    for address, padded in () if done else segments:
        while True:
            try:
                for command in _plan_load(address, padded, steps[0]):
                    loader.call(command)
            except (NoReply, CommandFailed):
                if len(steps) == 1:
                    raise
                steps.pop(0)  # some ROMs take less at once
            else:
                break
    loader.begin_pipeline()
    loader.send(MemEnd(0, image.entry).packet())
    _await_hello(loader)
    loader.end_pipeline()


def _plan_load(address: int, data: bytes, step: int) -> list[Command]:
    blocks = [data[at : at + step] for at in range(0, len(data), step)]
    return [
        MemBegin(len(data), len(blocks), step, address),
        *(MemData(n, block) for n, block in enumerate(blocks)),
    ]


def _load_ahead(
    loader: Loader,
    segments: Iterable[tuple[int, bytes]],
    step: int,
    attach: Command | None,
    patience: float,
) -> bool:
    """Load all segments in a pipeline if the ROM buffers requests. Returns whether that worked.

    Only a MEM_BEGIN is sent ahead: it is short, and a ROM may be busy with a block for longer than its receiver can
    hold the next one.
    """
    if loader.dialect.requests_ahead == 1:
        return False
    groups: list[list[Command]] = [[attach]] if attach is not None else []
    for address, data in segments:
        begin, *blocks = _plan_load(address, data, step)
        groups[-1:] = [[*groups[-1], begin]] if groups else [[begin]]
        groups += [[block] for block in blocks]
    for group in groups:
        loader.begin_pipeline()
        loader.send(*(command.packet() for command in group))
        wire = sum(len(command.packet()) for command in group) * BITS_PER_BYTE / loader.baud
        for command in group:
            reply = loader.receive(command.op, patience + wire)
            if reply is None or len(reply.body) < 2 or reply.body[0]:
                return False  # the next request resynchronises first
        loader.end_pipeline()
    return True


def _await_hello(loader: Loader) -> None:
    """Wait for the greeting; if it was lost, for the reply to SYNC that only a stub gives."""
    deadline = loader.transport.now() + HELLO_SECONDS
    while (left := deadline - loader.transport.now()) > 0:
        frame = loader.receive_frame(left)
        if frame is not None and frame.endswith((HELLO, seal_frame(HELLO))):
            return
    if loader.sync(2, timeout=loader.settings.timing.default / 4) != 0:
        raise NoReply("the ROM bootloader still answers")


def join_stub(loader: Loader, chip: Chip, *, uploaded: bool = True) -> None:
    """Use the dialect of the running stub: ours if it answers CAPABILITIES, else the vendor's.

    :param uploaded: it was uploaded just now, not in an earlier session
    """
    capabilities = ask_capabilities(loader)
    if capabilities is not None:
        loader.dialect = own_dialect(chip.rom, capabilities)
    else:
        loader.dialect = (
            vendor_dialect(chip.rom, chip.stub.flash_block) if uploaded else stub_dialect(chip.rom)
        )
    loader.secure = False


def first_stage_dialect(rom: Dialect) -> Dialect:
    """The first stage of our stub: RAM and the rate, nothing else."""
    dialect = stub_dialect(rom)
    return dialect.replace(ops=FIRST_STAGE_OPS, ram_block=FIRST_STAGE_BLOCK, baud=BaudRule.PLAIN)


def vendor_dialect(rom: Dialect, flash_block: int) -> Dialect:
    """The vendor's stub, uploaded by us."""
    dialect = stub_dialect(rom)
    return dialect.replace(
        ops=dialect.ops | VENDOR_OPS, flash_block=flash_block, baud=BaudRule.PLAIN
    )


def own_dialect(rom: Dialect, capabilities: Capabilities) -> Dialect:
    """Our stub: the vendor's commands, and those in its capabilities. READ_FLASH is not sealed."""
    ops: set[IntEnum] = {*STUB_OPS, *VENDOR_OPS}
    ops.discard(Op.READ_FLASH)
    ops |= {StubOp.CAPABILITIES, StubOp.ABORT}
    for feature, its_ops in OPS_OF_FEATURES.items():
        ops |= its_ops if feature in capabilities.features else set()
    return stub_dialect(rom).replace(
        ops=frozenset(ops),
        begin_words=5,
        baud=BaudRule.PLAIN,
        md5=Md5Form.RAW,
        encrypted_write=Feature.ENCRYPT in capabilities.features,
        capabilities=capabilities,
        sealed=True,
    )


STUB_OPS = frozenset(
    {
        Op.SYNC,
        Op.READ_REG,
        Op.WRITE_REG,
        Op.MEM_BEGIN,
        Op.MEM_DATA,
        Op.MEM_END,
        Op.SPI_ATTACH,
        Op.SPI_SET_PARAMS,
        Op.FLASH_BEGIN,
        Op.FLASH_DATA,
        Op.FLASH_DEFL_BEGIN,
        Op.FLASH_DEFL_DATA,
        Op.SPI_FLASH_MD5,
        Op.ERASE_REGION,
    }
)
STUB_BLOCK = 0x4000


def stub_dialect(rom: Dialect) -> Dialect:
    """The vendor's stub on a chip whose ROM speaks ``rom``. Its baud rate is left as it is."""
    info = frozenset({Op.GET_SECURITY_INFO}) & rom.ops
    return rom.replace(
        name="stub",
        ops=STUB_OPS | info,
        secure_ops=frozenset(),
        status_bytes=2,
        flash_block=STUB_BLOCK,
        attach_bytes=4,
        slow_read=0,
        md5=Md5Form.RAW,
        baud=BaudRule.NONE,
        erase=EraseRule.TRUE_SIZE,
        exact_deflate_size=True,
        sync_value=0,
    )
