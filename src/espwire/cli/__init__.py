"""The command line: the only part that reads arguments, prints, and decides exit codes. Nothing imports it."""
