"""`secure plan`: switch on secure boot, flash encryption, or switch JTAG off, in proven steps."""

from __future__ import annotations

import os
import sys
import textwrap
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import click

from espwire.cli.inputs import load_chip_option, parse_inputs, read_inputs
from espwire.cli.options import allow_option
from espwire.cli.secure_inputs import read_private_key, read_public_key
from espwire.errors import Unsupported, UsageError
from espwire.key_content import RAW_KEY_SIZES
from espwire.secure.key_files import find_key, read_key_file
from espwire.text import escape

if TYPE_CHECKING:
    from espwire.blob import Blob
    from espwire.cli.context import Context
    from espwire.efuse.plan import BurnPlan
    from espwire.efuse.secure_steps import SecureRequest, SecureStep
    from espwire.jobs.secure_plan import Plan, PlannedStep, Rehearsal
    from espwire.secure.keys import PrivateKey, PublicKey

AGGRESSIVE = "aggressive-revoke"
COMMAND = "secure plan"
DELETE = "DELETE"
WIDTH = 100


@click.command()
@click.argument("features", metavar="FEATURE[,FEATURE…]")
@click.argument("files", metavar="[BUILD | ADDRESS FILE…]", nargs=-1)
@click.option(
    "--key",
    "keys",
    metavar="FILE",
    multiple=True,
    help="A signing key (PEM, DER) or the flash encryption key. Repeatable.",
)
@click.option(
    "--mode",
    type=click.Choice(("development", "release")),
    required=True,
    help="development: only what the feature needs. release: also close what is still open.",
)
@click.option("--execute", is_flag=True, help="Carry out the steps on the board.")
@click.option("--do-not-confirm", is_flag=True, help="Burn without asking for BURN.")
@click.option(
    "--reserve",
    multiple=True,
    metavar="BLOCK",
    help="Leave this key block empty for another use. Repeatable.",
)
@click.option("--keep-download-mode", is_flag=True, help="Leave out the last step of release mode.")
@allow_option
@click.pass_obj
def plan(
    context: Context,
    features: str,
    files: tuple[str, ...],
    keys: tuple[str, ...],
    mode: str,
    execute: bool,
    do_not_confirm: bool,
    reserve: tuple[str, ...],
    keep_download_mode: bool,
    allow: frozenset[str],
) -> None:
    """FEATURE is secure-boot-v2, flash-encryption or jtag-off; several are joined by commas and become one plan. BUILD is a
    build folder; else name bootloader, partition table and application with their addresses. They are signed and encrypted
    with the keys.

    The steps are rehearsed on a virtual copy of the chip, which must then start the firmware. With --chip and without a
    port, it is a new chip. With --execute, the steps are carried out on the board; each is proven by reading it back. If
    the command stops, run it again: it continues with the first step that the chip does not show as done."""
    from espwire.efuse.secure_steps import SecureRequest

    signers, publics, flash_key = _read_keys(keys)
    request = SecureRequest(
        features=_parse_features(features),
        release=mode == "release",
        signing_keys=tuple(publics),
        flash_key=flash_key[1] if flash_key else b"",
        reserved=reserve,
        aggressive=AGGRESSIVE in allow,
        keep_download=keep_download_mode,
    )
    blobs = _read_firmware(context, files, allow)
    if not execute and context.chip is not None and context.get("port") is None:
        _show_offline(context, request, blobs, signers, allow)
        return
    _run_on_board(
        context, request, blobs, signers, allow, execute=execute, confirm=not do_not_confirm
    )
    if execute and flash_key and request.release:
        _ask_about_key(context, flash_key[0], asks=not do_not_confirm)


def _parse_features(text: str) -> frozenset[str]:
    from espwire.efuse.secure_steps import FEATURES

    names = frozenset(text.split(","))
    if unknown := sorted(names - {*FEATURES}):
        raise UsageError(
            f"unknown feature {unknown[0]!r}", hint=f"Features: {', '.join(FEATURES)}."
        )
    return names


