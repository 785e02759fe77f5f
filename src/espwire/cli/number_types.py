"""Types of options and arguments that are numbers: plain numbers, flash addresses, memory addresses."""

from __future__ import annotations

from typing import Any

import click

from espwire.errors import UsageError
from espwire.sizes import parse_flash_address, parse_number

NO_LIMIT = (1 << 64) - 1  # the options have their own limits


class Number(click.IntRange):
    """A whole number, decimal or hexadecimal (``0x1C200``)."""

    def _describe_range(self) -> str:
        """click would show it in help."""
        return ""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As click's, for any base. Without units: a rate of 1M is not 1,048,576.

        :raises UsageError: it is not a number
        """
        if isinstance(value, str) and not value.startswith("-"):
            if value[-1:] in "kKmMbB" and not value.lower().startswith("0x"):
                self.fail(f"{value!r} is not a plain number.", param, ctx)
            value = parse_number(
                value, param.opts[-1] if param is not None else "number", limit=NO_LIMIT
            )
        number = click.INT.convert(value, param, ctx)
        if self.min is not None and number < self.min:
            self.fail(f"{number:,} is less than {self.min:,}.", param, ctx)
        if self.max is not None and number > self.max:
            self.fail(f"{number:,} is more than {self.max:,}.", param, ctx)
        return number


class FlashAddress(Number):
    """A flash address."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As ``Number``; refuses decimal numbers that are probably meant to be hexadecimal.

        :raises UsageError: it is not a number, or probably a mistake
        """
        if isinstance(value, str) and not value.startswith("-"):
            value = parse_flash_address(
                value, strict=ctx is None or ctx.obj is None or ctx.obj.program.strict
            )
        return super().convert(value, param, ctx)


def parse_plain(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> int | None:
    """Callback of an argument that is any number.

    :raises UsageError: it is not a number
    """
    return None if value is None else parse_number(value, parameter.name or "number")


def parse_address(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> int | None:
    """Callback of a flash address."""
    return None if value is None else parse_flash_address(value, strict=context.obj.program.strict)


def parse_memory_address(context: click.Context, parameter: click.Parameter, value: str) -> int:
    """Callback of a memory address. These have eight hexadecimal digits: eight decimal digits lack ``0x``.

    :raises UsageError: it is not a number, or probably a mistake
    """
    number = parse_number(value, "address")
    if value.isdecimal() and len(value) == 8:
        raise UsageError(
            f"address {value!r} is decimal ({number:#x}); no chip has memory there",
            hint=f"Write 0x{value}.",
        )
    return number
