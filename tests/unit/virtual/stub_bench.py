"""A stub in a virtual chip's RAM and the host's end of its wire, in simulated time: for models and the engine.

``start`` puts the packed image into RAM and jumps to it; ``StubBench`` sends frames and collects replies with their
times. The same list of frames through two benches must give the same replies and the same flash.
"""

import hashlib
import struct
import zlib

from tests.stub_drivers.frames import open_checked, opened, sent

from espwire.device.stub_image import StubOptions, load_stub
from espwire.protocol import slip
from espwire.protocol.commands import HEADER
from espwire.protocol.opcodes import Op
from espwire.protocol.packed import codes_body
from espwire.protocol.stub import READ_CHECKED, READ_PACKED, READ_SHORT_BLANKS, ReadOpen, StubOp
from espwire.virtual.build import build_chip
from espwire.virtual.config import VirtualOptions
from espwire.virtual.transport import VirtualTransport

QUIET_S = 0.6  # silence after which the stub is waiting for a request
PAYLOAD = 2048


def request(op, body=b"", check=0):
    return HEADER.pack(0, op, len(body), check) + body


def words(op, *values):
    return request(op, struct.pack(f"<{len(values)}I", *values))


def data_frame(position, payload):
    return sent(request(StubOp.WRITE_DATA, position.to_bytes(4, "little") + payload))


class StubBench:
    """``replies`` are (time, frame); ``now`` is the host's clock.

    Frames are sealed when sent and unsealed when received, until ``unseal``.
    """

    sealed = True

    def __init__(self, transport):
        self.transport, self.chip = transport, transport.chip
        self._decoder = slip.Decoder()
        self._queue = []

    @property
    def now(self):
        return self.transport.now()

    def collect(self, quiet=QUIET_S):
        found = []
        while data := self.transport.read(quiet):
            found += [(self.now, self._open(frame)) for frame in self._decoder.feed(data)]
        return found

    def _open(self, frame):
        return opened(frame) if self.sealed else frame

    def unseal(self):
        """From now on, act as a vendor's tool."""
        self.sealed = False
        assert len(self.send(request(Op.SYNC, bytes(36)), quiet=0.05)) == 8

    def send(self, *frames, quiet=QUIET_S):
        """Send frames at once; returns all replies until it is quiet."""
        self.post(*frames)
        return [frame for _, frame in self.collect(quiet)]

    def post(self, *frames):
        for frame in frames:
            self.transport.write(slip.encode(sent(frame) if self.sealed else frame), float("inf"))

    def ask(self, frame, timeout=200.0):
        """Send a request and return its reply."""
        self.post(frame)
        return self.next(timeout)

    def next(self, timeout=200.0):
        while not self._queue:
            data = self.transport.read(timeout)
            assert data, "no answer from the stub"
            self._queue += self._decoder.feed(data)
        return self._open(self._queue.pop(0))

    def write(self, offset, data, *, packed=True, flags=0):
        """A complete write with credits; returns its duration in seconds."""
        stream = zlib.compress(data, 9) if packed else data
        start = self.now
        reply = self.ask(
            words(StubOp.WRITE_OPEN, offset, len(data), len(stream), int(packed), flags, 7)
        )
        assert reply[-2:] == b"\0\0", reply
        sent, credit = 0, int.from_bytes(reply[4:8], "little")
        while True:
            while sent < min(len(stream), credit):
                self.post(data_frame(sent, stream[sent : sent + PAYLOAD]))
                sent += PAYLOAD
            report = self.next()
            credit, in_flash = struct.unpack_from("<II", report, 8)
            assert report[-2:] == b"\0\0", report
            if in_flash == len(data):
                return self.now - start

    def read(self, offset, size, packet=4096, window=65536, flags=1):
        """A complete read; returns data and duration in seconds."""
        start, out = self.now, bytearray()
        assert (
            self.ask(words(StubOp.READ_OPEN, offset, size, packet, window, flags))[-2:] == b"\0\0"
        )
        while len(out) < size:
            frame = self.next()
            out += frame[8:-2] or b"\xff" * min(packet, size - len(out))
            self.post(words(StubOp.READ_ACK, len(out), 0))
        return bytes(out), self.now - start

    def read_checked(self, offset, size, packet=4096, *, packed=True):
        """A complete checked read; returns data and duration in seconds."""
        start, found = self.now, b""
        flags = READ_SHORT_BLANKS | READ_CHECKED | READ_PACKED * packed
        codes = codes_body() if packed else b""
        opening = ReadOpen(offset, size, packet, 65536, flags, codes)
        assert self.ask(opening.packet())[-2:] == b"\0\0"
        while len(found) < size:
            expected = min(packet, size - len(found))
            position, data = open_checked(self.next(), expected, found)
            assert position == len(found)
            found += data
            self.post(words(StubOp.READ_ACK, len(found), 0))
        digest = open_checked(self.next(), 16, b"")
        assert digest == (size, hashlib.md5(found, usedforsecurity=False).digest())
        self.post(words(StubOp.READ_ACK, size + 16, 0))
        return found, self.now - start


def start(
    chip_id, stub, *, baud=115200, flash=b"", batch=b"", watchdogs=False, preset=None, **options
):
    """A bench, after the hello and at ``baud``. ``watchdogs``: they run when the stub starts; ``preset``: eFuse words."""
    transport = VirtualTransport(
        build_chip(VirtualOptions(chip=chip_id, stub=stub, latency=0.0, **options))
    )
    chip = transport.chip
    chip.flash.contents[: len(flash)] = flash
    chip.registers.preset.update(preset or {})
    told = StubOptions(
        baud=115200,
        over_usb=transport.info.kind == "usb-jtag",
        spi_clock=chip.chip.stub.own.spi_clocks.direct,
        batch=batch,
    )
    image = load_stub(chip_id).for_revision(chip.config.revision).with_options(told)
    for address, content in image.segments:
        chip.registers.ram.write(address, content)
    chip.registers.attached = True
    power = chip.registers.power
    power._done = len(power._steps)  # the host switches it on before it uses the flash
    chip.flash.powered = power.on
    chip._set_baud(115200)
    transport.sleep(0.01)
    if watchdogs:
        chip.registers.watchdogs.restart(transport.now(), running=True)
    chip.run(image.entry)
    bench = StubBench(transport)
    assert bench.next() == b"OHAI"
    if baud != 115200:
        assert bench.ask(words(0x0F, baud, 115200))[-2:] == b"\0\0"
        transport.sleep(0.05)
        transport.set_baud(baud)
    return bench
