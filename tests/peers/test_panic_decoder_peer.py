"""Crashes decoded by espwire, and by esp-idf-panic-decoder, which idf.py monitor uses, with Debian's addr2line and GDB."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from tests.crash_firmware import FOLDER, run_crash
from tests.unit.monitor.test_crash import decode, make_xtensa_panic

from espwire.symbols.symbol_set import SymbolSet

PEER = os.environ.get("ESPWIRE_PEER_MONITOR", "")
SCRIPT = Path(__file__).with_name("panic_decoder.py")
TOOLS = {"esp32c3": "riscv64-unknown-elf-addr2line"}
FRAME = re.compile(r"^#\d+ +(?:0x([0-9a-f]{8}) in )?(\w+) \(.*\) at (\S+):(\d+)$", re.MULTILINE)

pytestmark = [
    pytest.mark.skipif(
        not PEER and not os.environ.get("ESPWIRE_REQUIRE_PEERS"),
        reason="set ESPWIRE_PEER_MONITOR to the Python of esp-idf-panic-decoder (`make peer-monitor`)",
    ),
    pytest.mark.skipif(
        shutil.which("gdb-multiarch") is None, reason="there is no gdb-multiarch on this machine"
    ),
]


def run_peer(folder: Path, name: str, log: bytes) -> tuple[dict[str, list[list[object]]], str]:
    """The peer's places of each address, and its backtrace."""
    wrappers = {
        "addr2line": f'exec {TOOLS.get(name, "xtensa-lx106-elf-addr2line")} "$@"',
        "gdb": 'exec gdb-multiarch -iex "set architecture riscv:rv32" "$@"',
    }
    for tool, line in wrappers.items():
        (folder / f"peer-{tool}").write_text(f"#!/bin/sh\n{line}\n")
        (folder / f"peer-{tool}").chmod(0o755)
    (folder / "log").write_bytes(log)
    done = subprocess.run(
        [PEER, str(SCRIPT), "peer-", str(FOLDER / f"{name}.elf"), str(folder / "log")],
        env=os.environ | {"PATH": f"{folder}{os.pathsep}{os.environ['PATH']}"},
        capture_output=True,
        check=True,
    )
    found = json.loads(done.stdout)
    return found["addresses"], found["trace"]


def make_log(name: str, kind: int) -> bytes:
    return (
        run_crash(name, kind)
        if name in ("esp32c3", "esp8266")
        else make_xtensa_panic(name).encode()
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [("esp32c3", 0), ("esp32c3", 1), ("esp8266", 0), ("esp8266", 1), ("esp32", 0), ("esp32s3", 0)],
)
def test_the_same_function_file_and_line(tmp_path: Path, name: str, kind: int) -> None:
    log = make_log(name, kind)
    addresses, trace = run_peer(tmp_path, name, log)
    symbols = SymbolSet([str(FOLDER / f"{name}.elf")])
    assert len(addresses) >= 1
    for address, places in addresses.items():
        if places[0][1] in ("??", "?"):
            continue
        ours = [[at.function, at.file, at.line] for at in symbols.resolve(int(address, 16))]
        assert ours == places, address
    notes = decode(log.decode(), name)
    if name != "esp32c3":
        return
    theirs = [
        (function, os.path.basename(file), int(line))
        for _, function, file, line in FRAME.findall(trace)
    ]
    ours_trace = [
        (hit[1], hit[2], int(hit[3]))
        for note in notes[notes.index("backtrace:") + 1 :]
        if (hit := re.search(r"(\w+) at /firmware/(\S+):(\d+)$", note))
    ]
    assert len(theirs) >= 5
    assert ours_trace == theirs
