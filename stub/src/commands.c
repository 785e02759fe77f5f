/* Requests and replies. Commands that take long or have several replies are in write.c, read.c and hash.c. */
#include "stub.h"
#include "basics.h"

#define VERSION 2u
#define MOST_ARGS 6                   /* words at the start of a request, which a command takes as its arguments */
#define FLAGS 11u                     /* of the security information */
enum { WRITE_ENABLE_FIRST = 1, WAIT_AFTER = 2 };
enum { FEATURES = 0x12FFB | CAN_ENCRYPT << 2 | HAS_SECURITY_INFO << 12 | CAN_LZMA << (HAS_BRANCH_FILTER ? 15 : 14) };

/* --- small commands: body in, answer out; alone or in a batch --- */

static u16 write_registers(const u32 *body, u32 size) {
  flash_forget();
  for (const u32 *end = body + size / 4; body < end; body += 4) {
    u32 address = body[0], value = body[1], mask = body[2];
    hw_delay_us(body[3]);
    if (address % 4) return BAD_BLOCK;
    if (mask != 0xFFFFFFFF) value = (hw_read(address) & ~mask) | (value & mask);
    hw_write(address, value);
  }
  return OK;
}

static u16 run_spi(const u32 *body, u32 size, struct answer *answer) {
  u32 lengths = body[2], flags = body[3];
  struct spi s = {.opcode = (u8)body[0], .address = body[1], .address_bits = (u8)lengths, .dummy = (u8)(lengths >> 8)};
  s.out = (u8)(lengths >> 16);
  s.in = (u8)(lengths >> 24);
  if (size != 16u + s.out || s.out > 64 || s.in > 64 || s.address_bits > 32 || s.dummy > 64) return BAD_LENGTH;
  flash_wait();
  hw_spi_load(body + 4, s.out);
  if (flags & WRITE_ENABLE_FIRST) hw_write_enable();
  spi_run(&s);
  if (flags & WAIT_AFTER) flash_wait();
  copy(answer->data, s.words, s.in);
  answer->size = s.in;
  return OK;
}

static u16 tell_capabilities(struct answer *answer) {
  static const u32 TOLD[8] = {FEATURES, PAYLOAD, WINDOW, READ_PACKET, READ_WINDOW, CPU_HZ, BATCH_BYTES, IMAGE_CHIP_ID};
  static const u8 BUILD[8] = BUILD_ID;
  u32 crc;
  answer->value = VERSION;
  copy(answer->data, "EWST", 4);
  copy(answer->data + 4, TOLD, sizeof TOLD);
  copy(answer->data + 4 + sizeof TOLD, BUILD, sizeof BUILD);
  crc = hw_code_crc();
  copy(answer->data + 4 + sizeof TOLD + sizeof BUILD, &crc, sizeof crc);
  answer->size = 4 + sizeof TOLD + sizeof BUILD + sizeof crc;
  return OK;
}

/* As the ROM answers it. A field of no bits has a constant in place of its first bit. */
static u16 tell_security(struct answer *answer) {
#if HAS_SECURITY_INFO
  static const u8 FIELDS[][2] = SECURITY_FIELDS; /* first bit and number of bits, among the eFuses from EFUSES on */
  u32 *words = (u32 *)(void *)answer->data, flags = 0;
  for (u32 i = 0; i < sizeof FIELDS / sizeof *FIELDS; i++) {
    u32 value = FIELDS[i][0], count = FIELDS[i][1];
    if (count) value = hw_read(EFUSES + value / 32 * 4) >> value % 32 & ((1u << count) - 1);
    if (i < FLAGS) flags |= ((value ^ value >> 1 ^ value >> 2) & 1) << i; /* set if the number of ones is odd */
    else answer->data[4 + i - FLAGS] = (u8)value;
  }
  words[0] = flags;
  answer->size = 12;
#ifdef ROM_ECO
  words[3] = IMAGE_CHIP_ID;
  words[4] = hw_read(ROM_ECO);
  answer->size = 20;
#endif
#endif
  (void)answer;
  return OK;
}

