/* The first stage, for ROMs that cannot change their baud rate: it changes the rate and receives the stub at the higher one.
   It does not access the flash or change the clock. It is one segment of words in code memory: constants are in instructions. */
#include "stub.h"
#include "basics.h"

#define HELLO_WORD 0x4941484Fu        /* HELLO, as it lies in memory */

void flash_wait(void) {}

/* Length of the body; 0: unknown command, or the command checks it. */
static u32 length_of(u8 op) {
  if (op == MEM_BEGIN) return 16;
  if (op == MEM_END || op == CHANGE_BAUDRATE) return 8;
  return op == SYNC ? 36 : 0;
}

static void handle(const struct frame *frame) {
  u8 op = frame_byte(frame, 1);
  u32 size = frame->size - HEADER, expected = length_of(op), args[4];
  u16 status = UNKNOWN_COMMAND;
  frame_copy(frame, HEADER, args, sizeof args);
  if (size != (frame_byte(frame, 2) | (u32)frame_byte(frame, 3) << 8) || (expected && size != expected)) status = BAD_LENGTH;
  else if (op == MEM_BEGIN) status = ram_begin(args);
  else if (op == MEM_DATA) status = ram_data(frame, args[0]);
  if (op == MEM_END && status != BAD_LENGTH) ram_end(args);
  else if (op == CHANGE_BAUDRATE && status != BAD_LENGTH) change_baud(args, 8);
  else if (op == SYNC && status != BAD_LENGTH) answer_sync();
  else send_status(op, status);
}

void stub_main(void) {
  u32 hello = HELLO_WORD;
  struct frame frame;
  slip_begin();
  slip_put(&hello, 4);
  slip_end();
  for (;;) {
    while (!frame_take(&frame)) {}
    if (frame.size >= HEADER && !frame_byte(&frame, 0)) handle(&frame);
    frame_release();
  }
}
