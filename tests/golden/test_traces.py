"""Recorded traffic of real mask ROMs (traces/README.md): our codec reads it, and our virtual ROM says the same."""

import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pytest

from espwire.protocol import slip
from espwire.protocol.commands import parse_command, parse_reply, parse_request
from espwire.virtual.build import build_chip, build_config
from espwire.virtual.chip import VirtualChip
from espwire.virtual.config import VirtualOptions

TRACES = Path(__file__).parent / "traces"
NAMES = sorted(path.name for path in TRACES.glob("*.jsonl"))

# Requests that are not whole requests on purpose: (file, frame, reason). Their bytes must still go through the ROM.
NOT_REQUESTS = [
    ("esp32-probe-errors.jsonl", 28, "the size field lies"),
    ("esp32c3-probe-errors.jsonl", 28, "the size field lies"),
    ("esp32-probe-noise.jsonl", 6, "text, empty frames, half an escape"),
    ("esp32c3-probe-noise.jsonl", 6, "text, empty frames, half an escape"),
    ("esp32-probe-noise.jsonl", 10, "a cut frame"),
    ("esp32c3-probe-noise.jsonl", 10, "a cut frame"),
    ("esp32-probe-noise.jsonl", 11, "ends the cut frame of 10"),
    ("esp32c3-probe-noise.jsonl", 11, "ends the cut frame of 10"),
]
# Answers that the virtual ROM does not give byte by byte: (file, frame, how many bytes must be equal, reason)
NOT_EQUAL = [
    (
        "esp32c3-probe-short-body.jsonl",
        7,
        60,
        "panic text: registers and stack of a CPU that is not emulated",
    ),
    (
        "esp32c3-probe-flash-end.jsonl",
        15,
        99,
        "panic text: registers and stack of a CPU that is not emulated",
    ),
    ("esp32c3-rom-write-mem.jsonl", 21, 27, "the recording ends in the middle of the panic text"),
]


@dataclass(frozen=True)
class Frame:
    t: float
    host: bool
    data: bytes


@cache
def read_trace(name: str) -> tuple[Frame, ...]:
    rows = [json.loads(line) for line in (TRACES / name).read_text().splitlines()]
    return tuple(Frame(row["t"], row["dir"] == "host", bytes.fromhex(row["hex"])) for row in rows)


def build_recorded_chip(name: str) -> VirtualChip:
    """The part in the recording: revision, straps and clock of the emulator it ran in; 4 MB of blank GigaDevice flash
    without SFDP. No content is needed: all that is read back was written before, or blank."""
    common = {"vendor": "gigadevice", "sfdp": False, "profile": "instant"}
    if name.startswith("esp32c3"):
        return build_chip(VirtualOptions(chip="esp32c3", revision=3, strap=0x2, **common))
    options = VirtualOptions(chip="esp32", revision=300, strap=0xF, fields={"package": 0}, **common)
    return build_chip(options, replace(build_config(options), divider=346))


def test_the_recordings_are_here():
    assert len(NAMES) == 38


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_request_parses_and_re_encodes_byte_equal(name):
    skipped = {frame for file, frame, _ in NOT_REQUESTS if file == name}
    for number, frame in enumerate(read_trace(name)):
        if not frame.host or number in skipped:
            continue
        rebuilt = b""
        for content in slip.Decoder().feed(frame.data):
            request = parse_request(content)
            assert request is not None, number
            assert request.packet() == content, number
            command = parse_command(request)
            if command is not None:
                # a wrong checksum is part of some recordings: only then the typed form differs, and only there
                assert command.body() == request.body, number
                assert command.request().check == request.check or (
                    name.endswith("errors.jsonl") and number == 12
                )
            rebuilt += slip.encode(request.packet())
        assert rebuilt == frame.data, number


@pytest.mark.parametrize("name", NAMES)
def test_requests_that_are_typed_are_nearly_all(name):
    untyped = 0
    for frame in read_trace(name):
        for content in slip.Decoder().feed(frame.data) if frame.host else ():
            request = parse_request(content)
            untyped += request is not None and parse_command(request) is None
    assert untyped == {"errors": 1, "body": 3}.get(
        name.removesuffix(".jsonl").rpartition("-")[2], 0
    )


@pytest.mark.parametrize("name", NAMES)
def test_every_recorded_reply_decodes(name):
    decoder = slip.Decoder()
    decoded = 0
    for frame in read_trace(name):
        for content in decoder.feed(frame.data) if not frame.host else ():
            reply = parse_reply(content)
            if reply is None:  # boot or panic text, or the interpreter's echo
                assert b"\r\n" in content or content == b"\x04\x0c\xa0\xf5?"
                continue
            decoded += 1
            assert reply.packet() == content
            assert len(reply.body) >= 4
    assert decoded


@pytest.mark.parametrize("name", NAMES)
def test_the_virtual_rom_answers_with_the_recorded_bytes(name):
    chip = build_recorded_chip(name)
    loose = {frame: size for file, frame, size, _ in NOT_EQUAL if file == name}
    recorded, said = b"", b""

    def compare(number: int, *, whole: bool) -> None:
        """What was recorded so far was said; the chip may be a little ahead of the recording, not at its end."""
        assert said[: len(recorded)] == recorded, number
        assert not whole or said == recorded

    frames = read_trace(name)
    for number, frame in enumerate(frames):
        if frame.host:
            said += b"".join(data for _, data in chip.run_until(frame.t))
            compare(number, whole=False)
            chip.receive(frame.t, frame.data)
        elif number in loose:
            said += b"".join(data for _, data in chip.run_until(frame.t + 0.01))
            size = loose[number]
            assert said[len(recorded) :][:size] == frame.data[:size], number
            recorded = said
        else:
            recorded += frame.data
    said += b"".join(data for _, data in chip.run_until(frames[-1].t + 5))
    compare(len(frames), whole=True)
