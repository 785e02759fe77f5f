"""The serial monitor: shows a chip's output, sends keyboard input, explains boot messages."""
