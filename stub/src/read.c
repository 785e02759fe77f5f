/* Reads: flash contents in packets, many in flight; the host acknowledges them, and may request a position again. */
#include "pack.h"

enum { SHORT_BLANKS = 1, CHECKED = 2, PACKED = 4, ALL_FLAGS = 7, VENDOR = 8 };
enum { AGAIN = 1 };
#define DIGEST 16u
#define OPEN_BYTES 20u
#define SIZE_BYTES 2u
#define VENDOR_WINDOW 64u              /* packets */

static struct {
  struct { u32 offset, size, packet, most, flags; }; /* in the order of READ_OPEN */
  u32 at, low;                        /* in the history: where the next packet goes, and the oldest bytes that are valid */
  struct md5 md5;                     /* of the first bytes */
} r;

static u32 checked(u32 value) { return r.flags & CHECKED ? value : 0; }

static void send_packet(u32 position, u32 size, const void *data, u32 sent) {
  if (r.flags & VENDOR) slip_begin();
  else begin_reply(READ_OPEN, position, checked(SIZE_BYTES) + sent);
  slip_put(&size, checked(SIZE_BYTES));
  slip_put(data, sent);
  if (r.flags & VENDOR) slip_end();
  else end_reply(OK);
}

/* If it is checked, a packet begins with its size. Its contents are packed, or not, or left out because they are blank. */
static void send_flash(u32 position, u32 size) {
  u8 *data;
  u32 packed = 0, blank;
  if (r.at % HISTORY + size > HISTORY) r.at = r.low = 0; /* a packet does not wrap around */
  if (r.at + size - r.low > HISTORY) r.low = r.at + size - HISTORY; /* older bytes are overwritten */
  data = READER->history + r.at % HISTORY;
  blank = (u32)scan_flash(r.flags & (CHECKED | VENDOR) && position == r.md5.size ? &r.md5 : 0, r.offset + position, size, (u32 *)(void *)data);
  blank &= r.flags & SHORT_BLANKS;
  if (!blank && r.flags & PACKED) packed = pack(r.at, size, r.low);
  send_packet(position, size, packed ? READER->packed : data, blank ? 0 : packed ? packed : size);
  r.at += (size + 3) & ~3u;
  if (blank) r.low = r.at;
}

/* The MD5 of all contents. It was computed on the way, except for positions that were requested again in another order. */
static void send_digest(void) {
  struct md5 md5;
  u8 digest[DIGEST];
  hash_flash(&r.md5, r.offset + r.md5.size, r.size - r.md5.size);
  copy(&md5, &r.md5, sizeof md5);
  md5_end(&md5, digest);
  send_packet(r.size, DIGEST, digest, DIGEST);
}

/* Until the host has everything; 0: another request has arrived. A vendor's tool acknowledges by a lone word. */
static int run(void) {
  u32 end = r.size + checked(DIGEST), next = 0, done = 0;
  u32 head = r.flags & VENDOR ? 0 : HEADER, ack_size = r.flags & VENDOR ? 4 : HEADER + 8;
  r.at = r.low = 0;
  md5_start(&r.md5);
  flash_wait();
  frame_release();
  tx_queue(1);
  while (done < end) {
    struct frame ack;
    u32 count = r.size - next < r.packet ? r.size - next : r.packet;
    if (next < r.size && next + count - done <= r.most) {
      send_flash(next, count);
      next += count;
    } else if (next == r.size && next < end) {
      send_digest();
      next = end;
    }
    while (done < end && frame_take(&ack)) {
      u32 received = frame_word(&ack, head), whole = frame_trust(&ack);
      if (whole && frame_byte(&ack, 1) != READ_ACK) {
        frame_unread();
        return 0;
      }
      if ((whole || !head) && ack.size == ack_size && received <= next && (received <= r.size || received == end)) {
        if (head && frame_word(&ack, HEADER + 4) & AGAIN) {
          done = next = received;
          r.low = r.at;
        } else if (received > done) {
          done = received;
        }
      }
      frame_release();
    }
  }
  return 1;
}

void read_open(const struct frame *frame) {
  u32 size = frame->size - HEADER;
  frame_copy(frame, HEADER, &r, OPEN_BYTES);
  r.flags &= ALL_FLAGS;
  if (size != OPEN_BYTES + (r.flags & PACKED ? sizeof READER->codes : 0)) {
    send_status(READ_OPEN, BAD_LENGTH);
    return;
  }
  if (!r.size || !r.packet || r.packet > READ_PACKET || r.packet % 4 || r.most < r.packet || !flash_in_range(r.offset, r.size)) {
    send_status(READ_OPEN, BAD_BLOCK);
    return;
  }
  if (r.flags & PACKED) {
    frame_copy(frame, HEADER + OPEN_BYTES, READER->codes, sizeof READER->codes);
    for (u32 i = 0; i < 1 << BUCKET_BITS; i++) {
      READER->buckets[i].words[0] = READER->buckets[i].words[1] = 0;
      if (i % 128 == 0) rx_poll();
    }
  }
  send_reply(READ_OPEN, r.size, 0, 0, OK); /* no packet has this position */
  run();
  tx_queue(0);
}

void read_vendor(const u32 *args) {
  copy(&r, args, 16);
  r.flags = VENDOR;
  if (!r.packet || r.packet > READ_PACKET || r.most - 1 >= VENDOR_WINDOW || !flash_in_range(r.offset, r.size)) {
    send_status(READ_FLASH, BAD_BLOCK);
    return;
  }
  r.most *= r.packet;
  send_status(READ_FLASH, OK);
  if (run()) send_digest();
  tx_queue(0);
}
