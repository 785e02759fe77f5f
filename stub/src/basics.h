/* Common to the stub and its first stage: replies, SYNC, baud rate, RAM. Included by the main file of each, so that the
   compiler sees all callers. */
#pragma once
#include "stub.h"

#define SYNC_ANSWERS 8
#define HELLO "OHAI"

static u32 ram_address, ram_left;

void begin_reply(u8 op, u32 value, u32 size) {
  u32 length = size + (unsealed ? 2 : 6), head[2] = {1u | (u32)op << 8 | length << 16, value};
  slip_begin();
  slip_put(head, HEADER);
}

void end_reply(u16 status) {
  u8 tail[2] = {(u8)(status >> 8), (u8)status};
  slip_put(tail, 2);
  slip_end();
}

void send_reply(u8 op, u32 value, const void *data, u32 size, u16 status) {
  begin_reply(op, value, size);
  slip_put(data, size);
  end_reply(status);
}

void send_status(u8 op, u16 status) { send_reply(op, 0, 0, 0, status); }

static u16 ram_begin(const u32 *args) {
  ram_left = 0;
  ram_address = args[3];
  if (ram_address % 4 || args[2] > VENDOR_BLOCK) return BAD_BLOCK;
  ram_left = args[0];
  return OK;
}

/* Word by word: code memory does not accept less. */
static u16 ram_data(const struct frame *frame, u32 size) {
  if (frame->size < HEADER + 16 || size != frame->size - HEADER - 16) return BAD_LENGTH;
  if (unsealed && vendor_checksum(frame, size) != frame_byte(frame, 4)) return BAD_CHECKSUM;
  if (size > ((ram_left + 3) & ~3u)) return TOO_MUCH;
  if (ram_address % 4) return BAD_BLOCK;
  for (u32 i = 0; i < size; i += 4) {
    hw_write(ram_address + i, frame_word(frame, HEADER + 16 + i));
    if (i % 64 == 60) rx_poll();
  }
  ram_address += size;
  ram_left = size < ram_left ? ram_left - size : 0;
  return OK;
}

static void ram_end(const u32 *args) {
  u16 status = ram_left ? TOO_LITTLE : OK;
  send_status(MEM_END, status);
  if (status || args[0]) return;
  flash_wait();
  hw_tx_drain();
  hw_jump(args[1]);
}

static void answer_sync(void) {
  for (u32 i = 0; i < SYNC_ANSWERS; i++) send_status(SYNC, OK);
}

#define LONGEST_TRIAL 60000            /* ms */

static int is_rate(u32 baud) { return baud - 300 <= 10000000 - 300; }

static void change_baud(const u32 *args, u32 size) {
  u32 wanted = args[0], now = args[1], trial = size > 8 ? args[2] : 0;
  if (!is_rate(wanted) || !is_rate(now) || trial > LONGEST_TRIAL) {
    send_status(CHANGE_BAUDRATE, BAD_BLOCK);
    return;
  }
  send_status(CHANGE_BAUDRATE, OK);
  hw_tx_drain();
  trial_begin(trial);
  hw_set_baud(now, wanted);
}
