/* The handler of exceptions for the ESP8266: what the Arduino core prints, with the stack. */
#include "print.h"

unsigned volatile kind = 0;
unsigned saved[6]; /* exccause, epc1, excvaddr, stack pointer, a0, a2 */
extern unsigned stack_top[];
extern void app_main(void);
void panic(void);

__asm__(
    ".section .vectors, \"ax\"\n .org 0x30\n j handler\n .org 0x50\n j handler\n"
    ".section .entry, \"ax\"\n .literal_position\n .global start\n start:\n movi a0, vectors\n wsr a0, vecbase\n movi a0, 0x20\n wsr a0, ps\n rsync\n"
    " movi a1, stack_top\n movi a0, app_main\n callx0 a0\n 1: j 1b\n"
    " .align 4\n handler:\n movi a3, saved\n s32i a0, a3, 16\n s32i a1, a3, 12\n rsr a0, exccause\n s32i a0, a3, 0\n"
    " rsr a0, epc1\n s32i a0, a3, 4\n rsr a0, excvaddr\n s32i a0, a3, 8\n movi a0, panic\n callx0 a0\n"
    ".text\n");

__attribute__((noinline)) void panic_abort(void) {
  print("\r\nAbort called\r\n");
  __asm__ volatile("ill");
}

__attribute__((used)) void panic(void) {
  print("\r\n--------------- CUT HERE FOR EXCEPTION DECODER ---------------\r\n\r\nException (");
  if (saved[0] >= 10) rom_uart_tx_one_char('0' + (saved[0] >= 20 ? 2 : 1));
  rom_uart_tx_one_char("0123456789"[saved[0] >= 20 ? saved[0] - 20 : saved[0] >= 10 ? saved[0] - 10 : saved[0]]);
  print("):\r\nepc1=0x");
  print_hex(saved[1]);
  print(" epc2=0x00000000 epc3=0x00000000 excvaddr=0x");
  print_hex(saved[2]);
  print(" depc=0x00000000\r\n\r\n>>>stack>>>\r\n\r\nctx: cont\r\nsp: ");
  print_hex(saved[3]);
  print(" end: ");
  print_hex((unsigned)stack_top);
  print(" offset: 0000\r\n");
  for (unsigned at = saved[3]; at < (unsigned)stack_top; at += 16) {
    print_hex(at);
    print(":  ");
    for (unsigned n = 0; n < 4; n++) {
      print_hex(((unsigned *)at)[n]);
      print(" ");
    }
    print(" \r\n");
  }
  print("<<<stack<<<\r\n\r\n--------------- CUT HERE FOR EXCEPTION DECODER ---------------\r\n");
  for (;;) __asm__ volatile("waiti 0");
}
