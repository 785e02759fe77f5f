"""One flipped bit of a ROM's request or answer: it is noticed, asked for again, or reported; never believed."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from espwire.blob import Blob
from espwire.chips.registry import chip_ids, load_chip
from espwire.cli.main import main
from espwire.device.connect import connect
from espwire.errors import DeviceError, VerifyError
from espwire.events import Event, Note, Warned
from espwire.flash import write as executing
from espwire.flash.erase import erase_flash, erase_region
from espwire.flash.findings import Policy
from espwire.flash.load_ram import dump_mem
from espwire.flash.verify import has_content, verify_flash
from espwire.flash.write import write_flash
from espwire.protocol import slip
from espwire.protocol.opcodes import Op
from espwire.transport.url import open_transport
from espwire.virtual.faults import Faults, FaultSpec

MIB = 0x100000


class OneBit(Faults):
    """Flips a bit of the nth frame with ``op`` in one direction: bit ``bit`` of what comes after SLIP."""

    def __init__(self, op: int, bit: int, *, to_chip: bool, number: int = 0) -> None:
        super().__init__(FaultSpec())
        self.op, self.bit, self.to_chip, self.number = op, bit, to_chip, number
        self.done = 0
        self._decoders = {True: slip.Decoder(), False: slip.Decoder()}

    def piece(self, t: float, data: bytes, *, to_chip: bool) -> tuple[float, bytes]:
        if to_chip is not self.to_chip:
            return 0.0, data
        out = b""
        for frame in data.split(b"\xc0\xc0"):
            (content,) = self._decoders[to_chip].feed(b"\xc0" + frame.strip(b"\xc0") + b"\xc0") or (
                b"",
            )
            if content[:2] == bytes((not to_chip, self.op)) and self.done >= 0:
                if self.number == 0:
                    changed = bytearray(content)
                    changed[self.bit // 8] ^= 1 << self.bit % 8
                    content, self.done, self.number = bytes(changed), self.done + 1, -1
                else:
                    self.number -= 1
            out += slip.encode(content)
        return 0.0, out if out else data


def open_rom(chip: str, fault: OneBit | None, query: str = "", events: list[Event] | None = None):
    """A device whose flash is full of noise; the fault strikes from the connection on."""
    transport = open_transport(f"virtual:{chip}?size=1MB&profile=instant{query}")
    transport.chip.flash.contents[:] = random.Random(7).randbytes(MIB)
    if fault is not None:
        transport.chip.faults = fault
    return connect(
        transport, report=events.append if events is not None else lambda event: None, stub=False
    ), transport


def attempt(work: Callable[..., object], *arguments: object, **more: object) -> VerifyError | None:
    """Why it failed to verify, if it did."""
    try:
        work(*arguments, **more)
    except VerifyError as error:
        return error
    return None


def answer_bit(at: int) -> int:
    """Bit ``at`` of an answer's value word."""
    return 8 * 4 + at


REGISTER_BITS = (0, 13, 21)


@pytest.mark.parametrize("chip", ["esp8266", "esp32", "esp32s2", "esp32c3", "esp32s31"])
@pytest.mark.parametrize("number", range(0, 15, 3))
def test_the_chip_is_what_it_is(chip, number):
    """MAC, revision, package and crystal come of words that two answers agree on."""
    right, _ = open_rom(chip, None)
    for bit in REGISTER_BITS:
        fault = OneBit(Op.READ_REG, answer_bit(bit), to_chip=False, number=number)
        device, _ = open_rom(chip, fault)
        for name in ("mac", "revision", "description", "features", "crystal_mhz", "security"):
            assert getattr(device, name) == getattr(right, name), (name, bit)
        assert device.chip.id == chip


@pytest.mark.parametrize("chip", ["esp32c3", "esp32c6", "esp32s2", "esp32p4"])
def test_a_flipped_bit_of_the_security_info_makes_no_other_chip(chip):
    right, _ = open_rom(chip, None)
    size = load_chip(chip).identity.security_info_bytes
    for bit in range(0, 8 * size, 9):
        for number in (0, 1):
            device, _ = open_rom(
                chip, OneBit(Op.GET_SECURITY_INFO, 64 + bit, to_chip=False, number=number)
            )
            assert (device.chip.id, device.security) == (chip, right.security), bit


