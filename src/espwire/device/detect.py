"""Detects the chip and reads the registers that identify it, in as few round trips as possible.

Old chips have a magic word at a fixed address; newer ones report their id with GET_SECURITY_INFO. The registers are read
twice each (``double_read``) in one pipeline, together with a repetition of the request by which the chip was detected.
"""

from __future__ import annotations

from functools import partial

from espwire.chips.model import Chip
from espwire.chips.registry import chip_ids, find_by_image_id, find_by_magic, load_chip
from espwire.device.backends.stub_commands import ask_capabilities
from espwire.device.double_read import ask_twice, build_difference, read_word
from espwire.device.identity import Identity, Registers
from espwire.device.loader import MAGIC_ADDRESS, Loader
from espwire.device.security import (
    LONG_FORM,
    SHORT_FORM,
    SecurityReply,
    parse_security_reply,
    read_security,
)
from espwire.errors import CommandFailed, NoReply, WrongChip
from espwire.protocol.boot_log import parse_boot
from espwire.protocol.commands import Command, GetSecurityInfo, ReadReg
from espwire.protocol.replies import NOT_ACCEPTED
from espwire.protocol.stub import Capabilities, Feature

RETIRED_CHIP_IDS = {
    4: "ESP32-S3 beta 2",
    6: "ESP32-S3 beta 3",
    7: "ESP32-C6 beta",
    10: "ESP32-H2 beta 1",
    14: "ESP32-H2 beta 2",
    17: "ESP32-C5 beta 3",
}
ALL_FIELDS_REVISION = 9999  # higher than any: the chip has every field
EMPTY_REPLY = SecurityReply(0, 0, (), None, None)
REFUSED = bytes((1, NOT_ACCEPTED))
NO_CHIP_ID = 0xFFFFFFFF  # in the capabilities of a stub
OLD_STATUS_BYTES = 2  # of ROMs without GET_SECURITY_INFO (and of stubs); newer ones send more


def detect(loader: Loader, expected: Chip | None = None) -> tuple[Chip, SecurityReply | None]:
    """The chip, and its reply to GET_SECURITY_INFO if it has that. Sets the loader's dialect and mode.

    Order of the requests: protocol.toml [detect].

    :raises WrongChip: an unknown chip, a retired sample, or not the ``expected`` chip
    """
    ask_first = expected is None or expected.identity.security_info_bytes > 0
    known, stub = None, _ask_stub(loader) if loader.dialect.sealed else None
    if stub is not None and stub.image_chip_id != NO_CHIP_ID:
        known = _chip_by_id(stub.image_chip_id)
    elif ask_first:
        known = _find_older_chip(loader)
    reply, refused = None, False
    if stub is not None:
        ask_first = Feature.SECURITY_INFO in stub.features
    if ask_first and (known is None or stub is not None):
        reply, refused = _read_security_reply(loader)
    chip_id = reply.chip_id if reply is not None else None
    if known is not None:
        found = known
    elif reply is not None and chip_id:
        found = _chip_by_id(chip_id)
    elif reply is not None and reply.secure_download:
        found = _chip_with_short_form(reply)
    else:
        found = _chip_by_magic(loader, reply)
        if refused and found.identity.security_info_bytes:
            # only its oldest ROMs lack the command; a damaged request is refused in the same way
            reply, _ = _read_security_reply(loader)
            if reply is not None and reply.chip_id:
                found = _chip_by_id(reply.chip_id)
    if expected is not None and found.id != expected.id:
        raise WrongChip(
            f"this is an {found.name}, not an {expected.name}", found=found.id, wanted=expected.id
        )
    loader.dialect = found.rom
    loader.secure = reply is not None and reply.secure_download and bool(found.rom.secure_ops)
    return found, reply


def detect_surely(
    loader: Loader, expected: Chip | None = None
) -> tuple[Chip, SecurityReply | None]:
    """As ``detect``, but a wrong chip is an error only if two detections find it: one flipped bit makes it another chip.

    A chip that is accepted is still confirmed by a second reply: see ``read_first_registers``.

    :raises WrongChip: as ``detect``
    """
    refused = ""
    while True:
        try:
            return detect(loader, expected)
        except WrongChip as error:
            if str(error) == refused:
                raise
            refused = str(error)


def open_registers(loader: Loader) -> Registers:
    """The chip's registers, each read when it is first used."""
    return Registers(partial(read_word, loader))


def read_first_registers(
    loader: Loader, chip: Chip, reply: SecurityReply | None
) -> tuple[Registers | None, int | None]:
    """The chip's registers, those that identify it read already; and its UART's clock divider.

    The registers are None in Secure Download Mode. The divider, which reveals the crystal, is None if it is not needed
    or would cost a round trip of its own.

    :param reply: the reply by which the chip was detected; None: it was detected by its magic word
    :raises DeviceError: code ``answers-differ``: the chip now answers like another one
    """
    addresses = plan_first_registers(chip, reply) if not loader.secure else ()
    proof: Command = GetSecurityInfo() if reply is not None else ReadReg(MAGIC_ADDRESS)
    # detection has seen the reply to the proof once already
    *answers, last = ask_twice(loader, [*map(ReadReg, addresses)], once=[proof])
    same = (
        parse_security_reply(last.body) == reply
        if reply is not None
        else _is_magic_of(chip, last.value)
    )
    if not same:
        raise build_difference("chip detection", 3)
    if loader.secure:
        return None, None
    registers = open_registers(loader)
    found = dict(zip(addresses, (answer.value for answer in answers), strict=True))
    divider = found.pop(chip.uart.clock_divider_address, None)
    registers.keep(found)
    return registers, divider