static u16 hash_range(u32 address, u32 size, struct answer *answer) {
  if (!flash_in_range(address, size)) return BAD_BLOCK;
  answer->size = hash_piece(address, size, KIND_MD5, answer->data, 1) ? 16 : 0;
  return OK;
}

/* Length of a command's body; two values: either; ANY: the command checks it. The first ones are the small commands. */
#define ANY 255
static const u8 LENGTHS[][2] = {
#if HAS_SECURITY_INFO
  {GET_SECURITY_INFO, 0},
#endif
  {READ_REG, 4}, {SPI_ATTACH, 4}, {CAPABILITIES, 4}, {SPI_SET_PARAMS, 24}, {SPI_FLASH_MD5, 16}, {WRITE_REG, ANY}, {SPI, ANY},
  {FLASH_BEGIN, 16}, {FLASH_BEGIN, 20}, {FLASH_DEFL_BEGIN, 16}, {FLASH_DEFL_BEGIN, 20}, {FLASH_END, 4}, {FLASH_DEFL_END, 4},
  {ABORT, 4}, {RESET, 4}, {MEM_BEGIN, 16}, {HASH, 16}, {READ_FLASH, 16}, {MEM_END, 8}, {CHANGE_BAUDRATE, 8},
  {CHANGE_BAUDRATE, 12}, {ERASE_REGION, 8}, {READ_ACK, 8}, {WRITE_OPEN, 24}, {SYNC, 36}, {ERASE_FLASH, 0}, {RUN_USER_CODE, 0},
};
enum { SMALL_COMMANDS = 7 + HAS_SECURITY_INFO, ALL_COMMANDS = sizeof LENGTHS / sizeof *LENGTHS };

/* UNKNOWN_COMMAND: not among the first `count`. */
static u16 check_length(u8 op, u32 size, u32 count) {
  u16 status = UNKNOWN_COMMAND;
  for (u32 i = 0; i < count; i++) {
    if (LENGTHS[i][0] != op) continue;
    if (LENGTHS[i][1] == size || LENGTHS[i][1] == ANY) return OK;
    status = BAD_LENGTH;
  }
  return status;
}

static u16 answer_small(u8 op, const u32 *body, u32 size, struct answer *answer) {
  u16 status = check_length(op, size, SMALL_COMMANDS);
  answer->value = answer->size = 0;
  if (status) return status;
  switch (op) {
    case WRITE_REG: return size && size % 16 == 0 ? write_registers(body, size) : BAD_LENGTH;
    case SPI: return size >= 16 ? run_spi(body, size, answer) : BAD_LENGTH;
    case READ_REG:
      if (body[0] % 4) return BAD_BLOCK;
      answer->value = hw_read(body[0]);
      return OK;
    case SPI_ATTACH: return hw_attach(body[0]);
    case SPI_SET_PARAMS: flash_size = body[1]; return OK;
    case GET_SECURITY_INFO: return tell_security(answer);
    case SPI_FLASH_MD5: return hash_range(body[0], body[1], answer);
    default: return tell_capabilities(answer);
  }
}

static void run_batch(const u8 *body, u32 size) {
  static u8 out[BATCH_BYTES] __attribute__((aligned(4)));
  static struct answer answer;
  u32 at = 0, used = 0;
  u16 status = OK;
  while (at < size && !status) {
    u32 length = at + 4 <= size ? (u32)body[at + 2] | (u32)body[at + 3] << 8 : size;
    u32 padded = (length + 3) & ~3u;
    if (at + 4 + padded > size) break;
    status = answer_small(body[at], (const u32 *)(const void *)(body + at + 4), length, &answer);
    length = (answer.size + 3) & ~3u;
    for (u32 i = answer.size; i < length; i++) answer.data[i] = 0;
    if (used + 8 + length > sizeof out) break;
    out[used] = (u8)(status >> 8);
    out[used + 1] = (u8)status;
    out[used + 2] = (u8)answer.size;
    out[used + 3] = (u8)(answer.size >> 8);
    copy(out + used + 4, &answer.value, 4);
    copy(out + used + 8, answer.data, length);
    used += 8 + length;
    at += 4 + padded;
  }
  send_reply(BATCH, 0, out, used, at < size && !status ? BAD_LENGTH : OK);
}

