"""The eFuses of a new chip need its TOML file only: a made-up chip with other fields, purposes and a danger of its own."""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from espwire.chips import data_tables, fuse_tables
from espwire.chips.index import NAMES
from espwire.cli.main import main
from espwire.efuse.store import open_file
from espwire.efuse.tables import fuse_chip_ids, load_fuses

DATA = Path(data_tables.__file__).parent / "data" / "efuses"
DANGER = """
[[danger]]
name = "efuse-usb-boot"
all_set = ["NEW_FLAG", "DIS_TWAI"]
text = "NEW_FLAG and DIS_TWAI together keep this chip from starting"

"""


@pytest.fixture
def chip(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """An ESP32-X1: like an ESP32-C3, with a renamed field, another number for a purpose, and a danger."""
    text = (DATA / "esp32c3.toml").read_text("utf-8").replace("ESP32-C3", "ESP32-X1")
    text = text.replace('id = "esp32c3"', 'id = "esp32x1"').replace('"DIS_ICACHE"', '"NEW_FLAG"')
    text = text.replace('"XTS_AES_128_KEY", value = 4', '"XTS_AES_128_KEY", value = 13')
    text = text.replace("[[table]]", f"{DANGER}[[table]]", 1)
    module = ModuleType("espwire.chips.fuse_tables.esp32x1")
    vars(module)["TABLE"] = tomllib.loads(text)
    del vars(module)["TABLE"]["schema"]
    facts = data_tables.esp32c3()
    monkeypatch.setattr(data_tables, "esp32x1", lambda: facts | {"name": "ESP32-X1"}, raising=False)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(NAMES, "esp32x1", "ESP32-X1")
    monkeypatch.setattr(fuse_tables, "CHIPS", (*fuse_tables.CHIPS, "esp32x1"))
    monkeypatch.chdir(tmp_path)
    fuse_chip_ids.cache_clear()
    yield "esp32x1"
    fuse_chip_ids.cache_clear()
    load_fuses.cache_clear()


def test_a_made_up_chip_is_read_planned_refused_and_burned(
    chip: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "key").write_bytes(bytes(range(1, 33)))
    words = ["efuse", "-c", "ESP32-X1", "--path-efuse-file", "fuses", "--do-not-confirm"]
    assert main([*words, "burn-key", "BLOCK_KEY0", "key", "XTS_AES_128_KEY"]) == 0
    assert main([*words, "burn-efuse", "SPI_BOOT_CRYPT_CNT", "1"]) == 0
    assert main([*words, "burn-efuse", "NEW_FLAG", "1", "DIS_TWAI", "1"]) == 8
    assert "NEW_FLAG and DIS_TWAI together" in capsys.readouterr().err
    assert main([*words, "burn-bit", "BLOCK0", "40"]) == 0
    state = open_file("fuses", chip).read()
    names = ("NEW_FLAG", "KEY_PURPOSE_0", "RD_DIS", "DIS_TWAI")
    assert [state.value_of(name) for name in names] == [1, 13, 1, 0]
    capsys.readouterr()
    assert main([*words, "summary", "--format", "json", "KEY_PURPOSE_0"]) == 0
    assert json.loads(capsys.readouterr().out)["KEY_PURPOSE_0"]["value"] == "XTS_AES_128_KEY"
    assert main([*words, "dump", "--format", "token"]) == 0
    assert capsys.readouterr().out.startswith("EFSR:esp32x1:000:")
