"""One run of eFuse commands: several may be on a line, and all burns among them are one.

Each command's function returns a step. The session opens the eFuses, runs the steps that read, and burns what the others
want; if something was burned, the steps that read run again.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from espwire.cli.efuse_options import efuse_options
from espwire.errors import UsageError

if TYPE_CHECKING:
    from espwire.cli.context import Context
    from espwire.cli.efuse_options import EfuseSettings
    from espwire.efuse.model import Field
    from espwire.efuse.state import FuseState
    from espwire.efuse.store import FuseStore

DEFAULT_VIRTUAL_CHIP = "esp32"


class ReadStep(NamedTuple):
    """A command that only reads."""

    run: Callable[[Session], None]


Step = ReadStep


def step(function: Callable[..., Step]) -> Callable[..., Step]:
    """A command's function, with the options that all eFuse commands share."""

    @functools.wraps(function)
    def wrapped(**values: Any) -> Step:
        return function(**values)

    return efuse_options(wrapped)


class Session:
    """The eFuses of this run.

    :ivar settings: options of the eFuse commands
    """

    def __init__(self, context: Context, settings: EfuseSettings) -> None:
        self.context, self.settings = context, settings
        self._state: FuseState | None = None

    @cached_property
    def custom(self) -> tuple[Field, ...]:
        """Fields of the table of ``--extend-efuse-table``."""
        if self.settings.table is None:
            return ()
        from espwire.efuse.custom_table import read_custom_table

        return read_custom_table(self.settings.table, self.store.data)

    @cached_property
    def store(self) -> FuseStore:
        """Where the eFuses are.

        :raises UsageError, DataError: the options do not fit
        """
        settings, chip = self.settings, self.settings.chip or self.context.chip
        if not (settings.virtual or settings.token or settings.path):
            raise UsageError(
                "eFuses of a board cannot be used yet, only virtual ones",
                hint="Add --virt, and --path-efuse-file FILE to keep them.",
                code="not-yet",
            )
        from espwire.efuse.store import open_file, store_from_token
        from espwire.efuse.tables import parse_fuse_chip
        from espwire.efuse.token import parse_token

        token = parse_token(settings.token) if settings.token else None
        chip_id = parse_fuse_chip(chip or (token.chip if token else DEFAULT_VIRTUAL_CHIP))
        if token is not None and token.chip != chip_id:
            raise UsageError(
                f"the token is of {token.chip}, not {chip_id}", hint="Omit --chip."
            )
        if token is not None:
            store = store_from_token(token)
            if settings.path is not None:
                store.path = settings.path
                store.save()
            return store
        if settings.path is not None:
            return open_file(settings.path, chip_id)
        from espwire.efuse.store import VirtualStore

        return VirtualStore(chip_id)

    @property
    def state(self) -> FuseState:
        """What the eFuses hold now."""
        if self._state is None:
            self._state = self.store.read(self.custom)
        return self._state

    def reread(self) -> FuseState:
        """Read the eFuses again."""
        self._state = None
        return self.state

    def output(self, command: str, text: str, data: dict[str, Any], path: str | None) -> None:
        """The result of a command, or its text into a file.

        :raises FileError: the file cannot be written
        """
        if path is None:
            self.context.result(f"efuse {command}", text, data)
            return
        from espwire.files import write_file

        write_file(path, f"{text}\n".encode())
        self.context.result(f"efuse {command}", f"{command}: written to {path}", data)

    def recover(self) -> None:
        """Burn blocks with coding errors again."""

    def run(self, steps: list[Step]) -> None:
        """Run all steps.

        :raises ToolError: one fails
        """
        for each in steps:
            if isinstance(each, ReadStep):
                each.run(self)

