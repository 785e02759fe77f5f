"""Register windows, loops and the other instructions of LX6 and LX7.

Random programs are compared with results of `qemu-system-xtensa -cpu dc232b`, which tools/fuzz_xtensa_windows.py recorded.
"""

from pathlib import Path

import fuzz_xtensa_windows as fuzz
import pytest
from tests.unit.virtual.cpu.programs import DATA, RecordingBus
from xtensa_assembler import Assembler

from espwire.virtual.cpu import xtensa_windows
from espwire.virtual.cpu.engine import Engine
from espwire.virtual.cpu.memory import CpuFault, Memory, Region
from espwire.virtual.cpu.xtensa import Xtensa
from espwire.virtual.cpu.xtensa_windows import L32E, S32E, window_handlers
from espwire.virtual.cpu.xtensa_word import (
    LBEG,
    LCOUNT,
    LEND,
    PS,
    SCOMPARE1,
    VECBASE,
    WINDOWBASE,
    WINDOWS_ON,
    WINDOWSTART,
)

CODE, ALL = 0x40080000, 0xFFFFFFFF
STACK = DATA + 0x8000 - 64
RECORDED = Path(__file__).parents[3] / "data/programs/xtensa_windows.txt"


def make(code):
    """An engine in the state in which a ROM calls a program."""
    rom = Region("rom", 0x40000000, bytearray(0x800), writable=False)
    text = code.assemble()
    regions = [
        Region("data", DATA, bytearray(0x8000)),
        Region("code", CODE, bytearray(text) + bytearray(64)),
        rom,
    ]
    engine = Engine(Xtensa(windows=True), Memory(regions, RecordingBus()), entry=CODE)
    engine.registers[1] = STACK
    xtensa_windows.start_function(engine)
    return engine


def run(*instructions, registers=()):
    """Run instructions (tuples, or text for labels) and then wait; returns the engine."""
    code = Assembler(CODE)
    for instruction in instructions:
        if isinstance(instruction, str):
            code.align(4 if instruction == "function" else 1)
            code.label(instruction)
        else:
            code(*instruction)
    code("waiti", 0)
    engine = make(code)
    for number, value in dict(registers).items():
        engine.registers[number] = value
    engine.run(5_000)
    return engine


# --- programs that qemu has run ---


def recorded():
    return [line.split() for line in RECORDED.read_text().splitlines()]


def result(seed):
    try:
        return fuzz.digest(fuzz.run_engine(fuzz.Program(int(seed)))[0])
    except CpuFault as fault:
        return f"crash: {fault}"


def test_random_programs_have_the_results_of_qemu():
    assert len(recorded()) == 30
    for seed, program, expected in recorded():
        assert fuzz.digest(fuzz.Program(int(seed)).code.assemble()) == program, (
            "another generator: record again"
        )
        assert result(seed) == expected, seed


