"""Changes the baud rate. Some ROMs need a scaled number, because they measure their clock or assume another crystal."""

from __future__ import annotations

from collections.abc import Sequence

from espwire.chips.model import Chip, RomCalibration
from espwire.device.identity import Registers
from espwire.device.loader import Loader
from espwire.errors import CommandFailed, ConnectError, DeviceError, NoReply, Unsupported
from espwire.protocol.commands import ChangeBaudrate
from espwire.protocol.dialect import BaudRule

ROM_BAUD = 115200  # for the first contact
# the ESP32's crystal has 26 or 40 MHz and its 8 MHz oscillator is off by some per cent; anything else is wrong
PLAUSIBLE_HZ = (20_000_000, 50_000_000)
# timeouts of the SYNC requests at the new rate: chip and bridge may need some time to change
PROOFS_S = (0.03, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6)


def change_baud(
    loader: Loader,
    chip: Chip,
    registers: Registers | None,
    baud: int,
    crystal_mhz: int | None,
    *,
    proofs: Sequence[float] = PROOFS_S,
) -> None:
    """Change chip and port to ``baud`` and check that the chip answers.

    :param crystal_mhz: the true crystal; None: unknown
    :param proofs: seconds to wait for each reply to SYNC at the new rate
    :raises Unsupported: this loader cannot, or not in Secure Download Mode; code ``baud-refused``: not to this rate
    :raises DeviceError: code ``clock-measurement``: the ROM's measurement of its clock is nonsense
    :raises ConnectError: code ``baud-change``: the chip does not answer at the new rate
    """
    dialect = loader.dialect
    if dialect.baud is BaudRule.NONE or (loader.secure and not dialect.secure_baud):
        mode = " in Secure Download Mode" if dialect.baud is not BaudRule.NONE else ""
        raise Unsupported(
            f"this chip's {dialect.name} loader cannot change the baud rate{mode}",
            hint=f"Leave --baud at {chip.uart.rom_baud}.",
            code="no-baud-change",
        )
    word = baud_word(loader, chip, registers, baud, crystal_mhz)
    old = loader.baud if dialect.sync_value == 0 else 0  # a stub needs the old rate for its divider
    command, before = ChangeBaudrate(word, old), loader.baud
    try:
        _request(loader, command, baud)
    except NoReply:
        if not loader.dialect.sealed:
            raise
        try:
            follow(loader, baud, proofs)  # perhaps only the reply was damaged
        except ConnectError:
            loader.transport.set_baud(before)
            loader.baud = before
            _request(loader, command, baud)
        else:
            return
    follow(loader, baud, proofs)


def _request(loader: Loader, command: ChangeBaudrate, baud: int) -> None:
    try:
        loader.call(command)
    except CommandFailed as error:
        raise Unsupported(
            f"this chip's {loader.dialect.name} loader refuses {baud} baud",
            hint="Use a lower --baud.",
            code="baud-refused",
        ) from error


def follow(loader: Loader, baud: int, proofs: Sequence[float] = PROOFS_S) -> None:
    """Change the port to ``baud`` after the chip has confirmed the change, and check that the chip answers.

    :raises ConnectError: code ``baud-change``: it does not answer
    """
    loader.transport.sleep(loader.settings.timing.baud_settle)
    loader.transport.set_baud(baud)
    loader.baud = baud
    loader.transport.discard_input()
    for seconds in proofs:
        try:
            loader.sync(1, timeout=seconds)
        except NoReply:
            continue
        return
    raise ConnectError(
        f"the chip does not answer at {baud} baud",
        hint="Use a lower --baud.",
        code="baud-change",
        baud=baud,
    )


def baud_word(
    loader: Loader, chip: Chip, registers: Registers | None, baud: int, crystal_mhz: int | None
) -> int:
    """The number that CHANGE_BAUDRATE needs so that the chip changes to ``baud``. Source: protocol.toml [baud_change].

    In Secure Download Mode nothing can be measured; ``baud`` itself is sent.
    """
    crystal = chip.crystal
    if loader.secure or registers is None:
        return baud
    rule = loader.dialect.baud
    if rule is BaudRule.ESP32_CALIBRATION and crystal.rom_calibration is not None:
        ck8m = registers.field(chip.fields[crystal.rom_calibration.ck8m_from])
        measured = registers.word(crystal.rom_calibration.address)
        return calibrated_word(crystal.rom_calibration, baud, measured, ck8m)
    if crystal_mhz is None:
        return baud
    if rule is BaudRule.ASSUMES_40_MHZ and crystal.rom_assumes_mhz is not None:
        return baud * crystal.rom_assumes_mhz // crystal_mhz
    if rule is BaudRule.MISTAKEN_CRYSTAL and (at := crystal.rom_setting) is not None:
        setting = registers.word(at.address) >> at.shift & ((1 << at.bits) - 1)
        if setting in crystal.mhz and crystal_mhz in crystal.mhz:
            return baud * setting // crystal_mhz
    return baud


def is_plausible(mhz: float) -> bool:
    """Whether this can be the frequency of a crystal."""
    return PLAUSIBLE_HZ[0] <= mhz * 1e6 <= PLAUSIBLE_HZ[1]


def calibrated_word(calibration: RomCalibration, baud: int, measured: int, ck8m: int) -> int:
    """The number for the ESP32, whose ROM divides by the clock that it measured: scaled by the error of that clock.

    :raises DeviceError: code ``clock-measurement``: with this number (0 at worst) the ROM would not answer any more
    """
    cal = measured >> calibration.shift & calibration.mask
    clock = cal * 15625 * ck8m // 40
    if not PLAUSIBLE_HZ[0] <= clock <= PLAUSIBLE_HZ[1]:
        raise DeviceError(
            f"the chip measures its own clock as {clock / 1e6:.1f} MHz, which is impossible",
            hint=f"Use --baud {ROM_BAUD}; the chip's eFuse CK8M_FREQ is {ck8m}.",
            code="clock-measurement",
            hz=clock,
        )
    true = calibration.high_hz if clock > calibration.threshold_hz else calibration.low_hz
    return baud * clock // true
