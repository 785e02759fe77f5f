"""The settings of a run: options, environment, settings files, and the defaults of a build folder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from espwire.cli.config import SETTINGS, Value, build_settings, read_environment
from espwire.transport.url import find_scheme

if TYPE_CHECKING:
    from espwire.cli.config_files import Loaded
    from espwire.settings import Settings


class RunSettings:
    """Values by the names of the table in ``config.py``.

    :param options: values of options by setting; parsing the command line adds to them
    """

    def __init__(self, options: dict[str, Any] | None = None) -> None:
        self.options: dict[str, Any] = dict(options or {})
        self.defaults: dict[str, Any] = {}  # of a build folder; everything else overrides them
        self.use_files = True  # whether settings files and environment count
        self._loaded: Loaded | None = None  # with problems that are not reported yet

    @cached_property
    def values(self) -> dict[str, Value]:
        """Values from settings files and environment.

        :raises UsageError: a file or a variable has an invalid value
        """
        if not self.use_files:
            return {}
        from espwire.cli.config_files import read_files

        self._loaded = read_files(os.environ, self.options.get("config"))
        return self._loaded.values | read_environment(os.environ)

    def is_set(self, name: str) -> bool:
        """Whether the user gave a value, in any way."""
        return name in self.options or name in self.values

    def find(self, name: str) -> Any:
        """The value that counts: option, environment, file, build folder, default."""
        if name in self.options:
            return self.options[name]
        if name in self.values:
            return self.values[name].value
        return self.defaults.get(name, SETTINGS[name].default)

    @property
    def json(self) -> bool:
        """Whether output is JSON."""
        return bool(self.options.get("json"))

    @property
    def quiet(self) -> bool:
        """Whether only results, warnings and errors are printed."""
        return bool(self.options.get("quiet"))

    @property
    def verbose(self) -> bool:
        """Whether more detail is printed."""
        return bool(self.options.get("verbose"))

    def scan(self, arguments: Sequence[str]) -> None:
        """Find the options that decide how errors are printed, also on a line that cannot be parsed."""
        for name, flag in (("json", "--json"), ("trace", "--trace")):
            if flag in arguments:
                self.options[name] = True

    def settings(self) -> Settings:
        """The library's settings."""
        values = dict(self.values)
        if "connect_attempts" in self.options:
            attempts = SETTINGS["connect_attempts"].parse(self.options["connect_attempts"])
            values["connect_attempts"] = Value(attempts, "--connect-attempts")
        if find_scheme(self.find("port") or "") == "labgrid":
            from espwire.transport.place import OPEN_ATTEMPTS

            values.setdefault("open_attempts", Value(OPEN_ATTEMPTS, "labgrid"))
        return build_settings(values)
