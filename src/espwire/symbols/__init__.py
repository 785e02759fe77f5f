"""Addresses to functions, files and lines: reads the debug information of ELF files, and keeps an index of it."""
