extern int rom_uart_tx_one_char(unsigned char byte); /* its address is in the linker script */

static void print(const char *text) {
  for (; *text; text++) rom_uart_tx_one_char((unsigned char)*text);
}

static void print_hex(unsigned value) {
  for (int shift = 28; shift >= 0; shift -= 4) rom_uart_tx_one_char("0123456789abcdef"[value >> shift & 15]);
}
