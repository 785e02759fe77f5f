"""Options that several commands share, and the global options, which are built from the table of settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence, Set
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import click

from espwire.chips.index import NAMES
from espwire.cli.config import FREQUENCIES, MODES, SETTINGS, Setting
from espwire.cli.help import format_examples
from espwire.cli.number_types import parse_address
from espwire.errors import UsageError, check_consents
from espwire.sizes import parse_flash_size

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from espwire.cli.inputs import Input

INPUT_FORMATS = ("auto", "raw", "hex", "srec", "uf2", "elf")
HELP_ALL = "espwire.help-all"  # key of a click context's meta: --help-all is given
BAUDS = ("115200", "230400", "460800", "921600", "1500000", "2000000", "9600", "57600", "74880")
FILTER = r"(vid|pid|name|serial)=.+"
NAND = "NAND flash is not supported: it needs a stub flasher that can access it"

F = TypeVar("F", bound=Callable[..., Any])


def combine(*options: Callable[[Any], Any]) -> Callable[[F], F]:
    """Several options as one decorator, shown in help in this order."""

    def decorate(command: F) -> F:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


elf_option = click.option(
    "--elf",
    multiple=True,
    metavar="FILE",
    help="Resolve addresses by this ELF file; may be repeated. Default: that of the build in this folder.",
)

# global options


def require_content(parameter: click.Parameter, value: Any) -> None:
    """Refuse an empty value: a script whose variable is not set would use another board, or burn one.

    :raises UsageError: it is empty, or blank
    """
    if isinstance(value, str) and not value.strip():
        raise UsageError(
            f"the value of {parameter.opts[-1]} is empty", hint="Give a value, or omit the option."
        )


def _store(context: click.Context, parameter: click.Parameter, value: Any) -> None:
    """Keep a global option, wherever on the line it is."""
    require_content(parameter, value)
    if value is not None and value is not False:
        context.obj.options[parameter.name] = value


def _store_chip(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    if value is not None:
        from espwire.chips.registry import parse_chip_id

        context.obj.options["chip"] = None if value.lower() == "auto" else parse_chip_id(value)


def _extend(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> None:
    """Keep the values of a repeatable option, from before the command and after it."""
    if value:
        options = context.obj.options
        options[parameter.name] = (*options.get(parameter.name, ()), *value)


def _build_items(values: Mapping[str, str], incomplete: str) -> list[CompletionItem[str]]:
    """The values, with their help, that begin with what is typed."""
    from click.shell_completion import CompletionItem

    start = incomplete.lower()
    return [
        CompletionItem(value, help=text or None)
        for value, text in values.items()
        if value.lower().startswith(start)
    ]


def complete_chip(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """The names of the chips."""
    return _build_items({"auto": "detect the chip"} | NAMES, incomplete)


def complete_port(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """The existing ports, likely boards first. Opens none."""
    from espwire.transport.ports import likely_board, list_ports, list_system_ports, rank

    ports = rank(list_ports(list_system_ports))
    return _build_items({port.path: likely_board(port) for port in ports}, incomplete)


def complete_baud(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem[str]]:
    """The usual rates."""
    return _build_items(dict.fromkeys(BAUDS, ""), incomplete)


COMPLETERS = {"chip": complete_chip, "port": complete_port, "baud": complete_baud}


def _build_option(setting: Setting, flags: Sequence[str], **keywords: Any) -> click.Option:
    callback = {"chip": _store_chip, "port_filter": _extend}.get(setting.name, _store)
    return click.Option(
        [setting.name, *flags],
        callback=callback,
        expose_value=False,
        help=setting.help,
        shell_complete=COMPLETERS.get(setting.name),
        **(dict(setting.option) | keywords),
    )


def global_options(
    *, hidden: bool = False, offline: bool = False, taken: Set[str] = frozenset()
) -> list[click.Option]:
    """The global options of the table of settings.

    :param hidden: leave them out of ``--help``
    :param offline: only those for commands that never use a port
    :param taken: spellings that the command uses for something else
    """
    options: list[click.Option] = []
    for setting in SETTINGS.values():
        flags = [flag for flag in setting.flags if flag not in taken]
        if flags and (setting.offline or not offline):
            options.append(
                _build_option(setting, flags, hidden=hidden or setting.option.get("hidden", False))
            )
    if not hidden:
        options.append(_eager("--version", _show_version, "Show the version and exit."))
        options.append(_eager("--help-all", _show_all, "Show every command and option and exit."))
    return options


def _eager(name: str, callback: Callable[..., None], help: str) -> click.Option:
    return click.Option(
        name.split("|"),
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=callback,
        help=help,
    )


def help_option() -> click.Option:
    """``--help`` like click's own, but a full disk behind standard output is reported like any other failure."""
    return _eager("-h|--help", _show_help, "Show this message and exit.")


