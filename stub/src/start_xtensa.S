/* From the ROM's jump to C: stack pointer, zeroed data. On a core with register windows: one window, window exceptions
   off. Debian's assembler does not support window registers, so two instructions are bytes. */
#include "chip.h"
  .section .entry, "ax"
  .literal_position
  .literal .Lstack, _stack_top
  .literal .Lbss, _bss_start
  .literal .Lend, _bss_end
  .align 4
  .global _start
_start:
  rsil a2, 15
#if WINDOWED
  .byte 0x30, 0x48, 0x03        /* rsr a3, windowbase */
  movi a4, 1
  ssl a3
  sll a4, a4
  .byte 0x40, 0x49, 0x13        /* wsr a4, windowstart */
  rsync
  movi a2, 0x2f                 /* PS: interrupts off, user mode, windows off */
  wsr a2, ps
  rsync
#endif
  l32r a1, .Lstack
  l32r a2, .Lbss
  l32r a3, .Lend
  movi a4, 0
1:
  bgeu a2, a3, 2f
  s32i a4, a2, 0
  addi a2, a2, 4
  j 1b
2:
  call0 stub_main
3:
  j 3b
