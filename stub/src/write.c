/* Writes: a stream of frames in, flash out. Erases ahead while the wire is slower than the flash. */
#include "stub.h"

enum { CODEC_RAW, CODEC_ZLIB, CODEC_LZMA, CODEC_LZMA_RISCV };
enum { LZMA = HAS_BRANCH_FILTER ? CODEC_LZMA_RISCV : CODEC_LZMA };
enum { ENCRYPTED = 1, NO_ERASE = 2, READ_BACK = 4 };
enum { CLOSED, OURS, VENDOR };
#define LAG 28672u                    /* most unpacked bytes that wait for the flash: with another step they fit the window */
#define READ_BACK_STEP 512u
#define OPEN_END 0xFFFFFFFFu          /* size of a stream that ends with its first frame that is not full */
#define SURE 32768u                   /* what was unpacked so many bytes ago is certainly in flash, whatever the clocks did */

u8 window[WINDOW_MASK + 1] __attribute__((aligned(4)));
u8 stream_mask;

static struct {
  struct { u32 offset, size, stream_size, codec, flags, id; }; /* in the order of WRITE_OPEN */
  u32 received, reported, in_flash, erased, again;
  u32 ready, programmed;              /* unpacked bytes: in the window, given to the flash */
  u32 frame_at, frame_left;           /* of the current frame: not unpacked yet */
  u16 status;
  u8 kind, op, interrupted;           /* op: of the vendor's data frames */
  struct frame frame;
  struct md5 md5;                     /* of the first bytes, as read back */
  u32 first[4];                       /* its state after the first sector */
} w;

static u32 end_address(void) { return w.offset + w.size; }

static void report(u16 status) {
  u32 data[3] = {w.received + WINDOW, w.in_flash, w.id};
  if (status == OK) status = w.status;
  w.reported = w.received;
  send_reply(WRITE_DATA, w.received, data, sizeof data, status);
}

/* Damaged, or not the expected frame: report it once, and again after every eight. */
static void refuse_frame(void) {
  if (w.again++ % 8 == 0) report(GO_BACK);
}

/* Whether the frame has the next piece of the stream. Answers empty frames. */
static int accept(const struct frame *frame) {
  u32 size = frame->size - HEADER - 4, position, mask;
  if (frame_trust(frame) != SEALED || frame->size < HEADER + 4) {
    refuse_frame();
    return 0;
  }
  position = frame_word(frame, HEADER);
  mask = position & MASK_BITS;
  position -= mask;
  if (!size) {
    report(OK);
    return 0;
  }
  if (position != w.received || size > w.stream_size - w.received ||
      (size != PAYLOAD && w.stream_size != OPEN_END && position + size != w.stream_size)) {
    refuse_frame();
    return 0;
  }
  if (size != PAYLOAD) w.stream_size = position + size;
  w.again = 0;
  w.received += size;
  stream_mask = (u8)mask;
  w.frame_at = HEADER + 4;
  w.frame_left = size;
  return 1;
}

/* The vendor's data frame: answered before it is written. A repeated frame is answered only. */
static int accept_vendor(const struct frame *frame) {
  u32 size = frame_word(frame, HEADER), sequence = frame_word(frame, HEADER + 4);
  u16 status = OK;
  if (frame->size < HEADER + 16 || size != frame->size - HEADER - 16) status = BAD_LENGTH;
  else if (!frame_trust(frame) || (unsealed && vendor_checksum(frame, size) != frame_byte(frame, 4))) status = BAD_CHECKSUM;
  else if (sequence != w.again && sequence + 1 != w.again) status = BAD_BLOCK;
  else if (sequence == w.again) {
    w.again++;
    w.frame_at = HEADER + 16;
    w.frame_left = size;
  }
  send_reply(w.op, 0, 0, 0, status);
  return status == OK && w.frame_left;
}

/* A step of unpacked bytes, its branches restored: what goes into flash next. */
static u32 restored[WRITE_STEP / 4];
static u32 restored_at;               /* its position */

static void restore_step(void) {
  const u32 *from = (const u32 *)(const void *)(window + (w.programmed & WINDOW_MASK));
  u32 size = w.ready - w.programmed;
  if (!HAS_BRANCH_FILTER || w.codec != LZMA || w.programmed % WRITE_STEP || restored_at == w.programmed || !size) return;
  for (u32 i = 0; i < WRITE_STEP / 4; i++) restored[i] = from[i];
  branches_restore((u8 *)restored, w.programmed, size < WRITE_STEP ? size : WRITE_STEP);
  restored_at = w.programmed;
}

