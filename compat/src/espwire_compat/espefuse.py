"""The program ``espefuse.py``: the commands of `espwire efuse` with espefuse's exit codes and lines."""

from __future__ import annotations

from collections.abc import Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from espwire.cli.program import Program


def main(arguments: Sequence[str], name: str = "espefuse.py") -> int:
    """Run one command line; the exit code: 0, 1 or 2. Without arguments it prints help, as espefuse does."""
    from espwire.cli import main as espwire
    from espwire.cli.context import Context

    context = Context(build_program(name))
    context.defaults["after"] = "no-reset"  # as espefuse
    return espwire.main(arguments, context)


def build_program(name: str) -> Program:
    """What depends on the name ``espefuse.py`` or ``espefuse``."""
    from espwire.cli.esptool.program import choose_word, describe_version, find_exit_code
    from espwire.cli.program import Program

    return Program(
        name=name,
        group="efuse",
        version_text=describe_version(),
        error_word=choose_word,
        exit_code=find_exit_code,
        strict=False,
        announces=True,
    )
