/* rom_call(function, a, b, c, d): calls a function with register windows from code without. Spilled windows go to save
   areas on our stack; windows are switched on (PS.WOE) during the call only. */
  .text
  .literal_position
  .literal .Lwindows, 0x4002f     /* WOE, user mode, interrupts off */
  .align 4
  .global rom_call
rom_call:
  addi a1, a1, -112
  s32i a0, a1, 0
  s32i a12, a1, 4
  s32i a13, a1, 8
  s32i a14, a1, 12
  s32i a15, a1, 16
  addi a9, a1, 96                 /* extra save area: our a4 to a7 go below it */
  addi a8, a1, -16
  s32i a9, a8, 4                  /* where an overflow handler expects the caller's stack pointer */
  mov a10, a3
  mov a11, a4
  mov a12, a5
  mov a13, a6
  l32r a8, .Lwindows
  wsr a8, ps
  rsync
  .byte 0xe0, 0x02, 0x00          /* callx8 a2 */
  movi a8, 0x2f
  wsr a8, ps
  rsync
  mov a2, a10
  l32i a0, a1, 0
  l32i a12, a1, 4
  l32i a13, a1, 8
  l32i a14, a1, 12
  l32i a15, a1, 16
  addi a1, a1, 112
  ret
