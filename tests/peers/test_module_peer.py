"""The module esptool of espwire-compat against esptool 5.6.0's own: the same constants, and calls of the same form.

esptool's is asked in a process of its own environment, as everything of esptool's.
"""

from __future__ import annotations

import inspect
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

PLAIN = (bool, int, str, type(None), dict, list)
# of a chip that esptool knows by the loader's answer, the word is not used, and espwire's data has none
UNUSED = {"MAGIC_VALUE"}
OTHER = {"ESP_CMDS"}  # compared on its own
# where espwire's data have another value, of the chip's own manual: esptool inherits these from another chip
OWN_FACTS = {
    "UART_DATE_REG_ADDR": {"esp32s2", "esp32s3", "esp32c6", "esp32c61", "esp32c5", "esp32h2"},
    "UART_CLKDIV_REG": {"esp32p4", "esp32s31"},
    "IROM_MAP_END": {"esp32s2", "esp32c6", "esp32c61", "esp32h2"},
    "DROM_MAP_START": {"esp32c6", "esp32c61", "esp32h2"},
    "DROM_MAP_END": {"esp32s2", "esp32c61"},
    "FLASH_SIZES": {"esp8266"},  # 4MB-c2, which esptool 1 to 3 had
    "UF2_FAMILY_ID": {"esp32e22"},  # has none of its own yet
}
ASK = """
import inspect, json
import esptool, esptool.cmds, esptool.loader
from esptool.targets import CHIP_DEFS
plain = (bool, int, str, type(None), dict, list)
def constants(rom):
    return {name: getattr(rom, name) for name in dir(rom) if name.isupper() and isinstance(getattr(rom, name), plain)}
def form(function):
    parameters = inspect.signature(function).parameters.values()
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
def forms(holder):
    return {n: form(f) for n, f in inspect.getmembers(holder, callable) if not n.startswith("_") and not inspect.isclass(f)}
rom = esptool.ESP32ROM
print(json.dumps({
    "constants": {chip: constants(rom) for chip, rom in CHIP_DEFS.items()},
    "commands": dict(esptool.loader.ESPLoader.ESP_CMDS),
    "methods": forms(rom),
    "functions": forms(esptool.cmds),
    "list": esptool.CHIP_LIST,
    "sizes": esptool.cmds.DETECTED_FLASH_SIZES,
}))
"""


@pytest.fixture(scope="module")
def theirs(esptool: str) -> dict[str, Any]:
    python = next(path for path in Path(esptool).parent.glob("python*") if path.stem == "python")
    done = subprocess.run(
        [python, "-c", ASK], capture_output=True, text=True, check=True, timeout=120
    )
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def ours() -> Any:
    return pytest.importorskip("esptool")


def test_the_chips_have_the_same_constants(theirs: dict[str, Any], ours: Any) -> None:
    assert theirs["list"] == ours.CHIP_LIST
    wrong, compared = [], 0
    for chip, constants in theirs["constants"].items():
        rom = ours.CHIP_DEFS[chip]
        for name, value in constants.items():
            if (
                name in OTHER
                or (name in UNUSED and not constants["USES_MAGIC_VALUE"])
                or not hasattr(rom, name)
            ):
                continue
            mine = json.loads(json.dumps(getattr(rom, name)))
            compared += 1
            if mine != value and chip not in OWN_FACTS.get(name, ()):
                wrong.append((chip, name, mine, value))
    assert not wrong
    assert compared > 35 * len(theirs["list"])


def test_commands_and_flash_sizes_have_the_same_numbers(theirs: dict[str, Any], ours: Any) -> None:
    for name, number in theirs["commands"].items():
        assert ours.ESPLoader.ESP_CMDS.get(name, number) == number, name
    mine = {str(code): size for code, size in ours.cmds.DETECTED_FLASH_SIZES.items()}
    assert {code: theirs["sizes"][code] for code in mine.keys() & theirs["sizes"].keys()} == mine


@pytest.mark.parametrize("holder", ["methods", "functions"])
def test_calls_take_the_same_arguments_by_place_and_name(
    holder: str, theirs: dict[str, Any], ours: Any
) -> None:
    mine = ours.ESP32ROM if holder == "methods" else ours.cmds
    wrong, compared = [], 0
    for name, parameters in theirs[holder].items():
        function = getattr(mine, name, None)
        if parameters == ["self"] or function is None or parameters in (["args", "kwargs"], []):
            continue
        kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
        names = [p.name for p in inspect.signature(function).parameters.values() if p.kind in kinds]
        compared += 1
        if names[: len(parameters)] != parameters:
            wrong.append((name, names, parameters))
    assert not wrong
    assert compared >= 20
