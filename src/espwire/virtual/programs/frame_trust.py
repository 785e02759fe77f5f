"""How far our stub trusts a frame from the host. Mirrors ``frame_trust`` in ``stub/src/frames.c``."""

from __future__ import annotations

from enum import IntEnum

from espwire.protocol.commands import parse_request
from espwire.protocol.opcodes import Op
from espwire.protocol.stub import StubOp, is_sealed

DATA_OPS = frozenset(
    {Op.FLASH_DATA, Op.FLASH_DEFL_DATA, Op.MEM_DATA}
)  # unsealed, they carry the vendor's checksum


class Trust(IntEnum):
    """Whether a frame is a request, and how sure that is."""

    DAMAGED = 0
    UNSEALED = 1
    SEALED = 2


def find_trust(frame: bytes, *, sealed: bool) -> Trust:
    """How far a frame can be trusted.

    :param sealed: the host is ours: unsealed frames are damaged, except a SYNC, which a vendor's tool sends first
    """
    request = parse_request(frame)
    if request is None:
        return Trust.DAMAGED
    if is_sealed(frame):
        return Trust.SEALED
    if request.op != Op.SYNC and (sealed or request.op >= StubOp.CAPABILITIES):
        return Trust.DAMAGED
    return (
        Trust.UNSEALED
        if request.check < (0x100 if request.op in DATA_OPS else 1)
        else Trust.DAMAGED
    )
