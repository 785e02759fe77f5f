"""Translates the spellings of esptool 1 to 5 to espwire's: abbreviated, glued and renamed options.

What click understands stays as it is, so the meaning of a valid line never changes. Underscores are handled by click.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from espwire.cli.ports import is_port
from espwire.errors import UsageError

OPTIONAL = -1  # takes an argument unless the next one is an option

_HEADER = "flash-freq flash-mode flash-size"
# command → the long options that versions 1, 2, 3 and 4 introduced: these versions accepted any unique prefix.
# Later options have no abbreviations. tests/scenario/test_spellings.py compares this with the programs themselves.
LONG_OPTIONS: dict[str, tuple[str, ...]] = {
    "": (
        "baud port",
        "after before chip no-stub override-vddsdio trace",
        "connect-attempts",
        "port-filter",
    ),
    "elf2image": (
        f"{_HEADER} output version",
        "elf-sha256-offset min-rev secure-pad spi-connection",
        "flash-mmu-page-size max-rev-full min-rev-full pad-to-size secure-pad-v2 use-segments",
        "dont-append-digest ram-only-header",
    ),
    "erase-flash": ("", "spi-connection", "", "force"),
    "erase-region": ("", "spi-connection", "", "force"),
    "flash-id": ("", "spi-connection"),
    "image-info": ("", "", "", "version"),
    "make-image": ("entrypoint segaddr segfile",),
    "merge-bin": (
        "",
        "",
        f"fill-flash-size {_HEADER} format output spi-connection target-offset",
        "chunk-size md5-disable",
    ),
    "read-flash": ("no-progress", "spi-connection", "", "flash-size"),
    "read-flash-sfdp": ("", "", "", f"{_HEADER} spi-connection"),
    "read-flash-status": ("", "bytes spi-connection"),
    "verify-flash": (f"diff {_HEADER}", "spi-connection"),
    "write-flash": (
        f"{_HEADER} no-progress verify",
        "compress encrypt erase-all ignore-flash-encryption-efuse-setting no-compress spi-connection",
        "encrypt-files",
        "force",
    ),
    "write-flash-status": ("", "bytes non-volatile spi-connection"),
}
# the same for espsecure, of which versions 2 to 4 are known
_CIPHER = ("", "address flash-crypt-conf keyfile output", "aes-xts")
SECURE_OPTIONS: dict[str, tuple[str, ...]] = {
    "decrypt-flash-data": _CIPHER,
    "digest-private-key": ("", "keyfile keylen"),
    "digest-rsa-public-key": ("", "", "keyfile output"),
    "digest-sbv2-public-key": ("", "", "keyfile output"),
    "digest-secure-bootloader": ("", "iv keyfile output"),
    "encrypt-flash-data": _CIPHER,
    "extract-public-key": ("", "keyfile", "version"),
    "generate-flash-encryption-key": ("", "keylen"),
    "generate-signing-key": ("", "", "scheme version"),
    "sign-data": (
        "",
        "keyfile output",
        "append-signatures version",
        "hsm hsm-config pub-key signature",
    ),
    "verify-signature": ("", "keyfile", "version", "hsm hsm-config"),
}
# the same for espefuse, of which versions 3 and 4 are known; the options of the program itself are those of "efuse"
_FORCE = ("", "", "force-write-always")
_KEY = (
    "",
    "",
    "force-write-always no-protect-key no-read-protect no-write-protect",
    "show-sensitive-info",
)
EFUSE_OPTIONS: dict[str, tuple[str, ...]] = {
    "efuse": (
        "",
        "",
        "baud before chip debug do-not-confirm path-efuse-file port virt",
        "extend-efuse-table postpone",
    ),
    "burn-bit": _FORCE,
    "burn-block-data": ("", "", "force-write-always offset"),
    "burn-custom-mac": _FORCE,
    "burn-efuse": ("", "", "", "force"),
    "burn-key": _KEY,
    "burn-key-digest": _KEY,
    "check-error": ("", "", "recovery"),
    "dump": ("", "", "file-name", "format"),
    "summary": ("", "", "file format"),
}
RENAMED = {
    "--fill-flash-size": "--pad-to-size",
    "--ignore-flash-encryption-efuse-setting": "--ignore-flash-enc-efuse",
    "--no-diff-verify": "--trust-flash-content",
}
# prefixes that were unique only because this option has hyphens where similar ones had underscores
HYPHENED = dict.fromkeys(("--flash-", "--flash-m"), "--flash-mmu-page-size")
# options with any number of values → values per repetition in espwire
SEVERAL = {"--diff-with": 1, "--encrypt-files": 2}
# of these, the last word of a line is not a value if the command has no other word
KEY_LISTS = ("--keyfile", "--pub-key", "--signature")

_NAND = "NAND flash is not supported yet"
# commands of esptool that espwire does not have → the reason
MISSING = {
    **dict.fromkeys(("dump-bbm", "read-nand-spare", "write-nand-spare"), _NAND),
}


def refuse_missing(name: str) -> None:
    """:raises UsageError: code ``not-yet``: espwire does not have this command of esptool"""
    if reason := MISSING.get(name):
        raise UsageError(
            f"{name} is not available yet: {reason}",
            hint="Use esptool for this until then.",
            code="not-yet",
            command=name,
        )


def respell(command: click.Command, words: Sequence[str], *, name: str, stop: bool) -> list[str]:
    """``words`` with the options as ``command`` spells them: abbreviations expanded, glued values separated.

    :param name: the command's name in ``LONG_OPTIONS`` and the other tables; empty for the program itself
    :param stop: leave everything unchanged from the first word that is neither an option nor its value

    >>> respell(click.Command("x", params=[click.Option(["-fm"])]), ["-fmdio", "0"], name="x", stop=False)
    ['-fm', 'dio', '0']
    """
    takes, longs = {"-h": 0, "--help": 0}, {"-h": "--help"}
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            takes |= dict.fromkeys(
                (*parameter.opts, *parameter.secondary_opts), _count_words(parameter)
            )
            long = [option for option in parameter.opts if option.startswith("--")][:1]
            longs |= {
                option: name for option in parameter.opts if len(option) == 2 for name in long
            }
    if name == "image-info":
        words = _name_layout(words)
    several = dict.fromkeys(
        (
            option
            for parameter in command.params
            if isinstance(parameter, click.Option) and parameter.multiple
            for option in parameter.opts
            if option in KEY_LISTS
        ),
        1,
    )
    generations = LONG_OPTIONS.get(name) or SECURE_OPTIONS.get(name) or EFUSE_OPTIONS.get(name, ())
    line = _Line(takes, longs, generations, SEVERAL | several, diff=name == "verify-flash")
    return line.respell(list(words), stop=stop)


def _name_layout(words: Sequence[str]) -> list[str]:
    """Version 4 had ``image_info -v 1`` for ``--version 1``; elsewhere, ``-v`` is ``--verbose``.

    >>> _name_layout(["-v", "2", "a.bin"]), _name_layout(["-v", "a.bin"])
    (['--version', '2', 'a.bin'], ['-v', 'a.bin'])
    """
    named: list[str] = []
    for at, word in enumerate(words):
        if word in ("-v1", "-v2"):
            named += ["--version", word[2:]]
        else:
            named.append(
                "--version" if word == "-v" and words[at + 1 : at + 2] in (["1"], ["2"]) else word
            )
    return named


def _count_words(option: click.Option) -> int:
    if getattr(option, "_flag_needs_value", False):
        return OPTIONAL
    return 0 if option.is_flag or option.count else option.nargs


def expand_long(name: str, generations: Sequence[str]) -> str | None:
    """The long option with the prefix ``name``, in the oldest version where the prefix was unique.

    >>> expand_long("--no", ("no-progress", "no-compress")), expand_long("--flash", ("flash-size flash-mode",))
    ('--no-progress', None)
    """
    known = ["help"]
    for generation in generations:
        known += generation.split()
        fits = [option for option in known if f"--{option}".startswith(name)]
        if fits:
            return f"--{fits[0]}" if len(fits) == 1 else None
    return None


class _Line:
    """Walks along the arguments of a command."""

    def __init__(
        self,
        takes: Mapping[str, int],
        longs: Mapping[str, str],
        generations: Sequence[str],
        several: Mapping[str, int],
        *,
        diff: bool,
    ) -> None:
        self.takes = takes  # option → number of its values
        self.longs = longs  # short option → its long name
        self.generations = generations
        self.several = several  # option with any number of values → values per repetition
        self.diff = diff  # whether --diff may be followed by yes or no

    def respell(self, words: list[str], *, stop: bool) -> list[str]:
        done: list[str] = []
        at = others = 0
        while at < len(words):
            word = words[at]
            at += 1
            if word == "--" or (stop and not _is_option(word)):
                return [*done, word, *words[at:]]
            if not _is_option(word):
                done.append(word)
                others += 1
                continue
            if (port := self._find_port(word, words[at : at + 1])) is not None:
                done += ["--port", port]
                at += word == "-p"
                continue
            spelled, count = self._long(word) if word.startswith("--") else self._short(word)
            if self.diff and spelled[0].partition("=")[0] in ("-d", "--diff", "-dyes", "-dno"):
                # "yes" may be a file name: it is a value of --diff only where an address is expected
                taken = others % 2 == 0 and words[at : at + 1] in (["yes"], ["no"])
                spelled, at = _parse_diff(spelled[0], words[at] if taken else ""), at + taken
            if count == OPTIONAL:
                count = int(at < len(words) and not _is_option(words[at]))
            elif spelled and at + count <= len(words):
                # if values are missing, click's error shows what was typed
                spelled = [self.longs.get(spelled[0], spelled[0]), *spelled[1:]]
            done += [*spelled, *words[at : at + count]]
            at += count
            many = self.several.get(spelled[0], 0) if spelled else 0
            while many and many == count and at < len(words) and not _is_option(words[at]):
                if spelled[0] in KEY_LISTS and not others and at + 1 == len(words):
                    break  # the last word is the file to work on
                done += [spelled[0], *words[at : at + many]]
                at += many
        return done

    def _find_port(self, word: str, after: list[str]) -> str | None:
        """The value of ``-p`` if it is a port, although the command has a flag of that name; None: it is the flag."""
        if not word.startswith("-p") or self.takes.get("-p") != 0 or "--port" not in self.takes:
            return None

        port = word[2:].removeprefix("=") or "".join(after)
        return port if is_port(port) else None

    def _long(self, word: str) -> tuple[list[str], int]:
        """A long option in full, and the number of values that follow it."""
        written, equals, value = word.partition("=")
        name = written.replace("_", "-")
        if name not in self.takes:
            hyphened = HYPHENED.get(written, "")
            full = (
                hyphened
                if hyphened in self.takes
                else RENAMED.get(name) or expand_long(name, self.generations)
            )
            full = full if full is None or full in self.takes else RENAMED.get(full)
            if full is None or full not in self.takes:
                return [word], 0  # click reports it
            name = full
        return [name + equals + value], 0 if equals else self.takes[name]

    def _short(self, word: str) -> tuple[list[str], int]:
        """A short option, with its glued value separated if click would not find it, and the number of values that follow."""
        name, equals, value = word.partition("=")
        if word in self.takes:
            return [word], self.takes[word]
        if equals and name in self.takes:
            return ([name, value], 0) if len(name) == 2 and self.takes[name] else ([word], 0)
        if self.takes.get(word[:3]):  # -sc, not -s -c
            return [word[:3], word[3:]], 0
        for at, letter in enumerate(word[1:], start=1):
            count = self.takes.get(f"-{letter}")
            if count is None:
                break
            if count:  # the rest of the word is its value, or the next word is
                return [word], count if at + 1 == len(word) else 0
        return [word], 0


def _parse_diff(word: str, answer: str) -> list[str]:
    """In versions 1 to 4, ``--diff`` had the value yes or no; now it is a flag."""
    name, _, glued = (
        word.partition("=") if word.startswith("--") else (word[:2], "", word[2:].removeprefix("="))
    )
    answer = answer or glued
    return [] if answer == "no" else [name] if answer in ("", "yes") else [word]


def _is_option(word: str) -> bool:
    return len(word) > 1 and word.startswith("-")
