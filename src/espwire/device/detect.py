"""Finds out which chip it is whose loader answers, in as few questions as its first words allow. Writes nothing."""

from __future__ import annotations

from collections.abc import Callable

from espwire.chips.model import Chip
from espwire.chips.registry import chip_ids, find_by_image_id, find_by_magic, load_chip
from espwire.device.double_read import read_word
from espwire.device.loader import MAGIC_ADDRESS, Loader
from espwire.device.security import LONG_FORM, SHORT_FORM, SecurityReply, parse_security_reply
from espwire.errors import CommandFailed, NoReply, WrongChip
from espwire.protocol.boot_log import parse_boot
from espwire.protocol.commands import GetSecurityInfo
from espwire.protocol.replies import NOT_ACCEPTED

RETIRED_CHIP_IDS = {
    4: "ESP32-S3 beta 2",
    6: "ESP32-S3 beta 3",
    7: "ESP32-C6 beta",
    10: "ESP32-H2 beta 1",
    14: "ESP32-H2 beta 2",
    17: "ESP32-C5 beta 3",
}
REFUSED = bytes((1, NOT_ACCEPTED))
OLD_STATUS_BYTES = 2  # of ROMs without GET_SECURITY_INFO (and of stubs); newer ones send more


def detect(loader: Loader, named: Chip | None = None) -> tuple[Chip, SecurityReply | None]:
    """Which chip answers, and its security information where it has any. Sets the loader's dialect and mode.

    Order of questions: protocol.toml [detect].

    :raises WrongChip: an unknown chip, a retired sample, or another one than ``named``
    """
    ask_first = named is None or named.identity.security_info_bytes > 0
    older = _find_older_chip(loader) if ask_first else None
    reply = _read_security_reply(loader) if ask_first and older is None else None
    chip_id = reply.chip_id if reply is not None else None
    if older is not None:
        found = older
    elif reply is not None and chip_id:
        found = _chip_by_id(chip_id)
    elif reply is not None and reply.secure_download:
        found = _chip_with_short_form(reply)
    else:
        found = _chip_by_magic(loader, reply)
    if named is not None and found.id != named.id:
        raise WrongChip(
            f"this is an {found.name}, not an {named.name}", found=found.id, wanted=named.id
        )
    loader.dialect = found.rom
    loader.secure = reply is not None and reply.secure_download and bool(found.rom.secure_ops)
    return found, reply


def detect_surely(loader: Loader, named: Chip | None = None) -> tuple[Chip, SecurityReply | None]:
    """As ``detect``, but a chip is only refused if it answers so twice: one flipped bit makes another chip of it.

    A chip that is not refused must still be proved by a second answer: see ``words.read_first_words``.

    :raises WrongChip: as ``detect``
    """
    refused = ""
    while True:
        try:
            return detect(loader, named)
        except WrongChip as error:
            if str(error) == refused:
                raise
            refused = str(error)


def _find_older_chip(loader: Loader) -> Chip | None:
    """A chip without GET_SECURITY_INFO that looks like one and has its magic: what it would refuse is not asked.

    Its boot text tells, or its answer to SYNC, whose status is shorter on the oldest. None: ask as of all others.
    A text alone decides nothing: another chip's may be read, and its registers are not this chip's.
    """
    boot = parse_boot(loader.text)
    if boot is not None and boot.chip_id in chip_ids():
        looks_old = load_chip(boot.chip_id).identity.security_info_bytes == 0
    else:
        looks_old = loader.sync_bytes == OLD_STATUS_BYTES
    if not looks_old:
        return None
    try:
        name = find_by_magic(loader.read_reg(MAGIC_ADDRESS))
    except (CommandFailed, NoReply):
        return None
    chip = load_chip(name) if name is not None else None
    return chip if chip is not None and chip.identity.security_info_bytes == 0 else None


def _read_security_reply(loader: Loader) -> SecurityReply | None:
    """The answer to GET_SECURITY_INFO in whichever length; None from a ROM that does not have it.

    A ROM without it refuses in two bytes. Anything else that is not an answer was damaged, and is asked for again.
    """
    for _ in range(loader.settings.retry.security_info_attempts):
        try:
            reply = loader.request(GetSecurityInfo())
            for size in (LONG_FORM, SHORT_FORM):
                if len(reply.body) >= size + 2:
                    return parse_security_reply(loader.check_status(reply, size).body)
            if reply.body[:2] == REFUSED:
                return None
        except (CommandFailed, NoReply):
            continue
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
        return _only_chip(
            lambda chip: chip.identity.security_info_bytes == SHORT_FORM,
            "the 12-byte security info",
        )
    raise _unknown_chip(f"chip id {reply.chip_id}")


def _chip_by_magic(loader: Loader, reply: SecurityReply | None) -> Chip:
    try:
        magic = loader.read_reg(MAGIC_ADDRESS)
    except CommandFailed:
        if reply is not None:
            return _chip_with_short_form(reply)
        raise
    name = find_by_magic(magic)
    if name is None:  # one flipped bit? the other ways read where other chips have nothing
        magic = read_word(loader, MAGIC_ADDRESS)
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
        if other is not None and read_word(loader, other.address) & other.mask == other.value:
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
