"""``flash``: a build, or a file that has its addresses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from espwire.blob import Blob, choose_for_chip
from espwire.cli.host_key_options import host_key_options, read_host_key
from espwire.cli.inputs import header_settings, load_chip_option
from espwire.cli.number_types import FlashAddress
from espwire.cli.options import (
    Pins,
    allow_option,
    dry_run_option,
    flash_options,
    force_option,
    header_options,
    input_format_option,
    needed_options,
    progress_option,
)
from espwire.cli.written_text import report_written
from espwire.errors import UsageError
from espwire.sizes import Ranges, join_ranges

if TYPE_CHECKING:
    from espwire.cli.context import Context
    from espwire.device.device import Device
    from espwire.flash.host_key import HostKey
    from espwire.flash.model import Plan
    from espwire.image.build_file import BuildPlan
    from espwire.image.read_any import FormatChoice


@click.command()
@click.argument("path", metavar="[PATH]", default=".")
@click.option("--app", is_flag=True, help="Write only the application.")
@click.option(
    "--erase",
    multiple=True,
    metavar="NAME",
    help="Erase this partition first; may be repeated.",
)
@click.option("--monitor", is_flag=True, help="Then restart the board and show its output.")
@click.option(
    "--select-written",
    is_flag=True,
    help="If another application would boot, have the OTA data select the written one.",
)
@header_options
@click.option("-e", "--erase-all", is_flag=True, help="Erase the whole flash first.")
@click.option(
    "--encrypt",
    is_flag=True,
    help="Have the chip encrypt the files that the build marks for encryption.",
)
@host_key_options
@click.option(
    "--app-address",
    type=FlashAddress(0),
    metavar="ADDRESS",
    help="Address of a single image or ELF file.",
)
@input_format_option
@needed_options
@click.option(
    "--show", is_flag=True, help="Show what would be written where, and exit. Needs no board."
)
@force_option
@allow_option
@flash_options
@dry_run_option
@progress_option
@click.pass_obj
def flash(
    context: Context,
    /,
    path: str,
    flash_mode: str,
    flash_freq: str,
    flash_size: str,
    input_format: FormatChoice,
    pins: Pins,
    **choices: Any,
) -> None:
    """PATH is a build folder of ESP-IDF, PlatformIO or Arduino (or the project folder, if it contains one build),
    a flasher_args.json or flash_args file, or a single file: merged binary, Intel HEX, S-record, UF2 or ELF.
    Without PATH, it is the current folder."""
    from espwire.flash.findings import Policy
    from espwire.flash.prepare import cut_gaps
    from espwire.flash.write import write_build
    from espwire.image.build_dir import read_build
    from espwire.image.build_file import BuildRequest

    key = read_host_key(context, choices)
    settings = header_settings(flash_mode, flash_freq, flash_size)
    request = BuildRequest(
        chip=load_chip_option(context),
        settings=settings,
        app_address=choices["app_address"],
        format=input_format,
        consents=choices["allow"],
    )
    build = read_build(path, request)
    whole = build
    if choices["app"]:
        build = replace(build, blobs=choose_app(build))
    made_for = f" for {' or '.join(build.chips)}" if build.chips else ""
    for line in (f"{build.name}: {build.kind}{made_for}", *build.describe()):
        context.note(line)
    if choices["show"]:
        for line in build.notes:
            context.note(line)
        report_build(context, build, None, "--show")
        return
    set_build_defaults(context, build)
    if choices["monitor"]:
        _prepare_monitor(context)
    policy = Policy(
        erase_all=choices["erase_all"],
        force=choices["force"],
        consents=choices["allow"],
        diff=not choices["no_diff"],
        keep=not choices["no_keep"] and context.program.keep,
    )

    def write(device: Device) -> tuple[BuildPlan, Plan]:
        erase = find_partitions(device, whole, choices["erase"], key) if choices["erase"] else ()
        blobs = choose_for_chip(build.blobs, device.chip.id)
        chosen = replace(build, blobs=tuple(cut_gaps(blobs)) if choices["keep_gaps"] else blobs)
        plan = write_build(
            device,
            chosen,
            policy=policy.replace(erase=erase),
            settings=settings,
            encrypt=choices["encrypt"],
            key=key,
            dry_run=choices["dry_run"],
            journal=context.journal(device),
            report=context.report,
        )
        return chosen, select_written(context, device, plan, asked=choices["select_written"])

    build, plan = context.run_operation(write, encrypt=choices["encrypt"], pins=pins)
    if choices["monitor"]:
        context.ending = "The monitor resets the board."
    report_build(context, build, plan, "--dry-run" if choices["dry_run"] else "")
    if choices["monitor"]:
        _monitor(context, path)


def select_written(context: Context, device: Device, plan: Plan, *, asked: bool) -> Plan:
    """If another application boots than the one that was written, select that: if ``asked`` to, or if the user agrees.

    :raises TableError: the OTA data cannot select it
    """
    from espwire.flash.partitions import switch_ota

    if plan.unbooted is None:
        return plan
    written = plan.unbooted.written
    if not asked and not context.ask(f"Have {written} boot instead?"):
        return plan
    switch_ota(device, written)
    context.note(f"the OTA data now selects {written}, which boots from now on")
    return replace(plan, unbooted=None)


def _prepare_monitor(context: Context) -> None:
    """The monitor will reset the board, so that nothing of the output is missed."""
    from espwire.cli.commands.monitor import check_monitor  # completion loads this module

    check_monitor(context)
    context.defaults["after"] = "no-reset"


def _monitor(context: Context, path: str) -> None:
    from espwire.cli.commands.monitor import MonitorChoices, run_monitor

    again = tuple(word for word in context.line if word != "--monitor")
    run_monitor(context, MonitorChoices(reset=True, project=path, again=again))


def choose_app(build: BuildPlan) -> tuple[Blob, ...]:
    """The application of a build.

    :raises UsageError: code ``no-app``: it has none, or it does not say which of its files that is
    """
    from espwire.image.build_file import APP

    found = tuple(blob for blob in build.blobs if blob.kind == APP)
    if not found:
        raise UsageError(
            f"{build.name} does not say which of its files is the application",
            hint="Leave out --app, or write the file with write-flash.",
            code="no-app",
        )
    return found


def find_partitions(
    device: Device, build: BuildPlan, names: Sequence[str], key: HostKey | None = None
) -> Ranges:
    """The flash ranges of partitions, by the table of the build, else by that of the device.

    :raises TableError: no table, or no such partition
    """
    from espwire.flash.host_key import read_encrypted_table
    from espwire.flash.read_table import read_partition_table
    from espwire.image.build_file import find_table
    from espwire.image.partition_table import find_partition

    table = find_table(build.blobs) or (
        read_partition_table(device) if key is None else read_encrypted_table(device, key)
    )
    found = [find_partition(table, name) for name in names]
    return join_ranges((partition.offset, partition.end) for partition in found)


def set_build_defaults(context: Context, build: BuildPlan) -> None:
    """Use the build's way to reset, unless the user chooses another one."""
    for name, value in (("before", build.before), ("after", build.after)):
        if value:
            context.defaults[name] = value
    if not build.stub:
        context.options["no_stub"] = True


def report_build(context: Context, build: BuildPlan, plan: Plan | None, withheld: str) -> None:
    """Report the result of ``flash``."""
    report_written(
        context,
        "flash",
        plan,
        build.blobs,
        len(build.blobs),
        withheld,
        kind=build.kind,
        chips=list(build.chips),
    )
