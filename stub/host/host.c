/* The stub on a PC, for tests with sanitizers: UART on standard input and output, a simulated NOR flash, a memory of words.

   stub-host [SIZE_IN_MIB] [FILE]   the flash is kept in FILE, if given
   The end of the input, a reset and a jump end it. Exit code 3: the flash was used as no real one may be; see standard error. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "stub.h"

#define VIOLATED 3
#define KEY 0xA5                      /* the "encryption", which shows tests that it was requested */
#define PAGE 256u
#define IDLE 4000                     /* polls without data and without flash access in between, before we sleep */
#define WORDS 65536u

void stub_main(void);
struct options options;

static u8 input[4096], output[4096];
static size_t input_at, input_size, output_size;
static u32 idle;

static u8 *flash;
static u32 flash_bytes, busy, enabled, violations;
static const char *flash_file;

static u32 addresses[WORDS], values[WORDS];
static u8 used[WORDS];

/* --- the end --- */

static void leave(const char *why, u32 value) {
  size_t done = 0;
  while (done < output_size) {
    ssize_t count = write(1, output + done, output_size - done);
    if (count < 0 && errno != EINTR) break;
    if (count > 0) done += (size_t)count;
  }
  if (flash_file) {
    FILE *file = fopen(flash_file, "wb");
    if (!file || fwrite(flash, 1, flash_bytes, file) != flash_bytes || fclose(file)) perror(flash_file);
  }
  fprintf(stderr, "%s %#x\n", why, value);
  free(flash);
  exit(violations ? VIOLATED : 0);
}

/* --- UART --- */

static void flush_output(void) {
  for (size_t done = 0; done < output_size;) {
    ssize_t count = write(1, output + done, output_size - done);
    if (count < 0 && errno != EINTR) leave("nobody listens", 0);
    if (count > 0) done += (size_t)count;
  }
  output_size = 0;
}

u32 hw_rx_take(u8 *bytes, u32 most) {
  struct pollfd wire = {.fd = 0, .events = POLLIN};
  ssize_t count;
  if (input_at < input_size) {
    if (most > input_size - input_at) most = (u32)(input_size - input_at);
    memcpy(bytes, input + input_at, most);
    input_at += most;
    return most;
  }
  if (++idle < IDLE && idle % 8) return 0;
  flush_output();
  if (poll(&wire, 1, idle < IDLE ? 0 : 100) <= 0) return 0;
  count = read(0, input, sizeof input);
  if (count == 0) leave("end of input", 0);
  if (count < 0) return 0;
  input_at = 0;
  input_size = (size_t)count;
  idle = 0;
  return hw_rx_take(bytes, most);
}

u32 hw_tx_room(void) { return 126; }

void hw_tx_byte(u8 byte) {
  if (output_size == sizeof output) flush_output();
  output[output_size++] = byte;
}

void hw_tx_flush(void) {}
void hw_tx_drain(void) { flush_output(); }
void hw_set_baud(u32 now, u32 wanted) { fprintf(stderr, "baud %u to %u\n", now, wanted); }
u32 uart_divider(void) { return 16; }
void uart_set_divider(u32 sixteenths) { fprintf(stderr, "divider back to %u\n", sixteenths); }

/* --- memory and the rest --- */

static u32 *word_at(u32 address) {
  u32 place = (address >> 2) * 2654435761u >> 16;
  while (used[place] && addresses[place] != address) place = (place + 1) % WORDS;
  used[place] = 1;
  addresses[place] = address;
  return &values[place];
}

u32 hw_code_crc(void) { return 0; }
u32 hw_read(u32 address) { return *word_at(address); }
void hw_write(u32 address, u32 value) { *word_at(address) = value; }
void hw_delay_us(u32 microseconds) { (void)microseconds; rx_poll(); }
void hw_start(void) {}
void hw_reset(void) { leave("reset", 0); }
void hw_jump(u32 address) { leave("jump to", address); }
u16 hw_attach(u32 pins) { return pins ? NOT_IMPLEMENTED : OK; }

/* --- flash --- */

static void violation(const char *what, u32 address) {
  fprintf(stderr, "violation: %s at %#x\n", what, address);
  violations++;
}

static int may_change(const char *what, u32 address) {
  int may = enabled;
  if (!may) violation(what, address);
  enabled = 0;
  busy = 3;
  return may;
}

