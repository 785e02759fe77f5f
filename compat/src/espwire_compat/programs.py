"""The programs of espwire-compat: esptool, espefuse, espsecure and esp_rfc2217_server, with and without ``.py``.

The names without ``.py`` are console scripts. The others are the files in ``scripts/``, all alike, which call ``run``.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def esptool() -> None:
    """Run the program ``esptool``."""
    run("esptool")


def espefuse() -> None:
    """Run the program ``espefuse``."""
    run("espefuse")


def espsecure() -> None:
    """Run the program ``espsecure``."""
    run("espsecure")


def esp_rfc2217_server() -> None:
    """Run the program ``esp_rfc2217_server``."""
    run("esp_rfc2217_server")


def run(name: str) -> None:
    """Run the program called ``name``, with or without ``.py``, on the command line of this process; exits."""
    from espwire.cli.esptool.program import EXIT_USAGE, describe_version
    from espwire.cli.main import print_at_once, start

    def work() -> int:
        if sys.argv[1:] in (["--version"], ["version"]) and print_at_once(describe_version()):
            return 0  # without click, for speed
        return find_main(name)(sys.argv[1:], name)

    if name.removesuffix(".py") == "esptool":
        warn_of_other_module()
    start(work, interrupted=EXIT_USAGE)


def find_main(name: str) -> Callable[[Sequence[str], str], int]:
    """What runs a command line of the program called ``name`` and returns its exit code."""
    match name.removesuffix(".py"):
        case "esptool":
            from espwire.cli.esptool.program import main
        case "espefuse":
            from espwire_compat.espefuse import main
        case "espsecure":
            from espwire_compat.espsecure import main
        case _:
            from espwire_compat.rfc2217_server import main
    return main


def warn_of_other_module() -> None:
    """Warn where ``import esptool`` does not load espwire-compat's module: two distributions then mix."""
    from espwire.cli.output import Output

    if other := find_other_module():
        out = Output()
        out.error_line(
            f"warning: this program is espwire's, but the module esptool is not: {other} [two-esptools]"
        )
        out.error_line(
            "hint: Uninstall esptool and espwire-compat, then install the one that you want."
        )


def find_other_module() -> str:
    """The file that ``import esptool`` loads, if it is not espwire-compat's; else an empty string."""
    from importlib.machinery import PathFinder

    here = os.path.dirname(os.path.realpath(__file__))
    installed, in_clone = os.path.join(here, "modules"), os.path.dirname(here)
    own = installed if os.path.isdir(installed) else in_clone
    programs = os.path.dirname(
        os.path.realpath(sys.argv[0])
    )  # where Python looks first, and finds a file esptool.py
    path = [entry for entry in sys.path if os.path.realpath(entry or os.curdir) != programs]
    spec = PathFinder.find_spec("esptool", path)
    if (
        spec is None
        or spec.origin is None
        or os.path.realpath(spec.origin).startswith(os.path.join(own, ""))
    ):
        return ""
    return spec.origin