static struct { const u32 *data; u32 size; } burst; /* what goes into flash next, within a unit of 64 bytes; size 0: to be found */

static void find_burst(void) {
  u32 at = w.programmed & WINDOW_MASK, size = BURST - (w.offset + w.programmed) % BURST;
  if (size > w.ready - w.programmed) size = w.ready - w.programmed;
  if (size > WINDOW_MASK + 1 - at) size = WINDOW_MASK + 1 - at;
  restore_step();
  burst.size = size;
  burst.data = (const u32 *)(const void *)(window + at);
  if (HAS_BRANCH_FILTER && w.codec == LZMA) burst.data = restored + at % WRITE_STEP / 4;
}

/* The flash is ready: program the next burst, or erase where it goes. */
static __attribute__((noinline)) void program_next(void) {
  u32 address = w.offset + w.programmed;
  if (w.erased <= address) {
    w.erased = erase_next(w.erased, end_address());
    return;
  }
  if (!burst.size) find_burst();
  if (w.flags & ENCRYPTED) {
    w.status = hw_write_encrypted(address, burst.data, burst.size);
    flash_forget();
    if (w.status) w.ready = w.programmed;
    else w.programmed += burst.size;
    burst.size = 0;
    return;
  }
  flash_start_program(address, burst.data, burst.size);
  w.programmed += burst.size;
  burst.size = 0;
  if (w.programmed == w.ready) return;
  find_burst();                       /* the next one, while this one is programmed */
  flash_load(w.offset + w.programmed, burst.data, burst.size);
}

void write_pump(void) {
  if (w.programmed != w.ready && !flash_busy()) program_next();
}

/* No frame has arrived: the wire is slower than the flash, so use the time. */
static void use_idle_time(void) {
  u32 ahead = w.erased < end_address();
  int behind = w.flags & READ_BACK && w.programmed - w.md5.size >= READ_BACK_STEP;
  if (w.programmed != w.ready) {
    write_pump();
  } else if ((ahead || behind) && !flash_busy()) {
    if (ahead) {
      w.erased = erase_next(w.erased, end_address());
      return;
    }
    hash_flash(&w.md5, w.offset + w.md5.size, READ_BACK_STEP);
    if (w.md5.size == SECTOR) copy(w.first, w.md5.state, sizeof w.first);
  }
}

/* The first sector is compared again: if the flash is smaller than assumed, the end has overwritten it. */
u32 write_hashed(u32 address, u32 size, struct md5 *md5) {
  u32 hashed = w.md5.size;
  w.md5.size = 0;
  if (hashed < SECTOR || address != w.offset || size < hashed) return 0;
  md5_start(md5);
  hash_flash(md5, address, SECTOR);
  for (u32 i = 0; i < 4; i++)
    if (md5->state[i] != w.first[i]) return 0;
  copy(md5, &w.md5, sizeof *md5);
  return md5->size = hashed;
}

