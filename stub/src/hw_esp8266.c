/* ESP8266 only. Its ROM functions use our calling convention. */
#include "hw.h"

#define CPU_DOUBLE 1u

/* Through a register: the ROM is too far away for a direct call. */
static void rom_call(u32 function) {
  __asm__("" : "+r"(function));
  ((void (*)(u32, u32))function)(0, 0);
}

static u8 doubled;

void hw_start(void) {
  rom_call(ROM_SELECT_SPI_FUNCTION);
  rom_call(ROM_SPI_FLASH_ATTACH);
  if (!(options.flags & LEAVE_CLOCK) && !(REGISTER(CPU_CLOCK) & CPU_DOUBLE)) {
    REGISTER(CPU_CLOCK) |= CPU_DOUBLE;  /* the UART's clock does not change */
    doubled = 1;
  }
  spi_prepare();
}

void hw_jump(u32 address) {
  if (doubled) REGISTER(CPU_CLOCK) &= ~CPU_DOUBLE; /* as the ROM has left it */
  ((void (*)(void))(uintptr_t)address)();
}
