"""Programs of the esptool family whose work is still to come: each answers in one line what is missing, what helps."""

from __future__ import annotations

import sys

# program → what it will do, which part of espwire brings that, what to use until then
PROGRAMS = {
    "esp_rfc2217_server": (
        "shares a serial port by RFC 2217",
        "the port server",
        "esp_rfc2217_server of esptool",
    ),
}
EXIT_USAGE = 2


def answer(program: str, arguments: list[str]) -> int:
    """Print help or version, else say that it is not there yet; the exit code.

    :param program: as it was called, with or without ``.py``
    """
    does, brought_by, instead = PROGRAMS[program.removesuffix(".py")]
    if arguments in (["version"], ["--version"]):
        from espwire._version import __version__

        print(f"espwire {__version__}")
        return 0
    later = f"Not there yet: {brought_by} will bring it. Until then use {instead}."
    if {"-h", "--help"} & set(arguments):
        print(f"Usage: {program} [-h] [--version]\n\n  {program} {does}. {later}")
        return 0
    print(
        f"error: {program} is not there yet: {brought_by} will bring it [not-yet]; hint: use {instead}",
        file=sys.stderr,
    )
    return EXIT_USAGE
