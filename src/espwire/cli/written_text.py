"""The result of a write: how much was written and how far it is verified, as text and data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from espwire.blob import Blob
from espwire.text import escape

if TYPE_CHECKING:
    from espwire.cli.context import Context
    from espwire.flash.model import Plan


def report_written(
    context: Context,
    command: str,
    plan: Plan | None,
    blobs: Sequence[Blob],
    count: int,
    withheld: str = "",
    **data: Any,
) -> None:
    """Report what was written, and how far it was verified.

    :param plan: None if there is none, as with ``--show``
    :param count: number of files
    :param withheld: the option for which nothing was written
    :param data: more about the command's work, for programs
    """
    size = sum(len(blob.data) for blob in blobs)
    written = size > 0 and not withheld
    unchecked = [] if plan is None or withheld else list(plan.unchecked)
    files = f"{count} file{'s' if count > 1 else ''}, {size:,} bytes"
    if withheld:
        text = f"Nothing was written ({withheld}): {files}."
    elif not size:
        text = f"Nothing was written: {'the files are' if count > 1 else 'the file is'} empty."
    elif plan is not None and not plan.written and not unchecked and not plan.erases:
        text = f"Done: already up to date ({files}). To write it anyway, use --no-diff."
    elif plan is not None and plan.written < size and not unchecked:
        erased = " The partitions were erased." if plan.erases else ""
        text = f"Done: {files} verified, of which {plan.written:,} had to be written.{erased}"
    elif not unchecked:
        text = f"Done: {files} written and verified."
    elif plan is not None and plan.written < size:  # the rest is trusted to be in flash
        amount = f"{plan.written:,} bytes" if plan.written else "nothing"
        names = ", ".join(map(escape, unchecked))
        text = f"Done: {files}; {amount} had to be written. Not checked: {names}."
    else:
        extent = (
            "not" if len(unchecked) == sum(bool(blob.data) for blob in blobs) else "only partly"
        )
        text = f"Done: {files} written, but {extent} verified."
    unbooted = plan.unbooted if plan is not None else None
    if unbooted is not None:
        text += f" {unbooted.boots} boots, not {unbooted.written}."
    data |= {
        "bytes": size,
        "parts": [
            {"address": blob.address, "size": len(blob.data), "name": blob.name}
            | ({"role": blob.kind} if command == "flash" else {})
            for blob in blobs
        ],
        "written": written,
        "bytes_written": plan.written if plan is not None and written else 0,
        "verified": written and not unchecked,
        "unchecked": unchecked,
        "unbooted": unbooted._asdict() if unbooted is not None else None,
    }
    context.finish(command, text, data)
