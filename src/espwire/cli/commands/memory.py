"""``read-mem``, ``write-mem``, ``dump-mem``, ``load-ram``: memory and registers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from espwire.cli.inputs import (
    check_writable,
    choose_ram_program,
    name_source,
    read_blobs,
)
from espwire.cli.number_types import parse_memory_address, parse_plain
from espwire.cli.options import allow_option, force_option, input_format_option, progress_option
from espwire.text import escape

if TYPE_CHECKING:
    from espwire.cli.context import Context
    from espwire.image.read_any import FormatChoice

ALL_BITS = 0xFFFFFFFF


@click.command()
@click.argument("address", metavar="ADDRESS", callback=parse_memory_address)
@click.pass_obj
def read_mem(context: Context, address: int) -> None:
    """ADDRESS must be a multiple of 4."""
    from espwire.device.memory_access import WORD, check_range

    check_range(address, WORD)
    with context.device(bulk=False) as device:
        word = device.read_mem(address)
    text = f"{word.address:#010x} = {word.value:#010x}"
    context.result("read-mem", text, {"address": word.address, "value": word.value})


@click.command()
@click.argument("address", metavar="ADDRESS", callback=parse_memory_address)
@click.argument("value", metavar="VALUE", callback=parse_plain)
@click.argument("mask", metavar="[MASK]", default=f"{ALL_BITS:#x}", callback=parse_plain)
@click.pass_obj
def write_mem(context: Context, address: int, value: int, mask: int) -> None:
    """With MASK, changes only the bits that are set in it. The result is not read back."""
    from espwire.device.memory_access import WORD, check_range

    check_range(address, WORD)
    with context.device(bulk=False) as device:
        done = device.write_mem(address, value, mask)
    masked = "" if done.mask == ALL_BITS else f", mask {done.mask:#010x}"
    text = f"Wrote {done.value:#010x}{masked} to {done.address:#010x}."
    data = {"address": done.address, "value": done.value, "mask": done.mask}
    context.finish("write-mem", text, data)


@click.command()
@click.argument("address", metavar="ADDRESS", callback=parse_memory_address)
@click.argument("size", metavar="SIZE", callback=parse_plain)
@click.argument("file", metavar="FILE")
@progress_option
@click.pass_obj
def dump_mem(context: Context, address: int, size: int, file: str) -> None:
    """Reads SIZE bytes from ADDRESS. The stub flasher occupies some RAM; with --no-stub, all RAM keeps its contents,
    but the ROM needs two round trips per word. Registers that change when they are read, such as FIFOs, are read
    twice: use read-mem for those."""
    from espwire.device.memory_access import check_range
    from espwire.flash.load_ram import dump_mem

    check_range(address, size)
    check_writable(file)
    with context.device() as device:
        dump = dump_mem(device, address, size, file, report=context.report)
    text = f"Done: {dump.size:,} bytes of memory from {address:#x} saved to {escape(file)}."
    data = {"address": dump.address, "size": dump.size, "file": file, "trips": dump.trips}
    context.finish("dump-mem", text, data)


@click.command()
@click.argument("file", metavar="FILE")
@input_format_option
@force_option
@allow_option
@progress_option
@click.pass_obj
def load_ram(
    context: Context, file: str, input_format: FormatChoice, force: bool, allow: frozenset[str]
) -> None:
    """FILE is an image (also as Intel HEX) or an ELF. The flash is not touched."""
    from espwire.flash.findings import Policy
    from espwire.flash.load_ram import load_ram

    blobs = read_blobs(context, file, format=input_format)
    if not any(blob.one_of for blob in blobs):
        choose_ram_program(blobs, "", file)  # fails before the chip is reset
    policy = Policy(force=force, consents=allow)
    with context.device(bulk=False) as device:
        data = choose_ram_program(blobs, device.chip.id, file)
        program = load_ram(
            device, data, name=name_source(file), policy=policy, report=context.report
        )
        context.program_started = True
    count = len(program.segments)
    text = f"Loaded {count} segments, {program.size:,} bytes, into RAM and started the program at {program.entry:#010x}."
    segments = [{"address": address, "size": size} for address, size in program.segments]
    context.result("load-ram", text, {"entry": program.entry, "segments": segments})
