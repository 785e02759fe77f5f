"""``write-flash``, ``verify-flash``, ``read-flash``, ``erase-flash``, ``erase-region``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import click

from espwire.blob import Blob, choose_for_chip
from espwire.cli.host_key_options import host_key_options, read_host_key
from espwire.cli.inputs import (
    Input,
    TableSource,
    check_readable,
    check_writable,
    find_region,
    has_names,
    header_settings,
    look_up_in_file,
    look_up_on_device,
    parse_inputs,
    parse_region,
    read_inputs,
)
from espwire.cli.options import (
    Pins,
    allow_option,
    combine,
    dry_run_option,
    flash_options,
    force_option,
    header_options,
    input_format_option,
    inputs_argument,
    known_size_option,
    needed_options,
    progress_option,
    table_options,
)
from espwire.cli.written_text import report_written
from espwire.errors import UsageError, VerifyError
from espwire.files import check_total_size, keep_inputs
from espwire.sizes import format_size
from espwire.text import escape

if TYPE_CHECKING:
    from espwire.cli.context import Context
    from espwire.device.device import Device
    from espwire.flash.model import Plan
    from espwire.image.header import HeaderSettings
    from espwire.image.read_any import FormatChoice

SKIP = "skip"  # in place of a file of --diff-with
MAX_LISTED = 64  # bytes that verify-flash --diff prints


def _parse_encrypted(
    click_context: click.Context, parameter: click.Parameter, value: tuple[tuple[str, str], ...]
) -> list[Input]:
    words = [word for pair in value for word in pair]
    return parse_inputs(words, strict=click_context.obj.program.strict, names=False)


encrypt_options = combine(
    click.option(
        "--encrypt",
        is_flag=True,
        help="Have the chip encrypt all files, which then cannot be verified.",
    ),
    click.option(
        "--encrypt-files",
        nargs=2,
        multiple=True,
        metavar="ADDRESS FILE…",
        callback=_parse_encrypted,
        help="Files to encrypt on the chip; all others are written as plaintext.",
    ),
    click.option(
        "--ignore-flash-enc-efuse",
        is_flag=True,
        help="Do not check in the eFuses whether the chip can encrypt.",
    ),
)
changes_options = combine(
    click.option(
        "--diff-with",
        multiple=True,
        metavar="FILE|skip…",
        help="Files that are in flash now, in the same order: only sectors that differ are written.",
    ),
    click.option(
        "-s", "--skip-flashed", is_flag=True, help="Skip each file that is already in flash."
    ),
    click.option(
        "--trust-flash-content",
        is_flag=True,
        help="With --diff-with, do not check unchanged files.",
    ),
)


EXCLUSIVE = (
    ("compress", "no_compress"),
    ("encrypt", "encrypt_files"),
    ("diff_with", "skip_flashed"),
    ("trust_flash_content", "skip_flashed"),
    ("no_diff", "diff_with"),
    ("no_diff", "skip_flashed"),
)


def _check_choices(choices: Mapping[str, Any]) -> None:
    """:raises UsageError: options contradict each other"""
    for pair in EXCLUSIVE:
        if all(choices[name] for name in pair):
            names = " and ".join(f"--{name.replace('_', '-')}" for name in pair)
            raise UsageError(f"{names} exclude each other", hint="Use only one of them.")
    if choices["trust_flash_content"] and not choices["diff_with"]:
        raise UsageError(
            "--trust-flash-content needs --diff-with",
            hint="Name the files that are in flash now with --diff-with.",
        )


@click.command()
@inputs_argument
@header_options
@click.option(
    "-z", "--compress", is_flag=True, help="Compress the data, if the loader supports it."
)
@click.option("-u", "--no-compress", is_flag=True, help="Send the data uncompressed.")
@click.option("-e", "--erase-all", is_flag=True, help="Erase the whole flash first.")
@click.option(
    "--verify",
    is_flag=True,
    help="Refuse to write what cannot be verified. (Files are always verified if possible.)",
)
@input_format_option
@host_key_options
@encrypt_options
@changes_options
@needed_options
@force_option
@allow_option
@flash_options
@table_options
@dry_run_option
@progress_option
@click.pass_obj
def write_flash(
    context: Context,
    /,
    inputs: list[Input],
    flash_mode: str,
    flash_freq: str,
    flash_size: str,
    input_format: FormatChoice,
    pins: Pins,
    partitions: str | None,
    table_offset: int,
    dry_run: bool,
    **choices: Any,
) -> None:
    """A partition's name may replace the ADDRESS. Files may be raw binary, Intel HEX, S-record, UF2 or ELF."""
    from espwire.flash.findings import Policy
    from espwire.flash.prepare import cut_gaps
    from espwire.flash.write import write_flash

    _check_choices(choices)
    encrypted, old = choices["encrypt_files"], choices["diff_with"]
    settings = header_settings(flash_mode, flash_freq, flash_size)
    source = TableSource(partitions, table_offset)
    inputs = look_up_in_file(context, inputs, source)
    in_flash = [file for file in old if file.lower() != SKIP]
    paths = [item.path for item in (*inputs, *encrypted)]
    check_readable([*paths, *in_flash, *source.files])
    key = read_host_key(context, choices, source)

    def read() -> list[Blob]:
        check_total_size([*paths, *old])
        blobs = read_with_previous(context, inputs, old, settings, input_format)
        if choices["encrypt"]:
            return [replace(blob, encrypted=True) for blob in blobs]
        more = read_inputs(context, encrypted, format=input_format)
        return [*blobs, *(replace(blob, encrypted=True) for blob in more)]

    named = has_names(inputs)  # only the device's table can resolve them
    blobs = [] if named else read()
    policy = Policy(
        compress=True if choices["compress"] else False if choices["no_compress"] else None,
        verify=choices["verify"] or None,
        erase_all=choices["erase_all"],
        force=choices["force"],
        consents=choices["allow"],
        ignore_flash_enc_efuse=choices["ignore_flash_enc_efuse"],
        diff=not choices["no_diff"],
        keep=not choices["no_keep"] and context.program.keep,
        skip_flashed=choices["skip_flashed"],
        trust_flash_content=choices["trust_flash_content"],
    )

    def write(device: Device) -> tuple[list[Blob], Plan]:
        nonlocal inputs, blobs
        if named and not blobs:  # a pipe can be read once
            inputs = look_up_on_device(context, inputs, source, device, key=key)
            blobs = read()
        chosen = list(choose_for_chip(blobs, device.chip.id))
        if choices["keep_gaps"]:
            chosen = cut_gaps(chosen)
        plan = write_flash(
            device,
            chosen,
            policy=policy,
            settings=settings,
            key=key,
            dry_run=dry_run,
            journal=context.journal(device),
            report=context.report,
        )
        return chosen, plan

    encrypts = bool(choices["encrypt"] or encrypted)
    blobs, plan = context.run_operation(write, encrypt=encrypts, pins=pins)
    report_written(context, "write-flash", plan, blobs, len(paths), "--dry-run" if dry_run else "")


