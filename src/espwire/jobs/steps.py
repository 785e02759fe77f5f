"""The steps of jobs. Each kind is a class and a line in ``STEPS``.

A step is used three times. ``parse`` makes it from the keys of a ``[[step]]`` table. ``prepare`` reads its files and checks
all that can be checked with the board connected, for all steps before the first of them changes anything; it returns the
work, a function. ``describe`` and ``texts`` serve everything that needs no board.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import ClassVar, NamedTuple, Self

from espwire.blob import Blob, choose_for_chip
from espwire.errors import DataError
from espwire.events import Warned
from espwire.files import read_file
from espwire.flash.erase import erase_flash, erase_region
from espwire.flash.model import BLANK, FlashTarget, format_span
from espwire.flash.partitions import check_fits, check_inside
from espwire.flash.prepare import list_build_blobs
from espwire.flash.verify import verify_flash
from espwire.flash.write import check_write, write_flash
from espwire.image.build_dir import read_build
from espwire.image.build_file import BuildRequest
from espwire.image.header import HeaderSettings
from espwire.image.partition_table import Partition
from espwire.image.read_any import check_not_empty, read_input
from espwire.jobs.keys import Keys, build_mistake
from espwire.jobs.step_context import Details, StepContext, Work
from espwire.jobs.wait import WaitFor, repeats_a_repetition, wait_for_line
from espwire.text import escape, shorten

Place = int | str  # an address, or the name of a partition
LONGEST_WAIT_S = 86_400.0
LONGEST_TEXT = 16 << 20
LOADER, APPLICATION, START = "loader", "application", "start"


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step of a job. ``encrypt``: the chip encrypts what it writes.

    ``uses``: what must run on the chip; START: it starts the application.
    """

    uses: ClassVar[str] = LOADER
    encrypt: bool = False

    @classmethod
    def parse(cls, keys: Keys) -> Self:
        """The step that a ``[[step]]`` table describes.

        :raises DataError: code ``job-file``
        """
        raise NotImplementedError

    def describe(self) -> str:
        """One line for people; variables are not replaced."""
        raise NotImplementedError

    def texts(self) -> tuple[str, ...]:
        """The texts that may contain variables."""
        return ()

    def files(self) -> tuple[str, ...]:
        """The files and folders that it reads, as the job names them."""
        return ()

    def prepare(self, context: StepContext, where: str) -> Work:
        """Read and check everything; the function that is returned does the work, and returns facts for the report.

        :param where: names the step in errors
        :raises ToolError: it cannot be done
        """
        raise NotImplementedError


class Content(NamedTuple):
    """What is written or compared: a file, a text, or a text file with variables.

    ``size``: bytes that a text takes; the rest is filled with FFh.
    """

    file: str = ""
    data: str = ""
    template: str = ""
    size: int = 0

    @classmethod
    def parse(cls, keys: Keys) -> Content:
        """:raises DataError: code ``job-file``: not exactly one of ``file``, ``data`` and ``template``"""
        kinds = [name for name in ("file", "data", "template") if keys.has(name)]
        if len(kinds) != 1:
            found = " and ".join(kinds) or "none of them"
            text = f"{keys.where} needs one of file, data and template; it has {found}"
            raise build_mistake(text)
        if kinds == ["file"]:
            if keys.has("size"):
                raise build_mistake(
                    f"{keys.where}: size belongs to data and template", "Remove it."
                )
            return cls(file=keys.text("file"))
        size = keys.number("size", least=1)
        if size > LONGEST_TEXT:
            raise build_mistake(f"{keys.where}: size is {size:,} bytes, more than 16 MiB")
        return cls(data=keys.text("data", ""), template=keys.text("template", ""), size=size)

    def describe(self) -> str:
        """For example ``app.bin``, or ``a text of up to 32 bytes``."""
        name = self.file or self.template
        return escape(name) if name else f"a text of up to {self.size} bytes"

    def read(self, context: StepContext, address: int, where: str) -> tuple[Blob, ...]:
        """:raises FileError, DataError: it cannot be used"""
        if not self.file:
            return (Blob(address, self._build_text(context, where), self.template or "the text"),)
        path = context.find_file(self.file, where)
        name = os.path.basename(path)
        blobs = read_input(read_file(path), name, address, chip=context.device.chip)
        check_not_empty(blobs, name)
        return choose_for_chip(blobs, context.device.chip.id)

    def _build_text(self, context: StepContext, where: str) -> bytes:
        text = self.data
        if self.template:
            path = context.find_file(self.template, where)
            try:
                text = read_file(path, limit=LONGEST_TEXT).decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{where}: {self.template} is not text in UTF-8: {error}",
                    hint="Write a binary file with the key file.",
                    code="job-template",
                ) from None
            where = f"{where}: {self.template}"
        try:
            data = context.fill(text, where).encode()
        except UnicodeEncodeError:
            raise DataError(
                f"{where}: the text is not UTF-8: {shorten(context.fill(text, where))}",
                hint="Use UTF-8 in the values of --set.",
                code="job-template",
            ) from None
        if len(data) > self.size:
            raise DataError(
                f"{where}: the text has {len(data):,} bytes, more than its size, {self.size:,}",
                hint="Make size larger, or the values shorter.",
                code="job-template",
            )
        return data.ljust(self.size, BLANK)


