"""The ROM loader: its command interpreter, its flash routines, its SLIP receiver.

It behaves like the recorded ROMs, including what they forget to clear and to check. A request is read from a buffer that
still holds the previous request, so its length does not matter. Value word, body and error byte of a reply keep their
previous contents. An unknown command is answered with the header of the last known command, as often as that was
answered. A wrong checksum uses up its sequence number without advancing in flash. Blocks beyond the end of the flash are
accepted and lost. Data after the end of a deflate stream hangs the loader. (Sources: traces, and probes of the same two
ROMs in the same emulators.)

Each handler, and each flash routine that takes time, is a generator that yields the time at which to continue it,
so that a reset or a loss of power can come between two transactions.

The receiver, unlike the host's decoder, tracks whether it is inside a frame. Bytes between a closing END and the next
opening END are ignored, and successive ENDs count as one, so a lost END costs only the next frame. A bad escape stands
for its second byte, even for END. Recorded and probed, ESP32 and ESP32-C3 alike. What does not fit into the buffer is
ignored.
"""

from __future__ import annotations

import hashlib
import re
import struct
import zlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Protocol

from espwire.chips.model import Chip
from espwire.protocol import slip
from espwire.protocol.commands import HEADER, REPLY, checksum
from espwire.protocol.dialect import EraseRule
from espwire.protocol.opcodes import (
    ERASE_BLOCK,
    ERASE_SECTOR,
    PAGE_PROGRAM,
    WRITE_ENABLE,
    Op,
)
from espwire.protocol.slip import END, ESC, ESC_END, ESC_ESC
from espwire.sizes import BLOCK, SECTOR, align_up
from espwire.virtual.nor_flash import NorFlash
from espwire.virtual.programs.program import Encrypt
from espwire.virtual.registers import Registers

# Time that the ROM needs in addition to wire and flash. Approximate: the recordings have no reliable timing.
COMMAND_S = 0.0002
MD5_S_PER_BYTE = 0.5e-6
INFLATE_S_PER_BYTE = 0.3e-6
REQUEST_BUFFER = 0x2000
SYNC_REPLIES = 8
SLOW_READ = 64
MD5_DIGITS = 32
FIRST_LIMIT = 4 << 20  # of the ESP8266, whose size cannot be set: flashchip in its ROM
MD5_PIECE = 0x80
WINDOW = 0x8000  # of the deflate decoder; full, it is programmed into flash
STORED_MARK = b"\xa5\x5a\xc3\x3c"
WORD = 0xFFFFFFFF
LOAD_FAULT, STORE_FAULT = "Load access fault", "Store/AMO access fault"

OK = 0
BAD_MESSAGE, FAILED, BAD_CHECKSUM, READ_BACK, READ_FAILED = 0x05, 0x06, 0x07, 0x08, 0x09
READ_LENGTH, BAD_DEFLATE, BAD_ADLER, NO_ENCRYPTION, BAD_CERTIFICATE = 0x0A, 0x0B, 0x0C, 0x64, 0x65
# commands that clear the error byte when they succeed; after the others it is that of the last failure
CLEARS_ERROR = {
    Op.SYNC,
    Op.READ_REG,
    Op.WRITE_REG,
    Op.SPI_ATTACH,
    Op.READ_FLASH_SLOW,
    Op.CHANGE_BAUDRATE,
    Op.SPI_FLASH_MD5,
}
CHIP_INFORMATION = 64
DATA_HEAD = 16

CIPHER_BLOCK = 16

# yields the time at which to continue, is sent the time then, returns the time at its end
Work = Generator[float, float, float]
Handling = Generator[float, float, int | None]  # like Work, returns the error code; None: no answer


class LoaderHost(Protocol):
    """The chip around the ROM loader."""

    def send(self, data: bytes) -> None:
        """Transmit bytes."""

    def sending_time(self, size: int) -> float:
        """Seconds that ``size`` bytes take to send."""

    def change_baud(self, number: int) -> None:
        """Set the baud rate by CHANGE_BAUDRATE's number."""

    def restart(self) -> None:
        """Software reset."""

    def run(self, entry: int | None, uploads: tuple[tuple[int, int], ...] = ()) -> None:
        """Start a program in RAM, or (None) the one in flash; ``uploads``: address and size of each."""

    def crash(self, fault: str, address: int) -> None:
        """End the loader by a bus fault."""

    def hang(self) -> None:
        """End the loader in an endless loop."""


