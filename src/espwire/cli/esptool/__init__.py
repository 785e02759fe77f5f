"""Everything that only the program ``esptool.py`` does: its spellings, exit codes and output."""
