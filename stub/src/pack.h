/* What a checked read has in the window of writes, which it does not need. */
#pragma once
#include "stub.h"

#define HISTORY 16384u                /* flash contents: the packet, and what was sent before */
#define BUCKET_BITS 10
#define WAYS 4u
#define QUEUE_BYTES 2048u
#define LITERALS 286u
#define CODES (LITERALS + 30u)

union bucket { u16 places[WAYS]; u32 words[WAYS / 2]; }; /* where three bytes occurred last */

struct reader {
  u16 codes[CODES];                   /* of literals and lengths, then of distances: the bits, and their number from bit 12 on */
  u8 history[HISTORY] __attribute__((aligned(4)));
  union bucket buckets[1 << BUCKET_BITS];
  u8 packed[READ_PACKET];
  u8 queue[QUEUE_BYTES];              /* bytes to send while the next packet is packed */
};
_Static_assert(sizeof(struct reader) <= WINDOW_MASK + 1, "more than the window");
#define READER ((struct reader *)(void *)window)

/* Packs `size` bytes at `at` of the history, where older ones are valid from `low` on. Returns the packed size; 0: not smaller. */
u32 pack(u32 at, u32 size, u32 low);
