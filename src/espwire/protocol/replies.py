"""Status codes in replies, and their meanings. Only the first status byte decides: the second is stale on success."""

from __future__ import annotations

ROM_MEANINGS = {
    0x00: "undefined error",
    0x01: "invalid parameter",
    0x02: "out of memory",
    0x03: "failed to send",
    0x04: "failed to receive",
    0x05: "invalid message (unknown command, wrong format, or wrong order)",
    0x06: "failed to carry out the command",
    0x07: "wrong checksum",
    0x08: "failed to write flash",
    0x09: "failed to read flash",
    0x0A: "wrong length for reading flash",
    0x0B: "invalid compressed data",
    0x0C: "wrong checksum of compressed data",
    0x0D: "invalid parameter for compressed data",
    0x0E: "wrong size of RAM data",
    0x0F: "wrong RAM address",
    0x64: "these data cannot be encrypted, or invalid parameter of the certificate",
    0x65: "wrong format of the certificate",
    0x66: "description too long",
    0x67: "wrong encoding of the description",
    0x69: "storage full",
}
BAD_LENGTH, BAD_CHECKSUM, BAD_BLOCK, UNKNOWN_COMMAND = (
    0xC000,
    0xC100,
    0xC200,
    0xC300,
)  # a stub's, both status bytes
NOT_OPEN, INFLATE_FAILED, TOO_LITTLE, TOO_MUCH, NOT_IMPLEMENTED = (
    0xC600,
    0xC700,
    0xC800,
    0xC900,
    0xFF00,
)
STUB_MEANINGS = {
    BAD_LENGTH: "wrong data length",
    BAD_CHECKSUM: "wrong checksum",
    BAD_BLOCK: "wrong block size",
    UNKNOWN_COMMAND: "unknown command",
    0xC400: "SPI operation failed",
    0xC500: "failed to unlock flash",
    NOT_OPEN: "no open transfer",
    INFLATE_FAILED: "invalid compressed data",
    TOO_LITTLE: "too little data",
    TOO_MUCH: "too much data",
    0xCA00: "failed to program NAND flash",
    0xCB00: "failed to erase NAND flash",
    NOT_IMPLEMENTED: "not implemented",
}
NOT_ACCEPTED, CHECKSUM = 0x05, 0x07


def status_meaning(status: bytes) -> str:
    """The meaning of the two status bytes of a failed reply.

    >>> status_meaning(bytes([1, 7]))
    'wrong checksum'
    """
    code = int.from_bytes(status[:2], "big")
    if code in STUB_MEANINGS:
        return STUB_MEANINGS[code]
    return ROM_MEANINGS.get(code & 0xFF, "unknown error")