def _read_keys(
    paths: Sequence[str],
) -> tuple[list[PrivateKey], list[PublicKey], tuple[str, bytes] | None]:
    """Private signing keys, public ones of all signing keys, and the flash encryption key with its file.

    :raises UsageError: there are two flash encryption keys
    :raises KeyFileError, FileError: a file cannot be used
    """
    signers: list[PrivateKey] = []
    publics: list[PublicKey] = []
    flash_key: tuple[str, bytes] | None = None
    for path in paths:
        data = read_key_file(path)
        if len(data) in RAW_KEY_SIZES:
            if flash_key is not None:
                raise UsageError("two flash encryption keys are given", hint="Give one.")
            flash_key = (path, data)
        elif find_key(data, escape(path)).private:
            signers.append(read_private_key(path))
            publics.append(signers[-1].public)
        else:
            publics.append(read_public_key(path))
    return signers, publics, flash_key


def _read_firmware(context: Context, words: Sequence[str], allow: frozenset[str]) -> list[Blob]:
    if len(words) != 1:
        return read_inputs(context, parse_inputs(words, strict=True, names=False))
    from espwire.image.build_dir import read_build
    from espwire.image.build_file import BuildRequest

    request = BuildRequest(chip=load_chip_option(context), consents=allow)
    return list(read_build(words[0], request).blobs)


def _show_offline(
    context: Context,
    request: SecureRequest,
    blobs: Sequence[Blob],
    signers: Sequence[PrivateKey],
    allow: frozenset[str],
) -> None:
    """The plan for a new chip."""
    from espwire.chips.registry import load_chip
    from espwire.efuse.tables import parse_fuse_chip
    from espwire.flash.findings import Policy
    from espwire.jobs.secure_plan import make_plan, rehearse, require_safe
    from espwire.virtual.efuses import default_config, fuse_registers
    from espwire.virtual.fuse_file import build_store

    chip = load_chip(parse_fuse_chip(context.chip or ""))
    state = build_store(chip, fuse_registers(chip, default_config(chip))).read()
    made = make_plan(state, request, blobs, signers)
    rehearsal = rehearse(made, state)
    _show(context, made, rehearsal, f"a new {chip.name}")
    require_safe(made, rehearsal, Policy(consents=allow - {AGGRESSIVE}))


def _run_on_board(
    context: Context,
    request: SecureRequest,
    blobs: Sequence[Blob],
    signers: Sequence[PrivateKey],
    allow: frozenset[str],
    *,
    execute: bool,
    confirm: bool,
) -> None:
    from espwire.efuse.wire import DeviceStore
    from espwire.flash.findings import Policy
    from espwire.jobs import secure_plan as jobs

    policy = Policy(consents=allow - {AGGRESSIVE})
    with context.device(bulk=True) as device:
        if device.secure_download:
            raise Unsupported(
                "in Secure Download Mode, no step can be done or proven; a finished release plan leaves a chip in this state",
                hint="Run `espwire secure status` to see what the chip still reports.",
                code="secure-download-mode",
            )
        store = DeviceStore(device)
        state = store.read()
        if blobs:
            device.attach_flash()
        made = jobs.make_plan(state, request, blobs, signers, jobs.open_flash(device))
        flash = jobs.DeviceFlash(device, made, policy, context.report)
        rehearsal = jobs.rehearse(made, state, store.find_surroundings)
        _show(context, made, rehearsal, f"this {device.chip.name} ({device.mac})")
        jobs.require_safe(made, rehearsal, policy)
        if not execute:
            return
        done: list[dict[str, str]] = []

        def on_step(step: SecureStep, how: str) -> None:
            done.append({"name": step.name, "how": how})
            context.note(f"step {step.name}: {HOW[how]}")

        jobs.execute(
            made,
            store,
            flash,
            policy=policy,
            confirm=lambda step: _confirm(context, step) if confirm else None,
            on_step=on_step,
            find_surroundings=store.find_surroundings,
        )
    context.finish(COMMAND, "All steps are done and proven.", {"executed": done})


HOW = {
    "done before": "was done before, proven by reading back",
    "done": "done, proven by reading back",
    "not readable": "done; the chip reports Secure Download Mode, in which its eFuses can no longer be read",
}


def _confirm(context: Context, step: PlannedStep) -> None:
    from espwire.cli.efuse_plan_text import confirm_burn

    lines = [f"Step {step.step.name}: {step.step.title}", *_describe_burn(step.plan)]
    lines += _describe_findings(step)
    confirm_burn(context, lines, step=step.step.name)


