"""Byte streams to a chip: serial ports, TCP sockets, RFC 2217 servers; and which serial ports there are."""
