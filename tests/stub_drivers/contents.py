"""Flash contents of all kinds, by size in bytes."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import partial

from .frames import text

CRITICAL = (b"\xc0", b"\xdb", b"\xdc", b"\xdd", b"\x11", b"\x13", b"\0", b"\xff")
_WORDS = b"the chip reads its flash and sends each sector to the host when it is asked for it again ".split()


def _prose(size: int) -> bytes:
    pick, out = random.Random(8), bytearray()
    while len(out) < size:
        out += pick.choice(_WORDS) + b" "
    return bytes(out[:size])


def _mixed(size: int) -> bytes:
    """Blank, random and repetitive stretches of odd lengths."""
    pick, out = random.Random(9), bytearray()
    while len(out) < size:
        length = pick.randrange(1, 5000)
        out += pick.choice(
            (b"\xff" * length, pick.randbytes(length), text(length, 3), bytes(length))
        )
    return bytes(out[:size])


def _critical(size: int) -> bytes:
    return b"".join(random.Random(2).choices(CRITICAL, k=size))


def _only(one: bytes, size: int) -> bytes:
    return one * size


CONTENTS: dict[str, Callable[[int], bytes]] = {
    "blank": lambda size: b"\xff" * size,
    "zeros": bytes,
    "random": lambda size: random.Random(4).randbytes(size),
    "program": text,
    "prose": _prose,
    "mixed": _mixed,
    "bytes that transports may change": _critical,
    "almost blank": lambda size: (b"\xff" * size)[:-1] + b"\xfe",
    **{f"only {one.hex()}": partial(_only, one) for one in CRITICAL},
}
