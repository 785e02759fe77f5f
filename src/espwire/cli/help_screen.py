"""The help of the program on one screen: all commands and the most important options."""

from __future__ import annotations

from collections.abc import Mapping

import click

from espwire.cli.command_table import Entry

# the options that most people need; only the names of the others are listed
OPTIONS = {
    "-p, --port PORT": "/dev/ttyUSB0, COM3, rfc2217://…, socket://…, virtual:esp32c3 (default: the only connected board)",
    "-c, --chip CHIP": "expected chip: esp8266, esp32, esp32s2 … (default: auto-detect)",
    "-b, --baud N": "baud rate for data (default: 115200)",
    "--before, -a, --after WAY": "how to reset into download mode, and what to do with the chip at the end",
    "--no-stub, --stub FILE": "use the ROM bootloader only; use this stub flasher (Espressif's JSON format)",
    "-v, -q, -t, --json": "more detail; results only; print each packet; one JSON event per line",
}
EXAMPLES = """\
Examples:
  {program} -p /dev/ttyUSB0 chip-info
  {program} -p /dev/ttyUSB0 -b 460800 write-flash 0x0 firmware.bin
  {program} -p virtual:esp32c3 write-flash 0x0 firmware.bin      (no board needed)
  {program} demo                                                 (a demonstration, no board needed)

Run `{program} COMMAND --help` for its options and examples,
`{program} --help-all` for everything.
"""


def write_screen(
    command: click.Command,
    context: click.Context,
    formatter: click.HelpFormatter,
    sections: Mapping[str, Mapping[str, Entry]],
) -> None:
    """Write usage, commands by section, options and examples."""
    command.format_usage(context, formatter)
    command.format_help_text(context, formatter)
    width = max(len(name) for commands in sections.values() for name in commands)
    for title, commands in sections.items():
        with formatter.section(title):
            formatter.write_dl(
                [(name.ljust(width), entry.help) for name, entry in commands.items()]
            )
    with formatter.section("Options (before or after the command)"):
        others = ", ".join(_name_others(command))
        formatter.write_dl([*OPTIONS.items(), ("others", others)])
    formatter.write("\n" + EXAMPLES.format(program=context.info_name))


def _name_others(command: click.Command) -> list[str]:
    """The options that OPTIONS does not show."""
    shown = {word.rstrip(",") for line in OPTIONS for word in line.split()}
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    return [
        option.opts[-1] for option in options if not option.hidden and not shown & set(option.opts)
    ]
