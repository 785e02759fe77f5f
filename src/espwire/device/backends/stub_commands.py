"""Commands of our own stub apart from its streams: capabilities, batches, SPI transactions, hashes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from espwire.chips.model import Spi
from espwire.device.loader import Attempts, Loader
from espwire.device.spi import SETTLE_US, SpiCommand
from espwire.errors import CommandFailed, DeviceError, NoReply
from espwire.protocol.commands import Command, RegWrite, Reply, Request, SpiFlashMd5, WriteReg
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
    SpiTransaction,
    StubOp,
    parse_batch_reply,
    parse_capabilities,
    seal,
    unseal,
)
from espwire.sizes import align_up

REPLY_HEAD = 8  # of each reply in a batch
CAPABILITIES_SECONDS = 0.5
MOST_SILENCES = (
    2  # one flipped bit may cost two tries: the next frame ends the one that lost its END
)
OK = b"\0\0"  # status


def ask_capabilities(loader: Loader) -> Capabilities | None:
    """What the running stub can do; None: it is not ours, or has another protocol version.

    The request is sealed, which only our stub checks; the reply counts if it is sealed too. Others refuse the opcode.
    """
    loader.dialect = loader.dialect.replace(sealed=False)  # until it is known what replies
    silences = 0
    for _ in range(loader.settings.retry.capabilities_attempts):
        reply = _exchange_unsealed(loader, seal(AskCapabilities().packet()))
        if reply is None:
            silences += 1
            if silences == MOST_SILENCES:
                return None
            continue
        opened = unseal(reply)
        if opened is not None and opened.value == PROTOCOL_VERSION and opened.body[-2:] == OK:
            return parse_capabilities(opened.body[:-2])
        if reply.body == UNKNOWN_COMMAND.to_bytes(2, "big"):
            return None
    return None


def is_of_another_protocol(loader: Loader) -> bool:
    """Whether a stub of ours with another protocol version is running, left by another version of espwire."""
    reply = _exchange_unsealed(loader, AskCapabilities().packet())
    return reply is not None and reply.body.startswith(MAGIC) and reply.value != PROTOCOL_VERSION


def _exchange_unsealed(loader: Loader, packet: bytes) -> Reply | None:
    try:
        return loader.exchange(StubOp.CAPABILITIES, packet, CAPABILITIES_SECONDS)
    except NoReply:
        loader.end_pipeline()  # no other reply can be mistaken for this one
        return None


def plan_first_batch(commands: Iterable[Command]) -> Batch:
    """The first request for a stub of ours, right after its hello: its capabilities, then ``commands``."""
    return Batch(tuple(command.request() for command in (AskCapabilities(), *commands)))


def take_first_batch(loader: Loader, batch: Batch) -> tuple[Capabilities, list[Reply]] | None:
    """The stub's replies to the batch that came with its image: its capabilities, and the further replies without
    their status. The batch is sent once more if the reply was lost.

    None: something is wrong with the reply; send the requests singly.
    """
    requests = batch.requests
    try:
        reply = loader.receive(StubOp.BATCH, CAPABILITIES_SECONDS) or loader.exchange(
            StubOp.BATCH, batch.packet(), CAPABILITIES_SECONDS
        )
        replies = _split_batch_reply(loader, reply, requests)
    except (NoReply, CommandFailed):
        return None
    if len(replies) != len(requests) or replies[0].value != PROTOCOL_VERSION:
        return None
    capabilities = parse_capabilities(replies[0].body)
    return (capabilities, replies[1:]) if capabilities is not None else None


def run_batch(loader: Loader, commands: Iterable[Command]) -> list[Reply]:
    """Several commands in as few round trips as possible, in order; their replies, each without its status.

    A batch whose reply is lost is sent once more: only for commands that may be carried out twice.

    :raises Unsupported: the loader has no batches
    :raises CommandFailed: from one of them; those after it were not carried out
    """
    replies: list[Reply] = []
    for requests in _fill_batches(loader, [command.request() for command in commands]):
        found = _split_batch_reply(
            loader, loader.request(Batch(requests), repeatable=True), requests
        )
        if len(found) != len(requests):
            raise DeviceError("the reply to BATCH is invalid", code="bad-reply")
        replies += found
    return replies


def plan_spi_batch(spi: Spi, commands: Sequence[SpiCommand]) -> list[Command]:
    """SPI transactions as commands for a batch; a write to an unused register makes the waits between them."""
    batch: list[Command] = []
    for command in commands:
        wait = max(SETTLE_US, command.wait_us) if batch else command.wait_us
        if wait:
            batch.append(WriteReg((RegWrite(spi.base + spi.data_offset, 0, delay_us=wait),)))
        batch.append(
            SpiTransaction(
                opcode=command.opcode,
                address=command.address,
                address_bits=command.address_bits,
                dummy=command.dummy_cycles,
                write=command.data,
                read=-(-command.read_bits // 8),
            )
        )
    return batch


def parse_spi_reply(reply: Reply, command: SpiCommand) -> int:
    """What ``command`` read, from the stub's reply to it."""
    return int.from_bytes(reply.body, "little") & ((1 << command.read_bits) - 1)


