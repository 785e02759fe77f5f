"""``efuse``: one or more eFuse commands on a line."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import click

from espwire.cli.app import LazyGroup
from espwire.cli.command_table import GROUPS
from espwire.cli.efuse_options import build_options, find_settings
from espwire.cli.efuse_session import Session
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

    def invoke(self, ctx: click.Context) -> Any:
        """Parse all commands of the line, then run them together."""
        words = [*vars(ctx).get("_protected_args", vars(ctx).get("protected_args", [])), *ctx.args]
        steps = []
        for line in split_line(words, self.entries):
            name, command, rest = self.resolve_command(ctx, line)
            assert command is not None
            ctx.invoked_subcommand = name
            with command.make_context(name, list(rest), parent=ctx) as below:
                steps.append(below.command.invoke(below))
        Session(ctx.obj, find_settings(ctx)).run(steps)


def _build() -> EfuseGroup:
    own = build_options(hidden=False)
    taken = {flag for option in own for flag in option.opts}
    return EfuseGroup(
        name="efuse",
        sections={"Commands": GROUPS["efuse"]},
        help="Read and burn eFuses. Several commands may follow each other.",
        params=[*own, *global_options(hidden=True, taken=taken)],
    )


group = _build()
group.complete = True  # type: ignore[attr-defined]  # has its global options already
