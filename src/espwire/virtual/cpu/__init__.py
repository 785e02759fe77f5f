"""CPU engines: Xtensa (call0) and RISC-V, which run code that is uploaded to the virtual chip."""
