/* ESP32-S2, ESP32-C3 and all later chips: they differ in addresses and values, which are in chip.h. */
#include "hw.h"

static const struct step STEPS[] = REGISTER_STEPS; /* for the flash controller, then for the CPU clock */
#define ALL_STEPS (sizeof STEPS / sizeof *STEPS)
#define MOST_TAKEN 24
static struct { u32 address, before; } taken[MOST_TAKEN];
static u32 taken_count;

/* Sets a register, old or new, and does what follows this step. */
static void set(u32 address, u32 value) {
  REGISTER(address & ~(UPDATE | WAIT)) = value;
#ifdef CLOCK_UPDATE
  if (address & UPDATE) {
    REGISTER(CLOCK_UPDATE) |= UPDATE_NOW;
    while (REGISTER(CLOCK_UPDATE) & UPDATE_NOW) {}
  }
  if (address & WAIT) hw_delay_us(1000);
#endif
}

void take_step(const struct step *step) {
  u32 before = REGISTER(step->address & ~(UPDATE | WAIT));
  taken[taken_count].address = step->address;
  taken[taken_count++].before = before;
  set(step->address, (before & ~step->mask) | step->value);
}

/* The UART's clock may have changed with the CPU clock. */
static void change_uart(u32 uart_up, u32 uart_down) {
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
  for (u32 i = 0; i < FLASH_STEPS; i++) take_step(&STEPS[i]);
  take_step(&(struct step){SPI_CLOCK, options.spi_clock ? ~0u : 0, options.spi_clock});
  if (ALL_STEPS == FLASH_STEPS || !may_raise_clock()) return;
#ifdef CORE_REGULATOR
  raise_voltage();
#endif
  for (u32 i = FLASH_STEPS; i < ALL_STEPS; i++) take_step(&STEPS[i]);
  change_uart(BUS_MHZ, CRYSTAL_MHZ);
}

/* Everything is as the ROM has left it, except for the watchdogs. */
void hw_leave(void) {
  u32 raised = taken_count > FLASH_STEPS + 1;
  for (; taken_count; taken_count--) set(taken[taken_count - 1].address, taken[taken_count - 1].before);
  if (raised) change_uart(CRYSTAL_MHZ, BUS_MHZ);
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
