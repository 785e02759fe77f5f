"""Firmware files and partition tables: parse, build, convert and inspect them. Pure functions, without a chip."""
