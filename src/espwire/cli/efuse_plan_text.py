"""The plan of a burn as text and data, and the question before it. Key bytes appear only if the user asks for them."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from espwire.efuse import meaning
from espwire.efuse.danger import find_fixed_voltage
from espwire.efuse.model import Field
from espwire.efuse.plan import BurnPlan, BurnStep, FieldChange
from espwire.efuse.security_status import CRYPT_COUNTS
from espwire.efuse.token import Token, build_token
from espwire.errors import Cancelled, SafetyStop

if TYPE_CHECKING:
    from espwire.cli.context import Context

CONFIRM = "BURN"
DONE = "Successful."
HIDDEN = "??"
WIDTH = 100


def draw_plan(plan: BurnPlan, *, sensitive: bool) -> str:
    """What changes, for people."""
    lines = ["Plan of the burn:"]
    lines += [f"  {_draw_change(plan, change, sensitive=sensitive)}" for change in plan.changes]
    lines.append("Order: " + ", ".join(f"BLOCK{step.block}" for step in plan.steps))
    if voltage := _find_new_voltage(plan):
        lines.append(f"Flash voltage: {voltage}")
    for title, names in list_effects(plan):
        text = f"{title.capitalize()}: {', '.join(names)}"
        lines += textwrap.wrap(text, WIDTH, subsequent_indent="    ")
    lines.append("This cannot be undone.")
    return "\n".join(lines)


def list_effects(plan: BurnPlan) -> list[tuple[str, tuple[str, ...]]]:
    """What can never be undone: titles, and names of eFuses."""
    effects = (
        ("no longer readable", plan.unreadable),
        ("write-protected for ever", plan.locked),
        ("final, because their block takes one burn", plan.final),
    )
    return [(title, names) for title, names in effects if names]


def _find_new_voltage(plan: BurnPlan) -> str:
    """The flash voltage that the burn fixes; empty: none."""
    after = find_fixed_voltage(plan.state_after)
    return after if after != find_fixed_voltage(plan.before) else ""


def explain_change(plan: BurnPlan, change: FieldChange) -> str:
    """What the new value of a field means; empty if the number says it."""
    field = plan.before.layout.find(change.name)
    if change.secret or not isinstance(field, Field):
        return ""
    if field.name in CRYPT_COUNTS:
        return f"flash encryption {'on' if change.after.bit_count() % 2 else 'off'}"
    value = meaning.describe(plan.before.change(plan.after), field)
    return value if isinstance(value, str) and value != "?" else ""


def _draw_change(plan: BurnPlan, change: FieldChange, *, sensitive: bool) -> str:
    if change.secret and not sensitive:
        hidden = " ".join([HIDDEN] * -(-change.bits // 8))
        return f"{change.name} (BLOCK{change.block}): -> [{hidden}]"
    if change.bits % 8 == 0 and change.bits > 64:
        data = change.after.to_bytes(change.bits // 8, "little").hex(" ")
        return f"{change.name} (BLOCK{change.block}): -> [{data}]"
    about = explain_change(plan, change)
    if about and change.bits % 8 == 0 and change.bits > 32:
        return f"{change.name} (BLOCK{change.block}): -> {about.removesuffix(' (OK)')}"
    text = f"{change.name} (BLOCK{change.block}): {change.before:#x} -> {change.after:#x}"
    return f"{text} ({about})" if about else text


def plan_data(plan: BurnPlan, *, sensitive: bool) -> dict[str, Any]:
    """The plan for programs."""
    return {
        "changes": [_change_data(change, sensitive=sensitive) for change in plan.changes],
        "order": [step.block for step in plan.steps],
        "unreadable": list(plan.unreadable),
        "locked": list(plan.locked),
        "final": list(plan.final),
    }


def _change_data(change: FieldChange, *, sensitive: bool) -> dict[str, Any]:
    hidden = change.secret and not sensitive
    return {
        "name": change.name,
        "block": change.block,
        "before": None if hidden else f"{change.before:#x}",
        "after": None if hidden else f"{change.after:#x}",
    }


def describe_step(step: BurnStep, proven: bool) -> str:
    """What was burned, with the words that scripts look for."""
    how = "write block == read block" if proven else "all write block bits are set"
    return f"BURN BLOCK{step.block:<2} - OK ({how})"


def draw_token(plan: BurnPlan) -> str:
    """The EFSW token: the bits that the burn sets, key bytes included."""
    state = plan.before
    blocks = [new & ~old for new, old in zip(plan.after, state.blocks, strict=True)]
    token = Token("EFSW", state.data.id, state.revision, tuple(blocks))
    return build_token(token, [state.size(block) // 8 for block in state.data.blocks])


def confirm_burn(context: Context, lines: Sequence[str] = (), *, step: str = "") -> None:
    """Have the user type BURN.

    :param lines: printed before the request
    :param step: of a guided plan, which continues with this step when it is run again
    :raises SafetyStop: code ``efuse-not-confirmed``: something else was typed, or there is no input
    :raises Cancelled: Ctrl-C
    """
    context.stop_drawing()
    context.output.line("\n".join([*lines, f"Type '{CONFIRM}' (all capitals) to continue."]))
    answer = _read_answer()
    if (
        answer is None
    ):  # raised here, because main() takes an error during KeyboardInterrupt for Ctrl-C itself
        place = f" in step {step}" if step else ""
        raise Cancelled(
            f"stopped by Ctrl-C; nothing was burned{place}", hint="Run the command again to burn."
        )
    if answer != CONFIRM:
        raise _not_confirmed(step)


def _read_answer() -> str | None:
    """A line of the user; None: Ctrl-C."""
    try:
        return "" if sys.stdin is None else sys.stdin.readline().strip()
    except KeyboardInterrupt:
        return None


def _not_confirmed(step: str) -> SafetyStop:
    if step:
        return SafetyStop(
            f"not confirmed; nothing was burned in step {step}",
            hint="Run the command again to continue with this step. Type BURN, or add --do-not-confirm.",
            code="efuse-not-confirmed",
        )
    return SafetyStop(
        "not confirmed; nothing was burned",
        hint="Type BURN, or add --do-not-confirm.",
        code="efuse-not-confirmed",
    )
