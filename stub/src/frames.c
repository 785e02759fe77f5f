/* SLIP in both directions, and the ring of received frames. */
#include "pack.h"

#define END 0xC0
#define ESCAPE 0xDB
#define ESCAPED_END 0xDC
#define ESCAPED_ESCAPE 0xDD
#define RING 33792u                   /* two of the vendor's largest frames */
#define QUEUE 64u
#define TRIAL_US 20u
#define TAKEN 32u                     /* bytes out of the receive FIFO at once */

static u8 ring[RING];
static struct frame queue[QUEUE];
static u32 queue_in, queue_out;       /* count up; the index is the remainder */
static u32 ring_in;                   /* where the next byte goes */
static u32 frame_start;               /* of the frame that is being received */
static u32 ring_free;                 /* start of the oldest frame that is still needed; the byte before it stays free */
static enum { PLAIN, ESCAPING, DROPPING } state; /* of the frame that is being received; dropping: up to its end */
static u8 aborting;

static u32 place(u32 start, u32 at) { return start + at < RING ? start + at : start + at - RING; }
static u32 distance(u32 from, u32 to) { return to >= from ? to - from : to + RING - from; }

#ifdef FIRST_STAGE
static int is_abort(const struct frame *frame) { (void)frame; return 0; }
static void trial_wait(void) {}
#else
u8 unsealed;

/* Of a baud rate: if no sealed frame arrives for `all` waits of TRIAL_US, the divider changes back. `all` 0: no trial. */
static struct { u32 all, left, divider; } trial;

void trial_begin(u32 ms) {
  if (!trial.all) trial.divider = uart_divider();
  trial.all = trial.left = ms * (1000 / TRIAL_US);
}

static void trial_wait(void) {
  if (!trial.all) return;
  hw_delay_us(TRIAL_US);
  if (--trial.left) return;
  trial.all = 0;
  hw_tx_drain();
  uart_set_divider(trial.divider);
}

/* CRC-32 of the frame without its check word. */
static u32 frame_crc(const struct frame *frame) {
  u32 crc = 0, at = 0;
  while (at < frame->size) {
    const u8 *data;
    u32 count = frame_span(frame, at, (at < 4 ? 4 : frame->size) - at, &data);
    crc = crc32_add(crc, data, count);
    at += count;
    if (at == 4) at = HEADER;
  }
  return crc;
}

/* SEALED: the check word is the CRC. UNSEALED: a request of a vendor's tool (check word 0, or the vendor's checksum of data),
   which is valid after an unsealed SYNC, and as that SYNC. Our own commands are always sealed. */
u32 frame_trust(const struct frame *frame) {
  u32 check;
  u8 op;
  if (frame->size < HEADER || frame_byte(frame, 0) || frame->size - HEADER != frame_word(frame, 2) % 65536) return DAMAGED;
  check = frame_word(frame, 4);
  op = frame_byte(frame, 1);
  if (check == frame_crc(frame)) {
    trial.left = trial.all;
    return SEALED;
  }
  if (op != SYNC && (!unsealed || op >= CAPABILITIES)) return DAMAGED;
  return check < (is_data(op) ? 256 : 1) ? UNSEALED : DAMAGED;
}

/* A complete ABORT: frames queued before it are dropped, and the running command ends. The size is checked first: the CRC
   of a long frame would poll, and this is the poll. */
static int is_abort(const struct frame *frame) {
  return frame->size == HEADER + 4 && frame_byte(frame, 1) == ABORT && frame_trust(frame) == SEALED;
}
#endif

static void end_of_frame(void) {
  struct frame frame = {frame_start, distance(frame_start, ring_in)};
  if (frame.size && state == PLAIN && is_abort(&frame)) {
    queue_out = queue_in;
    aborting = 1;
  }
  if (frame.size && state == PLAIN && queue_in - queue_out < QUEUE) {
    queue[queue_in++ % QUEUE] = frame;
    frame_start = ring_in;
  } else {
    ring_in = frame_start;
  }
  state = PLAIN;
}

static u32 room;                      /* known to be free in the transmit FIFO */
static u32 sent_crc;                  /* of the frame that is being sent */

#ifdef FIRST_STAGE
enum { queueing = 0 };
static int sending(void) { return 0; }
static void tx_poll(void) {}
static void enqueue(u8 byte) { (void)byte; }
#else
static struct { u32 first, end; } outgoing; /* count up; the index is the remainder */
static u8 queueing;

static int sending(void) { return outgoing.first != outgoing.end; }

/* Move bytes into the FIFO. When there are none left, whatever was sent is complete. */
static __attribute__((noinline)) void tx_poll(void) {
  u32 first = outgoing.first, end = outgoing.end, count = room;
  if (!count) count = hw_tx_room();
  for (; count && first != end; count--) hw_tx_byte(READER->queue[first++ % QUEUE_BYTES]);
  outgoing.first = first;
  room = count;
  if (first != end) return;
  hw_tx_flush();
  room = 0;
}

