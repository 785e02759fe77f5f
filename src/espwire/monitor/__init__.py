"""Watching what a chip says and typing back: pure parts (text, keys, boot, log, engine), and a loop with a terminal."""
