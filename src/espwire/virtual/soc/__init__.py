"""What a program in RAM sees of a virtual chip: memory, peripherals and clocks, around the engines of ``virtual/cpu``.

* ``program.py``: the program itself (``programs.program.Program``); builds the rest, connects the peripherals to their
  addresses, and runs it. ``clock.py``: what a cycle lasts; timers.
* ``serial_ports.py``, ``flash_port.py``: peripherals, as far as the programs use them.
* ``romcalls.py``: ROM functions. ``idle.py``: detects waiting loops, which are skipped.

Not modelled: interrupts, caches (flash mapped into the address space reads as zeros), the second mapping of the ESP32's
SRAM 1 on its instruction bus, USB-OTG, DMA.
"""
