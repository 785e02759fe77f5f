"""A chip made of software: registers, flash, ROM loader, wire. Pure but for link.py and serve.py."""
