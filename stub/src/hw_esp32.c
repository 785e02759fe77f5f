/* ESP32 only. Its ROM functions use register windows: rom_call in call_windowed.S. */
#include "hw.h"

#define CLOCK_SELECT (3u << 27)
#define CLOCK_PLL (1u << 27)
#define PERIOD_MASK 3u
#define PERIOD_160 1u
#define FULL_VOLTAGE (7u << 11)       /* of the core: 1.25 V, as the vendor's stub sets it before it selects the PLL */
#define APB16 (80000000u * 16)        /* once the PLL drives it */
#define ENCRYPTED_UNIT 32u

u32 rom_call(u32 function, u32 a, u32 b, u32 c, u32 d);

static void stop_watchdogs(void) {
  stop_watchdog(RTC_WATCHDOG, RTC_WATCHDOG_PROTECT);
  stop_watchdog(TIMER_WATCHDOG, TIMER_WATCHDOG_PROTECT);
}

/* The ROM runs from the crystal; with the PLL the UART's clock becomes 80 MHz, so its divider must change. */
static void take_full_clock(void) {
  u32 baud = options.baud;
  if ((options.flags & LEAVE_CLOCK) || !baud) return;
  REGISTER(CORE_VOLTAGE) |= FULL_VOLTAGE;
  REGISTER(CPU_PERIOD) = (REGISTER(CPU_PERIOD) & ~PERIOD_MASK) | PERIOD_160;
  if ((REGISTER(CLOCK_CONTROL) & CLOCK_SELECT) == CLOCK_PLL) return;
  REGISTER(CLOCK_CONTROL) = (REGISTER(CLOCK_CONTROL) & ~CLOCK_SELECT) | CLOCK_PLL;
  uart_set_divider((APB16 + baud / 2) / baud);
}

void hw_start(void) {
  stop_watchdogs();
  take_full_clock();
  spi_prepare();
}

void hw_jump(u32 address) { ((void (*)(void))(uintptr_t)address)(); }

/* By the ROM, which has key and mode. Unit by unit, so that the receiver is polled in between. */
u16 hw_write_encrypted(u32 address, const u32 *data, u32 size) {
  u16 status = OK;
  if (address % ENCRYPTED_UNIT || size % ENCRYPTED_UNIT) return BAD_BLOCK;
  rom_call(ROM_SPIFLASH_WRITE_ENCRYPTED_ENABLE, 0, 0, 0, 0);
  for (u32 at = 0; at < size && !status; at += ENCRYPTED_UNIT) {
    if (rom_call(ROM_SPIFLASH_WRITE_ENCRYPTED, address + at, (u32)(uintptr_t)(data + at / 4), ENCRYPTED_UNIT, 0)) status = SPI_FAILED;
    rx_poll();
  }
  rom_call(ROM_SPIFLASH_WRITE_ENCRYPTED_DISABLE, 0, 0, 0, 0);
  spi_prepare();
  return status;
}
