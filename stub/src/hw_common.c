/* UART and SPI controller, the same on all chips except for addresses and layouts, which are in chip.h. */
#include "hw.h"

#define UART_STATUS (UART_BASE + 0x1C)
#define UART_DIVIDER (UART_BASE + 0x14)
#define TX_COUNT_SHIFT 16
#define TX_FIFO 126u                  /* of 128: the count lags behind a write */

#define USB_SEND 1u                   /* in USB_STATE; written */
#define USB_ROOM_SHIFT 1
#define USB_RECEIVED_SHIFT 2
#define USB_PACKET 64u

#define SPI_START (1u << 18)
#define READ_STATUS (1u << 27)          /* two commands that the controller makes by itself, as the ROMs use them */
#define WRITE_ENABLE (1u << 30)
#define SPI_BUSY (SPI_START | READ_STATUS | WRITE_ENABLE | SPI_STATE) /* the state of the controller, on chips that show it */
#define USE_COMMAND (1u << 31)
#define USE_ADDRESS (1u << 30)
#define USE_DUMMY (1u << 29)
#define USE_INPUT (1u << 28)
#define USE_OUTPUT (1u << 27)
#define KEEP 0x2F0u                   /* clock edges and chip-select timing stay as the ROM has set them */
#define EIGHT_BITS (7u << 28)
#define FAST_MODES (1u << 24 | 1u << 23 | 1u << 20 | 1u << 14 | 1u << 13)

struct options options __attribute__((section(".options"))) = {0};

u32 hw_read(u32 address) { return REGISTER(address); }
void hw_write(u32 address, u32 value) { REGISTER(address) = value; }

/* The UART shows how many bytes there are, USB only whether there is another one. */
u32 hw_rx_take(u8 *bytes, u32 most) {
  u8 *to = bytes;
  if (OVER_USB) {
    while (most-- && REGISTER(USB_STATE) >> USB_RECEIVED_SHIFT & 1) *to++ = (u8)REGISTER(USB_FIFO);
  } else {
    volatile u32 *fifo = &REGISTER(UART_BASE);
    u32 count = REGISTER(UART_STATUS) & UART_COUNT_MASK;
    const u8 *end = bytes + (count < most ? count : most);
    if (!count) return 0;
    IN_REGISTER(fifo);
    do *to++ = (u8)*fifo;
    while (to < end);
  }
  return (u32)(to - bytes);
}

void hw_tx_byte(u8 byte) { REGISTER(OVER_USB ? USB_FIFO : UART_TX) = byte; }

static u32 tx_count(void) { return REGISTER(UART_STATUS) >> TX_COUNT_SHIFT & UART_COUNT_MASK; }

/* USB shows only whether the last packet has left: then there is room for a whole packet. */
u32 hw_tx_room(void) {
  u32 count;
  if (OVER_USB) return (REGISTER(USB_STATE) >> USB_ROOM_SHIFT & 1) * USB_PACKET;
  count = tx_count();
  return count < TX_FIFO ? TX_FIFO - count : 0;
}

/* A full packet is sent automatically; an empty packet after it shows the host that there is no more. */
void hw_tx_flush(void) {
  if (!OVER_USB) return;
  while (!hw_tx_room()) rx_poll();
  REGISTER(USB_STATE) = USB_SEND;
}

void hw_tx_drain(void) {
  while (OVER_USB ? !hw_tx_room() : tx_count()) rx_poll();
  hw_delay_us(1500);                  /* the last byte is still in the shift register: 10 bits at 9600 baud are 1 ms */
}

/* In sixteenths; on chips without a fraction the low four bits are 0. */
u32 uart_divider(void) {
  u32 value = REGISTER(UART_DIVIDER);
  return (value & UART_DIVIDER_MASK) << 4 | (UART_HAS_FRACTION ? value >> 20 & 15 : 0);
}

void uart_set_divider(u32 sixteenths) {
  u32 fraction = UART_HAS_FRACTION ? sixteenths & 15 : 0;
  if (!UART_HAS_FRACTION) sixteenths += 8;
  REGISTER(UART_DIVIDER) = fraction << 20 | sixteenths >> 4;
#ifdef UART_UPDATE
  REGISTER(UART_UPDATE) = 1;          /* passes the divider to the UART's clock domain */
  while (REGISTER(UART_UPDATE) & 1) {}
#endif
}

void hw_set_baud(u32 now, u32 wanted) {
  u32 clock16 = uart_divider() * now; /* the UART's clock, times 16: below 2^32 */
  uart_set_divider((clock16 + wanted / 2) / wanted);
}

void hw_delay_us(u32 microseconds) {
  for (u32 left = microseconds; left; left--) {
    for (u32 turn = 0; turn < CPU_HZ / 4000000; turn++) __asm__ volatile("" ::: "memory");
    if (left % 16 == 0) rx_poll();
  }
}

