"""eFuses of a connected chip: the same burns as on a file of eFuses, and burns that lose their supply."""

from __future__ import annotations

import base64
import contextlib
import io
import random
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import espwire
from espwire.cli.main import main
from espwire.efuse import burn as burning
from espwire.efuse.check import find_errors
from espwire.efuse.plan import BurnPlan, plan_burn
from espwire.efuse.planner import Planner
from espwire.efuse.requests import request_bits, request_data, request_fields
from espwire.efuse.store import VirtualStore, open_file
from espwire.efuse.tables import fuse_chip_ids
from espwire.efuse.wire import DeviceStore
from espwire.errors import DeviceError, ToolError
from espwire.protocol.commands import RegWrite

sys.path.insert(0, str(Path(__file__).parents[1] / "peers"))
from efuse_lines import ALLOW_ALL, LineGenerator

KEY = bytes(range(0x61, 0x81))


def run(*words: str) -> tuple[int, str]:
    """Exit code, and what is printed."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        code = main([*words])
    return code, out.getvalue() + errors.getvalue()


def connect(chip: str, options: str = "", *, stub: bool = True) -> espwire.Device:
    return espwire.connect(f"virtual:{chip}?profile=instant{options}", stub=stub)


@pytest.mark.parametrize("count", [12, pytest.param(500, marks=pytest.mark.soak)])
@pytest.mark.parametrize("chip", fuse_chip_ids())
def test_random_lines_burn_the_same_bits_over_the_wire(
    tmp_path: Path, chip: str, count: int
) -> None:
    wire, file = tmp_path / "wire", tmp_path / "file"
    generator = LineGenerator(chip, tmp_path, seed=count)
    burned, closed = 0, False
    for index in range(count):
        if index % 4 == 0 or closed:  # a new chip
            wire.unlink(missing_ok=True)
            connect(chip, f"&efuse={wire}", stub=False).close()
            file.write_bytes(wire.read_bytes())
        line = generator.build_line()
        ours = run(
            "efuse",
            "-c",
            chip,
            "--path-efuse-file",
            str(file),
            "--do-not-confirm",
            *ALLOW_ALL,
            *line,
        )
        loader = ["--no-stub"] if index % 2 else []
        port = f"virtual:{chip}?profile=instant&efuse={wire}"
        theirs = run(*loader, "-p", port, "efuse", "--do-not-confirm", *ALLOW_ALL, *line)
        if loader and not ours[0] and "[efuse-not-proven]" in theirs[1]:
            assert theirs[0] == 5  # the ROM in Secure Download Mode cannot read what was burned
        else:
            assert theirs[0] == ours[0], (line, theirs, ours)
        assert open_file(str(wire), chip).burned == open_file(str(file), chip).burned, line
        burned += not ours[0]
        closed = bool(open_file(str(wire), chip).read().value_of("ENABLE_SECURITY_DOWNLOAD"))
    assert burned


def plan_sample(store: DeviceStore | VirtualStore, flags: list[str]) -> BurnPlan:
    """A burn of a key block, another block and block 0."""
    planner = Planner(store.read())
    keys = [block for block in store.data.blocks if block.rd_dis]
    last = keys[0]
    size = planner.before.size(last) // 8
    request_data(planner, last.name, KEY[:size])
    if last.id != 3:
        request_bits(planner, store.data.blocks[3].name, [1, 9, 17, 60])
    request_fields(planner, [(name, "1") for name in flags])
    planner.lock_read(last.rd_dis, last.name)
    planner.lock_write(last.wr_dis, last.name)
    return plan_burn(planner)


def choose_flags(store: DeviceStore) -> list[str]:
    """Two fields of block 0 that are not set."""
    state = store.read()
    flags = [
        field.name
        for field in state.layout.fields
        if field.block == 0 and field.kind == "flag" and field.category in ("config", "jtag")
        if not state.raw(field)
    ]
    return flags[:2]


@pytest.mark.parametrize("seeds", [range(14), pytest.param(range(200), marks=pytest.mark.soak)])
def test_a_burn_without_supply_is_finished_by_the_same_plan_or_reported(
    tmp_path: Path, seeds: range
) -> None:
    finished = interrupted = 0
    codes: Counter[str] = Counter()
    for seed in seeds:
        chip = fuse_chip_ids()[seed % len(fuse_chip_ids())]
        path = tmp_path / f"{seed}"
        with connect(chip, f"&efuse={path}") as device:
            flags = choose_flags(DeviceStore(device))
            wanted = plan_sample(DeviceStore(device), flags)
        for step in range(1, len(wanted.steps) + 1):
            path.unlink()
            connect(chip, f"&efuse={path}", stub=False).close()
            try:
                with connect(
                    chip, f"&efuse={path}&fault=burn@{step}&seed={seed}", stub=bool(seed % 2)
                ) as device:
                    store = DeviceStore(device)
                    burning.burn(plan_sample(store, flags), store)
            except ToolError:
                interrupted += 1
            done = open_file(str(path), chip)
            # bits that no plan named are never burned, and later steps wait for earlier ones
            assert all(
                not have & ~want for have, want in zip(done.burned, wanted.after, strict=True)
            )
            if done.read().value_of("RD_DIS"):
                assert done.burned[1:] == list(wanted.after[1:])
            with connect(chip, f"&efuse={path}") as device:
                store = DeviceStore(device)
                try:
                    burning.burn(plan_sample(store, flags), store)
                except DeviceError as error:
                    codes[error.code] += 1
                    continue
            final = open_file(str(path), chip)
            assert final.burned == list(wanted.after), (chip, seed, step)
            finished += 1
    print(f"{interrupted} interrupted, {finished} finished later, {dict(codes)} reported")
    assert interrupted >= len(seeds)
    # hidden or locked before the rest of the step was burned
    assert set(codes) <= {"efuse-unreadable", "efuse-locked"}


def test_injected_coding_errors_are_reported_and_burned_again_where_possible(
    tmp_path: Path,
) -> None:
    path = tmp_path / "fuses"
    store = VirtualStore("esp32c6", path=str(path))
    for block in (4, 5):
        store.program(store.data.blocks[block], int.from_bytes(KEY, "little"))
    port = f"virtual:esp32c6?profile=instant&efuse={path}"
    code, text = run("-p", port + "&efuse-errors=4:2,5:9", "efuse", "check-error")
    assert code == 5
    assert "BLOCK4: 2 wrong bits" in text
    assert "BLOCK5: 7 wrong bits, which the coding cannot correct" in text
    code, text = run("-p", port, "efuse", "check-error", "--recovery")
    assert code == 5
    assert "BLOCK4" not in text
    assert "BLOCK5" in text
    assert [error.block for error in find_errors(open_file(str(path), "esp32c6").read())] == [5]


def find_spellings(key: bytes, text: str) -> list[str]:
    """How key bytes appear in a text: whole, reversed, by words, hex, decimal, base64, as a Python or JSON list."""
    found = set()
    for data in (key, key[::-1], b"".join(key[i : i + 4][::-1] for i in range(0, len(key), 4))):
        for at in range(0, len(data), 4):
            word = data[at : at + 4]
            found |= {word.hex(), word.hex(" "), str(int.from_bytes(word, "little"))}
            found |= {", ".join(map(str, word)), ",".join(map(str, word)), repr(word)[2:-1]}
        for at in range(len(data) - 9):  # any alignment
            found |= {base64.b64encode(data[at : at + 9]).decode()}
            found |= {base64.urlsafe_b64encode(data[at : at + 9]).decode()}
        found.add(str(int.from_bytes(data, "big")))
    low = text.lower()
    return sorted(each for each in found if each.lower() in low)


def collect_files(folder: Path) -> str:
    """All text below a folder."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return "\n".join(path.read_text("latin-1") for path in paths)