def read_with_previous(
    context: Context,
    inputs: Sequence[Input],
    old: Sequence[str],
    settings: HeaderSettings,
    format: FormatChoice,
) -> list[Blob]:
    """Read the files, each with the file of ``--diff-with`` that is in its place. Surplus such files are ignored.

    :raises FileError, DataError: a file cannot be used
    """
    blobs: list[Blob] = []
    for number, item in enumerate(inputs):
        new = read_inputs(context, [item], format=format, settings=settings)
        if number < len(old) and old[number].lower() != SKIP:
            previous = read_inputs(context, [item._replace(path=old[number])], format=format)
            in_flash = {(blob.address, blob.chips): blob.data for blob in previous}
            new = [replace(blob, previous=in_flash.get((blob.address, blob.chips))) for blob in new]
        blobs += new
    return blobs


@click.command()
@inputs_argument
@header_options
@click.option(
    "-d",
    "--diff",
    is_flag=True,
    help="List the bytes that differ, where the loader can read flash.",
)
@input_format_option
@host_key_options
@flash_options
@table_options
@progress_option
@click.pass_obj
def verify_flash(
    context: Context,
    /,
    inputs: list[Input],
    flash_mode: str,
    flash_freq: str,
    flash_size: str,
    diff: bool,
    input_format: FormatChoice,
    pins: Pins,
    partitions: str | None,
    table_offset: int,
    **choices: Any,
) -> None:
    """Exits with code 7 if they differ. With --key, files are encrypted as write-flash does, and the ciphertext is compared."""
    from espwire.flash.model import FlashTarget
    from espwire.flash.prepare import find_stated_size, prepare_blobs
    from espwire.flash.verify import verify_flash

    settings = header_settings(flash_mode, flash_freq, flash_size)
    source = TableSource(partitions, table_offset)
    inputs = look_up_in_file(context, inputs, source)
    check_readable([*(item.path for item in inputs), *source.files])
    key = read_host_key(context, choices, source)
    named = has_names(inputs)
    read = partial(read_inputs, context, format=input_format, settings=settings)
    blobs: Sequence[Blob] = () if named else read(inputs)
    with context.device(pins=pins) as device:
        if named:
            inputs = look_up_on_device(context, inputs, source, device, key=key)
            blobs = read(inputs)
        blobs = choose_for_chip(blobs, device.chip.id)
        stated = find_stated_size(settings)
        target = FlashTarget.of(device, flash_size=stated)
        for blob in blobs:
            target.check_range(blob.address, blob.end, stated=stated)
        blobs = prepare_blobs(blobs, target, settings, report=context.report)
        size = sum(len(blob.data) for blob in blobs)
        if key is not None:
            from espwire.flash.host_key import encrypt_to_compare

            blobs = encrypt_to_compare(device, key, blobs, context.report)
        try:
            verify_flash(device, blobs, report=context.report)
        except VerifyError as error:
            if diff:
                _report_differences(context, device, blobs, error.ranges)
            if key is None and device.security.flash_encryption:
                error.hint = "Flash encryption is on: add --key FILE with the flash encryption key."
            raise
    text = f"Done: flash contains all {size:,} bytes."
    context.finish("verify-flash", text, {"bytes": size, "equal": True})


