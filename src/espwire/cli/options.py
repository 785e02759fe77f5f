"""Options that several commands share, and the types of their values. Parses words; opens and decides nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence, Set
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

import click

from espwire.chips.index import CHIPS

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

BEFORE = ("default-reset", "usb-reset", "no-reset", "no-reset-no-sync")
AFTER = ("hard-reset", "soft-reset", "no-reset", "no-reset-stub", "watchdog-reset")
MODES = ("keep", "qio", "qout", "dio", "dout")
FREQUENCIES = ("keep", *(f"{mhz}m" for mhz in (80, 64, 60, 48, 40, 32, 30, 26, 24, 20, 16, 15, 12)))


MAX_NUMBER = 100  # characters; Python refuses to read very long numbers


class Number(click.IntRange):
    """A whole number, written as in C if one likes: ``0x1C200``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As click's, for any base."""
        if isinstance(value, str) and len(value) > MAX_NUMBER:
            self.fail(f"a number of {len(value):,} characters is out of range.", param, ctx)
        if isinstance(value, str) and value.lower().startswith(("0x", "0o", "0b")):
            with suppress(ValueError):
                value = int(value, 0)
        return super().convert(value, param, ctx)


HELP_ALL = "espwire.help-all"  # in a context's meta: somebody asked for all of it

F = TypeVar("F", bound=Callable[..., Any])


