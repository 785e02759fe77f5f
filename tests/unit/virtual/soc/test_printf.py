"""The text that the ROM's printf makes of its template and arguments."""

import pytest

from espwire.virtual.soc.romcalls import LONGEST, format_text


def printed(template: bytes, *arguments: int | bytes) -> bytes:
    memory, words = bytearray(template + b"\0"), []
    for argument in arguments:
        if isinstance(argument, bytes):
            words.append(len(memory))
            memory += argument + b"\0"
        else:
            words.append(argument & 0xFFFFFFFF)
    return format_text(0, iter(words), lambda address: memory[address])


@pytest.mark.parametrize(
    ("template", "arguments", "text"),
    [
        (b"plain\n", (), b"plain\n"),
        (b"%d %i %u", (-1, 5, -1), b"-1 5 4294967295"),
        (b"%x %X %#x %p", (255, 255, 255, 0x3FC80000), b"ff FF 0xff 0x3fc80000"),
        (b"[%5d][%-5d][%05d][%+d]", (-42, -42, -42, 42), b"[  -42][-42  ][-0042][+42]"),
        (b"%.4x %lu %hhd", (0xAB, 7, 8), b"00ab 7 8"),
        (b"%lld %llx", (-2, -1, 0xDDDDDDDD, 0xEE), b"-2 eedddddddd"),
        (b"%s %5s %-5s| %.2s %c%%", (b"a", b"b", b"c", b"long", 0x41), b"a     b c    | lo A%"),
        (b"%f %q 100%", (), b"%f %q 100%"),
    ],
)
def test_a_template_is_filled_in(template, arguments, text):
    assert printed(template, *arguments) == text


def test_a_null_pointer_is_printed_as_null():
    assert printed(b"%s", 0) == b"(null)"


def test_no_text_is_longer_than_the_limit():
    assert len(printed(b"%99999999999d", 1)) == LONGEST
    assert len(format_text(0, iter(()), lambda address: 0x41)) == LONGEST
