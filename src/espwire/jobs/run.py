"""Carries out a job on one board: checks, the board's row, the report, the steps.

The order is what makes a job safe to repeat. Without the board: the job file, its files, the tables and the report are
checked. With the board, before its first write: the board gets its row (and serial number), all steps are prepared, and
the report gets a row. A run that ends before the last step is repeated by the same command: the row belongs to the MAC
address, and steps that write find what is in flash already.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from espwire.chips.registry import load_chip
from espwire.errors import DataError, DeviceError, NoReply, ToolError, Unsupported
from espwire.events import Note, Report, Warned, silent
from espwire.files import read_file
from espwire.flash.findings import Policy
from espwire.image.build_dir import read_build
from espwire.image.build_file import BuildRequest
from espwire.jobs.boards import MAC, Boards, open_boards
from espwire.jobs.report import FAILED, PASSED, STARTED, ReportFile, open_report
from espwire.jobs.step_context import Details, StepContext, Work
from espwire.jobs.steps import APPLICATION, LOADER, FlashStep, Step
from espwire.jobs.variables import BUILT_IN, build_missing, fill_path, find_names
from espwire.progress import Parts
from espwire.text import mac_digits

if TYPE_CHECKING:
    from espwire.device.device import Device
    from espwire.flash.journal import Journal
    from espwire.jobs.job_file import Job

LONG_PAUSE_S = 1.0  # after which the loader may be gone: a watchdog may have reset the chip


class JobRun:
    """One run of a job on one board.

    :param variables: in addition to those of the job, and instead of them
    :param enter: resets the chip into its loader again, after a step has started the application; None: by
        ``Device.reenter`` and ``Device.use_stub``
    :param find_journal: the journal of a device's writes, see ``flash/journal.py``
    :raises FileError, DataError: the job cannot be carried out; no board was touched
    """

    def __init__(
        self,
        job: Job,
        *,
        variables: Mapping[str, str] | None = None,
        policy: Policy | None = None,
        port: str = "",
        dry_run: bool = False,
        enter: Callable[[Device], None] | None = None,
        find_journal: Callable[[Device], Journal | None] | None = None,
        report: Report = silent,
    ) -> None:
        self.job, self.dry_run = job, dry_run
        self._policy, self._report = policy or Policy(), report
        self._enter, self._find_journal = enter, find_journal
        self._values: dict[str, str] = {**job.variables, **(variables or {})}
        self._boards: Boards | None = None if job.boards is None else open_boards(job.boards)
        self._file: ReportFile | None = None if job.report is None else open_report(job.report)
        self._chip = load_chip(job.chip) if job.chip else None
        self._check_variables()
        for number, step in enumerate(job.steps, 1):
            for name in step.files():
                self._check_file(step, name, self._name(number, step))
        if self._file is not None:
            self._file.check()
        self._began, self._has_row = time.monotonic(), False
        self.row: Details = {
            "run": secrets.token_hex(8),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "state": STARTED,
            "job": job.name,
            "job_sha256": job.sha256,
            "port": port,
            "steps": [],
        }
        fields = job.report.fields if job.report else ()
        self.row |= {name: self._values[name] for name in fields if name in self._values}

    @property
    def encrypts(self) -> bool:
        """Whether the chip encrypts what a step writes."""
        return any(step.encrypt for step in self.job.steps)

    @property
    def leaves_application(self) -> bool:
        """Whether the job ends with the application running."""
        return self.job.steps[-1].uses != LOADER

    def work(self, device: Device) -> None:
        """Carry out the steps. It can be called again after the board was lost: it starts with the first step.

        :raises ToolError: a step fails; ``fail`` puts that into the report
        """
        before = time.monotonic()
        context = StepContext(
            device=device,
            values=self._describe_board(device),
            folder=self.job.folder,
            chip=self._chip,
            enter=lambda: self._enter_again(device),
            policy=self._policy,
            journal=None if self._find_journal is None else self._find_journal(device),
            report=self._report,
        )
        works = self._prepare(context)
        if self.dry_run:
            return
        if not self._has_row:
            self._write_row(STARTED)
        if time.monotonic() - before > LONG_PAUSE_S:
            check_alive(device)
        self._run(context, works)

    def finish(self) -> None:
        """The board passed.

        :raises FileError: that cannot be written to the report
        """
        if not self.dry_run:
            self._write_row(PASSED)

    def fail(self, error: BaseException) -> None:
        """The board failed, or the run was interrupted. Never raises: a report that cannot be written is a warning."""
        if self.dry_run:
            return
        known = isinstance(error, ToolError)
        self.row["error"] = error.code if isinstance(error, ToolError) else "interrupted"
        self.row["message"] = str(error) if known else "the run was interrupted"
        try:
            self._write_row(FAILED)
        except ToolError as failure:
            text = f"the report does not show that the board failed: {failure}"
            self._report(Warned(code="report-incomplete", text=text))

    def _write_row(self, state: str) -> None:
        self.row["state"] = state
        self.row["seconds"] = round(time.monotonic() - self._began, 1)
        if self._file is not None:
            self._file.write(self.row)
        self._has_row = True

    def _name(self, number: int, step: Step) -> str:
        return f"step {number} ({step.describe()})"

    def _check_variables(self) -> None:
        """:raises DataError: a variable that is used has no value, or a column has the name of another variable"""
        columns = () if self._boards is None else self._boards.columns
        for name in columns:
            if name != MAC and (name in self._values or name in BUILT_IN):
                raise DataError(
                    f"the variable {name} is also a column of the file of [boards]",
                    hint="Rename one of them.",
                    code="job-variable",
                )
        known = {name for name, value in self._values.items() if value} | {*columns, *BUILT_IN}
        uses = [
            (self._name(number, step), name)
            for number, step in enumerate(self.job.steps, 1)
            for text in step.texts()
            for name in find_names(text)
        ]
        uses += [("report", name) for name in (self.job.report.fields if self.job.report else ())]
        for where, name in uses:
            if name not in known:
                raise build_missing(name, known, where)

    def _check_file(self, step: Step, name: str, where: str) -> None:
        """Read a file whose name is the same for all boards, and a template's variables.

        :raises FileError, DataError: it cannot be used
        """
        if any(variable not in self._values for variable in find_names(name)):
            return  # it depends on the board
        path = os.path.join(self.job.folder, fill_path(name, self._values, where))
        if isinstance(step, FlashStep):
            read_build(path, BuildRequest(chip=self._chip, consents=self._policy.consents))
        else:
            read_file(path)

    def _describe_board(self, device: Device) -> dict[str, str]:
        """Variables of this board, some of which enter the row of the report.

        :raises DataError: it has no row
        """
        flash = device.flash or device.attach_flash()
        known = {
            "mac": device.mac,
            "mac_hex": mac_digits(device.mac),
            "chip": device.chip.id,
            "flash_id": flash.id_hex,
        }
        self.row |= {name: known[name] for name in ("chip", "mac", "flash_id")}
        self.row |= {"flash_size": None if flash.assumed else flash.size, "steps": []}
        values = {**self._values, **known}
        if self._boards is not None:
            if not device.mac:
                raise Unsupported(
                    "the row of this board cannot be found: its MAC address cannot be read in Secure Download Mode",
                    hint="Use a job without [boards].",
                    code="secure-download-mode",
                )
            row = self._boards.find(device.mac, assign=not self.dry_run)
            values |= {name: value for name, value in row.items() if name != MAC}
        for name in self.job.report.fields if self.job.report else ():
            if not values.get(name):
                raise build_missing(name, values, f"the report, board {device.mac}")
            self.row[name] = values[name]
        return values

    def _prepare(self, context: StepContext) -> list[Work]:
        """All steps, ready to be run.

        :raises ToolError: one cannot be done
        """
        works, started = [], False
        for number, step in enumerate(self.job.steps, 1):
            if started and step.uses != APPLICATION:
                context.check_can_enter()
            started = step.uses != LOADER
            works.append(step.prepare(context, self._name(number, step)))
        return works

    def _run(self, context: StepContext, works: list[Work]) -> None:
        done: list[Details] = []
        self.row["steps"] = done
        progress = Parts(self._report, (work.size for work in works))
        context.report = progress
        for number, (step, work) in enumerate(zip(self.job.steps, works, strict=True), 1):
            progress.begin(number - 1)
            text = f"step {number} of {len(works)}: {step.describe()}"
            self._report(Note(text=text))
            began = context.device.transport.now()
            if step.uses != APPLICATION:
                context.require_loader()
            details = work.run()
            seconds = round(context.device.transport.now() - began, 3)
            done.append({"do": step.describe(), "seconds": seconds, **details})

    def _enter_again(self, device: Device) -> None:
        if self._enter is not None:
            self._enter(device)
        elif device.reenter is not None:
            device.reenter()
            device.use_stub()


def check_alive(device: Device) -> None:
    """Check after a pause that the loader still answers.

    :raises DeviceError: code ``chip-reset``: it does not; connect again
    """
    try:
        device.loader.sync(2)
    except NoReply:
        raise DeviceError(
            "the bootloader does not answer any more: the chip has reset during a pause",
            hint="Repeat the command.",
            code="chip-reset",
        ) from None


def list_unfinished(job: Job) -> list[dict[str, str]]:
    """The rows that belong to a board that has not passed, by the report: their serial numbers are void, or in work.

    :raises FileError, DataError: the files of the job cannot be read
    """
    if job.boards is None or job.report is None:
        raise DataError(
            "the job has no [boards] or no [report]",
            hint="Both are needed to find boards that did not pass.",
            code="job-file",
        )
    passed = open_report(job.report).list_passed()
    rows = open_boards(job.boards).list_assigned()
    return [row for row in rows if mac_digits(row[MAC]) not in passed]
