"""What ``--help`` shows of the whole program: one screen; ``--help-all`` shows every command and option."""

from __future__ import annotations

from collections.abc import Mapping

import click

# the options that most people need, in few words; the others are named behind them
OPTIONS = {
    "-p, --port PORT": "/dev/ttyUSB0, COM3, rfc2217://…, socket://…, virtual:esp32c3; else the one board that is there",
    "-c, --chip CHIP": "refuse any other chip: esp8266, esp32, esp32s2 …; without it the chip is detected",
    "-b, --baud N": "rate for the data, 115200 if not given",
    "--before, -a, --after WAY": "how to reset into the loader, and what to do with the chip at the end",
    "--no-stub, --stub FILE": "work with the chip's ROM loader; with the vendor's stub from its JSON file",
    "-v, -q, -t, --json": "say more; results only; show each packet; one JSON event per line",
}
EXAMPLES = """\
Examples:
  {program} -p /dev/ttyUSB0 chip-info
  {program} -p /dev/ttyUSB0 -b 460800 write-flash 0x0 firmware.bin
  {program} -p virtual:esp32c3 write-flash 0x0 firmware.bin      (no board needed)

`{program} COMMAND --help` tells what a command takes, `{program} --help-all` all there is.
"""


def write_screen(
    command: click.Command,
    context: click.Context,
    formatter: click.HelpFormatter,
    sections: Mapping[str, Mapping[str, str]],
) -> None:
    """The screen: usage, commands by task, options, examples."""
    command.format_usage(context, formatter)
    command.format_help_text(context, formatter)
    with formatter.section("Commands"):
        formatter.write_dl([(title, ", ".join(commands)) for title, commands in sections.items()])
    with formatter.section("Options, before the command or after it"):
        more = _name_others(command)
        formatter.write_dl([*OPTIONS.items(), ("also", ", ".join(more))])
    formatter.write("\n" + EXAMPLES.format(program=context.info_name))


def _name_others(command: click.Command) -> list[str]:
    """The long names that OPTIONS does not show."""
    shown = {word.rstrip(",") for line in OPTIONS for word in line.split()}
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    return [option.opts[-1] for option in options if not option.hidden and not shown & set(option.opts)]
