"""Crashes explained: firmware that crashes on the virtual chips' CPU engines, and logs made by hand.

The logs for ESP32 and ESP32-S3 are made by hand in ESP-IDF's format: no virtual chip runs their applications. Their
addresses are those of ELF files that were linked for these chips.
"""

from __future__ import annotations

import random
import re
from functools import cache

import pytest
from tests.crash_firmware import FOLDER, find_symbols, run_crash

from espwire.monitor.crash import CrashDecoder
from espwire.monitor.log_decoder import LogDecoder
from espwire.symbols.symbol_set import SymbolSet

NULL = "access to address 0x4: probably a null pointer to a structure, whose member at offset 4 was used"
READ = "the program read from an address that cannot be read"


@cache
def symbols_of(name: str) -> SymbolSet:
    return SymbolSet([str(FOLDER / f"{name}.elf")])


def decode(text: str, name: str | None = None) -> list[str]:
    """The lines added to a text."""
    decoder = CrashDecoder(symbols_of(name) if name else None)
    found = [note for line in text.splitlines() for note in decoder.feed(line)]
    return found + decoder.finish()


def shorten(notes: list[str]) -> list[str]:
    """Without addresses and folders."""
    return [
        note.partition(": ")[2].replace("/firmware/", "")
        if "0x4" in note[:14]
        else note.strip().replace("/firmware/", "")
        for note in notes
    ]


CHAIN = [
    "read_register at sensor.h:8",
    "(inlined by) read_sensor at sensor.h:12",
    "(inlined by) measure at crash.c:13",
]


def test_a_panic_of_a_virtual_esp32c3_is_unwound_through_inlined_functions() -> None:
    notes = decode(run_crash("esp32c3").decode(), "esp32c3")
    assert notes[0] == READ
    assert NULL in notes
    trace = notes[notes.index("backtrace:") + 1 :]
    assert shorten(trace) == [
        *CHAIN,
        "collect at crash.c:18",
        "app_main at crash.c:23",
        "start at riscv.c:20",
    ]


def test_an_abort_of_a_virtual_esp32c3_names_its_callers() -> None:
    notes = decode(run_crash("esp32c3", 1).decode(), "esp32c3")
    assert shorten(notes)[0] == "measure at crash.c:11"  # the line after "abort() was called at PC"
    trace = notes[notes.index("backtrace:") + 1 :]
    assert shorten(trace) == [
        "panic_abort at riscv.c:27",
        "measure at crash.c:11",
        "collect at crash.c:18",
        "app_main at crash.c:23",
        "start at riscv.c:20",
    ]


def test_an_exception_of_a_virtual_esp8266_is_explained_and_its_stack_is_a_guess() -> None:
    notes = decode(run_crash("esp8266").decode(), "esp8266")
    assert notes[0] == READ
    assert shorten(notes[1:4]) == CHAIN
    assert notes[4] == NULL
    assert notes[5].startswith("addresses of code on the stack; some of them (?) may be remains")
    assert [note.partition(": ")[2] for note in notes[6:]] == [
        "collect at /firmware/crash.c:18",
        "app_main at /firmware/crash.c:23",
        "start",
    ]
    assert all(note.startswith("? 0x4") for note in notes[6:])


@pytest.mark.parametrize(
    "time",
    [
        "2026-12-01 12:34:56.789 ",  # espwire
        "2026-12-01 12:34:56 ",  # idf.py monitor
        "12:34:56.789 > ",  # PlatformIO
        "12:34:56.789 -> ",  # Arduino IDE
        "[12:34:56]",  # ESPHome
        "[2026-12-01 12:34:56.789] ",  # minicom, tio
        "Dec  1 12:34:56 ",  # ts
        "2026-12-01T12:34:56.789012Z ",  # CI services
    ],
)
def test_times_of_other_programs_change_nothing(time: str) -> None:
    rom = "load:0x42000054,len:0x2a38"
    old = "\x1b[0;33m--- 0x42000054: read_register at sensor.h:8\x1b[0m"
    for name in ("esp32c3", "esp8266"):
        text = [rom, old, *run_crash(name).decode().splitlines()]
        decoder = LogDecoder(symbols_of(name))
        data = decoder.feed("".join(f"{time}{line}\n" for line in text).encode()) + decoder.finish()
        notes = [line[4:] for line in data.decode().splitlines() if line.startswith("--- ")]
        assert notes == decode("\n".join(text[2:]), name)