def read_md5s(loader: Loader, offset: int, size: int, piece: int) -> list[bytes]:
    """The MD5 of each ``piece`` bytes (a multiple of 4) of flash, in one request; the last piece may be shorter.

    :raises Unsupported, CommandFailed, NoReply: as ``Loader.call``
    """
    results = _hash_pieces(loader, offset, size, piece, HashKind.MD5)
    return [results[at : at + DIGEST_BYTES] for at in range(0, len(results), DIGEST_BYTES)]


def read_md5s_of(loader: Loader, ranges: Iterable[tuple[int, int]]) -> list[bytes]:
    """The MD5 of each half-open range of flash, in as few round trips as possible; for short ones.

    :raises CommandFailed, NoReply: as ``run_batch``
    """
    commands = [SpiFlashMd5(start, end - start) for start, end in ranges]
    return [reply.body for reply in run_batch(loader, commands)]


def find_written(loader: Loader, offset: int, size: int, piece: int) -> list[int]:
    """Addresses of the pieces that are not blank (all 0xFF), in one request.

    :raises Unsupported, CommandFailed, NoReply: as ``Loader.call``
    """
    results = _hash_pieces(loader, offset, size, piece, HashKind.BLANK)
    return [offset + piece * index for index, blank in enumerate(results) if blank != 1]


def _split_batch_reply(loader: Loader, reply: Reply, requests: tuple[Request, ...]) -> list[Reply]:
    whole = loader.check_status(reply, max(len(reply.body) - 2, 0))
    parts = parse_batch_reply(whole.body, requests) or ()
    return [loader.check_status(part, max(len(part.body) - 2, 0)) for part in parts]


def _fill_batches(loader: Loader, requests: Sequence[Request]) -> Iterator[tuple[Request, ...]]:
    """Batches whose requests fit, and whose replies do even if each is as long as it can be."""
    capabilities = loader.dialect.capabilities
    room = capabilities.batch_bytes if capabilities is not None else 0
    batch: list[Request] = []
    sent = replied = 0
    for request in requests:
        size = 4 + align_up(len(request.body), 4)
        reply_size = REPLY_HEAD + _find_longest_reply(request)
        if batch and (sent + size > room or replied + reply_size > room):
            yield tuple(batch)
            batch, sent, replied = [], 0, 0
        batch.append(request)
        sent, replied = sent + size, replied + reply_size
    if batch:
        yield tuple(batch)


def _find_longest_reply(request: Request) -> int:
    if request.op == StubOp.SPI:
        return align_up(request.body[11], 4)  # its read length
    if request.op == Op.SPI_FLASH_MD5:
        return DIGEST_BYTES
    return 0 if request.op in (Op.READ_REG, Op.WRITE_REG, Op.SPI_ATTACH, Op.SPI_SET_PARAMS) else 64


def _hash_pieces(loader: Loader, offset: int, size: int, piece: int, kind: HashKind) -> bytes:
    loader.require(StubOp.HASH)
    width = DIGEST_BYTES if kind is HashKind.MD5 else 1
    results = bytearray()
    total = -(-size // piece) * width
    attempts = Attempts(loader.settings.retry.block_attempts)
    while len(results) < total:
        done = len(results) // width * piece
        try:
            _collect_results(loader, Hash(offset + done, size - done, piece, kind), width, results)
        except (NoReply, CommandFailed) as error:
            if isinstance(error, CommandFailed) and error.status != BAD_CHECKSUM:
                raise
            loader.abort()
            attempts.failed(error, len(results))
    return bytes(results[:total])


def _collect_results(loader: Loader, command: Hash, width: int, results: bytearray) -> None:
    """Add the results as they come, up to the first that is missing.

    :raises NoReply: one is missing
    """
    timing = loader.settings.timing
    pieces = -(-command.size // command.piece)
    per_frame = min(HASH_RESULT_BYTES // width, pieces) * command.piece
    loader.begin_pipeline()
    loader.send(command.packet())
    index = 0
    while index < pieces:
        reply = loader.receive(StubOp.HASH, timing.scaled(timing.md5_per_mb, per_frame))
        if reply is None or reply.value != index or (len(reply.body) - 2) % width:
            raise NoReply("a reply to HASH is missing", command="HASH")
        body = loader.check_status(reply, len(reply.body) - 2).body
        if not body:
            raise CommandFailed("HASH: the reply is empty", command="HASH", status=0)
        results += body
        index += len(body) // width
    loader.end_pipeline()
