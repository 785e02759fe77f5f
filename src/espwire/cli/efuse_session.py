"""One run of eFuse commands: several may be on a line, and all burns among them are one.

Each command's function returns an ``EfuseCommand``. The session opens the eFuses, runs the commands that read, and burns what
the others request; if something was burned, the commands that read run again.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

from espwire.cli.efuse_options import efuse_options
from espwire.errors import FileError, UsageError

if TYPE_CHECKING:
    from espwire.cli.context import Context
    from espwire.cli.efuse_options import EfuseSettings
    from espwire.efuse.model import Field
    from espwire.efuse.plan import BurnPlan
    from espwire.efuse.planner import Planner
    from espwire.efuse.state import FuseState
    from espwire.efuse.store import FuseStore
    from espwire.efuse.tables import AnyField
    from espwire.efuse.wire import DeviceStore

DEFAULT_VIRTUAL_CHIP = "esp32"


def _require_new_file(path: str | None) -> None:
    """Refuse to replace a file by the eFuses of a token.

    :raises FileError: code ``file-exists``
    """
    if path is not None and os.path.lexists(path):
        raise FileError(
            f"{path!r} exists, and --token would replace it",
            hint="Choose a new file, or omit --token to use this one.",
            code="file-exists",
        )


class ReadCommand(NamedTuple):
    """A command that only reads."""

    run: Callable[[Session], None]


class BurnCommand(NamedTuple):
    """A command that burns, and how its options change the report.

    :ivar collect: adds the command's changes to the planner
    :ivar show_token: print the EFSW token of the burn
    :ivar show_sensitive: print key bytes
    :ivar after: a line of text about the state after the burn
    """

    collect: Callable[[Planner], None]
    show_token: bool = False
    show_sensitive: bool = False
    after: Callable[[FuseState], str] | None = None


class PlanCommand(NamedTuple):
    """The command that burns the plan in the file of ``--plan``."""


EfuseCommand = ReadCommand | BurnCommand | PlanCommand
ParseCommand = Callable[[list[str]], EfuseCommand]


def efuse_command(function: Callable[..., EfuseCommand]) -> Callable[..., EfuseCommand]:
    """A command's function, with the options that all eFuse commands share."""

    @functools.wraps(function)
    def wrapped(**values: Any) -> EfuseCommand:
        return function(**values)

    return efuse_options(wrapped)