@pytest.mark.parametrize("chip", ["esp8266", "esp32", "esp32s3"])
def test_the_flash_is_as_large_as_it_is(chip):
    """One bit of the JEDEC id is the difference between 1 MB and 4 MB, 2 MB or 512 KB."""
    for bit in (17, 0):
        device, transport = open_rom(chip, None)
        for number in range(10):
            transport.chip.faults = OneBit(
                Op.READ_REG, answer_bit(bit), to_chip=False, number=number
            )
            info = device.attach_flash()
            assert (info.jedec, info.size, info.assumed) == (0x1440EF, MIB, False), (bit, number)


def test_erase_flash_erases_all_of_it():
    device, transport = open_rom("esp32s3", None)
    transport.chip.faults = OneBit(Op.READ_REG, answer_bit(17), to_chip=False, number=5)
    assert erase_flash(device, policy=Policy(force=True)) == MIB
    assert transport.chip.flash.contents == b"\xff" * MIB


def test_dump_mem_brings_what_is_there():
    device, transport = open_rom("esp32c3", None)
    address, data = 0x3FC90000, random.Random(5).randbytes(0x200)
    transport.chip.registers.ram.write(address, data)
    for number in (0, 3, 64, 130):
        fault = transport.chip.faults = OneBit(
            Op.READ_REG, answer_bit(11), to_chip=False, number=number
        )
        assert dump_mem(device, address, len(data)).data == data
        assert fault.done == 1


def test_dump_mem_warns_of_words_that_change_between_reads(monkeypatch):
    events: list[Event] = []
    device, transport = open_rom("esp32c3", None)
    read, count = transport.chip.registers.read, iter(range(1000))
    timer = 0x3FC90008
    monkeypatch.setattr(
        transport.chip.registers,
        "read",
        lambda t, address: next(count) if address == timer else read(t, address),
    )
    dump_mem(device, timer - 8, 16, report=events.append)
    (warned,) = [event for event in events if isinstance(event, Warned)]
    assert warned.code == "memory-changes"
    assert warned.text == "1 words change between reads, the first at 0x3fc90008"


def begin_bit(word: int, bit: int) -> int:
    """A bit of a BEGIN's words: 0 is the size, 3 the offset."""
    return 8 * 8 + 32 * word + bit


@pytest.mark.parametrize("chip", ["esp32", "esp32c3", "esp32s3"])
@pytest.mark.parametrize("compress", [None, False])
@pytest.mark.parametrize(("word", "bits"), [(0, range(12, 19)), (3, range(12, 19))])
def test_a_write_that_erases_elsewhere_stops_with_exit_7(chip, compress, word, bits):
    for bit in bits:
        device, transport = open_rom(chip, None)
        device.attach_flash()
        before = bytes(transport.chip.flash.contents)
        plain = compress is False or not device.loader.dialect.can_inflate
        op = Op.FLASH_BEGIN if plain else Op.FLASH_DEFL_BEGIN
        fault = transport.chip.faults = OneBit(op, begin_bit(word, bit), to_chip=True)
        part = Blob(0x21000, bytes(range(256)) * 40, "app.bin")  # 10 KiB, three sectors
        error = attempt(write_flash, device, [part], policy=Policy(compress=compress, force=True))
        if error is not None:
            assert (error.exit_code, error.code) == (7, "wrong-erase")
            assert error.details["requested"] == [0x21000, 0x24000]
            assert "other sectors may have been erased" in str(error)
        else:  # a BEGIN that was refused, and came again
            after = bytes(transport.chip.flash.contents)
            assert (after[:0x21000], after[0x24000:]) == (before[:0x21000], before[0x24000:]), (
                word,
                bit,
            )
            assert after[0x21000:0x24000] == part.data.ljust(0x3000, b"\xff")
        assert fault.done == 1


@pytest.mark.parametrize("bit", range(12, 20))
@pytest.mark.parametrize("blank", [(0x20000, 0x28000), (0x21000, 0x24000)])
def test_data_that_arrives_elsewhere_is_not_hidden_by_a_second_write(bit, blank):
    """The range was blank before, so the erase shows nothing; the data does."""
    device, transport = open_rom("esp32s3", None)
    device.attach_flash()
    contents = transport.chip.flash.contents
    contents[blank[0] : blank[1]] = b"\xff" * (blank[1] - blank[0])
    before = bytes(contents)
    transport.chip.faults = OneBit(Op.FLASH_DEFL_BEGIN, begin_bit(3, bit), to_chip=True)
    data = random.Random(1).randbytes(0x2800)
    error = attempt(write_flash, device, [Blob(0x21000, data)], policy=Policy(force=True))
    if error is not None:
        assert error.code == "wrong-erase"
    else:
        assert bytes(contents[:0x21000]) == before[:0x21000]
        assert bytes(contents[0x24000:]) == before[0x24000:]
        assert bytes(contents[0x21000:0x24000]) == data.ljust(0x3000, b"\xff")


