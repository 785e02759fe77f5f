/* ESP32-S2, ESP32-C3 and all later chips: they differ in addresses and values, which are in chip.h. */
#include "hw.h"

struct step { u32 address, mask, value; };
static const struct step STEPS[] = REGISTER_STEPS; /* masked writes: for the flash controller, then for the CPU clock */
#define ALL_STEPS (sizeof STEPS / sizeof *STEPS)
static u32 before[ALL_STEPS], taken;  /* values of these registers, and how many were changed */

static void take_steps(u32 end) {
  for (; taken < end; taken++) {
    before[taken] = REGISTER(STEPS[taken].address);
    REGISTER(STEPS[taken].address) = (before[taken] & ~STEPS[taken].mask) | STEPS[taken].value;
  }
}

/* The clock selection takes effect, and the UART's clock may have changed with it. */
static void change_clock(u32 uart_up, u32 uart_down) {
#ifdef CLOCK_UPDATE
  REGISTER(CLOCK_UPDATE) = 1;
#endif
#ifdef UART_BUS
  if ((REGISTER(UART_BUS) & UART_BUS_MASK) == UART_BUS_VALUE) uart_set_divider(uart_divider() * uart_up / uart_down);
#else
  (void)uart_up;
  (void)uart_down;
#endif
}

static void stop_watchdogs(void) {
  stop_watchdog(RTC_WATCHDOG, RTC_WATCHDOG_PROTECT);
  REGISTER(SUPER_WATCHDOG_PROTECT) = SUPER_WATCHDOG_KEY;
  REGISTER(SUPER_WATCHDOG) |= 1u << SUPER_WATCHDOG_FEED;
  REGISTER(SUPER_WATCHDOG_PROTECT) = 0;
  stop_watchdog(TIMER_WATCHDOG, TIMER_WATCHDOG_PROTECT);
}

static int may_raise_clock(void) {
#ifdef PLL_CONTROL
  if (REGISTER(PLL_CONTROL) & PLL_DOWN) return 0;
#endif
  return !(options.flags & LEAVE_CLOCK);
}

void hw_start(void) {
  stop_watchdogs();
  take_steps(FLASH_STEPS);
  if (options.spi_clock) REGISTER(SPI_CLOCK) = options.spi_clock;
  if (ALL_STEPS == FLASH_STEPS || !may_raise_clock()) return;
  take_steps(ALL_STEPS);
  change_clock(BUS_MHZ, CRYSTAL_MHZ);
}

/* Everything is as the ROM has left it, except for the watchdogs. */
void hw_leave(void) {
  u32 raised = taken > FLASH_STEPS;
  for (; taken; taken--) REGISTER(STEPS[taken - 1].address) = before[taken - 1];
  if (raised) change_clock(CRYSTAL_MHZ, BUS_MHZ);
}

#ifdef ROM_CACHE_WRITE_BACK_ALL
#define DATA_CACHE 0x10u
#define CODE_CACHES 0x03u
static void call_rom(u32 function, u32 argument) { ((void (*)(u32))(uintptr_t)function)(argument); }
#endif

void hw_jump(u32 address) {
  hw_leave();
#ifdef ROM_CACHE_WRITE_BACK_ALL        /* this chip has caches in front of its RAM: the code was stored as data */
  call_rom(ROM_CACHE_WRITE_BACK_ALL, DATA_CACHE);
  call_rom(ROM_CACHE_INVALIDATE_ALL, CODE_CACHES);
#endif
#ifdef __riscv
  __asm__ volatile(".word 0x0000100f" ::: "memory"); /* fence.i, which this assembler accepts only for another architecture name */
#endif
  ((void (*)(void))(uintptr_t)address)();
}
