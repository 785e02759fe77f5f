/* The NOR flash, one transaction at a time. Every wait polls the receiver. Addresses above 16 MB have 32 bits. */
#include "stub.h"

enum {
  PROGRAM = 0x02, READ_STATUS = 0x05, WRITE_ENABLE = 0x06, FAST_READ = 0x0B, ERASE_CHIP = 0xC7,
  ERASE_SECTOR = 0x20, ERASE_BLOCK = 0xD8,
  PROGRAM_4 = 0x12, FAST_READ_4 = 0x0C, ERASE_SECTOR_4 = 0x21, ERASE_BLOCK_4 = 0xDC,
};
#define ERASED 0xFFFFFFFFu
#define MOST (1u << 28)               /* 256 MiB, or if the size was not set: ends do not wrap around */
#define FEW 3                         /* dirty sectors that are erased one by one: faster than their block */

u32 flash_size;

static struct spi status = {.opcode = READ_STATUS, .in = 1};
static const struct spi *last;        /* the last transaction, if it can be repeated: `status` or `reading` */

static void start(const struct spi *transaction) {
  last = 0;
  hw_spi_start(transaction);
}

void flash_forget(void) { last = 0; }

void spi_run(struct spi *transaction) {
  start(transaction);
  hw_spi_finish(transaction);
}

/* A transaction of one byte. */
static void command(u8 opcode) {
  static struct spi s;
  s.opcode = opcode;
  spi_run(&s);
}

static void set_address(struct spi *s, u8 near, u8 far, u32 address) {
  s->opcode = address >> 24 ? far : near;
  s->address_bits = address >> 24 ? 32 : 24;
  s->address = address;
}

/* A transaction that changes the flash, with the data that were loaded. */
static struct spi change;

static void change_flash(u8 near, u8 far, u32 address, u32 out) {
  command(WRITE_ENABLE);
  change.out = (u8)out;
  set_address(&change, near, far, address);
  spi_run(&change);
}

/* All ones: no part, or a part in power-down, which would be waited for forever. */
int flash_busy(void) {
  u32 bits;
  if (last == &status) hw_spi_again();
  else hw_spi_start(&status);
  last = &status;
  hw_spi_finish(&status);
  bits = status.words[0] & 0xFF;
  return bits != 0xFF && (bits & 1);
}

void flash_wait(void) {
  while (flash_busy()) rx_poll();
}

int flash_in_range(u32 address, u32 size) {
  u32 most = flash_size && flash_size < MOST ? flash_size : MOST;
  return address <= most && size <= most - address;
}

static struct spi reading;

void flash_read_start(u32 address, u32 size) {
  u32 end = address + size - 1;         /* it may be the first byte with a long address */
  u32 same = last == &reading && reading.in == size && reading.address_bits == (end >> 24 ? 32 : 24);
  if (same) {
    reading.address = address;
    hw_spi_again_at(&reading);
    return;
  }
  reading.dummy = 8;
  reading.in = (u8)size;
  set_address(&reading, FAST_READ, FAST_READ_4, end);
  reading.address = address;
  hw_spi_start(&reading);
  last = &reading;
}

void flash_read_finish(u32 *data) {
  hw_spi_take(data, reading.in);
}

void flash_read(u32 address, u32 *data, u32 size) {
  flash_read_start(address, size);
  flash_read_finish(data);
}

void flash_start_program(u32 address, const u32 *data, u32 size) {
  if (hw_spi_load(data, size) != ERASED) change_flash(PROGRAM, PROGRAM_4, address, size);
}

void flash_start_erase(u32 address, u32 size) {
  flash_wait();
  if (size == BLOCK) change_flash(ERASE_BLOCK, ERASE_BLOCK_4, address, 0);
  else change_flash(ERASE_SECTOR, ERASE_SECTOR_4, address, 0);
}

static int sector_is_blank(u32 address) {
  flash_wait();
  return hash_flash(0, address, SECTOR);
}

/* A unit is a 64 KiB block that lies completely in the range, else a sector. Blank sectors are not erased. */
u32 erase_next(u32 address, u32 end) {
  u32 dirty = 0, count = 0;
  if (address % BLOCK || end - address < BLOCK) {
    if (!sector_is_blank(address)) flash_start_erase(address, SECTOR);
    return address + SECTOR;
  }
  for (u32 i = 0; i < BLOCK / SECTOR && count <= FEW; i++)
    if (!sector_is_blank(address + i * SECTOR)) {
      dirty |= 1u << i;
      count++;
    }
  if (count > FEW) flash_start_erase(address, BLOCK);
  else
    for (u32 i = 0; i < BLOCK / SECTOR; i++)
      if (dirty >> i & 1) flash_start_erase(address + i * SECTOR, SECTOR);
  return address + BLOCK;
}

void flash_erase_range(u32 address, u32 size) {
  for (u32 at = address & ~(SECTOR - 1), end = address + size; at < end && !abort_waits();) at = erase_next(at, end);
  flash_wait();
}

void flash_erase_all(void) {
  flash_wait();
  command(WRITE_ENABLE);
  command(ERASE_CHIP);
  flash_wait();
}
