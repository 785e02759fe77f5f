/* The branch filter for RISC-V: in the stream, the target of a call is absolute and its most significant bits come first,
   so that calls of one function look alike. Here each becomes relative again. Only what is a call by the bits that stay
   as they are is changed, so any data survives; a call across the end of a step is left alone. */
#include "stub.h"

enum { JAL_RA = 0xEF, AUIPC = 0x17, JALR = 0x67 };

static u32 load(const u8 *at) { return (u32)at[0] | (u32)at[1] << 8 | (u32)at[2] << 16 | (u32)at[3] << 24; }

static void store(u8 *at, u32 word) {
  for (u32 i = 0; i < 4; i++, word >>= 8) at[i] = (u8)word;
}

/* The 20 highest bits, stored with the most significant byte first. */
static u32 upper(const u8 *at) { return (u32)(at[1] & 0xF0) << 24 | (u32)at[2] << 20 | (u32)at[3] << 12; }

void branches_restore(u8 *code, u32 position, u32 size) {
  for (u32 at = 0; at + 4 <= size; at += 2) {
    u8 *i = code + at;
    u32 byte = i[0], address = position + at, target;
    if (byte == JAL_RA && !(i[1] & 0x0F)) {
      target = (upper(i) >> 11) - address;
      store(i, JAL_RA | (target & 0xFF000) | (target & 0x800) << 9 | (target & 0x7FE) << 20 | (target & 0x100000) << 11);
      at += 2;
    } else if ((byte & 0x7F) == AUIPC && at + 8 <= size) {
      u32 first = load(i), second = load(i + 4);
      at += 2;
      if ((second & 0x7F) != JALR || ((second >> 15 ^ first >> 7) & 31)) continue;
      target = (upper(i) | (u32)(i[6] & 0xF0) << 4 | i[7]) - address;
      store(i, (first & 0xFFF) | ((target + 0x800) & 0xFFFFF000));
      store(i + 4, (second & 0xFFFFF) | target << 20);
      at += 4;
    }
  }
}
