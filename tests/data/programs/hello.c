/* Runs from RAM, loaded by the ROM loader: says hello over and over through the ROM's own output routine. */

extern int rom_uart_tx_one_char(unsigned char byte); /* its address is in the linker script */

static const char greeting[] = "hello from RAM\r\n";
static volatile unsigned rounds = 1; /* so that there is a segment of data */

#ifdef MAPPED
/* Code that is mapped from flash; never called when the program was loaded into RAM. */
__attribute__((section(".mapped.text"), used)) int mapped_answer(int question) { return question * 2 + 1; }
#ifdef DESCRIPTOR
/* The first 256 bytes of an ESP-IDF application, as its documentation gives them. */
struct descriptor {
  unsigned magic, secure_version, reserved[2];
  char version[32], project[32], time[16], date[16], idf[32];
  unsigned char elf_sha256[32];
  unsigned short min_block, max_block;
  unsigned char page_log2, reserved2[75];
};
__attribute__((section(".flash.appdesc"), used)) const struct descriptor descriptor = {
    .magic = 0xABCD5432, .version = "1", .project = "hello", .idf = "none", .max_block = 0xFFFF, .page_log2 = 16};
#endif
#endif

__attribute__((section(".entry"), used)) void start(void) {
  for (;;) {
    rounds++;
    for (const char *at = greeting; *at; at++) rom_uart_tx_one_char((unsigned char)*at);
    for (volatile unsigned wait = 0; wait < 4000000; wait++) {
    }
  }
}
