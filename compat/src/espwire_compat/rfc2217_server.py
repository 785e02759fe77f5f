"""The program ``esp_rfc2217_server.py``: `espwire serve-port` with that program's options, exit codes and address.

It listens on all addresses of the computer, as that program does, and prints a warning.
"""

from __future__ import annotations

from collections.abc import Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from espwire.cli.program import Program
    from espwire.errors import ToolError

EXIT_USAGE, EXIT_PORT = 2, 1
LOCAL_PORT = 2217


def main(arguments: Sequence[str], name: str = "esp_rfc2217_server.py") -> int:
    """Run one command line; the exit code: 0, 1 or 2. Without arguments it prints help and fails."""
    import click

    from espwire._version import __version__
    from espwire.cli import main as espwire
    from espwire.cli.context import Context
    from espwire.cli.output import Output

    @click.command(name, context_settings={"help_option_names": ["-h", "--help"]})
    @click.version_option(__version__, message="espwire %(version)s")
    @click.argument("serialport", metavar="SERIALPORT")
    @click.option(
        "-p",
        "--localport",
        type=click.IntRange(0, 0xFFFF),
        metavar="TCPPORT",
        default=LOCAL_PORT,
        help="Local TCP port. Default: 2217.",
    )
    @click.option("-v", "--verbose", count=True, help="Print more detail. Repeatable.")
    @click.option("--r0", is_flag=True, help="Use the long delays that ESP32 revision 0 needs.")
    def parse(serialport: str, localport: int, verbose: int, r0: bool) -> list[str]:
        """Serve a serial port over RFC 2217. Anyone on the network can connect; see `espwire serve-port` for limits."""
        line = ["--verbose"] * bool(verbose)
        line += ["serve-port", "--listen", f"0.0.0.0:{localport}"]
        return [*line, *["--long-reset"] * r0, "--", serialport]

    try:
        line = parse.main(list(arguments) or ["--help"], prog_name=name, standalone_mode=False)
    except click.ClickException as error:
        out = Output()
        out.error_line(f"error: {error.format_message()} [usage]")
        out.error_line(f"hint: Run {name} --help to see its options.")
        return EXIT_USAGE
    if not isinstance(line, list):  # help or version
        return 0 if arguments else EXIT_USAGE
    return espwire.main(line, Context(_build_program(name)))


def _build_program(name: str) -> Program:
    from espwire.cli.program import Program

    return Program(name=name, exit_code=_find_exit_code)


def _find_exit_code(error: ToolError) -> int:
    """1 if the port cannot be opened or the address cannot be used, else 2."""
    from espwire.errors import TransportError

    return EXIT_PORT if isinstance(error, TransportError) else EXIT_USAGE
