"""What the steps of a job share: the board, its data, and what was written so far."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from espwire.blob import Blob
from espwire.errors import Unsupported
from espwire.events import Report, silent
from espwire.flash.findings import Policy
from espwire.flash.read_table import read_partition_table
from espwire.image.build_file import find_table
from espwire.image.partition_table import Partition, PartitionTable, find_partition
from espwire.jobs.variables import fill, fill_path
from espwire.sizes import subtract_ranges

if TYPE_CHECKING:
    from espwire.chips.model import Chip
    from espwire.device.device import Device
    from espwire.flash.journal import Journal

Details = dict[str, object]  # about a step, for the report


class Work(NamedTuple):
    """A step that is ready to be run. ``size``: bytes that it writes."""

    run: Callable[[], Details]
    size: int = 0


@dataclass(kw_only=True)
class StepContext:
    """The board, its data, and what was written so far.

    ``values``: of the variables; ``folder``: of the job file.

    ``enter``: resets the chip into its loader again, after its application was started. ``coming``: what the steps that
    are prepared so far will write; ``written``: what the steps that were run have written and the flash should hold.
    """

    device: Device
    values: Mapping[str, str]
    folder: str
    chip: Chip | None = None  # that the job is for, if it names one
    enter: Callable[[], None]
    policy: Policy = field(default_factory=Policy)
    journal: Journal | None = None
    report: Report = silent
    coming: list[Blob] = field(default_factory=list)
    written: tuple[Blob, ...] = ()
    output: bytes = b""  # of the application, received and not yet examined
    started: bool = False  # the application runs
    _table: PartitionTable | None = None

    def find_partition(self, name: str) -> Partition:
        """A partition by the table that the job writes, else by that in flash.

        :raises Unsupported, TableError: there is no table, or no such partition in it
        """
        table = find_table(reversed(self.coming))
        if table is None:
            table = self._table = self._table or read_partition_table(self.device)
        return find_partition(table, name)

    def fill(self, text: str, where: str) -> str:
        """A text with the values of its variables.

        :raises DataError: code ``job-variable``
        """
        return fill(text, self.values, where)

    def find_file(self, name: str, where: str) -> str:
        """The path of a file that the job names, relative to the job's folder.

        :raises DataError: code ``job-variable``
        """
        return os.path.join(self.folder, fill_path(name, self.values, where))

    def require_loader(self) -> None:
        """Have the loader run.

        :raises ToolError: it does not answer
        """
        if self.started:
            self.check_can_enter()
            self.enter()
            self.started = False

    def check_can_enter(self) -> None:
        """Check that the loader can be entered again.

        :raises Unsupported: code ``cannot-reset``
        """
        if self.device.reenter is None:
            raise Unsupported(
                "a step of the job needs the bootloader after the application was started, and this port cannot reset the chip",
                hint="Use a port with reset lines, and leave out --before no-reset.",
                code="cannot-reset",
            )

    def note_written(self, blobs: Iterable[Blob]) -> None:
        """The flash now holds ``blobs``."""
        new = [blob for blob in blobs if blob.data]
        self.note_erased((blob.address, blob.end) for blob in new)
        self.written = (*self.written, *new)

    def note_erased(self, ranges: Iterable[tuple[int, int]]) -> None:
        """These ranges of flash do not hold what earlier steps have written there."""
        gone = tuple(ranges)
        self.written = tuple(
            replace(blob, address=start, data=blob.data[start - blob.address : end - blob.address])
            for blob in self.written
            for start, end in subtract_ranges([(blob.address, blob.end)], gone)
        )
