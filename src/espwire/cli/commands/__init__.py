"""One module per command, imported when that command is run and not before. Each has ``command``."""
