"""Types of options and arguments that are numbers: plain ones, addresses in flash, addresses of memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

NO_LIMIT = (1 << 64) - 1  # of numbers whose options have their own limits


class Number(click.IntRange):
    """A whole number, written as in C if one likes: ``0x1C200``."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As click's, for any base. Units are not read: a rate of 1M is not 1,048,576.

        :raises UsageError: it is not a number
        """
        if isinstance(value, str) and not value.startswith("-"):
            from espwire.sizes import parse_number

            if value[-1:] in "kKmMbB" and not value.lower().startswith("0x"):
                self.fail(f"{value!r} is not a plain number.", param, ctx)
            value = parse_number(
                value, param.opts[-1] if param is not None else "number", limit=NO_LIMIT
            )
        return super().convert(value, param, ctx)


class FlashAddress(Number):
    """A number that is an address in flash."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As ``Number``; a decimal number that is a likely mistake is refused.

        :raises UsageError: it is not a number, or a likely mistake
        """
        if isinstance(value, str) and not value.startswith("-"):
            from espwire.sizes import parse_flash_address

            value = parse_flash_address(
                value, strict=ctx is None or ctx.obj is None or ctx.obj.program.strict
            )
        return super().convert(value, param, ctx)


def parse_pair_address(word: str, words: Sequence[str], *, strict: bool) -> int:
    """The address of a pair that has no name; ``words`` are all words of the list, for the error.

    :raises UsageError: it is not an address
    """
    from espwire.cli.argument_mistakes import explain_place
    from espwire.errors import UsageError
    from espwire.sizes import parse_flash_address

    try:
        return parse_flash_address(word, strict=strict)
    except UsageError as error:
        raise explain_place(word, words) or error from None


def parse_address(context: click.Context, parameter: click.Parameter, value: str) -> int:
    """Callback of an argument that is a flash address."""
    from espwire.sizes import parse_flash_address

    return parse_flash_address(value, strict=context.obj.program.strict)


def parse_memory_address(context: click.Context, parameter: click.Parameter, value: str) -> int:
    """Callback of an argument that is an address of memory or registers.

    All of them have eight hexadecimal digits; the same number of decimal digits is a forgotten ``0x``.

    :raises UsageError: it is not a number, or a likely mistake
    """
    from espwire.errors import UsageError
    from espwire.sizes import parse_number

    number = parse_number(value, "address")
    if value.isdecimal() and len(value) == 8:
        raise UsageError(
            f"address {value!r} is decimal ({number:#x}), where no chip has memory",
            hint=f"Write 0x{value}.",
        )
    return number
