"""Options of the commands that touch the flash part: how it is wired, of which kind it is, what is consented to."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
NAND = "NAND flash is out of scope: no ROM loader drives it, it needs a stub that does, and we have none"


def spi_connection_option(command: F) -> F:
    """``-sc/--spi-connection``: kept in the session, which tells the device when it is connected."""
    return click.option(
        "-sc",
        "--spi-connection",
        metavar="PINS",
        expose_value=False,
        callback=_keep_connection,
        help="Where the flash is: SPI, HSPI, or CLK,Q,D,HD,CS as GPIO numbers. Default: as the eFuses say.",
    )(command)


def flash_options(command: F) -> F:
    """``-sc`` and ``-ft``: of the commands that work on flash contents."""
    command = click.option(
        "-ft",
        "--flash-type",
        type=click.Choice(("nor", "nand")),
        default="nor",
        hidden=True,
        expose_value=False,
        callback=_refuse_nand,
    )(command)
    return spi_connection_option(command)


def allow_option(command: F) -> F:
    """``--allow NAME``, any number of times: the consents, as a frozen set called ``allow``."""
    return click.option(
        "--allow",
        multiple=True,
        metavar="NAME",
        callback=_parse_consents,
        help="Consent to what a guard refuses, by the name that it tells. May be repeated.",
    )(command)


def _keep_connection(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    from espwire.device.flash_id import parse_connection

    if value is not None:
        context.obj.spi_connection = parse_connection(value)


def _refuse_nand(context: click.Context, parameter: click.Parameter, value: str) -> None:
    if value == "nand":
        from espwire.errors import UsageError

        raise UsageError(
            NAND, hint="Leave --flash-type out for NOR flash; use esptool for NAND.", code="nand"
        )


def _parse_consents(
    context: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> frozenset[str]:
    from espwire.errors import check_consents

    consents: frozenset[str] = context.obj.program.consents
    return check_consents(value) | consents


def known_size_option(default: str) -> Callable[[F], F]:
    """``-fs/--flash-size`` of commands that change no header: ``parse_known_size`` reads it."""
    told = "4MB, …, where it cannot be read."
    return click.option("-fs", "--flash-size", metavar="SIZE", default=default, help=told)


def parse_known_size(value: str) -> int | None:
    """A flash size that the user may know better than the flash: bytes, or None to ask the flash.

    :raises UsageError: it is spelled in no known way
    """
    from espwire.sizes import parse_flash_size

    return None if value.lower() in ("detect", "keep") else parse_flash_size(value)
