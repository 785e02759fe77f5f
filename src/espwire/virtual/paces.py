"""How many CPU cycles our stub needs for what it does: numbers for its twin, measured on the engines.

``tools/measure_pace.py`` measures them on the packed images and prints this table; run it after the stub has changed.
Two cycles an instruction, twenty an access to a peripheral; bit times of UART and SPI come on top.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from espwire.values import dataclass


@dataclass(frozen=True, kw_only=True)
class Pace:
    """CPU cycles. ``*_burst``: for 64 bytes of flash, ``transaction``: one on the flash's bus without data."""

    start: int  # from the first instruction to the hello
    command: int  # from a whole frame to its reply, for a command that does nothing
    receive_byte: int
    send_byte: int
    copy_byte: int  # from a frame to the window, for a raw write
    crc_byte: int
    sum_byte: int  # the vendor's checksum
    inflate_in: int  # for a byte of the stream
    inflate_out: int  # for a byte that comes out of it
    md5_byte: int
    look_byte: int  # HASH: whether it is 0xFF
    read_burst: int
    blank_burst: int  # read, and looked at by words
    packet_blank_burst: int  # by bytes, before a packet
    program_burst: int  # with the question whether the flash is ready
    skip_burst: int  # ditto, of 0xFF, which is not programmed
    transaction: int


PACES: Mapping[str, Pace] = MappingProxyType(
    {
        "esp8266": Pace(
            start=145380,
            command=2086,
            receive_byte=93,
            send_byte=111,
            copy_byte=13,
            crc_byte=38,
            sum_byte=37,
            inflate_in=185,
            inflate_out=84,
            md5_byte=31,
            look_byte=16,
            read_burst=1294,
            blank_burst=1454,
            packet_blank_burst=2010,
            program_burst=3232,
            skip_burst=850,
            transaction=600,
        ),
        "esp32": Pace(
            start=145482,
            command=2086,
            receive_byte=91,
            send_byte=111,
            copy_byte=13,
            crc_byte=38,
            sum_byte=37,
            inflate_in=185,
            inflate_out=84,
            md5_byte=31,
            look_byte=16,
            read_burst=1345,
            blank_burst=1505,
            packet_blank_burst=2059,
            program_burst=3440,
            skip_burst=850,
            transaction=600,
        ),
        "esp32c3": Pace(
            start=145396,
            command=2203,
            receive_byte=89,
            send_byte=87,
            copy_byte=17,
            crc_byte=46,
            sum_byte=43,
            inflate_in=184,
            inflate_out=100,
            md5_byte=34,
            look_byte=14,
            read_burst=1466,
            blank_burst=1626,
            packet_blank_burst=2229,
            program_burst=3380,
            skip_burst=850,
            transaction=600,
        ),
    }
)