static void program(u32 address, const u8 *data, u32 size) {
  if (!may_change("program without enable", address)) return;
  for (u32 i = 0; i < size; i++) {
    u32 place = ((address & ~(PAGE - 1)) | ((address + i) & (PAGE - 1))) % flash_bytes;
    if (data[i] & ~flash[place]) violation("program 0 to 1", place);
    flash[place] &= data[i];
  }
}

static void erase(u32 address, u32 size) {
  if (address >= flash_bytes) violation("erase beyond the end", address);
  else if (may_change("erase without enable", address)) memset(flash + (address & ~(size - 1)), 0xFF, size);
}

static void answer_read(struct spi *s) {
  u8 *to = (u8 *)s->words;
  if (s->address_bits == 24 && s->address + s->in > 1u << 24) violation("a read past three address bytes", s->address);
  for (u32 i = 0; i < s->in; i++) to[i] = flash[(s->address + i) % flash_bytes];
}

static struct spi *running;
static u32 loaded[16];

u32 hw_spi_load(const u32 *words, u32 size) {
  u32 all = ~0u;
  for (u32 i = 0; i < (size + 3) / 4; i++) all &= loaded[i] = words[i];
  return all;
}

void hw_spi_start(const struct spi *transaction) {
  if (running) violation("two transactions at once", transaction->opcode);
  if (transaction->out > 64 || transaction->in > 64) abort();
  running = (struct spi *)(uintptr_t)transaction;
  idle = 0;
}

void hw_write_enable(void) {
  if (busy) violation("write enable while busy", 0);
  enabled = 1;
}

u8 hw_flash_status(void) {
  idle = 0;
  if (busy) busy--;
  return (u8)((busy ? 1 : 0) | enabled << 1);
}

void hw_spi_finish(struct spi *s) {
  if (running != s) violation("the end of another transaction", s->opcode);
  running = 0;
  rx_poll();
  if (s->opcode == 0x05) {
    memset(s->words, hw_flash_status(), s->in);
    return;
  }
  if (busy) violation("access while busy", s->opcode);
  switch (s->opcode) {
    case 0x06: enabled = 1; break;
    case 0x04: enabled = 0; break;
    case 0x9F: for (u32 i = 0; i < s->in; i++) ((u8 *)s->words)[i] = (u8)(0x1640EF >> (i < 3 ? 8 * i : 24)); break;
    case 0x0B: case 0x0C: answer_read(s); break;
    case 0x02: case 0x12: program(s->address, (const u8 *)loaded, s->out); break;
    case 0x20: case 0x21: erase(s->address, SECTOR); break;
    case 0xD8: case 0xDC: erase(s->address, BLOCK); break;
    case 0xC7: erase(0, flash_bytes); break;
    default: memset(s->words, 0, sizeof s->words); break;
  }
}

void hw_spi_again_at(const struct spi *s) { hw_spi_start(s); }

u32 hw_spi_take(u32 *words, u32 size) {
  struct spi *s = running;
  u32 all = ~0u;
  hw_spi_finish(s);
  memset((u8 *)s->words + size, 0xFF, sizeof s->words - size);
  memcpy(words, s->words, (size + 3) / 4 * 4);
  for (u32 i = 0; i < 16; i++) all &= s->words[i];
  return all;
}

u16 hw_write_encrypted(u32 address, const u32 *data, u32 size) {
  if (address % 32 || size % 32) return BAD_BLOCK;
  for (u32 at = 0; at < size; at += 32) {
    u8 unit[32];
    for (u32 i = 0; i < sizeof unit; i++) unit[i] = ((const u8 *)data)[at + i] ^ KEY;
    enabled = 1;
    program(address + at, unit, sizeof unit);
    flash_wait();
  }
  return OK;
}

int main(int count, char **arguments) {
  int mib = count > 1 ? atoi(arguments[1]) : 4;
  if (mib < 1 || mib > 64) return 2;
  flash_bytes = (u32)mib << 20;
  flash = malloc(flash_bytes);
  if (!flash) return 2;
  memset(flash, 0xFF, flash_bytes);
  if (count > 2) {
    FILE *file = fopen(flash_file = arguments[2], "rb");
    if (file) {
      if (fread(flash, 1, flash_bytes, file) != flash_bytes) fprintf(stderr, "%s is shorter than the flash\n", flash_file);
      fclose(file);
    }
  }
  fcntl(0, F_SETFL, fcntl(0, F_GETFL) | O_NONBLOCK);
  stub_main();
}
