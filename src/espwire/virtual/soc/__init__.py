"""What a program in RAM sees of a virtual chip: memory, peripherals, clocks, on the engines of ``virtual/cpu``.

* ``program.py`` is the program itself (``programs.Program``): it builds all below, runs slices, jumps over idle loops.
* ``ram.py`` the chip's RAM, shared with the loader; ``clock.py`` what a cycle lasts; ``bus.py`` who answers where.
* ``uart.py``, ``usb.py``, ``flash_port.py``, ``timers.py``: peripherals, as far as the programs touch them.
* ``romcalls.py``: functions of the ROM, carried out when they are called. ``idle.py``: what may be jumped over.

Left out: interrupts, caches (flash mapped into the address space reads as zeros), the second appearance of the ESP32's
SRAM 1 on its instruction bus, USB-OTG, register windows on Xtensa (``entry``, ``call8`` into own code), DMA.
"""
