"""CPU engines: Xtensa and RISC-V, which run code that is uploaded to the virtual chip."""
