/* ESP32-C3 and the chips of its generation. */
#include "hw.h"

#define CLOCK_SELECT (3u << 10)
#define CLOCK_PLL (1u << 10)
#define PERIOD_MASK 3u
#define PERIOD_160 1u
#define PLL_DOWN (1u << 6 | 1u << 8 | 1u << 10) /* the force-power-down bits of the PLL and of its bus */
#define UART_SOURCE (3u << 20)
#define UART_SOURCE_APB (1u << 20)
#define APB16 (80000000u * 16)

static void stop_watchdogs(void) {
  stop_watchdog(RTC_WATCHDOG, RTC_WATCHDOG_PROTECT);
  REGISTER(SUPER_WATCHDOG_PROTECT) = SUPER_WATCHDOG_KEY;
  REGISTER(SUPER_WATCHDOG) |= 1u << SUPER_WATCHDOG_FEED;
  REGISTER(SUPER_WATCHDOG_PROTECT) = 0;
  stop_watchdog(TIMER_WATCHDOG, TIMER_WATCHDOG_PROTECT);
}

static void take_full_clock(void) {
  u32 baud = options.baud;
  if ((options.flags & LEAVE_CLOCK) || !baud || (REGISTER(PLL_CONTROL) & PLL_DOWN)) return;
  REGISTER(CPU_PERIOD) = (REGISTER(CPU_PERIOD) & ~PERIOD_MASK) | PERIOD_160;
  if ((REGISTER(CLOCK_CONTROL) & CLOCK_SELECT) == CLOCK_PLL) return;
  REGISTER(CLOCK_CONTROL) = (REGISTER(CLOCK_CONTROL) & ~CLOCK_SELECT) | CLOCK_PLL;
  if ((REGISTER(UART_CLOCK) & UART_SOURCE) == UART_SOURCE_APB) uart_set_divider((APB16 + baud / 2) / baud);
}

void hw_start(void) {
  stop_watchdogs();
  take_full_clock();
  spi_prepare();
}

void hw_jump(u32 address) {
  __asm__ volatile(".word 0x0000100f" ::: "memory"); /* fence.i, which this assembler accepts only for another architecture name */
  ((void (*)(void))(uintptr_t)address)();
}
