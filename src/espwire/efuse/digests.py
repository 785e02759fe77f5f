"""What a chip supports for digests of secure boot keys: their purposes, the only place of one, kinds of keys."""

from __future__ import annotations

from typing import TYPE_CHECKING

from espwire.efuse.keys import Key
from espwire.efuse.model import FuseData, Purpose
from espwire.efuse.planner import build_refusal
from espwire.efuse.state import FuseState
from espwire.flash.findings import Finding, build_fatal

if TYPE_CHECKING:
    from espwire.secure.keys import Scheme


def judge_scheme(state: FuseState, scheme: Scheme) -> list[Finding]:
    """What is wrong with a kind of key for secure boot."""
    data, name = state.data, scheme.name
    first = data.digest_scheme_revisions.get(name, 0)
    if data.digest_schemes and (name not in data.digest_schemes or state.revision < first):
        since = (
            f" before revision v{first // 100}.{first % 100}" if name in data.digest_schemes else ""
        )
        text = f"secure boot of {data.name} cannot check {scheme.title} signatures{since}"
        return [build_fatal("efuse-digest-scheme", text, by_name_only=True)]
    if name in data.weak_digest_schemes:
        text = f"secure boot of {data.name} accepts some invalid ECDSA signatures (AR2026-006)"
        return [Finding("efuse-weak-ecdsa", text)]
    return []


def list_digest_purposes(data: FuseData) -> list[Purpose]:
    """The purposes of digests of public keys."""
    return [purpose for purpose in data.key_purposes if purpose.digest]


def find_only_place(state: FuseState) -> Key | None:
    """Where the digest belongs on chips with one place for it, as a key without data; None: there are several places.

    :raises DeviceError: the chip's revision or coding scheme does not support it
    """
    purposes = list_digest_purposes(state.data)
    if len(purposes) != 1:
        return None
    only = purposes[0]
    _require_support(state, only)
    if only.block is not None:
        return Key(only.name, b"")
    return Key(state.data.key_blocks[0], b"", only.name)


def _require_support(state: FuseState, purpose: Purpose) -> None:
    if purpose.min_revision is not None and state.revision < purpose.min_revision:
        raise build_refusal(
            f"{purpose.name} needs revision {purpose.min_revision} of {state.data.name}",
            f"This chip has revision {state.revision}.",
            "efuse-revision",
        )
    block = state.data.blocks[purpose.block or 0]
    if purpose.coding and state.scheme(block) != purpose.coding:
        raise build_refusal(
            f"{purpose.name} needs the coding scheme {purpose.coding}, not {state.scheme(block)}",
            "This chip cannot hold the digest.",
            "efuse-coding",
        )
