/* Functions that the compiler calls, and that Debian's libgcc for the lx106 does not have. */
#include "stub.h"

void copy(void *to, const void *from, u32 size) {
  u8 *out = to;
  const u8 *in = from;
  while (size--) *out++ = *in++;
}

#ifndef ON_PC
void *memcpy(void *to, const void *from, size_t size) {
  copy(to, from, size);
  return to;
}

void *memset(void *to, int value, size_t size) {
  u8 *out = to;
  while (size--) *out++ = (u8)value;
  return to;
}

u32 __udivsi3(u32 dividend, u32 divisor) {
  u32 quotient = 0, bit = 1;
  if (!divisor) return 0xFFFFFFFF;
  while (divisor < dividend && !(divisor >> 31)) {
    divisor <<= 1;
    bit <<= 1;
  }
  for (; bit; bit >>= 1, divisor >>= 1)
    if (dividend >= divisor) {
      dividend -= divisor;
      quotient |= bit;
    }
  return quotient;
}

u32 __umodsi3(u32 dividend, u32 divisor) { return dividend - __udivsi3(dividend, divisor) * divisor; }
#endif
