/* The NOR flash, one transaction at a time. Every wait polls the receiver, except for a status byte. Addresses above 16 MB have 32 bits. */
#include "stub.h"

enum {
  PROGRAM = 0x02, FAST_READ = 0x0B, ERASE_CHIP = 0xC7,
  ERASE_SECTOR = 0x20, ERASE_BLOCK = 0xD8,
  PROGRAM_4 = 0x12, FAST_READ_4 = 0x0C, ERASE_SECTOR_4 = 0x21, ERASE_BLOCK_4 = 0xDC,
};
#define ERASED 0xFFFFFFFFu
#define MOST (1u << 28)               /* 256 MiB, or if the size was not set: ends do not wrap around */
#define FEW 3                         /* dirty sectors that are erased one by one: faster than their block */

u32 flash_size;

static const struct spi *last;        /* the transaction whose registers are set; 0: another one */
static struct { u32 address, size, all; } loaded; /* data in the controller, and all words ANDed; size 0: none */

void flash_forget(void) {
  last = 0;
  loaded.size = 0;
}

void spi_run(struct spi *transaction) {
  flash_forget();
  hw_spi_start(transaction);
  hw_spi_finish(transaction);
}

/* Starts a transaction at `address`; its last byte is at `end`. If it was the last one, too, its registers are still set. */
static void start_at(struct spi *s, u8 near, u8 far, u32 address, u32 end) {
  u8 opcode = end >> 24 ? far : near;
  s->address = address;
  if (last == s && s->opcode == opcode) {
    hw_spi_again_at(s);
    return;
  }
  s->opcode = opcode;
  s->address_bits = end >> 24 ? 32 : 24;
  hw_spi_start(s);
  last = s;
}

/* All ones: no part, or a part in power-down, which would be waited for forever. */
int flash_busy(void) {
  u8 bits = hw_flash_status();
  return bits != 0xFF && (bits & 1);
}

void flash_wait(void) {
  while (flash_busy()) rx_poll();
}

int flash_in_range(u32 address, u32 size) {
  u32 most = flash_size && flash_size < MOST ? flash_size : MOST;
  return address <= most && size <= most - address;
}

static struct spi reading = {.dummy = 8};

void flash_read_start(u32 address, u32 size) {
  loaded.size = 0;
  if (reading.in != size) last = 0;
  reading.in = (u8)size;
  start_at(&reading, FAST_READ, FAST_READ_4, address, address + size - 1); /* the last byte may be the first with a long address */
}

u32 flash_read_finish(u32 *data) { return hw_spi_take(data, reading.in); }

void flash_read(u32 address, u32 *data, u32 size) {
  flash_read_start(address, size);
  flash_read_finish(data);
}

void flash_load(u32 address, const u32 *data, u32 size) {
  if (loaded.size == size && loaded.address == address) return;
  loaded.address = address;
  loaded.size = size;
  loaded.all = hw_spi_load(data, size);
}

void flash_start_program(u32 address, const u32 *data, u32 size) {
  static struct spi program;
  flash_load(address, data, size);
  loaded.size = 0;
  if (loaded.all == ERASED) return;
  hw_write_enable();
  if (program.out != size) last = 0;
  program.out = (u8)size;
  start_at(&program, PROGRAM, PROGRAM_4, address, address);
  hw_spi_finish(&program);
}

void flash_start_erase(u32 address, u32 size) {
  static struct spi erase;
  flash_wait();
  hw_write_enable();
  last = 0;
  if (size == BLOCK) start_at(&erase, ERASE_BLOCK, ERASE_BLOCK_4, address, address);
  else start_at(&erase, ERASE_SECTOR, ERASE_SECTOR_4, address, address);
  hw_spi_finish(&erase);
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
  static struct spi erase = {.opcode = ERASE_CHIP};
  flash_wait();
  hw_write_enable();
  spi_run(&erase);
  flash_wait();
}
