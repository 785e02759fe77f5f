"""The click application: groups that import a command when it is run, click's errors in espwire's form, completion.

A shell's completion script sets ``COMPLETION_VARIABLE`` and runs the program, which then prints the completions and does
nothing else. A command's module is imported only if that command is on the line.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import click

from espwire.cli.command_table import GROUPS, SECTIONS, UNGROUPED, Boards, Entry
from espwire.cli.context import Context
from espwire.cli.help import find_examples, write_screen
from espwire.cli.options import HELP_ALL, global_options, help_option, show_help
from espwire.cli.output import Output
from espwire.errors import ToolError, UsageError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem, ShellComplete

COMPLETION_VARIABLE = "_ESPWIRE_COMPLETE"
Sections = Mapping[str, Mapping[str, Entry]]


class LazyGroup(click.Group):
    """Commands of the command table; the module of a command is imported when the command is needed."""

    spelled = ""  # its name in the tables of spellings

    def __init__(self, *, sections: Sections, **keywords: object) -> None:
        super().__init__(**keywords)  # type: ignore[arg-type]
        self.params.append(help_option())
        self.sections = sections
        self.entries = {
            name: entry for section in sections.values() for name, entry in section.items()
        }

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return list(self.entries)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command; esptool 1 to 4 spelled ``write_flash``."""
        name = cmd_name.replace("_", "-")
        entry = self.entries.get(name) or (UNGROUPED.get(name) if ctx.parent is None else None)
        if entry is None:
            return None
        if not entry.function:
            return LazyGroup(name=name, sections={"Commands": GROUPS[name]}, help=entry.help)
        module, _, function = entry.function.partition(":")
        command: click.Command = getattr(
            importlib.import_module(f"espwire.cli.commands.{module}"), function
        )
        if not hasattr(command, "complete"):
            _complete_command(command, name, entry)
        for option in command.params if ctx.resilient_parsing else ():
            if getattr(option, "is_global", False):
                option.hidden = False  # type: ignore[attr-defined]  # a shell may complete it
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """Commands from the table, without importing them; options as click completes them."""
        from click.shell_completion import CompletionItem

        start = incomplete.replace("_", "-")
        items = [
            CompletionItem(name, help=entry.help)
            for name, entry in self.entries.items()
            if name.startswith(start)
        ]
        return [*items, *click.Command.shell_complete(self, ctx, incomplete)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Accept esptool's spellings of the options before the command; a group without a command shows its help."""
        if not args and not ctx.resilient_parsing:
            show_help(ctx)
        rest = super().parse_args(ctx, respell(self, args, name=self.spelled, stop=True))
        # click 8.1 has no underscore
        name = vars(ctx).get("_protected_args", vars(ctx).get("protected_args"))
        if not name and not ctx.resilient_parsing:
            if ctx.parent is not None:
                show_help(ctx)
            from espwire.cli.suggestions import missing_command

            raise missing_command(ctx)
        return rest

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's; for an unknown name, suggest the command that is probably meant."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            from espwire.cli.esptool.spellings import refuse_missing
            from espwire.cli.suggestions import COMMANDS, GROUP_COMMANDS, unknown_command

            refuse_missing(args[0].replace("_", "-"))
            group = (ctx.info_name or "") if ctx.parent else ctx.obj.program.group
            suggestions = (
                COMMANDS if not group else GROUP_COMMANDS.get(group, {}) if ctx.parent else {}
            )
            raise unknown_command(args[0], list(self.entries), suggestions, ctx)
        name, command, arguments = super().resolve_command(ctx, args)
        if command is None or isinstance(command, LazyGroup):  # a group respells its own
            return name, command, arguments
        return name, command, respell(command, arguments, name=command.name or "")

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One screen for the program itself; all options with ``--help-all``, and for groups of commands."""
        if ctx.parent is not None or ctx.obj.program.group or ctx.meta.get(HELP_ALL):
            super().format_help(ctx, formatter)
            return
        write_screen(self, ctx, formatter, self.sections)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table, section by section; imports nothing."""
        for title, commands in self.sections.items():
            with formatter.section(title):
                formatter.write_dl([(name, entry.help) for name, entry in commands.items()])


def _complete_command(command: click.Command, name: str, entry: Entry) -> None:
    """Complete a command with its name, the first line of its help, and the global options.

    Global options may follow the command; where a short name is taken, the command's own option wins.
    """
    command.name = name
    command.help = f"{entry.help}\n\n{inspect.cleandoc(command.help or '')}".rstrip()
    taken = {flag for option in command.params for flag in (*option.opts, *option.secondary_opts)}
    for option in global_options(hidden=True, offline=entry.offline, taken=taken):
        option.is_global = True  # type: ignore[attr-defined]
        command.params.append(option)
    command.params.append(help_option())
    parse = command.parse_args

    def parse_args(ctx: click.Context, args: list[str]) -> list[str]:
        with click.core.augment_usage_errors(ctx):  # the hint names the help of this command
            return parse(ctx, args)

    command.parse_args = parse_args  # type: ignore[method-assign]
    if not entry.offline and command.callback is not None:
        command.callback = _accept_boards(command.callback, name, entry)
    command.complete = True  # type: ignore[attr-defined]


def _accept_boards(run: Callable[..., Any], name: str, entry: Entry) -> Callable[..., Any]:
    """The command, or a run of it for each board if the command line is for several."""

    @functools.wraps(run)
    def call(*arguments: Any, **options: Any) -> Any:
        context: Context = click.get_current_context().obj
        if not context.uses_boards(entry.boards is not Boards.ONE):
            return run(*arguments, **options)
        from espwire.cli.boards.run import run_boards

        return run_boards(context, name, entry.boards, options)

    return call


def respell(
    command: click.Command, arguments: list[str], *, name: str, stop: bool = False
) -> list[str]:
    """The arguments in espwire's spelling; esptool/spellings.py is loaded only if there is an option."""
    if all(not word.startswith("-") or word in ("-h", "--help") for word in arguments):
        return arguments
    from espwire.cli.esptool import spellings

    return spellings.respell(command, arguments, name=name, stop=stop)


def build(program: str = "espwire", group: str = "") -> LazyGroup:
    """The root command, under the name of the program.

    :param group: have only the commands of this group
    """
    settings = {
        "help_option_names": [],  # each command has its own; see options.help_option
        "max_content_width": 110,
        "token_normalize_func": _hyphens,
    }
    entry = next((table[group] for table in SECTIONS.values() if group in table), None)
    if entry is not None and entry.function:
        module = importlib.import_module(f"espwire.cli.commands.{entry.function.partition(':')[0]}")
        root: LazyGroup = module.build_group(program, hidden=False, context_settings=settings)
        return root
    return LazyGroup(
        name=program,
        sections={"Commands": GROUPS[group]} if group else SECTIONS,
        help=entry.help
        if entry is not None
        else "Flash and inspect Espressif chips through their ROM bootloader.",
        params=global_options(offline=bool(group)),
        context_settings=settings,
    )


def _hyphens(token: str) -> str:
    """esptool 1 to 4 spelled ``--flash_mode`` and ``no_reset``."""
    return token.replace("_", "-")


def describe_error(error: click.ClickException) -> str:
    """click's message as one sentence without a full stop."""
    if isinstance(error, click.MissingParameter) and isinstance(error.param, click.Argument):
        missing = _find_missing(error)
        return f"missing argument{'s' if len(missing) > 1 else ''} {' and '.join(missing)}"
    return " ".join(error.format_message().split()).rstrip(".") or "invalid command line"


def find_hint(error: click.ClickException) -> str:
    """What to do about click's error."""
    hint = getattr(error, "hint", None)
    if hint:
        return str(hint)
    context = getattr(error, "ctx", None)
    if context is None:
        return "See `espwire --help`."
    extra = "unexpected extra argument" in error.message
    if extra and re.search(r"\(.*(?:/dev/|\bCOM\d|://)", error.message):
        return f"Name the port with --port: `{context.command_path} --port PORT`."
    if extra or isinstance(error, click.MissingParameter):
        for example in find_examples(context)[:1]:
            return f"For example: `{example}`. More: `{context.command_path} --help`."
    return f"See `{context.command_path} --help`."


def _find_missing(error: click.MissingParameter) -> list[str]:
    """All missing arguments; click names only the first."""
    parameters = error.ctx.command.params if error.ctx is not None else []
    rest = (
        parameters[parameters.index(error.param) :] if error.param in parameters else [error.param]
    )
    return [
        (each.metavar or each.human_readable_name.upper()).replace(" FILE…", " and FILE")
        for each in rest
        if isinstance(each, click.Argument) and each.required
    ]


def build_script(shell: str, program: str = "espwire") -> str:
    """The completion script for ``shell`` (bash, zsh, fish) and ``program``.

    :raises UsageError: the shell is not supported
    """
    from click.shell_completion import ShellComplete

    # not the method of the bash class, which would run bash to find its version
    return ShellComplete.source(_open_completer(shell, program))


def answer_shell(instruction: str) -> int:
    """Print what a shell requests, such as ``bash_complete``; the exit code."""
    from click.shell_completion import CompletionItem

    shell, _, verb = instruction.partition("_")
    output = Output()
    try:
        if verb == "source":
            output.line(build_script(shell))
            return 0
        completer = _open_completer(shell, "espwire")
        arguments, incomplete = completer.get_completion_args()
        items = completer.get_completions(arguments, incomplete)
        if not items and not incomplete.startswith("-"):
            items = [CompletionItem(incomplete, type="file")]  # the shell completes files itself
    except (ToolError, click.ClickException, click.exceptions.Exit, KeyError, ValueError):
        return 1
    output.line("\n".join(completer.format_completion(item) for item in items))
    return 0


def _open_completer(shell: str, program: str) -> ShellComplete:
    from click.shell_completion import get_completion_class

    kind = get_completion_class(shell)
    if kind is None:
        raise UsageError(f"unknown shell {shell}", hint="Supported shells: bash, zsh, fish.")
    return kind(build(), {"obj": Context()}, program, COMPLETION_VARIABLE)
