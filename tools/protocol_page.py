"""Render docs/protocol.md: the prose of protocol_page.md with tables from the commands and the chip data."""

from __future__ import annotations

import re
import tomllib
from dataclasses import fields
from pathlib import Path

TOOLS = Path(__file__).resolve().parent
PROTOCOL = TOOLS.parent / "src/espwire/chips/data/protocol.toml"
OWN_BODIES = {
    0xF3: "offset, size, packet_size, window, flags; codes, if packed",
    0xF6: "opcode, address, lengths, flags, then the bytes to write",
    0xF7: "requests",
}
STUB_FROM = 0xD0  # opcodes from here on are the vendor's stub's


def render_protocol() -> str:
    """Fill in the tables. Every table must have a mark in the text, and every mark a table."""
    prose = (TOOLS / "protocol_page.md").read_text("utf-8")
    tables = _tables(tomllib.loads(PROTOCOL.read_text("utf-8")))
    marks = re.findall(r"{{(\w+)}}", prose)
    assert sorted(set(marks)) == sorted(tables), set(marks) ^ set(tables)
    return re.sub(r"{{(\w+)}}", lambda mark: tables[mark[1]], prose)


def _tables(facts: dict) -> dict[str, str]:
    from espwire.protocol import commands, packed, slip
    from espwire.protocol import replies as status
    from espwire.protocol.dialect import SECURE_DOWNLOAD_OPS
    from espwire.protocol.stub import PROTOCOL_VERSION, Feature
    from espwire.settings import Timing

    timing = Timing()
    return {
        "rom_baud": str(facts["link"]["rom_baud"]),
        "slip": _slip(slip),
        "request": str(commands.REQUEST),
        "reply": str(commands.REPLY),
        "seed": f"{commands.checksum(b''):#x}",
        "status_bytes": _by_chip(lambda rom: rom.status_bytes),
        "examples": _examples(commands, slip),
        "commands": _commands(facts, stub=False),
        "roms": _roms(),
        "sync_value": f"0x{facts['sync']['rom_value']:08X}",
        "magic_address": f"0x{facts['detect']['magic_address']:08X}",
        "magics": _magics(),
        "block_sizes": _block_sizes(),
        "baud_rules": _baud_rules(),
        "baud_settle": f"{timing.baud_settle:g}",
        "not_accepted": f"0x{status.NOT_ACCEPTED:02X}",
        "secure": ", ".join(op.name for op in sorted(SECURE_DOWNLOAD_OPS)),
        "timeouts": _timeouts(timing),
        "rom_errors": _rows((f"0x{code:02X}", text) for code, text in status.ROM_MEANINGS.items()),
        "stub_errors": _rows(
            (f"0x{code:04X}", text) for code, text in status.STUB_MEANINGS.items()
        ),
        "hello": f"`{facts['stub']['hello']}`",
        "stub_block": str(facts["blocks"]["flash_stub"]),
        "stub_commands": _commands(facts, stub=True),
        "own_commands": _own_commands(),
        "own_examples": _own_examples(slip),
        "stub_version": str(PROTOCOL_VERSION),
        "packed_reads": str(Feature.PACKED_READS.value),
        "packed_codes": str(packed.CODES),
        "packed_literals": str(packed.LITERALS),
        "packed_distances": str(packed.DISTANCES),
        "packed_bits": str(packed.MOST_BITS),
        "features": ", ".join(
            f"{flag.value} {(flag.name or '').lower().replace('_', ' ')}" for flag in Feature
        ),
    }


def _rows(rows) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _slip(slip) -> str:
    return _rows(
        [
            ("end of frame", f"`{slip.END.hex()}`"),
            (f"`{slip.END.hex()}` in a packet", f"`{slip.ESC_END.hex(' ')}`"),
            (f"`{slip.ESC.hex()}` in a packet (the escape byte)", f"`{slip.ESC_ESC.hex(' ')}`"),
        ]
    )


def _examples(commands, slip) -> str:
    requests = [
        ("SYNC", commands.Sync()),
        ("READ_REG of 0x40001000", commands.ReadReg(0x40001000)),
        ("MEM_DATA, first block, bytes c0 01", commands.MemData(0, b"\xc0\x01")),
    ]
    return _rows(
        (name, f"`{slip.encode(command.packet()).hex(' ')}`") for name, command in requests
    )


def _chips():
    from espwire.chips.registry import chip_ids, load_chip

    return [load_chip(name) for name in chip_ids()]


def _by_chip(fact) -> str:
    groups: dict[object, list[str]] = {}
    for chip in _chips():
        groups.setdefault(fact(chip.rom), []).append(chip.name)
    most = max(groups, key=lambda value: len(groups[value]))
    return _rows(
        (str(value), "all others" if value == most else ", ".join(names))
        for value, names in groups.items()
    )


def _words(cls) -> str:
    """Describe a request body: its field names, optional fields in brackets, and the payload."""
    from espwire.protocol import commands

    if issubclass(cls, commands.DataBlock):
        return "data with size and sequence"
    if issubclass(cls, commands.SizedBlock):
        return "size, then the data"
    if cls is commands.Sync:
        return f"`{cls().body()[:4].hex(' ')}`, then 32 times `55`"
    if cls is commands.WriteReg:
        return (
            ", ".join(f.name for f in fields(commands.RegWrite)) + "; more such groups may follow"
        )
    named = [f"[{f.name}]" if f.default is None else f.name for f in fields(cls)]
    return ", ".join(named) or "-"


