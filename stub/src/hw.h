/* Common to the files that access registers. */
#pragma once
#include "stub.h"

#define REGISTER(address) (*(volatile u32 *)(uintptr_t)(address))
#define LEAVE_CLOCK 1u                /* in options.flags */
#define TALK_USB 2u                   /* the host is connected to the chip's own USB-Serial/JTAG port, not to its UART */
#ifdef USB_FIFO
#define OVER_USB (options.flags & TALK_USB)
#else                                 /* this chip has none */
#define OVER_USB 0u
#define USB_FIFO 0u
#endif
#define USB_STATE (USB_FIFO + 4)

void spi_prepare(void);

/* A masked write, which is undone when the stub leaves. In the lowest bits of the address: what follows it, both times. */
struct step { u32 address, mask, value; };
#define UPDATE 1u                     /* the clocks are updated */
#define WAIT 2u                       /* 1 ms */
void take_step(const struct step *step);
void raise_voltage(void);

#ifdef WATCHDOG_KEY
static inline void stop_watchdog(u32 config, u32 protect) {
  REGISTER(protect) = WATCHDOG_KEY;
  REGISTER(config) = 0;
  REGISTER(protect) = 0;
}
#endif