def find_place(context: StepContext, place: Place) -> tuple[int, Partition | None]:
    """The address of a place, and the partition if it names one.

    :raises Unsupported, TableError: it cannot be found
    """
    if isinstance(place, int):
        return place, None
    partition = context.find_partition(place)
    return partition.offset, partition


def read_content(
    context: StepContext, content: Content, place: Place, where: str
) -> tuple[Blob, ...]:
    """The content as blobs, which fit into the partition that ``place`` names.

    :raises FileError, DataError: it cannot be used
    """
    address, partition = find_place(context, place)
    blobs = content.read(context, address, where)
    if partition is None:
        return blobs
    for blob in blobs:
        if blob.fixed:
            check_inside(partition, [(blob.address, blob.end)], blob.label)
        else:
            check_fits(partition, len(blob.data), blob.label)
    return blobs


def name_place(place: Place) -> str:
    """A place for people."""
    return f"{place:#x}" if isinstance(place, int) else shorten(place)


def prepare_write(context: StepContext, blobs: Iterable[Blob], settings: HeaderSettings) -> Work:
    """Check a write, and return what carries it out."""
    checked = check_write(context.device, blobs, policy=context.policy, settings=settings)
    blobs = checked.blobs
    _warn_of_overlaps(context, blobs)
    context.coming += blobs

    def work() -> Details:
        plan = write_flash(
            context.device,
            blobs,
            policy=context.policy,
            settings=settings,
            journal=context.journal,
            report=context.report,
        )
        context.note_written(blobs)
        return {
            "parts": describe_blobs(blobs),
            "bytes_written": plan.written,
            "unchecked": list(plan.unchecked),
        }

    return Work(work, sum(len(blob.data) for blob in blobs))


def _warn_of_overlaps(context: StepContext, blobs: Iterable[Blob]) -> None:
    """Warn if ``blobs`` replace data that an earlier step writes; filling its blank areas is what steps are for."""
    for blob in blobs:
        for earlier in context.coming:
            start, end = max(blob.address, earlier.address), min(blob.end, earlier.end)
            lost = earlier.data[start - earlier.address : end - earlier.address]
            if (
                start < end
                and lost.strip(BLANK)
                and lost != blob.data[start - blob.address :][: len(lost)]
            ):
                text = f"{blob.label} replaces {format_span(start, end)} of {earlier.label}, which an earlier step writes"
                context.report(Warned(code="step-replaces", text=text))


def describe_blobs(blobs: Iterable[Blob]) -> list[Details]:
    """Name, address, size and SHA-256 of each blob."""
    return [
        {
            "name": blob.label,
            "address": blob.address,
            "size": len(blob.data),
            "sha256": hashlib.sha256(blob.data).hexdigest(),
        }
        for blob in blobs
    ]


