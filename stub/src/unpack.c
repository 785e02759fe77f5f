/* What both decompressors share: the stream's bytes, and the window that holds the last 32 KiB of the result, from which
   the flash is programmed meanwhile. */
#include "stub.h"

#define ADLER 65521u

struct unpack unpack;
const u8 *unpack_input;
u32 unpack_left;
static u32 flushed, adler_a, adler_b;
static u8 with_adler;

void unpack_start(int check_adler) {
  unpack.written = unpack_left = flushed = 0;
  unpack.ended = unpack.stopped = 0;
  adler_a = 1;
  adler_b = 0;
  with_adler = (u8)check_adler;
}

u32 unpack_byte(void) {
  if (!unpack_left && (unpack.ended || !write_more(&unpack_input, &unpack_left))) {
    unpack.ended = 1;
    return 0;
  }
  unpack_left--;
  return *unpack_input++ ^ stream_mask;
}

static void add_adler(void) {
  u32 a = adler_a, b = adler_b;
  const u8 *at = window + (flushed & WINDOW_MASK), *end = at + (unpack.written - flushed); /* a step, which does not wrap around */
  rx_poll();
  do {
    a += *at++;
    b += a;
  } while (at < end);
  if (unpack.written % SECTOR == 0) { /* at least once per sector: b stays below 2^32 */
    a %= ADLER;
    b %= ADLER;
  }
  adler_a = a;
  adler_b = b;
}

u32 unpack_adler(void) { return adler_b % ADLER << 16 | adler_a % ADLER; }

/* Hands over what is unpacked. */
void unpack_flush(void) {
  if (flushed == unpack.written) return;
  if (with_adler) add_adler();
  flushed = unpack.written;
  if (unpack.ended || (!unpack.stopped && !write_ready(unpack.written))) unpack.stopped = 1;
}

static void turn(void) {
  if (unpack.written % RX_TURN == 0) {
    if (unpack.written % WRITE_STEP == 0) unpack_flush();
    rx_poll();
  }
  write_pump();
}

void unpack_put(u32 byte) {
  window[unpack.written & WINDOW_MASK] = (u8)byte;
  if (++unpack.written % TURN == 0) turn();
}

int unpack_repeat(u32 distance, u32 size) {
  u32 at = unpack.written;
  if (distance - 1 >= at || distance - 1 > WINDOW_MASK) return 0;
  while (size) {
    u32 count = RX_TURN - at % RX_TURN, source = (at - distance) & WINDOW_MASK;
    u8 *to = window + (at & WINDOW_MASK); /* neither wraps around */
    const u8 *from = window + source, *end;
    if (count > size) count = size;
    if (count > WINDOW_MASK + 1 - source) count = WINDOW_MASK + 1 - source;
    size -= count;
    unpack.written = at += count;
    end = from + count;
    do *to++ = *from++;
    while (from < end);
    if (at % TURN == 0) turn();
  }
  return 1;
}
