"""Explains crashes: panics of ESP-IDF, exceptions of the ESP8266, watchdogs, a weak supply.

Sources: ESP-IDF's page "Fatal Errors" and its panic output, the ESP8266 Arduino core's page "Exception Causes", the
Xtensa and RISC-V exception causes. Lines of the ROM and its loaders are not decoded: their addresses are not the
application's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from espwire.symbols.symbol_set import SymbolSet

MAX_REGISTERS = 64
MAX_STACK = 0x10000  # words
MAX_ADDRESSES = 64  # resolved in one line
MAX_GUESSES = 40  # functions listed from a stack without frame information

CAUSES = {
    "LoadProhibited": "the program read from an address that cannot be read",
    "StoreProhibited": "the program wrote to an address that cannot be written",
    "InstrFetchProhibited": "the program jumped to an address that holds no code: a wrong function pointer, or a damaged stack",
    "IllegalInstruction": "the program ran into bytes that are not code: a damaged stack, a task that returned, or flash that is read wrongly",
    "IntegerDivideByZero": "the program divided by zero",
    "LoadStoreAlignment": "the program accessed an address that is not a multiple of the size of the access",
    "LoadStoreError": "the program accessed memory in a way that it does not support, such as bytes of instruction RAM",
    "Unhandled debug exception": "a breakpoint or watchpoint was hit; with a stack canary, the task's stack overflowed",
    "Interrupt wdt timeout": "interrupts were disabled, or a handler ran, for too long",
    "Cache disabled but cached memory region accessed": "code or data in flash was used during a flash operation: it must be in RAM",
    "Double exception": "a crash while a crash was handled, often a damaged stack",
    "Cache error": "code or data in flash was used while the cache was off or failed",
    "Instruction access fault": "the program jumped to an address that holds no code: a wrong function pointer, or a damaged stack",
    "Illegal instruction": "the program ran into bytes that are not code: a damaged stack, a task that returned, or flash that is read wrongly",
    "Breakpoint": "the program ran into a breakpoint (ebreak)",
    "Load access fault": "the program read from an address that cannot be read",
    "Store access fault": "the program wrote to an address that cannot be written",
    "Load address misaligned": "the program read from an address that is not a multiple of the size of the access",
    "Store address misaligned": "the program wrote to an address that is not a multiple of the size of the access",
    "Instruction address misaligned": "the program jumped to an odd address",
    "Stack protection fault": "a task's stack overflowed",
    "Memory protection fault": "the program used memory in a way that its protection forbids",
}
# number of an ESP8266 exception
CAUSES_8266 = {
    0: CAUSES["IllegalInstruction"],
    2: CAUSES["InstrFetchProhibited"],
    3: CAUSES["LoadStoreError"],
    6: "the program divided by zero",
    9: CAUSES["LoadStoreAlignment"],
    20: CAUSES["InstrFetchProhibited"],
    28: CAUSES["LoadProhibited"],
    29: CAUSES["StoreProhibited"],
}
ACCESSES = ("LoadProhibited", "StoreProhibited", "Load access fault", "Store access fault")
ACCESSES_8266 = frozenset({28, 29})
# pattern of a line → explanation
SIMPLE = (
    (r"Brown-?out detector was triggered", "the supply voltage is too low: use a better cable or power supply"),
    (r"Task watchdog got triggered", "a task did not let others run for too long; it is named below"),
    (r"[Ss]oft WDT reset", "the program did not return to the system for seconds: call yield() or delay() in long loops"),
    (r"\bwdt reset\b", "the hardware watchdog: the program hung, perhaps with interrupts disabled"),
    (r"stack overflow in task (?P<what>\S+) has been detected", "the stack of this task is too small"),
    (r"assert failed: ", "a condition that must hold did not"),
    (r"User exception \(panic/abort/assert\)", "the program ended itself"),
)  # fmt: skip
_SIMPLE = re.compile(
    "|".join(f"(?P<n{n}>{re.sub('<what>', f'<w{n}>', what)})" for n, (what, _) in enumerate(SIMPLE))
)
_PANIC = re.compile(r"Guru Meditation Error: Core +(?P<core>\d) panic'ed \((?P<cause>[^)\r\n]*)")
_EXCEPTION = re.compile(r"(?:Fatal exception |Exception )\(?(?P<number>\d{1,2})[:()]")
_SHA = re.compile(r"ELF file SHA256: *(?P<sha>[0-9a-f]{8,64})")
_ADDRESS = re.compile(r"(?<![0-9A-Za-z_])0x(4[0-9a-fA-F]{7})(?![0-9a-fA-F])")
_BACKTRACE = re.compile(r"Backtrace:")
_CRASH = re.compile(
    r"Backtrace:|MEPC +:|epc1=|abort\(\) was called"
)  # lines with addresses of a crash
_REGISTER = re.compile(r"\b(?P<name>[A-Z][A-Z0-9/]{0,7}) *: 0x(?P<value>[0-9a-f]{8})(?![0-9a-f])")
_DUMP_START = re.compile(r"Core +\d+ register dump:")
_STACK_LINE = re.compile(r"(?P<at>[0-9a-f]{8}):(?P<words>(?: 0x[0-9a-f]{8}){1,8})\s*$")
_STACK_LINE_8266 = re.compile(
    r"(?P<at>[0-9a-f]{8}): +(?P<words>[0-9a-f]{8}(?: +[0-9a-f]{8}){0,3})\s*(?:<\s*)?$"
)
# lines of ROMs and bootloaders; their addresses belong to other programs than the application
_ROM = re.compile(
    r"\s*(?:load:|entry |ets |ESP-ROM:|Build:|rst:|SPIWP:|mode:|clk_drv|configsip|tail \d|chksum|csum|ho \d|SHA-256|"
    r"waiting for download)"
)
# a line without any of these is not decoded: literal text, because searching for it is quick
KEYS = (
    "0x4", "Brown", "watchdog got", "WDT reset", "wdt reset", "stack overflow in",
    "assert failed", "User exception", "Guru", "xception ", "SHA256",
    "register dump", "Stack memory", ">>>stack",
)  # fmt: skip
RISCV_NUMBERS = {
    "RA": 1, "SP": 2, "GP": 3, "TP": 4, "T0": 5, "T1": 6, "T2": 7, "S0/FP": 8, "S1": 9, "A0": 10, "A1": 11, "A2": 12,
    "A3": 13, "A4": 14, "A5": 15, "A6": 16, "A7": 17, "S2": 18, "S3": 19, "S4": 20, "S5": 21, "S6": 22, "S7": 23,
    "S8": 24, "S9": 25, "S10": 26, "S11": 27, "T3": 28, "T4": 29, "T5": 30, "T6": 31,
}  # fmt: skip
RETURNS = frozenset({"RA"})  # registers with an address after a call
EMPTY_STACK = frozenset({0xA5A5A5A5, 0xFFFFFFFE, 0})
MAX_REPORTED = 100  # remembered
NULL_SIZE = 0x1000  # addresses up to here are a null pointer with an offset


class CrashDecoder:
    """Gets complete lines, and returns the lines to print below each. Keeps one register dump and stack at most.

    :param symbols: None: only explain
    :param no_symbols: added once, below the first crash whose addresses nothing resolves
    """

    def __init__(self, symbols: SymbolSet | None = None, *, no_symbols: str = "") -> None:
        self._symbols, self._no_symbols = symbols, no_symbols
        self.resolved = self.unresolved = 0  # addresses
        self._reported: set[str] = set()
        self._bad_access = False  # the last crash was an access to memory
        self.clear()

    def clear(self) -> None:
        """Forget an incomplete dump, after a gap in the output: nothing is decoded across it."""
        self._registers: dict[str, int] = {}
        self._stack: dict[int, int] = {}
        self._in_registers = self._in_stack = self._in_8266_stack = False

    def feed(self, line: str) -> list[str]:
        """Take a line without its end."""
        if self._in_stack or self._in_8266_stack:
            if self._take_stack_line(line):
                return []
            found = self._end_stack()
            return [*found, *self._decode(line)]
        if self._in_registers and not line.strip():
            return []
        return self._decode(line)

    def finish(self) -> list[str]:
        """The end of the output: decode the dump so far."""
        found = self._end_stack() if self._in_stack or self._in_8266_stack else []
        self.clear()
        return found

    def can_skip(self, line: str) -> bool:
        """Whether ``feed`` would do nothing with the line; much quicker."""
        return not self.busy and not any(key in line for key in KEYS)

    @property
    def busy(self) -> bool:
        """Whether it is inside a dump, where every line counts."""
        return self._in_stack or self._in_8266_stack or self._in_registers

    def _decode(self, line: str) -> list[str]:
        if self.can_skip(line) or _ROM.match(line):
            return self._explain(line)
        found = self._explain(line)
        self._note_dumps(line)
        hit = _SHA.search(line)
        if hit and self._symbols is not None:
            found += self._report_once(self._symbols.identify(hit["sha"]))
        return [*found, *self._resolve_line(line)]

    def _report_once(self, text: str) -> list[str]:
        """Each text once."""
        if not text or text in self._reported:
            return []
        if len(self._reported) < MAX_REPORTED:
            self._reported.add(text)
        return [text]

    def _explain(self, line: str) -> list[str]:
        hit = _PANIC.search(line)
        if hit:
            self.clear()
            self._bad_access = hit["cause"].startswith(ACCESSES)
            words = next(
                (text for name, text in CAUSES.items() if hit["cause"].startswith(name)), ""
            )
            canary = re.search(r"Stack canary watchpoint triggered \((?P<task>[^)\r\n]*)", line)
            if canary:
                words = f"the stack of task {canary['task'].strip()} overflowed"
            return [words] if words else []
        hit = _EXCEPTION.search(line)
        if hit:
            number = int(hit["number"])
            self._bad_access = number in ACCESSES_8266
            words = CAUSES_8266.get(number, "")
            return [words] if words else []
        hit = _SIMPLE.search(line)
        if hit and hit.lastgroup:
            number = next(n for n in range(len(SIMPLE)) if hit[f"n{n}"])
            return [SIMPLE[number][1]]
        return []

    def _note_dumps(self, line: str) -> None:
        if _DUMP_START.search(line):
            self.clear()
            self._in_registers = True
        elif "Stack memory:" in line:
            self._in_stack, self._in_registers = True, False
        elif ">>>stack" in line:
            self._in_8266_stack = True
        elif self._in_registers:
            registers = _REGISTER.findall(line)
            if not registers:
                self._in_registers = False
            for name, value in registers:
                if len(self._registers) < MAX_REGISTERS:
                    self._registers[name] = int(value, 16)

    def _resolve_line(self, line: str) -> list[str]:
        found: list[str] = []
        if self._symbols is None:
            return self._report_once(self._no_symbols) if _CRASH.search(line) else found
        if _STACK_LINE.match(line.strip()):
            return found
        names = {hit.start("value") - 2: hit["name"] for hit in _REGISTER.finditer(line)}
        seen: set[str] = set()
        for hit in _ADDRESS.finditer(line):
            if hit[1] in seen or len(seen) == MAX_ADDRESSES:
                continue
            seen.add(hit[1])
            returns = names.get(hit.start()) in RETURNS
            found += self._describe(int(hit[1], 16), returns=returns)
        access = re.search(
            r"\b(?:EXCVADDR|MTVAL)\s*[:=] ?0x([0-9a-f]{8})|excvaddr=0x([0-9a-f]{8})", line
        )
        if access and self._bad_access:
            address = int(access[1] or access[2], 16)
            self._bad_access = False
            if address < NULL_SIZE:
                found.append(
                    f"access to address {address:#x}: probably a null pointer"
                    + (
                        f" to a structure, whose member at offset {address} was used"
                        if address
                        else ""
                    )
                )
        if _BACKTRACE.search(line) and "CORRUPTED" in line:
            found.append(
                "the backtrace ends here because the stack is damaged: callers before it are not known"
            )
        return found

    def _describe(self, address: int, *, returns: bool = False, mark: str = "") -> list[str]:
        """The places of an address. ``returns``: it is behind a call, whose line counts."""
        assert self._symbols is not None
        frames = self._symbols.resolve(address - 1 if returns else address)
        if frames:
            self.resolved += 1
        elif not mark:
            self.unresolved += 1
        return [
            f"{mark}{address:#010x}: {frame}" if not n else f"{mark}  (inlined by) {frame}"
            for n, frame in enumerate(frames)
        ]

    # --- stacks ---

    def _take_stack_line(self, line: str) -> bool:
        """Keep a line of a stack; False: the stack has ended."""
        pattern = _STACK_LINE if self._in_stack else _STACK_LINE_8266
        line = line.strip()
        hit = pattern.match(line)
        if hit is None:
            if self._in_8266_stack and not line.startswith("<<<"):
                return re.match(r"$|ctx: |sp: ", line) is not None
            return not line and not self._stack
        at = int(hit["at"], 16)
        for word in hit["words"].split():
            if len(self._stack) < MAX_STACK:
                self._stack[at] = int(word, 16)
            at += 4
        return True

    def _end_stack(self) -> list[str]:
        is_8266, stack, registers = self._in_8266_stack, self._stack, self._registers
        self.clear()
        if self._symbols is None or not stack:
            return []
        if is_8266:
            return self._guess(stack)
        pc = registers.get("MEPC")
        if pc is None or "SP" not in registers:
            return ["the register dump is incomplete: the callers are not known"]
        numbers = {
            RISCV_NUMBERS[name]: value for name, value in registers.items() if name in RISCV_NUMBERS
        }
        callers = self._symbols.unwind(pc, numbers, stack.get)
        lines = self._describe(pc)
        for caller in callers:
            lines += self._describe(caller, returns=True)
        if not callers:
            guesses = self._guess(stack)
            return [*lines, *guesses]
        return ["backtrace:", *lines] if lines else []

    def _guess(self, stack: dict[int, int]) -> list[str]:
        """Addresses of code on a stack: return addresses of callers, and remains of earlier calls."""
        lines: list[str] = []
        count = 0
        for at in sorted(stack):
            word = stack[at]
            if word in EMPTY_STACK or count == MAX_GUESSES:
                continue
            found = self._describe(word, returns=True, mark="? ")
            count += bool(found)
            lines += found
        if lines:
            lines.insert(
                0,
                "addresses of code on the stack; some of them (?) may be remains of earlier calls:",
            )
        return lines
