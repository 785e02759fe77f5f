"""Shell completion, by click's machinery: the script for a shell, and the answers when that script asks.

The script sets a variable and runs the program, which then prints what may stand at the cursor and does nothing else.
A command's module is imported only when that command is on the line.
"""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

from espwire.cli.main import COMPLETION_VARIABLE
from espwire.cli.output import Output
from espwire.errors import ToolError, UsageError


def build_script(shell: str, program: str = "espwire") -> str:
    """The script for ``shell`` (bash, zsh, fish), which completes for ``program``.

    :raises UsageError: click has no such shell
    """
    return ShellComplete.source(
        _open_completer(shell, program)
    )  # past bash's, which would run bash to see its version


def answer(instruction: str) -> int:
    """Print what a shell asks for, as ``bash_complete``; the exit code. A broken line completes to nothing."""
    shell, _, verb = instruction.partition("_")
    output = Output()
    try:
        if verb == "source":
            output.line(build_script(shell))
            return 0
        completer = _open_completer(shell, "espwire")
        arguments, incomplete = completer.get_completion_args()
        found = completer.get_completions(arguments, incomplete) or _files(incomplete)
    except (ToolError, click.ClickException, click.exceptions.Exit, KeyError, ValueError):
        return 1
    output.line("\n".join(completer.format_completion(item) for item in found))
    return 0


def _open_completer(shell: str, program: str) -> ShellComplete:
    from espwire.cli import group
    from espwire.cli.session import Session

    kind = get_completion_class(shell)
    if kind is None:
        raise UsageError(
            f"no completion is known for the shell {shell}", hint="Name bash, zsh or fish."
        )
    return kind(group.build(), {"obj": Session()}, program, COMPLETION_VARIABLE)


def _files(incomplete: str) -> list[CompletionItem[str]]:
    """Where nothing else is known, a file may be meant: the shell completes those itself."""
    return [] if incomplete.startswith("-") else [CompletionItem(incomplete, type="file")]


def complete_chip(incomplete: str) -> list[CompletionItem[str]]:
    """``--chip``: the chips' names."""
    from espwire.chips.index import NAMES

    names = {"auto": "detect the chip"} | NAMES
    return [
        CompletionItem(name, help=told)
        for name, told in names.items()
        if name.startswith(incomplete.lower())
    ]


def complete_port(incomplete: str) -> list[CompletionItem[str]]:
    """``--port``: the ports that are here, likely boards first. Opens none."""
    from espwire.transport.ports import likely_board, list_ports, list_system_ports, rank

    there = rank(list_ports(list_system_ports))
    return [
        CompletionItem(one.path, help=likely_board(one) or None)
        for one in there
        if one.path.lower().startswith(incomplete.lower())
    ]


def complete_baud(incomplete: str) -> list[CompletionItem[str]]:
    """``--baud``: the usual rates."""
    return [CompletionItem(rate) for rate in BAUDS if rate.startswith(incomplete)]


BAUDS = ("115200", "230400", "460800", "921600", "1500000", "2000000", "9600", "57600", "74880")
