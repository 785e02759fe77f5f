/* Hashes of flash: the next 64 bytes are read while the last ones are processed. */
#include "stub.h"

#define RESULT_BYTES 256u
#define BURSTS_PER_POLL 4u

/* Adds to the MD5, and keeps the contents; without either, ends at the first byte that is not 0xFF. Returns whether
   all are 0xFF. */
int scan_flash(struct md5 *md5, u32 address, u32 size, u32 *keep) {
  u32 local[BURST / 4], *words = keep ? keep : local, count = size < BURST ? size : BURST, all = ~0u;
  u32 whole = md5 && md5->size % BURST == 0; /* blocks of the MD5 are bursts */
  if (size) flash_read_start(address, count);
  while (size) {
    u32 done = count;
    all &= flash_read_finish(words);
    size -= done;
    address += done;
    if (count > size) count = size;
    if (size) flash_read_start(address, count);
    if (md5) {
      if (whole && done == BURST) {
        md5_add_block(md5, words);
        md5->size += BURST;
      } else {
        md5_add(md5, (const u8 *)words, done);
      }
    } else if (!keep && all != ~0u) {
      if (size) flash_read_finish(local);
      return 0;
    }
    if (keep) words += BURST / 4;
    if (size / BURST % BURSTS_PER_POLL == 0) rx_poll();
  }
  return all == ~0u;
}

int hash_flash(struct md5 *md5, u32 address, u32 size) { return scan_flash(md5, address, size, 0); }

/* One piece: 16 bytes of MD5, or one byte: whether everything is 0xFF. Returns 0 if another request has arrived. */
int hash_piece(u32 address, u32 size, u32 kind, u8 *result, int to_the_end) {
  struct md5 md5;
  u32 known = 0;
  int blank = 1;
  flash_wait();
  if (to_the_end) known = write_hashed(address, size, &md5);
  if (!known) md5_start(&md5);
  address += known;
  size -= known;
  while (size) {
    u32 count = SECTOR - address % SECTOR;
    if (count > size) count = size;
    blank &= hash_flash(kind == KIND_MD5 ? &md5 : 0, address, count);
    address += count;
    size -= count;
    if (!to_the_end && address % SECTOR == 0 && request_waits()) return 0;
  }
  if (kind == KIND_MD5) md5_end(&md5, result);
  else *result = (u8)blank;
  return 1;
}

void hash_pieces(const u32 *args) {
  u32 address = args[0], size = args[1], piece = args[2], kind = args[3];
  u32 width = kind == KIND_MD5 ? 16 : 1, index = 0, sent = 0, held = 0;
  u8 results[RESULT_BYTES];
  if (!piece) piece = size;
  if (kind > KIND_BLANK || !size || !flash_in_range(address, size)) {
    send_status(HASH, BAD_BLOCK);
    return;
  }
  while (size) {
    u32 count = size < piece ? size : piece;
    if (!hash_piece(address, count, kind, results + held, 0)) return;
    address += count;
    size -= count;
    held += width;
    index++;
    if (held == RESULT_BYTES || !size) {
      send_reply(HASH, sent, results, held, OK);
      sent = index;
      held = 0;
    }
  }
}