def _print_and_exit(context: click.Context, text: str) -> NoReturn:
    """:raises FileError: standard output is incomplete"""
    context.obj.output.line(text)
    context.obj.close()
    context.exit()


def _show_help(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value and not context.resilient_parsing:
        show_help(context)


def show_help(context: click.Context) -> NoReturn:
    """Print the help of the context's command, with examples, and exit."""

    if context.parent is not None:
        root = context.find_root().info_name
        shared = f"Global options such as --port, --chip and --baud: see `{root} --help`."
        paragraphs = [format_examples(context), shared]
        context.command.epilog = "\n\n".join(text for text in paragraphs if text)
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


def spread_filters(arguments: Sequence[str]) -> list[str]:
    """The command line with ``--port-filter`` before each of its values.

    >>> spread_filters(["--port-filter", "vid=0x303A", "pid=2", "flash-id"])
    ['--port-filter', 'vid=0x303A', '--port-filter', 'pid=2', 'flash-id']
    """
    spread: list[str] = []
    follows = False  # whether another value may follow
    for at, argument in enumerate(arguments):
        if follows and re.fullmatch(FILTER, argument, re.IGNORECASE):
            if spread[-1].replace("_", "-") != "--port-filter":
                spread.append("--port-filter")
            spread.append(argument)
            continue
        follows = argument.partition("=")[0].replace("_", "-") == "--port-filter"
        spread.append(argument)
        if argument == "--":
            return [*spread, *arguments[at + 1 :]]
    return spread


# options of commands

chip_option = click.option(
    "-c",
    "--chip",
    metavar="CHIP",
    expose_value=False,
    callback=_store_chip,
    shell_complete=complete_chip,
    help="Chip of the image. Default: detected from the file.",
)
filter_option = click.option(
    "--port-filter",
    multiple=True,
    expose_value=False,
    callback=_extend,
    metavar="KEY=VALUE…",
    help="Show only ports that match these vid=, pid=, name= or serial= values. Takes several values.",
)
dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Show what would be done, but do not change anything."
)
force_option = click.option("--force", is_flag=True, help="Continue even if a safety check fails.")


class FlashSetting(click.Choice):  # type: ignore[type-arg]  # not generic in click 8.1
    """A flash mode or frequency; a frequency also as ``40`` or ``40MHz``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The value in click's spelling."""
        if isinstance(value, str) and (
            match := re.fullmatch(r"([0-9]{1,3}) ?(m|mhz)?", value, re.IGNORECASE)
        ):
            value = f"{match[1]}m" if f"{match[1]}m" in self.choices else value
        return super().convert(value, param, ctx)


def _or_setting(context: click.Context, parameter: click.Parameter, value: str) -> str:
    """The option, or the value from settings files and environment."""
    name = parameter.name or ""
    if context.get_parameter_source(name) is not click.core.ParameterSource.DEFAULT:
        return value
    return str(context.obj.find(name))


def _header_option(
    short: str, long: str, metavar: str, help: str, **keywords: Any
) -> Callable[[F], F]:
    return click.option(
        short, long, default="keep", metavar=metavar, callback=_or_setting, help=help, **keywords
    )


# flash_mode, flash_freq, flash_size: what to write into the header of a bootloader image
header_options = combine(
    _header_option(
        "-fm",
        "--flash-mode",
        "MODE",
        f"Flash mode in the image header: {', '.join(MODES)}. Default: keep.",
        type=FlashSetting(MODES, case_sensitive=False),
    ),
    _header_option(
        "-ff",
        "--flash-freq",
        "FREQ",
        f"Flash frequency in the image header: {', '.join(FREQUENCIES[:5])}, … Default: keep.",
        type=FlashSetting(FREQUENCIES, case_sensitive=False),
    ),
    _header_option(
        "-fs",
        "--flash-size",
        "SIZE",
        "Flash size in the image header: keep, detect, 4MB, 2MB-c1, … Default: keep.",
    ),
)


