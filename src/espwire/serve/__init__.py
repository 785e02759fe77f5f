"""Serves serial ports to other computers: RFC 2217, with reset sequences that keep their timing."""
