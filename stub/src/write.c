/* Writes: a stream of frames in, flash out. Erases ahead while the wire is slower than the flash. */
#include "stub.h"

enum { CODEC_RAW, CODEC_ZLIB };
enum { ENCRYPTED = 1, NO_ERASE = 2 };
enum { CLOSED, OURS, VENDOR };

static struct {
  u32 offset, size, stream_size, codec, flags, id;
  u32 received, reported, in_flash, erased, again;
  u32 frame_at, frame_left;           /* of the frame at hand: what inflate has not seen yet */
  u16 status;
  u8 kind, op, interrupted;           /* op: of the vendor's data frames */
  struct frame frame;
} w;

static u32 end_address(void) { return w.offset + w.size; }

static void report(u16 status) {
  u32 data[3] = {w.received + WINDOW, w.in_flash, w.id};
  if (status == OK) status = w.status;
  w.reported = w.received;
  send_reply(WRITE_DATA, w.received, data, sizeof data, status);
}

/* Damaged, or not the one that comes next: say so once, and again after each eight. */
static void refuse_frame(void) {
  if (w.again++ % 8 == 0) report(GO_BACK);
}

int frame_is_intact(const struct frame *frame) {
  u32 crc = 0, size = frame->size - HEADER, at = HEADER;
  while (size) {
    const u8 *data;
    u32 count = frame_span(frame, at, size, &data);
    crc = crc32_add(crc, data, count);
    at += count;
    size -= count;
  }
  return crc == frame_word(frame, 4);
}

/* Whether the frame brings the next piece of the stream. Pokes are answered here. */
static int accept(const struct frame *frame) {
  u32 size = frame->size - HEADER - 4, position;
  if (frame->size < HEADER + 4 || !frame_is_intact(frame)) {
    refuse_frame();
    return 0;
  }
  position = frame_word(frame, HEADER);
  if (!size) {
    report(OK);
    return 0;
  }
  if (position != w.received || size > w.stream_size - w.received ||
      (size != PAYLOAD && position + size != w.stream_size)) {
    refuse_frame();
    return 0;
  }
  w.again = 0;
  w.received += size;
  w.frame_at = HEADER + 4;
  w.frame_left = size;
  return 1;
}

static u8 vendor_checksum(const struct frame *frame, u32 at, u32 size) {
  u8 sum = 0xEF;
  for (u32 i = 0; i < size; i++) {
    sum ^= frame_byte(frame, at + i);
    if (i % 256 == 255) rx_poll();
  }
  return sum;
}

/* The vendor's data frame: answered when it has come, before it is written. A repeated one is answered only. */
static int accept_vendor(const struct frame *frame) {
  u32 size = frame_word(frame, HEADER), sequence = frame_word(frame, HEADER + 4);
  u16 status = OK;
  if (frame->size < HEADER + 16 || size != frame->size - HEADER - 16) status = BAD_LENGTH;
  else if (vendor_checksum(frame, HEADER + 16, size) != frame_byte(frame, 4)) status = BAD_CHECKSUM;
  else if (sequence != w.again && sequence + 1 != w.again) status = BAD_BLOCK;
  else if (sequence == w.again) {
    w.again++;
    w.frame_at = HEADER + 16;
    w.frame_left = size;
  }
  send_reply(w.op, 0, 0, 0, status);
  return status == OK && w.frame_left;
}

static void erase_ahead(u32 least) {
  u32 end = end_address();
  while (w.erased < end && w.erased < least && !abort_waits()) w.erased = erase_next(w.erased, end);
}

int write_more(const u8 **data, u32 *size) {
  while (!w.frame_left) {
    frame_release();
    if (w.kind == OURS && w.received == w.stream_size) return 0;
    if (w.kind == OURS && w.received - w.reported >= WINDOW / 4) report(OK);
    while (!frame_take(&w.frame)) {   /* the wire is slower: use the time */
      if (w.erased < end_address() && !flash_busy()) w.erased = erase_next(w.erased, end_address());
    }
    if (w.frame.size < HEADER || frame_byte(&w.frame, 0)) continue;
    if (frame_byte(&w.frame, 1) == w.op) {
      if (w.kind == OURS) accept(&w.frame);
      else accept_vendor(&w.frame);
    } else if (frame_is_whole(&w.frame)) {
      frame_unread();
      w.interrupted = 1;
      return 0;
    }
  }
  *size = frame_span(&w.frame, w.frame_at, w.frame_left, data);
  w.frame_at += *size;
  w.frame_left -= *size;
  return 1;
}