void spi_prepare(void) {
  REGISTER(SPI_CONTROL) &= ~FAST_MODES;
  if (options.spi_clock) REGISTER(SPI_CLOCK) = options.spi_clock;
}

static void put_address(const struct spi *s) {
  REGISTER(SPI_ADDRESS) = SPI_ADDRESS_LEFT ? s->address << (32 - s->address_bits) : s->address;
}

u32 hw_spi_load(const u32 *words, u32 size) {
  volatile u32 *to = &REGISTER(SPI_DATA);
  u32 all = ~0u;
  IN_REGISTER(to);
  for (; size >= 16; size -= 16, words += 4, to += 4) {
    u32 a = words[0], b = words[1], c = words[2], d = words[3];
    to[0] = a;
    to[1] = b;
    to[2] = c;
    to[3] = d;
    all &= a & b & c & d;
  }
  for (const u32 *end = words + (size + 3) / 4; words < end; words++) {
    *to++ = *words;
    all &= *words;
  }
  return all;
}

void hw_spi_start(const struct spi *s) {
  u32 user = (REGISTER(SPI_USER) & KEEP) | USE_COMMAND, user1 = 0;
  if (s->address_bits) {
    user |= USE_ADDRESS;
    user1 |= (u32)(s->address_bits - 1) << 26;
    put_address(s);
  }
  if (s->dummy) {
    user |= USE_DUMMY;
    user1 |= s->dummy - 1u;
  }
  if (s->out) user |= USE_OUTPUT;
  if (s->in) user |= USE_INPUT;
#if SPI_LENGTH_IN_USER1
  if (s->out) user1 |= (s->out * 8u - 1) << SPI_OUT_SHIFT;
  if (s->in) user1 |= (s->in * 8u - 1) << SPI_IN_SHIFT;
#else
  if (s->out) REGISTER(SPI_OUT_LENGTH) = s->out * 8u - 1;
  if (s->in) REGISTER(SPI_IN_LENGTH) = s->in * 8u - 1;
#endif
  REGISTER(SPI_USER) = user;
  REGISTER(SPI_USER1) = user1;
  REGISTER(SPI_USER2) = EIGHT_BITS | s->opcode;
  REGISTER(SPI_COMMAND) = SPI_START;
}

void hw_spi_again_at(const struct spi *s) {
  put_address(s);
  REGISTER(SPI_COMMAND) = SPI_START;
}

/* Sixteen bits or fewer: too short to poll the receiver. */
static void run_own_command(u32 command) {
  REGISTER(SPI_COMMAND) = command;
  while (REGISTER(SPI_COMMAND) & SPI_BUSY) {}
}

u8 hw_flash_status(void) {
  REGISTER(SPI_STATUS) = 0;
  run_own_command(READ_STATUS);
  return (u8)REGISTER(SPI_STATUS);
}

void hw_write_enable(void) { run_own_command(WRITE_ENABLE); }

u32 hw_spi_take(u32 *words, u32 size) {
  volatile u32 *from = &REGISTER(SPI_DATA);
  u32 all = ~0u;
  while (REGISTER(SPI_COMMAND) & SPI_BUSY) rx_poll();
  IN_REGISTER(from);
  for (; size >= 16; size -= 16, words += 4, from += 4) {
    u32 a = from[0], b = from[1], c = from[2], d = from[3];
    words[0] = a;
    words[1] = b;
    words[2] = c;
    words[3] = d;
    all &= a & b & c & d;
  }
  for (; size; size = size > 4 ? size - 4 : 0) {
    u32 word = *from++;
    if (size < 4) word |= ~0u << size * 8;
    all &= *words++ = word;
  }
  return all;
}

void hw_spi_finish(struct spi *s) { hw_spi_take(s->words, s->in); }

extern const u32 _code_start[], _code_end[], _constants_start[], _constants_end[]; /* link.ld */

/* Word by word: code memory does not accept less. */
u32 hw_code_crc(void) {
  u32 crc = 0;
  for (const u32 *at = _code_start; at != _constants_end; at++) {
    u32 word;
    if (at == _code_end) at = _constants_start;
    word = *at;
    crc = crc32_add(crc, (const u8 *)&word, sizeof word);
    if ((uintptr_t)at % 64 == 0) rx_poll();
  }
  return crc;
}

void hw_reset(void) {
  hw_leave();                         /* a reset of the core alone may keep the selected clock */
  REGISTER(RESET_CONTROL) |= 1u << RESET_BIT;
  for (;;) {}
}

/* The ROM has attached the flash, to its own or other pins; the stub does not change that. */
u16 hw_attach(u32 pins) { return pins ? NOT_IMPLEMENTED : OK; }

#if !CAN_ENCRYPT
u16 hw_write_encrypted(u32 address, const u32 *data, u32 size) {
  (void)address;
  (void)data;
  (void)size;
  return NOT_IMPLEMENTED;
}
#endif
