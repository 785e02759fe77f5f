"""``completion``: the script that lets a shell complete this program's command line; see cli/complete.py."""

from __future__ import annotations

import click

from espwire.cli.session import Session

SHELLS = ("bash", "zsh", "fish")
PROGRAMS = ("espwire", "esptool.py")
HELP = """Print the script that completes command lines in bash, zsh or fish.

\b
bash: add to ~/.bashrc:  eval "$(espwire completion bash)"
zsh:  add to ~/.zshrc, behind compinit:  eval "$(espwire completion zsh)"
fish: espwire completion fish > ~/.config/fish/completions/espwire.fish"""


@click.command("completion", help=HELP)
@click.argument("shell", type=click.Choice(SHELLS), metavar="SHELL")
@click.option(
    "--program",
    type=click.Choice(PROGRAMS),
    default="espwire",
    help="The name to complete for (espwire).",
)
@click.pass_obj
def command(session: Session, shell: str, program: str) -> None:
    """Report the script, which is click's own."""
    from espwire.cli.complete import build_script

    session.result("completion", build_script(shell, program), {"shell": shell, "program": program})