/* --- all others --- */

/* During an erase the flash would not answer the boot loader. */
static void reset(void) {
  flash_wait();
  hw_tx_drain();
  hw_reset();
}

static void erase(const u32 *args, u8 op) {
  u32 offset = args[0], size = args[1];
  u16 status = OK;
  if (op == ERASE_FLASH) flash_erase_all();
  else if (offset % SECTOR || size % SECTOR || !flash_in_range(offset, size)) status = BAD_BLOCK;
  else flash_erase_range(offset, size);
  send_status(op, status);
}

static void end_flash(u32 stay, u8 op) {
  send_status(op, write_end_vendor());
  if (!stay) reset();
}

static void handle_small(const struct frame *frame, u8 op) {
  static u32 body[BATCH_BYTES / 4];
  static struct answer answer;
  u32 size = frame->size - HEADER;
  u16 status;
  if (size > sizeof body) size = 1;   /* is refused, too */
  frame_copy(frame, HEADER, body, size);
  if (op == BATCH) {
    run_batch((const u8 *)body, size);
    return;
  }
  status = answer_small(op, body, size, &answer);
  send_reply(op, answer.value, answer.data, answer.size, status);
}

static void handle(const struct frame *frame) {
  u32 args[MOST_ARGS], size = frame->size - HEADER;
  u8 op = frame_byte(frame, 1);
  u32 trust = frame_trust(frame);
  if (!trust) {
    /* the check word shows the host which of its requests was damaged */
    if (op != WRITE_DATA && op != READ_ACK) send_reply(op, frame_word(frame, 4), 0, 0, BAD_CHECKSUM);
    return;
  }
  unsealed = trust == UNSEALED;
  if (check_length(op, size, ALL_COMMANDS) == BAD_LENGTH) {
    send_status(op, BAD_LENGTH);
    return;
  }
  if (op != WRITE_DATA && op != SPI_FLASH_MD5) write_forget_hash();
  frame_copy(frame, HEADER, args, sizeof args);
  switch (op) {
    case SYNC: answer_sync(); break;
    case WRITE_OPEN: write_open(args); break;
    case WRITE_DATA: case FLASH_DATA: case FLASH_DEFL_DATA: write_data_late(frame, op); break;
    case FLASH_BEGIN: case FLASH_DEFL_BEGIN: write_begin_vendor(args, size, op); break;
    case FLASH_END: case FLASH_DEFL_END: end_flash(args[0], op); break;
    case READ_OPEN: read_open(frame); break;
    case READ_ACK: break;             /* late: the read has ended */
    case READ_FLASH: read_vendor(args); break;
    case HASH: hash_pieces(args); break;
    case MEM_BEGIN: send_status(op, ram_begin(args)); break;
    case MEM_DATA: send_status(op, ram_data(frame, args[0])); break;
    case MEM_END: ram_end(args); break;
    case CHANGE_BAUDRATE: change_baud(args, size); break;
    case ERASE_FLASH: case ERASE_REGION: erase(args, op); break;
    case RUN_USER_CODE: break;        /* as the vendor's */
    case ABORT: write_forget(); send_reply(ABORT, args[0], 0, 0, OK); break;
    case RESET: send_status(RESET, OK); reset(); break;
    default: handle_small(frame, op); break;
  }
}

void serve(void) {
  struct frame frame;
  hw_tx_flush();                      /* what the ROM has left to send */
  slip_begin();
  slip_put(HELLO, 4);
  slip_end();
  if (options.batch_size) run_batch(options.batch, options.batch_size);
  for (;;) {
    while (!frame_take(&frame)) {}
    if (frame.size >= HEADER) handle(&frame);
    frame_release();
  }
}
