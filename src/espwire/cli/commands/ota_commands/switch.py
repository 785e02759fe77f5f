"""``ota switch``: another application slot boots."""

from __future__ import annotations

import click

from espwire.cli.options import dry_run_option, input_format_option
from espwire.cli.places import place_options
from espwire.cli.session import Session


@click.command(
    "switch",
    help="Make SLOT boot: a partition's name, ota_1, 1, or factory. Of the device, or of a dump.",
)
@click.argument("slot", metavar="SLOT")
@click.argument("file", metavar="[FILE]", required=False)
@click.option(
    "--state",
    type=click.Choice(("undefined", "new", "valid")),
    default="undefined",
    help="new: it may roll back.",
)
@dry_run_option
@input_format_option
@place_options
@click.pass_obj
def command(session: Session, slot: str, file: str | None, state: str, dry_run: bool) -> None:
    """Write only what must change."""
    from espwire.cli.ota import open_dump, read_table_option
    from espwire.flash.partitions import (
        build_plan_event,
        read_partition_table,
        require_ota_data,
        switch_ota,
    )
    from espwire.image.ota import STATES, OtaData, OtaEntry, plan_switch

    if file is not None:
        dump = open_dump(file, session, to_change=True)
        place = require_ota_data(dump.table)
        data = dump.status.data or OtaData((OtaEntry(), OtaEntry()))
        change = plan_switch(dump.table, data, slot, STATES[state])
        session.report(build_plan_event(change, place))
        if not dry_run and not change.nothing:
            dump.apply(change)
    else:
        table = read_table_option(session)
        with session.device() as device:
            table = table or read_partition_table(device, session.partition_table_offset)
            change = switch_ota(
                device,
                slot,
                table=table,
                state=STATES[state],
                dry_run=dry_run,
                report=session.report,
            )
    name = change.slot.label
    if change.nothing:
        text = f"{name} boots already; nothing was written."
    else:
        text = (
            f"Nothing was written (--dry-run): {name} would boot."
            if dry_run
            else f"{name} boots next."
        )
    written = not (dry_run or change.nothing)
    told = {
        "slot": change.slot.label,
        "written": written,
        "erased": list(change.erase),
        "sector": change.write,
        "sequence": None if change.entry is None else change.entry.sequence,
    }
    session.finish("ota switch", text, told)
