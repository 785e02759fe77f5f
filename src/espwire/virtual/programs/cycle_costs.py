"""How many CPU cycles our stub needs for what it does: numbers for its twin, measured on the engines.

``tools/measure_pace.py`` measures them on the packed images and prints this table; run it after the stub has changed.
Two cycles an instruction, twenty an access to a peripheral; bit times of UART and SPI come on top.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType


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
    program_burst: int  # with the question whether the flash is ready
    skip_burst: int  # ditto, of 0xFF, which is not programmed
    transaction: int


PACES: Mapping[str, Pace] = MappingProxyType(
    {
        "esp8266": Pace(
            start=146286,
            command=2723,
            receive_byte=88,
            send_byte=115,
            copy_byte=22,
            crc_byte=38,
            sum_byte=36,
            inflate_in=194,
            inflate_out=84,
            md5_byte=34,
            look_byte=15,
            read_burst=1120,
            program_burst=3244,
            skip_burst=850,
            transaction=600,
        ),
        "esp32": Pace(
            start=146388,
            command=2723,
            receive_byte=86,
            send_byte=115,
            copy_byte=23,
            crc_byte=38,
            sum_byte=36,
            inflate_in=194,
            inflate_out=84,
            md5_byte=34,
            look_byte=15,
            read_burst=1170,
            program_burst=3452,
            skip_burst=850,
            transaction=600,
        ),
        "esp32c3": Pace(
            start=146376,
            command=2851,
            receive_byte=98,
            send_byte=99,
            copy_byte=29,
            crc_byte=46,
            sum_byte=42,
            inflate_in=192,
            inflate_out=100,
            md5_byte=38,
            look_byte=13,
            read_burst=1225,
            program_burst=3392,
            skip_burst=850,
            transaction=600,
        ),
    }
)