@dataclass(frozen=True, kw_only=True)
class EraseStep(Step):
    """Erase the whole flash (``place`` None), a partition, or ``size`` bytes from an address."""

    place: Place | None
    size: int = 0

    @classmethod
    def parse(cls, keys: Keys) -> Self:
        """As ``Step.parse``."""
        keys.expect("do", "all", "at", "size")
        if keys.flag("all"):
            if keys.has("at") or keys.has("size"):
                raise build_mistake(f"{keys.where}: all excludes at and size")
            return cls(place=None)
        if not keys.has("at"):
            raise build_mistake(f"{keys.where} needs at or all = true")
        place = keys.place("at")
        if isinstance(place, int):
            return cls(place=place, size=keys.number("size", least=1))
        if keys.has("size"):
            raise build_mistake(f"{keys.where}: size is that of the partition", "Remove it.")
        return cls(place=place)

    def describe(self) -> str:
        """As ``Step.describe``."""
        if self.place is None:
            return "erase the whole flash"
        amount = f"{self.size:#x} bytes at " if self.size else ""
        return f"erase {amount}{name_place(self.place)}"

    def prepare(self, context: StepContext, where: str) -> Work:
        """As ``Step.prepare``."""
        device, policy = context.device, context.policy
        if self.place is None:
            erase_flash(device, policy=policy, dry_run=True)
        else:
            address, partition = find_place(context, self.place)
            size = self.size if partition is None else partition.size
            erase_region(device, address, size, policy=policy, dry_run=True)

        def work() -> Details:
            if self.place is None:
                whole = erase_flash(device, policy=policy, report=context.report)
                context.note_erased([(0, whole)])
                return {"address": 0, "size": whole}
            erase_region(device, address, size, policy=policy, report=context.report)
            context.note_erased([(address, address + size)])
            return {"address": address, "size": size}

        return Work(work)


@dataclass(frozen=True, kw_only=True)
class FlashStep(Step):
    """Write a build folder, or a file that has its addresses, as ``espwire flash`` does."""

    path: str

    @classmethod
    def parse(cls, keys: Keys) -> Self:
        """As ``Step.parse``."""
        keys.expect("do", "path", "encrypt")
        return cls(path=keys.text("path"), encrypt=keys.flag("encrypt"))

    def describe(self) -> str:
        """As ``Step.describe``."""
        return f"flash {escape(self.path)}"

    def texts(self) -> tuple[str, ...]:
        """As ``Step.texts``."""
        return (self.path,)

    def files(self) -> tuple[str, ...]:
        """As ``Step.files``."""
        return (self.path,)

    def prepare(self, context: StepContext, where: str) -> Work:
        """As ``Step.prepare``."""
        request = BuildRequest(chip=context.chip, consents=context.policy.consents)
        build = read_build(context.find_file(self.path, where), request)
        return prepare_write(context, list_build_blobs(build, encrypt=self.encrypt), build.settings)


@dataclass(frozen=True, kw_only=True)
class WriteStep(Step):
    """Write a file or a text."""

    place: Place
    content: Content

    @classmethod
    def parse(cls, keys: Keys) -> Self:
        """As ``Step.parse``."""
        keys.expect("do", "at", "file", "data", "template", "size", "encrypt")
        encrypt = keys.flag("encrypt")
        return cls(place=keys.place("at"), content=Content.parse(keys), encrypt=encrypt)

    def describe(self) -> str:
        """As ``Step.describe``."""
        return f"write {self.content.describe()} to {name_place(self.place)}"

    def texts(self) -> tuple[str, ...]:
        """As ``Step.texts``."""
        return (self.content.file, self.content.template, self.content.data)

    def files(self) -> tuple[str, ...]:
        """As ``Step.files``."""
        return tuple(filter(None, (self.content.file, self.content.template)))

    def prepare(self, context: StepContext, where: str) -> Work:
        """As ``Step.prepare``."""
        blobs = read_content(context, self.content, self.place, where)
        encrypted = (replace(blob, encrypted=self.encrypt) for blob in blobs)
        return prepare_write(context, encrypted, HeaderSettings())


