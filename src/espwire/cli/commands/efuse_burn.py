"""``efuse burn-efuse``, ``burn-bit``, ``burn-block-data``, ``burn-key`` and the other commands that burn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from espwire.cli.efuse_options import find_settings
from espwire.cli.efuse_session import BurnCommand, PlanCommand, efuse_command
from espwire.cli.number_types import Number
from espwire.errors import UsageError

if TYPE_CHECKING:
    from espwire.efuse.keys import Key
    from espwire.efuse.planner import Planner
    from espwire.efuse.state import FuseState

token_option = click.option(
    "--show-token", is_flag=True, help="Print the EFSW token of the burn; it contains key bytes."
)
force_option = click.option(
    "--force-write-always",
    "force",
    is_flag=True,
    help="Add bits to data that has others. Locks and coding still hold.",
)
sensitive_option = click.option(
    "--show-sensitive-info", "sensitive", is_flag=True, help="Print key bytes."
)
no_read_option = click.option(
    "--no-read-protect", is_flag=True, help="Leave the key readable by software."
)
no_write_option = click.option(
    "--no-write-protect", is_flag=True, help="Leave the key block unlocked."
)
no_protect_option = click.option(
    "--no-protect-key", is_flag=True, help="ESP32: neither hide nor lock the key block."
)


@click.command()
@efuse_command
def burn_plan() -> PlanCommand:
    """Burns what the commands of the plan request, if the chip is in the state that the plan assumes."""
    return PlanCommand()


@click.command()
@click.argument("words", metavar="NAME VALUE…", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Add bits to a value that has others.")
@token_option
@efuse_command
def burn_efuse(words: tuple[str, ...], force: bool, show_token: bool) -> BurnCommand:
    """The VALUE of a single flag or counter may be omitted: it becomes the next one."""
    pairs = [(words[0], None)] if len(words) == 1 else pair_up(words)

    def collect(planner: Planner) -> None:
        from espwire.efuse.requests import request_fields

        request_fields(planner, pairs, force=force)

    return BurnCommand(collect, show_token)


def pair_up(words: Sequence[str]) -> list[tuple[str, str | None]]:
    """Names and values.

    :raises UsageError: a value is missing
    """
    if len(words) % 2:
        raise UsageError(
            f"{words[-1]} has no value", hint="Write NAME VALUE for each of several eFuses."
        )
    return list(zip(words[::2], words[1::2], strict=True))


@click.command()
@click.argument("block")
@click.argument("bits", metavar="BIT…", nargs=-1, required=True, type=Number())
@force_option
@token_option
@efuse_command
def burn_bit(block: str, bits: tuple[int, ...], force: bool, show_token: bool) -> BurnCommand:
    """BIT is a number from 0 on, counted from the lowest bit of the first word of BLOCK."""

    def collect(planner: Planner) -> None:
        from espwire.efuse.requests import request_bits

        request_bits(planner, block, bits, force=force)

    return BurnCommand(collect, show_token)


@click.command()
@click.argument("words", metavar="BLOCK FILE…", nargs=-1, required=True)
@click.option(
    "-o", "--offset", type=Number(), default=0, help="First byte in the block; for one BLOCK."
)
@force_option
@token_option
@efuse_command
def burn_block_data(
    words: tuple[str, ...], offset: int, force: bool, show_token: bool
) -> BurnCommand:
    """For data. Use burn-key for keys: it reverses and protects them as the hardware needs it."""
    pairs = _read_pairs(words)
    if offset and len(pairs) > 1:
        raise UsageError("--offset needs exactly one BLOCK", hint="Use one command per BLOCK.")
    if len({name.upper() for name, _ in pairs}) < len(pairs):
        raise UsageError("a block is named twice", hint="Name each block once.")

    def collect(planner: Planner) -> None:
        from espwire.efuse.requests import request_data

        for block, data in pairs:
            request_data(planner, block, data, offset=offset, force=force)

    return BurnCommand(collect, show_token)


def _read_pairs(words: Sequence[str]) -> list[tuple[str, bytes]]:
    from espwire.files import read_file

    if len(words) % 2:
        raise UsageError(f"no file given for {words[-1]}", hint="Write BLOCK FILE.")
    return [(block, read_file(path)) for block, path in zip(words[::2], words[1::2], strict=True)]


class KeyCommand(click.Command):
    """A command whose help lists the key blocks and purposes of the chip."""

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the lists, or how to get them."""
        super().format_epilog(ctx, formatter)
        chip = find_settings(ctx).chip
        if chip is None:
            formatter.write_paragraph()
            formatter.write_text("Add --chip CHIP before the command for its blocks and purposes.")
            return
        from espwire.efuse.tables import load_fuses

        data = load_fuses(chip)
        purposes = (purpose for purpose in data.key_purposes if purpose.block is None)
        names = list(dict.fromkeys(purpose.name for purpose in purposes))
        names += [f"CUSTOM_{number}" for number in data.custom_purpose_values]
        rows = [("BLOCK", " ".join(data.key_blocks)), ("PURPOSE", " ".join(names))]
        with formatter.section(data.name):
            formatter.write_dl(rows if names else rows[:1])