@pytest.mark.parametrize(("word", "bits"), [(0, range(12, 20)), (3, range(12, 20))])
@pytest.mark.parametrize("used", [True, False])
def test_an_erase_that_erases_elsewhere_stops_with_exit_7(word, bits, used):
    for bit in bits:
        device, transport = open_rom("esp32c6", None)
        device.attach_flash()
        contents = transport.chip.flash.contents
        if not used:
            contents[0x21000:0x24000] = b"\xff" * 0x3000
        before = bytes(contents)
        transport.chip.faults = OneBit(Op.FLASH_BEGIN, begin_bit(word, bit), to_chip=True)
        error = attempt(erase_region, device, 0x21000, 0x3000, policy=Policy(force=True))
        if error is not None:
            assert error.code in ("wrong-erase", "not-blank")
        else:
            assert bytes(contents) == before[:0x21000] + b"\xff" * 0x3000 + before[0x24000:], (
                word,
                bit,
            )


def test_what_is_blank_already_is_not_erased_again():
    events: list[Event] = []
    device, transport = open_rom("esp32c6", None)
    transport.chip.flash.contents[0x21000:0x24000] = b"\xff" * 0x3000
    erase_region(device, 0x21000, 0x3000, policy=Policy(force=True), report=events.append)
    assert [e.text for e in events if isinstance(e, Note)] == [
        "0x21000..0x24000 is already blank: nothing to erase"
    ]


def test_an_md5_of_another_place_is_not_taken_for_this_one():
    """The other slot holds what is looked for: one flipped bit of the request, and the answer is yes."""
    device, transport = open_rom("esp32s3", None)
    device.attach_flash()
    data = random.Random(3).randbytes(0x1000)
    transport.chip.flash.contents[0x50000:0x51000] = data
    bit = 8 * 8 + 18  # of the offset: 0x10000 becomes 0x50000
    transport.chip.faults = OneBit(Op.SPI_FLASH_MD5, bit, to_chip=True)
    assert not has_content(device, 0x10000, data)
    transport.chip.faults = OneBit(Op.SPI_FLASH_MD5, bit, to_chip=True)
    with pytest.raises(VerifyError):
        verify_flash(device, [Blob(0x10000, data)])
    transport.chip.faults = OneBit(Op.SPI_FLASH_MD5, bit, to_chip=True)
    write_flash(device, [Blob(0x10000, data)], policy=Policy(skip_flashed=True))
    assert transport.chip.flash.contents[0x10000:0x11000] == data


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("spoils", [1, 9])
@pytest.mark.parametrize(
    ("compress", "stub"), [(None, False), (False, False), (None, True), (False, True)]
)
def test_what_follows_in_the_last_sector_is_verified(monkeypatch, compress, stub, spoils, keep):
    """A byte behind the file's end that is wrong, blank or kept: written again, and an error if it stays."""
    device, transport = open_rom("esp32", None)
    if stub:
        device.use_stub()
    contents, spoiled = transport.chip.flash.contents, []
    old = bytes(contents[0x11F00:0x12000])
    real = executing._Run.write

    def write_and_spoil(run, step):
        real(run, step)
        if len(spoiled) < spoils:
            contents[step.blob[1] + 5] ^= 0x80
            spoiled.append(step.address)

    monkeypatch.setattr(executing._Run, "write", write_and_spoil)
    error = attempt(
        write_flash,
        device,
        [Blob(0x10000, b"\x11" * 0x1F00)],
        policy=Policy(compress=compress, keep=keep),
    )
    if spoils > 1:
        assert error is not None
        assert error.ranges[-1][1] == 0x12000
    else:
        assert error is None
        assert contents[0x10000:0x11F00] == b"\x11" * 0x1F00
        assert contents[0x11F00:0x12000] == (old if keep else b"\xff" * 0x100)