def test_the_search_for_key_bytes_finds_them() -> None:
    words = [KEY[at : at + 4] for at in range(0, len(KEY), 4)]
    for text in (
        KEY.hex(),
        KEY[::-1].hex(" "),
        str([int.from_bytes(word, "little") for word in words]),
        f"x{base64.b64encode(b'..' + KEY).decode()}",
        str(list(KEY)),
        "0x" + words[3][::-1].hex().upper(),
    ):
        assert find_spellings(KEY, text)
    assert not find_spellings(KEY, collect_files(Path(__file__).parent / "no-such-folder"))


@pytest.mark.parametrize("stub", [["--no-stub"], []])
@pytest.mark.parametrize("purpose", ["USER", "XTS_AES_128_KEY"])
def test_a_key_is_in_no_trace_and_no_packet(tmp_path: Path, stub: list[str], purpose: str) -> None:
    key = tmp_path / "key"
    key.write_bytes(KEY)
    line = ["efuse", "--do-not-confirm", "burn-key", "BLOCK_KEY0", str(key), purpose]
    for more in (["--trace"], ["--trace", "--json"]):
        code, text = run(*more, *stub, "-p", "virtual:esp32c3?profile=instant", *line)
        assert code == 0, text
        assert "WRITE_REG" in text
        assert find_spellings(KEY, text) == []