def _parse_format(context: click.Context, parameter: click.Parameter, value: str) -> str:
    return "srecord" if value == "srec" else value


def _format_option(*flags: str) -> Callable[[F], F]:
    return click.option(
        *flags,
        "input_format",
        type=click.Choice(INPUT_FORMATS),
        default="auto",
        callback=_parse_format,
        metavar="FORMAT",
        help="Format of the input files: auto (default), raw, hex (Intel HEX), srec, uf2 or elf.",
    )


input_format_option = _format_option("--format", "--input-format")
only_input_format_option = _format_option("--input-format")  # --format is that of the output


def _store_progress(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    context.obj.progress = not value


# before the command, -p is the port
progress_option = click.option(
    "-p",
    "--no-progress",
    is_flag=True,
    expose_value=False,
    callback=_store_progress,
    help="Do not show progress.",
)


def _parse_consents(
    context: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> frozenset[str]:

    consents: frozenset[str] = context.obj.program.consents
    return check_consents(value) | consents


allow_option = click.option(
    "--allow",
    multiple=True,
    metavar="NAME",
    callback=_parse_consents,
    help="Override one safety check, by the name shown in its error message. Repeatable.",
)


Pins = str | tuple[int, ...] | None  # the value of --spi-connection


def _parse_pins(context: click.Context, parameter: click.Parameter, value: str | None) -> Pins:
    from espwire.device.flash_id import parse_connection

    return None if value is None else parse_connection(value)


pins_option = click.option(
    "-sc",
    "--spi-connection",
    "pins",
    metavar="PINS",
    callback=_parse_pins,
    help="How the flash chip is connected: SPI, HSPI, or CLK,Q,D,HD,CS as GPIO numbers. Default: from the eFuses.",
)


def _refuse_nand(context: click.Context, parameter: click.Parameter, value: str) -> None:
    if value == "nand":
        raise UsageError(
            NAND,
            hint="Leave out --flash-type for NOR flash; use esptool for NAND flash.",
            code="nand",
        )


flash_options = combine(
    pins_option,
    click.option(
        "-ft",
        "--flash-type",
        type=click.Choice(("nor", "nand")),
        default="nor",
        hidden=True,
        expose_value=False,
        callback=_refuse_nand,
    ),
)


def _parse_size(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> int | None:

    return None if value is None or value.lower() in ("keep", "detect") else parse_flash_size(value)


def size_option(help: str) -> Callable[[F], F]:
    """``--flash-size`` of a command that changes no image header: ``flash_size`` in bytes, or None."""
    return click.option("-fs", "--flash-size", metavar="SIZE", callback=_parse_size, help=help)


needed_options = combine(
    click.option(
        "--no-diff",
        is_flag=True,
        help="Write everything, also the sectors that are in flash already.",
    ),
    click.option(
        "--no-keep",
        is_flag=True,
        help="Erase what shares a 4 KiB sector with a file, instead of keeping it.",
    ),
    click.option(
        "--keep-gaps",
        is_flag=True,
        help="Leave the flash as it is where a file has 4 KiB sectors of 0xFF.",
    ),
)

known_size_option = size_option("Flash size (4MB, …), if it cannot be detected.")
table_size_option = size_option("Flash size that the table must fit: 4MB, …")


table_offset_option = click.option(
    "--partition-table-offset",
    "table_offset",
    metavar="ADDRESS",
    default="0x8000",
    callback=parse_address,
    help="Address of the partition table. Default: 0x8000.",
)
table_options = combine(
    click.option(
        "--partitions",
        metavar="FILE",
        help="Look up partition names in this table (CSV or binary) instead of the device's.",
    ),
    table_offset_option,
)


def _parse_inputs(
    context: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> list[Input]:
    from espwire.cli.inputs import parse_inputs

    return parse_inputs(value, strict=context.obj.program.strict, names=parameter.name == "inputs")


def _inputs_argument(name: str) -> Callable[[F], F]:
    return click.argument(
        name, nargs=-1, required=True, metavar="ADDRESS FILE…", callback=_parse_inputs
    )


inputs_argument = _inputs_argument("inputs")  # ADDRESS FILE or NAME=FILE, any number of times
addressed_inputs_argument = _inputs_argument("addressed_inputs")  # without partition names
