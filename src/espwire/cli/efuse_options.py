"""The options that all eFuse commands share. They may be before or after any of the commands on a line."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

import click

from espwire.cli.options import require_content
from espwire.errors import check_consents

KEY = "espwire.efuse"
F = TypeVar("F", bound=Callable[..., Any])


@dataclass
class EfuseSettings:
    """Values of the options.

    :ivar chip: of ``--chip``; None: as set elsewhere
    :ivar path: file of the virtual eFuses
    :ivar confirm: ask for BURN before anything is burned
    :ivar postpone: burn the bits that stop later burns last
    :ivar table: CSV file with custom fields
    :ivar consents: names of dangers that are allowed
    :ivar plan: file of a plan: written instead of burning, or what the command ``burn`` burns
    """

    chip: str | None = None
    virtual: bool = False
    token: str | None = None
    path: str | None = None
    confirm: bool = True
    postpone: bool = True
    table: str | None = None
    plan: str | None = None
    consents: frozenset[str] = frozenset()


def find_settings(context: click.Context) -> EfuseSettings:
    """The settings of this run, which all commands on the line share."""
    settings: EfuseSettings = context.find_root().meta.setdefault(KEY, EfuseSettings())
    return settings


def _store(name: str) -> Callable[[click.Context, click.Parameter, Any], None]:
    def store(context: click.Context, parameter: click.Parameter, value: Any) -> None:
        require_content(parameter, value)
        if value is not None:
            setattr(find_settings(context), name, value)

    return store


def _store_chip(context: click.Context, parameter: click.Parameter, value: str | None) -> None:
    """``auto`` means any; the S3's table is also called ``linux``."""
    require_content(parameter, value)
    if value is not None and value.lower() != "auto":
        from espwire.efuse.tables import parse_fuse_chip

        find_settings(context).chip = parse_fuse_chip(value)


def _add_consents(
    context: click.Context, parameter: click.Parameter, value: tuple[str, ...]
) -> None:
    find_settings(context).consents |= check_consents(value)


def _flag(name: str, spelling: str, help: str, *, value: bool | None = True) -> click.Option:
    return click.Option(
        [f"efuse_{name}", spelling],
        is_flag=True,
        flag_value=value,
        default=None,
        expose_value=False,
        callback=_store(name),
        help=help,
    )


def _text(name: str, spelling: str, metavar: str, help: str) -> click.Option:
    return click.Option(
        [f"efuse_{name}", *spelling.split("|")],
        metavar=metavar,
        expose_value=False,
        callback=_store_chip if name == "chip" else _store(name),
        help=help,
    )


def build_options(*, hidden: bool) -> list[click.Option]:
    """The options, in the order of the help."""
    options = [
        _text("chip", "-c|--chip", "CHIP", "Chip of the eFuses; for virtual ones, default: esp32."),
        _flag("virtual", "--virt", "Use virtual eFuses instead of a board's."),
        _text("path", "--path-efuse-file", "FILE", "Keep the virtual eFuses in this file."),
        _text("token", "--token", "TOKEN", "Start with virtual eFuses as in this token."),
        _flag("confirm", "--do-not-confirm", "Burn without asking for BURN.", value=False),
        click.Option(
            ["efuse_postpone", "--postpone/--no-postpone"],
            default=None,
            expose_value=False,
            callback=_store("postpone"),
            help="Burn bits that stop later burns last (default), or with the others.",
        ),
        click.Option(
            ["efuse_allow", "--allow"],
            multiple=True,
            metavar="NAME",
            expose_value=False,
            callback=_add_consents,
            help="Burn in spite of a danger, by the name shown in its error message. Repeatable.",
        ),
        _text("plan", "--plan", "FILE", "Write the plan of the burn to this file; burn nothing."),
        _text(
            "table", "--extend-efuse-table", "CSV", "Add the fields of an ESP-IDF table of eFuses."
        ),
    ]
    for option in options:
        option.hidden = hidden
    debug = click.Option(
        ["efuse_debug", "-d", "--debug"],
        is_flag=True,
        expose_value=False,
        hidden=True,
        help="Accepted for compatibility with espefuse; has no effect.",
    )
    return [*options, debug]


def efuse_options(function: F) -> F:
    """Add the options to a command's function, hidden from its help: the group shows them."""
    for option in reversed(build_options(hidden=True)):
        parameters = function.__dict__.setdefault("__click_params__", [])
        parameters.append(option)
    return function
