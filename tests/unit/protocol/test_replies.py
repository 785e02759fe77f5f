"""Status bytes and their words agree with the data file."""

from espwire.protocol.replies import ROM_MEANINGS, STUB_MEANINGS, status_meaning


def test_a_rom_code_is_named_by_its_second_byte():
    assert status_meaning(b"\x01\x07") == "wrong checksum"
    assert "unknown command" in status_meaning(b"\x01\x05\x00\x00")


def test_a_stub_code_is_named_by_both_bytes():
    assert status_meaning(b"\xc4\x00") == STUB_MEANINGS[0xC400]


def test_an_unknown_code_is_said_to_be_unknown():
    assert 0x77 not in ROM_MEANINGS
    assert status_meaning(b"\x01\x77") == "unknown error"
