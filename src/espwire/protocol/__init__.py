"""The serial protocol of ROM bootloaders and stubs: framing, commands and replies, without I/O."""
