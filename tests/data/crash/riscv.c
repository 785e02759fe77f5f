/* The handler of exceptions for RISC-V: ESP-IDF's register dump and stack memory. */
#include "print.h"

unsigned volatile kind = 0;
unsigned frame[36]; /* x0 is the pc */
extern unsigned stack_top[];
extern void app_main(void);

#define SAVE(n) "sw x" #n ", 4*" #n "(t0)\n"
__attribute__((naked, used, aligned(64))) void trap(void) {
  __asm__ volatile(
      "csrw mscratch, t0\n la t0, frame\n" SAVE(1) SAVE(2) SAVE(3) SAVE(4) SAVE(6) SAVE(7) SAVE(8) SAVE(9) SAVE(10)
      SAVE(11) SAVE(12) SAVE(13) SAVE(14) SAVE(15) SAVE(16) SAVE(17) SAVE(18) SAVE(19) SAVE(20) SAVE(21) SAVE(22)
      SAVE(23) SAVE(24) SAVE(25) SAVE(26) SAVE(27) SAVE(28) SAVE(29) SAVE(30) SAVE(31)
      "csrr t1, mscratch\n sw t1, 20(t0)\n csrr t1, mepc\n sw t1, 0(t0)\n csrr t1, mcause\n sw t1, 128(t0)\n"
      "csrr t1, mtval\n sw t1, 132(t0)\n j panic\n");
}

__attribute__((naked, used, section(".entry"))) void start(void) {
  __asm__ volatile(".option push\n.option norelax\n la gp, __global_pointer$\n.option pop\n la sp, stack_top\n la t0, trap\n csrw mtvec, t0\n call app_main\n1: j 1b\n");
}

__attribute__((noinline)) void panic_abort(void) {
  print("\r\nabort() was called at PC 0x");
  print_hex((unsigned)__builtin_return_address(0) - 3);
  print(" on core 0\r\n");
  __asm__ volatile("unimp");
}

static const char names[34][9] = {"MEPC    ", "RA      ", "SP      ", "GP      ", "TP      ", "T0      ", "T1      ", "T2      ",
  "S0/FP   ", "S1      ", "A0      ", "A1      ", "A2      ", "A3      ", "A4      ", "A5      ", "A6      ", "A7      ",
  "S2      ", "S3      ", "S4      ", "S5      ", "S6      ", "S7      ", "S8      ", "S9      ", "S10     ", "S11     ",
  "T3      ", "T4      ", "T5      ", "T6      ", "MCAUSE  ", "MTVAL   "};

__attribute__((used)) void panic(void) {
  if (!kind) {
    print("Guru Meditation Error: Core  0 panic'ed (");
    print(frame[32] == 5 ? "Load access fault" : "Illegal instruction");
    print("). Exception was unhandled.\r\n\r\n");
  }
  print("Core  0 register dump:\r\n");
  for (int n = 0; n < 34; n++) {
    print(names[n]);
    print(": 0x");
    print_hex(frame[n]);
    print(n % 4 == 3 ? "  \r\n" : "  ");
  }
  print("\r\n\r\nStack memory:\r\n");
  for (unsigned at = frame[2]; at < (unsigned)stack_top; at += 32) {
    print_hex(at);
    print(":");
    for (unsigned n = 0; n < 8; n++) {
      print(" 0x");
      print_hex(((unsigned *)at)[n]);
    }
    print("\r\n");
  }
  print("\r\n\r\n\r\nELF file SHA256: SHA256-HERE\r\n\r\nRebooting...\r\n");
  for (;;) __asm__ volatile("wfi");
}
