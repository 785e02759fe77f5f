"""Programs that esptool's users load into RAM: they run and print through the ROM's ets_printf, or the chip says why not.

The programs are ours, in machine code; they lie where esptool's own "hello world" images for these chips do.
"""

import struct

import pytest
from xtensa_assembler import Assembler

import espwire
from espwire.chips.registry import chip_ids, load_chip
from espwire.errors import SafetyStop
from espwire.flash.load_ram import find_rom_ram_problems
from espwire.image.codec import build, parse
from espwire.image.model import ExtendedHeader, Image, Segment
from espwire.virtual.transport import open_virtual

TEXT = b"Hello %s, %d of %05x!\n\0world\0"
PRINTED = b"Hello world, -1 of 000ff!\r\n"
# code and data of the hello-world images that load on real chips; on the C3 they are two views of one RAM
PLACES = {
    "esp8266": (0x40108000, 0x3FFE8000),
    "esp32": (0x4008C000, 0x3FFC0000),
    "esp32s2": (0x40028000, 0x3FFC0000),
    "esp32s3": (0x40380000, 0x3FCA0000),
    "esp32c2": (0x40390000, 0x3FCD0000),
    "esp32c3": (0x403DFD00, 0x3FCDFD80),
    "esp32c5": (0x40810F5C, 0x4081105C),
    "esp32c6": (0x40860000, 0x40870000),
    "esp32c61": (0x40830000, 0x40830100),
    "esp32h2": (0x40804000, 0x40848000),
    "esp32h21": (0x40804000, 0x40830000),
    "esp32h4": (0x40848000, 0x40849000),
    "esp32p4": (0x4FF60000, 0x4FF70000),
    "esp32s31": (0x2F010000, 0x2F020000),
}
WINDOWED = ("esp32", "esp32s2", "esp32s3")


def load_upper(register: int, value: int) -> bytes:
    return struct.pack("<I", (value + 0x800 & 0xFFFFF000) | register << 7 | 0x37)


def add_lower(register: int, value: int) -> bytes:
    return struct.pack("<I", (value & 0xFFF) << 20 | register << 15 | register << 7 | 0x13)


def riscv_hello(printf: int, data: int) -> bytes:
    """Print TEXT with "world", -1 and 255, for ever."""
    code = b""
    for register, value in ((10, data), (11, data + TEXT.index(b"world"))):
        code += load_upper(register, value) + add_lower(register, value)
    code += struct.pack("<II", 0xFFF00613, 0x0FF00693)  # li a2, -1; li a3, 255
    code += load_upper(5, printf) + struct.pack(
        "<I", (printf & 0xFFF) << 20 | 5 << 15 | 1 << 7 | 0x67
    )
    back = -len(code) & 0x1FFFFF
    jump = (
        back >> 20 << 31
        | (back >> 1 & 0x3FF) << 21
        | (back >> 11 & 1) << 20
        | (back >> 12 & 0xFF) << 12
        | 0x6F
    )
    return code + struct.pack("<I", jump)


def lx106_hello(printf: int, data: int) -> bytes:
    """The same. l32r a2, [0]; l32r a3, [4]; l32r a6, [8]; movi.n a4, -1; movi a5, 255; callx0 a6; j to the first."""
    words = struct.pack("<III", data, data + TEXT.index(b"world"), printf)
    return words + bytes.fromhex("21fdff 31fdff 61fdff 7c f4 52a0ff c00600 c6faff")


def windowed_hello(code: int, printf: int, data: int) -> bytes:
    """The same, from a function that calls itself so deeply that registers are saved in between; entry at ``code`` + 12."""
    program = Assembler(code)
    for word in (data, data + TEXT.index(b"world"), printf):
        program.word(word)
    program("entry", 1, 32)
    program("movi", 10, 30)
    program.label("again")
    program("call8", "deeper")
    program("j", "again")
    program.align()
    program.label("deeper")
    program("entry", 1, 32)
    program("beqz", 2, "print")
    program("addi", 10, 2, -1)
    program("call8", "deeper")
    program("retw.n")
    program.label("print")
    program("l32r", 10, code)
    program("l32r", 11, code + 4)
    program("l32r", 8, code + 8)
    program("movi", 12, -1)
    program("movi", 13, 255)
    program("callx8", 8)
    program("retw")
    return program.assemble()


def hello(chip: str) -> tuple[bytes, int]:
    """The image, and where its code begins."""
    code, data = PLACES[chip]
    printf = load_chip(chip).rom_addresses["ets_printf"]
    if chip in WINDOWED:
        program, entry = windowed_hello(code, printf, data), code + 12
    elif chip == "esp8266":
        program, entry = lx106_hello(printf, data), code + 12
    else:
        program, entry = riscv_hello(printf, data), code
    return image_of(chip, entry, Segment(code, program), Segment(data, TEXT)), entry


def image_of(chip: str, entry: int, *segments: Segment) -> bytes:
    extended = (
        None
        if chip == "esp8266"
        else ExtendedHeader(chip_id=load_chip(chip).identity.image_chip_id or 0)
    )
    segments = tuple(Segment(s.address, s.data + bytes(-len(s.data) % 4)) for s in segments)
    return build(
        Image(mode_code=0, size_frequency=0, entry=entry, segments=segments, extended=extended)
    )


def load_and_listen(url: str, image: bytes, seconds: float = 0.1) -> bytes:
    transport = open_virtual(url)
    with espwire.connect(transport, stub=False) as device:
        espwire.load_ram(device, image)
        end, heard = transport.now() + seconds, b""
        while transport.now() < end:
            heard += transport.read(end - transport.now())
    return heard


