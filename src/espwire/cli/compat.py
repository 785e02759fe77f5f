"""Spellings of esptool's versions 1 to 5 → those that the commands here have. Rewrites words; knows no command's work.

Underscores in options and values need no help: click is told to read them as hyphens. What click can make sense of
stays as it is, so that nothing here changes the meaning of a line that is right without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import click

from espwire.errors import UsageError

OPTIONAL = -1  # takes a word if the next one is no option

_HEADER = "flash-freq flash-mode flash-size"
# command → the long options that versions 1, 2, 3 and 4 brought: those versions took any unique beginning of one.
# Later options have no abbreviations. tests/scenario/test_spellings.py compares this with what was harvested.
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
RENAMED = {
    "--fill-flash-size": "--pad-to-size",
    "--ignore-flash-encryption-efuse-setting": "--ignore-flash-enc-efuse",
    "--no-diff-verify": "--trust-flash-content",
}
# beginnings that were clear only because this option had hyphens where its like had underscores
HYPHENED = dict.fromkeys(("--flash-", "--flash-m"), "--flash-mmu-page-size")
# options that take any number of words, so many at a time; here they are given once for each of these
SEVERAL = {"--diff-with": 1, "--encrypt-files": 2}

_SDC = "it needs an ESP32-S31 that grants debugging by certificate"
_NAND = "NAND flash is out of scope so far"
# commands of esptool that are not here → why not; one that arrives needs no care: the table of commands wins
NOT_YET = {
    **dict.fromkeys(("read-sdc-chip-info", "verify-sdc-certificate"), _SDC),
    **dict.fromkeys(("dump-bbm", "read-nand-spare", "write-nand-spare"), _NAND),
}


def refuse_what_comes_later(name: str) -> None:
    """Tell of a command that esptool has and that is not here.

    :raises UsageError: it is one, code ``not-yet``
    """
    if reason := NOT_YET.get(name):
        raise UsageError(
            f"{name} is not there yet: {reason}",
            hint="Use esptool for this until then.",
            code="not-yet",
            command=name,
        )


def respell(command: click.Command, words: Sequence[str], *, name: str, stop: bool) -> list[str]:
    """``words`` as ``command`` spells its options: abbreviations in full, glued values on their own.

    :param name: the command's in ``LONG_OPTIONS``; empty for the program itself
    :param stop: leave all from the first word on that is neither an option nor its value

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
    line = _Line(takes, longs, LONG_OPTIONS.get(name, ()), diff=name == "verify-flash")
    return line.respell(list(words), stop=stop)


def _name_layout(words: Sequence[str]) -> list[str]:
    """Version 4 had ``image_info -v 1`` for ``--version 1``; everywhere else ``-v`` asks for more words.

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
    """The one long option that begins with ``name``, of the oldest version in which it was the only one.

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
    """What is needed to walk along one command's words. A plain class: a dataclass takes longer to make than to use."""

    def __init__(
        self,
        takes: Mapping[str, int],
        longs: Mapping[str, str],
        generations: Sequence[str],
        *,
        diff: bool,
    ) -> None:
        self.takes = takes  # option → how many words it takes
        self.longs = longs  # option of one letter → the same one's long name
        self.generations = generations
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
            spelt, count = self._long(word) if word.startswith("--") else self._short(word)
            if self.diff and spelt[0].partition("=")[0] in ("-d", "--diff", "-dyes", "-dno"):
                # a file may be called "yes": it is taken as an answer only where an address would stand
                taken = others % 2 == 0 and words[at : at + 1] in (["yes"], ["no"])
                spelt, at = _parse_diff(spelt[0], words[at] if taken else ""), at + taken
            if count == OPTIONAL:
                count = int(at < len(words) and not _is_option(words[at]))
            elif spelt and at + count <= len(words):
                # click takes a letter for a misspelt long option first, and looks for near ones: 1 ms. Where words are
                # missing, its complaint shall show what was typed.
                spelt = [self.longs.get(spelt[0], spelt[0]), *spelt[1:]]
            done += [*spelt, *words[at : at + count]]
            at += count
            many = SEVERAL.get(spelt[0], 0) if spelt else 0
            while many and many == count and at < len(words) and not _is_option(words[at]):
                done += [spelt[0], *words[at : at + many]]
                at += many
        return done

    def _find_port(self, word: str, after: list[str]) -> str | None:
        """The port that ``-p`` is given where the command has a flag of that name; None: it is the flag."""
        if not word.startswith("-p") or self.takes.get("-p") != 0 or "--port" not in self.takes:
            return None
        from espwire.cli.ports import is_port

        port = word[2:].removeprefix("=") or "".join(after)
        return port if is_port(port) else None

    def _long(self, word: str) -> tuple[list[str], int]:
        """A long option in full, and how many words follow it."""
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
                return [word], 0  # click has something to say about it
            name = full
        return [name + equals + value], 0 if equals else self.takes[name]

    def _short(self, word: str) -> tuple[list[str], int]:
        """A short option, its glued value apart where click would not find it, and how many words follow."""
        name, equals, value = word.partition("=")
        if word in self.takes:
            return [word], self.takes[word]
        if equals and name in self.takes:
            return ([name, value], 0) if len(name) == 2 and self.takes[name] else ([word], 0)
        if self.takes.get(
            word[:3]
        ):  # before it is taken for -s and -c with a value: esptool has only -sc
            return [word[:3], word[3:]], 0
        for at, letter in enumerate(word[1:], start=1):
            count = self.takes.get(f"-{letter}")
            if count is None:
                break
            if count:  # the rest of the word is its value, or the next one
                return [word], count if at + 1 == len(word) else 0
        else:
            return [word], 0
        return [word], 0


def _parse_diff(word: str, answer: str) -> list[str]:
    """Versions 1 to 4 asked ``--diff`` for a yes or no; now it is a flag."""
    name, _, glued = (
        word.partition("=") if word.startswith("--") else (word[:2], "", word[2:].removeprefix("="))
    )
    answer = answer or glued
    return [] if answer == "no" else [name] if answer in ("", "yes") else [word]


def _is_option(word: str) -> bool:
    return len(word) > 1 and word.startswith("-")
