/* The CRC-32 of zlib. The table for whole bytes is made from a small one, which is quicker to upload. */
#include "stub.h"

static const u32 HALVES[16] = {
  0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4, 0x4DB26158, 0x5005713C,
  0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C, 0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C,
};

static u32 bytes[256];

static void fill(void) {
  for (u32 i = 0; i < 256; i++) {
    u32 crc = i >> 4 ^ HALVES[i & 15];
    bytes[i] = crc >> 4 ^ HALVES[crc & 15];
  }
}

u32 crc32_add(u32 crc, const u8 *data, u32 size) {
  crc = ~crc;
  if (!bytes[1]) fill();
  while (size) {
    const u8 *end = data + (size < 64 ? size : 64);
    size -= (u32)(end - data);
    do crc = crc >> 8 ^ bytes[(crc ^ *data++) & 255];
    while (data != end);
    if (size) {                       /* a long frame: neither receiver nor flash can wait for it */
      rx_poll();
      write_pump();
    }
  }
  return ~crc;
}
