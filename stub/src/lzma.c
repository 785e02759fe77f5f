/* LZMA (raw LZMA1, as liblzma writes it) with the window of inflate. Damage ends it with a status.

   The range decoder reads a bit that is 0 with probability p/2048: it divides `range` at that share, and `code` shows which
   part the encoder has chosen. Every probability adapts to the bits that it has predicted. See "LZMA specification",
   Igor Pavlov, in the LZMA SDK. LZMA_LC, LZMA_LP and LZMA_PB suit the chip's code. */
#include "stub.h"

#define STATES 12u                    /* what the last few packets were */
#define AFTER_MATCH 7u                /* from this state on, the last packet was not a literal */
#define POSITIONS (1u << LZMA_PB)
#define LITERAL 0x300u                /* probabilities of a literal in one context */
#define EVEN 1024u
#define LEAST_RANGE (1u << 24)
#define LEAST_MATCH 2u
#define END_MARK 0xFFFFFFFFu          /* the distance that ends the stream */

struct sizes { u16 choice[2], low[POSITIONS][8], middle[POSITIONS][8], high[256]; };

static struct probabilities {
  u16 match[STATES][POSITIONS], repeat[STATES], not_first[STATES], not_second[STATES], fourth[STATES];
  u16 longer[STATES][POSITIONS];
  u16 slots[4][64], special[128], align[16];
  struct sizes matches, repeats;
  u16 literals[LITERAL << (LZMA_LC + LZMA_LP)];
} p;
static u32 range, code, state, distances[4]; /* the last four, less one */

/* As unpack_byte, without a call while the frame has more. */
static inline __attribute__((always_inline)) u32 next_byte(void) {
  if (!unpack_left) return unpack_byte();
  unpack_left--;
  return *unpack_input++ ^ stream_mask;
}

static void refill(void) {
  range <<= 8;
  code = code << 8 | unpack_byte();
}

/* One bit, which is appended to `symbol`, with the decoder's state in the caller's variables: registers in a loop. */
static inline __attribute__((always_inline)) void next(u32 *width, u32 *rest, u16 *probability, u32 *symbol) {
  u32 value = *probability, bound;
  if (*width < LEAST_RANGE) {
    *width <<= 8;
    *rest = *rest << 8 | next_byte();
  }
  bound = (*width >> 11) * value;
  *symbol <<= 1;
  if (*rest < bound) {
    *width = bound;
    value -= (u32)((int)(value - 2048 + 31) >> 5);
  } else {
    *width -= bound;
    *rest -= bound;
    value -= value >> 5;
    ++*symbol;
  }
  *probability = (u16)value;
}

static u32 bit(u16 *probability) {
  u32 one = 0;
  next(&range, &code, probability, &one);
  return one;
}

/* Bits from the highest on, each with a probability that depends on those before. `symbol`: those that are there, a 1 in
   front of them. */
static u32 tree(u16 *probabilities, u32 symbol, u32 limit) {
  u32 width = range, rest = code;
  do next(&width, &rest, probabilities + symbol, &symbol);
  while (symbol < limit);
  range = width;
  code = rest;
  return symbol;
}

/* Bits from the lowest on. */
static u32 reversed_tree(u16 *probabilities, u32 count) {
  u32 symbol = 1, value = 0;
  for (u32 i = 0; i < count; i++) {
    u32 one = bit(probabilities + symbol);
    symbol = symbol << 1 | one;
    value |= one << i;
  }
  return value;
}

static u32 even_bits(u32 count) {
  u32 value = 0;
  while (count--) {
    if (range < LEAST_RANGE) refill();
    range >>= 1;
    value <<= 1;
    if (code >= range) {
      code -= range;
      value++;
    }
  }
  return value;
}

static u32 take_size(struct sizes *sizes, u32 position) {
  if (!bit(&sizes->choice[0])) return LEAST_MATCH + tree(sizes->low[position], 1, 8) - 8;
  if (!bit(&sizes->choice[1])) return LEAST_MATCH + 8 + tree(sizes->middle[position], 1, 8) - 8;
  return LEAST_MATCH + 16 + tree(sizes->high, 1, 256) - 256;
}

