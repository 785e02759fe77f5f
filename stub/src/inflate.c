/* Inflate (RFC 1950, 1951). Damage ends it with a status. */
#include "stub.h"

#define FAST_BITS 9
enum { STORED, FIXED, DYNAMIC };

struct huffman { u16 fast[1 << FAST_BITS], counts[16], symbols[288]; };
static struct huffman literals, distances;
static u8 lengths[320];
static u32 bits, bit_count;

enum { LONGEST = 258, LONGEST_PLACE = 28 };
static const u8 LENGTH_ORDER[19] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};

/* At least so many bits; more while the frame has some. */
static void refill(u32 count) {
  const u8 *at = unpack_input;
  u32 left = unpack_left;
  for (; left && bit_count <= 24; left--) {
    bits |= (u32)(*at++ ^ stream_mask) << bit_count;
    bit_count += 8;
  }
  unpack_input = at;
  unpack_left = left;
  while (bit_count < count) {
    bits |= unpack_byte() << bit_count;
    bit_count += 8;
  }
}

static inline __attribute__((always_inline)) void need(u32 count) {
  if (bit_count < count) refill(count);
}

static u32 take(u32 count) {
  u32 value;
  need(count);
  value = bits & ((1u << count) - 1);
  bits >>= count;
  bit_count -= count;
  return value;
}

/* Canonical codes from their lengths; 0: there are too many of some length. */
static int build(struct huffman *h, const u8 *sizes, u32 count) {
  u16 places[17];
  u32 next[16], code = 0;
  rx_poll();
  for (u32 i = 0; i < 16; i++) h->counts[i] = 0;
  for (u32 i = 0; i < count; i++) h->counts[sizes[i]]++;
  h->counts[0] = 0;
  places[1] = 0;
  for (u32 i = 1; i < 16; i++) {
    places[i + 1] = (u16)(places[i] + h->counts[i]);
    code = (code + h->counts[i - 1]) << 1;
    next[i] = code;
    if (code + h->counts[i] > 1u << i) return 0;
  }
  rx_poll();
  for (u32 i = 0; i < 1 << FAST_BITS; i++) h->fast[i] = 0;
  for (u32 i = 0; i < count; i++) {
    u32 size = sizes[i], reversed = 0, value;
    if (i % 8 == 0) rx_poll();
    if (!size) continue;
    h->symbols[places[size]++] = (u16)i;
    value = next[size]++;
    if (size > FAST_BITS) continue;
    for (u32 bit = 0; bit < size; bit++) reversed |= (value >> bit & 1) << (size - 1 - bit);
    for (; reversed < 1 << FAST_BITS; reversed += 1u << size) h->fast[reversed] = (u16)(size << 9 | i);
  }
  return 1;
}

static int decode(const struct huffman *h) {
  u32 entry, left;
  int code = 0, first = 0, index = 0;
  need(15);
  entry = h->fast[bits & ((1 << FAST_BITS) - 1)];
  if (entry) {
    bits >>= entry >> 9;
    bit_count -= entry >> 9;
    return (int)(entry & 511);
  }
  rx_poll();                          /* long codes take long */
  left = bits;
  for (u32 size = 1; size < 16; size++) {
    int count = h->counts[size];
    code |= (int)(left & 1);
    left >>= 1;
    if (code - count < first) {
      bits >>= size;
      bit_count -= size;
      return h->symbols[index + code - first];
    }
    index += count;
    first = (first + count) << 1;
    code <<= 1;
  }
  return -1;
}

static int read_stored(void) {
  u32 size, check;
  take(bit_count & 7);
  size = take(16);
  check = take(16);
  if (size != (check ^ 0xFFFF)) return 0;
  while (size-- && !unpack.ended && !unpack.stopped) unpack_put(take(8));
  return 1;
}

static int read_tables(void) {
  u32 literal_count = take(5) + 257, distance_count = take(5) + 1, count = take(4) + 4, read = 0;
  for (u32 i = 0; i < 19; i++) lengths[i] = 0;
  for (u32 i = 0; i < count; i++) lengths[LENGTH_ORDER[i]] = (u8)take(3);
  if (!build(&literals, lengths, 19)) return 0;
  for (u32 i = 0; i < literal_count + distance_count;) {
    int symbol = decode(&literals);
    u32 value = 0, repeat;
    if (symbol < 0 || unpack.ended) return 0;
    if (read++ % 8 == 0) rx_poll();
    if (symbol < 16) {
      lengths[i++] = (u8)symbol;
      continue;
    }
    if (symbol == 16) {
      if (!i) return 0;
      value = lengths[i - 1];
      repeat = 3 + take(2);
    } else {
      repeat = symbol == 17 ? 3 + take(3) : 11 + take(7);
    }
    if (i + repeat > literal_count + distance_count) return 0;
    while (repeat--) lengths[i++] = (u8)value;
  }
  return build(&literals, lengths, literal_count) && build(&distances, lengths + literal_count, distance_count);
}

static int use_fixed_tables(void) {
  for (u32 i = 0; i < 288; i++) lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
  if (!build(&literals, lengths, 288)) return 0;
  for (u32 i = 0; i < 30; i++) lengths[i] = 5;
  return build(&distances, lengths, 30);
}

/* Lengths are in groups of four, distances in pairs (`step` 2 and 1 bits); each group has one extra bit more than the last. */
static u32 take_value(u32 place, u32 step) {
  u32 extra = place >> step;
  if (extra < 2) return place;
  extra--;
  return (((1u << step) | (place & ((1u << step) - 1))) << extra) + take(extra);
}

static int read_codes(void) {
  while (!unpack.ended && !unpack.stopped) {
    int symbol = decode(&literals), place;
    u32 size, distance;
    if (symbol < 0 || symbol > 285) return 0;
    if (symbol < 256) {
      unpack_put((u32)symbol);
      continue;
    }
    if (symbol == 256) return 1;
    symbol -= 257;
    size = symbol == LONGEST_PLACE ? LONGEST : 3 + take_value((u32)symbol, 2);
    place = decode(&distances);
    if (place < 0 || place > 29) return 0;
    distance = 1 + take_value((u32)place, 1);
    if (!unpack_repeat(distance, size)) return 0;
  }
  return 1;
}

static int read_blocks(void) {
  u32 last;
  do {
    u32 kind;
    last = take(1);
    kind = take(2);
    if (kind == STORED) {
      if (!read_stored()) return 0;
    } else if (kind == FIXED || kind == DYNAMIC) {
      if (!(kind == FIXED ? use_fixed_tables() : read_tables()) || !read_codes()) return 0;
    } else {
      return 0;
    }
  } while (!last && !unpack.ended && !unpack.stopped);
  return 1;
}

u16 inflate_stream(void) {
  u32 head, sum = 0;
  unpack_start(1);
  bits = bit_count = 0;
  head = take(8) << 8;
  head |= take(8);
  if ((head & 0x8F00) != 0x0800 || head % 31 || head & 32) return unpack.ended ? TOO_LITTLE : INFLATE_FAILED;
  if (!read_blocks()) return unpack.ended ? TOO_LITTLE : INFLATE_FAILED;
  unpack_flush();
  if (unpack.ended) return TOO_LITTLE;
  if (unpack.stopped) return OK;      /* the writing side has the status */
  take(bit_count & 7);
  for (u32 i = 0; i < 4; i++) sum = sum << 8 | take(8);
  if (unpack.ended) return TOO_LITTLE;
  return sum == unpack_adler() ? OK : INFLATE_FAILED;
}
