"""Reply codes and what they mean. A reply is judged by its status byte alone: the error byte is stale on success."""

from __future__ import annotations

ROM_MEANINGS = {
    0x00: "undefined error",
    0x01: "a parameter is bad",
    0x02: "out of memory",
    0x03: "sending failed",
    0x04: "receiving failed",
    0x05: "the message is not acceptable (unknown command, wrong form, or out of turn)",
    0x06: "the command could not be carried out",
    0x07: "the data's checksum is wrong",
    0x08: "writing the flash failed",
    0x09: "reading the flash failed",
    0x0A: "the length for reading flash is wrong",
    0x0B: "the compressed data is broken",
    0x0C: "the compressed data's checksum is wrong",
    0x0D: "a parameter of the compressed data is bad",
    0x0E: "the size of RAM data is wrong",
    0x0F: "the RAM address is wrong",
    0x64: "a parameter of the certificate is bad",
    0x65: "the certificate's format is wrong",
    0x66: "the description is too long",
    0x67: "the description's encoding is wrong",
    0x69: "the storage is full",
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
    BAD_LENGTH: "the data's length is wrong",
    BAD_CHECKSUM: "the data's checksum is wrong",
    BAD_BLOCK: "the block size is wrong",
    UNKNOWN_COMMAND: "unknown command",
    0xC400: "a SPI operation failed",
    0xC500: "the flash could not be unlocked",
    NOT_OPEN: "no transfer is open",
    INFLATE_FAILED: "the compressed data is broken",
    TOO_LITTLE: "too little data",
    TOO_MUCH: "too much data",
    0xCA00: "programming the NAND flash failed",
    0xCB00: "erasing the NAND flash failed",
    NOT_IMPLEMENTED: "not implemented",
}
NOT_ACCEPTED, CHECKSUM = 0x05, 0x07


def status_meaning(status: bytes) -> str:
    """Words for the two status bytes of a failed reply.

    >>> status_meaning(bytes([1, 7]))
    "the data's checksum is wrong"
    """
    code = int.from_bytes(status[:2], "big")
    if code in STUB_MEANINGS:
        return STUB_MEANINGS[code]
    return ROM_MEANINGS.get(code & 0xFF, "unknown error")
