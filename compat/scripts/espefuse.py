#!python
"""Runs the program of this file's name. Imported as a module, it gives way to the module of that name.

Python puts the folder of the program that it runs at the front of ``sys.path``. This file is among the programs, so
``import esptool`` in another one (ESPHome, mpflash, esp-coredump) loads this file instead of the module. That one may
even belong to another environment, where espwire-compat is not installed: only the standard library is used for this.
"""

import os
import sys

PROGRAM = os.path.basename(__file__)


def give_way() -> None:
    """Replace this module, which is being imported, with the one of its name elsewhere on ``sys.path``.

    The import system returns what ``sys.modules`` holds once this file has run: the importer gets the other module.

    :raises ModuleNotFoundError: no other module has this name, as if this file did not exist
    """
    from importlib.machinery import PathFinder
    from importlib.util import module_from_spec

    hidden = os.path.realpath(os.path.dirname(__file__))
    path = [entry for entry in sys.path if os.path.realpath(entry or os.curdir) != hidden]
    spec = PathFinder.find_spec(__name__, path)
    if spec is None or spec.loader is None or spec.origin is None:
        raise ModuleNotFoundError(f"No module named {__name__!r}", name=__name__)
    module = module_from_spec(spec)
    sys.modules[__name__] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    from espwire_compat.programs import run

    run(PROGRAM)
elif __name__ == PROGRAM.removesuffix(".py"):
    give_way()
