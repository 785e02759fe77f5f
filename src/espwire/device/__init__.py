"""Talks to one chip: the loader's commands, connecting, identifying, moving data. No files, no plans, no images."""
