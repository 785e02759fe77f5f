"""Which keys a chip's eFuses trust for secure boot version 2, and whether it would refuse an image."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from espwire.blob import Blob
from espwire.chips.model import Chip
from espwire.efuse.danger import find_digests, is_readable, is_revoked
from espwire.efuse.state import FuseState
from espwire.flash.findings import Finding, build_fatal
from espwire.image.scan import Region, find_regions


class TrustedDigest(NamedTuple):
    """The digest of a public key in a block of eFuses: 32 bytes, or the first 16."""

    block: str
    purpose: str
    digest: bytes
    revoked: bool


def list_trusted(state: FuseState) -> list[TrustedDigest]:
    """The digests that software can read, revoked or not."""
    found = []
    for place in find_digests(state):
        if not is_readable(state, place):
            continue
        value = (state.blocks[place.block.id] & place.mask) >> place.purpose.start
        size = place.mask.bit_count() // 8
        digest = value.to_bytes(size, "little")
        name, purpose = place.block.name, place.purpose.name
        found.append(TrustedDigest(name, purpose, digest, is_revoked(state, place)))
    return found


def find_refusals(blobs: Iterable[Blob], chip: Chip, state: FuseState) -> tuple[Finding, ...]:
    """Findings for signed images that this chip would refuse by its keys."""
    trusted, findings = list_trusted(state), []
    for blob in blobs:
        for item in find_regions(blob.data, chip, start=blob.address):
            if item.image is None:
                continue
            name = f"the image in {blob.label} for {blob.address + item.offset:#x}"
            findings += _check_keys(item, name, trusted)
    return tuple(findings)


def _check_keys(item: Region, name: str, trusted: list[TrustedDigest]) -> list[Finding]:
    keys = [s.key_digest for s in item.signatures if s.version == 2 and s.intact and s.key_digest]
    matches = [t for t in trusted for key in keys if key.startswith(t.digest)]
    if not keys or any(not match.revoked for match in matches):
        return []
    if matches:
        text = f"{name} is signed only by keys that are revoked ({matches[0].purpose} in {matches[0].block}): it will not start"
        return [build_fatal("revoked-key", text)]
    shown = ", ".join(f"{key.hex()[:16]}…" for key in keys)
    text = f"{name} is signed by keys that the chip does not trust ({shown}): their digests are not in its eFuses, so it will not start"
    return [build_fatal("untrusted-key", text)]
