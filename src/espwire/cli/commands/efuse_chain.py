"""``efuse``: one or more eFuse commands on a line."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import click

from espwire.cli.app import LazyGroup
from espwire.cli.command_table import GROUPS
from espwire.cli.efuse_options import build_options, find_settings
from espwire.cli.efuse_session import EfuseCommand, Session
from espwire.cli.options import global_options


def split_line(words: Sequence[str], names: Collection[str]) -> list[list[str]]:
    """The commands of a line, each with its arguments.

    >>> split_line(["burn-bit", "BLOCK3", "1", "dump"], {"burn-bit", "dump"})
    [['burn-bit', 'BLOCK3', '1'], ['dump']]
    """
    commands: list[list[str]] = []
    for word in words:
        if not commands or word.replace("_", "-") in names:
            commands.append([])
        commands[-1].append(word)
    return commands


class EfuseGroup(LazyGroup):
    """A group whose commands can be chained."""

    spelled = "efuse"

    def invoke(self, ctx: click.Context) -> Any:
        """Parse all commands of the line, then run them together."""
        line = [*vars(ctx).get("_protected_args", vars(ctx).get("protected_args", [])), *ctx.args]
        lines = split_line(line, self.entries)
        commands = [self.parse_command(ctx, words) for words in lines]
        session = Session(ctx.obj, find_settings(ctx), lambda words: self.parse_command(ctx, words))
        session.run(lines, commands)

    def parse_command(self, ctx: click.Context, words: list[str]) -> EfuseCommand:
        """Parse one command of the line.

        :raises UsageError: it does not parse
        """
        name, command, rest = self.resolve_command(ctx, words)
        assert command is not None
        ctx.invoked_subcommand = name
        with command.make_context(name, list(rest), parent=ctx) as below:
            parsed: EfuseCommand = below.command.invoke(below)
        return parsed


def build_group(
    name: str, *, hidden: bool, context_settings: dict[str, Any] | None = None
) -> EfuseGroup:
    """The group, or a program that has only its commands. ``hidden``: the help leaves out global options."""
    own = build_options(hidden=False)
    taken = {flag for option in own for flag in option.opts}
    return EfuseGroup(
        name=name,
        sections={"Commands": GROUPS["efuse"]},
        help="Read and burn eFuses. Several commands may follow each other.",
        params=[*own, *global_options(hidden=hidden, taken=taken)],
        context_settings=context_settings,
    )


group = build_group("efuse", hidden=True)
group.complete = True  # type: ignore[attr-defined]  # has its global options already
