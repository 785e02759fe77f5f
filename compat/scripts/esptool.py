#!python
"""Runs the program of this file's name. Imported as a module, it gives way to the module of that name."""

from espwire_compat.programs import serve

serve(__name__, __file__)
