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
for its second byte, even for END. Recorded and probed, ESP32 and ESP32-C3 alike. A frame longer than the buffer is
ignored (not probed).
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
    WITH_LONG_ADDRESS,
    WRITE_ENABLE,
    Op,
)
from espwire.protocol.slip import END, ESC, ESC_END, ESC_ESC
from espwire.sizes import BLOCK, SECTOR, align_down, align_up
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
SPI_24_BIT = 1 << 24
MD5_PIECE = 0x10000
LOAD_FAULT, STORE_FAULT = "Load access fault", "Store/AMO access fault"

OK = 0
BAD_MESSAGE, FAILED, BAD_CHECKSUM, READ_FAILED, READ_LENGTH = 0x05, 0x06, 0x07, 0x09, 0x0A
BAD_DEFLATE, BAD_ADLER, BAD_CERTIFICATE = 0x0B, 0x0C, 0x65
# commands that clear the error byte when they succeed; after the others it is that of the last failure
CLEARS_ERROR = {
    Op.SYNC,
    Op.READ_REG,
    Op.WRITE_REG,
    Op.SPI_ATTACH,
    Op.READ_FLASH_SLOW,
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
    """The last BEGIN and the progress of its data. ``address``: destination of the next block."""

    to_ram: bool
    address: int
    blocks: int
    block_size: int
    sequence: int = 0
    inflate: zlib._Decompress | None = None
    encrypted: bool = False
    held: bytes = b""  # of an encrypted transfer: an incomplete cipher block


class Rom:
    """State of a loader. ``limit`` is the flash size that it assumes."""

    def __init__(self, chip: Chip, registers: Registers, flash: RomFlash, host: LoaderHost) -> None:
        self.dialect = chip.rom
        self.registers, self.flash, self.host = registers, flash, host
        self.security_info = b""
        self.secure_download = False
        self.encrypt: Encrypt | None = None
        self._default_limit = chip.flash.default_size if self.dialect.attach_bytes else SPI_24_BIT
        self._handlers: dict[int, Callable[[float], Handling]] = {
            Op.SYNC: self._sync,
            Op.READ_REG: self._read_reg,
            Op.WRITE_REG: self._write_reg,
            Op.MEM_BEGIN: self._mem_begin,
            Op.MEM_DATA: self._mem_data,
            Op.MEM_END: self._accept,
            Op.FLASH_BEGIN: self._flash_begin,
            Op.FLASH_DATA: self._flash_data,
            Op.FLASH_END: self._flash_end,
            Op.FLASH_DEFL_BEGIN: self._flash_begin,
            Op.FLASH_DEFL_DATA: self._flash_data,
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
        self._transfer: Transfer | None = None
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
        """What follows the reply: starting a program, a restart, a new baud rate."""
        first, entry = self._word(0), self._word(1)
        match self._op:
            case Op.CHANGE_BAUDRATE:
                yield t + self.host.sending_time(HEADER.size + self.dialect.status_bytes + 2)
                self.host.change_baud(first)
                self.host.send(slip.END * 2)
            case Op.FLASH_END | Op.FLASH_DEFL_END if not first:
                self.host.send(slip.END * 2)
                self.host.restart()
            case Op.FLASH_END:
                self.host.run(None)
            case Op.MEM_END if not first:
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
        for group in range(max(1, min(self._declared_size, REQUEST_BUFFER - HEADER.size) // 16)):
            address, value, mask, delay_us = (self._word(4 * group + i) for i in range(4))
            t = yield t + delay_us / 1e6
            if not self.registers.write(t, address, value, mask):
                self.host.crash(STORE_FAULT, address)
                return None
        return OK

    def _mem_begin(self, t: float) -> Handling:
        size, blocks, block_size, address = (self._word(i) for i in range(4))
        self._transfer = Transfer(True, address, blocks, block_size)
        self._uploads.append((address, size))
        yield t
        return OK

    def _mem_data(self, t: float) -> Handling:
        taken = self._take_block()
        yield t
        if isinstance(taken, int):
            return taken
        transfer, payload = taken
        if not self._store(t, transfer.address, payload):
            self.host.crash(STORE_FAULT, transfer.address)
            return None
        transfer.address += len(payload)
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
        return self.registers.attached and start + size <= self.limit

    def _flash_begin(self, t: float) -> Handling:
        """FLASH_BEGIN and FLASH_DEFL_BEGIN: erase everything, then answer. A failed erase still opens the transfer.

        A chip without a key, or with encryption disabled by eFuse, refuses the encrypted flag.
        """
        size, blocks, block_size, offset = (self._word(i) for i in range(4))
        if self._declared_size != 4 * self.dialect.begin_words:
            return BAD_MESSAGE
        encrypted = self.dialect.begin_words > 4 and bool(self._word(4))
        if encrypted and self.encrypt is None:
            return FAILED
        if not self.dialect.attach_bytes:
            self.registers.attached = True
        inflate = zlib.decompressobj() if self._op == Op.FLASH_DEFL_BEGIN else None
        self._transfer = Transfer(
            False, offset, blocks, block_size, inflate=inflate, encrypted=encrypted
        )
        if size and (offset % SECTOR or not self._is_ready(offset, align_up(size, SECTOR))):
            return FAILED
        if not self.registers.attached:
            return FAILED
        yield from self.flash.erase(t, offset, count_erased(self.dialect.erase, offset, size))
        return OK

    def _flash_data(self, t: float) -> Handling:
        taken = self._take_block()
        if isinstance(taken, int):
            return taken
        transfer, payload = taken
        if self._op == Op.FLASH_DEFL_DATA:
            stream = transfer.inflate = transfer.inflate or zlib.decompressobj()
            over = stream.eof
            try:
                payload = b"" if over else stream.decompress(payload)
            except zlib.error as error:
                return BAD_ADLER if "data check" in str(error) else BAD_DEFLATE
            if over or stream.unused_data:
                self.host.hang()
                return None
            t = yield t + len(payload) * INFLATE_S_PER_BYTE
        if transfer.encrypted:
            payload = self._encrypt_payload(transfer, payload)
        address = transfer.address
        transfer.address += len(payload)
        if self._is_ready(address, len(payload)):
            yield from self.flash.program(t, address, payload)
        return OK

    def _encrypt_payload(self, transfer: Transfer, payload: bytes) -> bytes:
        """Encrypt the complete cipher blocks of a transfer; the last block is padded."""
        payload = transfer.held + payload
        last = (
            transfer.sequence >= transfer.blocks
            if transfer.inflate is None
            else transfer.inflate.eof
        )
        size = (
            align_up(len(payload), CIPHER_BLOCK)
            if last
            else len(payload) // CIPHER_BLOCK * CIPHER_BLOCK
        )
        transfer.held = payload[size:]
        encrypt = self.encrypt or (lambda data, address: data)
        return encrypt(payload[:size].ljust(size, b"\xff"), transfer.address)

    def _take_block(self) -> tuple[Transfer, bytes] | int:
        """The payload of the next data command, or the error code. The sequence number is used up before the checksum is
        verified, so a block with a wrong checksum cannot be sent again."""
        transfer, size = self._transfer, self._word(0)
        if (
            transfer is None
            or transfer.to_ram is not (self._op == Op.MEM_DATA)
            or size > transfer.block_size
        ):
            return BAD_MESSAGE
        if self._word(1) != transfer.sequence:
            return BAD_MESSAGE
        transfer.sequence += 1
        start = HEADER.size + DATA_HEAD
        payload = bytes(self._request[start : start + size])
        if int.from_bytes(self._request[4:8], "little") != checksum(payload):
            return BAD_CHECKSUM
        return transfer, payload

    def _flash_end(self, t: float) -> Handling:
        """FLASH_END and FLASH_DEFL_END: fails if blocks are missing, but still leaves the loader if requested."""
        transfer = self._transfer
        yield t
        return FAILED if transfer is not None and transfer.sequence < transfer.blocks else OK

    def _spi_attach(self, t: float) -> Handling:
        self.registers.attached, self.registers.attach_word = True, self._word(0)
        yield t
        return OK

    def _spi_set_params(self, t: float) -> Handling:
        self.limit = self._word(1)
        yield t
        return OK

    def _md5(self, t: float) -> Handling:
        self._size = MD5_DIGITS
        start, size = self._word(0), self._word(1)
        if not self._is_ready(start, size):
            return READ_FAILED
        digest = hashlib.md5(usedforsecurity=False)
        for offset in range(start, start + size, MD5_PIECE):
            piece = self.flash.read(t, offset, min(MD5_PIECE, start + size - offset))
            digest.update(piece)
            t = yield t + len(piece) * MD5_S_PER_BYTE
        self._reply[:MD5_DIGITS] = digest.hexdigest().encode()
        return OK

    def _read_slow(self, t: float) -> Handling:
        self._size = SLOW_READ
        start, size = self._word(0), self._word(1)
        yield t
        if size > SLOW_READ:
            return READ_LENGTH
        if not self._is_ready(start, size):
            return READ_FAILED
        self._reply[:size] = self.flash.read(t, start, size)
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
        """The secure-debug commands in form only: no certificate is valid, and the chip information is zeros, since its
        contents are unknown."""
        yield t
        match self._op:
            case Op.SDC_VERIF_DATA | Op.SDC_GEN_DATA:
                payload = bytes(self._request[HEADER.size + 4 : self._length])
                if len(payload) != self._word(0):
                    return BAD_MESSAGE
                if int.from_bytes(self._request[4:8], "little") != checksum(payload):
                    return BAD_CHECKSUM
            case Op.SDC_VERIF_END:
                return BAD_CERTIFICATE
            case Op.SDC_GEN_END:
                self._size = CHIP_INFORMATION
                self._reply[:CHIP_INFORMATION] = bytes(CHIP_INFORMATION)
        return OK


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
    """The ROM's flash routines."""

    def __init__(self, flash: NorFlash, *, long_addresses: bool) -> None:
        self.flash = flash
        self._long = long_addresses

    def erase(self, t: float, start: int, sectors: int) -> Work:
        """Erase ``sectors`` sectors from the sector of ``start`` on, by blocks of 64 KiB where possible, else by 4 KiB."""
        address = align_down(start, SECTOR)
        end = address + sectors * SECTOR
        while address < end:
            whole = address % BLOCK == 0 and end - address >= BLOCK
            self._modify(t, ERASE_BLOCK if whole else ERASE_SECTOR, address, b"")
            t = yield self.flash.busy_until
            address += BLOCK if whole else SECTOR
        return t

    def program(self, t: float, address: int, data: bytes) -> Work:
        """Program ``data``, page by page; returns when the last page is in flash."""
        position = 0
        while position < len(data):
            room = PAGE - (address + position) % PAGE
            piece = data[position : position + room]
            self._modify(t, PAGE_PROGRAM, address + position, piece)
            t = yield self.flash.busy_until
            position += len(piece)
        return t

    def read(self, t: float, address: int, size: int) -> bytes:
        """Read bytes."""
        return self.flash.read_array(t, address if self._long else address % LONG_FROM, size)

    def _modify(self, t: float, opcode: int, address: int, data: bytes) -> None:
        self.flash.execute(t, WRITE_ENABLE)
        self.flash.execute(t, self._opcode(opcode, address), address=address, data=data)

    def _opcode(self, opcode: int, address: int) -> int:
        return WITH_LONG_ADDRESS[opcode] if self._long and address >= LONG_FROM else opcode


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
                if len(whole) <= MAX_FRAME:
                    frames.append(_unescape(whole))
        if self._open and len(self._run) <= MAX_FRAME:
            self._run += runs[-1]
        return frames


def _ends_in_escape(run: bytes) -> bool:
    return run.endswith(ESC) and (len(run) - len(run.rstrip(ESC))) % 2 == 1


def _unescape(run: bytes) -> bytes:
    if run.count(ESC) == run.count(ESC_END) + run.count(ESC_ESC):
        return run.replace(ESC_END, END).replace(ESC_ESC, ESC)
    return _ESCAPE.sub(lambda match: _ESCAPED.get(match[1], match[1]), run)