@pytest.mark.parametrize("stub", [["--no-stub"], []])
@pytest.mark.parametrize("fault", ["burn@1", "burn@2", "bug"])
def test_a_key_is_in_no_file_that_a_failure_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stub: list[str], fault: str
) -> None:
    state = tmp_path / "state"
    monkeypatch.setattr("espwire.cli.state.find_state_file", lambda: state / "boards.json")
    (tmp_path / "key").write_bytes(KEY)
    port = "virtual:esp32c3?profile=instant"
    if fault == "bug":

        def fail(store: DeviceStore, number: int) -> None:
            raise ValueError("injected")

        monkeypatch.setattr(DeviceStore, "_burn", fail)
    else:
        port += f"&fault={fault}"
    line = ["efuse", "--do-not-confirm", "burn-key", "BLOCK_KEY0", str(tmp_path / "key"), "USER"]
    code, text = run("--trace", *stub, "-p", port, *line)
    assert code not in (0, 2), text
    files = collect_files(state)
    assert "WRITE_REG" in files
    assert find_spellings(KEY, text + files) == []


def test_without_the_protection_the_key_is_in_the_trace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("espwire.device.loader.Loader.confidential", contextlib.nullcontext)
    (tmp_path / "key").write_bytes(KEY)
    line = ["efuse", "--do-not-confirm", "burn-key", "BLOCK_KEY0", str(tmp_path / "key"), "USER"]
    code, text = run("--trace", "-p", "virtual:esp32c3?profile=instant", *line)
    assert code == 0
    assert find_spellings(KEY, text)


def test_a_chip_in_secure_download_mode_is_refused() -> None:
    code, text = run("-p", "virtual:esp32c3?secure-download=1", "efuse", "summary")
    assert code == 5
    assert "Secure Download Mode" in text
    code, text = run("-p", "virtual:esp8266", "efuse", "summary")
    assert code == 2
    assert "no eFuses that can be burned" in text


CLOSE = ["efuse", "--do-not-confirm", "burn-efuse", "ENABLE_SECURITY_DOWNLOAD", "1"]


def test_secure_download_mode_proves_its_own_burn_where_registers_cannot_be_read() -> None:
    code, text = run("--no-stub", "-p", "virtual:esp32c3?profile=instant", *CLOSE)
    assert code == 0, text
    assert "the chip reports Secure Download Mode" in text


def test_a_lock_in_the_burn_that_ends_reading_is_not_claimed() -> None:
    line = [*CLOSE, "write-protect-efuse", "ENABLE_SECURITY_DOWNLOAD"]
    assert run("-p", "virtual:esp32c3?profile=instant", *line)[0] == 0  # the stub can read it
    code, text = run("--no-stub", "-p", "virtual:esp32c3?profile=instant", *line)
    assert code == 5
    assert "not proven: WR_DIS" in text


@pytest.mark.parametrize("stub", [["--no-stub"], []])
@pytest.mark.parametrize("name", ["ENABLE_SECURITY_DOWNLOAD", "DIS_DOWNLOAD_MODE"])
def test_a_burn_that_closes_download_mode_and_fails_is_an_error(
    tmp_path: Path, stub: list[str], name: str
) -> None:
    path = tmp_path / "fuses"
    port = f"virtual:esp32c3?efuse={path}&fault=burn@1&seed=2&profile=instant"
    code, text = run(*stub, "-p", port, *CLOSE[:3], name, "1")
    assert code, text
    assert open_file(str(path), "esp32c3").read().value_of(name) == 0


@pytest.mark.parametrize("burn", [2, 3, 4])
def test_locks_are_proven_before_download_mode_is_closed(tmp_path: Path, burn: int) -> None:
    path, key = tmp_path / "fuses", tmp_path / "key"
    key.write_bytes(KEY)
    port = f"virtual:esp32c3?efuse={path}&fault=burn@{burn}&seed=3&profile=instant"
    line = ["burn-key", "BLOCK_KEY0", str(key), "XTS_AES_128_KEY"]
    code, text = run("-p", port, *CLOSE, *line)
    state = open_file(str(path), "esp32c3").read()
    closed = state.value_of("ENABLE_SECURITY_DOWNLOAD")
    assert code or closed, text
    assert not closed or state.value_of("RD_DIS") == 1


