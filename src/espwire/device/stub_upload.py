"""Starts a stub on the chip: upload through the loader, hello, what it can do; and what to do if it does not start.

The stub itself stands in ``stub/``, its packed form in device/stub_image.py, its commands in protocol/stub.py.

How to speak to a stub that an earlier client left running: identify, write, erase, verify. Uploads none itself.

The vendor's stub answers SYNC with value 0 and status with two bytes; it acknowledges a block before it is in flash, so
only an MD5 afterwards proves a write. Source: ``chips/data`` protocol.toml [stub]. Reading by stream is not used here.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from enum import IntEnum
from functools import partial
from typing import TYPE_CHECKING

from espwire.device.baud import change_baud
from espwire.device.double_read import read_word
from espwire.device.flash_id import RESET_AND_READ_ID
from espwire.device.loader import BITS_PER_BYTE
from espwire.device.memory_access import find_ram_block
from espwire.device.reset_sequences import is_usb_jtag
from espwire.device.spi import parse_last, plan_batch
from espwire.device.streams import abort
from espwire.device.stub_commands import ask_capabilities, plan_first_batch, take_first_batch
from espwire.device.stub_image import (
    StubImage,
    StubOptions,
    load_stub,
    parse_vendor_stub,
    stub_chips,
)
from espwire.errors import CommandFailed, ConnectError, DeviceError, NoReply
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


SMALLER_BLOCKS = (0x400, 0x200, 0x100)  # for RAM, after the ROM has refused a larger one
HELLO_SECONDS = 1.5
FIRST_STAGE_OPS = frozenset({Op.SYNC, Op.MEM_BEGIN, Op.MEM_DATA, Op.MEM_END, Op.CHANGE_BAUDRATE})
FIRST_STAGE_BLOCK = 0x4000
VENDOR_OPS = frozenset(
    {Op.FLASH_END, Op.FLASH_DEFL_END, Op.CHANGE_BAUDRATE, Op.ERASE_FLASH, Op.READ_FLASH}
)
OPS_OF_FEATURES = {
    Feature.WRITE: {StubOp.WRITE_OPEN, StubOp.WRITE_DATA},
    Feature.READ: {StubOp.READ_OPEN, StubOp.READ_ACK},
    Feature.HASH: {StubOp.HASH},
    Feature.SPI: {StubOp.SPI},
    Feature.BATCH: {StubOp.BATCH},
    Feature.RESET: {StubOp.RESET},
}


@dataclass(frozen=True)
class Started:
    """A stub runs. ``flash_id``: the flash's JEDEC id, read after a reset of the part; None: nobody has asked yet."""

    flash_id: int | None


def find_obstacle(
    chip: Chip, security: SecurityInfo, revision: int, *, secure: bool, own: bool = True
) -> str:
    """Why no stub can be used on this chip, in words; empty where one can.

    :param secure: Secure Download Mode
    :param own: one of ours, which not every chip has
    """
    if secure:
        return "in Secure Download Mode nothing can be uploaded"
    rule = chip.stub.unusable_when
    harmless = {"secure boot enabled": not security.secure_boot, "revision 0": revision > 0}
    if rule and not harmless.get(rule, not own):
        return f"on this chip none can be used: {rule}"
    if own and chip.id not in stub_chips():
        return f"there is none for the {chip.name} yet"
    return ""


def open_stub(source: str | os.PathLike[str] | StubImage | bool, chip: Chip) -> StubImage:
    """The stub in a file of the vendor's JSON format; an image as it is; True: ours for this chip.

    :raises FileError, DataError: the file
    """
    if isinstance(source, StubImage):
        return source
    if isinstance(source, bool):
        return load_stub(chip.id)
    return parse_vendor_stub(read_file(source), os.path.basename(os.fspath(source)))


@dataclass(frozen=True, kw_only=True)
class StubLaunch:
    """What is to be started, and what that takes.

    ``attach``: the request for the ROM that connects the flash; None: the stub does it. ``reenter`` resets the chip
    into its ROM loader; None: this port cannot, or must not. ``baud``: have this rate before the upload, by a first
    stage where the ROM cannot; 0: as it is. ``over_usb``: the ROM talks over the chip's USB-Serial/JTAG.
    """

    image: StubImage
    attach: Command | None
    reenter: Callable[[], None] | None
    baud: int
    over_usb: bool


