"""The help of the whole program: each command in one line and the common options; ``--help-all`` has every option."""

from __future__ import annotations

from collections.abc import Mapping

import click

# the options that most people need, in few words; the others are named behind them
OPTIONS = {
    "-p, --port PORT": "/dev/ttyUSB0, COM3, rfc2217://…, socket://…, virtual:esp32c3 (default: the only board)",
    "-c, --chip CHIP": "expected chip: esp8266, esp32, esp32s2 … (default: auto-detect)",
    "-b, --baud N": "baud rate for data (default: 115200)",
    "--before, -a, --after WAY": "how to reset into the bootloader, and what to do with the chip at the end",
    "--no-stub, --stub FILE": "use the ROM bootloader only; use this stub flasher (the vendor's JSON format)",
    "-v, -q, -t, --json": "more detail; results only; show each packet; one JSON event per line",
}
EXAMPLES = """\
Examples:
  {program} -p /dev/ttyUSB0 chip-info
  {program} -p /dev/ttyUSB0 -b 460800 write-flash 0x0 firmware.bin
  {program} -p virtual:esp32c3 write-flash 0x0 firmware.bin      (no board needed)
  {program} demo                                                 (a tour, no board needed)

Run `{program} COMMAND --help` for its options and examples,
`{program} --help-all` for everything.
"""


def write_screen(
    command: click.Command,
    context: click.Context,
    formatter: click.HelpFormatter,
    sections: Mapping[str, Mapping[str, str]],
) -> None:
    """Usage, one line per command by section, options, examples."""
    command.format_usage(context, formatter)
    command.format_help_text(context, formatter)
    width = max(len(name) for commands in sections.values() for name in commands)
    for title, commands in sections.items():
        with formatter.section(title):
            formatter.write_dl([(name.ljust(width), line) for name, line in commands.items()])
    with formatter.section("Options (before or after the command)"):
        more = _name_others(command)
        formatter.write_dl([*OPTIONS.items(), ("others", ", ".join(more))])
    formatter.write("\n" + EXAMPLES.format(program=context.info_name))


def _name_others(command: click.Command) -> list[str]:
    """The long names that OPTIONS does not show."""
    shown = {word.rstrip(",") for line in OPTIONS for word in line.split()}
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    return [
        option.opts[-1] for option in options if not option.hidden and not shown & set(option.opts)
    ]
