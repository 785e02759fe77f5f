"""Requests whose answers decide something: each is answered twice, and only equal answers count.

A ROM loader puts no checksum on requests and answers, apart from one byte of XOR on data blocks. One flipped bit in a
JEDEC id makes a 4 MB flash chip one of 1 MB, one in a request reads another register, and nothing on the line shows it.
Everything that decides what is erased or written, or which chip this is, is therefore asked for twice: both requests
travel together where the ROM takes several ahead of its answers, so that this costs bytes and no round trip. The
second answer comes from a second request, so a damaged request is found, too.

Requests whose answers differ are repeated until any two answers agree. This tolerates noise, and a register that
changes between two reads (a busy flag) settles by itself. Our own stub protects each request and answer with a CRC:
once is enough there.

Not for registers that a read changes (a FIFO), and not for requests with an effect.
"""

from __future__ import annotations

from collections.abc import Sequence

from espwire.device.loader import BITS_PER_BYTE, Loader
from espwire.errors import CommandFailed, DeviceError
from espwire.protocol.commands import Command, ReadReg, Reply
from espwire.protocol.dialect import Md5Form
from espwire.protocol.opcodes import Op

PATIENCE_S = 0.15  # for answers to requests sent together, beyond what the wire and the work need
SHORT_REQUEST = 14  # bytes of a READ_REG on the wire, in which a ROM's requests ahead are counted
FRAME_BYTES = 60  # of an answer with the longest result, some escapes included
MD5_HEX_BYTES, MD5_BYTES = 32, 16


def read_word(loader: Loader, address: int) -> int:
    """The word at ``address``."""
    return read_words(loader, (address,))[0]


def read_words(loader: Loader, addresses: Sequence[int]) -> list[int]:
    """The word at each address.

    :raises DeviceError: code ``answers-differ``: the line is too bad
    """
    return [reply.value for reply in ask_twice(loader, [ReadReg(address) for address in addresses])]


def ask_twice(
    loader: Loader, commands: Sequence[Command], *, seconds: float | None = None
) -> list[Reply]:
    """The reply to each command, as two equal answers have it.

    :param seconds: time that one command takes, without the transfer; None: almost none
    :raises DeviceError: code ``answers-differ``
    :raises Unsupported, CommandFailed, NoReply: as ``Loader.call``
    """
    if loader.dialect.sealed:
        return ask_together(loader, commands, seconds=seconds)
    seen: list[list[Reply]] = [[] for _ in commands]
    settled: dict[int, Reply] = {}
    most = loader.settings.retry.agreement_attempts
    for _ in range(most // 2):
        left = [index for index in range(len(commands)) if index not in settled]
        replies = ask_together(loader, [commands[index] for index in left] * 2, seconds=seconds)
        for index, reply in zip(left * 2, replies, strict=True):
            if any(_say_the_same(reply, other) for other in seen[index]):
                settled.setdefault(index, reply)
            seen[index].append(reply)
        if len(settled) == len(commands):
            return [settled[index] for index in range(len(commands))]
    missing = next(command for index, command in enumerate(commands) if index not in settled)
    raise build_difference(missing.op.name, most)


def _say_the_same(one: Reply, other: Reply) -> bool:
    """Whether two replies agree. The value word, or bytes after the result, may be undefined and are not compared."""
    return one.value == other.value if one.op == Op.READ_REG else one.body == other.body


def build_difference(what: str, times: int) -> DeviceError:
    """The error for answers of which no two agree."""
    return DeviceError(
        f"{what}: {times} answers of the chip, and no two of them agree",
        hint="Use a shorter cable or a lower --baud, then try again.",
        code="answers-differ",
        command=what,
    )


def ask_together(
    loader: Loader, commands: Sequence[Command], *, seconds: float | None = None
) -> list[Reply]:
    """The reply to each command, in as few round trips as the loader is known to take.

    If a reply is missing or refused, all commands are sent again, one by one.

    :raises Unsupported, CommandFailed, NoReply: as ``Loader.call``
    """
    found = (
        _ask_ahead(loader, commands, seconds)
        if loader.dialect.requests_ahead > 1 and len(commands) > 1
        else []
    )
    return found or [
        loader.call(
            command, timeout=seconds, result=find_result_bytes(loader, command), repeatable=True
        )
        for command in commands
    ]


def find_result_bytes(loader: Loader, command: Command) -> int:
    """Bytes of the result that this loader answers ``command`` with, in addition to its value word."""
    if command.op == Op.GET_SECURITY_INFO:
        return loader.dialect.security_info_bytes
    if command.op == Op.SPI_FLASH_MD5:
        return MD5_HEX_BYTES if loader.dialect.md5 is Md5Form.HEX else MD5_BYTES
    return 0


def _ask_ahead(loader: Loader, commands: Sequence[Command], seconds: float | None) -> list[Reply]:
    """All replies, or none. If a reply is missing, the next request resynchronizes first.

    At most as many requests as the loader can buffer wait for their replies; each reply makes room for more.
    """
    for command in commands:
        loader.require(command.op)
    loader.begin_pipeline()
    patience = PATIENCE_S + (seconds or 0.0)
    packets = [command.packet() for command in commands]
    replies: list[Reply] = []
    sent = 0
    while len(replies) < len(commands):
        fit = _count_fitting(
            packets[len(replies) :], sent - len(replies), loader.dialect.requests_ahead
        )
        if fit:
            loader.send(*packets[sent : sent + fit])
            sent += fit
        wire = (FRAME_BYTES + len(packets[len(replies)])) * BITS_PER_BYTE / loader.baud
        reply = loader.receive(commands[len(replies)].op, patience + wire)
        if reply is None:
            return []
        replies.append(reply)
    loader.end_pipeline()
    try:
        return [
            loader.check_status(reply, find_result_bytes(loader, command))
            for command, reply in zip(commands, replies, strict=True)
        ]
    except CommandFailed:
        return []


def _count_fitting(packets: Sequence[bytes], waiting: int, ahead: int) -> int:
    """How many packets more may be sent while ``waiting`` of them, the first ones, wait for their answers.

    All but the first wait in the receiver, which holds ``ahead`` short requests including the first.
    """
    room = (ahead - 1) * SHORT_REQUEST - sum(len(packet) + 2 for packet in packets[1:waiting])
    fit = 0
    for at in range(waiting, len(packets)):
        if at:  # the first one is taken as it comes
            room -= len(packets[at]) + 2
        if room < 0:
            break
        fit += 1
    return fit