@pytest.mark.parametrize("chip", PLACES)
def test_a_program_prints_through_the_rom(chip):
    heard = load_and_listen(f"virtual:{chip}", hello(chip)[0])
    assert heard.count(PRINTED) > 20
    assert not heard.replace(PRINTED, b"").strip(PRINTED)


@pytest.mark.parametrize("chip", ["esp32c3", "esp32c6"])
def test_a_program_prints_over_usb(chip):
    assert load_and_listen(f"virtual:{chip}?kind=usb-jtag", hello(chip)[0]).count(PRINTED) > 20


def test_a_program_that_overwrites_its_text_prints_its_own_code():
    """As the real C3 does with esptool's image: code and text are loaded into the same bytes."""
    printf, place = load_chip("esp32c3").rom_addresses["ets_printf"], 0x3FCDFD00
    code = load_upper(10, place) + add_lower(10, place) + load_upper(5, printf)
    code += struct.pack("<II", (printf & 0xFFF) << 20 | 5 << 15 | 1 << 7 | 0x67, 0xFF1FF06F)
    image = image_of(
        "esp32c3", 0x403DFD00, Segment(place, b"Hello world!\n\0"), Segment(0x403DFD00, code)
    )
    heard = load_and_listen("virtual:esp32c3", image)
    assert b"Hello" not in heard
    assert heard.count(code[: code.index(0)]) > 20


@pytest.mark.parametrize("chip", WINDOWED)
def test_a_program_with_register_windows_that_returns_crashes(chip):
    entry = PLACES[chip][0]
    program = Assembler(entry)
    program("entry", 1, 32)
    program("retw")
    transport = open_virtual(f"virtual:{chip}")
    with espwire.connect(transport, stub=False) as device:
        espwire.load_ram(device, image_of(chip, entry, Segment(entry, program.assemble())))
        transport.read(0.01)
        ended = transport.chip.runner.ended
    assert ended.how == "crash"
    assert (ended.fault, ended.pc) == ("illegal instruction 0x0", 0x40000400)


@pytest.mark.parametrize("chip", ["esp32c2", "esp32c3", "esp32c6", "esp32h2"])
def test_images_that_load_on_real_chips_are_not_rejected(chip):
    image = parse(hello(chip)[0], load_chip(chip))
    assert not find_rom_ram_problems(load_chip(chip), image, None)


@pytest.mark.parametrize(
    ("chip", "segments", "refused"),
    [
        (
            "esp32h2",
            ((0x40848000, 0x1800),),
            True,
        ),  # the block fills the packet buffer beyond its own target
        ("esp32h2", ((0x40848000, 16), (0x40804000, 0x1800)), True),  # a later block does
        ("esp32h2", ((0x40804000, 0x1800), (0x40848000, 16)), False),
        ("esp32h2", ((0x40847A78, 4),), True),  # every request does
        ("esp32h2", ((0x40849290, 0x2000),), False),
        ("esp32c3", ((0x3FCDE000, 16),), True),  # the stack
        ("esp32c3", ((0x403DE000, 16),), True),  # the same bytes, as code
        ("esp32c3", ((0x3FCDF064, 4),), True),  # the UART's state
        ("esp32c3", ((0x3FCDFFFC, 4),), True),  # pointers of the ROM's functions
        ("esp32s3", ((0x3FCD8000, 4),), True),  # not measured: all of its buffers
    ],
)
def test_what_the_rom_uses_while_it_loads_is_refused(chip, segments, refused):
    image = image_of(
        chip, segments[0][0], *(Segment(address, bytes(size)) for address, size in segments)
    )
    problems = find_rom_ram_problems(load_chip(chip), parse(image, load_chip(chip)), None)
    assert bool(problems) is refused
    if refused:
        with espwire.connect(f"virtual:{chip}", stub=False) as device, pytest.raises(SafetyStop):
            espwire.load_ram(device, image)


# esptool and esptool-js, or their hardware tests, read these on real chips, which survive it
SURVIVED = {
    0x400C0000: ("esp8266", "esp32", "esp32s2", "esp32s3", "esp32c2", "esp32c3", "esp32c5", "esp32c6", "esp32c61", "esp32h2"),
    0x50000000: tuple(chip for chip in chip_ids() if chip not in ("esp32h4", "esp32e22")),
    0x5000007C: tuple(chip for chip in chip_ids() if chip not in ("esp32h4", "esp32e22")),
    0x3FCEF14C: ("esp32h2", "esp32h21", "esp32s3"),
    0x4FFBFEC8: ("esp32p4",),
    0x4087F580: ("esp32c6", "esp32c61", "esp32h2", "esp32h21", "esp32h4"),  # esptool 4 on chips with less RAM than the C6
}  # fmt: skip


@pytest.mark.parametrize(
    ("address", "chip"), [(a, c) for a, chips in SURVIVED.items() for c in chips]
)
def test_reads_that_real_chips_survive_are_answered(address, chip):
    with espwire.connect(f"virtual:{chip}", stub=False) as device:
        device.write_mem(address, 0)
        assert device.read_mem(address).value == 0


@pytest.mark.parametrize("chip", chip_ids())
def test_every_word_of_the_flash_controller_can_be_written_while_a_stub_runs(chip):
    """The memory map of the ESP32-S2 calls these addresses mapped flash; the bus does not."""
    from espwire.virtual.build import build_chip
    from espwire.virtual.config import parse_options

    registers = build_chip(parse_options(f"virtual:{chip}")).registers
    base = load_chip(chip).spi.base
    assert not any(registers.is_read_only(address) for address in range(base, base + 0x100, 4))
