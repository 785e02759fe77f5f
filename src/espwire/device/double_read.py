"""Reads values that erasing and writing depend on twice, and accepts only equal replies.

The ROM protocol has no checksum, apart from one byte of XOR in data blocks. One flipped bit in a JEDEC ID turns a 4 MB
flash chip into a 1 MB one, one in a request reads another register, and nothing on the line shows it. So each such
request is sent twice; the second reply comes from a second request, which also detects damaged requests. If the ROM
buffers requests, both travel in one pipeline, which costs bytes but no round trip.

If the replies differ, the requests are repeated until any two replies agree. This tolerates noise, and registers that
change between two reads (a busy flag). Our own stub protects requests and replies with a CRC: once is enough there.

Not for registers that change when they are read (a FIFO), and not for requests with an effect.
"""

from __future__ import annotations

from collections.abc import Sequence

from espwire.device.loader import BITS_PER_BYTE, Loader
from espwire.errors import CommandFailed, DeviceError
from espwire.protocol.commands import Command, ReadReg, Reply
from espwire.protocol.dialect import Md5Form
from espwire.protocol.opcodes import Op

PATIENCE_S = (
    0.15  # for replies in a pipeline, in addition to the time on the line and the chip's work
)
SHORT_REQUEST = 14  # bytes of a READ_REG on the line, the unit of ``Dialect.requests_ahead``
FRAME_BYTES = 60  # of a reply with the longest result, some escapes included
MD5_HEX_BYTES, MD5_BYTES = 32, 16


def read_word(loader: Loader, address: int) -> int:
    """The word at ``address``."""
    return read_words(loader, (address,))[0]


def read_words(loader: Loader, addresses: Sequence[int]) -> list[int]:
    """The word at each address.

    :raises DeviceError: code ``answers-differ``
    """
    return [reply.value for reply in ask_twice(loader, [ReadReg(address) for address in addresses])]


def ask_twice(
    loader: Loader,
    commands: Sequence[Command],
    *,
    once: Sequence[Command] = (),
    seconds: float | None = None,
) -> list[Reply]:
    """The reply to each command, confirmed by a second one.

    :param once: commands whose replies the caller compares with earlier ones; their replies come last
    :param seconds: time for carrying out one command; None: almost none
    :raises DeviceError: code ``answers-differ``
    :raises Unsupported, CommandFailed, NoReply: as ``Loader.call``
    """
    if loader.dialect.sealed:
        return ask_together(loader, [*commands, *once], seconds=seconds)
    seen: list[list[Reply]] = [[] for _ in commands]
    confirmed: dict[int, Reply] = {}
    others: list[Reply] = []
    most = loader.settings.retry.agreement_attempts
    for turn in range(most // 2):
        left = [index for index in range(len(commands)) if index not in confirmed]
        asked = [commands[index] for index in left] * 2
        replies = ask_together(loader, [*asked, *(() if turn else once)], seconds=seconds)
        others = others or replies[len(asked) :]
        for index, reply in zip(left * 2, replies[: len(asked)], strict=True):
            if any(_agree(reply, other) for other in seen[index]):
                confirmed.setdefault(index, reply)
            seen[index].append(reply)
        if len(confirmed) == len(commands):
            return [*(confirmed[index] for index in range(len(commands))), *others]
    missing = next(command for index, command in enumerate(commands) if index not in confirmed)
    raise build_difference(missing.op.name, most)


def _agree(one: Reply, other: Reply) -> bool:
    """Compare what is defined: the value of READ_REG, else the result."""
    return one.value == other.value if one.op == Op.READ_REG else one.body == other.body


def build_difference(what: str, times: int) -> DeviceError:
    """The error for a request whose replies all differ."""
    return DeviceError(
        f"{what}: the chip sent {times} different replies",
        hint="Check cable and supply, then try again.",
        code="answers-differ",
        command=what,
    )


def ask_together(
    loader: Loader, commands: Sequence[Command], *, seconds: float | None = None
) -> list[Reply]:
    """The reply to each command, in a pipeline if the loader buffers requests.

    If a reply is missing or a failure, all commands are sent again, one by one.

    :raises Unsupported, CommandFailed, NoReply: as ``Loader.call``
    """
    replies = (
        ask_in_pipeline(loader, commands, seconds)
        if loader.dialect.requests_ahead > 1 and len(commands) > 1
        else []
    )
    return replies or [
        loader.call(command, timeout=seconds, result=result_size(loader, command), repeatable=True)
        for command in commands
    ]


def result_size(loader: Loader, command: Command) -> int:
    """Size of the result in this loader's reply to ``command``, without the value word."""
    if command.op == Op.GET_SECURITY_INFO:
        return loader.dialect.security_info_bytes
    if command.op == Op.SPI_FLASH_MD5:
        return MD5_HEX_BYTES if loader.dialect.md5 is Md5Form.HEX else MD5_BYTES
    return 0


def ask_in_pipeline(
    loader: Loader, commands: Sequence[Command], seconds: float | None = None
) -> list[Reply]:
    """All replies, or an empty list. If a reply is missing, the next request resynchronises first.

    Never more requests are under way than the loader can buffer; each reply makes room for more.
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
        try:
            command = commands[len(replies)]
            replies.append(loader.check_status(reply, result_size(loader, command)))
        except CommandFailed:
            return []
    loader.end_pipeline()
    return replies


def _count_fitting(packets: Sequence[bytes], waiting: int, ahead: int) -> int:
    """How many more packets may be sent while the first ``waiting`` of them are under way.

    The chip works on the first; the others are in its receiver, which holds ``ahead`` short requests with the first.
    """
    room = (ahead - 1) * SHORT_REQUEST - sum(len(packet) + 2 for packet in packets[1:waiting])
    fit = 0
    for at in range(waiting, len(packets)):
        if at:  # the first does not stay in the receiver
            room -= len(packets[at]) + 2
        if room < 0:
            break
        fit += 1
    return fit
