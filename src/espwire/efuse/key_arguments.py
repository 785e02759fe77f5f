"""Turns the arguments of ``burn-key`` and ``burn-key-digest`` into keys, whose files it reads."""

from __future__ import annotations

from collections.abc import Sequence

from espwire.efuse.digests import find_only_place, judge_scheme, list_digest_purposes
from espwire.efuse.keys import Key
from espwire.efuse.planner import Planner
from espwire.errors import UsageError
from espwire.files import read_file

BLOCK_BYTES = 32
KEY_LIMIT = 1 << 20


def read_keys(planner: Planner, words: Sequence[str]) -> list[Key]:
    """The keys of ``BLOCK KEYFILE PURPOSE …``; without PURPOSE on chips that do not store it.

    :raises UsageError: words are missing
    :raises FileError, KeyFileError: a file cannot be read, or has no usable key
    """
    return [
        Key(block, _read_key(planner, path, purpose), purpose)
        for block, path, purpose in _group(planner, words)
    ]


def read_digests(planner: Planner, words: Sequence[str]) -> list[Key]:
    """The digests of the public keys of ``BLOCK KEYFILE PURPOSE …``; only KEYFILE on chips with one block for them.

    :raises UsageError: words are missing, or a purpose is not for digests
    :raises FileError, KeyFileError: a file cannot be read, or has no usable key
    """
    only = find_only_place(planner.before)
    if only is not None:
        if len(words) != 1:
            raise UsageError("give one KEYFILE", hint="Write burn-key-digest KEYFILE.")
        return [only._replace(data=_digest(planner, words[0]))]
    digests = list_digest_purposes(planner.before.data)
    keys = []
    for block, path, name in _group(planner, words):
        if not planner.layout.purpose(name).digest:
            raise UsageError(
                f"{name} is not a purpose for a digest",
                hint=f"Use {', '.join(purpose.name for purpose in digests)}.",
            )
        keys.append(Key(block, _digest(planner, path), name))
    return keys


def _group(planner: Planner, words: Sequence[str]) -> list[tuple[str, str, str]]:
    by_name = any(purpose.block is not None for purpose in planner.before.data.key_purposes)
    size, form = (2, "BLOCK KEYFILE") if by_name else (3, "BLOCK KEYFILE PURPOSE")
    if len(words) % size:
        raise UsageError(
            f"{len(words)} arguments are not groups of {form}", hint=f"Write {form} for each key."
        )
    rows = [words[i : i + size] for i in range(0, len(words), size)]
    return [(row[0], row[1], row[2] if size == 3 else "") for row in rows]


def _read_key(planner: Planner, path: str, purpose: str) -> bytes:
    """The bytes of a key, most significant one first.

    :raises KeyFileError: code ``key-scheme``: an ECDSA key on a curve that the purpose does not fit
    """
    data = read_file(path, limit=KEY_LIMIT)
    curves = planner.layout.purpose(purpose).curves if purpose else ()
    if not curves:
        return data
    from espwire.secure.keys import SCHEMES, parse_private_key, wrong_scheme

    key = parse_private_key(data, path)
    if key.public.scheme.name not in curves:
        wanted = " or ".join(SCHEMES[name].title for name in curves)
        raise wrong_scheme(path, key.public.scheme, f"an {wanted} key")
    scalar = key.scalar()
    return scalar.rjust(-(-len(scalar) // BLOCK_BYTES) * BLOCK_BYTES, b"\0")


def _digest(planner: Planner, path: str) -> bytes:
    from espwire.secure.keys import parse_public_key

    public = parse_public_key(read_file(path, limit=KEY_LIMIT), path)
    planner.dangers += judge_scheme(planner.before, public.scheme)
    return public.digest()
