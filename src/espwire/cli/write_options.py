"""What ``write-flash`` may be told beside files and header settings: encryption, what need not be sent, consents."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TypeVar

import click

from espwire.errors import UsageError

if TYPE_CHECKING:
    from espwire.blob import Blob
    from espwire.cli.session import Session
    from espwire.flash.model import Policy
    from espwire.image.header import HeaderSettings

F = TypeVar("F", bound=Callable[..., Any])
Pair = tuple[int, str]
SKIP = "skip"  # in place of an old file: there is none for this one


@dataclass(frozen=True, kw_only=True)
class WriteChoices:
    """The options by their names on the command line."""

    compress: bool
    no_compress: bool
    erase_all: bool
    verify: bool
    encrypt: bool
    encrypt_files: tuple[Pair, ...]
    ignore_flash_enc_efuse: bool
    diff_with: tuple[str, ...]
    skip_flashed: bool
    trust_flash_content: bool
    force: bool
    allow: frozenset[str]

    def check(self) -> None:
        """Refuse options that contradict each other.

        :raises UsageError: code ``usage``
        """
        for one, other in (
            ("compress", "no_compress"),
            ("encrypt", "encrypt_files"),
            ("diff_with", "skip_flashed"),
            ("trust_flash_content", "skip_flashed"),
        ):
            if getattr(self, one) and getattr(self, other):
                raise UsageError(
                    f"{_spelt(one)} and {_spelt(other)} exclude each other",
                    hint="Leave one of them out.",
                )
        if self.trust_flash_content and not self.diff_with:
            raise UsageError(
                "--trust-flash-content needs --diff-with",
                hint="Name the files that the flash holds.",
            )

    def input_files(self) -> list[str]:
        """The files that these options name."""
        return [
            *(file for _, file in self.encrypt_files),
            *(file for file in self.diff_with if file.lower() != SKIP),
        ]

    def policy(self) -> Policy:
        """The same for the library."""
        from espwire.flash.model import Policy

        return Policy(
            compress=True if self.compress else False if self.no_compress else None,
            verify=self.verify or None,
            erase_all=self.erase_all,
            force=self.force,
            consents=self.allow,
            ignore_flash_enc_efuse=self.ignore_flash_enc_efuse,
            skip_flashed=self.skip_flashed,
            trust_flash_content=self.trust_flash_content,
        )


def encrypt_options(command: F) -> F:
    """``--encrypt``, ``--encrypt-files``, ``--ignore-flash-enc-efuse``."""
    for option in (
        click.option(
            "--ignore-flash-enc-efuse",
            is_flag=True,
            help="Do not ask the eFuses whether the chip can encrypt.",
        ),
        click.option(
            "--encrypt-files",
            nargs=2,
            multiple=True,
            metavar="ADDRESS FILE…",
            callback=_parse_pairs,
            help="Files that the chip shall encrypt, beside others that it shall not.",
        ),
        click.option(
            "--encrypt",
            is_flag=True,
            help="Have the chip encrypt all files. That cannot be verified.",
        ),
    ):
        command = option(command)
    return command


def unchanged_options(command: F) -> F:
    """``--diff-with``, ``--skip-flashed``, ``--trust-flash-content``."""
    for option in (
        click.option(
            "--trust-flash-content",
            is_flag=True,
            help="Do not check files that are as --diff-with has them.",
        ),
        click.option(
            "-s",
            "--skip-flashed",
            is_flag=True,
            help="Leave out each file that the flash holds already.",
        ),
        click.option(
            "--diff-with",
            multiple=True,
            metavar="FILE|skip…",
            help="What the flash holds now, file by file: only sectors that differ are written.",
        ),
    ):
        command = option(command)
    return command


def read_parts(
    pairs: Sequence[Pair],
    chosen: WriteChoices,
    session: Session | None = None,
    *,
    settings: HeaderSettings | None = None,
) -> list[Blob]:
    """The files as parts: plain or encrypted, each with what the flash holds in its place now, if that is told.

    What is left over of the old files counts for nothing.

    :raises FileError, HexError: a file cannot be used
    """
    from espwire.cli.parts import read_pairs
    from espwire.files import check_total_size

    old = chosen.diff_with
    check_total_size([path for _, path in (*pairs, *chosen.encrypt_files)] + list(old))
    parts: list[Blob] = []
    for number, pair in enumerate(pairs):
        new = read_pairs([pair], session, settings=settings)
        if number < len(old) and old[number].lower() != SKIP:
            new = _add_previous(new, read_pairs([(pair[0], old[number])], session))
        parts += new
    if chosen.encrypt:
        return [replace(part, encrypted=True) for part in parts]
    return [
        *parts,
        *(replace(part, encrypted=True) for part in read_pairs(chosen.encrypt_files, session)),
    ]


def _add_previous(new: Iterable[Blob], old: Iterable[Blob]) -> list[Blob]:
    """Each new part with the old one that begins where it begins; a part without one is written whole."""
    held = {(part.address, part.chips): part.data for part in old}
    return [replace(part, previous=held.get((part.address, part.chips))) for part in new]


def _parse_pairs(
    context: click.Context, parameter: click.Parameter, value: tuple[Pair, ...]
) -> tuple[Pair, ...]:
    from espwire.cli.number_types import parse_pair_address

    strict = context.obj.program.strict
    return tuple(
        (parse_pair_address(str(address), (), strict=strict), name) for address, name in value
    )


def _spelt(name: str) -> str:
    return "--" + name.replace("_", "-")