def climb(loader: Loader, chip: Chip, ascent: StubLaunch, report: Report) -> Started | None:
    """Start the stub; once more without touching the clock; else back to the ROM, and say why: None then.

    :raises ConnectError: code ``stub-failed``: it was started, does not answer, and nothing can reset it away
    """
    began, image = loader.transport.now(), ascent.image
    why: Exception | None = None
    quick = ascent.baud > loader.baud and _is_stuck(loader) and ascent.reenter is not None
    for first, leave_clock in _rungs(image, quick=quick):
        try:
            if first is not None:
                start_first_stage(loader, chip, first, ascent.baud, attach=ascent.attach)
            told_image = image.with_options(
                _plan_options(loader, chip, ascent, leave_clock=leave_clock)
            )
            jedec = start_stub(
                loader, chip, told_image, attach=ascent.attach if first is None else None
            )
        except (ConnectError, DeviceError) as error:
            why = error
            _fall_back(loader, chip, ascent.reenter, error)
            if first is not None:
                report(
                    Note(
                        text=f"the stub does not come in two stages ({error}): uploading it at {loader.baud} baud"
                    )
                )
            continue
        told = loader.dialect.capabilities
        build = told.build.hex() if told is not None else ""
        name, seconds = loader.dialect.name, loader.transport.now() - began
        report(StubStarted(stub=name, build=build, size=image.size, seconds=round(seconds, 3)))
        return Started(jedec)
    text = f"the stub does not start ({why}): going on with the ROM loader, which is slower and can do less"
    report(Warned(code="stub-failed", text=text))
    return None


def _rungs(image: StubImage, *, quick: bool) -> list[tuple[StubImage | None, bool]]:
    """What to try in turn: by which first stage, and whether to leave the clock alone."""
    rungs: list[tuple[StubImage | None, bool]] = [(None, False)]
    if image.options_address is not None:
        rungs.append((None, True))
    return [(image.first, False), *rungs] if quick and image.first is not None else rungs


def _plan_options(
    loader: Loader, chip: Chip, ascent: StubLaunch, *, leave_clock: bool
) -> StubOptions:
    own, attach = chip.stub.own, ascent.attach
    spi_clock = 0
    if own is not None and not leave_clock:
        routed = isinstance(attach, SpiAttach) and attach.pins != 0
        spi_clock = own.spi_clocks.routed if routed else own.spi_clocks.direct
    return StubOptions(
        baud=loader.baud if loader.transport.info.can_change_baud or ascent.over_usb else 0,
        leave_clock=leave_clock,
        over_usb=ascent.over_usb,
        spi_clock=spi_clock,
        batch=_first_batch(chip).body(),
    )


def find_over_usb(loader: Loader, chip: Chip, revision: int) -> bool:
    """Whether the ROM talks over the chip's USB-Serial/JTAG: the port tells, or, behind a server, the ROM itself."""
    info, variable = loader.transport.info, chip.usb.console_variable
    place = variable.find_serial_jtag(revision) if variable is not None else None
    if not info.remote or variable is None or place is None:
        return is_usb_jtag(info)
    address, value = place
    return read_word(loader, address & ~3) >> address % 4 * 8 & variable.mask == value


def _is_stuck(loader: Loader) -> bool:
    return loader.dialect.baud is BaudRule.NONE


def _fall_back(
    loader: Loader, chip: Chip, reenter: Callable[[], None] | None, error: Exception
) -> None:
    """Have the ROM's loader again.

    :raises ConnectError: code ``stub-failed``
    """
    take_dialect(loader, chip.rom)
    if reenter is not None:
        reenter()
        return
    try:
        if loader.sync() == 0:
            raise NoReply("a stub answers that does not know what it should")
    except NoReply:
        raise ConnectError(
            f"the stub was started and does not answer ({error}), and nothing resets the chip here",
            hint="Reset the board into its ROM loader (hold BOOT, press RESET), then try again with --no-stub.",
            code="stub-failed",
        ) from error


def start_first_stage(
    loader: Loader, chip: Chip, image: StubImage, baud: int, *, attach: Command | None = None
) -> None:
    """Upload and start what takes the stub itself at ``baud``, and bring chip and link there.

    :raises ConnectError, DeviceError: it does not start, or not at this rate
    """
    upload(loader, chip, image, attach=attach)
    take_dialect(loader, first_stage_dialect(chip.rom))
    change_baud(loader, chip, None, baud, None)


def start_stub(
    loader: Loader, chip: Chip, image: StubImage, *, attach: Command | None = None
) -> int | None:
    """Upload, start, wait for its hello, ask what it can do; the loader then speaks its dialect.

    Returns the flash's id as ``Started`` has it: our own image brings the request for it along.

    :raises Unsupported, CommandFailed, NoReply: what is there does not take it, or it does not answer
    """
    upload(loader, chip, image, attach=attach)
    loader.dialect = replace(loader.dialect, sealed=bool(image.build))
    found = take_first_batch(loader, _first_batch(chip)) if image.build else None
    if found is not None:
        take_dialect(loader, own_dialect(chip.rom, found[0]))
        loader.secure = False
        return parse_last(found[1][-1], RESET_AND_READ_ID) if found[1] else None
    join_stub(loader, chip)
    if image.build and loader.dialect.capabilities is None:
        raise NoReply("something answers that is not our stub")
    return None


def _first_batch(chip: Chip) -> Batch:
    """What our stub is asked first; the flash's id only where that needs no power first."""
    return plan_first_batch(
        plan_batch(chip.spi, RESET_AND_READ_ID) if chip.flash_power_on is None else ()
    )


