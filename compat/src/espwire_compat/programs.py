"""The programs of espwire-compat: esptool, espefuse, espsecure and esp_rfc2217_server, with and without ``.py``.

The names without ``.py`` are console scripts. The others are the files in ``scripts/``, all alike: they call ``serve``.

**Why these files can be imported.** Python puts the folder of the program that it runs at the front of ``sys.path``.
For a program in ``bin/``, ``esptool.py`` is in that folder, so ``import esptool`` in *any* program there (ESPHome,
mpflash, esp-coredump) loads this file instead of the module. The file therefore recognises that it is being imported,
and puts the module that it hides in its own place.
"""

from __future__ import annotations

import os
import sys

EXIT_USAGE = 2


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
        from espwire.cli.esptool import run as run_esptool

        warn_of_other_module()
        run_esptool(name)
    else:
        from espwire_compat.later import answer

        sys.exit(answer(name, sys.argv[1:]))


def serve(module: str, file: str) -> None:
    """Do what a file of ``scripts/`` is loaded for: run as a program, or give way to the module of its name.

    :param module: the file's ``__name__``
    :param file: the file's ``__file__``
    """
    program = os.path.basename(file)
    if module == "__main__":
        run(program)
    elif module == program.removesuffix(".py"):
        give_way(module, file)


def give_way(name: str, file: str) -> None:
    """Replace the module ``name``, which is being loaded from ``file``, with the one elsewhere on ``sys.path``.

    The import system returns what ``sys.modules`` holds once the file has run: the importer gets the module.

    :raises ModuleNotFoundError: there is no such module, as if ``file`` did not exist
    """
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    spec = PathFinder.find_spec(name, _path_without(os.path.dirname(file)))
    if spec is None or spec.loader is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)


def warn_of_other_module() -> None:
    """Warn where ``import esptool`` does not load espwire-compat's module: two distributions then mix."""
    from espwire.cli.output import Output

    if other := find_other_module():
        out = Output()
        out.error_line(f"warning: this program is espwire's, but the module esptool is not: {other} [two-esptools]")
        out.error_line("hint: Uninstall esptool and espwire-compat, then install the one that you want.")


def find_other_module() -> str:
    """The file that ``import esptool`` loads, if it is not espwire-compat's; else an empty string."""
    from importlib.machinery import PathFinder

    here = os.path.dirname(os.path.realpath(__file__))
    installed, in_clone = os.path.join(here, "modules"), os.path.dirname(here)
    own = installed if os.path.isdir(installed) else in_clone
    spec = PathFinder.find_spec("esptool", _path_without(os.path.dirname(os.path.abspath(sys.argv[0]))))
    if spec is None or spec.origin is None or os.path.realpath(spec.origin).startswith(os.path.join(own, "")):
        return ""
    return spec.origin


def _path_without(folder: str) -> list[str]:
    """``sys.path`` without the entries that lead to ``folder``."""
    hidden = os.path.realpath(folder)
    return [entry for entry in sys.path if os.path.realpath(entry or os.curdir) != hidden]
