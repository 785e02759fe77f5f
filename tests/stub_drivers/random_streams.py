"""Random conversations with our stub, valid and invalid, to compare two implementations of it.

Left out is what the order of frames does not determine: how far work is when an ABORT ends it, and what a frame reads
past its end if it is shorter than its command requires.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

from espwire.chips.registry import chip_ids, load_chip
from espwire.compress import FOR_XTENSA, find_lzma_form
from espwire.protocol import slip
from espwire.protocol import stub as s
from espwire.protocol.commands import Request, checksum
from espwire.protocol.opcodes import Op
from espwire.protocol.packed import codes_body

from .frames import PAYLOAD, POKE, SECTOR, damaged, frame, pack, pack_for, pieces, sent, text, words
from .programs import FREE_RAM

FLASH = 1 << 20
Step = bytes  # as it goes over the wire; then the stub is left alone until it is quiet


class Stream:
    """One conversation. ``steps`` yields what is sent; the jobs are methods.

    ``damaged_streams`` False: every compressed stream is intact and complete, for an implementation that does not
    program what the stub unpacks right before the damage.
    ``for_host``: only what every chip and the sources on this PC must answer with the same bytes. No data is written
    over other data, which the host build reports as a violation.
    """

    def __init__(
        self, seed: int | str, chip: str, *, damaged_streams: bool = True, for_host: bool = False
    ) -> None:
        self._damages_streams, self._for_host = damaged_streams, for_host
        loaded = load_chip(chip) if chip in chip_ids() else None
        can = loaded is not None and loaded.stub.own is not None and loaded.stub.own.can_lzma
        self._form = find_lzma_form(loaded) if loaded is not None and can else None
        if for_host and self._form is FOR_XTENSA:
            self._form = None
        self.pick, self._chip, self._sealed = random.Random(f"{chip} {seed}"), chip, True

    def steps(self, count: int) -> Iterator[Step]:
        """So many jobs, each of one or more steps; an ABORT at the end."""
        if self._for_host:  # its flash chip reports another size
            yield slip.encode(sent(_set_size(FLASH)))
        for _ in range(count):
            job: Job = self.pick.choice(FLASH_JOBS if self._for_host else JOBS)
            for frames in job(self):
                yield b"".join(
                    slip.encode(sent(frame) if self._sealed else frame) for frame in frames
                )
            if self.pick.random() < 0.2:
                yield self._noise()
            self._sealed = True
        yield slip.END * 2 + slip.encode(sent(s.Abort(self.pick.getrandbits(32)).packet()))

    # --- what things are made of ---

    def _place(self, align: int = SECTOR) -> int:
        if self.pick.random() < 0.05:
            return self.pick.choice((FLASH, FLASH - align, 0xFFFFF000, 1, 2))
        return self.pick.randrange(0, 0x8000, align)

    def _size(self, most: int = 3000) -> int:
        return self.pick.choice((1, 3, 4, 64, SECTOR, self.pick.randrange(1, most)))

    def _data(self, size: int) -> bytes:
        kind = self.pick.randrange(5)
        if kind == 0:
            return self.pick.randbytes(size)
        if kind == 1:
            return b"\xff" * size
        data = text(size, self.pick.randrange(9))
        return data if kind > 2 else (data[: size // 3] + b"\xff" * size)[:size]

    def _noise(self) -> bytes:
        """What is no request."""
        junk = self.pick.randbytes(self.pick.randrange(1, 40)).replace(slip.END, b"")
        cut = slip.encode(frame(Op.SYNC, bytes(36)))[: self.pick.randrange(1, 30)]
        return self.pick.choice(
            (slip.END + b"\x01" + junk + slip.END, cut + slip.END, slip.END * 3, b"\xdb\x00\xc0")
        )

    def _stream(self, data: bytes, codec: int = s.Codec.ZLIB) -> bytes:
        stream = pack_for(codec, data)
        if codec == s.Codec.ZLIB:
            level = self.pick.choice((0, 1, 9))
            stream = pack(data, level, self.pick.randrange(5))
        if not self._damages_streams:
            return stream
        if self.pick.random() < 0.1:
            stream = damaged(stream, self.pick.randrange(len(stream)), 1 << self.pick.randrange(8))
        if self.pick.random() > 0.05:
            return stream
        return stream[: self.pick.randrange(1, len(stream) + 1)]

    def _announce(self, stream: bytes, codec: int) -> int:
        """The stream's size, which only LZMA may leave open."""
        is_open = codec > s.Codec.ZLIB and self.pick.random() < 0.7
        return 0 if is_open and len(stream) % PAYLOAD else len(stream)

    def _unseal(self) -> list[bytes]:
        """A vendor's tool takes over, for the rest of this job."""
        self._sealed = False
        return [frame(Op.SYNC, bytes(36))]

    def _check(self, data: bytes) -> int:
        """The check word of a data frame; 0: it is sealed."""
        return 0 if self._sealed else checksum(data) ^ (self.pick.random() < 0.1)

    # --- jobs ---

    def write(self) -> Iterator[list[bytes]]:
        """A write of ours, with damage, gaps, repetitions, pokes; sometimes left in the middle."""
        pick, data = self.pick, self._data(self._size())
        codecs = [s.Codec.RAW, s.Codec.ZLIB, *([self._form.codec] if self._form else [])]
        codec, over = pick.choice(codecs), pick.random() < 0.2 and not self._for_host
        flags = s.WRITE_NO_ERASE * over
        flags |= s.WRITE_READ_BACK * (pick.random() < 0.5)
        packed = codec != s.Codec.RAW
        stream = self._stream(data, codec) if packed else data
        size = len(data) + (pick.choice((-1, 1, 100)) if pick.random() < 0.1 else 0)
        offset = self._place(4 if flags & s.WRITE_NO_ERASE else SECTOR)
        yield [
            s.WriteOpen(
                offset, size, self._announce(stream, codec), codec, flags, pick.getrandbits(32)
            ).packet()
        ]
        frames, at = pieces(stream, pick.choice((0, pick.randrange(256)))), 0
        while at < len(frames):
            some = frames[at : at + pick.randrange(1, 5)]
            trouble, spoiled = pick.random(), pick.randrange(len(some))
            if trouble < 0.15:
                one = some[spoiled]
                yield [
                    *some[:spoiled],
                    damaged(one, pick.randrange(len(one)), 1 << pick.randrange(8)),
                ]
            elif trouble < 0.25:
                yield [
                    *some[:spoiled],
                    s.WriteData(pick.randrange(9) * PAYLOAD, bytes(7)).packet(),
                    POKE,
                ]
            elif trouble < 0.32:
                yield [*some, some[-1]]
                at += len(some)
            elif trouble < 0.37 and (self._damages_streams or not packed):
                return  # leaves the write in the middle
            else:
                yield some
                at += len(some)
        yield [POKE]
        if pick.random() < 0.5:
            yield [
                frame(
                    Op.SPI_FLASH_MD5,
                    words(offset, pick.choice((len(data), SECTOR, 2 * SECTOR)), 0, 0),
                )
            ]

    def read(self) -> Iterator[list[bytes]]:
        pick, size = self.pick, self._size()
        packet = pick.choice((64, 256, 1000, 1024, 4096, 3, 5000))
        window = packet * pick.randrange(0, 4) + pick.randrange(3)
        flags = pick.randrange(8) | 8 * (pick.random() < 0.1)
        codes = codes_body() if (flags & s.READ_PACKED > 0) is (pick.random() < 0.97) else b""
        yield [s.ReadOpen(self._place(4), size, packet, window, flags, codes).packet()]
        done = 0
        while done < size and pick.random() < 0.9:
            if pick.random() < 0.2:
                done = max(0, done - pick.choice((packet, packet, 100)))
                yield [s.ReadAck(done, s.ACK_AGAIN).packet()]
            done = min(size, done + packet * max(1, window // max(packet, 1)))
            yield [s.ReadAck(done).packet()]
        if pick.random() < 0.2:
            yield [s.ReadAck(size, s.ACK_AGAIN).packet()]
        yield [s.ReadAck(size + s.DIGEST_BYTES).packet()]

    def vendor_write(self) -> Iterator[list[bytes]]:
        pick, data = self.pick, self._data(self._size())
        packed, block = pick.random() < 0.5, pick.choice((512, 1024, 4096))
        stream = self._stream(data) if packed else data + b"\xff" * (-len(data) % block)
        op = Op.FLASH_DEFL_BEGIN if packed else Op.FLASH_BEGIN
        more = words(0) if pick.random() < 0.5 else b""
        if pick.random() < 0.8:
            yield self._unseal()
        yield [frame(op, words(len(data), -(-len(stream) // block), block, self._place(4)) + more)]
        for number, at in enumerate(range(0, len(stream), block)):
            piece = stream[at : at + block]
            check = self._check(piece)
            body = words(len(piece), number + (pick.random() < 0.05), 0, 0) + piece
            yield [frame(op + 1, body, check)] * pick.choice((1, 1, 1, 2))
        yield [frame(op + 2, words(1))]

    def vendor_read(self) -> Iterator[list[bytes]]:
        pick, size = self.pick, self._size(2000)
        packet = pick.choice((64, 1000, 4096, 0))
        yield self._unseal()
        yield [frame(Op.READ_FLASH, words(self._place(4), size, packet, pick.randrange(3)))]
        for done in range(packet or 1, size + packet, packet or size):
            yield [words(min(done, size))]

    def hash(self) -> Iterator[list[bytes]]:
        pick = self.pick
        size, piece = self._size(9000), pick.choice((0, 64, 1000, SECTOR))
        yield [
            s.Hash(
                self._place(4), size, piece, pick.randrange(2) if pick.random() < 0.95 else 2
            ).packet()
        ]
        yield [frame(Op.SPI_FLASH_MD5, words(self._place(4), self._size(9000), 0, 0))]

    def erase(self) -> Iterator[list[bytes]]:
        size = SECTOR * self.pick.randrange(20) + (self.pick.random() < 0.1)
        yield [frame(Op.ERASE_REGION, words(self._place(), size))]

    def ram(self) -> Iterator[list[bytes]]:
        pick, start = self.pick, FREE_RAM[self._chip] + 4 * self.pick.randrange(64)
        code = pick.randbytes(4 * pick.randrange(1, 200))
        told = len(code) + (pick.choice((-4, 4)) if pick.random() < 0.2 else 0)
        if pick.random() < 0.5:
            yield self._unseal()
        check = self._check(code)
        yield [frame(Op.MEM_BEGIN, words(told, 1, len(code), start + (pick.random() < 0.05)))]
        yield [
            frame(Op.MEM_DATA, words(len(code), 0, 0, 0) + code, check),
            frame(Op.MEM_END, words(1, 0)),
        ]
        yield [frame(Op.READ_REG, words(FREE_RAM[self._chip] + 4 * pick.randrange(64)))]
        mask = pick.choice((0xFFFFFFFF, 0xFF00, 1 << 31))
        yield [frame(Op.WRITE_REG, words(start, pick.getrandbits(32), mask, 0) * pick.randrange(3))]
        yield [frame(Op.READ_REG, words(start))]

    def spi(self) -> Iterator[list[bytes]]:
        pick, at = self.pick, self._place(4) & 0x7FFF
        page = pick.randbytes(pick.randrange(1, 65))
        room = 256 - at % 256
        for one in (
            s.SpiTransaction(0x9F, read=pick.randrange(1, 4)),
            s.SpiTransaction(0x02, at, 24, 0, page[:room], 0, s.SPI_WRITE_ENABLE | s.SPI_WAIT),
            s.SpiTransaction(0x0B, at, 24, 8, b"", pick.randrange(1, 65)),
        ):
            yield [one.packet()]

    def batch(self) -> Iterator[list[bytes]]:
        pick = self.pick
        known = [
            s.SpiTransaction(0x9F, read=3).request(),
            s.AskCapabilities().request(),
            Request(Op.READ_REG, 0, words(FREE_RAM[self._chip])),
            Request(Op.SPI_FLASH_MD5, 0, words(self._place(4), 100, 0, 0)),
            Request(Op.READ_REG, 0, words(2)),
            Request(Op.ERASE_FLASH, 0, b""),
        ]
        found = s.Batch(
            tuple(pick.choices(known, (4, 4, 4, 4, 1, 1), k=pick.randrange(0, 7)))
        ).packet()
        yield [found]

    def small(self) -> Iterator[list[bytes]]:
        """Several at once, some of no sense."""
        pick, found = self.pick, []
        for _ in range(pick.randrange(1, 6)):
            op = pick.choice((*HARMLESS, pick.randrange(0x80, 0xC0)))
            found.append(
                frame(op, bytes(pick.choice((0, 4, 4, 8, 16, 24, 36, 37))), pick.choice((0, 0, 5)))
            )
        yield found

    def sizes(self) -> Iterator[list[bytes]]:
        size = self.pick.choice((FLASH, FLASH, FLASH // 2, 0))
        size = FLASH if self._for_host and not size else size
        yield [_set_size(size), frame(Op.SPI_ATTACH, words(0))]

    def abort(self) -> Iterator[list[bytes]]:
        yield [s.Abort(self.pick.getrandbits(32)).packet()]


def _set_size(size: int) -> bytes:
    return frame(Op.SPI_SET_PARAMS, words(0, size, 65536, 4096, 256, 0xFFFF))


Job = Callable[[Stream], Iterator[list[bytes]]]
HARMLESS = (
    Op.SYNC,
    Op.SPI_ATTACH,
    Op.FLASH_DATA,
    Op.FLASH_DEFL_DATA,
    Op.MEM_DATA,
    Op.RUN_USER_CODE,
    *s.StubOp,
)[:-1]
FLASH_JOBS: tuple[Job, ...] = (
    *[Stream.write] * 6, *[Stream.read] * 3, *[Stream.vendor_write] * 3, Stream.vendor_read, *[Stream.hash] * 2,
    Stream.erase, Stream.sizes, Stream.abort,
)  # fmt: skip
JOBS: tuple[Job, ...] = (
    *FLASH_JOBS[:-2], Stream.ram, Stream.spi, Stream.batch, *[Stream.small] * 2, *FLASH_JOBS[-2:],
)  # fmt: skip