def test_the_same_text_in_a_saved_log_gets_the_same_lines() -> None:
    text = run_crash("esp32c3")
    decoder = LogDecoder(symbols_of("esp32c3"))
    parts = [decoder.feed(text[at : at + 100]) for at in range(0, len(text), 100)]
    lines = b"".join([*parts, decoder.finish()]).splitlines(keepends=True)
    assert b"".join(line for line in lines if not line.startswith(b"--- ")) == text
    added = [line[4:-1].decode() for line in lines if line.startswith(b"--- ")]
    assert added == decode(text.decode(), "esp32c3")


def test_a_log_with_times_and_colours_is_decoded_too() -> None:
    text = b"".join(
        b"2026-11-30 12:00:00.001 \x1b[31m" + line + b"\x1b[0m\n"
        for line in run_crash("esp32c3").splitlines()
    )
    decoder = LogDecoder(symbols_of("esp32c3"))
    assert b"--- backtrace:\n" in decoder.feed(text)


# --- logs made by hand ---


def find_call(name: str, function: str) -> int:
    """An address in a function, two instructions after its beginning."""
    return find_symbols(name)[function] + 6


def make_xtensa_panic(name: str, cause: str = "LoadProhibited", tail: str = "") -> str:
    inlined = next(
        address
        for low, high in symbols_of(name).files[0].index.code
        for address in range(low, high)
        if len(symbols_of(name).resolve(address)) == 3
    )
    collect, main = find_call(name, "collect"), find_call(name, "app_main")
    return f"""\
Guru Meditation Error: Core  0 panic'ed ({cause}). Exception was unhandled.

Core  0 register dump:
PC      : 0x{inlined:08x}  PS      : 0x00060d30  A0      : 0x{collect ^ 0xC0000000:08x}  A1      : 0x3ffb5e40
A2      : 0x00000000  A3      : 0x00000004  A4      : 0x00000001  A5      : 0x3ffb5e60
EXCVADDR: 0x00000004  LBEG    : 0x00000000  LEND    : 0x00000000  LCOUNT  : 0x00000000


Backtrace: 0x{inlined:08x}:0x3ffb5e40 0x{collect:08x}:0x3ffb5e60 0x{main:08x}:0x3ffb5e80{tail}




ELF file SHA256: {symbols_of(name).files[0].sha256()[:16]}

Rebooting...
"""


@pytest.mark.parametrize("name", ["esp32", "esp32s3"])
def test_a_backtrace_made_by_hand_is_resolved(name: str) -> None:
    notes = decode(make_xtensa_panic(name), name)
    assert notes[0] == READ
    assert shorten(notes[1:4]) == CHAIN  # PC
    assert notes[4] == NULL
    assert shorten(notes[5:8]) == CHAIN  # Backtrace
    assert [note.split()[1] for note in notes[8:]] == ["collect", "app_main"]


def test_a_damaged_backtrace_says_where_it_ends() -> None:
    notes = decode(make_xtensa_panic("esp32", tail=" |<-CORRUPTED"), "esp32")
    assert notes[-1] == (
        "the backtrace ends here because the stack is damaged: callers before it are not known"
    )


def test_the_traces_of_two_cores_stay_apart() -> None:
    first = make_xtensa_panic("esp32")
    start = first.index("Core  0 register dump")
    both = first + first[start:].replace("Core  0", "Core  1")
    assert shorten(decode(both, "esp32")).count("app_main at crash.c:22") == 2
    riscv = run_crash("esp32c3").decode()
    start = riscv.index("Core  0 register dump")
    cut = riscv[: riscv.index("Stack memory")] + riscv[start:].replace("Core  0", "Core  1")
    assert decode(cut, "esp32c3").count("backtrace:") == 1  # the dump without a stack has none


def test_a_register_line_that_was_cut_in_two_gives_no_address() -> None:
    text = run_crash("esp32c3").decode().replace("MEPC    : 0x42000", "MEPC    : 0x42\r\n000", 1)
    notes = decode(text, "esp32c3")
    assert "backtrace:" not in notes
    assert "the register dump is incomplete: the callers are not known" in notes


