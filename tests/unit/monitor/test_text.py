"""Bytes of a chip as tokens: whole signs whatever the chunks, and nothing that drives the terminal."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from espwire.monitor.text import Kind, Token, Tokenizer


def shown(data: bytes) -> str:
    tokenizer = Tokenizer()
    return "".join(token.text for token in [*tokenizer.feed(data), *tokenizer.finish()])


def test_lines_end_in_one_newline_however_many_returns_stand_before() -> None:
    assert shown(b"one\r\ntwo\nthree\r\r\nfour") == "one\ntwo\nthree\nfour"


def test_a_return_alone_stays_one() -> None:
    assert shown(b"10 %\r20 %\r\n") == "10 %\r20 %\n"


def test_colours_and_moves_within_the_line_pass() -> None:
    text = "\x1b[0;32mI (31) boot\x1b[0m \x1b[K\x1b[2D\x1b[C\b"
    assert shown(text.encode()) == text


def test_what_drives_a_terminal_becomes_an_escape() -> None:
    assert (
        shown(b"\x1b]0;title\x07\x1b[2J\x1b[6n\x00\x7f")
        == "\\x1b]0;title\\x07\\x1b[2J\\x1b[6n\\x00\\x7f"
    )


def test_signs_that_change_the_direction_of_text_become_escapes() -> None:
    assert shown("a\u202eb\x9b31m\u00a0°".encode()) == "a\\u202eb\\x9b31m\u00a0°"


def test_no_utf_8_becomes_the_replacement_character() -> None:
    assert shown(b"a\xff\xfeb\xc3") == "a��b�"


def test_a_sign_cut_in_two_is_one_sign() -> None:
    tokenizer = Tokenizer()
    assert tokenizer.feed("ä".encode()[:1]) == []
    assert tokenizer.feed("ä".encode()[1:]) == [Token(Kind.TEXT, "ä")]


def test_an_escape_that_never_ends_is_not_waited_for_for_ever() -> None:
    tokenizer = Tokenizer()
    tokenizer.feed(b"\x1b[" + b"1;" * 40)
    assert len("".join(token.text for token in tokenizer.feed(b"x"))) < 100


@given(st.binary(max_size=200), st.data())
def test_chunks_change_nothing_and_no_control_character_gets_through(
    data: bytes, draws: st.DataObject
) -> None:
    cuts = sorted(draws.draw(st.lists(st.integers(0, len(data)), max_size=5)))
    tokenizer, tokens = Tokenizer(), []
    for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True):
        tokens += tokenizer.feed(data[start:end])
    tokens += tokenizer.finish()
    assert "".join(token.text for token in tokens).replace("\r", "") == shown(data).replace(
        "\r", ""
    )
    for kind, text in tokens:
        if kind is Kind.TEXT:
            assert all(sign.isprintable() or sign in "\t\u00a0\u200d" for sign in text)
