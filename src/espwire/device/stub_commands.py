"""Our stub's commands that answer much in one trip: hashes of pieces, blank checks, SPI transactions, batches."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from espwire.device.loader import Loader
from espwire.device.streams import abort
from espwire.errors import CommandFailed, DeviceError, NoReply
from espwire.protocol.commands import Command, Reply, Request
from espwire.protocol.opcodes import Op
from espwire.protocol.replies import BAD_CHECKSUM, UNKNOWN_COMMAND
from espwire.protocol.stub import (
    DIGEST_BYTES,
    HASH_RESULT_BYTES,
    MAGIC,
    PROTOCOL_VERSION,
    AskCapabilities,
    Batch,
    Capabilities,
    Hash,
    HashKind,
    StubOp,
    parse_batch_reply,
    parse_capabilities,
    seal,
    unseal,
)

ANSWER_HEAD = 8  # of each answer in a batch
ASK_SECONDS = 0.5
ASK_TRIES, MOST_SILENCES = (
    3,
    2,
)  # a flipped bit costs up to two tries: the next frame closes the one that lost its end


def ask_capabilities(loader: Loader) -> Capabilities | None:
    """What the stub that is running can do; None: it is none of ours, or of another protocol.

    The question is sealed, which only ours looks at; the answer counts if it is sealed too. Others refuse the opcode.
    """
    loader.dialect = replace(loader.dialect, sealed=False)  # until it is known who answers
    silences = 0
    for _ in range(ASK_TRIES):
        reply = _ask_unsealed(loader, seal(AskCapabilities().packet()))
        if reply is None:
            silences += 1
            if silences == MOST_SILENCES:
                return None
            continue
        told = unseal(reply)
        if told is not None and told.value == PROTOCOL_VERSION and told.body[-2:] == b"\0\0":
            return parse_capabilities(told.body[:-2])
        if reply.body == UNKNOWN_COMMAND.to_bytes(2, "big"):
            return None
    return None


def is_of_another_protocol(loader: Loader) -> bool:
    """Whether a stub of ours with another protocol version is running: another version of espwire left it."""
    reply = _ask_unsealed(loader, AskCapabilities().packet())
    return reply is not None and reply.body.startswith(MAGIC) and reply.value != PROTOCOL_VERSION


def _ask_unsealed(loader: Loader, packet: bytes) -> Reply | None:
    try:
        return loader.exchange(StubOp.CAPABILITIES, packet, ASK_SECONDS)
    except NoReply:
        loader.end_pipeline()  # no other answer can be taken for this one's
        return None


def plan_first_batch(commands: Iterable[Command]) -> Batch:
    """What to ask a stub of ours right after its hello: what it can do, and further commands."""
    return Batch(tuple(command.request() for command in (AskCapabilities(), *commands)))


def take_first_batch(loader: Loader, batch: Batch) -> tuple[Capabilities, list[Reply]] | None:
    """The stub's answers to the batch that came with its image: capabilities, and those to the further commands, their
    status cut off. It is asked again where the answer was lost.

    None: anything is not as it should be; then ask singly.
    """
    requests = batch.requests
    try:
        reply = loader.receive(StubOp.BATCH, ASK_SECONDS) or loader.exchange(
            StubOp.BATCH, batch.packet(), ASK_SECONDS
        )
        parts = parse_batch_reply(
            loader.check_status(reply, max(len(reply.body) - 2, 0)).body, requests
        )
        if parts is None or len(parts) != len(requests):
            return None
        answers = [loader.check_status(part, max(len(part.body) - 2, 0)) for part in parts]
    except (NoReply, CommandFailed):
        return None
    told = parse_capabilities(answers[0].body) if answers[0].value == PROTOCOL_VERSION else None
    return (told, answers[1:]) if told is not None else None


def read_md5s(loader: Loader, offset: int, size: int, piece: int) -> list[bytes]:
    """The MD5 of each ``piece`` bytes (a multiple of 4) of flash, in one request; the last piece may be shorter.

    :raises Unsupported, CommandFailed, NoReply: as the loader has it
    """
    found = _read_pieces(loader, offset, size, piece, HashKind.MD5)
    return [found[at : at + DIGEST_BYTES] for at in range(0, len(found), DIGEST_BYTES)]


def find_written(loader: Loader, offset: int, size: int, piece: int) -> list[int]:
    """Addresses of the pieces that are not blank (all 0xFF), in one request.

    :raises Unsupported, CommandFailed, NoReply: as the loader has it
    """
    found = _read_pieces(loader, offset, size, piece, HashKind.BLANK)
    return [offset + piece * index for index, blank in enumerate(found) if blank != 1]


def run_batch(loader: Loader, commands: Iterable[Command]) -> list[Reply]:
    """Several commands in as few trips as possible, in order; their replies, each with its status cut off.

    A trip whose answer is lost is made once more: only for commands that may be carried out twice.

    :raises Unsupported: the loader has no batches
    :raises CommandFailed: one of them; those after it were not carried out
    """
    replies: list[Reply] = []
    for requests in _fill(loader, [command.request() for command in commands]):
        answer = loader.request(Batch(requests), repeatable=True)
        whole = loader.check_status(answer, max(len(answer.body) - 2, 0))
        parts = parse_batch_reply(whole.body, requests)
        if not parts:
            raise _broken()
        for part in parts:
            replies.append(loader.check_status(part, max(len(part.body) - 2, 0)))
        if len(parts) != len(requests):
            raise _broken()
    return replies


def _fill(loader: Loader, requests: Sequence[Request]) -> Iterable[tuple[Request, ...]]:
    """Batches that fit, each with its answers: those are taken for as long as the longest there can be."""
    told = loader.dialect.capabilities
    room = told.batch_bytes if told is not None else 0
    batch: list[Request] = []
    asked = answered = 0
    for request in requests:
        size, answer = 4 + -(-len(request.body) // 4) * 4, ANSWER_HEAD + _most_answered(request)
        if batch and (asked + size > room or answered + answer > room):
            yield tuple(batch)
            batch, asked, answered = [], 0, 0
        batch.append(request)
        asked, answered = asked + size, answered + answer
    if batch:
        yield tuple(batch)


def _most_answered(request: Request) -> int:
    if request.op == StubOp.SPI:
        return -(-request.body[11] // 4) * 4  # its read length
    return 0 if request.op in (Op.READ_REG, Op.WRITE_REG, Op.SPI_ATTACH, Op.SPI_SET_PARAMS) else 64


def _read_pieces(loader: Loader, offset: int, size: int, piece: int, kind: HashKind) -> bytes:
    loader.require(StubOp.HASH)
    width = DIGEST_BYTES if kind is HashKind.MD5 else 1
    found = bytearray()
    total = -(-size // piece) * width
    attempts = loader.settings.retry.block_attempts
    while True:
        before = len(found)
        done = before // width * piece
        try:
            _collect(loader, Hash(offset + done, size - done, piece, kind), width, found)
        except (NoReply, CommandFailed) as error:
            if isinstance(error, CommandFailed) and error.status != BAD_CHECKSUM:
                raise
            attempts -= len(found) == before
            abort(loader)
            if attempts <= 0:
                raise
        if len(found) >= total:
            return bytes(found[:total])


def _collect(loader: Loader, command: Hash, width: int, found: bytearray) -> None:
    """Add the results as they come, up to the first that is missing.

    :raises NoReply: one is missing
    """
    timing = loader.settings.timing
    count = -(-command.size // command.piece)
    per_frame = min(HASH_RESULT_BYTES // width, count) * command.piece
    loader.begin_pipeline()
    loader.send(command.packet())
    index = 0
    while index < count:
        reply = loader.receive(StubOp.HASH, timing.scaled(timing.md5_per_mb, per_frame))
        if reply is None or reply.value != index or (len(reply.body) - 2) % width:
            raise NoReply("an answer to HASH is missing", command="HASH")
        results = loader.check_status(reply, len(reply.body) - 2).body
        if not results:
            raise CommandFailed("HASH: the answer is empty", command="HASH", status=0)
        found += results
        index += len(results) // width
    loader.end_pipeline()


def _broken() -> DeviceError:
    return DeviceError("the answer to a batch makes no sense", code="bad-reply")