def test_nothing_is_decoded_across_a_gap() -> None:
    text = run_crash("esp32c3").decode()
    decoder = CrashDecoder(symbols_of("esp32c3"))
    first, second = text[: text.index("S8 ")], text[text.index("3fc97fc0: ") :]
    for line in first.splitlines():
        decoder.feed(line)
    decoder.clear()
    notes = [note for line in second.splitlines() for note in decoder.feed(line)]
    assert notes == []


@pytest.mark.parametrize("word", [0xA5A5A5A5, 0xFFFFFFFE, 0])
def test_unwinding_stops_at_an_empty_stack(word: int) -> None:
    text = run_crash("esp32c3").decode().replace("0x420000b0", f"0x{word:08x}")
    notes = decode(text, "esp32c3")
    assert [note.split()[1] for note in notes[notes.index("backtrace:") + 4 :]] == ["collect"]


def test_a_jump_to_nowhere_shows_the_caller() -> None:
    text = run_crash("esp32c3").decode()
    at = text.index("MEPC    : 0x") + 10
    notes = decode(text[:at] + "0x00000000" + text[at + 10 :], "esp32c3")
    assert notes[notes.index("backtrace:") + 1].endswith("collect at /firmware/crash.c:18")


def test_lines_of_the_rom_are_not_decoded() -> None:
    address = find_symbols("esp32")["collect"]
    text = f"""\
ets Jul 29 2019 12:21:46
rst:0xc (SW_CPU_RESET),boot:0x13 (SPI_FAST_FLASH_BOOT)
load:0x3fff0030,len:7184
load:0x{address:08x},len:15584
entry 0x{address:08x}
"""
    assert decode(text, "esp32") == []
    assert shorten(decode(f"tick hook is 0x{address:08x}", "esp32")) == ["collect at crash.c:16"]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("Brownout detector was triggered", "supply voltage is too low"),
        ("E (1234) task_wdt: Task watchdog got triggered. The following tasks/users did not reset", "a task did not let others run"),
        ("Soft WDT reset", "yield()"),
        ("wdt reset", "hardware watchdog"),
        ("***ERROR*** A stack overflow in task main has been detected.", "the stack of this task is too small"),
        ("assert failed: app_main main.c:12 (n > 0)", "a condition that must hold did not"),
        ("Fatal exception 29(StoreProhibitedCause):", "wrote to an address that cannot be written"),
        ("Exception (9):", "not a multiple of the size"),
        ("Guru Meditation Error: Core  1 panic'ed (Interrupt wdt timeout on CPU1).", "interrupts were disabled"),
        ("Guru Meditation Error: Core  0 panic'ed (Cache disabled but cached memory region accessed)", "must be in RAM"),
        ("Guru Meditation Error: Core  0 panic'ed (Stack protection fault). ", "a task's stack overflowed"),
        ("Guru Meditation Error: Core  0 panic'ed (Unhandled debug exception). Stack canary watchpoint triggered (wifi)", "the stack of task wifi overflowed"),
    ],
)  # fmt: skip
def test_one_line_says_what_it_means(line: str, words: str) -> None:
    (note,) = decode(line)
    assert words in note


@pytest.mark.parametrize(
    "line",
    [
        "I (31) wifi: connected",
        "0x4",
        "0x40000000000",
        "Exception ",
        "(0x12345678)",
        "x0x40001234x",
        "",
    ],
)
def test_other_lines_are_left_alone(line: str) -> None:
    assert decode(line, "esp32") == []


def test_a_null_pointer_is_only_blamed_for_accesses() -> None:
    text = make_xtensa_panic("esp32", "IllegalInstruction")
    assert NULL not in decode(text, "esp32")


def test_an_elf_of_another_build_is_told_once_and_not_used() -> None:
    text = make_xtensa_panic("esp32").replace("ELF file SHA256: ", "ELF file SHA256: 00")
    decoder = CrashDecoder(SymbolSet([str(FOLDER / "esp32.elf")]))
    notes = [note for line in (text + text).splitlines() for note in decoder.feed(line)]
    told = [note for note in notes if "another build" in note]
    assert len(told) == 1
    assert notes[-2:] == [
        READ,
        NULL,
    ]  # the second panic is explained, its addresses are not resolved


