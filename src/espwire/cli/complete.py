"""Shell completion with click: the script for a shell, and the answers when that script runs the program.

The script sets ``VARIABLE`` and runs the program, which then prints the completions and does nothing else. A command's
module is imported only if that command is on the line.
"""

from __future__ import annotations

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

from espwire.cli.app import build
from espwire.cli.context import Context
from espwire.cli.output import Output
from espwire.errors import ToolError, UsageError

VARIABLE = "_ESPWIRE_COMPLETE"


def build_script(shell: str, program: str = "espwire") -> str:
    """The completion script for ``shell`` (bash, zsh, fish) and ``program``.

    :raises UsageError: the shell is not supported
    """
    # not the method of the bash class, which would run bash to find its version
    return ShellComplete.source(_open_completer(shell, program))


def answer(instruction: str) -> int:
    """Print what a shell requests, such as ``bash_complete``; the exit code."""
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
    kind = get_completion_class(shell)
    if kind is None:
        raise UsageError(f"unknown shell {shell}", hint="Supported shells: bash, zsh, fish.")
    return kind(build(), {"obj": Context()}, program, VARIABLE)
