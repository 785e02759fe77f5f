"""The model of a ROM loader answers as the ROM itself does, whatever is sent to it (``rom_fuzz.py``).

What is not compared, and why:

* Replies before the flash is attached: the ROM connects the pads, which are not modelled, so its flash answers always.
* Data commands before a BEGIN: the ROM uses what its stack held. All sequences start after a BEGIN of each kind.
* The revision in the security information: a constant in the ROM. The model gets that of the ROM.
* The word at the magic address, if a chip has several: it belongs to the image of the ROM.
* The first SYNC after a restart: the ROM measures the baud rate of the sender with it and answers the next. The model, as the
  ROMs in the recorded emulator, which has no baud rate, answers the first.
* Several requests in one piece, if the ROM does not buffer them (``requests_ahead`` 1): how much is lost is a matter of time.
* Which of two errors, 0Bh or 0Ch, reports damaged compressed data: some tables of codes are wrong for zlib and not for the
  ROM's decoder, or the other way round. The ESP32 repeats it in later replies.
* Opcode 15h on the ESP32-S3: its ROM refuses it, but answers with this opcode; the model answers with the last one, as all
  ROMs do to opcodes that they do not have.
* Encrypted writes: the cipher of the chip is not modelled as a peripheral.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator

import pytest
from rom_fuzz import Difference, Pair, find_roms

from espwire.virtual import rom
from espwire.virtual.soc.mask_rom import load_mask_roms

pytestmark = pytest.mark.slow

CI_SEQUENCES, FULL_SEQUENCES, MOST_UNTIL_FOUND = 25, 1000, 500
SEED = int(os.environ.get("ESPWIRE_SEED", "0"))
ROMS = find_roms()
FAULTS_CHIP = "esp32c3"


@pytest.fixture(scope="module")
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    chip = getattr(request, "param", FAULTS_CHIP)
    if chip not in ROMS:
        pytest.skip(f"no image of the ROM of {chip} is beside this project")
    pair = Pair(chip, ROMS[chip])
    yield pair
    pair.close()


def find_differences(pair: Pair, count: int) -> list[Difference]:
    found = (pair.compare(seed) for seed in range(SEED, SEED + count))
    return [difference for difference in found if difference is not None]


def show(chip: str, differences: list[Difference]) -> str:
    lines = [f"python -m tests.scenario.rom_fuzz {chip} {one.seed}: {one}" for one in differences]
    return "\n".join(lines[:20])


@pytest.mark.parametrize("pair", load_mask_roms(), indirect=True)
def test_the_model_answers_as_the_rom(pair: Pair) -> None:
    differences = find_differences(pair, CI_SEQUENCES)
    assert not differences, show(pair.chip.id, differences)


@pytest.mark.soak
@pytest.mark.parametrize("pair", load_mask_roms(), indirect=True)
def test_the_model_answers_as_the_rom_in_many_sequences(pair: Pair) -> None:
    differences = find_differences(pair, FULL_SEQUENCES)
    assert not differences, show(pair.chip.id, differences)


def ignore_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    """FLASH_DATA and MEM_DATA: as if the checksum were always right."""

    class Any(int):
        def __ne__(self, other: object) -> bool:
            return False

    monkeypatch.setattr(rom, "checksum", lambda data: Any(0))


def answer_uppercase(monkeypatch: pytest.MonkeyPatch) -> None:
    """SPI_FLASH_MD5 with capital letters."""
    md5 = hashlib.md5

    class Upper:
        def __init__(self) -> None:
            self._digest = md5(usedforsecurity=False)
            self.update = self._digest.update

        def hexdigest(self) -> str:
            return self._digest.hexdigest().upper()

    monkeypatch.setattr(rom.hashlib, "md5", lambda usedforsecurity: Upper())


def accept_any_sequence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Data commands: as if the sequence number were always right."""
    take = rom.Rom._take_block

    def take_any(
        self: rom.Rom, transfer: rom.Transfer | None, *, words: bool = False
    ) -> tuple[rom.Transfer, bytes] | int:
        if transfer is not None:
            transfer.sequence = self._word(1)
        return take(self, transfer, words=words)

    monkeypatch.setattr(rom.Rom, "_take_block", take_any)


@pytest.mark.parametrize("plant", [ignore_checksum, answer_uppercase, accept_any_sequence])
def test_a_fault_of_the_model_is_found(pair: Pair, monkeypatch: pytest.MonkeyPatch, plant) -> None:
    plant(monkeypatch)
    seeds = range(MOST_UNTIL_FOUND)
    assert any(pair.compare(seed) is not None for seed in seeds)