def test_a_saved_log_says_why_a_chip_does_not_start() -> None:
    decoder = LogDecoder(None)
    out = decoder.feed(b"invalid header: 0xffffffff\r\n" * 3)
    assert out.count(b"--- the flash is blank where the bootloader belongs\n") == 1


# --- anything ---

PIECES = (
    b"Guru Meditation Error: Core  0 panic'ed (Load access fault). \r\n",
    b"Core  0 register dump:\r\n",
    b"MEPC    : 0x42000052  RA      : 0x4200008c  SP      : 0x3fc97fa0\r\n",
    b"Stack memory:\r\n",
    b"3fc97fa0: 0x00000000 0x00000001 0x4200008c 0x420000b0\r\n",
    b">>>stack>>>\r\n",
    b"3fffbf60:  00000000 40201049 00000002 4020107c  \r\n",
    b"<<<stack<<<\r\n",
    b"Backtrace: 0x42000052:0x3fc97fa0 |<-CORRUPTED\r\n",
    b"ELF file SHA256: 0123456789abcdef\r\n",
    b"Exception (28):\r\nepc1=0x42000052 excvaddr=0x00000000\r\n",
    b"================= CORE DUMP START =================\r\n",
    b"\x1b[31mE (1) a: 0x42000060\x1b[0m\r\n",
    b"\xff\x00abc\x00",
    b"\xc3",
    b"\n" * 5,
    b"x" * 5000,
)


def make_noise(rng: random.Random) -> bytes:
    """Pieces of crashes, cut and damaged, and random bytes."""
    data = bytearray()
    for _ in range(rng.randrange(1, 12)):
        piece = (
            bytearray(rng.choice(PIECES)) if rng.random() < 0.8 else bytearray(rng.randbytes(20))
        )
        if rng.random() < 0.3 and piece:
            piece[rng.randrange(len(piece))] = rng.randrange(256)
        if rng.random() < 0.2:
            del piece[rng.randrange(len(piece)) :]
        data += piece
    return bytes(data)


def fuzz_text(seed: int, rounds: int, screen: object) -> int:
    """Feed noise to the whole console and to the decoder of logs; the number of lines added."""
    from espwire.monitor.console import Console

    rng = random.Random(seed)
    symbols = symbols_of("esp32c3")
    console = Console(screen, symbols=symbols, save_dump=lambda dump: str(len(dump.data)))  # type: ignore[arg-type]
    decoder = LogDecoder(symbols)
    for _ in range(rounds):
        noise = make_noise(rng)
        console.feed(noise)
        if rng.random() < 0.1:
            console.idle()
        if rng.random() < 0.05:
            console.cut()
        out = decoder.feed(noise)
        assert out.count(b"\n--- ") <= decoder.added
    decoder.finish()
    return decoder.added


def test_a_long_line_inside_a_stack_is_examined_in_one_pass() -> None:
    """With a pattern that tries each space twice, this takes 12 s."""
    decoder = LogDecoder(None)
    line = b"3ffffdc0: 00000000" + b" " * 60_000 + b"x\n"
    assert decoder.feed(b">>>stack>>>\n" + line) == b">>>stack>>>\n" + line


class NoScreen:
    def show(self, text: str) -> None:
        assert "\x07" not in text

    def pass_on(self, data: bytes) -> None: ...

    def note(self, text: str, *, mid_line: bool, urgent: bool) -> None: ...


def test_noise_ends_nothing() -> None:
    assert fuzz_text(1, 400, NoScreen()) > 100


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(10))
def test_much_noise_ends_nothing(seed: int) -> None:
    assert fuzz_text(seed, 10_000, NoScreen()) > 1000


def test_the_fuzz_finds_a_missing_check(monkeypatch: pytest.MonkeyPatch) -> None:
    import espwire.monitor.crash as module

    monkeypatch.setattr(module, "_STACK_LINE", re.compile(r"(?P<at>[^:]*):(?P<words>.*)"))
    with pytest.raises(ValueError, match="invalid literal"):
        fuzz_text(1, 400, NoScreen())
