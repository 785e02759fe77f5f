"""make-image against esptool 2.8 and 3.3.3, the last versions that had it: same files, same names, same bytes."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections import Counter
from pathlib import Path

import pytest

from espwire.cli.main import main

DRIVE = Path(__file__).with_name("drive.py")
CALLS = 100
PEERS = {"2.8": "ESPWIRE_PEER_2_8", "3.3.3": "ESPWIRE_PEER_3_3_3"}
RAM = (0x40100000, 0x3FFE8000, 0x3FFF0000, 0x40106000)


def calls(folder: Path) -> list[list[str]]:
    """Command lines: segments in RAM that do not overlap, now and then a mapped one, spelled in several ways."""
    chance, made = random.Random(28), []
    for number in range(CALLS):
        words: list[str] = []
        places = chance.sample(RAM, chance.randint(1, 4))
        if chance.random() < 0.4:
            places.insert(
                chance.randint(0, len(places)), 0x40200000 + chance.randrange(0x1000, 0xF0000, 16)
            )
        if chance.random() < 0.1:
            places.append(0)
        for index, place in enumerate(places):
            (folder / f"{number}-{index}").write_bytes(
                chance.randbytes(chance.choice((0, 1, 4, 17, 900, 0x1000)))
            )
            address = hex(place) if chance.random() < 0.8 else str(place)
            file = f"{number}-{index}"
            words += chance.choice(
                (
                    ["-f", file, "-a", address],
                    ["--segaddr", address, "--segfile", file],
                    [f"-f{file}", f"-a{address}"],
                )
            )
        if chance.random() < 0.6:
            words += [chance.choice(("-e", "--entrypoint", "--entry")), hex(chance.choice(places))]
        if chance.random() < 0.1:
            words += ["-a", "0x40107000"]  # one address more than files: both refuse
        made.append(["make_image", *words, f"out{number}.bin"])
    return made


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.glob("out*")}


@pytest.mark.parametrize("version", PEERS)
def test_a_hundred_calls_make_the_same_files(version, tmp_path, monkeypatch, capsys):
    program = os.environ.get(PEERS[version])
    if not program:
        pytest.skip(f"needs esptool {version} from PyPI: set {PEERS[version]} to its executable")
    monkeypatch.chdir(tmp_path)
    lines = calls(tmp_path)
    with subprocess.Popen(
        [Path(program).with_name("python"), DRIVE, program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as peer:
        said, _ = peer.communicate("".join(json.dumps(words) + "\n" for words in lines))
    codes = [json.loads(line)[0] for line in said.splitlines()]
    theirs = files_of(tmp_path)
    for name in theirs:
        (tmp_path / name).unlink()
    counts: Counter[str] = Counter()
    for words, code in zip(lines, codes, strict=True):
        ours = main(["--silent", *words])
        assert (ours == 0) == (code == 0), words
        counts["equal" if code == 0 else "both refuse"] += 1
    capsys.readouterr()
    assert files_of(tmp_path) == theirs
    assert counts["equal"] >= 80
    print(f"make-image against {version}: {dict(counts)}, {len(theirs)} files")
