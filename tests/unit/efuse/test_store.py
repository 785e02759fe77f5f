"""The virtual store: a file, locks, one burn for coded blocks, hidden words."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from espwire.efuse.store import VirtualStore, open_file
from espwire.errors import DeviceError, FileError


def test_a_file_is_private_and_keeps_the_bits(tmp_path: Path) -> None:
    path = str(tmp_path / "fuses")
    store = open_file(path, "esp32c3")
    store.program(store.data.blocks[3], 5)
    assert open_file(path, "esp32c3").read().blocks[3] == 5
    assert os.path.getsize(path) == store.data.controller.size
    if os.name != "nt":
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"x", "it has 1 bytes, not 512"),
        (bytes(511), "it has 511 bytes, not 512"),
        (bytes(513), "it has 513 bytes, not 512"),
        (bytes(range(256)) * 2, "it has bits where no register is"),
    ],
)
def test_other_content_is_an_error_and_stays_as_it_is(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    path = tmp_path / "fuses"
    path.write_bytes(content)
    with pytest.raises(FileError) as caught:
        open_file(str(path), "esp32c3")
    assert caught.value.code == "efuse-file"
    assert "ESP32-C3" in str(caught.value)
    assert str(caught.value).endswith(reason)
    assert path.read_bytes() == content


def test_the_file_of_another_chip_is_an_error(tmp_path: Path) -> None:
    path = str(tmp_path / "fuses")
    open_file(path, "esp32c3").save()
    with pytest.raises(FileError, match="it belongs to esp32c3"):
        open_file(path, "esp32c6")


def test_a_blank_file_and_one_without_a_name_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "fuses"
    for content in (b"", bytes(512)):
        path.write_bytes(content)
        store = open_file(str(path), "esp32c3", empty_is_blank=True)
        assert not any(store.read().blocks)
    path.write_bytes(b"")
    with pytest.raises(FileError, match="it has 0 bytes, not 512"):
        open_file(str(path), "esp32c3")


def test_hidden_words_read_zero_and_are_kept(tmp_path: Path) -> None:
    path = str(tmp_path / "fuses")
    store = open_file(path, "esp32c3")
    key = int.from_bytes(range(1, 33), "little")
    store.program(store.data.blocks[4], key)
    store.program(store.data.blocks[0], store.read().layout.field("RD_DIS").mask & 1 << 32)
    again = open_file(path, "esp32c3")
    assert again.burned[4] == key
    state = again.read()
    assert state.blocks[4] == 0
    assert not state.readable(state.layout.field("BLOCK_KEY0"))


def test_each_lock_of_the_c2_hides_half_a_block() -> None:
    store = VirtualStore("esp32c2")
    store.burned[3] = (1 << 256) - 1
    store.burned[0] |= 2 << 32
    assert store.read().blocks[3] == (1 << 128) - 1


def test_locked_bits_stay_as_they_are() -> None:
    store = VirtualStore("esp32c3")
    layout = store.read().layout
    store.program(store.data.blocks[0], 1 << layout.field("DIS_ICACHE").wr_dis | 1 << 22)
    store.program(store.data.blocks[0], layout.field("DIS_ICACHE").mask | 1 << 80)
    store.program(store.data.blocks[3], 1)
    state = store.read()
    assert state.value_of("DIS_ICACHE") == 0
    assert state.value_of("WDT_DELAY_SEL") == 1
    assert state.blocks[3] == 0


def test_a_reed_solomon_block_refuses_a_second_burn() -> None:
    store = VirtualStore("esp32c3")
    store.program(store.data.blocks[3], 1)
    with pytest.raises(DeviceError) as caught:
        store.program(store.data.blocks[3], 2)
    assert caught.value.code == "efuse-second-burn"
    assert store.burned[3] == 1