class Session:
    """The eFuses of this run.

    :ivar settings: options of the eFuse commands
    :param parse_command: parses a command of a plan
    """

    def __init__(
        self, context: Context, settings: EfuseSettings, parse_command: ParseCommand
    ) -> None:
        self.context, self.settings, self._parse = context, settings, parse_command
        self._state: FuseState | None = None
        self._resources = ExitStack()  # holds the connection
        self._device: DeviceStore | None = None
        self._burns = False

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
            return self._connect()
        from espwire.efuse.store import open_file, store_from_token
        from espwire.efuse.tables import parse_fuse_chip
        from espwire.efuse.token import parse_token

        token = parse_token(settings.token) if settings.token else None
        chip_id = parse_fuse_chip(chip or (token.chip if token else DEFAULT_VIRTUAL_CHIP))
        if token is not None and token.chip != chip_id:
            raise UsageError(f"the token is of {token.chip}, not {chip_id}", hint="Omit --chip.")
        if token is not None:
            _require_new_file(settings.path)
            store = store_from_token(token)
            store.path = settings.path
            return store
        if settings.path is not None:
            empty_is_blank = not self.context.program.strict
            return open_file(settings.path, chip_id, empty_is_blank=empty_is_blank)
        from espwire.efuse.store import VirtualStore

        return VirtualStore(chip_id)

    def _connect(self) -> FuseStore:
        """The eFuses of the connected chip.

        :raises ToolError: it cannot be reached, or its eFuses cannot be read
        """
        from espwire.efuse.wire import DeviceStore

        # burns go through the stub flasher, because its requests have a checksum
        device = self._resources.enter_context(self.context.device(bulk=self._burns))
        if self.settings.chip not in (None, device.chip.id):
            raise UsageError(
                f"the chip is {device.chip.name}, not {self.settings.chip}", hint="Omit --chip."
            )
        self._device = DeviceStore(device)
        return self._device

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

    def show_summary(self, fields: Sequence[AnyField]) -> bool:
        """Print these fields grouped by purpose, if people look at a terminal; False: nothing was printed."""
        from espwire.cli.efuse_text import draw_groups
        from espwire.cli.output import is_terminal, wants_colour

        context = self.context
        quiet = context.json or context.quiet or context.program.announces
        if quiet or context.output.diverted or not is_terminal(sys.stdout):
            return False
        context.stop_drawing()
        colour = wants_colour(sys.stdout, os.environ)
        context.output.line(draw_groups(self.state, fields, colour=colour), styled=True)
        return True

    def recover(self) -> None:
        """Burn blocks with coding errors again.

        :raises DeviceError: the controller refuses
        """
        from espwire.efuse.burn import recover

        recover(self.store)
        self.reread()

    def run(self, lines: list[list[str]], commands: list[EfuseCommand]) -> None:
        """Run all commands. ``lines``: the words that they were parsed from.

        :raises ToolError: one fails; nothing is burned if that is found before the burn
        """
        with self._resources:
            self._run(lines, commands)
            path = self.settings.path
            if path is not None and (self.settings.token or not os.path.exists(path)):
                self._save_new_file()

    def _save_new_file(self) -> None:
        """Virtual eFuses without a burn, or those of a token."""
        from espwire.efuse.store import VirtualStore

        if isinstance(self.store, VirtualStore):
            self.store.save()

    def _run(self, lines: list[list[str]], commands: list[EfuseCommand]) -> None:
        readers = [each for each in commands if isinstance(each, ReadCommand)]
        self._burns = len(readers) < len(commands)
        pairs = list(zip(lines, commands, strict=True))
        for words, reader in pairs:
            if isinstance(reader, ReadCommand):
                self._announce(words)
                reader.run(self)
        if len(readers) == len(commands):
            return
        if any(isinstance(each, PlanCommand) for each in commands):
            burned = self._burn_file(commands)
        else:
            burners = [(words, each) for words, each in pairs if isinstance(each, BurnCommand)]
            for words, _ in burners:
                self._announce(words)
            burned = self._burn([each for _, each in burners], [words for words, _ in burners])
        if burned:
            self.reread()
            for words, reader in pairs:
                if isinstance(reader, ReadCommand):
                    self._announce(words)
                    reader.run(self)

    def _announce(self, words: list[str]) -> None:
        """Print which command runs, if the program does so."""
        if self.context.program.announces:
            name = words[0].replace("_", "-")
            self.context.result("efuse run", f'\n=== Run "{name}" command ===', {"name": name})

    def _burn_file(self, commands: list[EfuseCommand]) -> bool:
        """Burn the plan in a file; False: it is burned already.

        :raises UsageError: other commands are on the line, or the file has commands that do not burn
        :raises DataError, DeviceError: the file is not a plan, or not for this chip in its state
        """
        from espwire.efuse.plan_file import read_plan, require_known_state

        if self.settings.plan is None or any(isinstance(each, BurnCommand) for each in commands):
            raise UsageError(
                "burn needs --plan FILE, and no other command that burns",
                hint="Write `efuse burn --plan FILE`.",
            )
        content = read_plan(self.settings.plan)
        kept = dict(vars(self.settings))
        burners = [self._parse_planned(words) for words in content["commands"]]
        vars(self.settings).update(kept)  # a plan does not change this run's options
        burning = [each for each in burners if isinstance(each, BurnCommand)]
        if len(burning) < len(burners) or not burning:
            raise self._not_burning()
        require_known_state(content, self.state)
        return self._burn(burning, content["commands"], content)

    def _parse_planned(self, words: list[str]) -> EfuseCommand:
        """Parse a command of a plan.

        :raises UsageError: it does not parse, or only prints its help
        """
        from click.exceptions import Exit

        if "--help" in words:
            raise self._not_burning()
        try:
            return self._parse(words)
        except Exit:
            raise self._not_burning() from None

    def _not_burning(self) -> UsageError:
        return UsageError(
            f"{self.settings.plan!r} has commands that do not burn", hint="Make a new plan."
        )

    def _report_nothing(self, unproven: Sequence[str]) -> None:
        """Report that all bits are burned already, and which blocks cannot be read."""
        from espwire.cli.efuse_plan_text import DONE

        self._check_unproven(unproven)
        text = f"Nothing to burn: it is already burned.\n{DONE}"
        self.context.result(
            "efuse burn", text, {"already_burned": True, "unproven": list(unproven)}
        )

    def _check_unproven(self, unproven: Sequence[str]) -> None:
        """Stop if blocks are burned and hidden: they may hold another key.

        :raises SafetyStop: code ``efuse-unproven``: the consent is missing
        """
        from espwire.efuse.plan import judge_unproven
        from espwire.flash.findings import Policy, stop_if_fatal

        findings = judge_unproven(unproven)
        stop_if_fatal(findings, Policy(consents=self.settings.consents))
        for finding in findings:
            self.context.warn(finding.code, finding.text)

    def _burn(
        self,
        burners: list[BurnCommand],
        commands: list[list[str]],
        content: dict[str, Any] | None = None,
    ) -> bool:
        """Burn what the commands request; False: all of it is burned already, or only the plan was written.

        :param content: of the plan's file that the commands come from
        :raises SafetyStop: the user refuses
        """
        from espwire.cli import efuse_plan_text as texts
        from espwire.efuse import plan_file
        from espwire.efuse.burn import burn, rehearse
        from espwire.efuse.plan import plan_burn
        from espwire.efuse.planner import Planner

        planner = Planner(self.state)
        for burner in burners:
            burner.collect(planner)
        plan = plan_burn(planner, postpone=self.settings.postpone)
        if content is not None:
            plan_file.require_same(content, plan)
        sensitive = any(burner.show_sensitive for burner in burners)
        if not plan.steps:
            hidden = () if content is None else plan_file.find_hidden(content, self.state)
            self._report_nothing(hidden or plan.unproven)
            return False
        self._check_unproven(plan.unproven)
        rehearse(plan)
        data = texts.plan_data(plan, sensitive=sensitive)
        self.context.result("efuse plan", texts.draw_plan(plan, sensitive=sensitive), data)
        self._stop_dangers(planner, plan)
        if any(burner.show_token for burner in burners):
            token = texts.draw_token(plan)
            text = f"eFuse token for burning:\n{token}"
            self.context.result("efuse token", text, {"token": token})
        if self.settings.plan is not None and content is None:
            planner.require_storable()
            shown = texts.plan_data(plan, sensitive=False)
            plan_file.write_plan(self.settings.plan, plan, commands, shown)
            self.context.note(f"the plan was written to {self.settings.plan}; nothing was burned")
            return False
        if self.settings.confirm:
            texts.confirm_burn(self.context)
        lines: list[str] = []
        state = burn(
            plan,
            self.store,
            lambda step, proven: lines.append(texts.describe_step(step, proven)),
        )
        lines += [burner.after(state) for burner in burners if burner.after is not None]
        self.context.result("efuse burn", "\n".join([*lines, texts.DONE]), data)
        return True

    def _stop_dangers(self, planner: Planner, plan: BurnPlan) -> None:
        """Report what is dangerous about a burn.

        :raises SafetyStop: the consent to a danger is missing
        """
        from espwire.efuse.danger import Surroundings, find_dangers
        from espwire.flash.findings import Policy, stop_if_fatal

        device = self._device
        around = Surroundings() if device is None else device.find_surroundings(plan)
        findings = [*planner.dangers, *find_dangers(plan, around)]
        for finding in findings:
            if not finding.fatal:
                self.context.warn(finding.code, finding.text)
        stop_if_fatal(findings, Policy(consents=self.settings.consents))