def test_the_file_of_a_virtual_chip_is_that_of_the_virtual_store(tmp_path: Path) -> None:
    path = tmp_path / "fuses"
    port = f"virtual:esp32c6?profile=instant&efuse={path}&mac=24:0A:C4:12:34:56&revision=0.2"
    assert run("-p", port, "efuse", "--do-not-confirm", "burn-efuse", "WDT_DELAY_SEL", "2")[0] == 0
    over_wire = run("-p", f"virtual:esp32c6?efuse={path}", "efuse", "summary", "--format", "json")
    from_file = run(
        *("efuse", "-c", "esp32c6", "--path-efuse-file", str(path)), "summary", "--format", "json"
    )
    assert over_wire[0] == from_file[0] == 0
    assert "24:0a:c4:12:34:56" in from_file[1]
    assert (
        over_wire[1][over_wire[1].index("{") : over_wire[1].rindex("}")]
        == (from_file[1][from_file[1].index("{") : from_file[1].rindex("}")])
    )


# each rule of the controller, without the checks of the client


def weak_store(chip: str, options: str = "") -> tuple[DeviceStore, VirtualStore]:
    """A store over the wire, and the eFuses behind it."""
    device = connect(chip, options)
    store = DeviceStore(device)
    registers = device.transport.chip.registers  # type: ignore[attr-defined]
    return store, registers.fuses.controller.store


def test_the_controller_never_clears_a_bit() -> None:
    store, fuses = weak_store("esp32c3")
    store.program(store.data.blocks[0], 0b1010 << 64)
    before = fuses.burned[0]
    store.program(store.data.blocks[0], 0b0101 << 64)
    assert fuses.burned[0] == before | 0b0101 << 64


@pytest.mark.parametrize(("chip", "block"), [("esp32c3", 4), ("esp32", 1)])
def test_the_controller_keeps_locked_blocks(chip: str, block: int) -> None:
    store, fuses = weak_store(chip)
    place = store.data.blocks[block]
    assert place.wr_dis is not None
    store.program(store.data.blocks[0], 1 << place.wr_dis)
    store.program(place, 0xFF)
    assert fuses.burned[block] == 0


def test_the_controller_keeps_locked_fields_of_block_0() -> None:
    store, fuses = weak_store("esp32c3")
    field = store.read().layout.field("DIS_ICACHE")
    assert field.wr_dis is not None
    store.program(store.data.blocks[0], 1 << field.wr_dis)
    store.program(store.data.blocks[0], field.mask)
    assert not fuses.burned[0] & field.mask


def test_a_second_burn_of_coded_data_is_refused_and_would_break_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, fuses = weak_store("esp32c3")
    store.program(store.data.blocks[4], 0xF0)
    with pytest.raises(DeviceError, match="only once"):
        store.program(store.data.blocks[4], 0xFF)
    monkeypatch.setattr("espwire.efuse.wire.require_unused", lambda *_: None)
    store.program(store.data.blocks[4], 0xFF << 64)
    assert fuses.burned[4] == 0xF0 | 0xFF << 64
    assert find_errors(store.read())[0].failed


def test_a_second_burn_of_a_chunk_with_the_3_4_scheme_would_break_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store, fuses = weak_store("esp32", "&coding_scheme=1")
    store.program(store.data.blocks[3], 0xF0)
    monkeypatch.setattr("espwire.efuse.wire.require_unused", lambda *_: None)
    store.program(store.data.blocks[3], 0xFF << 48)  # another chunk
    assert fuses.burned[3] == 0xF0 | 0xFF << 48
    assert find_errors(store.read()) == []
    store.program(store.data.blocks[3], 0x0F)
    assert [(error.block, error.failed) for error in find_errors(store.read())] == [(3, True)]


def test_the_controller_burns_nothing_with_a_wrong_timing(monkeypatch: pytest.MonkeyPatch) -> None:
    for chip in ("esp32", "esp32s2", "esp32c2", "esp32c6"):
        store, fuses = weak_store(chip)
        monkeypatch.setattr("espwire.efuse.wire.find_timing", lambda *_: {})
        store.program(store.data.blocks[3], 0xFF)
        assert fuses.burned[3] == 0
        monkeypatch.undo()


