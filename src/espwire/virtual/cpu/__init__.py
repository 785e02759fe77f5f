"""CPUs made of software: Xtensa (call0) and RISC-V, so that code uploaded into the virtual chip really runs."""
