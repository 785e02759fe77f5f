"""A client of a virtual chip that uploads programs and sends sealed frames to our stub, without device code."""

from __future__ import annotations

from tests.stub_drivers.frames import opened, sent

from espwire.protocol import slip
from espwire.protocol.commands import MemBegin, MemData, MemEnd, SpiAttach, Sync, parse_reply
from espwire.protocol.stub import HELLO, ReadAck, WriteData, parse_report
from espwire.virtual.transport import VirtualTransport, open_virtual

FRAME = 2048


class RawHost:
    """``link`` and ``chip`` are open to tests. Every wait is bounded in simulated time."""

    def __init__(self, url: str, *, attach: bool = True) -> None:
        self.transport: VirtualTransport = open_virtual(url)
        self.chip = self.transport.chip
        self.decoder = slip.Decoder()
        self.frames: list[bytes] = []
        self.sealed = False
        self.send(Sync().packet())
        for _ in range(8):
            self.answer(Sync.op)
        if attach and self.chip.chip.rom.attach_bytes:
            self.ask(SpiAttach(*[0] * (self.chip.chip.rom.attach_bytes // 4)))

    @property
    def program(self):
        """The program on the engine."""
        assert self.chip.program is not None, self.chip.runner.ended
        return self.chip.program

    def send(self, packet: bytes) -> None:
        self.transport.write(
            slip.encode(sent(packet) if self.sealed else packet), self.transport.now() + 1000
        )

    def frame(self, timeout: float = 3.0) -> bytes:
        end = self.transport.now() + timeout
        while not self.frames:
            assert self.transport.now() < end, (
                f"no answer; {self.chip.state}, {self.chip.runner.ended}"
            )
            self.frames += self.decoder.feed(self.transport.read(end - self.transport.now()))
        return opened(self.frames.pop(0)) if self.sealed else self.frames.pop(0)

    def answer(self, op: int, timeout: float = 3.0):
        while True:
            reply = parse_reply(self.frame(timeout))
            if reply is not None and reply.op == op:
                return reply

    def ask(self, command, timeout: float = 3.0):
        self.send(command.packet())
        return self.answer(command.op, timeout)

    def text(self, seconds: float) -> bytes:
        out, end = b"", self.transport.now() + seconds
        while self.transport.now() < end:
            out += self.transport.read(end - self.transport.now())
        return out

    def run(self, entry: int, *segments: tuple[int, bytes]) -> None:
        """Upload a program and start it."""
        for address, data in segments:
            blocks = [data[at : at + 0x1800] for at in range(0, len(data), 0x1800)]
            self.ask(MemBegin(len(data), len(blocks), 0x1800, address))
            for number, block in enumerate(blocks):
                reply = self.ask(MemData(number, block))
                assert not reply.body[0], reply
        self.ask(MemEnd(0, entry))

    def run_stub(self, baud: int = 115200) -> None:
        """Our own stub, as the package has it."""
        from espwire.device.stub_image import StubOptions, load_stub

        chip = self.chip.chip
        options = StubOptions(baud=baud, spi_clock=chip.stub.own.spi_clocks.direct)
        image = load_stub(chip.id).with_options(options)
        self.run(image.entry, *image.segments)
        self.sealed = True
        assert self.frame() == HELLO

    def write(self, offset: int, data: bytes, open_command) -> None:
        """A deflated or raw write, with credits."""
        credit = self.ask(open_command).value
        sent, in_flash = 0, 0
        while in_flash < open_command.size:
            while sent < len(data) and sent + min(FRAME, len(data) - sent) <= credit:
                self.send(WriteData(sent, data[sent : sent + FRAME]).packet())
                sent += len(data[sent : sent + FRAME])
            report = parse_report(self.answer(0xF2, 20.0))
            assert report is not None
            assert report.status == 0, report
            credit, in_flash = report.credit_end, report.in_flash

    def read(self, command) -> bytes:
        """A streamed read."""
        reply = self.ask(command)
        assert not reply.body[-2]
        out = b""
        while len(out) < command.size:
            reply = self.answer(0xF3)
            body = reply.body[:-2]
            expected = min(command.packet_size, command.size - len(out))
            body = body or b"\xff" * expected
            assert reply.value == len(out)
            out += body
            self.send(ReadAck(len(out)).packet())
        return out
