"""click's side of the command line: a group that loads a command when it is run, and its complaints in our words."""

from __future__ import annotations

import importlib
from collections.abc import Mapping

import click

from espwire.cli.main import HIDDEN, OFFLINE, SECTIONS
from espwire.cli.options import global_options

EPILOG = """\b
Examples:
  espwire -p /dev/ttyUSB0 chip-info
  espwire -p /dev/ttyUSB0 -b 460800 write-flash 0x0 firmware.bin
  espwire -p 'virtual:esp32c3' write-flash 0x0 firmware.bin    (no board needed)
`espwire COMMAND --help` tells what a command takes; global options may also follow the command."""


class LazyGroup(click.Group):
    """Commands by name from a static table; the module behind one is imported when it is asked for."""

    def __init__(self, *, sections: Mapping[str, Mapping[str, str]], package: str, **keywords: object) -> None:
        super().__init__(**keywords)  # type: ignore[arg-type]
        self.sections, self.package = sections, package
        self.unlisted = HIDDEN if package == "espwire.cli.commands" else {}
        self.names = [name for section in sections.values() for name in section]

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The names, in the order of the table."""
        return self.names

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command, any spelling since version 1: ``write_flash`` is ``write-flash``."""
        name = cmd_name.replace("_", "-")
        if name not in self.names and name not in self.unlisted:
            return None
        module = importlib.import_module(f"{self.package}.{name.replace('-', '_')}")
        command: click.Command = module.command
        offline = name in OFFLINE or self.package != "espwire.cli.commands"
        if not isinstance(command, LazyGroup):
            add_global_options(command, offline=offline)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click's, but an unknown name is answered with near ones."""
        if self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            raise UnknownCommand(args[0], self.names, ctx)
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The table, section by section; imports nothing."""
        for title, commands in self.sections.items():
            with formatter.section(title):
                formatter.write_dl(list(commands.items()))


class UnknownCommand(click.UsageError):
    """A name that no command has."""

    def __init__(self, name: str, names: list[str], ctx: click.Context) -> None:
        import difflib

        super().__init__(f"there is no command {name!r}", ctx)
        near = difflib.get_close_matches(name.replace("_", "-").lower(), names, n=3, cutoff=0.5)
        self.hint = f"Did you mean {' or '.join(near)}?" if near else f"Commands: {', '.join(names)}."


def add_global_options(command: click.Command, *, offline: bool) -> None:
    """Let global options stand after the command too; where a short name is taken, the command's own wins."""
    if getattr(command, "has_global_options", False):
        return
    taken = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
    command.params.extend(global_options(hidden=True, offline=offline, taken=taken))
    command.has_global_options = True  # type: ignore[attr-defined]


def build() -> LazyGroup:
    """The ``espwire`` command itself."""
    return LazyGroup(
        name="espwire",
        sections=SECTIONS,
        package="espwire.cli.commands",
        help="Talk to the ROM bootloader of Espressif chips: flash, verify, read, inspect.",
        epilog=EPILOG,
        params=global_options(),
        context_settings={
            "help_option_names": ["-h", "--help"],
            "max_content_width": 110,
            "token_normalize_func": _hyphens,
        },
    )


def _hyphens(token: str) -> str:
    """Versions 1 to 4 spelled ``--flash_mode`` and ``no_reset``."""
    return token.replace("_", "-")


def sentence(error: click.ClickException) -> str:
    """What click complains about, as one sentence without a full stop."""
    return " ".join(error.format_message().split()).rstrip(".") or "the command line cannot be understood"


def hint(error: click.ClickException) -> str:
    """What to try then."""
    found = getattr(error, "hint", None)
    if found:
        return str(found)
    context = getattr(error, "ctx", None)
    return f"See `{context.command_path} --help`." if context is not None else "See `espwire --help`."
