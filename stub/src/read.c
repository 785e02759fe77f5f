/* Reads: flash contents in packets, many in flight; the host acknowledges them, and may request a position again. */
#include "stub.h"

enum { SHORT_BLANKS = 1 };
enum { AGAIN = 1 };
#define VENDOR_PACKET 4096u
#define VENDOR_WINDOW 64u

/* Send flash contents, and add them to the MD5. */
static void send_flash(u32 address, u32 size, struct md5 *md5) {
  u32 words[BURST / 4];
  while (size) {
    u32 count = size < BURST ? size : BURST;
    flash_read(address, words, count);
    slip_put(words, count);
    if (md5) md5_add(md5, (u8 *)words, count);
    rx_poll();
    address += count;
    size -= count;
  }
}

static void send_packet(u32 address, u32 position, u32 size, u32 flags) {
  if ((flags & SHORT_BLANKS) && hash_flash(0, address, size)) size = 0;
  begin_reply(READ_OPEN, position, size);
  send_flash(address, size, 0);
  end_reply(OK);
}

void read_open(const struct frame *frame) {
  struct { u32 offset, size, packet, most, flags; } asked;
  u32 offset, size, packet, most, next = 0, done = 0;
  struct frame ack;
  frame_copy(frame, HEADER, &asked, sizeof asked);
  offset = asked.offset, size = asked.size, packet = asked.packet, most = asked.most;
  if (!size || !packet || packet > READ_PACKET || packet % 4 || most < packet || !flash_in_range(offset, size)) {
    send_status(READ_OPEN, BAD_BLOCK);
    return;
  }
  send_reply(READ_OPEN, size, 0, 0, OK); /* no packet has this position */
  flash_wait();
  frame_release();
  while (done < size) {
    u32 count = size - next < packet ? size - next : packet;
    if (count && next + count - done <= most) {
      send_packet(offset + next, next, count, asked.flags);
      next += count;
    }
    while (done < size && frame_take(&ack)) {
      u32 received = frame_word(&ack, HEADER), whole = frame_trust(&ack);
      if (whole && frame_byte(&ack, 1) != READ_ACK) {
        frame_unread();
        return;
      }
      if (whole && ack.size == HEADER + 8 && received <= next) {
        if (frame_word(&ack, HEADER + 4) & AGAIN) done = next = received;
        else if (received > done) done = received;
      }
      frame_release();
    }
  }
}

void read_vendor(const struct frame *frame) {
  struct { u32 offset, size, packet, most; } asked;
  u32 offset, size, packet, most, sent = 0, done = 0;
  struct md5 md5;
  struct frame ack;
  u8 digest[16];
  frame_copy(frame, HEADER, &asked, sizeof asked);
  offset = asked.offset, size = asked.size, packet = asked.packet, most = asked.most;
  if (!packet || packet > VENDOR_PACKET || !most || most > VENDOR_WINDOW || !flash_in_range(offset, size)) {
    send_status(READ_FLASH, BAD_BLOCK);
    return;
  }
  send_status(READ_FLASH, OK);
  md5_start(&md5);
  flash_wait();
  frame_release();
  while (done < size) {
    if (sent < size && sent - done < most * packet) {
      u32 count = size - sent < packet ? size - sent : packet;
      slip_begin();
      send_flash(offset + sent, count, &md5);
      slip_end();
      sent += count;
    }
    while (frame_take(&ack)) {
      if (ack.size == 4) {
        done = frame_word(&ack, 0);
      } else if (frame_trust(&ack)) {
        frame_unread();
        return;
      }
      frame_release();
    }
  }
  md5_end(&md5, digest);
  slip_begin();
  slip_put(digest, sizeof digest);
  slip_end();
}