@pytest.mark.parametrize("damaged", [True, False])
def test_a_part_that_the_chip_has_not_encrypted_is_an_error(damaged):
    """The flag is the fifth word of BEGIN, which has no checksum."""
    device, transport = open_rom(
        "esp32c3", None, f"&flash-encryption=1&flash-key={bytes(range(32)).hex()}"
    )
    device.attach_flash()
    if damaged:
        transport.chip.faults = OneBit(Op.FLASH_BEGIN, begin_bit(4, 0), to_chip=True)
    part = Blob(0x10000, bytes(range(256)) * 8, "app.bin", encrypted=True)
    if not damaged:
        write_flash(device, [part], policy=Policy(force=True))
        assert transport.chip.flash.contents[0x10000:0x10800] != part.data
        return
    with pytest.raises(VerifyError) as caught:
        write_flash(device, [part], policy=Policy(force=True))
    assert (caught.value.exit_code, caught.value.code) == (7, "not-encrypted")


ERASE_CAPABLE = frozenset(
    {
        *(
            Op.FLASH_BEGIN,
            Op.FLASH_DATA,
            Op.FLASH_END,
            Op.FLASH_DEFL_BEGIN,
            Op.FLASH_DEFL_DATA,
            Op.FLASH_DEFL_END,
        ),
        *(Op.ERASE_FLASH, Op.ERASE_REGION),
    }
)
ERASING_SPI = frozenset(
    {0x06, 0x02, 0x12, 0x20, 0x21, 0x52, 0xD8, 0xDC, 0x60, 0xC7, 0x01, 0x31, 0x11, 0x50}
)
READ_ONLY: tuple[tuple[str, ...], ...] = (
    ("chip-info",),
    ("chip-id",),
    ("read-mac",),
    ("flash-id",),
    ("get-security-info",),
    ("secure", "status"),
    ("secure", "signature-info", "--at", "bootloader"),
    ("read-flash-status", "--bytes", "3"),
    ("read-flash-sfdp", "0", "4"),
    ("read-flash-sfdp", "--decode"),
    ("read-mem", "0x40001000"),
    ("dump-mem", "{ram}", "0x20", "{output}"),
    ("read-flash", "0x1000", "0x100", "{output}"),
    ("verify-flash", "0x1000", "{equal}"),
    ("partitions", "show"),
    ("partitions", "read", "{output}"),
    ("image", "map"),
    ("ota", "status"),
)


@pytest.mark.parametrize("chip", chip_ids())
def test_a_command_that_only_reads_sends_nothing_that_can_erase(
    chip, monkeypatch, tmp_path, capsys
):
    transport = open_transport(f"virtual:{chip}?size=1MB&profile=instant")
    contents = transport.chip.flash.contents
    contents[:] = random.Random(7).randbytes(MIB)
    (tmp_path / "equal").write_bytes(contents[0x1000:0x1100])
    memory = {region.name: region.start for region in load_chip(chip).memory.map}
    sent: list[tuple[int, ...]] = []
    decoder = slip.Decoder()
    write: Callable[[bytes, float], None] = transport.write

    def watch(data: bytes, deadline: float) -> None:
        sent.extend(frame[1] for frame in decoder.feed(data) if len(frame) > 1 and not frame[0])  # type: ignore[misc]
        write(data, deadline)

    ran: list[int] = []
    execute = transport.chip.flash.execute

    def watch_flash(t, opcode, **more):
        ran.append(opcode)
        return execute(t, opcode, **more)

    monkeypatch.setattr(transport, "write", watch)
    monkeypatch.setattr(transport.chip.flash, "execute", watch_flash)
    monkeypatch.setattr(transport, "close", lambda: None)
    monkeypatch.setattr(
        "espwire.transport.url.open_transport",
        lambda url, **more: (transport.set_baud(115200), transport)[1],
    )
    before, codes = bytes(contents), {}
    for words in READ_ONLY:
        for how in ((), ("--no-stub",)):
            names = {
                "ram": hex(memory["DRAM"] + 0x1000),
                "output": tmp_path / "out",
                "equal": tmp_path / "equal",
            }
            line = [word.format(**names) for word in words]
            codes[" ".join((*how, *words))] = main(
                ["--no-state", "-p", "virtual:watched", *how, *line]
            )
    assert not ERASE_CAPABLE.intersection(sent)
    assert not ERASING_SPI.intersection(ran)
    assert contents == before
    assert {code for line, code in codes.items() if "flash-id" in line or "chip-info" in line} == {
        0
    }
    assert 70 not in codes.values()
    assert codes["dump-mem {ram} 0x20 {output}"] == 0


