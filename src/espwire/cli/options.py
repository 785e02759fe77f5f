"""Options that several commands share, and the types of their values. Parses words; opens and decides nothing."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence, Set
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from espwire.chips.index import NAMES
from espwire.cli.number_types import Number, parse_pair_address

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

BEFORE = ("default-reset", "usb-reset", "no-reset", "no-reset-no-sync")
AFTER = ("hard-reset", "soft-reset", "no-reset", "no-reset-stub", "watchdog-reset")
MODES = ("keep", "qio", "qout", "dio", "dout")
INPUT_FORMATS = ("auto", "raw", "hex", "srec", "uf2", "elf")
FREQUENCIES = ("keep", *(f"{mhz}m" for mhz in (80, 64, 60, 48, 40, 32, 30, 26, 24, 20, 16, 15, 12)))


class Setting(click.Choice):  # type: ignore[type-arg]  # click 8.1 has no parameter here
    """A flash setting; a frequency also as ``40`` or ``40MHz``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As click's, for any spelling of a frequency."""
        if isinstance(value, str) and (
            match := re.fullmatch(r"([0-9]{1,3}) ?(m|mhz)?", value, re.IGNORECASE)
        ):
            value = f"{match[1]}m" if f"{match[1]}m" in self.choices else value
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
    from espwire.chips.registry import parse_chip_id

    context.obj.chip = None if value.lower() == "auto" else parse_chip_id(value)
    context.obj.given.add("chip")


def _extend(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> None:
    """Keep what a repeatable option gathers, from before the command and after it."""
    name = parameter.name or ""
    setattr(context.obj, name, (*getattr(context.obj, name), *value))


def _print_and_exit(context: click.Context, text: str) -> NoReturn:
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
        show_help(context)


def show_help(context: click.Context) -> NoReturn:
    """Print the help of the context's command, examples included, and exit."""
    from espwire.cli.examples import format_examples

    command = context.command
    if context.parent is not None:
        root = context.find_root().info_name
        shared = (
            f"Options such as --port, --chip and --baud work with every command: `{root} --help`."
        )
        command.epilog = "\n\n".join(part for part in (format_examples(context), shared) if part)
    _print_and_exit(context, context.get_help())


def _show_version(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and context.obj.json:
        context.obj.report_version()
        context.obj.close()
        context.exit()
    if value:
        _print_and_exit(context, context.obj.program.version_text)


def _show_all(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        context.meta[HELP_ALL] = True
        _print_and_exit(context, context.get_help())


def _complete(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """What a shell may offer as this option's value; cli/complete.py is loaded only when one asks."""
    from espwire.cli import complete

    offers = {
        "chip": complete.complete_chip,
        "port": complete.complete_port,
        "baud": complete.complete_baud,
    }
    return offers[parameter.name or ""](incomplete)


FILTER_HELP = (
    "Without --port, take only ports with these vid=, pid=, name=, serial=; several may follow."
)
FILTER_WORD = r"(vid|pid|name|serial)=.+"

Spec = tuple[tuple[str, ...], dict[str, Any]]
OUTPUT: tuple[Spec, ...] = (
    (
        ("trace", "-t", "--trace"),
        {"is_flag": True, "help": "Show each packet, with its time, on standard error."},
    ),
    (("verbose", "-v", "--verbose"), {"is_flag": True, "help": "Say more."}),
    (
        ("quiet", "-q", "--quiet", "-s", "--silent"),
        {"is_flag": True, "help": "Say results, warnings and errors only."},
    ),
    (("json", "--json"), {"is_flag": True, "help": "One JSON event per line on standard output."}),
)
CONNECTION: tuple[Spec, ...] = (
    (
        ("chip", "-c", "--chip"),
        {
            "metavar": "CHIP",
            "callback": _parse_chip,
            "shell_complete": _complete,
            "help": f"auto (the default), {', '.join(NAMES)}.",
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
        {
            "is_flag": True,
            "help": "Without --port, also take a port that is not known to lead to a board.",
        },
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
    (
        ("before", "--before"),
        {"type": click.Choice(BEFORE), "help": "How to get the chip into its loader."},
    ),
    (
        ("after", "-a", "--after"),
        {"type": click.Choice(AFTER), "help": "What to do with the chip at the end."},
    ),
    (
        ("no_stub", "--no-stub"),
        {"is_flag": True, "help": "Use the chip's ROM loader, and upload no stub."},
    ),
    (
        ("stub", "--stub"),
        {"metavar": "FILE", "help": "Use this stub, in the vendor's JSON format, not ours."},
    ),
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
        {
            "type": Number(max=1_000_000),
            "metavar": "N",
            "help": "Rounds of resetting and syncing; 0: no end.",
        },
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
        {
            "metavar": "FILE",
            "is_eager": True,
            "help": "Read settings from this espwire.toml or esptool.cfg.",
        },
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
            spread += [
                *(["--port-filter"] if spread[-1].replace("_", "-") != "--port-filter" else []),
                word,
            ]
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
        "--port-filter",
        multiple=True,
        expose_value=False,
        callback=_extend,
        metavar="KEY=VALUE…",
        help=told,
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
    kind = Setting(choices, case_sensitive=False)
    return click.option(
        short, long, type=kind, default="keep", metavar=metavar, callback=_or_setting, help=told
    )


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


def input_format_option(command: F) -> F:
    """``--format`` of a command that reads files; kept in the session."""
    return _format_option("--format", "--input-format")(command)


def named_input_format_option(command: F) -> F:
    """``--input-format``, of a command whose ``--format`` is that of its output."""
    return _format_option("--input-format")(command)


def _format_option(*names: str) -> Callable[[F], F]:
    told = "What the files are: auto (default), raw, hex (Intel HEX), srec, uf2 or elf."
    choice = click.Choice(INPUT_FORMATS)
    return click.option(
        *names,
        "input_format",
        type=choice,
        expose_value=False,
        callback=_keep_format,
        metavar="FORMAT",
        help=told,
    )


def _keep_format(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        context.obj.input_format = "srecord" if value == "srec" else value


def progress_option(command: F) -> F:
    """``-p/--no-progress`` of the flash commands (before the command, ``-p`` is the port)."""
    return click.option("-p", "--no-progress", is_flag=True, help="Draw no progress.")(command)


def dry_run_option(command: F) -> F:
    """``--dry-run``."""
    return click.option("--dry-run", is_flag=True, help="Show what would be done, and do nothing.")(
        command
    )


def pairs_argument(command: F) -> F:
    """``<address> <file>`` any number of times, as ``pairs``: tuples of the two words."""
    return click.argument(
        "pairs", nargs=-1, required=True, metavar="ADDRESS FILE…", callback=_parse_pairs
    )(command)


def _parse_pairs(
    context: click.Context, parameter: click.Parameter, words: tuple[str, ...]
) -> list[tuple[int, str]]:
    from espwire.cli.argument_mistakes import explain_file, explain_last

    for address, name in zip(words[::2], words[1::2], strict=False):
        if (mistake := explain_file(address, name, words)) is not None:
            raise mistake
    if len(words) % 2:
        raise explain_last(words[-1], words)
    strict = context.obj.program.strict
    return [
        (parse_pair_address(address, words, strict=strict), name)
        for address, name in zip(words[::2], words[1::2], strict=True)
    ]
