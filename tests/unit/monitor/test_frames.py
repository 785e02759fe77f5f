"""Core dumps, frames of defmt, and GDB stubs in the output."""

from __future__ import annotations

import base64
import hashlib
import zlib
from typing import Any

import pytest

from espwire.monitor.console import FILE, IDLE_CALLS, Console
from espwire.monitor.core_dump import CoreDump
from espwire.monitor.frames import LONGEST_FRAME, DefmtFrames

START = b"================= CORE DUMP START =================\r\n"
END = b"================= CORE DUMP END ===================\r\n"


def make_dump(size: int = 2000, *, sha: bool = False) -> bytes:
    """As ESP-IDF makes one: length, content, checksum."""
    total = size + (32 if sha else 4)
    body = total.to_bytes(4, "little") + bytes(n % 251 for n in range(size - 4))
    end = hashlib.sha256(body).digest() if sha else zlib.crc32(body).to_bytes(4, "little")
    return body + end


def print_dump(data: bytes) -> bytes:
    lines = [base64.b64encode(data[at : at + 48]) for at in range(0, len(data), 48)]
    return START + b"".join(line + b"\r\n" for line in lines) + END


class Saver:
    def __init__(self) -> None:
        self.dumps: list[CoreDump] = []

    def __call__(self, dump: CoreDump) -> str:
        self.dumps.append(dump)
        return f"saved {len(dump.data)} bytes"


@pytest.mark.parametrize("sha", [False, True])
@pytest.mark.parametrize("size", [7, 100000])
def test_a_core_dump_is_saved_and_not_shown(screen: Any, sha: bool, size: int) -> None:
    saver, dump = Saver(), make_dump(sha=sha)
    console = Console(screen, passes=FILE, save_dump=saver)
    text = b"before\r\n" + print_dump(dump) + b"after\r\n"
    for at in range(0, len(text), size):
        console.feed(text[at : at + size])
    assert saver.dumps == [CoreDump(dump, "")]
    assert (
        screen.urgent == ["receiving a core dump; its lines are not shown", "saved 2004 bytes"]
        or sha
    )
    shown = [line for line in screen.text.splitlines() if not line.startswith("<")]
    assert shown == ["before", START.decode().strip(), "after"]


def test_a_pause_inside_a_line_of_a_dump_changes_nothing(screen: Any) -> None:
    saver, dump = Saver(), make_dump()
    console = Console(screen, save_dump=saver)
    text = print_dump(dump)
    for at in range(0, len(text), 333):
        console.feed(text[at : at + 333])
        for _ in range(3 * IDLE_CALLS):
            console.idle()
    assert saver.dumps == [CoreDump(dump, "")]


def test_a_dump_that_is_cut_is_saved_with_the_reason(screen: Any) -> None:
    saver, dump = Saver(), make_dump()
    console = Console(screen, save_dump=saver)
    console.feed(print_dump(dump)[:1000])
    console.cut()
    assert saver.dumps[0].problem == "the output ends before it does"
    assert dump.startswith(saver.dumps[0].data)
    assert len(saver.dumps[0].data) > 600
    console.feed(b"I am back\r\n")
    assert "I am back" in screen.text


@pytest.mark.parametrize(
    ("text", "problem", "shown"),
    [
        (b"ESP-ROM:esp32c3-api1-20210207\r\n", "the chip was reset before its end", True),
        (b"ets Jul 29 2019 12:21:46\r\n", "the chip was reset before its end", True),
        (b"=== CORE DUMP START ===\r\n", "another one begins before its end", False),
    ],
)
def test_a_reset_ends_a_dump(screen: Any, text: bytes, problem: str, shown: bool) -> None:
    saver, dump = Saver(), make_dump()
    console = Console(screen, save_dump=saver)
    lines = print_dump(dump).splitlines(keepends=True)
    console.feed(b"".join(lines[:9]) + text + b"what comes after it\r\n")
    assert [found.problem for found in saver.dumps] == [problem]
    assert ("what comes after it" in screen.text) == shown


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (lambda text: text.replace(b"AQID", b"AQIE", 1), "its checksum does not match"),
        (lambda text: text[:200] + text[266:], "1,956 bytes, but its header says 2,004"),
        (lambda text: text[:100] + b"\xff" + text[101:], "1 lines are not base64"),
    ],
)
def test_damage_is_told(screen: Any, damage: Any, problem: str) -> None:
    saver = Saver()
    text = damage(print_dump(make_dump()))
    Console(screen, save_dump=saver).feed(text)
    assert [dump.problem for dump in saver.dumps] == [problem]


@pytest.mark.parametrize("size", [1, 3, 1000])
def test_frames_of_defmt_are_left_out_and_told_once(screen: Any, size: int) -> None:
    console = Console(screen, passes=FILE)
    text = b"hello\r\n\xff\x00\x12\x34abc\x00\xff\x00\x01\x00world\r\n\xff\x00\x02\x00"
    for at in range(0, len(text), size):
        console.feed(text[at : at + size])
    assert "".join(line for line in screen.text.splitlines() if "<" not in line) == "helloworld"
    assert len(screen.notes) == 1
    assert "espflash" in screen.notes[0]


def test_a_panic_inside_a_frame_is_shown(screen: Any) -> None:
    console = Console(screen, passes=FILE)
    console.feed(b"x\r\n\xff\x00\x12\x34!! A panic occurred in main.rs\r\n")
    for _ in range(IDLE_CALLS):
        console.idle()
    assert "!! A panic occurred in main.rs\n" in screen.text


def test_a_long_frame_is_none(screen: Any) -> None:
    frames = DefmtFrames()
    data = b"\xff\x00" + b"x" * LONGEST_FRAME
    assert frames.feed(data) == data
    assert frames.count == 0
    assert frames.feed(b"y\xff\x00z\x00") == b"y\xff\x00z\x00"  # in the middle of a line


def test_a_gdb_stub_is_noticed_once(screen: Any) -> None:
    console = Console(screen)
    console.feed(b"Entering gdb stub now.\r\n$T0b#e6\r\n")
    assert [note for note in screen.notes if "GDB" in note] == [
        "the program has stopped in its GDB stub: Ctrl-T Ctrl-G starts GDB"
    ]
    assert console.stub_waits