def _is_magic_of(chip: Chip, magic: int) -> bool:
    """Whether the word is this chip's, or the chip is detected by another word."""
    identity = chip.identity
    return (
        find_by_magic(magic) == chip.id
        or magic in identity.legacy_magic_values
        or bool(identity.alternate_detect)
        or not (identity.magic_values or identity.legacy_magic_values)  # by the stub's capabilities
    )


def plan_first_registers(chip: Chip, reply: SecurityReply | None) -> tuple[int, ...]:
    """Addresses to read at once: ``plan_identity_registers``, and the UART's divider if that costs no round trip."""
    addresses = plan_identity_registers(chip, reply)
    alone = chip.crystal.method == "fixed" or chip.rom.requests_ahead == 1
    return addresses if alone else (*addresses, chip.uart.clock_divider_address)


def plan_identity_registers(chip: Chip, reply: SecurityReply | None) -> tuple[int, ...]:
    """Addresses that determine name, MAC, security and clock, found by a dry run of identification on an all-zero chip."""
    registers = Registers(lambda address: 0)
    identity = Identity(chip, registers)
    identity.revision(), identity.description(), identity.mac(), identity.eui64()
    read_security(chip, registers, EMPTY_REPLY if reply is not None else None, ALL_FIELDS_REVISION)
    if (flag := chip.flash.octal_flag) is not None:
        registers.word(flag.address)  # for flash_id.find_type_doubt
    if (calibration := chip.crystal.rom_calibration) is not None:
        registers.field(chip.fields[calibration.ck8m_from])
        registers.word(calibration.address)
    return tuple(registers.known())


def _find_older_chip(loader: Loader) -> Chip | None:
    """The chip, if boot text or reply to SYNC point to one without GET_SECURITY_INFO and its magic word confirms that.

    The oldest ROMs have a shorter status in their replies. Boot text alone is not proof: it may come from a board that
    was attached before.
    """
    boot = parse_boot(loader.text)
    if boot is not None and boot.chip_id in chip_ids():
        looks_old = load_chip(boot.chip_id).identity.security_info_bytes == 0
    else:
        looks_old = loader.sync_reply_bytes == OLD_STATUS_BYTES
    if not looks_old:
        return None
    try:
        name = find_by_magic(loader.read_reg(MAGIC_ADDRESS))
    except (CommandFailed, NoReply):
        return None
    chip = load_chip(name) if name is not None else None
    return chip if chip is not None and chip.identity.security_info_bytes == 0 else None


def _ask_stub(loader: Loader) -> Capabilities | None:
    """What our running stub can do, and the id of its chip; None: it did not answer.

    Other ways to detect the chip would read addresses that not all chips have, which crashes a stub.
    """
    capabilities = ask_capabilities(loader)
    loader.dialect = loader.dialect.replace(sealed=True)
    return capabilities


def _read_security_reply(loader: Loader) -> tuple[SecurityReply | None, bool]:
    """The reply to GET_SECURITY_INFO in either length; None and whether it was refused, as by a ROM without that command.

    Such a ROM refuses with two bytes. Any other reply without result was damaged, and the request is repeated.
    """
    for _ in range(loader.settings.retry.security_info_attempts):
        try:
            reply = loader.request(GetSecurityInfo())
            for size in (LONG_FORM, SHORT_FORM):
                if len(reply.body) >= size + 2:
                    return parse_security_reply(loader.check_status(reply, size).body), False
            if reply.body[:2] == REFUSED:
                return None, True
        except (CommandFailed, NoReply):
            continue
    return None, False


def _chip_by_id(chip_id: int) -> Chip:
    name = find_by_image_id(chip_id)
    if name is not None:
        return load_chip(name)
    if chip_id in RETIRED_CHIP_IDS:
        raise WrongChip(
            f"this is an {RETIRED_CHIP_IDS[chip_id]} (chip id {chip_id}), an engineering sample that is not supported any more",
            hint="Use an old version of esptool.",
            code="retired-chip",
            chip_id=chip_id,
        )
    raise _unknown_chip(f"chip id {chip_id}")


def _chip_with_short_form(reply: SecurityReply) -> Chip:
    """Only one chip has the short form, so it identifies the chip in Secure Download Mode, where no magic can be read."""
    if reply.chip_id is not None:
        raise _unknown_chip(f"chip id {reply.chip_id}")
    chips = map(load_chip, chip_ids())
    found = [chip for chip in chips if chip.identity.security_info_bytes == SHORT_FORM]
    if len(found) != 1:
        raise _unknown_chip("the 12-byte security info")
    return found[0]


def _chip_by_magic(loader: Loader, reply: SecurityReply | None) -> Chip:
    try:
        magic = loader.read_reg(MAGIC_ADDRESS)
    except CommandFailed:
        if reply is not None:
            return _chip_with_short_form(reply)
        raise
    name = find_by_magic(magic)
    if (
        name is None
    ):  # perhaps one flipped bit; the further checks read addresses that not all chips have
        magic = read_word(loader, MAGIC_ADDRESS)
        name = find_by_magic(magic)
    if name is not None:
        return load_chip(name)
    # rare: magic words of old samples, and registers at other addresses
    chips = [load_chip(name) for name in chip_ids()]
    old = [chip for chip in chips if magic in chip.identity.legacy_magic_values]
    if len(old) == 1:
        return old[0]
    for chip in old or chips:
        other = chip.identity.alternate_detect
        if other is not None and read_word(loader, other.address) & other.mask == other.value:
            return chip
    raise _unknown_chip(f"magic {magic:#010x}")


def _unknown_chip(what: str) -> WrongChip:
    return WrongChip(
        f"unknown chip ({what})",
        hint="Update espwire; use --chip only if you are sure which chip it is.",
        code="unknown-chip",
        what=what,
    )
