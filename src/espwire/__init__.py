"""Flash and inspect Espressif chips through their ROM bootloader.

``__init__.pyi`` lists the public names, for type checkers and for this file; a name's module is imported when it is
first used (PEP 562). All other documented names are imported from their modules: see docs/guide/library.md.
"""


def _read_names() -> dict[str, str]:
    """Public name → the module that defines it."""
    text = __spec__.loader.get_data(f"{__path__[0]}/__init__.pyi").decode()
    imports = [line.split() for line in text.splitlines() if line.startswith("from ")]
    return {words[3]: words[1] for words in imports}


def __getattr__(name: str) -> object:
    """Import a public name on first use."""
    names = _read_names()
    if name == "__all__":
        return sorted(names)
    if name not in names:
        raise AttributeError(f"module 'espwire' has no attribute {name!r}")
    from importlib import import_module

    value = globals()[name] = getattr(import_module(names[name]), name)
    return value


def __dir__() -> list[str]:
    """Also the public names that were not used yet."""
    return sorted({*globals(), *_read_names()})
