/* ESP32 only. Its ROM functions use register windows: rom_call in call_windowed.S. */
#include "hw.h"

#define CLOCK_SELECT (3u << 27)
#define CLOCK_PLL (1u << 27)
#define PERIOD_MASK 3u
#define PERIOD_160 1u
#define FULL_VOLTAGE (7u << 11)       /* of the core: 1.25 V, as the vendor's stub sets it before it selects the PLL */
#define APB_MHZ 80u                   /* once the PLL drives it */
#define APB16 (APB_MHZ * 1000000u * 16)
#define ENCRYPTED_UNIT 32u

u32 rom_call(u32 function, u32 a, u32 b, u32 c, u32 d);

static void stop_watchdogs(void) {
  stop_watchdog(RTC_WATCHDOG, RTC_WATCHDOG_PROTECT);
  stop_watchdog(TIMER_WATCHDOG, TIMER_WATCHDOG_PROTECT);
}

static u32 voltage, period, control;  /* these registers, as the ROM has left them */
static u8 raised;                     /* they have changed */
static u32 crystal_mhz;               /* 0: the PLL was selected already */

/* The ROM runs from the crystal; with the PLL the UART's clock becomes 80 MHz, so its divider must change. */
static void take_full_clock(void) {
  u32 baud = options.baud, divider;
  if ((options.flags & LEAVE_CLOCK) || !baud) return;
  voltage = REGISTER(CORE_VOLTAGE);
  period = REGISTER(CPU_PERIOD);
  control = REGISTER(CLOCK_CONTROL);
  raised = 1;
  REGISTER(CORE_VOLTAGE) = voltage | FULL_VOLTAGE;
  REGISTER(CPU_PERIOD) = (period & ~PERIOD_MASK) | PERIOD_160;
  if ((control & CLOCK_SELECT) == CLOCK_PLL) return;
  REGISTER(CLOCK_CONTROL) = (control & ~CLOCK_SELECT) | CLOCK_PLL;
  divider = (APB16 + baud / 2) / baud;
  crystal_mhz = (uart_divider() * APB_MHZ + divider / 2) / divider;
  uart_set_divider(divider);
}

/* The clock is as the ROM has left it, at the present baud rate. */
static void leave(void) {
  if (!raised) return;
  REGISTER(CLOCK_CONTROL) = control;
  REGISTER(CPU_PERIOD) = period;
  REGISTER(CORE_VOLTAGE) = voltage;
  if (crystal_mhz) uart_set_divider(uart_divider() * crystal_mhz / APB_MHZ);
}

void hw_start(void) {
  stop_watchdogs();
  take_full_clock();
  spi_prepare();
}

void hw_jump(u32 address) {
  leave();
  ((void (*)(void))(uintptr_t)address)();
}

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
