"""How each kind of loader writes, reads, erases and verifies flash."""
