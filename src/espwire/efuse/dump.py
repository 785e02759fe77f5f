"""The words of all blocks: as text, as files' contents, and as a token."""

from __future__ import annotations

import os

from espwire.efuse.check import read_error_words
from espwire.efuse.model import Block
from espwire.efuse.state import FuseState
from espwire.efuse.token import Token, build_token

ALIAS_WIDTH = 16


def block_bytes(state: FuseState, block: Block) -> bytes:
    """The words of a block, little-endian."""
    return b"".join(word.to_bytes(4, "little") for word in state.words(block))


def draw_words(state: FuseState) -> str:
    """One line per block, as espefuse prints them."""
    return "\n".join(
        f"{block.name:15} ({' '.join(block.alias)[:ALIAS_WIDTH]:{ALIAS_WIDTH}}) [{block.id:<2}]"
        f" dump: {' '.join(f'{word:08x}' for word in state.words(block))}"
        for block in state.data.blocks
    )


def draw_hex(state: FuseState) -> str:
    """One line of hexadecimal bytes per block."""
    return "\n".join(block_bytes(state, block).hex() for block in state.data.blocks)


def draw_token(state: FuseState) -> str:
    """The EFSR token."""
    errors = b"".join(word.to_bytes(4, "little") for word in read_error_words(state))
    token = Token("EFSR", state.data.id, state.revision, state.blocks, errors)
    return build_token(token, [state.size(block) // 8 for block in state.data.blocks])


def name_files(state: FuseState, path: str) -> list[tuple[str, Block]]:
    """One file per block: the block's number before the extension of ``path``."""
    stem, extension = os.path.splitext(path)
    return [(f"{stem}{block.id}{extension}", block) for block in state.data.blocks]