def _store(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Keep a global option in the session, wherever on the line it stood."""
    if value is not None and value is not False:
        setattr(context.obj, parameter.name or "", value)
        context.obj.given.add(parameter.name)


def _parse_chip(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is None:
        return
    from espwire.chips.lookup import parse_chip_id

    context.obj.chip = None if value.lower() == "auto" else parse_chip_id(value)
    context.obj.given.add("chip")


def _extend(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> None:
    """Keep what a repeatable option gathers, from before the command and after it."""
    name = parameter.name or ""
    setattr(context.obj, name, (*getattr(context.obj, name), *value))


def _print_and_exit(context: click.Context, text: str) -> None:
    """Print instead of running the command.

    :raises FileError: standard output does not take it
    """
    context.obj.output.line(text)
    context.obj.close()
    context.exit()


def help_option() -> click.Option:
    """``--help``, as click's own, but a full disk behind standard output is reported like any other failure."""
    return click.Option(
        ["-h", "--help"],
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=_show_help,
        help="Show this message and exit.",
    )


def _show_help(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        _print_and_exit(context, context.get_help())


def _show_version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        _print_and_exit(context, context.obj.program.version_text)


def _show_all(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        context.meta[HELP_ALL] = True
        _print_and_exit(context, context.get_help())


def _complete(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[CompletionItem[str]]:
    """What a shell may offer as this option's value; cli/complete.py is loaded only when one asks."""
    from espwire.cli import complete

    offers = {"chip": complete.complete_chip, "port": complete.complete_port, "baud": complete.complete_baud}
    return offers[parameter.name or ""](incomplete)


FILTER_HELP = "Without --port, take only ports with these vid=, pid=, name=, serial=; several may follow."
FILTER_WORD = r"(vid|pid|name|serial)=.+"

Spec = tuple[tuple[str, ...], dict[str, Any]]
OUTPUT: tuple[Spec, ...] = (
    (("trace", "-t", "--trace"), {"is_flag": True, "help": "Show each packet, with its time, on standard error."}),
    (("verbose", "-v", "--verbose"), {"is_flag": True, "help": "Say more."}),
    (("quiet", "-q", "--quiet", "-s", "--silent"), {"is_flag": True, "help": "Say results, warnings and errors only."}),
    (("json", "--json"), {"is_flag": True, "help": "One JSON event per line on standard output."}),
)
CONNECTION: tuple[Spec, ...] = (
    (
        ("chip", "-c", "--chip"),
        {
            "metavar": "CHIP",
            "callback": _parse_chip,
            "shell_complete": _complete,
            "help": f"auto (the default), {', '.join(CHIPS)}.",
        },
    ),
    (
        ("port", "-p", "--port"),
        {
            "metavar": "PORT",
            "shell_complete": _complete,
            "help": "A device (/dev/ttyUSB0, COM3), a USB serial number, a MAC seen before, socket://HOST:PORT,"
            " rfc2217://HOST:PORT, or virtual:CHIP?… Without it, the one board that is plugged in.",
        },
    ),
    (
        ("port_filter", "--port-filter"),
        {"multiple": True, "callback": _extend, "metavar": "KEY=VALUE…", "help": FILTER_HELP},
    ),
    (
        ("any_port", "--any-port"),
        {"is_flag": True, "help": "Without --port, also take a port that is not known to lead to a board."},
    ),
    (
        ("no_state", "--no-state"),
        {"is_flag": True, "help": "Neither read nor write what was learnt of adapters and boards."},
    ),
    (
        ("baud", "-b", "--baud"),
        {
            "type": Number(1, 100_000_000),
            "metavar": "N",
            "shell_complete": _complete,
            "help": "Rate for the data; 115200 if not given.",
        },
    ),
    (("before", "--before"), {"type": click.Choice(BEFORE), "help": "How to get the chip into its loader."}),
    (("after", "-a", "--after"), {"type": click.Choice(AFTER), "help": "What to do with the chip at the end."}),
    (("no_stub", "--no-stub"), {"is_flag": True, "help": "Use the chip's ROM loader, and upload no stub."}),
    (("stub", "--stub"), {"metavar": "FILE", "help": "Use this stub, in the vendor's JSON format, not ours."}),
    (
        ("stub_version", "--stub-version"),
        {
            "type": Number(1, 2),
            "metavar": "N",
            "hidden": True,
            "help": "For esptool's sake: we have one stub.",
        },
    ),
    (
        ("connect_attempts", "--connect-attempts"),
        {"type": Number(max=1_000_000), "metavar": "N", "help": "Rounds of resetting and syncing; 0: no end."},
    ),
    (
        ("override_vddsdio", "--override-vddsdio"),
        {
            "type": click.Choice(("1.8V", "1.9V", "OFF"), case_sensitive=False),
            "metavar": "VOLTAGE",
            "help": "ESP32: have its regulator give the flash 1.8V, 1.9V or nothing (OFF), until the next reset.",
        },
    ),
    (
        ("config", "--config"),
        {"metavar": "FILE", "is_eager": True, "help": "Read settings from this espwire.toml or esptool.cfg."},
    ),
)


def spread_filters(words: Sequence[str]) -> list[str]:
    """The command line with ``--port-filter`` before each of its values: several may follow one flag.

    >>> spread_filters(["--port-filter", "vid=0x303A", "pid=2", "flash-id"])
    ['--port-filter', 'vid=0x303A', '--port-filter', 'pid=2', 'flash-id']
    """
    spread: list[str] = []
    more = False  # whether another value may follow
    for at, word in enumerate(words):
        if more and re.fullmatch(FILTER_WORD, word, re.IGNORECASE):
            spread += [*(["--port-filter"] if spread[-1].replace("_", "-") != "--port-filter" else []), word]
            continue
        flag = word.partition("=")[0].replace("_", "-")
        more = flag == "--port-filter"
        spread.append(word)
        if word == "--":
            return [*spread, *words[at + 1 :]]
    return spread


def filter_option(command: F) -> F:
    """``--port-filter`` for a command that lists ports."""
    told = "Show only ports with these vid=, pid=, name=, serial=; several may follow."
    return click.option(
        "--port-filter", multiple=True, expose_value=False, callback=_extend, metavar="KEY=VALUE…", help=told
    )(command)


def global_options(
    *, hidden: bool = False, offline: bool = False, taken: Set[str] = frozenset()
) -> list[click.Parameter]:
    """The global options as click parameters that store into the session.

    :param hidden: leave them out of ``--help`` (they stand there for the group)
    :param offline: only those that a command without a device has a use for
    :param taken: spellings that the command uses for something else
    """
    made: list[click.Parameter] = []
    for (name, *spellings), keywords in OUTPUT if offline else CONNECTION + OUTPUT:
        free = [spelling for spelling in spellings if spelling not in taken]
        if not free:
            continue
        settings: dict[str, Any] = {"callback": _store, "expose_value": False} | keywords
        settings["hidden"] = hidden or keywords.get("hidden", False)
        made.append(click.Option([name, *free], **settings))
    if not hidden:
        made.append(
            click.Option(
                ["--version"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_show_version,
                help="Show the version and stop.",
            )
        )
        made.append(
            click.Option(
                ["--help-all"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_show_all,
                help="Show every command and option, and stop.",
            )
        )
    return made


def header_options(command: F) -> F:
    """``-fm -ff -fs``: what to write into the header of an image for the boot loader's place."""
    for option in (
        click.option(
            "-fs",
            "--flash-size",
            metavar="SIZE",
            default="keep",
            callback=_or_setting,
            help="keep, detect, 4MB, 2MB-c1, …",
        ),
        _choice("-ff", "--flash-freq", FREQUENCIES, "FREQ"),
        _choice("-fm", "--flash-mode", MODES, "MODE"),
    ):
        command = option(command)
    return command


def _choice(short: str, long: str, choices: tuple[str, ...], metavar: str) -> Callable[[F], F]:
    told = ", ".join(choices[:5]) + (", …" if len(choices) > 5 else "")
    kind = click.Choice(choices)
    return click.option(short, long, type=kind, default="keep", metavar=metavar, callback=_or_setting, help=told)


def _or_setting(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """The option, or where it is not given what files and environment say."""
    name = parameter.name or ""
    if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
        return value
    found = context.obj.values.get(name)
    return value if found is None else str(found.value)


def chip_option(command: F) -> F:
    """``--chip`` for a command that works without a device; kept in the session like the one before the command."""
    told = "Whose image it is; found out if not given."
    return click.option(
        "-c",
        "--chip",
        metavar="CHIP",
        expose_value=False,
        callback=_parse_chip,
        shell_complete=_complete,
        help=told,
    )(command)


def progress_option(command: F) -> F:
    """``-p/--no-progress`` of the flash commands (before the command, ``-p`` is the port)."""
    return click.option("-p", "--no-progress", is_flag=True, help="Draw no progress.")(command)


def dry_run_option(command: F) -> F:
    """``--dry-run``."""
    return click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")(command)


def pairs_argument(command: F) -> F:
    """``<address> <file>`` any number of times, as ``pairs``: tuples of the two words."""
    return click.argument("pairs", nargs=-1, required=True, metavar="ADDRESS FILE…", callback=_parse_pairs)(command)


def _parse_pairs(context: click.Context, parameter: click.Parameter, words: tuple[str, ...]) -> list[tuple[int, str]]:
    from espwire.bits import parse_number
    from espwire.errors import UsageError

    if len(words) % 2:
        raise UsageError(
            f"the file for address {words[-1]} is missing" if len(words) > 1 else f"{words[0]!r} stands alone",
            hint="Give pairs: an address, then the file for it.",
        )
    return [(parse_number(address, "address"), name) for address, name in zip(words[::2], words[1::2], strict=True)]


def parse_address(context: click.Context, parameter: click.Parameter, value: str) -> int:
    """Callback of an address argument."""
    from espwire.bits import parse_number

    return parse_number(value, "address")