def _commands(facts: dict, *, stub: bool) -> str:
    from espwire.protocol.commands import COMMANDS

    replies = {entry["opcode"]: entry for entry in facts["command"]}
    lines = [
        "| Opcode | Command | Body | Effect | Reply | Checksum |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for op, cls in COMMANDS.items():
        if (op >= STUB_FROM) != stub:
            continue
        entry = replies[op]
        about = (cls.__doc__ or "").splitlines()[0].replace("``", "`")
        answer = entry["reply"].replace(
            "see [read_flash]", "raw frames, each acknowledged by its running total"
        )
        check = "yes" if entry.get("checksum") else ""
        lines.append(f"| 0x{op:02X} | `{op.name}` | {_words(cls)} | {about} | {answer} | {check} |")
    return "\n".join(lines)


def _own_commands() -> str:
    from espwire.protocol.stub import STUB_COMMANDS

    lines = ["| Opcode | Command | Body | Effect |", "| --- | --- | --- | --- |"]
    for op, cls in STUB_COMMANDS.items():
        about = (cls.__doc__ or "").splitlines()[0].replace("``", "`")
        lines.append(
            f"| 0x{op:02X} | `{op.name}` | {OWN_BODIES.get(op) or _words(cls)} | {about} |"
        )
    return "\n".join(lines)


def _own_examples(slip) -> str:
    """Example frames of espwire's stub in both directions, packed by the protocol classes."""
    from espwire.protocol import stub
    from espwire.protocol.commands import ReadReg

    report = stub.Report(2048, 2048 + 26624, 0, 7)
    requests = (
        ("CAPABILITIES", stub.AskCapabilities()),
        (
            "WRITE_OPEN, 4096 raw bytes to 0x10000, transfer 7",
            stub.WriteOpen(0x10000, 4096, 4096, 0, 4, 7),
        ),
        (
            "WRITE_DATA, last bytes 01 02 at 2048, mask 0x80",
            stub.WriteData(2048, b"\x01\x02", 0x80),
        ),
        ("WRITE_DATA, a query", stub.WriteData(2048)),
        ("READ_REG of 0x40001000", ReadReg(0x40001000)),
        ("READ_ACK, 4096, send again", stub.ReadAck(4096, stub.ACK_AGAIN)),
        ("ABORT, token 5", stub.Abort(5)),
    )
    frames = [(name, stub.seal(command.packet())) for name, command in requests]
    frames.append(("a report: 2048 received, window 26624", stub.seal_reply(report.reply())))
    return _rows((name, f"`{slip.encode(frame).hex(' ')}`") for name, frame in frames)


def _roms() -> str:
    from espwire.protocol.commands import COMMANDS

    chips = _chips()
    rows = []
    for op in COMMANDS:
        have = [chip.name for chip in chips if op in chip.rom.ops]
        lack = [chip.name for chip in chips if op not in chip.rom.ops]
        if have and op < STUB_FROM:
            names = (
                "all"
                if not lack
                else f"all except {', '.join(lack)}"
                if len(lack) < len(have)
                else ", ".join(have)
            )
            rows.append((f"`{op.name}`", names))
    return _rows(rows)


def _magics() -> str:
    magics = [
        f"{chip.name} {', '.join(f'0x{magic:08X}' for magic in chip.identity.magic_values)}"
        for chip in _chips()
        if chip.identity.detect == "magic"
    ]
    return "; ".join(magics)


def _block_sizes() -> str:
    chips = _chips()
    flash = sorted({chip.rom.flash_block for chip in chips})
    ram = sorted({chip.rom.ram_block for chip in chips})
    return f"Block sizes of the ROMs: {', '.join(map(str, flash))} bytes for flash, {', '.join(map(str, ram))} for RAM."


def _baud_rules() -> str:
    from espwire.protocol.dialect import BaudRule

    rules = {
        BaudRule.NONE: "cannot change it",
        BaudRule.ESP32_CALIBRATION: "expects a value scaled by its own measurement of its clock",
        BaudRule.ASSUMES_40_MHZ: "computes the divider for a 40 MHz crystal",
        BaudRule.MISTAKEN_CRYSTAL: "may assume the wrong one of 40 and 48 MHz",
    }
    odd = [
        f"the {chip.name}'s ROM {rules[chip.rom.baud]}"
        for chip in _chips()
        if chip.rom.baud in rules
    ]
    text = "; ".join(odd) + "; all others use the rate unchanged."
    return text[0].upper() + text[1:]


def _timeouts(timing) -> str:
    rows = [
        ("any other", timing.default),
        ("SYNC", timing.sync),
        ("MEM_END", timing.mem_end),
        ("FLASH_BEGIN, per MB to erase", timing.erase_per_mb),
        ("FLASH_DEFL_DATA, per MB unpacked", timing.write_per_mb),
        ("SPI_FLASH_MD5, per MB", timing.md5_per_mb),
        ("erasing the whole chip", timing.chip_erase),
        ("at most", timing.longest),
    ]
    return _rows((name, f"{value:g}") for name, value in rows)