@dataclass
class Transfer:
    """The last BEGIN and the progress of its data. ``address``: destination of the next block; ``written``: bytes so far."""

    size: int
    blocks: int
    block_size: int
    address: int
    sequence: int = 0
    written: int = 0
    encrypted: bool = False


class Rom:
    """State of a loader. ``limit`` is the flash size that it assumes."""

    def __init__(self, chip: Chip, registers: Registers, flash: RomFlash, host: LoaderHost) -> None:
        self.dialect = chip.rom
        self.registers, self.flash, self.host = registers, flash, host
        self.security_info = b""
        self.mac_digest = b""  # for debug certificates
        self._debug_data = b""
        self.secure_download = False
        self.encrypt: Encrypt | None = None
        self._window = bytearray(WINDOW)  # keeps its contents through a reset
        self._default_limit = chip.flash.default_size if self.dialect.attach_bytes else FIRST_LIMIT
        self._handlers: dict[int, Callable[[float], Handling]] = {
            Op.SYNC: self._sync,
            Op.READ_REG: self._read_reg,
            Op.WRITE_REG: self._write_reg,
            Op.MEM_BEGIN: self._mem_begin,
            Op.MEM_DATA: self._mem_data,
            Op.MEM_END: self._mem_end,
            Op.FLASH_BEGIN: self._flash_begin,
            Op.FLASH_DATA: self._flash_data,
            Op.FLASH_END: self._flash_end,
            Op.FLASH_DEFL_BEGIN: self._flash_begin,
            Op.FLASH_DEFL_DATA: self._deflate_data,
            Op.FLASH_DEFL_END: self._flash_end,
            Op.SPI_ATTACH: self._spi_attach,
            Op.SPI_SET_PARAMS: self._spi_set_params,
            Op.SPI_FLASH_MD5: self._md5,
            Op.READ_FLASH_SLOW: self._read_slow,
            Op.CHANGE_BAUDRATE: self._accept,
            Op.GET_SECURITY_INFO: self._security_info,
            **dict.fromkeys(range(Op.SDC_VERIF_BEGIN, Op.SDC_GEN_END + 1), self._secure_debug),
        }
        self.restart()

    def restart(self) -> None:
        """Reset."""
        self.limit = self._default_limit
        self._request = bytearray(REQUEST_BUFFER)
        self._length = 0
        self._reply = bytearray(0x100)
        self._op, self._value, self._repeats, self._size = int(Op.SYNC), 0, 1, 0
        self._error = 0
        self._plain: Transfer | None = None  # of FLASH_BEGIN or MEM_BEGIN: one state for both
        self._packed: Transfer | None = None
        self._inflate = zlib.decompressobj()
        self._filled = 0  # bytes of the window that are not in flash yet
        self._deflate_error = OK  # of this stream: all its further blocks fail, too
        self._restarts = self._starts = False
        self._uploads: list[tuple[int, int]] = []

    def handle(self, t: float, frame: bytes) -> Work:
        """Process a frame. A frame that is not a request (first byte not 0) is refused like an unknown command."""
        self._length = min(len(frame), REQUEST_BUFFER)
        self._request[: self._length] = frame[: self._length]
        t = yield t + COMMAND_S
        op = self._request[1]
        ops = self.dialect.secure_ops if self.secure_download else self.dialect.ops
        handler = self._handlers.get(op)
        if self._request[0] or handler is None or op not in ops:
            self._answer(0, BAD_MESSAGE)
            return t
        self._op, self._repeats, self._size = op, 1, 0
        self._restarts = self._starts = False
        error = yield from handler(t)
        if error is not None:
            self._answer(self._size, error)
            yield from self._after(t)
        return t

    def _word(self, index: int) -> int:
        return int(struct.unpack_from("<I", self._request, HEADER.size + 4 * index)[0])

    @property
    def _declared_size(self) -> int:
        return int.from_bytes(self._request[2:4], "little")

    def _answer(self, size: int, error: int) -> None:
        """Send a reply of ``size`` bytes and the status; the error byte of a success and the last two bytes may be stale."""
        if error or self._op in CLEARS_ERROR:
            self._error = error
        self._reply[size : size + 2] = bytes((1 if error else 0, self._error))
        body = self._reply[: size + self.dialect.status_bytes]
        packet = HEADER.pack(REPLY, self._op, len(body), self._value) + body
        self.host.send(slip.encode(packet) * self._repeats)

    def _after(self, t: float) -> Generator[float, float, None]:
        """What follows the reply: starting a program, a restart, a new baud rate. Two ENDs go first, at the old rate."""
        first, entry = self._word(0), self._word(1)
        changes = self._op == Op.CHANGE_BAUDRATE
        if changes or self._restarts:
            self.host.send(slip.END * 2)
            yield t + self.host.sending_time(HEADER.size + self.dialect.status_bytes + 4)
        match self._op:
            case Op.CHANGE_BAUDRATE:
                self.host.change_baud(first)
            case Op.FLASH_END | Op.FLASH_DEFL_END if self._restarts:
                self.host.restart()
            case Op.FLASH_END:
                self.host.run(None)
            case Op.MEM_END if self._starts:
                self.host.run(entry, tuple(self._uploads))

    # --- registers and RAM ---

    def _sync(self, t: float) -> Handling:
        self._value, self._repeats = self._word(0), SYNC_REPLIES
        yield t
        return OK

    def _read_reg(self, t: float) -> Handling:
        value = self.registers.read(t, self._word(0))
        if value is None:
            self.host.crash(LOAD_FAULT, self._word(0))
            return None
        self._value = value
        yield t
        return OK

    def _write_reg(self, t: float) -> Handling:
        for group in range(min(self._declared_size, REQUEST_BUFFER - HEADER.size) // 16):
            address, value, mask, delay_us = (self._word(4 * group + i) for i in range(4))
            t = yield t + delay_us / 1e6
            if not self.registers.write(t, address, value, mask):
                self.host.crash(STORE_FAULT, address)
                return None
        return OK

    def _mem_begin(self, t: float) -> Handling:
        size, blocks, block_size, address = (self._word(i) for i in range(4))
        yield t
        if self._declared_size != 16 or block_size > self.dialect.ram_block:
            return BAD_MESSAGE
        self._plain = Transfer(size, blocks, block_size, address)
        self._uploads.append((address, size))
        return OK

    def _mem_data(self, t: float) -> Handling:
        taken = self._take_block(self._plain)
        yield t
        if isinstance(taken, int):
            return taken
        transfer, payload = taken
        if payload and not self._store(t, transfer.address, payload):
            self.host.crash(STORE_FAULT, transfer.address)
            return None
        self._advance(transfer, len(payload))
        return OK

    def _mem_end(self, t: float) -> Handling:
        yield t
        if self._declared_size > 8:
            return BAD_MESSAGE
        self._starts = not self._word(0) & 0xFF
        return OK

    def _store(self, t: float, address: int, data: bytes) -> bool:
        """Write bytes to RAM, or word by word to registers; False: a fault."""
        if self.registers.is_ram(address):
            self.registers.ram.write(address, data)
            return True
        words = struct.iter_unpack("<I", data.ljust(-(-len(data) // 4) * 4, b"\0"))
        return all(
            self.registers.write(t, address + 4 * i, word) for i, (word,) in enumerate(words)
        )

    # --- flash ---

    def _is_ready(self, start: int, size: int) -> bool:
        return self.registers.attached and (start + size & WORD) <= self.limit

    def _flash_begin(self, t: float) -> Handling:
        """FLASH_BEGIN and FLASH_DEFL_BEGIN: erase everything, then answer. A failed erase still opens the transfer.

        A chip without a key, or with encryption disabled by eFuse, refuses the encrypted flag; compressed data are never
        encrypted.
        """
        size, blocks, block_size, offset = (self._word(i) for i in range(4))
        packed = self._op == Op.FLASH_DEFL_BEGIN
        if self._declared_size != 4 * self.dialect.begin_words:
            return BAD_MESSAGE
        if block_size > self.dialect.ram_block:
            return BAD_MESSAGE
        encrypted = self.dialect.begin_words > 4 and bool(self._word(4))
        if encrypted and (packed or self.encrypt is None):
            return NO_ENCRYPTION
        if not self.dialect.attach_bytes:
            self.registers.attached = True
        transfer = Transfer(size, blocks, block_size, offset, encrypted=encrypted)
        if packed:
            self._packed, self._inflate = transfer, zlib.decompressobj()
            self._filled = self._deflate_error = 0
        else:
            self._plain = transfer
        if offset % SECTOR or not self._is_ready(offset, size):
            return FAILED
        sectors = count_erased(self.dialect.erase, offset, size)
        room = max(
            0, (self.limit - offset) // SECTOR
        )  # the sum above is of 32 bits, but each sector is checked
        yield from self.flash.erase(t, offset, min(sectors, room))
        return OK if sectors <= room else FAILED

    def _flash_data(self, t: float) -> Handling:
        """FLASH_DATA: what was programmed is read back into the request, and its checksum is compared again.

        Flash beyond the limit is neither programmed nor read, so data for it is accepted.
        """
        taken = self._take_block(self._plain, words=True)
        if isinstance(taken, int):
            return taken
        transfer, payload = taken
        address, size = transfer.address, len(payload)
        if transfer.encrypted:
            if (address | size) % CIPHER_BLOCK:
                return NO_ENCRYPTION
            encrypt = self.encrypt or (lambda data, address: data)
            yield from self._program(t, address, encrypt(payload, address))
        else:
            t = yield from self._program(t, address, payload)
            if size and self._is_ready(address, size):
                at = HEADER.size + DATA_HEAD
                self._request[at : at + size] = payload = self.flash.read(
                    t, self._wrap(address), size
                )
            if checksum(payload) != self._request[4]:
                return READ_BACK
        self._advance(transfer, size)
        return OK

    def _deflate_data(self, t: float) -> Handling:
        """FLASH_DEFL_DATA: data are programmed when the window is full, and after the last announced block.

        If the stream does not end with that block, the decoder reads zeros behind it.
        """
        taken = self._take_block(self._packed)
        if isinstance(taken, int):
            return taken
        transfer, data = taken
        while data and not self._deflate_error:
            t, data = yield from self._decode(t, transfer, data)
            if data and self._inflate.eof:
                self.host.hang()
                return None
        last = transfer.sequence == transfer.blocks
        if last and not self._deflate_error and not self._inflate.eof:
            if _is_in_stored_block(self._inflate):
                self._deflate_error = (
                    BAD_DEFLATE  # the data ended in a block that is not compressed
                )
            else:
                t, _ = yield from self._decode(t, transfer, bytes(2 * WINDOW))
        if last and not self._deflate_error:
            size = WINDOW if self.dialect.deflate_fills_window else align_up(self._filled, 4)
            yield from self._program(t, transfer.address, bytes(self._window[:size]))
        return self._deflate_error

    def _decode(
        self, t: float, transfer: Transfer, data: bytes
    ) -> Generator[float, float, tuple[float, bytes]]:
        """Decode until the data end or the window is full; returns the time and the rest of the data."""
        stream = self._inflate
        try:
            piece = stream.decompress(data, WINDOW - self._filled)
        except zlib.error as error:
            self._deflate_error = BAD_ADLER if "data check" in str(error) else BAD_DEFLATE
            return t, b""
        t = yield t + len(piece) * INFLATE_S_PER_BYTE
        self._window[self._filled : self._filled + len(piece)] = piece
        self._filled += len(piece)
        if self._filled == WINDOW:
            t = yield from self._program(t, transfer.address, bytes(self._window))
            self._filled = 0
            transfer.address += WINDOW
        return t, stream.unused_data if stream.eof else stream.unconsumed_tail

    def _program(self, t: float, address: int, data: bytes) -> Work:
        """Program data if the flash is large enough; nothing reports that it is not."""
        if self._is_ready(address, len(data)):
            t = yield from self.flash.program(t, self._wrap(address), data)
        return t

    def _wrap(self, address: int) -> int:
        """The address that the flash chip gets: the sum of a range at the end of the address space wraps, and passes."""
        return address % max(self.limit, LONG_FROM)

    def _take_block(
        self, transfer: Transfer | None, *, words: bool = False
    ) -> tuple[Transfer, bytes] | int:
        """The payload of the next data command, or the error code. The sequence number is used up before the checksum is
        verified, so a block with a wrong checksum cannot be sent again. Only the lowest byte of the checksum counts.

        ``words``: only whole words are taken. Before the first BEGIN the ROM uses what it finds in RAM; here it refuses.
        """
        size = self._word(0)
        if (
            transfer is None
            or self._declared_size > self.dialect.ram_block + DATA_HEAD
            or self._word(1) != transfer.sequence
            or size > transfer.block_size
            or (words and size % 4)
        ):
            return BAD_MESSAGE
        transfer.sequence += 1
        start = HEADER.size + DATA_HEAD
        payload = bytes(self._request[start : start + size])
        if self._request[4] != checksum(payload):
            return BAD_CHECKSUM
        return transfer, payload

    def _advance(self, transfer: Transfer, size: int) -> None:
        transfer.written += size
        transfer.address += size

    def _flash_end(self, t: float) -> Handling:
        """FLASH_END and FLASH_DEFL_END: fails if something is missing, but FLASH_END still leaves the loader."""
        packed = self._op == Op.FLASH_DEFL_END
        transfer = self._packed if packed else self._plain
        yield t
        if transfer is not None and (
            transfer.sequence != transfer.blocks
            or (not packed and transfer.written != transfer.size)
        ):
            return FAILED
        self._restarts = self.dialect.flash_end_restarts and not self._word(0) & 0xFF
        self._error = OK if self._restarts else self._error
        return OK

    def _spi_attach(self, t: float) -> Handling:
        self.registers.attached, self.registers.attach_word = True, self._word(0)
        yield t
        return OK

    def _spi_set_params(self, t: float) -> Handling:
        yield t
        if self._declared_size != 24:
            return BAD_MESSAGE
        self.limit = self._word(1)
        return OK

    def _md5(self, t: float) -> Handling:
        """SPI_FLASH_MD5: reads whole words; a size from 2 GiB on is negative, so it counts as 0."""
        self._size = MD5_DIGITS
        start, size = self._word(0), self._word(1)
        if self._declared_size > self.dialect.ram_block + DATA_HEAD:
            return BAD_MESSAGE
        digest = hashlib.md5(usedforsecurity=False)
        for offset in range(0, size if size <= WORD >> 1 else 0, MD5_PIECE):
            count = min(MD5_PIECE, size - offset)
            if not self._is_ready(start + offset, align_up(count, 4)):
                return READ_FAILED
            digest.update(self.flash.read(t, self._wrap(start + offset), count))
            t = yield t + count * MD5_S_PER_BYTE
        self._reply[:MD5_DIGITS] = digest.hexdigest().encode()
        return OK

    def _read_slow(self, t: float) -> Handling:
        """READ_FLASH_SLOW: reads whole words."""
        self._size = SLOW_READ
        start, size = self._word(0), self._word(1)
        yield t
        if size > SLOW_READ:
            return READ_LENGTH
        if not self._is_ready(start, size):
            return READ_FAILED
        size = align_up(size, 4)
        self._reply[:size] = self.flash.read(t, self._wrap(start), size)
        return OK

    # --- the rest ---

    def _accept(self, t: float) -> Handling:
        """A command whose effect follows its reply."""
        yield t
        return OK

    def _security_info(self, t: float) -> Handling:
        self._size = len(self.security_info)
        self._reply[: self._size] = self.security_info
        yield t
        return OK

    def _secure_debug(self, t: float) -> Handling:
        """The secure-debug commands. The chip information is what espsecure computes for a certificate. Of a certificate, only the form
        and its hash are checked, not the key and the signature."""
        yield t
        match self._op:
            case Op.SDC_VERIF_DATA | Op.SDC_GEN_DATA:
                payload = bytes(self._request[HEADER.size + 4 : self._length])
                if len(payload) != self._word(0):
                    return BAD_MESSAGE
                if int.from_bytes(self._request[4:8], "little") != checksum(payload):
                    return BAD_CHECKSUM
                self._debug_data = payload
            case Op.SDC_VERIF_END:
                body, digest = self._debug_data[20:404], self._debug_data[404:436]
                magic = self._debug_data[:4] == b"CAMR"
                if not magic or hashlib.sha256(body).digest() != digest:
                    return BAD_CERTIFICATE
            case Op.SDC_GEN_END:
                digest = hashlib.sha256(self.mac_digest + self._debug_data + bytes(1)).digest()
                self._size = CHIP_INFORMATION
                self._reply[:CHIP_INFORMATION] = digest.ljust(CHIP_INFORMATION, b"\0")
        return OK


def _is_in_stored_block(stream: zlib._Decompress) -> bool:
    """Whether the next bytes of the stream are data that are not compressed."""
    try:
        return stream.copy().decompress(STORED_MARK) == STORED_MARK
    except zlib.error:
        return False


PAGE = 0x100
SECTORS_PER_BLOCK = BLOCK // SECTOR
LONG_FROM = 1 << 24


def count_erased(rule: EraseRule, start: int, size: int) -> int:
    """Number of sectors that FLASH_BEGIN erases from ``start`` on for a request of ``size`` bytes.

    The ESP8266's ROM erases the sectors up to the next 64 KiB block, does not subtract them, and then erases the full
    number from there on: it erases as many sectors twice as lie before the block, at most the requested number. Clients
    send a smaller size, which makes it correct (one sector too many if the true number is odd and small).

    >>> count_erased(EraseRule.ESP8266_HEAD_BUG, 0x1000, 0x11000), count_erased(EraseRule.TRUE_SIZE, 0x1000, 0x11000)
    (32, 17)
    """
    sectors = align_up(size, SECTOR) // SECTOR
    if rule is EraseRule.TRUE_SIZE:
        return sectors
    return sectors + min(sectors, SECTORS_PER_BLOCK - start // SECTOR % SECTORS_PER_BLOCK)


class RomFlash:
    """The ROM's flash routines. All ROMs, also those of chips for larger flash, send 24 address bits."""

    def __init__(self, flash: NorFlash) -> None:
        self.flash = flash

    def erase(self, t: float, start: int, sectors: int) -> Work:
        """Erase ``sectors`` sectors from ``start`` on: by sectors up to the next block of 64 KiB, at least one block's, then
        by blocks as long as more than one is left, then by sectors again."""
        sector = start // SECTOR
        end = sector + sectors
        head = min(sector + SECTORS_PER_BLOCK - sector % SECTORS_PER_BLOCK, end)
        while sector < end:
            whole = sector >= head and end - sector > SECTORS_PER_BLOCK
            self._modify(t, ERASE_BLOCK if whole else ERASE_SECTOR, sector * SECTOR, b"")
            t = yield self.flash.busy_until
            sector += SECTORS_PER_BLOCK if whole else 1
        return t

    def program(self, t: float, address: int, data: bytes) -> Work:
        """Program ``data``, page by page; returns when the last page is in flash.

        Each piece must be whole words, so data that cross a page must begin at a word: otherwise nothing is programmed.
        """
        position = 0
        while position < len(data):
            room = PAGE - (address + position) % PAGE
            piece = data[position : position + room]
            if len(piece) % 4:
                break
            self._modify(t, PAGE_PROGRAM, address + position, piece)
            t = yield self.flash.busy_until
            position += len(piece)
        return t

    def read(self, t: float, address: int, size: int) -> bytes:
        """Read bytes."""
        return self.flash.read_array(t, address % LONG_FROM, size)

    def _modify(self, t: float, opcode: int, address: int, data: bytes) -> None:
        self.flash.execute(t, WRITE_ENABLE)
        self.flash.execute(t, opcode, address=address, data=data)


MAX_FRAME = 0x4000  # escaped; a RAM block of 0x1800 bytes may double
_ESCAPE = re.compile(rb"\xdb(.)", re.DOTALL)
_ESCAPED = {b"\xdc": END, b"\xdd": ESC}


class RomReceiver:
    """SLIP decoder of the ROM loader."""

    def __init__(self) -> None:
        self._open = False
        self._run = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Decode received bytes; returns the frames that they complete."""
        frames: list[bytes] = []
        runs = data.split(END)
        for run in runs[:-1]:  # each of these is followed by an END
            if not self._open:
                self._open = True
                continue
            whole = bytes(self._run) + run if self._run else run
            self._run.clear()
            if _ends_in_escape(whole):
                self._run += whole + END  # that END is data
            elif whole:
                self._open = False
                frames.append(_unescape(whole))
        if self._open:
            self._run += runs[-1]
            if len(self._run) > MAX_FRAME:
                del self._run[MAX_FRAME:]
        return frames


def _ends_in_escape(run: bytes) -> bool:
    return run.endswith(ESC) and (len(run) - len(run.rstrip(ESC))) % 2 == 1


def _unescape(run: bytes) -> bytes:
    if run.count(ESC) == run.count(ESC_END) + run.count(ESC_ESC):
        return run.replace(ESC_END, END).replace(ESC_ESC, ESC)
    return _ESCAPE.sub(lambda match: _ESCAPED.get(match[1], match[1]), run)