int write_out(const u8 *data, u32 size) {
  u32 address = w.offset + w.in_flash;
  if (size > w.size - w.in_flash) {
    w.status = TOO_MUCH;
    return 0;
  }
  erase_ahead(address + size);
  if (abort_waits()) {
    w.interrupted = 1;
    return 0;
  }
  flash_wait();
  if (w.flags & ENCRYPTED) {
    w.status = hw_write_encrypted(address, (const u32 *)(const void *)data, size);
    if (w.status) return 0;
  } else {
    flash_program(address, (const u32 *)(const void *)data, size);
  }
  w.in_flash += size;
  return 1;
}

/* Raw data goes through the window too: whole sectors from an aligned buffer. What fills up the vendor's last block
   is left out. */
static u16 copy_stream(void) {
  const u8 *data;
  u32 size, held = 0;
  while (w.in_flash + held < w.size && write_more(&data, &size)) {
    if (size > w.size - w.in_flash - held) size = w.size - w.in_flash - held;
    while (size) {
      u32 count = SECTOR - held < size ? SECTOR - held : size;
      if (count > 256) count = 256;
      copy(window + held, data, count);
      rx_poll();
      held += count;
      data += count;
      size -= count;
      if (held == SECTOR) {
        if (!write_out(window, held)) return w.status;
        held = 0;
      }
    }
  }
  for (u32 i = 0; i < 4; i++) window[held + i] = 0xFF;
  if (held && !w.interrupted && !write_out(window, held)) return w.status;
  return OK;
}

static void run(void) {
  u16 status = w.codec == CODEC_ZLIB ? inflate_stream() : copy_stream();
  if (w.interrupted) {
    frame_release();
    return;
  }
  if (!w.status) w.status = status;
  if (!w.status && w.in_flash != w.size) w.status = TOO_LITTLE;
  flash_wait();
  w.frame_left = 0;
  frame_release();
}

static u16 check_range(u32 align) {
  if (!w.size || w.offset % align || !flash_in_range(w.offset, w.size)) return BAD_BLOCK;
  return w.codec > CODEC_ZLIB ? NOT_IMPLEMENTED : OK;
}

static void open_range(u32 offset, u32 size, u8 kind, u8 op) {
  w.offset = offset;
  w.size = size;
  w.kind = kind;
  w.op = op;
  w.received = w.reported = w.in_flash = w.again = w.frame_left = 0;
  w.status = OK;
  w.interrupted = 0;
  w.erased = w.flags & NO_ERASE ? offset + size : offset & ~(SECTOR - 1);
}

void write_open(const struct frame *frame) {
  u16 status;
  w.stream_size = frame_word(frame, HEADER + 8);
  w.codec = frame_word(frame, HEADER + 12);
  w.flags = frame_word(frame, HEADER + 16);
  w.id = frame_word(frame, HEADER + 20);
  open_range(frame_word(frame, HEADER), frame_word(frame, HEADER + 4), OURS, WRITE_DATA);
  status = check_range(w.flags & NO_ERASE ? 4 : SECTOR);
  if (!status && (w.flags & ENCRYPTED) && !CAN_ENCRYPT) status = NOT_IMPLEMENTED;
  if (!status && (!w.stream_size || (w.codec == CODEC_RAW && w.stream_size != w.size))) status = BAD_LENGTH;
  send_reply(WRITE_OPEN, WINDOW, 0, 0, status);
  if (status) {
    w.kind = CLOSED;
    return;
  }
  run();
  if (!w.interrupted) report(OK);
}

/* A data frame, or a poke, when no write runs: the last report again for a poke, silence for data. */
void write_data_late(const struct frame *frame, u8 op) {
  if (op != WRITE_DATA) send_reply(op, 0, 0, 0, w.status ? w.status : NOT_OPEN);
  else if (frame->size == HEADER + 4 && frame_is_intact(frame)) report(w.kind == OURS && !w.interrupted ? OK : NOT_OPEN);
}

void write_begin_vendor(const struct frame *frame, u8 op) {
  u32 size = frame_word(frame, HEADER), offset = frame_word(frame, HEADER + 12);
  u16 status;
  w.codec = op == FLASH_DEFL_BEGIN ? CODEC_ZLIB : CODEC_RAW;
  w.flags = frame->size > HEADER + 16 && frame_word(frame, HEADER + 16) ? ENCRYPTED : 0;
  open_range(offset, size, VENDOR, op + 1);
  status = size ? check_range(4) : OK;
  if (frame_word(frame, HEADER + 8) > VENDOR_BLOCK) status = BAD_BLOCK;
  if (!status && w.flags && !CAN_ENCRYPT) status = NOT_IMPLEMENTED;
  send_reply(op, 0, 0, 0, status);
  if (status) w.kind = CLOSED;
  else if (size) run();
}

u16 write_end_vendor(void) {
  u16 status = w.kind != VENDOR ? NOT_OPEN : w.status ? w.status : w.in_flash != w.size ? TOO_LITTLE : OK;
  w.kind = CLOSED;
  return status;
}

void write_forget(void) { w.kind = CLOSED; }
