"""``job``: the steps of a job file on one board."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from espwire.cli.options import (
    Pins,
    allow_option,
    dry_run_option,
    flash_options,
    force_option,
    progress_option,
)
from espwire.errors import UsageError, WrongChip
from espwire.text import escape

if TYPE_CHECKING:
    from espwire.cli.context import Context
    from espwire.device.device import Device
    from espwire.jobs.job_file import Job


@click.command()
@click.argument("file", metavar="FILE")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="NAME=VALUE",
    help="Set a variable of the job, such as the operator. Repeatable.",
)
@click.option("--show", is_flag=True, help="Show the steps, and exit. Needs no board.")
@click.option(
    "--unfinished",
    is_flag=True,
    help="List the boards that have a row but did not pass, and exit. Needs no board.",
)
@force_option
@allow_option
@flash_options
@dry_run_option
@progress_option
@click.pass_obj
def job(
    context: Context,
    file: str,
    settings: tuple[str, ...],
    show: bool,
    unfinished: bool,
    force: bool,
    allow: frozenset[str],
    pins: Pins,
    dry_run: bool,
) -> None:
    """FILE is a TOML file that lists steps: erase, flash, write, verify, run the application, wait for a line of its
    output. Each board can have its own data, such as a serial number, and a row in a report."""
    from espwire.flash.findings import Policy
    from espwire.jobs.job_file import read_job
    from espwire.jobs.run import JobRun, list_unfinished

    found = read_job(file)
    if unfinished:
        _report_unfinished(context, list_unfinished(found))
        return
    variables = parse_settings(settings)
    for line in describe_job(found):
        context.note(line)
    if found.chip:
        context.defaults["chip"] = found.chip
    run = JobRun(
        found,
        variables=variables,
        policy=Policy(force=force, consents=allow),
        port=context.get("port") or "",
        dry_run=dry_run,
        enter=lambda device: context.enter_again(device, encrypt=run.encrypts, pins=pins),
        find_journal=context.journal,
        report=context.report,
    )
    if show:
        context.result("job", "Nothing was done (--show).", {"job": found.name, "state": "shown"})
        return

    def work(device: Device) -> None:
        context.program_started = False
        run.row["port"] = context.place_name or device.transport.info.name
        run.work(device)
        context.program_started = run.leaves_application and not dry_run

    try:
        context.run_operation(work, encrypt=run.encrypts, pins=pins)
    except BaseException as error:
        if isinstance(error, WrongChip) and found.chip:
            error.hint = (
                f"The job is for {found.chip}: connect such a board, or correct chip in {file}."
            )
        run.fail(error)
        raise
    run.finish()
    if dry_run:
        context.finish("job", "Nothing was done (--dry-run).", run.row)
        return
    name = str(run.row.get("serial") or run.row["mac"])
    text = f"Passed: {escape(name)}, {count_steps(found)}."
    if context.program_started:
        text += " The application is running."
    context.finish("job", text, run.row)


def parse_settings(words: tuple[str, ...]) -> dict[str, str]:
    """The values of ``--set``.

    :raises UsageError: one is not ``NAME=VALUE``
    """
    from espwire.jobs.job_file import check_variable

    values: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not value:
            raise UsageError(f"--set {word} has no value", hint="Write --set NAME=VALUE.")
        check_variable(name, "--set")
        values[name] = value
    return values


def describe_job(found: Job) -> list[str]:
    """The job for people: a line per step."""
    made_for = f" for {found.chip}" if found.chip else ""
    lines = [f"job {escape(found.name)}{made_for}: {count_steps(found)}"]
    lines += [f"{number:>3}. {step.describe()}" for number, step in enumerate(found.steps, 1)]
    return lines


def count_steps(found: Job) -> str:
    """For example ``2 steps``."""
    return f"{len(found.steps)} step{'s' if len(found.steps) > 1 else ''}"


def _report_unfinished(context: Context, rows: list[dict[str, Any]]) -> None:
    lines = ["  ".join(f"{name}={escape(value)}" for name, value in row.items()) for row in rows]
    text = "\n".join(lines) if lines else "All boards that have a row have passed."
    context.result("job", text, {"unfinished": rows})