def _ask_about_key(context: Context, path: str, *, asks: bool) -> None:
    """Whoever has the key file can read and write this chip's flash: delete it, or keep it."""
    name = escape(path)
    context.stop_drawing()
    if asks and sys.stdin is not None and not context.json:
        context.output.line(
            f"Whoever has {name} can decrypt this chip's flash and encrypt firmware for it. Without it, you can no longer write"
            f" this chip over its port.\nType '{DELETE}' to delete the file, anything else to keep it."
        )
        with suppress(OSError, ValueError):
            if sys.stdin.readline().strip() == DELETE:
                os.remove(path)
                context.note(f"{name} was deleted")
                return
    context.warn(
        "plan-key-file",
        f"{name} still holds the flash encryption key of this chip: keep it in a safe place, or delete it",
    )


def _show(context: Context, made: Plan, rehearsal: Rehearsal, subject: str) -> None:
    request = made.request
    mode = "release" if request.release else "development"
    lines = [f"Plan for {subject}, {mode} mode: {', '.join(sorted(request.features))}"]
    if made.steps.blocks:
        blocks = (f"{block}: {use}" for block, use in made.steps.blocks.items())
        lines.append(f"Key blocks: {', '.join(blocks)}")
    for number, step in enumerate(rehearsal.steps, 1):
        lines.append(f"{number}. {step.step.name}: {step.step.title}")
        lines += [f"   {line}" for line in _describe(made, step)]
    lines += _describe_start(rehearsal)
    lines += [line for note in made.steps.notes for line in textwrap.wrap(f"Note: {note}", WIDTH)]
    context.result(COMMAND, "\n".join(lines), _data(made, rehearsal))


def _describe(made: Plan, step: PlannedStep) -> Iterator[str]:
    if step.plan is None:
        for blob in made.firmware.plain:
            yield f"{blob.address:#x}: {blob.label}, {len(blob.data):,} bytes"
        if not made.firmware.plain:
            yield "no files are given: the rehearsal does not start firmware"
        return
    yield from _describe_burn(step.plan)
    yield from _describe_findings(step)


def _describe_findings(step: PlannedStep) -> Iterator[str]:
    for finding in step.findings:
        yield from textwrap.wrap(f"{finding.text} [{finding.code}]", WIDTH)


def _describe_burn(burn: BurnPlan | None) -> Iterator[str]:
    from espwire.cli.efuse_plan_text import explain_change, list_effects

    if burn is None or not burn.steps:
        yield "burned already"
        return
    changes = (
        each.name
        if each.secret or each.bits > 64
        else f"{each.name} {each.before:#x} -> {each.after:#x}"
        + (f" ({about})" if (about := explain_change(burn, each)) else "")
        for each in burn.changes
    )
    for title, names in (("burns", changes), *list_effects(burn)):
        yield from textwrap.wrap(f"{title}: {', '.join(names)}", WIDTH, subsequent_indent="  ")


def _describe_start(rehearsal: Rehearsal) -> Iterator[str]:
    if rehearsal.start is None:
        yield "Rehearsal: all burns are possible on a virtual copy of the chip."
        return
    app = rehearsal.start.app
    name = "" if app is None else app.label
    yield f"Rehearsal: a virtual copy of the chip carries out all steps, then starts the application in {name}:"
    yield from (f"   {line}" for line in rehearsal.start.text.splitlines())


def _data(made: Plan, rehearsal: Rehearsal) -> dict[str, Any]:
    start = rehearsal.start
    return {
        "chip": made.chip.id,
        "features": sorted(made.request.features),
        "mode": "release" if made.request.release else "development",
        "key_blocks": made.steps.blocks,
        "steps": [_step_data(made, step) for step in rehearsal.steps],
        "starts": None if start is None else start.app is not None,
        "boot_text": None if start is None else start.text,
        "notes": list(made.steps.notes),
    }


def _step_data(made: Plan, step: PlannedStep) -> dict[str, Any]:
    data: dict[str, Any] = {"name": step.step.name, "title": step.step.title}
    if step.plan is None:
        files = [
            {"address": blob.address, "name": blob.label, "bytes": len(blob.data)}
            for blob in made.firmware.plain
        ]
        return data | {"kind": "write", "files": files}
    return data | {
        "kind": "burn",
        "burned": not step.plan.steps,
        "fields": [change.name for change in step.plan.changes],
        "unreadable": list(step.plan.unreadable),
        "locked": list(step.plan.locked),
        "findings": [finding.code for finding in step.findings],
    }
