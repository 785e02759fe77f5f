"""click's side of the command line: a group that loads a command when it is run, and click's errors in our words."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from espwire.cli.main import OFFLINE, SECTIONS
from espwire.cli.options import HELP_ALL, global_options, help_option, show_help

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


class LazyGroup(click.Group):
    """Commands by name from a static table; the module behind one is imported when it is asked for."""

    def __init__(
        self,
        *,
        sections: Mapping[str, Mapping[str, str]],
        package: str,
        online: bool | None = None,
        **keywords: object,
    ) -> None:
        super().__init__(**keywords)  # type: ignore[arg-type]
        self.params.append(help_option())
        self.sections, self.package = sections, package
        self.online = (
            package == "espwire.cli.commands" if online is None else online
        )  # whether commands may need a port
        self.names = [name for section in sections.values() for name in section]

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return self.names

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, any spelling since version 1: ``write_flash`` is ``write-flash``."""
        name = cmd_name.replace("_", "-")
        if name not in self.names:
            return None
        module = importlib.import_module(f"{self.package}.{name.replace('-', '_')}")
        command: click.Command = module.command
        offline = not self.online or (self.package == "espwire.cli.commands" and name in OFFLINE)
        if not isinstance(command, LazyGroup):
            add_global_options(command, offline=offline, shown=ctx.resilient_parsing)
        return command

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem[str]]:
        """The commands from the table, without importing them; options as click has it."""
        from click.shell_completion import CompletionItem

        listed = {
            name: told for section in self.sections.values() for name, told in section.items()
        }
        start = incomplete.replace("_", "-")
        found = [
            CompletionItem(name, help=told)
            for name, told in listed.items()
            if name.startswith(start)
        ]
        return [*found, *click.Command.shell_complete(self, ctx, incomplete)]

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click's, with the options before the command in any spelling; a group without a command shows its help."""
        if not args and not ctx.resilient_parsing:
            show_help(ctx)
        words = super().parse_args(ctx, respelt(self, args, name="", stop=True))
        name = vars(ctx).get(
            "_protected_args", vars(ctx).get("protected_args")
        )  # click 8.1 has no underscore
        if not name and not ctx.resilient_parsing:
            if ctx.parent is not None:
                show_help(ctx)
            raise NoCommand("no command given", ctx)
        return words

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, but an unknown name is answered with the command that was probably meant."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            from espwire.cli.command_names import COMMANDS, GROUPS, refuse
            from espwire.cli.compat import refuse_what_comes_later

            refuse_what_comes_later(args[0].replace("_", "-"))
            raise refuse(
                args[0],
                self.names,
                GROUPS.get(ctx.info_name or "", {}) if ctx.parent else COMMANDS,
                ctx,
            )
        name, command, words = super().resolve_command(ctx, args)
        if command is None or isinstance(command, LazyGroup):  # a group does it itself
            return name, command, words
        return name, command, respelt(command, words, name=command.name or "")

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """One screen for the program itself; all of it where ``--help-all`` asks, and for groups of commands."""
        if self.package != "espwire.cli.commands" or ctx.meta.get(HELP_ALL):
            super().format_help(ctx, formatter)
            return
        from espwire.cli.help_screen import write_screen

        write_screen(self, ctx, formatter, self.sections)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table, section by section; imports nothing."""
        for title, commands in self.sections.items():
            with formatter.section(title):
                formatter.write_dl(list(commands.items()))


def respelt(
    command: click.Command, words: list[str], *, name: str, stop: bool = False
) -> list[str]:
    """The words in today's spelling; see cli/compat.py, which is loaded only if there is an option to look at."""
    if all(not word.startswith("-") or word in ("-h", "--help") for word in words):
        return words
    from espwire.cli.compat import respell

    return respell(command, words, name=name, stop=stop)


class NoCommand(click.UsageError):
    """Options, and no command after them."""

    @property
    def hint(self) -> str:
        """What to run."""
        return f"Run `{self.ctx.command_path if self.ctx is not None else 'espwire'} --help` to list the commands."


def add_global_options(command: click.Command, *, offline: bool, shown: bool = False) -> None:
    """Let global options stand after the command too; where a short name is taken, the command's own wins.

    :param shown: a shell asks what may stand there: name them, too
    """
    if getattr(command, "has_global_options", False):
        return
    taken = {
        name
        for parameter in command.params
        for name in (*parameter.opts, *parameter.secondary_opts)
    }
    more = global_options(hidden=True, offline=offline, taken=taken)
    for option in more if shown else ():
        option.hidden = False  # type: ignore[attr-defined]  # they all are options
    command.params.extend([*more, help_option()])
    command.has_global_options = True  # type: ignore[attr-defined]


def build(program: str = "espwire") -> LazyGroup:
    """The ``espwire`` command itself, or another program with the same commands."""
    return LazyGroup(
        name=program,
        sections=SECTIONS,
        package="espwire.cli.commands",
        help="Talk to the ROM bootloader of Espressif chips: flash, verify, read, inspect.",
        params=global_options(),
        context_settings={
            "help_option_names": [],  # each command has its own; see options.help_option
            "max_content_width": 110,
            "token_normalize_func": _hyphens,
        },
    )


def _hyphens(token: str) -> str:
    """Versions 1 to 4 spelled ``--flash_mode`` and ``no_reset``."""
    return token.replace("_", "-")


def sentence(error: click.ClickException) -> str:
    """What click complains about, as one sentence without a full stop."""
    if isinstance(error, click.MissingParameter) and isinstance(error.param, click.Argument):
        missing = _find_missing(error)
        return f"missing argument{'s' if len(missing) > 1 else ''} {' and '.join(missing)}"
    return (
        " ".join(error.format_message().split()).rstrip(".")
        or "the command line cannot be understood"
    )


def hint(error: click.ClickException) -> str:
    """What to try then."""
    found = getattr(error, "hint", None)
    if found:
        return str(found)
    context = getattr(error, "ctx", None)
    if isinstance(error, click.MissingParameter) and context is not None:
        from espwire.cli.examples import find_examples

        for example in find_examples(context)[:1]:
            return f"For example: `{example}`. More: `{context.command_path} --help`."
    return (
        f"See `{context.command_path} --help`." if context is not None else "See `espwire --help`."
    )


def _find_missing(error: click.MissingParameter) -> list[str]:
    """Every argument that is missing; click names the first only."""
    parameters = error.ctx.command.params if error.ctx is not None else []
    after = (
        parameters[parameters.index(error.param) :] if error.param in parameters else [error.param]
    )
    required = [one for one in after if isinstance(one, click.Argument) and one.required]
    return [
        (one.metavar or one.human_readable_name.upper()).replace(" FILE…", " and FILE")
        for one in required
    ]
