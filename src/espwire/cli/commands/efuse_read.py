"""``efuse summary``, ``dump``, ``get-custom-mac``, ``adc-info``, ``check-error``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from espwire.cli.efuse_session import ReadCommand, efuse_command
from espwire.errors import UsageError

if TYPE_CHECKING:
    from espwire.cli.efuse_session import Session


class _Style(click.Choice[str]):
    """Styles of the summary; a hyphen counts as an underscore."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        return super().convert(str(value).replace("-", "_"), param, ctx)


@click.command()
@click.argument("names", metavar="[EFUSE]…", nargs=-1)
@click.option(
    "--format",
    "style",
    type=_Style(("summary", "json", "value_only")),
    default="summary",
    help="summary: a table; json; value_only: the value of one eFuse.",
)
@click.option("--active", is_flag=True, help="Only eFuses with bits that are set or hidden.")
@click.option("--file", "path", metavar="FILE", help="Write to this file instead.")
@efuse_command
def summary(names: tuple[str, ...], style: str, active: bool, path: str | None) -> ReadCommand:
    """EFUSE limits the summary to these eFuses. On a terminal, they are grouped by purpose."""

    def run(session: Session) -> None:
        from espwire.cli.efuse_text import draw_summary
        from espwire.efuse.meaning import describe
        from espwire.efuse.summary import is_active, select, summary_data

        state = session.state
        fields = select(state, names)
        if active:
            fields = [field for field in fields if is_active(state, field)]
        if style == "summary" and path is None and session.show_summary(fields):
            return
        data = summary_data(state, fields)
        if style == "json":
            text = json.dumps(data, indent=4, sort_keys=True)
        elif style == "summary":
            text = draw_summary(state, fields)
        elif len(fields) == 1:
            text = str(describe(state, fields[0]))
        else:
            raise UsageError(
                f"value_only shows one eFuse, not {len(fields)}", hint="Name exactly one eFuse."
            )
        session.output("summary", text, data, path)

    return ReadCommand(run)


@click.command()
@click.option(
    "--format",
    "style",
    type=click.Choice(("default", "split", "joint", "token")),
    default="default",
    help="default: words; split: a file per block; joint: one file; token: an EFSR token.",
)
@click.option("--file-name", "--file_name", "path", metavar="FILE", help="Write to this file.")
@efuse_command
def dump(style: str, path: str | None) -> ReadCommand:
    """Without a file, the words are printed."""

    def run(session: Session) -> None:
        from espwire.efuse import dump as dumps
        from espwire.files import write_file, write_files

        state = session.state
        data = {
            block.name: [f"{word:#010x}" for word in state.words(block)]
            for block in state.data.blocks
        }
        if style == "token":
            session.output("dump", dumps.draw_token(state), data, path)
        elif path is None:
            draw = dumps.draw_words if style == "default" else dumps.draw_hex
            session.output("dump", draw(state), data, None)
        elif style == "joint":
            blocks = [dumps.block_bytes(state, block) for block in state.data.blocks]
            write_file(path, b"".join(blocks))
            session.output("dump", f"Dump eFuse blocks -> {path}", data, None)
        else:
            files = dumps.name_files(state, path)
            write_files([(name, dumps.block_bytes(state, block)) for name, block in files])
            lines = [f"Dump eFuse block{block.id} -> {name}" for name, block in files]
            session.output("dump", "\n".join(lines), data, None)

    return ReadCommand(run)


@click.command()
@efuse_command
def custom_mac() -> ReadCommand:
    """Firmware uses this address only if it is written to do so."""

    def run(session: Session) -> None:
        from espwire.cli.efuse_text import draw_custom_mac
        from espwire.efuse.meaning import describe

        state = session.state
        value = describe(state, state.layout.field("CUSTOM_MAC"))
        session.output("get-custom-mac", draw_custom_mac(state), {"custom_mac": value}, None)

    return ReadCommand(run)


@click.command()
@efuse_command
def adc_info() -> ReadCommand:
    """The values that the factory measured for the ADC and other analog parts."""

    def run(session: Session) -> None:
        from espwire.cli.efuse_text import calibration_data, draw_calibration

        state = session.state
        session.output("adc-info", draw_calibration(state), calibration_data(state), None)

    return ReadCommand(run)


@click.command()
@click.option("--recovery", is_flag=True, help="Burn blocks with coding errors again.")
@efuse_command
def check_error(recovery: bool) -> ReadCommand:
    """Reads what the controller reports about the coding of each block."""

    def run(session: Session) -> None:
        from espwire.efuse.check import find_errors, require_no_errors

        if recovery:
            session.recover()
        errors = find_errors(session.state)
        text = "\n".join(error.text for error in errors) or "No errors detected."
        session.output("check-error", text, {"errors": [error._asdict() for error in errors]}, None)
        require_no_errors(errors)

    return ReadCommand(run)
