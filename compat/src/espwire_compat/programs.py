"""The programs of espwire-compat: esptool, espefuse, espsecure and esp_rfc2217_server, with and without ``.py``.

The names without ``.py`` are console scripts. The others are the files in ``scripts/``, all alike, which call ``run``.
"""

from __future__ import annotations

import os
import sys


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
    if name.removesuffix(".py") == "esptool":
        from espwire.cli.esptool.program import run as run_esptool

        warn_of_other_module()
        run_esptool(name)
    elif name.removesuffix(".py") == "espefuse":
        from espwire_compat.espefuse import run as run_espefuse

        run_espefuse(name)
    elif name.removesuffix(".py") == "espsecure":
        from espwire_compat.espsecure import run as run_espsecure

        run_espsecure(name)
    else:
        from espwire_compat.rfc2217_server import run as run_server

        run_server(name)


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