static u32 take_distance(u32 size) {
  u32 context = size - LEAST_MATCH, slot, count, base;
  slot = tree(p.slots[context < 4 ? context : 3], 1, 64) - 64;
  if (slot < 4) return slot;
  count = (slot >> 1) - 1;
  base = (2 | (slot & 1)) << count;
  if (slot < 14) return base + reversed_tree(p.special + base - slot, count);
  base += even_bits(count - 4) << 4;
  return base + reversed_tree(p.align, 4);
}

static u16 *find_literals(u32 at) {
  u32 before = at ? window[(at - 1) & WINDOW_MASK] : 0;
  return p.literals + LITERAL * ((at & ((1u << LZMA_LP) - 1)) << LZMA_LC | before >> (8 - LZMA_LC));
}

/* After a match, the byte at the last distance, which differs from this literal, predicts its bits until they differ. */
static u32 take_literal(u32 at) {
  u16 *probabilities = find_literals(at), *other = probabilities + 0x100;
  u32 symbol = 1, predicted, width = range, rest = code;
  if (state < AFTER_MATCH) return tree(probabilities, 1, 0x100);
  predicted = window[(at - distances[0] - 1) & WINDOW_MASK];
  do {
    u32 expected = predicted >> 7 & 1;
    predicted <<= 1;
    next(&width, &rest, other + (expected << 8) + symbol, &symbol);
    if ((symbol & 1) != expected) break;
  } while (symbol < 0x100);
  range = width;
  code = rest;
  return symbol < 0x100 ? tree(probabilities, symbol, 0x100) : symbol;
}

/* One of the last four distances becomes the first; returns 1 if its match has a single byte. */
static int take_repeat(u32 position) {
  u32 which = 0, distance;
  if (!bit(&p.not_first[state])) {
    if (!bit(&p.longer[state][position])) return 1;
  } else {
    which = 1;
    if (bit(&p.not_second[state])) which = 2 + bit(&p.fourth[state]);
  }
  distance = distances[which];
  for (; which; which--) distances[which] = distances[which - 1];
  distances[0] = distance;
  return 0;
}

/* A match; 0: the stream is damaged, or ends here. */
static int take_match(u32 position) {
  u32 size, after = state < AFTER_MATCH ? 0 : 3;
  if (!bit(&p.repeat[state])) {
    for (u32 i = 3; i; i--) distances[i] = distances[i - 1];
    state = AFTER_MATCH + after;
    size = take_size(&p.matches, position);
    distances[0] = take_distance(size);
  } else if (take_repeat(position)) {
    state = AFTER_MATCH + 2 + (after ? 2 : 0);
    size = 1;
  } else {
    state = AFTER_MATCH + 1 + after;
    size = take_size(&p.repeats, position);
  }
  return unpack_repeat(distances[0] + 1, size);
}

static void start(void) {
  u16 *all = (u16 *)&p;
  for (u32 i = 0; i < sizeof p / sizeof *all; i++) {
    all[i] = EVEN;
    if (i % 256 == 0) rx_poll();
  }
  state = 0;
  for (u32 i = 0; i < 4; i++) distances[i] = 0;
  range = 0xFFFFFFFF;
}

u16 lzma_stream(void) {
  u32 zero;
  unpack_start(0);
  start();
  zero = unpack_byte();
  for (u32 i = 0; i < 4; i++) code = code << 8 | unpack_byte();
  if (zero) return INFLATE_FAILED;
  while (!unpack.ended && !unpack.stopped) {
    u32 at = unpack.written, position = at & (POSITIONS - 1);
    if (bit(&p.match[state][position])) {
      if (!take_match(position)) break;
    } else {
      unpack_put(take_literal(at));
      state = state < 4 ? 0 : state < 10 ? state - 3 : state - 6;
    }
  }
  unpack_flush();
  if (unpack.ended) return TOO_LITTLE;
  if (unpack.stopped) return OK;      /* the writing side has the status */
  if (range < LEAST_RANGE) refill();
  return distances[0] == END_MARK && !code ? OK : unpack.ended ? TOO_LITTLE : INFLATE_FAILED;
}