def _report_differences(
    context: Context, device: Device, blobs: Sequence[Blob], ranges: Sequence[tuple[int, int]]
) -> None:
    """One line per range that differs; with the bytes where they can be read."""
    lines: list[str] = []
    listed: list[dict[str, int]] = []
    for start, end in ranges:
        line = f"{start:#010x}..{end:#010x} differs"
        blob = next((each for each in blobs if each.address <= start and end <= each.end), None)
        if blob is not None and len(listed) < MAX_LISTED and device.backend.limits.can_read:
            actual = b"".join(device.read_flash(start, end - start))
            expected = blob.data[start - blob.address : end - blob.address]
            wrong = [at for at, (a, b) in enumerate(zip(actual, expected, strict=True)) if a != b]
            line += f" in {len(wrong):,} bytes"
            for at in wrong[: MAX_LISTED - len(listed)]:
                listed.append({"address": start + at, "flash": actual[at], "file": expected[at]})
                line += f"\n  {start + at:#010x}: flash {actual[at]:02x}, file {expected[at]:02x}"
        lines.append(line)
    data = {"equal": False, "ranges": [list(pair) for pair in ranges], "bytes": listed}
    context.result("verify-flash", "\n".join(lines), data)


@click.command()
@click.argument("arguments", metavar="ADDRESS SIZE FILE", nargs=-1, required=True)
@known_size_option
@host_key_options
@flash_options
@table_options
@progress_option
@click.pass_obj
def read_flash(
    context: Context,
    /,
    arguments: tuple[str, ...],
    flash_size: int | None,
    pins: Pins,
    partitions: str | None,
    table_offset: int,
    **choices: Any,
) -> None:
    """SIZE may be ALL, for everything up to the end of the flash. A partition's name may replace ADDRESS and SIZE.
    After an interruption, repeat the command: it continues."""
    from espwire.flash.host_key import open_decoder
    from espwire.flash.read import read_to_file

    region, (file,) = parse_region(arguments, files=1, strict=context.program.strict)
    file = context.name_file(file)
    check_writable(file)
    source = TableSource(partitions, table_offset)
    check_readable(source.files)
    key = read_host_key(context, choices, source)
    if choices["key"] is not None:
        keep_inputs(file, [choices["key"]])

    def read(device: Device) -> tuple[str, int, int]:
        name = context.name_file(file, device)
        address, size = find_region(context, region, source, device, key=key)
        decode = None
        if key is not None:
            decode = open_decoder(device, key, address, size, context.report)
        size = read_to_file(
            device,
            address,
            size,
            name,
            flash_size=flash_size,
            resume=context.program.waits,
            decode=decode,
            report=context.report,
        )
        return name, address, size

    file, address, size = context.run_operation(read, pins=pins)
    text = f"Done: {size:,} bytes read from {address:#x} into {escape(file)}."
    context.finish("read-flash", text, {"address": address, "size": size, "file": file})


@click.command()
@known_size_option
@force_option
@allow_option
@flash_options
@dry_run_option
@click.pass_obj
def erase_flash(
    context: Context,
    flash_size: int | None,
    force: bool,
    allow: frozenset[str],
    pins: Pins,
    dry_run: bool,
) -> None:
    from espwire.flash.erase import erase_flash
    from espwire.flash.findings import Policy

    policy = Policy(force=force, consents=allow)
    with context.device(pins=pins) as device:
        size = erase_flash(
            device, flash_size=flash_size, policy=policy, dry_run=dry_run, report=context.report
        )
    text = f"Done: the whole flash ({format_size(size)}) is erased."
    if dry_run:
        text = "Nothing was erased (--dry-run)."
    context.finish("erase-flash", text, {"size": size, "erased": not dry_run})


@click.command()
@click.argument("arguments", metavar="ADDRESS SIZE", nargs=-1, required=True)
@force_option
@allow_option
@flash_options
@table_options
@dry_run_option
@click.pass_obj
def erase_region(
    context: Context,
    arguments: tuple[str, ...],
    force: bool,
    allow: frozenset[str],
    pins: Pins,
    partitions: str | None,
    table_offset: int,
    dry_run: bool,
) -> None:
    """Erases whole sectors of 4 KiB. SIZE may be ALL, for everything up to the end of the flash. A partition's
    name may replace ADDRESS and SIZE."""
    from espwire.flash.erase import erase_region
    from espwire.flash.findings import Policy

    region, _ = parse_region(arguments, files=0, strict=context.program.strict)
    source = TableSource(partitions, table_offset)
    check_readable(source.files)
    policy = Policy(force=force, consents=allow)
    with context.device(pins=pins) as device:
        address, size = find_region(context, region, source, device)
        erase_region(device, address, size, policy=policy, dry_run=dry_run, report=context.report)
    what = f"everything from {address:#x} on" if size is None else f"{size:,} bytes at {address:#x}"
    text = "Nothing was erased (--dry-run)." if dry_run else f"Done: {what} erased."
    context.finish("erase-region", text, {"address": address, "size": size, "erased": not dry_run})
