/* The CRC-32 of zlib, by half bytes: the table is small, and the wire is slow. */
#include "stub.h"

static const u32 TABLE[16] = {
  0x00000000, 0x1DB71064, 0x3B6E20C8, 0x26D930AC, 0x76DC4190, 0x6B6B51F4, 0x4DB26158, 0x5005713C,
  0xEDB88320, 0xF00F9344, 0xD6D6A3E8, 0xCB61B38C, 0x9B64C2B0, 0x86D3D2D4, 0xA00AE278, 0xBDBDF21C,
};

u32 crc32_add(u32 crc, const u8 *data, u32 size) {
  crc = ~crc;
  for (u32 i = 0; i < size; i++) {
    crc ^= data[i];
    crc = crc >> 4 ^ TABLE[crc & 15];
    crc = crc >> 4 ^ TABLE[crc & 15];
    if (i % 64 == 63) rx_poll();
  }
  return ~crc;
}
