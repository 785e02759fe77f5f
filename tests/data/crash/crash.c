/* Firmware that crashes: three calls deep, in a function that was inlined. The handler prints what ESP-IDF's or the
   Arduino core's does, from the registers that the CPU really has. */
#include "sensor.h"

extern unsigned volatile kind;
extern void panic_abort(void);
static const struct sensor broken = {7, (volatile unsigned *)4};

__attribute__((noinline)) static unsigned measure(const struct sensor *sensor, unsigned rounds) {
  volatile unsigned sums[8];
  if (kind == 1) panic_abort();
  for (unsigned n = 0; n < 8; n++) sums[n] = rounds * n;
  return read_sensor(sensor) + sums[rounds & 7];
}

__attribute__((noinline)) unsigned collect(const struct sensor *sensor) {
  unsigned total = 1;
  for (unsigned n = 1; n < 3; n++) total += measure(sensor, n);
  return total;
}

__attribute__((noinline)) void app_main(void) {
  volatile unsigned kept = collect(&broken);
  kept++;
}