int write_more(const u8 **data, u32 *size) {
  while (!w.frame_left) {
    frame_release();
    if (w.kind == OURS && w.received == w.stream_size) return 0;
    if (w.kind == OURS && w.received - w.reported >= WINDOW / 4) report(OK);
    while (!frame_take(&w.frame)) use_idle_time();
    if (w.frame.size < HEADER) continue;
    if (frame_byte(&w.frame, 1) == w.op) {
      if (w.kind == OURS) accept(&w.frame);
      else accept_vendor(&w.frame);
    } else if (frame_trust(&w.frame)) {
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

int write_ready(u32 total) {
  if (total > w.size) w.status = TOO_MUCH;
  else w.ready = total;
  while (w.ready - w.programmed > LAG && !abort_waits()) {
    rx_poll();
    write_pump();
  }
  if (abort_waits()) w.interrupted = 1;
  if (w.ready > SURE) w.in_flash = w.ready - SURE;
  return !w.status && !w.interrupted;
}

/* Raw data uses the window too. The padding of the vendor's last block is dropped. */
static void copy_stream(void) {
  const u8 *data;
  u32 size, at = 0;
  while (at < w.size && write_more(&data, &size)) {
    const u8 *from = data, *all = data + (size < w.size - at ? size : w.size - at);
    while (from < all) {
      const u8 *end = from + (RX_TURN - at % RX_TURN);
      u8 *to = window + (at & WINDOW_MASK);
      u32 mask = stream_mask;
      if (end > all) end = all;
      at += (u32)(end - from);
      do *to++ = (u8)(*from++ ^ mask);
      while (from < end);
      write_pump();
      rx_poll();
      write_pump();
      if ((at % WRITE_STEP == 0 || at == w.size) && !write_ready(at)) return;
    }
  }
}

static void run(void) {
  u16 status = OK;
  if (w.codec == CODEC_ZLIB) status = inflate_stream();
  else if (CAN_LZMA && w.codec == LZMA) status = lzma_stream();
  else copy_stream();
  for (u32 i = 0; i < 4; i++) window[(w.ready + i) & WINDOW_MASK] = 0xFF; /* fills up the last word */
  while (w.programmed != w.ready && !w.interrupted) {
    rx_poll();
    write_pump();
    w.interrupted = (u8)abort_waits();
  }
  if (w.interrupted) {
    w.ready = w.programmed;           /* what is not in flash is given up */
    frame_release();
    return;
  }
  w.in_flash = w.programmed;
  if (!w.status) w.status = status;
  if (!w.status && w.in_flash != w.size) w.status = TOO_LITTLE;
  flash_wait();
  w.frame_left = 0;
  frame_release();
}

static u16 check_range(u32 align) {
  if (!w.size || w.offset % align || !flash_in_range(w.offset, w.size)) return BAD_BLOCK;
  if (CAN_LZMA && w.codec == LZMA) return HAS_BRANCH_FILTER && w.offset % BURST ? BAD_BLOCK : OK;
  return w.codec > CODEC_ZLIB ? NOT_IMPLEMENTED : OK;
}

static void start(u8 kind, u8 op) {
  w.kind = kind;
  w.op = op;
  w.received = w.reported = w.in_flash = w.again = w.frame_left = 0;
  w.ready = w.programmed = 0;
  restored_at = OPEN_END;
  burst.size = 0;                     /* the last write may have found and loaded its next data */
  flash_forget();
  stream_mask = 0;
  md5_start(&w.md5);
  w.status = OK;
  w.interrupted = 0;
  w.erased = w.flags & NO_ERASE ? end_address() : w.offset & ~(SECTOR - 1);
}

void write_open(const u32 *args) {
  u16 status;
  copy(&w, args, 24);
  start(OURS, WRITE_DATA);
  status = check_range(w.flags & NO_ERASE ? 4 : SECTOR);
  if (!status && (w.flags & ENCRYPTED) && !CAN_ENCRYPT) status = NOT_IMPLEMENTED;
  if (w.codec == LZMA && !w.stream_size) w.stream_size = OPEN_END;
  if (!status && (!w.stream_size || (w.codec == CODEC_RAW && w.stream_size != w.size))) status = BAD_LENGTH;
  send_reply(WRITE_OPEN, WINDOW, 0, 0, status);
  if (status) {
    w.kind = CLOSED;
    return;
  }
  run();
  if (!w.interrupted) report(OK);
}

/* A data frame while no write is running: an empty frame gets the last report again, data gets no answer. */
void write_data_late(const struct frame *frame, u8 op) {
  if (op != WRITE_DATA) send_status(op, w.status ? w.status : NOT_OPEN);
  else if (frame->size == HEADER + 4) report(w.kind == OURS && !w.interrupted ? OK : NOT_OPEN);
}

void write_begin_vendor(const u32 *args, u32 size, u8 op) {
  u16 status;
  w.size = args[0];
  w.offset = args[3];
  w.codec = op == FLASH_DEFL_BEGIN ? CODEC_ZLIB : CODEC_RAW;
  w.flags = size > 16 && args[4] ? ENCRYPTED : 0;
  start(VENDOR, op + 1);
  status = w.size ? check_range(4) : OK;
  if (args[2] > VENDOR_BLOCK) status = BAD_BLOCK;
  if (!status && w.flags && !CAN_ENCRYPT) status = NOT_IMPLEMENTED;
  send_status(op, status);
  if (status) w.kind = CLOSED;
  else if (w.size) run();
}

u16 write_end_vendor(void) {
  u16 status = w.kind != VENDOR ? NOT_OPEN : w.status ? w.status : w.in_flash != w.size ? TOO_LITTLE : OK;
  w.kind = CLOSED;
  return status;
}

void write_forget(void) { w.kind = CLOSED; }
void write_forget_hash(void) { w.md5.size = 0; }
