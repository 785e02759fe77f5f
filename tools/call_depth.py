"""Print the walk of write-flash's data: the deepest chain of calls from ``write_flash`` to ``Transport.write``.

    python tools/call_depth.py

A file is written to a virtual ESP32 through each kind of loader. Frames count from ``write_flash`` to the transport's
``write``, both included. "data" are chains that carry the file's content; "any" also counts attaching, verifying, polls.
"""

from __future__ import annotations

import random
import sys
from types import FrameType

from espwire import Blob, connect, write_flash
from espwire.device.stub_image import StubImage
from espwire.protocol.opcodes import Op
from espwire.protocol.slip import Decoder
from espwire.protocol.stub import StubOp

LOADERS = ("rom", "vendor stub", "stub")
DATA_OPS = {Op.FLASH_DATA, Op.FLASH_DEFL_DATA, StubOp.WRITE_DATA}
VENDOR = StubImage(entry=0x400BE5AC, segments=((0x400BE000, bytes(3432)), (0x3FFDEBA8, bytes(4))))


def measure(loader: str) -> dict[str, list[str]]:
    """The deepest chains, as names of functions: for the content (``data``) and for all that is sent (``any``)."""
    url = "virtual:esp32?size=1MB" + ("&stub=vendor" if loader == "vendor stub" else "")
    stub = {"rom": False, "vendor stub": VENDOR, "stub": True}[loader]
    deepest: dict[str, list[str]] = {"data": [], "any": []}
    with connect(url, stub=stub) as device:
        send = device.transport.write

        def write(data: bytes, deadline: float) -> None:
            chain = _walk_up(sys._getframe())
            is_data = any(
                frame[1] in DATA_OPS and len(frame) > 64 for frame in Decoder().feed(data)
            )
            for kind in ("data", "any") if is_data else ("any",):
                if len(chain) > len(deepest[kind]):
                    deepest[kind] = chain
            send(data, deadline)

        device.transport.write = write  # type: ignore[method-assign]
        content = random.Random(1).randbytes(0x6000) + bytes(0x6000)
        write_flash(device, [Blob(0x10000, content, "file")])
    return deepest


def _walk_up(frame: FrameType | None) -> list[str]:
    """Names of the functions from ``write_flash`` down to here."""
    chain: list[str] = []
    while frame is not None:
        chain.insert(0, frame.f_code.co_qualname if sys.version_info >= (3, 11) else "")
        if frame.f_code is write_flash.__code__:
            return chain
        frame = frame.f_back
    return []


def main() -> None:
    """Print the chains."""
    for loader in LOADERS:
        for kind, chain in measure(loader).items():
            print(f"{loader}, {kind}: {len(chain)} frames: {' -> '.join(chain)}")


if __name__ == "__main__":
    main()