@click.command(cls=KeyCommand)
@click.argument("words", metavar="BLOCK KEYFILE [PURPOSE]…", nargs=-1, required=True)
@no_protect_option
@no_read_option
@no_write_option
@force_option
@sensitive_option
@token_option
@efuse_command
def burn_key(words: tuple[str, ...], **options: bool) -> BurnCommand:
    """All chips except the ESP32 need PURPOSE; on the ESP32, the name of the block implies it."""
    return _key_step(words, options, digest=False)


@click.command(cls=KeyCommand)
@click.argument("words", metavar="[BLOCK] KEYFILE [PURPOSE]…", nargs=-1, required=True)
@no_protect_option
@no_read_option
@no_write_option
@force_option
@sensitive_option
@token_option
@efuse_command
def burn_key_digest(words: tuple[str, ...], **options: bool) -> BurnCommand:
    """KEYFILE is a PEM file with a key of secure boot version 2; the digest of its public part is burned."""
    return _key_step(words, options, digest=True)


def _key_step(words: tuple[str, ...], options: dict[str, Any], *, digest: bool) -> BurnCommand:
    def collect(planner: Planner) -> None:
        from espwire.efuse.key_arguments import read_digests, read_keys
        from espwire.efuse.keys import request_keys

        protect = not options["no_protect_key"]
        keys: list[Key] = (read_digests if digest else read_keys)(planner, words)
        request_keys(
            planner,
            keys,
            read_protect=protect and not options["no_read_protect"],
            write_protect=protect and not options["no_write_protect"],
            force=options["force"],
        )

    return BurnCommand(collect, options["show_token"], options["sensitive"])


@click.command()
@click.argument("address", metavar="MAC")
@force_option
@token_option
@efuse_command
def burn_custom_mac(address: str, force: bool, show_token: bool) -> BurnCommand:
    """Firmware uses the custom address only if it is written to do so."""
    from espwire.efuse.requests import parse_mac

    mac = parse_mac(address)

    def collect(planner: Planner) -> None:
        from espwire.efuse.requests import request_custom_mac

        request_custom_mac(planner, mac, force=force)

    def after(state: FuseState) -> str:
        from espwire.cli.efuse_text import draw_custom_mac

        remark = "Firmware uses this address only if it is written to do so."
        return f"{draw_custom_mac(state)}\n{remark}"

    return BurnCommand(collect, show_token, after=after)


@click.command()
@click.argument("names", metavar="EFUSE…", nargs=-1, required=True)
@token_option
@efuse_command
def read_protect_efuse(names: tuple[str, ...], show_token: bool) -> BurnCommand:
    """Software can never read these eFuses again."""

    def collect(planner: Planner) -> None:
        from espwire.efuse.requests import request_read_locks

        request_read_locks(planner, names)

    return BurnCommand(collect, show_token)


@click.command()
@click.argument("names", metavar="EFUSE…", nargs=-1, required=True)
@token_option
@efuse_command
def write_protect_efuse(names: tuple[str, ...], show_token: bool) -> BurnCommand:
    """These eFuses, and those that share their locks, can never be burned again."""

    def collect(planner: Planner) -> None:
        from espwire.efuse.requests import request_write_locks

        request_write_locks(planner, names)

    return BurnCommand(collect, show_token)


@click.command()
@click.argument("voltage", type=click.Choice(("1.8V", "3.3V", "OFF")))
@token_option
@efuse_command
def set_flash_voltage(voltage: str, show_token: bool) -> BurnCommand:
    """The strapping pin no longer matters then. A wrong voltage destroys the flash chip."""

    def collect(planner: Planner) -> None:
        from espwire.efuse.requests import request_flash_voltage

        request_flash_voltage(planner, voltage)

    return BurnCommand(collect, show_token)
