"""Job files: TOML that lists the steps of a job, the data of each board and the report. Parsing touches no other file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from espwire.chips.registry import parse_chip_id
from espwire.errors import UsageError
from espwire.files import read_file
from espwire.jobs.boards import BoardSource
from espwire.jobs.database import SUFFIXES
from espwire.jobs.keys import Keys, build_mistake
from espwire.jobs.report import COLUMNS, JSON_LINES, ReportTarget
from espwire.jobs.steps import STEPS, Step, StepOrder
from espwire.jobs.variables import BUILT_IN, NAME
from espwire.text import shorten

FILE_LIMIT = 1 << 20
CSV = (".csv",)


@dataclass(frozen=True, kw_only=True)
class Job:
    """A job file. Paths are absolute; ``chip`` is a chip's id, or empty: any chip."""

    name: str
    steps: tuple[Step, ...]
    folder: str = ""
    sha256: str = ""
    chip: str = ""
    variables: Mapping[str, str]
    boards: BoardSource | None = None
    report: ReportTarget | None = None


def read_job(path: str | os.PathLike[str]) -> Job:
    """The job in a file.

    :raises FileError: it cannot be read
    :raises DataError: code ``job-file``: it has a mistake
    """
    data = read_file(path, limit=FILE_LIMIT)
    return parse_job(data, os.path.abspath(os.fspath(path)))


def parse_job(data: bytes, path: str) -> Job:
    """The job in the content of a file.

    :param path: its name for errors; its folder is the one that paths in it are relative to
    :raises DataError: code ``job-file``
    """
    import tomllib

    folder, file = os.path.split(path)
    try:
        tables = tomllib.loads(data.decode("utf-8-sig"))
    except RecursionError:
        raise build_mistake(f"{file} is not valid TOML: it is nested too deeply") from None
    except ValueError as error:  # also bytes that are not UTF-8, and huge numbers
        raise build_mistake(f"{file} is not valid TOML: {shorten(str(error), 200)}") from None
    keys = Keys(tables, f"{file}:")
    keys.expect("name", "chip", "variables", "boards", "report", "step")
    job = Job(
        name=keys.text("name", os.path.splitext(file)[0]),
        chip=_parse_chip(keys.text("chip", ""), file),
        folder=folder,
        sha256=hashlib.sha256(data).hexdigest(),
        variables=_parse_variables(keys.table("variables"), file),
        boards=_parse_boards(keys.table("boards"), folder),
        report=_parse_report(keys.table("report"), folder),
        steps=tuple(_parse_steps(keys.tables("step"), file)),
    )
    if not job.steps:
        raise build_mistake(f"{file} has no steps", 'Add [[step]] and a line such as do = "write".')
    return job


def _parse_chip(name: str, file: str) -> str:
    try:
        return parse_chip_id(name) if name else ""
    except UsageError as error:
        raise build_mistake(f"{file}: chip: {error}", error.hint) from None


def _parse_variables(keys: Keys | None, file: str) -> dict[str, str]:
    values = {} if keys is None else {name: keys.text(name) for name in keys.names()}
    for name in values:
        check_variable(name, f"{file}: variables")
    return values


def check_variable(name: str, where: str) -> None:
    """:raises DataError: code ``job-file``: a variable cannot have this name"""
    if not NAME.fullmatch(name):
        text = f"{where}: {shorten(name)!r} cannot be the name of a variable"
        raise build_mistake(text, "Use letters, digits and _.")
    if name in BUILT_IN:
        text = f"{where}: {name} is read from the board"
        raise build_mistake(text, "Use another name for the variable.")


def _parse_boards(keys: Keys | None, folder: str) -> BoardSource | None:
    if keys is None:
        return None
    keys.expect("file", "table")
    path = os.path.join(folder, keys.text("file"))
    _check_ending(path, (*CSV, *SUFFIXES), keys)
    return BoardSource(path, keys.text("table", BoardSource._field_defaults["table"]))


def _parse_report(keys: Keys | None, folder: str) -> ReportTarget | None:
    if keys is None:
        return None
    keys.expect("file", "fields")
    path = os.path.join(folder, keys.text("file"))
    _check_ending(path, (*JSON_LINES, *CSV, *SUFFIXES), keys)
    target = ReportTarget(path, keys.texts("fields"))
    for name in target.fields:
        if not NAME.fullmatch(name) or name in COLUMNS or target.fields.count(name) > 1:
            text = f"{keys.where}: fields: {shorten(name)!r} cannot be added to the report"
            raise build_mistake(text, f"Each field is a variable, other than {', '.join(COLUMNS)}.")
    return target


def _check_ending(path: str, endings: Iterable[str], keys: Keys) -> None:
    if os.path.splitext(path)[1].lower() not in endings:
        text = f"{keys.where}: the kind of {shorten(os.path.basename(path))} is unknown"
        raise build_mistake(text, f"Its name must end in {', '.join(endings)}.")


def _parse_steps(tables: Iterable[Keys], file: str) -> Iterable[Step]:
    order = StepOrder()
    for number, keys in enumerate(tables, 1):
        keys.where = f"{file}: step {number}"
        name = keys.text("do")
        kind = STEPS.get(name)
        if kind is None:
            raise keys.unknown_value("do", name, STEPS)
        keys.where += f" ({name})"
        step = kind.parse(keys)
        order.check(step, keys)
        yield step
