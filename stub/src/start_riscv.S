/* From the ROM's jump to C: interrupts off, stack pointer, pointer to the small variables, zeroed data. */
  .section .entry, "ax"
  .global _start
_start:
  csrci mstatus, 8
  .option push
  .option norelax
  la gp, __global_pointer$
  .option pop
  la sp, _stack_top
  la a0, _bss_start
  la a1, _bss_end
1:
  bgeu a0, a1, 2f
  sw zero, 0(a0)
  addi a0, a0, 4
  j 1b
2:
  call stub_main
3:
  j 3b