def upload(loader: Loader, chip: Chip, image: StubImage, *, attach: Command | None = None) -> None:
    """Put a program into RAM, start it and wait for its hello.

    :param attach: to be asked of the loader before
    :raises Unsupported, CommandFailed, NoReply: as ``start_stub``
    """
    steps = [find_ram_block(loader, chip)]
    steps += [step for step in SMALLER_BLOCKS if step < steps[0]]
    segments = [
        (address, content.ljust(align_up(len(content), 4), b"\0"))
        for address, content in image.segments
    ]
    done = _load_ahead(loader, segments, steps[0], attach)
    if attach is not None and not done:
        loader.call(attach, repeatable=True)
    for address, padded in () if done else segments:
        while True:
            try:
                _load(loader, address, padded, steps[0])
            except (NoReply, CommandFailed):
                if len(steps) == 1:
                    raise
                steps.pop(0)  # some take less at once, now and then
            else:
                break
    loader.begin_pipeline()
    loader.send(MemEnd(0, image.entry).packet())
    _await_hello(loader)
    loader.end_pipeline()


def _load(loader: Loader, address: int, data: bytes, step: int) -> None:
    for command in _plan_load(address, data, step):
        loader.call(command)


def _plan_load(address: int, data: bytes, step: int) -> list[Command]:
    blocks = [data[at : at + step] for at in range(0, len(data), step)]
    return [
        MemBegin(len(data), len(blocks), step, address),
        *(MemData(n, block) for n, block in enumerate(blocks)),
    ]


def _load_ahead(
    loader: Loader, segments: Iterable[tuple[int, bytes]], step: int, attach: Command | None
) -> bool:
    """Load all segments, each MEM_BEGIN behind the request before it where the ROM takes some ahead. Whether it did.

    A ROM may be busy with the block for longer than its receiver holds bytes, but a MEM_BEGIN is short.
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
            reply = loader.receive(command.op, loader.settings.timing.default + wire)
            if reply is None or len(reply.body) < 2 or reply.body[0]:
                return False  # the next request brings the loader in step first
        loader.end_pipeline()
    return True


def _await_hello(loader: Loader) -> None:
    """The hello; where it was lost on the way, an answer to SYNC that only a stub gives."""
    deadline = loader.transport.now() + HELLO_SECONDS
    while (left := deadline - loader.transport.now()) > 0:
        frame = loader.receive_frame(left)
        if frame is not None and frame.endswith((HELLO, seal_frame(HELLO))):
            return
    if loader.sync(2, timeout=loader.settings.timing.default / 4) != 0:
        raise NoReply("no stub answers, but the ROM still does")


def join_stub(loader: Loader, chip: Chip, *, uploaded: bool = True) -> None:
    """Speak as the stub that is running does: as ours, where it answers like it, else as the vendor's.

    :param uploaded: by us, just now; else it is one of an earlier session
    """
    told = ask_capabilities(loader)
    if told is not None:
        take_dialect(loader, own_dialect(chip.rom, told))
    else:
        take_dialect(
            loader,
            vendor_dialect(chip.rom, chip.stub.flash_block) if uploaded else stub_dialect(chip.rom),
        )
    loader.secure = False


def take_dialect(loader: Loader, dialect: Dialect) -> None:
    """Have the loader speak ``dialect`` from now on."""
    loader.dialect, loader.grouped = dialect, None
    loader.resync = partial(abort, loader) if dialect.capabilities is not None else None


def first_stage_dialect(rom: Dialect) -> Dialect:
    """The first stage of our stub: RAM and the rate, nothing else."""
    dialect = stub_dialect(rom)
    return replace(dialect, ops=FIRST_STAGE_OPS, ram_block=FIRST_STAGE_BLOCK, baud=BaudRule.PLAIN)


def vendor_dialect(rom: Dialect, flash_block: int) -> Dialect:
    """The vendor's stub, uploaded by us."""
    dialect = stub_dialect(rom)
    return replace(
        dialect, ops=dialect.ops | VENDOR_OPS, flash_block=flash_block, baud=BaudRule.PLAIN
    )


def own_dialect(rom: Dialect, told: Capabilities) -> Dialect:
    """Our stub: the vendor's commands, and those in its capabilities. READ_FLASH is not sealed."""
    ops: set[IntEnum] = {*STUB_OPS, *VENDOR_OPS}
    ops.discard(Op.READ_FLASH)
    ops |= {StubOp.CAPABILITIES, StubOp.ABORT}
    for feature, its_ops in OPS_OF_FEATURES.items():
        ops |= its_ops if feature in told.features else set()
    return replace(
        stub_dialect(rom),
        ops=frozenset(ops),
        begin_words=5,
        baud=BaudRule.PLAIN,
        md5=Md5Form.RAW,
        encrypted_write=Feature.ENCRYPT in told.features,
        capabilities=told,
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
    return replace(
        rom,
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
