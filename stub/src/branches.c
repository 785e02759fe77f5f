/* The branch filter for RISC-V: in the stream, the target of a call is absolute and its most significant bits come first,
   so that calls of one function look alike. Here each becomes relative again. Only what is a call by the bits that stay
   as they are is changed, so any data survives; a call across the end of a step is left alone. */
#include "stub.h"

enum { JAL_RA = 0xEF, AUIPC = 0x17, JALR = 0x67 };

/* As four bytes: instructions are at even addresses. */
static u32 load(const u8 *at) { return *(const u16 *)(const void *)at | (u32)*(const u16 *)(const void *)(at + 2) << 16; }

static void store(u8 *at, u32 word) {
  *(u16 *)(void *)at = (u16)word;
  *(u16 *)(void *)(at + 2) = (u16)(word >> 16);
}

void branches_restore(u8 *code, u32 position, u32 size) {
  for (u32 at = 0; at + 4 <= size; at += 2) {
    u8 *i = code + at;
    u32 kind = i[0] & 0x7F, first, second, target;
    if (kind != AUIPC && kind != (JAL_RA & 0x7F)) continue;
    first = load(i);
    target = (first & 0xF000) << 16 | (first >> 16 & 0xFF) << 20 | first >> 24 << 12; /* its 20 highest bits */
    if (kind != AUIPC) {
      if ((first & 0xFFF) != JAL_RA) continue;
      target = (target >> 11) - position - at;
      store(i, JAL_RA | (target & 0xFF000) | (target & 0x800) << 9 | (target & 0x7FE) << 20 | (target & 0x100000) << 11);
      at += 2;
    } else if (at + 8 <= size) {
      second = load(i + 4);
      at += 2;
      if ((second & 0x7F) != JALR || ((second >> 15 ^ first >> 7) & 31)) continue;
      target = (target | (second >> 12 & 0xF00) | second >> 24) - position - at + 2;
      store(i, (first & 0xFFF) | ((target + 0x800) & 0xFFFFF000));
      store(i + 4, (second & 0xFFFFF) | target << 20);
      at += 4;
    }
  }
}