def test_the_controller_reports_data_without_its_coding(monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = weak_store("esp32c3")
    monkeypatch.setattr("espwire.efuse.wire.encode", lambda data, _: data)
    store.program(store.data.blocks[4], (1 << 256) - 1)
    assert [(error.block, error.failed) for error in find_errors(store.read())] == [(4, True)]


def test_the_controller_needs_its_opcodes() -> None:
    store, fuses = weak_store("esp32c3")
    registers = store.data.controller.registers
    clear: Callable[[], None] = store._clear
    loader = store.loader
    clear()
    from espwire.protocol.commands import RegWrite

    for address, (value, _) in timing_of(store).items():
        loader.write_regs(RegWrite(address, value))
    loader.write_regs(RegWrite(registers["program_data"], 0xFF))
    loader.write_regs(RegWrite(registers["command"], 2 | 3 << 2))
    store._wait()
    assert fuses.burned[3] == 0
    loader.write_regs(RegWrite(registers["config"], 0x5A5A))
    loader.write_regs(RegWrite(registers["command"], 2 | 0 << 2))
    store._wait()
    assert fuses.burned[0] & 0xFF == 0xFF
    # software reads the old words until the controller has loaded the new ones
    assert loader.read_reg(store.data.blocks[0].read) == 0
    loader.write_regs(RegWrite(registers["config"], 0x5AA5))
    loader.write_regs(RegWrite(registers["command"], 1))
    store._wait()
    assert loader.read_reg(store.data.blocks[0].read) & 0xFF == 0xFF


def timing_of(store: DeviceStore) -> dict[int, tuple[int, int]]:
    from espwire.efuse.timing import find_timing

    return find_timing(store.data, 40)


def test_timing_registers() -> None:
    from espwire.efuse.tables import load_fuses
    from espwire.efuse.timing import find_timing

    assert find_timing(load_fuses("esp32"), 26) == {
        0x3FF5A0F8: (250 | 255 << 8, 0xFFFF),
        0x3FF5A118: (52, 0xFF),
    }
    assert find_timing(load_fuses("esp32c2"), 26)[0x60008910] == (130 << 8, 0xFF00)
    assert find_timing(load_fuses("esp32c6"), 40) == {
        0x600B09F4: (0x190, 0xFFFF),
        0x600B09F0: (0x3000 << 8, 0xFFFF00),
        0x600B09E8: (40 | 255 << 9, 0xFF | 0xFF << 9),
    }
    assert find_timing(load_fuses("esp32p4"), 40) == {}
    with pytest.raises(ToolError, match="crystal of 26 MHz"):
        find_timing(load_fuses("esp32c3"), 26)


def test_hidden_words_read_as_zeros_and_stay_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "fuses"
    with connect("esp32c3", f"&efuse={path}") as device:
        store = DeviceStore(device)
        store.program(store.data.blocks[4], 0x1234)
        store.program(store.data.blocks[0], 1 << 32)  # RD_DIS, bit 0
        assert store.read().blocks[4] == 0
        assert device.read_mem(store.data.blocks[4].read).value == 0
    assert open_file(str(path), "esp32c3").burned[4] == 0x1234
    assert path.stat().st_mode & 0o777 == 0o600


def test_noise_does_not_burn_wrong_bits(tmp_path: Path) -> None:
    done = 0
    for seed in range(6):
        path = tmp_path / f"{seed}"
        dice = random.Random(seed)
        want = dice.getrandbits(256)
        with connect("esp32c3", f"&efuse={path}&fault=flip:2e-4&seed={seed}") as device:
            store = DeviceStore(device)
            with contextlib.suppress(ToolError):
                store.program(store.data.blocks[4], want)
                done += 1
        assert open_file(str(path), "esp32c3").burned[4] in (0, want)
    assert done


def read_port(path: Path, more: str = "") -> str:
    return f"virtual:esp32c3?profile=instant&efuse={path}{more}"


def burn_bits(port: str, *bits: int, block: str = "BLOCK3") -> tuple[int, str]:
    return run("-p", port, "efuse", "--do-not-confirm", "burn-bit", block, *map(str, bits))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("scheme", ["reed_solomon", "three_quarter"])
def test_the_same_command_completes_a_coded_block_whose_burn_was_cut_short(
    tmp_path: Path, scheme: str, seed: int
) -> None:
    chip = "esp32c3" if scheme == "reed_solomon" else "esp32"
    path = tmp_path / "fuses"
    port = f"virtual:{chip}?profile=instant&efuse={path}"
    port += "&coding_scheme=1" if chip == "esp32" else ""
    assert burn_bits(f"{port}&fault=burn@1&seed={seed}", 5)[0]
    code, text = burn_bits(port, 5)
    assert code == 0, text
    store = open_file(str(path), chip)
    assert (store.burned[3], find_errors(store.read())) == (1 << 5, [])


def test_a_coding_error_that_stays_is_not_a_success(tmp_path: Path) -> None:
    path = tmp_path / "fuses"
    assert burn_bits(read_port(path), 5, 77)[0] == 0
    store = open_file(str(path), "esp32c3")
    store.set_error(store.data.blocks[3], 9)
    code, text = burn_bits(read_port(path), 5)  # not all of the bits that it holds
    assert (code, "[efuse-second-burn]" in text) == (5, True)
    code, text = burn_bits(read_port(path), 5, 77)
    assert (code, find_errors(open_file(str(path), "esp32c3").read())) == (0, []), text


def test_an_error_that_the_coding_corrects_does_not_open_a_block(tmp_path: Path) -> None:
    path = tmp_path / "fuses"
    assert burn_bits(read_port(path), 5)[0] == 0
    code, text = burn_bits(read_port(path, "&efuse-errors=3:2"), 5, 77)
    assert (code, "[efuse-second-burn]" in text) == (5, True)
    code, text = burn_bits(read_port(path, "&efuse-errors=3:2"), 5)
    assert (code, "BURN BLOCK3" in text) == (0, True), text
    assert open_file(str(path), "esp32c3").burned[3] == 1 << 5


def test_an_error_of_another_3_4_block_does_not_open_a_chunk(tmp_path: Path) -> None:
    path = tmp_path / "fuses"
    port = f"virtual:esp32?profile=instant&efuse={path}&coding_scheme=1"
    assert burn_bits(port, 3)[0] == 0
    assert burn_bits(f"{port}&efuse-errors=1:2", 3, 4)[0] == 5
    assert burn_bits(f"{port}&efuse-errors=1:2", 5, block="BLOCK2")[0] == 0
    assert open_file(str(path), "esp32").burned[2:] == [1 << 5, 1 << 3]


def test_another_chip_after_the_plan_is_noticed() -> None:
    store, fuses = weak_store("esp32c3")
    plan = plan_sample(store, [])
    device = store.device
    fuses.burned[1] ^= 0x1234  # another MAC address
    device.transport.chip.registers.fuses.controller.load()  # type: ignore[attr-defined]
    with pytest.raises(DeviceError) as caught:
        burning.burn(plan, store)
    assert caught.value.code == "efuse-changed"
    assert fuses.burned[4] == 0


def test_a_burn_of_another_block_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    store, fuses = weak_store("esp32c3")
    planner = Planner(store.read())
    request_bits(planner, "BLOCK3", [5])
    plan = plan_burn(planner)
    command = DeviceStore._command

    def damage(store: DeviceStore, value: int, delay_us: int = 0) -> None:
        if value & 3 == 2:  # two flipped bits, which the check before cannot see
            store._write([RegWrite(store.data.controller.registers["command"], 7 << 2)])
            value = 7 << 2 | 2
        command(store, value, delay_us)

    monkeypatch.setattr(DeviceStore, "_command", damage)
    with pytest.raises(DeviceError) as caught:
        burning.burn(plan, store)
    assert caught.value.code == "efuse-unplanned"
    assert "1 in BLOCK_KEY3" in str(caught.value)
    assert (fuses.burned[3], fuses.burned[7]) == (0, 1 << 5)


@pytest.mark.parametrize("half", ["value", "mask"])
def test_one_flipped_bit_in_the_command_burns_no_other_block(
    monkeypatch: pytest.MonkeyPatch, half: str
) -> None:
    """Each bit of the value and of the mask, in the request to a ROM bootloader, which has no checksum."""
    store, fuses = weak_store("esp32c3", "")
    address = store.data.controller.registers["command"]
    write_regs = store.loader.write_regs
    flipped = [0]

    def damage(*writes: RegWrite) -> object:
        first = writes[0]
        if first.address == address and first.value & 3 == 2:
            first = replace(first, **{half: getattr(first, half) ^ flipped[0]})
            return write_regs(first, *writes[1:])
        return write_regs(*writes)

    monkeypatch.setattr(store.loader, "write_regs", damage)
    for bit in range(32):
        flipped[0] = 1 << bit
        before = list(fuses.burned)
        store.program(store.data.blocks[6], 0x20)
        after = list(fuses.burned)
        assert after[:6] + after[7:] == before[:6] + before[7:], bit
        fuses.burned[6] = 0
    assert fuses.burned[3] == 0
