/* MD5 (RFC 1321), by which hosts compare flash contents. */
#include "stub.h"

static const u32 SINES[64] = {
  0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
  0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
  0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
  0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
  0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
  0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
  0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
  0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391,
};
/* Four steps, after which a, b, c and d have their places again. The words are there twice: the places of four are constants. */
#define STEP(a, b, c, d, mix, word, shift)                       \
  a += (mix) + *sine++ + (word);                                 \
  a = b + (a << (shift) | a >> (32 - (shift)));
#define MIX_1(b, c, d) (d ^ (b & (c ^ d)))
#define MIX_2(b, c, d) (c ^ (d & (b ^ c)))
#define MIX_3(b, c, d) (b ^ c ^ d)
#define MIX_4(b, c, d) (c ^ (b | ~d))
#define FOUR(mix, w0, w1, w2, w3, s0, s1, s2, s3)                \
  STEP(a, b, c, d, mix(b, c, d), w0, s0)                         \
  STEP(d, a, b, c, mix(a, b, c), w1, s1)                         \
  STEP(c, d, a, b, mix(d, a, b), w2, s2)                         \
  STEP(b, c, d, a, mix(c, d, a), w3, s3)
#define BOTH(i) (at[i] = at[(i) + 16] = words[i])

void md5_add_block(struct md5 *md5, const u32 words[16]) {
  u32 a = md5->state[0], b = md5->state[1], c = md5->state[2], d = md5->state[3], twice[32], *at = twice;
  const u32 *sine = SINES;
  do {
    FOUR(MIX_1, BOTH(0), BOTH(1), BOTH(2), BOTH(3), 7, 12, 17, 22)
    words += 4;
  } while ((at += 4) < twice + 16);
  at = twice;
  do { FOUR(MIX_2, at[1], at[6], at[11], at[0], 5, 9, 14, 20) }
  while ((at += 4) < twice + 16);
  do { FOUR(MIX_3, at[5], at[8], at[11], at[14], 4, 11, 16, 23) }
  while ((at -= 4) > twice);
  at = twice + 16;
  do { FOUR(MIX_4, at[0], at[7], at[14], at[5], 6, 10, 15, 21) }
  while ((at -= 4) > twice);
  md5->state[0] += a;
  md5->state[1] += b;
  md5->state[2] += c;
  md5->state[3] += d;
}

void md5_start(struct md5 *md5) {
  md5->state[0] = 0x67452301;
  md5->state[1] = 0xefcdab89;
  md5->state[2] = 0x98badcfe;
  md5->state[3] = 0x10325476;
  md5->size = 0;
}

void md5_add(struct md5 *md5, const u8 *data, u32 size) {
  for (u32 i = 0; i < size; i++) {
    md5->block[md5->size++ % 64] = data[i];
    if (md5->size % 64) continue;
    md5_add_block(md5, (const u32 *)(const void *)md5->block);
    rx_poll();
  }
}

void md5_end(struct md5 *md5, u8 digest[16]) {
  static const u8 ONE = 0x80, ZERO = 0;
  u32 bits[2] = {md5->size << 3, md5->size >> 29};
  md5_add(md5, &ONE, 1);
  while (md5->size % 64 != 56) md5_add(md5, &ZERO, 1);
  md5_add(md5, (const u8 *)bits, 8);
  copy(digest, md5->state, 16);
}