@dataclass(frozen=True, kw_only=True)
class VerifyStep(Step):
    """Compare flash with a file or a text; without one, with everything that the steps before have written."""

    place: Place = 0
    content: Content | None = None

    @classmethod
    def parse(cls, keys: Keys) -> Self:
        """As ``Step.parse``."""
        keys.expect("do", "at", "file", "data", "template", "size")
        if not any(map(keys.has, ("at", "file", "data", "template", "size"))):
            return cls()
        return cls(place=keys.place("at"), content=Content.parse(keys))

    def describe(self) -> str:
        """As ``Step.describe``."""
        if self.content is None:
            return "verify everything that was written"
        return f"verify {self.content.describe()} at {name_place(self.place)}"

    def texts(self) -> tuple[str, ...]:
        """As ``Step.texts``."""
        content = self.content or Content()
        return (content.file, content.template, content.data)

    def files(self) -> tuple[str, ...]:
        """As ``Step.files``."""
        return tuple(filter(None, self.texts()[:2]))

    def prepare(self, context: StepContext, where: str) -> Work:
        """As ``Step.prepare``."""
        named: tuple[Blob, ...] = ()
        if self.content is not None:
            named = read_content(context, self.content, self.place, where)
            target = FlashTarget.of(context.device)
            for blob in named:
                target.check_range(blob.address, blob.end)

        def work() -> Details:
            blobs = named if self.content is not None else context.written
            plain = [blob for blob in blobs if not blob.encrypted]
            verify_flash(context.device, plain, report=context.report)
            unchecked = [blob.label for blob in blobs if blob.encrypted]
            return {"parts": describe_blobs(plain), "unchecked": unchecked}

        return Work(work)


@dataclass(frozen=True, kw_only=True)
class RunStep(Step):
    """Start the application. ``baud``: of its output."""

    uses = START
    baud: int = 115200

    @classmethod
    def parse(cls, keys: Keys) -> Self:
        """As ``Step.parse``."""
        keys.expect("do", "baud")
        return cls(baud=keys.number("baud", 115200, least=1))

    def describe(self) -> str:
        """As ``Step.describe``."""
        return "start the application"

    def prepare(self, context: StepContext, where: str) -> Work:
        """As ``Step.prepare``."""

        def work() -> Details:
            context.output = context.device.start_application(self.baud)
            context.started = True
            return {}

        return Work(work)


@dataclass(frozen=True, kw_only=True)
class WaitStep(Step):
    """Wait until the application prints a line."""

    uses = APPLICATION
    wait: WaitFor

    @classmethod
    def parse(cls, keys: Keys) -> Self:
        """As ``Step.parse``."""
        keys.expect("do", "line", "fail", "seconds")
        line = _parse_pattern(keys, "line")
        fail = _parse_pattern(keys, "fail") if keys.has("fail") else None
        seconds = keys.seconds("seconds", 10.0, most=LONGEST_WAIT_S)
        return cls(wait=WaitFor(line, fail, seconds))

    def describe(self) -> str:
        """As ``Step.describe``."""
        return f"wait up to {self.wait.seconds:g} s for a line with {shorten(self.wait.line.pattern)!r}"

    def prepare(self, context: StepContext, where: str) -> Work:
        """As ``Step.prepare``."""

        def work() -> Details:
            output, context.output = context.output, b""
            line, context.output = wait_for_line(context.device.transport, self.wait, output)
            return {"line": line}

        return Work(work)


def _parse_pattern(keys: Keys, name: str) -> re.Pattern[str]:
    text = keys.text(name)
    try:
        if repeats_a_repetition(text):
            raise build_mistake(
                f"{keys.where}: {name} repeats a group that has a repetition or a choice in it, which may take forever",
                "Remove one of the repetitions: ab+ instead of (ab+)+.",
            )
        return re.compile(text)
    except (re.error, OverflowError, RecursionError) as error:
        text = f"{keys.where}: {name} is not a regular expression: {error}"
        raise build_mistake(text, "Put a backslash before characters such as ( and [.") from None


STEPS: dict[str, type[Step]] = {
    "erase": EraseStep,
    "flash": FlashStep,
    "write": WriteStep,
    "verify": VerifyStep,
    "run": RunStep,
    "wait": WaitStep,
}


class StepOrder:
    """Checks that a step for the application follows the one that starts it."""

    def __init__(self) -> None:
        self._started = False

    def check(self, step: Step, keys: Keys) -> None:
        """:raises DataError: code ``job-file``"""
        if step.uses == APPLICATION and not self._started:
            text = f"{keys.where}: the application does not run at this step"
            raise build_mistake(text, 'Put a step with do = "run" before it.')
        self._started = step.uses != LOADER
