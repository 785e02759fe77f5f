"""Whatever came, there is one cause with an id and a hint. Which cause fits which is asked of chips: tests/scenario."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from espwire.chips.registry import chip_ids, load_chip
from espwire.device.connect import connect
from espwire.device.diagnose import Symptoms, diagnose
from espwire.errors import ConnectError
from espwire.transport.url import open_transport

CODES = {
    "no-reply",
    "wrong-boot-mode",
    "application-running",
    "wrong-baud-noise",
    "noise",
    "chip-does-not-hear",
    "held-in-reset",
    "brown-out-loop",
    "crash-loop",
}
WORDS = st.sampled_from(
    [
        b"rst:0x1 (POWERON),boot:0x8 (SPI_FAST_FLASH_BOOT)\r\n",
        b"rst:0xf (X),boot:0x4 (DOWNLOAD(UART0))\r\nwaiting for download\r\n",
        b"rst cause:2, boot mode:(3,6)\r\n",
        b"ESP-ROM:esp32c3-api1\r\n",
        b"ESP-ROM:esp99\r\n",
        b"Guru Meditation Error: Core 0\r\n",
        b"Brownout detector was triggered\r\n",
        b"I (12) app: x\r\n",
        b"invalid header: 0xffffffff\r\n",
        bytes(range(128, 160)),
    ]
)
HEARD = st.lists(st.one_of(WORDS, st.binary(max_size=20)), max_size=8).map(b"".join)


@given(
    attempts=st.lists(HEARD, max_size=8).map(tuple),
    before=HEARD,
    at_rates=st.dictionaries(st.sampled_from([74880, 9600]), HEARD),
    restarted=st.none() | HEARD,
    while_held=HEARD,
    sequences=st.sampled_from([(), ("classic",)]),
    can_reset=st.booleans(),
    chip=st.none() | st.sampled_from(chip_ids()).map(load_chip),
)
def test_whatever_came_there_is_one_cause(**found):
    error = diagnose(Symptoms(**found))
    assert isinstance(error, ConnectError)
    assert error.code in CODES
    assert str(error)
    assert error.hint.endswith(".")
    assert {"sequences", "baud"} <= error.details.keys()


def test_no_evidence_at_all_is_silence():
    assert diagnose(Symptoms()).code == "no-reply"


@pytest.mark.parametrize("ail", ["mute", "tx-dead", "noise"])
def test_no_line_is_moved_where_no_reset_is_wanted(ail):
    transport = open_transport(f"virtual:esp32c3?profile=instant&boot=app&ail={ail}")
    moved = []
    transport.set_lines = lambda **lines: moved.append(lines)
    with pytest.raises(ConnectError):
        connect(transport, before="no-reset", stub=False)
    assert all(not any(lines.values()) for lines in moved), "released at most"