def without_access(size, instruction, register):
    """The window handlers, without one access of the handler for frames of ``size`` registers."""
    code, start = (
        bytearray(window_handlers()),
        0x80 * (size // 4 - 1) + (0x40 if instruction == L32E else 0),
    )
    for at in range(start, start + 0x40, 3):
        word = int.from_bytes(code[at : at + 3], "little")
        if word & 0xFF000F == instruction and word >> 4 & 15 == register:
            code[at : at + 3] = b"\xf0\x20\x00"  # nop
            return bytes(code)
    raise AssertionError("no such access")


@pytest.mark.parametrize("fault", [(4, L32E, 3), (8, S32E, 6), (12, L32E, 10), (12, S32E, 4)])
def test_a_register_that_a_handler_forgets_is_noticed(fault, monkeypatch):
    handlers = without_access(*fault)
    monkeypatch.setattr(fuzz, "window_handlers", lambda: handlers)
    assert any(result(seed) != expected for seed, _, expected in recorded())


def test_an_overflow_that_is_not_noticed_gives_other_results(monkeypatch):
    monkeypatch.setitem(
        xtensa_windows.NAMES, "enter", lambda *now: xtensa_windows.enter(*now) and False
    )
    assert any(result(seed) != expected for seed, _, expected in recorded())


# --- windows ---


def fibonacci(number):
    code = Assembler(CODE)
    code("entry", 1, 32)
    code("movi", 10, number)
    code("call8", "fibonacci")
    code("waiti", 0)
    code.align()
    code.label("fibonacci")
    code("entry", 1, 48)
    code("movi", 3, 2)
    code("bltu", 2, 3, "small")
    code("addi", 10, 2, -1)
    code("call8", "fibonacci")
    code("mov", 4, 10)
    code("addi", 10, 2, -2)
    code("call8", "fibonacci")
    code("add", 2, 4, 10)
    code.label("small")
    code("retw.n")
    return code


def test_recursion_deeper_than_the_register_file():
    engine = make(fibonacci(14))
    engine.run(10_000_000)
    assert engine.registers[10] == 377
    assert (
        engine.special[WINDOWSTART] == 1 << engine.special[WINDOWBASE]
    )  # all older functions were saved
    assert engine.registers[1] == STACK - 32


@pytest.mark.parametrize("windows", [1, 2, 3])
def test_arguments_and_results_of_each_call(windows):
    first = 4 * windows
    engine = run(("entry", 1, 32), ("movi", first + 2, 40), ("movi", 4, 7), (f"call{first}", "function"), ("waiti", 0),
                 "function", ("entry", 1, 32), ("addi", 2, 2, 2), ("retw",))  # fmt: skip
    assert engine.registers[first + 2] == 42
    assert engine.registers[first] == windows << 30 | 0x0008000C


def test_a_call_through_the_register_of_the_return_address():
    code = (
        ("entry", 1, 32),
        ("mov", 8, 2),
        ("callx8", 8),
        "function",
        ("entry", 1, 64),
        ("mov", 3, 0),
    )
    engine = run(*code, registers={10: CODE + 12})
    assert engine.special[WINDOWBASE] == 4
    assert engine.registers[1] == STACK - 96
    assert engine.registers[3] == 2 << 30 | 0x00080009


def test_a_program_that_returns_ends_at_the_reset_vector():
    with pytest.raises(CpuFault, match="illegal instruction 0x0") as caught:
        run(("entry", 1, 32), ("retw.n",))
    assert caught.value.pc == 0x40000400


def test_entry_needs_register_windows():
    engine = make(fibonacci(1))
    engine.special[PS] = 2 << 16
    with pytest.raises(CpuFault, match="entry without register windows"):
        engine.run(1000)


@pytest.mark.parametrize(("start", "back"), [(0b0101, 1), (0b0111, 2), (0b0101, 0), (0b0011, 2)])
def test_retw_to_another_window_than_the_callers_is_illegal(start, back):
    code = Assembler(CODE)
    code("retw")
    engine = make(code)
    engine.special.update({WINDOWBASE: 2, WINDOWSTART: start})
    engine.registers[0] = back << 30 | 0x00080000
    with pytest.raises(CpuFault, match="another window"):
        engine.run(100)


def test_movsp_needs_the_callers_registers():
    assert run(("entry", 1, 32), ("movsp", 5, 1)).registers[5] == STACK - 32
    with pytest.raises(CpuFault, match="alloca"):
        run(("movsp", 5, 1))


def test_rotw_and_windowbase_move_the_window():
    engine = run(
        ("movi", 3, 0),
        ("wsr", 3, PS),
        ("movi", 7, 77),
        ("rotw", 1),
        ("mov", 4, 3),
        ("rsr", 5, WINDOWBASE),
        ("rotw", -3),
    )
    assert engine.special[WINDOWBASE] == 14
    assert engine.registers[15:18] == [77, 77, 1]
    engine = run(("movi", 3, 15), ("wsr", 3, WINDOWBASE), ("rsr", 2, WINDOWBASE), registers={14: 5})
    assert (engine.registers[2], engine.special[WINDOWBASE]) == (15, 15)


def test_windows_that_are_switched_on_save_older_registers():
    """As at the end of an interrupt handler: three functions' registers are within reach."""
    code = Assembler(CODE)
    code("wsr", 2, PS)
    code("waiti", 0)
    engine = make(code)
    engine.special.update({PS: 0x10, WINDOWSTART: 0b1111})
    registers = engine.registers
    registers[2], registers[4:8] = WINDOWS_ON, [4, STACK, 6, 7]
    for n in (2, 3):
        registers[4 * n : 4 * n + 4] = [n, STACK - 64 * n, 10 + n, 20 + n]
    registers[17] = STACK - 256
    engine.run(1000)
    assert engine.special[WINDOWSTART] == 1
    data = engine.memory.regions[0].data
    at = STACK - 128 - 16 - DATA
    assert [int.from_bytes(data[at + n : at + n + 4], "little") for n in (0, 4, 8, 12)] == [
        4,
        STACK,
        6,
        7,
    ]


# --- loops ---


@pytest.mark.parametrize(
    ("kind", "count", "rounds"),
    [
        ("loop", 1, 1),
        ("loop", 5, 5),
        ("loopnez", 0, 0),
        ("loopnez", 3, 3),
        ("loopgtz", 0, 0),
        ("loopgtz", -1, 0),
        ("loopgtz", 2, 2),
    ],
)
def test_loops_count(kind, count, rounds):
    engine = run(
        (kind, 3, "end"), ("addi", 4, 4, 1), ("addi", 5, 5, 2), "end", registers={3: count & ALL}
    )
    assert (engine.registers[4], engine.registers[5]) == (rounds, 2 * rounds)
    assert engine.special[LCOUNT] == (0 if rounds else count - 1 & ALL)


def test_a_jump_to_the_end_of_a_loop_leaves_it():
    engine = run(
        ("loop", 3, "end"),
        ("addi", 4, 4, 1),
        ("beq", 4, 5, "end"),
        ("nop",),
        "end",
        registers={3: 9, 5: 4},
    )
    assert (engine.registers[4], engine.special[LCOUNT]) == (4, 5)


@pytest.mark.parametrize(("stop", "rounds", "after"), [(20, 9, 1), (2, 2, 0)])
def test_a_branch_at_the_end_of_a_loop_that_is_not_taken_goes_round(stop, rounds, after):
    engine = run(
        ("loop", 3, "end"),
        ("addi", 4, 4, 1),
        ("beq", 4, 5, "out"),
        "end",
        ("movi", 6, 1),
        "out",
        registers={3: 9, 5: stop},
    )
    assert (engine.registers[4], engine.registers[6]) == (rounds, after)


def test_a_loop_whose_body_has_run_before():
    body = (
        "begin",
        ("addi", 4, 4, 1),
        "end",
        ("bnez", 5, "out"),
        ("movi", 5, 1),
        ("loop", 3, "after"),
    )
    engine = run(*body, ("j", "begin"), "after", "out", registers={3: 4})
    assert engine.registers[4] == 2  # the loop of the jump itself ends nowhere
    engine = run(("j", "body"), "begin", ("wsr", 6, LBEG), ("wsr", 7, LEND), ("wsr", 3, LCOUNT), "body", ("addi", 4, 4, 1), "end",
                 ("bnez", 5, "out"), ("movi", 5, 1), ("j", "begin"), "out", registers={3: 4, 6: CODE + 12, 7: CODE + 15})  # fmt: skip
    assert engine.registers[4] == 6


def test_loops_do_not_repeat_in_exceptions():
    code = ("addi", 4, 4, 1), "end"
    engine = run(("movi", 5, 0x10), ("wsr", 5, PS), ("loop", 3, "end"), *code, registers={3: 9})
    assert (engine.registers[4], engine.special[LCOUNT]) == (1, 8)


# --- other instructions ---


@pytest.mark.parametrize(
    ("name", "a", "b", "expected"),
    [
        ("muluh", 0x80000001, 0x80000003, 0x40000002),
        ("mulsh", 0x80000001, 3, 0xFFFFFFFE),
        ("saltu", 1, ALL, 1),
        ("saltu", ALL, 1, 0),
        ("saltu", 5, 5, 0),
        ("salt", 1, ALL, 0),
        ("salt", ALL, 1, 1),
        ("quou", ALL, 10, 0x19999999),
        ("remu", ALL, 10, 5),
        ("quos", -7 & ALL, 2, -3 & ALL),
        ("rems", -7 & ALL, 2, -1 & ALL),
        ("quos", 7, -2 & ALL, -3 & ALL),
        ("rems", 7, -2 & ALL, 1),
        ("quos", 0x80000000, ALL, 0x80000000),
        ("rems", 0x80000000, ALL, 0),
    ],
)
def test_products_quotients_and_comparisons(name, a, b, expected):
    assert run((name, 2, 3, 4), registers={3: a, 4: b}).registers[2] == expected


@pytest.mark.parametrize("name", ["quou", "quos", "remu", "rems"])
def test_division_by_zero_faults(name):
    with pytest.raises(CpuFault, match="division by zero") as caught:
        run(("nop",), (name, 2, 3, 4), registers={3: 1})
    assert caught.value.pc == CODE + 3


def test_sign_extension_and_clamping():
    engine = run(
        ("sext", 2, 6, 7),
        ("sext", 3, 6, 15),
        ("clamps", 4, 6, 7),
        ("clamps", 5, 7, 22),
        registers={6: 0x1FF80, 7: ALL},
    )
    assert engine.registers[2:6] == [0xFFFFFF80, 0xFFFFFF80, 0x7F, ALL]


def test_a_conditional_store_compares_with_scompare1():
    code = ("wsr", 5, SCOMPARE1), ("s32ri", 6, 3, 8), ("s32c1i", 4, 3, 8), ("l32ai", 2, 3, 8)
    stored = run(*code, registers={3: DATA, 4: 9, 5: 1, 6: 1}).registers
    assert (stored[2], stored[4]) == (9, 1)
    kept = run(*code, registers={3: DATA, 4: 9, 5: 2, 6: 1}).registers
    assert (kept[2], kept[4]) == (1, 1)


def test_user_registers_keep_what_is_written():
    engine = run(("wur", 3, 231), ("rur", 2, 231), ("rur", 4, 232), registers={3: 77, 4: 1})
    assert (engine.registers[2], engine.registers[4]) == (77, 0)


def test_the_vectors_are_where_vecbase_points():
    engine = run(("rsr", 2, VECBASE))
    assert engine.registers[2] == 0x40000000
    assert bytes(engine.memory.regions[2].data[:0x180]) == window_handlers()