static void enqueue(u8 byte) {
  while (outgoing.end - outgoing.first == QUEUE_BYTES) rx_poll();
  READER->queue[outgoing.end++ % QUEUE_BYTES] = byte;
}

void tx_queue(int on) {
  while (sending()) rx_poll();
  queueing = (u8)on;
}
#endif

static void store(u8 byte) {
  u32 next = place(ring_in, 1);
  state = PLAIN;
  if (next == ring_free) {
    state = DROPPING;
    return;
  }
  ring[ring_in] = byte;
  ring_in = next;
}

/* Any byte. A bad escape invalidates its frame. */
static __attribute__((noinline)) void receive_special(u8 byte) {
  if (byte == END) end_of_frame();
  else if (state == PLAIN && byte == ESCAPE) state = ESCAPING;
  else if (state == PLAIN) store(byte);
  else if (state == ESCAPING && byte == ESCAPED_END) store(END);
  else if (state == ESCAPING && byte == ESCAPED_ESCAPE) store(ESCAPE);
  else state = DROPPING;
}

static __attribute__((noinline)) void receive(const u8 *bytes, u32 count) {
  const u8 *end = bytes + count;
  u32 frame_end = END, escape = ESCAPE;
  IN_REGISTER(frame_end);
  IN_REGISTER(escape);
  while (bytes < end) {
    u8 *to = ring + ring_in, *stop = ring + (ring_free > ring_in ? ring_free : RING) - 1; /* one short of it */
    if (state != PLAIN) stop = to;
    if (stop - to > end - bytes) stop = to + (end - bytes);
    while (to < stop) {
      u32 byte = *bytes;
      if (byte == frame_end) break;
      IN_REGISTER(byte);              /* or both comparisons become one calculation */
      if (byte == escape) break;
      *to++ = (u8)byte;
      bytes++;
    }
    ring_in = (u32)(to - ring);
    if (bytes < end) receive_special(*bytes++);
  }
}

void rx_poll(void) {
  u8 bytes[TAKEN];
  u32 count;
  if (sending()) tx_poll();
  do {
    count = hw_rx_take(bytes, TAKEN);
    if (count) receive(bytes, count);
  } while (count == TAKEN);
}

int frame_take(struct frame *frame) {
  rx_poll();
  if (queue_in == queue_out) {
    trial_wait();
    return 0;
  }
  *frame = queue[queue_out++ % QUEUE];
  aborting = 0;
  return 1;
}

int abort_waits(void) { return aborting; }
void frame_unread(void) { if (!aborting) queue_out--; } /* an ABORT has discarded it */

void frame_release(void) { ring_free = queue_in != queue_out ? queue[queue_out % QUEUE].start : frame_start; }

int request_waits(void) {
  struct frame frame;
  while (frame_take(&frame)) {
    if (frame_trust(&frame)) {
      frame_unread();
      return 1;
    }
    frame_release();
  }
  return 0;
}

u8 frame_byte(const struct frame *frame, u32 at) { return ring[place(frame->start, at)]; }

u32 frame_word(const struct frame *frame, u32 at) {
  u32 word = 0;
  for (u32 i = 4; i--;) word = word << 8 | frame_byte(frame, at + i);
  return word;
}

void frame_copy(const struct frame *frame, u32 at, void *to, u32 size) {
  u8 *out = to;
  for (u32 i = 0; i < size; i++) {
    out[i] = frame_byte(frame, at + i);
    if (i % 64 == 63) rx_poll();
  }
}

u8 vendor_checksum(const struct frame *frame, u32 size) {
  u8 sum = 0xEF;
  for (u32 i = 0; i < size; i++) {
    sum ^= frame_byte(frame, HEADER + 16 + i);
    if (i % 64 == 63) rx_poll();
  }
  return sum;
}

u32 frame_span(const struct frame *frame, u32 at, u32 size, const u8 **data) {
  u32 start = place(frame->start, at);
  *data = ring + start;
  return size < RING - start ? size : RING - start;
}

static void put(u8 byte) {
  if (queueing) {
    enqueue(byte);
    return;
  }
  while (!room) {
    rx_poll();
    room = hw_tx_room();
  }
  room--;
  hw_tx_byte(byte);
}

void slip_begin(void) {
  put(END);
  sent_crc = 0;
}

void slip_end(void) {
  u32 crc = sent_crc;
  if (!unsealed) slip_put(&crc, 4);
  put(END);
  if (queueing) return;
  hw_tx_flush();
  room = 0;
}

void slip_put(const void *data, u32 size) {
  const u8 *bytes = data;
  if (!unsealed) sent_crc = crc32_add(sent_crc, bytes, size);
  for (u32 i = 0; i < size; i++) {
    u8 byte = bytes[i];
    if (byte == END || byte == ESCAPE) {
      put(ESCAPE);
      byte = byte == END ? ESCAPED_END : ESCAPED_ESCAPE;
    }
    put(byte);
    if (i % 64 == 63) rx_poll();
  }
}