@pytest.mark.parametrize("work", ["write", "erase"])
def test_after_a_stub_that_failed_what_cannot_be_verified_needs_consent(work):
    events: list[Event] = []
    transport = open_transport("virtual:esp8266?size=1MB&profile=instant&stub=off")
    transport.chip.flash.contents[:] = bytes(MIB)
    device = connect(transport, stub=True, report=events.append)
    assert [event.code for event in events if isinstance(event, Warned)] == ["stub-failed"]

    def run(**policy):
        if work == "write":
            write_flash(device, [Blob(0x10000, b"data")], policy=Policy(**policy))
        else:
            erase_region(device, 0x10000, 0x1000, policy=Policy(**policy))

    with pytest.raises(VerifyError) as caught:
        run(force=True)
    assert (caught.value.exit_code, caught.value.code) == (7, "unverified")
    assert "--allow unverified" in caught.value.hint
    assert transport.chip.flash.contents == bytes(MIB), "nothing was changed"
    run(consents=frozenset({"unverified", "neighbours"}))
    assert transport.chip.flash.contents[0x10000:0x11000] == (
        b"data" if work == "write" else b""
    ).ljust(0x1000, b"\xff")


def test_without_a_stub_on_purpose_the_esp8266_is_written_as_ever(tmp_path, capsys):
    (tmp_path / "app").write_bytes(b"data")
    url, words = (
        "virtual:esp8266?profile=instant&stub=off",
        ["write-flash", "0x10000", str(tmp_path / "app")],
    )
    assert main(["-p", url, "--no-stub", *words]) == 8  # the next sector is erased as well
    assert main(["-p", url, "--no-stub", *words, "--no-keep"]) == 0
    assert main(["-p", url, *words]) == 7
    assert main(["-p", url, *words, "--no-keep", "--allow", "unverified"]) == 0
    assert "[unverified]" in capsys.readouterr().err


def test_a_repeated_write_erases_no_more_than_the_first_one():
    # this ROM erases two sectors for one: a write of two sectors cannot be repeated from the second
    device, transport = open_rom("esp8266", None)
    with device:
        device.attach_flash()
        flash = transport.chip.flash.contents
        behind = bytes(flash[0x23000:0x24000])
        data = random.Random(3).randbytes(0x2000)
        # the status of the read of a register that proves the last block
        transport.chip.faults = fault = OneBit(Op.READ_REG, 64, to_chip=False)
        device.backend.write(0x21000, data)
        assert fault.done == 1
        assert flash[0x21000:0x23000] == data
        assert flash[0x23000:0x24000] == behind


@pytest.mark.parametrize("bit", [0, 7, 8 + 2])  # of the direction, and of the opcode
def test_a_request_for_security_information_that_is_refused_once_is_sent_again(bit):
    device, transport = open_rom("esp32c3", OneBit(Op.GET_SECURITY_INFO, bit, to_chip=True))
    with device:
        assert transport.chip.faults.done == 1
        assert device.security.flags == 0
        assert len(device.security.key_purposes) == 6


def test_a_flash_chip_in_power_down_is_woken():
    # one flipped bit makes power-down, B9h, of reset, 99h; an application can leave the chip so, too
    device, transport = open_rom("esp32", None)
    with device:
        transport.chip.flash.execute(transport.now(), 0xB9)
        assert device.attach_flash().size == MIB


def test_ram_that_a_lost_piece_of_the_stub_may_have_overwritten_is_not_dumped():
    # bit 8 of the address of the first upload: the stub does not start, and is uploaded once more
    transport = open_transport("virtual:esp8266?size=1MB&profile=instant")
    transport.chip.faults = fault = OneBit(Op.MEM_BEGIN, 8 * (8 + 13), to_chip=True)
    with connect(transport, stub=True) as device:
        assert fault.done == 1
        assert device.loader.dialect.sealed
        with pytest.raises(DeviceError) as caught:
            dump_mem(device, 0x3FFE9000, 64)
        assert caught.value.code == "ram-overwritten"
        assert device.read_mem(0x3FF00050).value


def test_a_stub_that_began_behind_its_set_up_is_started_again():
    # bit 11 of the entry address: this stub answers, but has not connected the flash chip
    transport = open_transport("virtual:esp8266?size=1MB&profile=instant")
    transport.chip.faults = fault = OneBit(Op.MEM_END, 8 * (8 + 5) + 3, to_chip=True)
    with connect(transport, stub=True) as device:
        assert fault.done == 1
        assert device.attach_flash().size == MIB
