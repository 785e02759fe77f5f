/* Deflate (RFC 1951) of a packet that is read: the contents of one block, in codes from the host, which has the block's header.
   Matches refer to the packets before, too. */
#include "pack.h"

#define MASK (HISTORY - 1)
#define SHORTEST 3u
#define LONGEST 257u                  /* one less than deflate's: 258 has a code of its own */
#define FAR 4096u                     /* a match of three bytes from there costs more than the bytes */
#define LONG 64u                      /* a comparison that takes time */
#define INSERTED 32u                  /* positions of a match that are entered into the table */
#define END_CODE 256u
#define LENGTH_CODES 257u
#define BITS_SHIFT 12

static struct { u32 bits, count, used, limit; } out;

static void put_bits(u32 value, u32 count) {
  value = out.bits | value << out.count;
  for (count += out.count; count >= 8; count -= 8) {
    if (out.used < out.limit) READER->packed[out.used++] = (u8)value;
    value >>= 8;
  }
  out.bits = value;
  out.count = count;
}

static void put_symbol(u32 symbol) {
  u32 code = READER->codes[symbol];
  put_bits(code & ((1u << BITS_SHIFT) - 1), code >> BITS_SHIFT);
}

/* A length (`step` 2) or distance (1), counted from 0: the place of its code, and extra bits. */
static void put_value(u32 first, u32 value, u32 step) {
  u32 extra = 0;
  while (value >> extra >= 2u << step) extra++;
  put_symbol(first + (extra << step) + (value >> extra));
  put_bits(value & ((1u << extra) - 1), extra);
}

static union bucket *find_bucket(const u8 *data) {
  u32 three = data[0] | (u32)data[1] << 8 | (u32)data[2] << 16;
  return READER->buckets + (three * 2654435761u >> (32 - BUCKET_BITS));
}

static void enter(union bucket *bucket, u32 at) {
  bucket->words[1] = bucket->words[1] << 16 | bucket->words[0] >> 16;
  bucket->words[0] = bucket->words[0] << 16 | (at & 0xFFFF);
}

/* The longest match; without one, `distance` stays as it is. Entries may be stale: what counts is whether the bytes are equal. */
static u32 find_match(const union bucket *bucket, u32 at, const u8 *data, u32 most, u32 known, u32 *distance) {
  u32 best = SHORTEST - 1;
  for (u32 way = 0; way < WAYS && best < most; way++) {
    u32 back = (at - bucket->places[way]) & MASK, place = (at - back) & MASK, size = 0;
    u32 reach = most < HISTORY - place ? most : HISTORY - place; /* a match does not wrap around */
    const u8 *there = READER->history + place;
    if (back - 1 >= known || best >= reach || data[best] != there[best]) continue;
    while (size < reach && data[size] == there[size]) size++;
    if (size > LONG) rx_poll();
    if (size <= best || (size == SHORTEST && back > FAR)) continue;
    best = size;
    *distance = back;
  }
  return best;
}

u32 pack(u32 at, u32 size, u32 low) {
  const u8 *data = READER->history + (at & MASK), *end = data + size;
  out.bits = out.count = out.used = 0;
  out.limit = size;
  while (data < end && out.used < size) {
    u32 distance = 0, count = 1, left = (u32)(end - data);
    if (left >= SHORTEST) {
      union bucket *bucket = find_bucket(data);
      u32 match = find_match(bucket, at, data, left < LONGEST ? left : LONGEST, at - low, &distance);
      if (distance) count = match;
      enter(bucket, at);
    }
    if (distance) {
      put_value(LENGTH_CODES, count - SHORTEST, 2);
      put_value(LITERALS, distance - 1, 1);
    } else {
      put_symbol(*data);
    }
    for (u32 i = 1; i < count && i < INSERTED && left - i >= SHORTEST; i++) enter(find_bucket(data + i), at + i);
    if ((at ^ (at + count)) & ~15u) rx_poll();
    at += count;
    data += count;
  }
  put_symbol(END_CODE);
  put_bits(0, 7);                     /* up to the next byte */
  return out.used < size ? out.used : 0;
}
